use super::*;
use crate::api::{Status, resources};

type Out = Vec<ClientEffect>;

fn pod(name: &str, uid: &str, rv: &str) -> Arc<Object> {
    let mut o = Object::new("v1", "Pod", "default", name);
    o.metadata.uid = uid.into();
    o.metadata.resource_version = rv.into();
    Arc::new(o)
}

fn sent(out: &mut Out) -> (RequestId, ApiRequest) {
    assert_eq!(out.len(), 1, "{out:?}");
    match out.pop() {
        Some(ClientEffect::Request { id, request } | ClientEffect::Watch { id, request }) => (id, request),
        other => panic!("{other:?}"),
    }
}

fn page(id: RequestId, items: &[Arc<Object>], rv: &str, token: Option<&str>) -> ClientEvent {
    let reply = Reply::List {
        items: items.to_vec(),
        resource_version: rv.into(),
        continue_token: token.map(Into::into),
    };
    ClientEvent::Reply { id, result: Ok(reply) }
}

fn watched(id: RequestId, kind: WatchKind, object: Arc<Object>) -> ClientEvent {
    ClientEvent::Watch { id, event: WatchEvent { kind, object } }
}

fn expired() -> ApiError {
    ApiError::Status(Status::failure(410, reason::EXPIRED, "too old resource version"))
}

/// Started, one page listed, watching.
fn watching(items: &[Arc<Object>], rv: &str) -> (Informer, RequestId, Out) {
    let (mut i, mut out) = (Informer::new(resources::PODS, ListOptions::default()), Out::new());
    i.start(Time::ZERO, &mut RequestIds::new(), &mut out);
    let (id, _) = sent(&mut out);
    i.on(Time::ZERO, &page(id, items, rv, None), &mut out);
    let (id, request) = sent(&mut out);
    let Operation::Watch(options) = request.op else { panic!("{request:?}") };
    assert_eq!(options.resource_version.as_deref(), Some(rv));
    assert!(options.allow_bookmarks);
    (i, id, out)
}

#[test]
fn pages_are_joined_before_anything_is_told() {
    let (mut i, mut out) = (Informer::new(resources::PODS, ListOptions::default()), Out::new());
    i.start(Time::ZERO, &mut RequestIds::new(), &mut out);
    let (id, request) = sent(&mut out);
    assert!(matches!(&request.op, Operation::List(o) if o.limit == 500 && o.resource_version.is_none()));
    assert!(i.on(Time::ZERO, &page(id, &[pod("a", "1", "3")], "9", Some("t")), &mut out).is_empty());
    assert!(!i.synced());
    let (id, request) = sent(&mut out);
    assert!(matches!(&request.op, Operation::List(o) if o.continue_token.as_deref() == Some("t")));
    let deltas = i.on(Time::ZERO, &page(id, &[pod("b", "2", "4")], "9", None), &mut out);
    assert_eq!(deltas, [Delta::Added(pod("a", "1", "3")), Delta::Added(pod("b", "2", "4"))]);
    assert!(i.synced());
    assert_eq!(i.resource_version(), "9");
}

#[test]
fn items_that_do_not_say_their_kind_get_it() {
    let mut bare = Object::clone(&pod("a", "1", "3"));
    bare.kind.clear();
    bare.api_version.clear();
    let (i, _, _) = watching(&[Arc::new(bare)], "3");
    assert_eq!(i.get("default", "a"), Some(&pod("a", "1", "3")));
}

