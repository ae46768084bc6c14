//! What a watch guarantees, checked over random histories. The bugs that etcd had are in `tests/etcd_bugs.rs`.

use alloc::collections::BTreeMap;
use alloc::format;
use alloc::vec;
use alloc::vec::Vec;

use icp_core::base::Time;
use icp_core::storage::{
    DeleteRangeRequest, Event, EventKind, KeyRange, KeyValue, Op, PutRequest, StorageError, Txn,
    WatchRequest, WatchResponse,
};
use proptest::prelude::*;

use super::{Polled, WatchId};
use crate::store::{Config, Store};

#[derive(Debug, Clone)]
enum Step {
    Put(Vec<u8>, bool),
    Delete(u8),
    Publish(i64),
    Compact(i64),
    Watch { from_key: u8, to_key: u8, back: i64, prev_kv: bool, no_put: bool, no_delete: bool },
    Poll(usize),
    Progress(usize),
    Cancel(usize),
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        6 => (proptest::collection::btree_set(0..5_u8, 1..4), any::<bool>())
            .prop_map(|(keys, d)| Step::Put(keys.into_iter().collect(), d)),
        2 => (0..5_u8).prop_map(Step::Delete),
        4 => (0..3_i64).prop_map(Step::Publish),
        1 => (0..6_i64).prop_map(Step::Compact),
        3 => (0..5_u8, 0..6_u8, -3..8_i64, any::<bool>(), 0..8_u8).prop_map(|(from_key, to_key, back, prev_kv, f)| {
            Step::Watch { from_key, to_key, back, prev_kv, no_put: f == 0, no_delete: f == 1 }
        }),
        8 => (0..6_usize).prop_map(Step::Poll),
        2 => (0..6_usize).prop_map(Step::Progress),
        1 => (0..6_usize).prop_map(Step::Cancel),
    ]
}

/// A watcher as its client sees it.
struct Client {
    id: WatchId,
    request: WatchRequest,
    start: i64,
    /// Up to here the client knows everything.
    complete: i64,
    seen: Vec<Event>,
    ended: Option<StorageError>,
}

impl Client {
    /// Takes what the watch says and checks what can be checked at once.
    fn take(&mut self, polled: Polled, visible: i64) {
        match polled {
            Polled::Pending => {}
            Polled::Ended(error) => self.ended = error,
            Polled::Batch(batch) => {
                assert!(batch.revision <= visible, "ahead of what is published");
                assert!(batch.revision >= self.complete, "progress went back");
                for event in &batch.events {
                    let revision = event.kv.mod_revision;
                    assert!(revision > self.complete, "a revision was split or repeated");
                    assert!(revision >= self.start && revision <= batch.revision);
                }
                self.complete = batch.revision;
                self.seen.extend(batch.events);
            }
        }
    }

    /// Checks that what was seen is all of the history from the start to where the watch is complete.
    fn check(&self, history: &[(Event, Option<KeyValue>)]) {
        let wanted = history.iter().filter(|(e, _)| {
            let revision = e.kv.mod_revision;
            let filtered =
                if e.kind == EventKind::Delete { self.request.no_delete } else { self.request.no_put };
            revision >= self.start
                && revision <= self.complete
                && self.request.range.contains(&e.kv.key)
                && !filtered
        });
        let wanted: Vec<_> = wanted.collect();
        assert_eq!(
            self.seen.len(),
            wanted.len(),
            "from {} to {}: {:?}",
            self.start,
            self.complete,
            self.seen
        );
        for (seen, (event, prev)) in self.seen.iter().zip(wanted) {
            assert_eq!((seen.kind, &seen.kv), (event.kind, &event.kv));
            assert_eq!(
                seen.kind == EventKind::Put && seen.kv.version == 1,
                seen.kv.create_revision == seen.kv.mod_revision
            );
            // It may be missing because it was compacted away; that is checked elsewhere.
            assert!(seen.prev_kv.is_none() || (self.request.prev_kv && seen.prev_kv == *prev));
        }
    }
}

/// Notes a commit in the model.
fn record(
    history: &mut Vec<(Event, Option<KeyValue>)>,
    now: &mut BTreeMap<Vec<u8>, KeyValue>,
    commit: &crate::mvcc::Commit,
) {
    for change in &commit.changes {
        let kv = change.kv.kv.clone();
        let (kind, prev) = match change.is_delete() {
            true => (EventKind::Delete, now.remove(&kv.key[..])),
            false => (EventKind::Put, now.insert(kv.key.to_vec(), kv.clone())),
        };
        history.push((Event { kind, kv, prev_kv: None }, prev));
    }
}

