use alloc::string::String;
use alloc::vec::Vec;

use super::*;
use crate::base::{Duration, Machine, Time};

/// Keeps what arrives; speaks when it is told to.
#[derive(Default)]
struct Ear {
    heard: Vec<(Time, Input<u32>)>,
    due: Option<Time>,
    stubborn: bool,
}

impl Machine for Ear {
    type Event = Input<u32>;
    type Effect = Output<u32>;

    fn on(&mut self, now: Time, event: Input<u32>, _out: &mut Vec<Output<u32>>) {
        self.heard.push((now, event));
    }

    fn wake(&mut self, now: Time, out: &mut Vec<Output<u32>>) {
        if self.due.is_some_and(|due| due <= now) && !self.stubborn {
            self.due = None;
            out.push(Output::Note("woke".into()));
        }
    }

    fn deadline(&self) -> Option<Time> {
        self.due
    }
}

type Net = World<Ear, NoDisk, u32>;

fn net(seed: u64, hosts: usize) -> Net {
    let mut world = World::new(seed, Time::from_secs(1_000));
    for i in 0..hosts {
        let id = world.add(&alloc::format!("h{i}"), NoDisk);
        world.start(id, Ear::default());
    }
    world
}

fn run(world: &mut Net, secs: u64) {
    let until = world.now() + Duration::from_secs(secs);
    while world.step(until).unwrap().is_some() {}
    assert_eq!(world.now(), until);
}

fn packets(world: &Net, host: HostId) -> Vec<u32> {
    let heard = &world.host(host).unwrap().heard;
    heard
        .iter()
        .filter_map(|(_, i)| if let Input::Packet { payload, .. } = i { Some(*payload) } else { None })
        .collect()
}

const A: HostId = HostId(0);
const B: HostId = HostId(1);

fn send(world: &mut Net, from: HostId, to: HostId, payload: u32) {
    world.with(from, |_, _, out| out.push(Output::Packet { to, payload }));
}

fn stream(world: &mut Net, from: HostId, id: StreamId, to: HostId, payload: u32, end: bool) {
    world.with(from, |_, _, out| out.push(Output::Stream { stream: id, to, payload, end }));
}

#[test]
fn good_links_keep_everything_in_order() {
    let mut world = net(1, 2);
    (0..200).for_each(|n| send(&mut world, A, B, n));
    run(&mut world, 1);
    assert_eq!(packets(&world, B), (0..200).collect::<Vec<_>>());
    assert_eq!(world.faults().total(), 0);
}

#[test]
fn bad_links_lose_double_and_reorder_packets_but_not_streams() {
    let mut world = net(2, 2);
    world.links.usual = LinkModel {
        loss_per_million: 200_000,
        duplicate_per_million: 200_000,
        reorder_per_million: 200_000,
        spike_per_million: 50_000,
        ..LinkModel::GOOD
    };
    let id = StreamId::new(A, 1, 1);
    for n in 0..300 {
        send(&mut world, A, B, n);
        stream(&mut world, A, id, B, n, n == 299);
    }
    run(&mut world, 60);
    for kind in ["packet lost", "packet doubled", "packet overtaken", "segment lost", "delay"] {
        assert!(world.faults().of(kind) > 5, "{kind}: {:?}", world.faults());
    }
    let got = packets(&world, B);
    assert!(got.iter().collect::<alloc::collections::BTreeSet<_>>().len() < 300, "some are lost");
    assert!(!got.is_sorted(), "some are overtaken");
    let in_stream: Vec<u32> = world
        .host(B)
        .unwrap()
        .heard
        .iter()
        .filter_map(|(_, i)| if let Input::Stream { payload, .. } = i { Some(*payload) } else { None })
        .collect();
    assert_eq!(in_stream, (0..300).collect::<Vec<_>>());
}

fn closed(world: &Net, host: HostId) -> Vec<Time> {
    let heard = &world.host(host).unwrap().heard;
    heard.iter().filter(|(_, i)| matches!(i, Input::Closed { .. })).map(|(at, _)| *at).collect()
}