#[test]
fn watch_events_become_deltas() {
    let (mut i, id, mut out) = watching(&[pod("a", "1", "3")], "3");
    let t = Time::from_secs(1);
    let d = i.on(t, &watched(id, WatchKind::Modified, pod("a", "1", "5")), &mut out);
    assert_eq!(d, [Delta::Updated { old: pod("a", "1", "3"), new: pod("a", "1", "5") }]);
    let d = i.on(t, &watched(id, WatchKind::Added, pod("b", "2", "6")), &mut out);
    assert_eq!(d, [Delta::Added(pod("b", "2", "6"))]);
    let d = i.on(t, &watched(id, WatchKind::Deleted, pod("a", "1", "7")), &mut out);
    assert_eq!(d, [Delta::Deleted(pod("a", "1", "7"))]);
    assert!(i.on(t, &watched(id, WatchKind::Bookmark, pod("", "", "40")), &mut out).is_empty());
    // An event of another watch is not ours.
    assert!(i.on(t, &watched(id + 1, WatchKind::Added, pod("x", "9", "50")), &mut out).is_empty());
    // The server ends the watch: the next one starts at the bookmark.
    i.on(Time::from_secs(400), &ClientEvent::WatchClosed { id, error: None }, &mut out);
    let (_, request) = sent(&mut out);
    assert!(matches!(&request.op, Operation::Watch(o) if o.resource_version.as_deref() == Some("40")));
}

#[test]
fn expired_watch_lists_again_and_tells_missed_deletions() {
    let (mut i, id, mut out) = watching(&[pod("a", "1", "3"), pod("b", "2", "3"), pod("c", "3", "3")], "3");
    i.on(Time::from_secs(9), &ClientEvent::WatchClosed { id, error: Some(expired()) }, &mut out);
    assert!(out.is_empty());
    let due = i.deadline().unwrap();
    i.wake(due - Duration::from_millis(1), &mut out);
    assert!(out.is_empty(), "an early wake changes nothing");
    i.wake(due, &mut out);
    let (id, request) = sent(&mut out);
    assert!(matches!(request.op, Operation::List(_)));
    assert!(i.synced(), "what was known stays usable meanwhile");
    let now = [pod("b", "2", "8"), pod("c", "4", "9")];
    let d = i.on(due, &page(id, &now, "9", None), &mut out);
    assert_eq!(
        d,
        [
            Delta::Deleted(pod("a", "1", "3")),
            Delta::Updated { old: pod("b", "2", "3"), new: pod("b", "2", "8") },
            Delta::Deleted(pod("c", "3", "3")),
            Delta::Added(pod("c", "4", "9")),
        ]
    );
}

#[test]
fn failures_pause_longer_and_longer_and_keep_the_place() {
    let (mut i, mut id, mut out) = watching(&[], "3");
    let mut now = Time::from_secs(10);
    let mut pauses = Vec::new();
    for _ in 0..8 {
        let error = Some(ApiError::Unreachable("refused".into()));
        i.on(now, &ClientEvent::WatchClosed { id, error }, &mut out);
        let due = i.deadline().unwrap();
        pauses.push(due.since(now));
        now = due;
        i.wake(now, &mut out);
        let request;
        (id, request) = sent(&mut out);
        assert!(matches!(&request.op, Operation::Watch(o) if o.resource_version.as_deref() == Some("3")));
    }
    assert!(pauses[0] >= RETRY_INITIAL && pauses[0] <= 2 * RETRY_INITIAL, "{pauses:?}");
    assert!(pauses[7] >= RETRY_MAX && pauses[7] <= 2 * RETRY_MAX, "{pauses:?}");
}

#[test]
fn a_missing_resource_is_known_as_missing() {
    let (mut i, mut out) = (Informer::new(resources::JOBS, ListOptions::default()), Out::new());
    i.start(Time::ZERO, &mut RequestIds::new(), &mut out);
    let (id, _) = sent(&mut out);
    let error = ApiError::Status(Status::failure(404, reason::NOT_FOUND, "not found"));
    i.on(Time::ZERO, &ClientEvent::Reply { id, result: Err(error) }, &mut out);
    assert!(i.missing() && !i.synced());
}

#[test]
fn a_silent_watch_is_given_up() {
    let (mut i, old, mut out) = watching(&[], "3");
    let due = i.deadline().unwrap();
    assert!(due >= Time::ZERO + WATCH_TIMEOUT);
    i.wake(due, &mut out);
    assert_eq!(out.remove(0), ClientEffect::CloseWatch { id: old });
    let (_, request) = sent(&mut out);
    assert!(matches!(request.op, Operation::Watch(_)));
}