fn run(steps: Vec<Step>, lag_max: usize) -> BTreeMap<&'static str, usize> {
    let mut store =
        Store::new(Config { watch_lag_events_max: lag_max, sweep_commits_max: 2, ..Config::default() });
    let mut history: Vec<(Event, Option<KeyValue>)> = Vec::new();
    let mut now: BTreeMap<Vec<u8>, KeyValue> = BTreeMap::new();
    let mut clients: Vec<Client> = Vec::new();
    let mut ends = BTreeMap::new();
    let name = |k: u8| format!("k{k}");
    for step in steps {
        match step {
            Step::Put(keys, delete_others) => {
                let mut success: Vec<Op> =
                    keys.iter().map(|k| Op::Put(PutRequest::new(name(*k), "v"))).collect();
                if delete_others && !keys.contains(&4) {
                    let range = KeyRange::key("k4");
                    success.push(Op::DeleteRange(DeleteRangeRequest { range, prev_kv: false }));
                }
                let before = store.applied();
                store.txn(Time::ZERO, &Txn { success, ..Txn::default() }).unwrap();
                for entry in store.take_entries() {
                    let crate::Entry::Commit(commit) = entry else { continue };
                    assert_eq!(commit.revision, before + 1);
                    record(&mut history, &mut now, &commit);
                }
            }
            Step::Delete(key) => {
                let range = KeyRange::between(name(key), name(key + 2));
                let op = Op::DeleteRange(DeleteRangeRequest { range, prev_kv: false });
                store.txn(Time::ZERO, &Txn { success: vec![op], ..Txn::default() }).unwrap();
                for entry in store.take_entries() {
                    let crate::Entry::Commit(commit) = entry else { continue };
                    record(&mut history, &mut now, &commit);
                }
            }
            Step::Publish(back) => store.publish(store.applied() - back),
            Step::Compact(back) => {
                let _ = store.compact(store.visible() - back);
                store.take_entries();
            }
            Step::Watch { from_key, to_key, back, prev_kv, no_put, no_delete } => {
                let range = match to_key {
                    5 => KeyRange::key(name(from_key)),
                    to => KeyRange::between(name(from_key), name(to)),
                };
                let start_revision = (store.visible() + 1 - back).max(0);
                let request =
                    WatchRequest { prev_kv, no_put, no_delete, ..WatchRequest::new(range, start_revision) };
                let start = if start_revision == 0 { store.visible() + 1 } else { start_revision };
                match store.watch(request.clone()) {
                    Ok(id) => {
                        clients.push(Client { id, request, start, complete: 0, seen: vec![], ended: None })
                    }
                    Err(e) => assert!(start < store.status().compacted, "{e}"),
                }
            }
            Step::Poll(n) => {
                if let Some(client) = clients.iter_mut().rev().nth(n).filter(|c| c.ended.is_none()) {
                    client.take(store.poll_watch(client.id), store.visible());
                }
            }
            Step::Progress(n) => {
                if let Some(client) = clients.iter().rev().nth(n) {
                    store.request_progress(client.id);
                }
            }
            Step::Cancel(n) => {
                if n < clients.len() && n % 3 == 0 {
                    let client = clients.remove(n);
                    store.cancel_watch(client.id);
                    client.check(&history);
                    assert_eq!(store.poll_watch(client.id), Polled::Ended(None));
                }
            }
        }
        // Nothing is ready that is not announced: a host that polls what is ready misses nothing.
        store.take_ready();
    }
    store.publish_all();
    for mut client in clients {
        while client.ended.is_none() {
            match store.poll_watch(client.id) {
                Polled::Pending => break,
                polled => client.take(polled, store.visible()),
            }
        }
        client.check(&history);
        match &client.ended {
            None => {
                // It lives, so that it has everything.
                client.complete = client.complete.max(store.visible());
                client.check(&history);
                *ends.entry("alive").or_default() += 1;
            }
            Some(StorageError::Compacted { .. }) => *ends.entry("compacted").or_default() += 1,
            Some(StorageError::SlowWatcher { .. }) => *ends.entry("slow").or_default() += 1,
            Some(e) => panic!("{e}"),
        }
    }
    ends
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]
    /// Bookmarkable, ordered, unique, atomic, reliable, resumable, previous versions, creations, filters
    /// (etcd `tests/robustness/validate/watch.go`), with a log behind and with slow watchers.
    #[test]
    fn a_watch_keeps_its_guarantees(
        steps in proptest::collection::vec(step(), 1..120),
        lag_max in prop_oneof![Just(2_usize), Just(1_000)],
    ) {
        run(steps, lag_max);
    }
}

fn put(store: &mut Store, key: &'static str) -> i64 {
    let success = vec![Op::Put(PutRequest::new(key, "v"))];
    let revision = store.txn(Time::ZERO, &Txn { success, ..Txn::default() }).unwrap().revision;
    store.publish_all();
    revision
}