#[test]
fn a_cut_breaks_streams_after_a_while_and_packets_at_once() {
    let mut world = net(3, 2);
    world.links.cut(A, B);
    send(&mut world, A, B, 1);
    send(&mut world, B, A, 2);
    stream(&mut world, A, StreamId::new(A, 1, 1), B, 3, false);
    run(&mut world, 30);
    assert!(packets(&world, B).is_empty());
    assert_eq!(packets(&world, A), [2], "the way back is another");
    let told = closed(&world, A)[0].since(Time::from_secs(1_000));
    assert!(told >= Duration::from_secs(2) && told <= Duration::from_secs(15), "{told:?}");
    world.links.heal();
    stream(&mut world, A, StreamId::new(A, 1, 1), B, 4, false);
    run(&mut world, 30);
    assert_eq!(world.host(B).unwrap().heard.len(), 1, "a broken stream stays broken");
}

#[test]
fn deaths_are_told_at_once_or_not() {
    for (death, soon) in [(Death::Process, true), (Death::Power, false)] {
        let mut world = net(4, 2);
        stream(&mut world, A, StreamId::new(A, 1, 1), B, 1, false);
        run(&mut world, 1);
        world.kill(B, death);
        assert!(!world.is_up(B));
        run(&mut world, 30);
        let told = closed(&world, A)[0].since(Time::from_secs(1_001));
        assert_eq!(told < Duration::from_millis(10), soon, "{death:?}: {told:?}");
    }
}

#[test]
fn a_new_life_knows_nothing_of_the_old_streams() {
    let mut world = net(5, 2);
    let id = StreamId::new(A, 1, 1);
    stream(&mut world, A, id, B, 1, false);
    run(&mut world, 1);
    world.kill(B, Death::Power);
    stream(&mut world, A, StreamId::new(A, 1, 2), B, 1, false);
    world.start(B, Ear::default());
    assert_eq!((world.life(B), world.next_life(B)), (2, 3));
    run(&mut world, 30);
    assert!(world.host(B).unwrap().heard.is_empty(), "what was sent to the old life is not for the new one");
    assert_eq!(closed(&world, A).len(), 2);
}

#[test]
fn held_hosts_get_everything_later_in_order() {
    let mut world = net(6, 2);
    let start = world.now();
    world.with(B, |ear, now, _| ear.due = Some(now + Duration::from_secs(1)));
    world.pause(B, start + Duration::from_secs(5));
    (0..20).for_each(|n| send(&mut world, A, B, n));
    run(&mut world, 4);
    assert!(world.host(B).unwrap().heard.is_empty() && world.host(B).unwrap().due.is_some());
    run(&mut world, 2);
    assert_eq!(packets(&world, B), (0..20).collect::<Vec<_>>());
    assert_eq!(world.host(B).unwrap().due, None);
    assert_eq!(world.host(B).unwrap().heard[0].0, start + Duration::from_secs(5));
}

#[test]
fn clocks_may_drift_and_deadlines_follow_them() {
    let mut world = net(7, 1);
    world.set_clock(A, 3_000_000, 100_000);
    let local = world.local(A);
    assert_eq!(local, Time::from_secs(1_003));
    world.with(A, |ear, now, _| ear.due = Some(now + Duration::from_secs(11)));
    let hit = world.step(Time::from_secs(1_010)).unwrap();
    assert_eq!((hit, world.now()), (Some(A), Time::from_secs(1_010)));
    assert_eq!(world.host(A).unwrap().due, None);
}

#[test]
fn a_deadline_that_does_not_move_is_found() {
    let mut world = net(8, 1);
    world.with(A, |ear, now, _| (ear.due, ear.stubborn) = (Some(now), true));
    let until = world.now() + Duration::from_secs(1);
    let stuck = loop {
        match world.step(until) {
            Ok(Some(_)) => {}
            Ok(None) => panic!("it came to rest"),
            Err(stuck) => break stuck,
        }
    };
    assert_eq!(stuck.host, "h0");
}

