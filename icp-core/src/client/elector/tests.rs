use alloc::collections::VecDeque;
use alloc::string::ToString;
use alloc::vec;

use proptest::prelude::{ProptestConfig, any, prop_assert, proptest};

use super::*;
use crate::api::Status;

/// A request on its way to the server, or a reply on its way back.
type Message = Result<ApiRequest, Result<Reply, ApiError>>;

/// One Lease behind compare-and-swap.
#[derive(Default)]
struct Server {
    lease: Option<Arc<Object>>,
    revision: u64,
}

fn fail(code: u16, reason: &str) -> Result<Reply, ApiError> {
    Err(ApiError::Status(Status::failure(code, reason, "no")))
}

impl Server {
    fn serve(&mut self, request: &ApiRequest) -> Result<Reply, ApiError> {
        match (&request.op, &self.lease) {
            (Operation::Get, None) => fail(404, reason::NOT_FOUND),
            (Operation::Get, Some(lease)) => Ok(Reply::Object(Arc::clone(lease))),
            (Operation::Create(_), Some(_)) => fail(409, reason::ALREADY_EXISTS),
            (Operation::Update(new), Some(old))
                if new.metadata.resource_version != old.metadata.resource_version =>
            {
                fail(409, reason::CONFLICT)
            }
            (Operation::Create(new) | Operation::Update(new), _) => {
                self.revision += 1;
                let mut new = Object::clone(new);
                new.metadata.resource_version = self.revision.to_string();
                self.lease = Some(Arc::new(new));
                Ok(Reply::Object(Arc::clone(self.lease.as_ref().unwrap())))
            }
            other => panic!("{other:?}"),
        }
    }
}

fn elector(identity: &str) -> LeaderElector {
    LeaderElector::new(LeaderElectorConfig::new("kube-system", "kcm", identity), Rng::new(3).child(identity))
}

/// Answers everything at once until the elector waits.
fn settle(e: &mut LeaderElector, server: &mut Server, now: Time, out: &mut Vec<ClientEffect>) {
    while let Some(effect) = out.pop() {
        let ClientEffect::Request { id, request } = effect else { panic!() };
        let result = server.serve(&request);
        e.on(now, &ClientEvent::Reply { id, result }, out);
    }
}

#[test]
fn first_candidate_leads_and_renews_every_two_seconds() {
    let (mut a, mut server, mut out) = (elector("a"), Server::default(), vec![]);
    a.start(Time::ZERO, &mut RequestIds::new(), &mut out);
    settle(&mut a, &mut server, Time::ZERO, &mut out);
    assert_eq!(a.leading(Time::ZERO), Some(Term(0)));
    assert_eq!(a.deadline(), Some(Time::from_secs(2)));
    assert_eq!(a.leading(Time::from_secs(10)), None, "not renewed");
    for s in 1..20 {
        let now = Time::from_secs(2 * s);
        a.wake(now, &mut out);
        assert!(
            matches!(&out[..], [ClientEffect::Request { request, .. }] if matches!(request.op, Operation::Update(_)))
        );
        settle(&mut a, &mut server, now, &mut out);
        assert_eq!(a.leading(now), Some(Term(0)));
    }
    assert_eq!(server.lease.unwrap().str_at("/spec/acquireTime"), "1970-01-01T00:00:00.000000Z");
}

#[test]
fn released_lease_is_taken_at_once_with_the_next_term() {
    let (mut a, mut b, mut server, mut out) = (elector("a"), elector("b"), Server::default(), vec![]);
    a.start(Time::ZERO, &mut RequestIds::new(), &mut out);
    settle(&mut a, &mut server, Time::ZERO, &mut out);
    let t = Time::from_secs(1);
    b.start(t, &mut RequestIds::new(), &mut out);
    settle(&mut b, &mut server, t, &mut out);
    assert_eq!((b.leading(t), b.holder()), (None, "a".to_string()));
    a.stop(t, &mut out);
    assert_eq!(a.leading(t), None);
    settle(&mut a, &mut server, t, &mut out);
    assert_eq!(a.deadline(), None);
    let t = b.deadline().unwrap();
    b.wake(t, &mut out);
    settle(&mut b, &mut server, t, &mut out);
    assert_eq!(b.leading(t), Some(Term(1)));
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(48))]
    /// Three candidates, lost and late messages, crashes: never two leaders at one time, and terms never go back.
    #[test]
    fn at_most_one_leader(seed in any::<u64>()) {
        let mut rng = Rng::new(seed);
        let mut server = Server::default();
        let mut candidates: Vec<LeaderElector> = (0..3).map(|i| elector(&i.to_string())).collect();
        let mut ids: Vec<RequestIds> = (0..3).map(|_| RequestIds::new()).collect();
        let mut wire: VecDeque<(Time, usize, RequestId, Message)> = VecDeque::new();
        let mut out = vec![];
        let (mut last_term, mut leaders_seen) = (Term(0), 0);
        for (i, c) in candidates.iter_mut().enumerate() {
            c.start(Time::ZERO, &mut ids[i], &mut out);
            for effect in out.drain(..) {
                let ClientEffect::Request { id, request } = effect else { panic!() };
                wire.push_back((Time::ZERO, i, id, Ok(request)));
            }
        }
        for tick in 0..1200_i64 {
            let now = Time::from_millis(tick * 100);
            let bad_times = (200..800).contains(&tick);
            for _ in 0..wire.len() {
                let Some((due, i, id, message)) = wire.pop_front() else { break };
                if due > now {
                    wire.push_back((due, i, id, message));
                    continue;
                }
                let delay = Duration::from_millis(if bad_times && rng.chance(200_000) { rng.below(14_000) } else { 50 });
                match message {
                    Ok(request) => {
                        let result = if bad_times && rng.chance(200_000) {
                            if rng.chance(500_000) { let _landed_unseen = server.serve(&request); }
                            Err(ApiError::Unreachable("lost".into()))
                        } else {
                            server.serve(&request)
                        };
                        wire.push_back((now + delay, i, id, Err(result)));
                    }
                    Err(result) => candidates[i].on(now, &ClientEvent::Reply { id, result }, &mut out),
                }
                for effect in out.drain(..) {
                    let ClientEffect::Request { id, request } = effect else { panic!() };
                    wire.push_back((now + delay, i, id, Ok(request)));
                }
            }
            for i in 0..3 {
                if candidates[i].deadline().is_some_and(|d| d <= now) {
                    candidates[i].wake(now, &mut out);
                }
                if bad_times && rng.chance(2_000) {
                    candidates[i] = elector(&alloc::format!("{i}-{tick}"));
                    candidates[i].start(now, &mut ids[i], &mut out);
                }
                for effect in out.drain(..) {
                    let ClientEffect::Request { id, request } = effect else { panic!() };
                    wire.push_back((now, i, id, Ok(request)));
                }
            }
            let leaders: Vec<Term> = candidates.iter().filter_map(|c| c.leading(now)).collect();
            prop_assert!(leaders.len() <= 1, "two leaders at {now:?}: {leaders:?}");
            if let [term] = leaders[..] {
                prop_assert!(term >= last_term);
                last_term = term;
                leaders_seen += 1;
            }
        }
        prop_assert!(leaders_seen > 300, "led {leaders_seen} of 1200 ticks");
    }
}