fn watch(store: &mut Store, start: i64) -> WatchId {
    store.watch(WatchRequest::new(KeyRange::prefix("k"), start)).unwrap()
}

fn revisions(polled: Polled) -> Vec<i64> {
    let Polled::Batch(batch) = polled else { panic!("{polled:?}") };
    batch.events.iter().map(|e| e.kv.mod_revision).collect()
}

#[test]
fn a_compaction_that_overtakes_a_watcher_ends_it() {
    let mut store = Store::new(Config::default());
    (0..5).for_each(|_| _ = put(&mut store, "k"));
    let id = watch(&mut store, 2);
    store.compact(4).unwrap();
    assert_eq!(store.poll_watch(id), Polled::Ended(Some(StorageError::Compacted { compacted: 4 })));
}

#[test]
fn previous_versions_are_reported_unless_they_are_compacted() {
    let mut store = Store::new(Config::default());
    (0..3).for_each(|_| _ = put(&mut store, "k"));
    store.compact(3).unwrap();
    let request = WatchRequest { prev_kv: true, ..WatchRequest::new(KeyRange::key("k"), 3) };
    let id = store.watch(request).unwrap();
    let Polled::Batch(batch) = store.poll_watch(id) else { panic!() };
    let before: Vec<_> = batch.events.iter().map(|e| e.prev_kv.as_ref().map(|kv| kv.mod_revision)).collect();
    assert_eq!(before, [None, Some(3)]);
}

#[test]
fn a_revision_larger_than_a_batch_is_not_split() {
    let mut store = Store::new(Config::default());
    for n in 0..1_500 {
        let success = vec![Op::Put(PutRequest::new(format!("k{n:04}"), "v"))];
        store.txn(Time::ZERO, &Txn { success, ..Txn::default() }).unwrap();
    }
    store.publish_all();
    let live = watch(&mut store, 0);
    let range = KeyRange::prefix("k");
    let success = vec![Op::DeleteRange(DeleteRangeRequest { range, prev_kv: false })];
    let deleted = store.txn(Time::ZERO, &Txn { success, ..Txn::default() }).unwrap().revision;
    put(&mut store, "k");
    let late = watch(&mut store, deleted);
    for id in [live, late] {
        assert_eq!(revisions(store.poll_watch(id)), vec![deleted; 1_500]);
        assert_eq!(revisions(store.poll_watch(id)), [deleted + 1]);
    }
}

#[test]
fn a_key_that_is_put_and_deleted_at_once_had_the_version_before_both() {
    let mut store = Store::new(Config::default());
    put(&mut store, "k");
    let request = WatchRequest { prev_kv: true, ..WatchRequest::new(KeyRange::key("k"), 0) };
    let id = store.watch(request).unwrap();
    let range = KeyRange::between("k", "");
    let delete = Op::DeleteRange(DeleteRangeRequest { range, prev_kv: false });
    let success = vec![Op::Put(PutRequest::new("k", "w")), delete];
    store.txn(Time::ZERO, &Txn { success, ..Txn::default() }).unwrap();
    store.publish_all();
    let Polled::Batch(batch) = store.poll_watch(id) else { panic!() };
    let seen = batch.events.iter().map(|e| (e.kind, e.prev_kv.as_ref().map(|kv| kv.mod_revision)));
    assert_eq!(seen.collect::<Vec<_>>(), [(EventKind::Put, Some(2)), (EventKind::Delete, Some(2))]);
}

#[test]
fn watches_that_want_it_are_told_by_the_clock_how_far_they_are() {
    let mut store = Store::new(Config { watch_progress_interval_secs: 600, ..Config::default() });
    let quiet = watch(&mut store, 0);
    assert_eq!(store.wake_at(), None, "nobody wants to be told");
    store.tick(Time::from_secs(50));
    let request = WatchRequest { progress_notify: true, ..WatchRequest::new(KeyRange::key("other"), 0) };
    let told = store.watch(request).unwrap();
    put(&mut store, "k");
    for round in 1..=2 {
        let due = Time::from_secs(50 + 600 * round);
        assert_eq!(store.wake_at(), Some(due));
        store.tick(due);
        assert_eq!(store.poll_watch(told), Polled::Batch(WatchResponse { revision: 2, events: vec![] }));
        assert_eq!(store.poll_watch(told), Polled::Pending);
    }
    assert_eq!(revisions(store.poll_watch(quiet)), [2]);
    assert_eq!(store.poll_watch(quiet), Polled::Pending);
    store.cancel_watch(told);
    assert_eq!(store.wake_at(), None);
}