#[test]
fn the_same_seed_gives_the_same_trace() {
    let play = |seed| -> (String, u64) {
        let mut world = net(seed, 3);
        world.links.usual =
            LinkModel { loss_per_million: 300_000, spike_per_million: 300_000, ..LinkModel::GOOD };
        for n in 0..50 {
            send(&mut world, A, B, n);
            send(&mut world, B, HostId(2), n);
        }
        run(&mut world, 5);
        (world.trace().hash(), world.trace().lines())
    };
    assert_eq!(play(9), play(9));
    assert_ne!(play(9).0, play(10).0);
}

#[cfg(feature = "server")]
mod conversations {
    use alloc::sync::Arc;
    use std::sync::Mutex;

    use super::super::*;
    use crate::storage::{
        KeyRange, RangeRequest, RangeResponse, Storage as _, StorageError, WatchRequest, WatchResponse,
    };
    use futures_util::StreamExt as _;

    #[test]
    fn calls_are_tagged_answered_and_failed() {
        let (remote, mut executor) = (RemoteStorage::default(), Executor::default());
        let seen = Arc::new(Mutex::new(alloc::vec::Vec::new()));
        for key in ["a", "b", "c"] {
            let (remote, seen) = (remote.clone(), seen.clone());
            executor.spawn(async move {
                let got = remote.range(RangeRequest::new(KeyRange::key(key))).await;
                seen.lock().unwrap().push((key, got.map(|r| r.revision)));
            });
        }
        executor.run(|task| remote.set_tag(task * 10));
        let orders = remote.take_orders();
        let tags: alloc::vec::Vec<u64> =
            orders.iter().map(|o| if let StoreOrder::Call { tag, .. } = o { *tag } else { 0 }).collect();
        assert_eq!(tags, [10, 20, 30]);
        let answer =
            |revision| Ok(StoreAnswer::Range(RangeResponse { revision, ..RangeResponse::default() }));
        remote.tell(StoreNews::Answer { id: 2, answer: answer(7) });
        remote.tell(StoreNews::Answer { id: 2, answer: answer(8) });
        executor.run(|_| {});
        remote.fail("the link is cut");
        executor.run(|_| {});
        let gone = || Err(StorageError::Unavailable { detail: "the link is cut".into() });
        assert_eq!(*seen.lock().unwrap(), [("b", Ok(7)), ("a", gone()), ("c", gone())]);
        assert!(executor.is_empty());
    }

    #[test]
    fn watches_end_with_an_error_or_are_cancelled() {
        let (remote, mut executor) = (RemoteStorage::default(), Executor::default());
        let seen = Arc::new(Mutex::new(alloc::vec::Vec::new()));
        let (theirs, out) = (remote.clone(), seen.clone());
        let first = executor.spawn(async move {
            let mut watch = theirs.watch(WatchRequest::new(KeyRange::prefix("a"), 1)).await.unwrap();
            while let Some(batch) = watch.next().await {
                out.lock().unwrap().push(batch.map(|b| b.revision).map_err(|_| ()));
            }
        });
        let theirs = remote.clone();
        let second = executor.spawn(async move {
            let _watch = theirs.watch(WatchRequest::new(KeyRange::prefix("b"), 1)).await.unwrap();
            core::future::pending::<()>().await;
        });
        executor.run(|_| {});
        assert_eq!(remote.take_orders().len(), 2);
        // A batch may overtake the answer.
        let batch = |revision| Ok(WatchResponse { revision, events: alloc::vec![] });
        remote.tell(StoreNews::Batch { id: 1, batch: batch(5) });
        for id in [1, 2] {
            remote.tell(StoreNews::Answer { id, answer: Ok(StoreAnswer::Done) });
        }
        remote.tell(StoreNews::Batch { id: 1, batch: batch(6) });
        executor.run(|_| {});
        executor.cancel(second);
        assert_eq!(remote.take_orders(), [StoreOrder::CancelWatch(2)]);
        remote.fail("gone");
        executor.run(|_| {});
        assert_eq!(*seen.lock().unwrap(), [Ok(5), Ok(6), Err(())]);
        executor.cancel(first);
        assert!(remote.take_orders().is_empty(), "a watch that ended need not be cancelled");
    }
}
