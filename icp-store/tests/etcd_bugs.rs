//! The consistency bugs that etcd had (`etcd-io/etcd tests/robustness/README.md`), as far as they concern keys, watches
//! and leases: a test for each. Those of the log are in `etcd_bugs_log.rs`.
//!
//! Two rows cannot happen as they did, because a store here is one member without users:
//! * 14571, a change of users that the members did not apply alike. There are no users. What would be needed for other
//!   state to go apart is tested: a log replayed by another process gives the same store.
//! * 20418, a stale linearizable read from a leader that was paused while others elected a new one. There is no other
//!   who could have written meanwhile. What a pause can do to one process, a jump of its clock, is tested.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    unreachable_pub,
    reason = "test code"
)]

use icp_core::base::Time;
use icp_core::storage::{
    DeleteRangeRequest, EventKind, KeyRange, Op, PutRequest, RangeRequest, StorageError, Txn, WatchRequest,
};
use icp_store::watch::{Polled, WatchId};
use icp_store::{Config, Entry, Store};

fn txn(success: Vec<Op>) -> Txn {
    Txn { success, ..Txn::default() }
}

fn put_op(key: &'static str) -> Op {
    Op::Put(PutRequest::new(key, "v"))
}

fn delete_op(key: &'static str) -> Op {
    Op::DeleteRange(DeleteRangeRequest { range: KeyRange::key(key), prev_kv: false })
}

fn apply(store: &mut Store, success: Vec<Op>) -> i64 {
    let revision = store.txn(Time::ZERO, &txn(success)).unwrap().revision;
    store.publish_all();
    revision
}

fn put(store: &mut Store, key: &'static str) -> i64 {
    apply(store, vec![put_op(key)])
}

fn watch(store: &mut Store, start: i64) -> WatchId {
    store.watch(WatchRequest::new(KeyRange::prefix("k"), start)).unwrap()
}

fn revisions(polled: Polled) -> Vec<i64> {
    let Polled::Batch(batch) = polled else { panic!("{polled:?}") };
    batch.events.iter().map(|e| e.kv.mod_revision).collect()
}

/// All that a watch has to say, and how it ended.
fn drain(store: &mut Store, id: WatchId) -> (Vec<i64>, Option<StorageError>) {
    let mut seen = Vec::new();
    loop {
        match store.poll_watch(id) {
            Polled::Pending => return (seen, None),
            Polled::Ended(error) => return (seen, error),
            polled => seen.extend(revisions(polled)),
        }
    }
}

fn restarted(entries: &[Entry]) -> Store {
    let mut store = Store::new(Config::default());
    entries.iter().for_each(|e| store.replay(Time::ZERO, e).unwrap());
    store
}

#[test]
fn etcd_15220_progress_is_never_ahead_of_events() {
    // Live, and catching up with the past.
    for start in [0, 2] {
        let mut store = Store::new(Config::default());
        let id = watch(&mut store, start);
        store.request_progress(id);
        (0..2_500).for_each(|_| _ = put(&mut store, "k"));
        store.request_progress(id);
        let mut complete = 1;
        while complete < store.visible() {
            let Polled::Batch(batch) = store.poll_watch(id) else { panic!("{complete}") };
            if batch.events.is_empty() {
                assert_eq!(batch.revision, complete, "progress ahead of events");
            }
            for event in batch.events {
                assert_eq!(event.kv.mod_revision, complete + 1);
                complete += 1;
            }
            assert!(batch.revision >= complete);
        }
        let Polled::Batch(progress) = store.poll_watch(id) else { panic!("no progress") };
        assert_eq!((progress.revision, progress.events.len()), (2_501, 0));
        assert_eq!(store.poll_watch(id), Polled::Pending);
    }
}

#[test]
fn etcd_15271_a_watch_of_a_restored_store_goes_on_and_repeats_nothing() {
    let mut store = Store::new(Config::default());
    (0..5).for_each(|_| _ = put(&mut store, "k"));
    store.compact(3).unwrap();
    let mut again = restarted(&store.snapshot());
    // The client has seen up to 4.
    let id = watch(&mut again, 5);
    put(&mut again, "k");
    assert_eq!(drain(&mut again, id), (vec![5, 6, 7], None));
    put(&mut again, "k");
    assert_eq!(drain(&mut again, id), (vec![8], None));
}

#[test]
fn etcd_17247_a_change_within_a_transaction_is_one_event() {
    let mut store = Store::new(Config::default());
    let id = watch(&mut store, 0);
    let read = || Op::Range(RangeRequest::new(KeyRange::key("k")));
    let inner =
        Op::Txn(Txn { failure: vec![put_op("k2"), read()], ..txn(vec![read(), put_op("k1"), read()]) });
    apply(&mut store, vec![read(), put_op("k"), read(), inner, Op::Txn(Txn::default())]);
    // A read after it must not make it an event again.
    store.range(&RangeRequest::new(KeyRange::prefix("k"))).unwrap();
    assert_eq!(drain(&mut store, id), (vec![2, 2], None));
    let late = watch(&mut store, 2);
    assert_eq!(drain(&mut store, late), (vec![2, 2], None));
}

#[test]
fn etcd_17529_a_slow_watcher_gets_all_or_is_cut() {
    let mut store = Store::new(Config { watch_lag_events_max: 3, ..Config::default() });
    let id = watch(&mut store, 0);
    (0..10).for_each(|_| _ = put(&mut store, "k"));
    let cut = StorageError::SlowWatcher { lag_max: 3 };
    assert_eq!(drain(&mut store, id), (vec![2, 3, 4], Some(cut)));
    // It resumes where it was cut.
    let id = watch(&mut store, 5);
    assert_eq!(drain(&mut store, id), ((5..12).collect(), None));
}

#[test]
fn etcd_17529_a_watcher_in_the_past_is_not_starved_by_writes() {
    let mut store = Store::new(Config { watch_lag_events_max: 3, ..Config::default() });
    (0..25_000).for_each(|_| _ = put(&mut store, "k"));
    let id = watch(&mut store, 2);
    let mut seen = 1;
    while seen < store.visible() {
        for revision in revisions(store.poll_watch(id)) {
            seen += 1;
            assert_eq!(revision, seen);
        }
        if seen % 5_000 == 1 {
            put(&mut store, "k");
        }
    }
}

#[test]
fn etcd_17780_the_revision_survives_a_restart_within_and_after_a_compaction() {
    let mut store = Store::new(Config { sweep_commits_max: 1, ..Config::default() });
    (0..4).for_each(|_| _ = put(&mut store, "k"));
    apply(&mut store, vec![delete_op("k")]);
    let mut log = store.take_entries();
    store.compact(6).unwrap();
    log.extend(store.take_entries());
    // The log may end anywhere in it, and the sweep may have come anywhere.
    let mut snapshots = vec![store.snapshot()];
    for _ in 0..6 {
        store.tick(Time::ZERO);
        snapshots.push(store.snapshot());
    }
    for entries in core::iter::once(&log).chain(&snapshots) {
        let mut again = restarted(entries);
        assert_eq!((again.visible(), again.status().compacted), (6, 6));
        assert_eq!(put(&mut again, "k"), 7);
    }
    for cut in 0..log.len() {
        let again = restarted(&log[..cut]);
        let commits = log[..cut].iter().filter(|e| matches!(e, Entry::Commit(_))).count() as i64;
        assert_eq!(again.visible(), 1 + commits);
    }
}

/// A key that was deleted at the revision that is compacted then, in a store, in one that has freed what it can, and in
/// one that was restarted.
fn deleted_and_compacted() -> (i64, [Store; 3]) {
    let make = || {
        let mut store = Store::new(Config { sweep_commits_max: 0, ..Config::default() });
        put(&mut store, "k");
        let deleted = apply(&mut store, vec![delete_op("k")]);
        put(&mut store, "k2");
        store.compact(deleted).unwrap();
        (deleted, store)
    };
    let ((deleted, store), (_, mut swept), (_, other)) = (make(), make(), make());
    swept.defragment();
    (deleted, [store, swept, restarted(&other.snapshot())])
}

#[test]
fn etcd_18089_a_deletion_is_not_lost_when_it_is_compacted() {
    let (deleted, stores) = deleted_and_compacted();
    for mut store in stores {
        let id = watch(&mut store, deleted);
        let Polled::Batch(batch) = store.poll_watch(id) else { panic!("no events") };
        let seen: Vec<_> = batch.events.iter().map(|e| (e.kv.mod_revision, e.kind)).collect();
        assert_eq!(seen, [(deleted, EventKind::Delete), (deleted + 1, EventKind::Put)]);
        let read = RangeRequest::new(KeyRange::prefix("k")).at(deleted);
        assert_eq!(store.range(&read).unwrap().count, 0, "it can be read that it is deleted");
    }
}

#[test]
fn etcd_19179_watches_open_around_the_compacted_revision() {
    let (deleted, stores) = deleted_and_compacted();
    for mut store in stores {
        let below = store.watch(WatchRequest::new(KeyRange::prefix("k"), deleted - 1));
        assert_eq!(below, Err(StorageError::Compacted { compacted: deleted }));
        let id = watch(&mut store, deleted + 1);
        assert_eq!(drain(&mut store, id), (vec![deleted + 1], None));
        // The next compaction takes it.
        let now = put(&mut store, "k");
        store.compact(now).unwrap();
        let taken = store.watch(WatchRequest::new(KeyRange::prefix("k"), deleted));
        assert_eq!(taken, Err(StorageError::Compacted { compacted: now }));
    }
}

#[test]
fn etcd_18667_a_transaction_that_reads_what_is_compacted_fails_alike_everywhere() {
    let (deleted, stores) = deleted_and_compacted();
    let old = Op::Range(RangeRequest::new(KeyRange::key("k")).at(deleted - 1));
    let hashes = stores.map(|mut store| {
        for ops in [
            vec![old.clone()],
            vec![put_op("k"), old.clone()],
            vec![Op::Txn(txn(vec![put_op("k"), old.clone()]))],
        ] {
            let refused = store.txn(Time::ZERO, &txn(ops));
            assert_eq!(refused, Err(StorageError::Compacted { compacted: deleted }));
            assert!(store.take_entries().iter().all(|e| !matches!(e, Entry::Commit(c) if c.revision > 4)));
        }
        assert_eq!((store.applied(), store.visible()), (4, 4));
        let at = Op::Range(RangeRequest::new(KeyRange::key("k")).at(deleted));
        apply(&mut store, vec![at, put_op("k")]);
        store.hash_view(0).unwrap().hash()
    });
    assert!(hashes.iter().all(|h| *h == hashes[0]), "{hashes:?}");
}

#[test]
fn etcd_20221_a_watch_of_the_future_waits_silently() {
    let mut store = Store::new(Config::default());
    let id = watch(&mut store, 4);
    store.request_progress(id);
    put(&mut store, "k");
    assert_eq!(store.poll_watch(id), Polled::Pending);
    put(&mut store, "k");
    // Now the next revision is the one that is waited for: progress may be told, but no earlier event.
    let Polled::Batch(progress) = store.poll_watch(id) else { panic!("no progress") };
    assert_eq!((progress.revision, progress.events.len()), (3, 0));
    put(&mut store, "k");
    assert_eq!(drain(&mut store, id), (vec![4], None));
}

#[test]
fn etcd_20221_a_watch_of_the_future_survives_a_restart_that_loses_nothing_and_a_compaction() {
    let mut store = Store::new(Config::default());
    let id = watch(&mut store, 6);
    (0..3).for_each(|_| _ = put(&mut store, "k"));
    store.compact(4).unwrap();
    assert_eq!(
        store.poll_watch(id),
        Polled::Pending,
        "neither old events nor a compaction that does not concern it"
    );
    // The client comes back to a store that was restarted, still before that revision.
    let mut again = restarted(&store.snapshot());
    let id = watch(&mut again, 6);
    put(&mut again, "k");
    assert_eq!(again.poll_watch(id), Polled::Pending);
    put(&mut again, "k");
    assert_eq!(drain(&mut again, id), (vec![6], None));
}

#[test]
fn etcd_14571_a_replayed_log_gives_the_same_store() {
    let mut store = Store::new(Config { seed: 3, ..Config::default() });
    // What is drawn is in the log, so that it does not matter who replays it.
    let lease = store.lease_grant(Time::ZERO, 0, 60).unwrap().id;
    let put = |key| Op::Put(PutRequest { lease, ..PutRequest::new(key, "v") });
    apply(&mut store, vec![put("k1"), put("k2")]);
    apply(&mut store, vec![delete_op("k1"), put_op("k3")]);
    store.lease_revoke(Time::ZERO, lease).unwrap();
    store.publish_all();
    let log = store.take_entries();
    let mut other = Store::new(Config { seed: 4, ..Config::default() });
    log.iter().for_each(|e| other.replay(Time::from_secs(9_999), e).unwrap());
    assert_eq!(other.hash_view(0).unwrap().hash(), store.hash_view(0).unwrap().hash());
    assert_eq!((other.snapshot(), other.lease_ids()), (store.snapshot(), store.lease_ids()));
}

#[test]
fn etcd_20418_after_a_pause_reads_are_current_and_what_ran_out_is_over() {
    let mut store = Store::new(Config::default());
    store.lease_grant(Time::ZERO, 1, 60).unwrap();
    let bound = Op::Put(PutRequest { lease: 1, ..PutRequest::new("k", "v") });
    let before = apply(&mut store, vec![bound]);
    // An hour later the first thing that comes is a request.
    let late = Time::from_secs(3_600);
    assert_eq!(store.range(&RangeRequest::new(KeyRange::key("k"))).unwrap().revision, before);
    assert_eq!(store.lease_keep_alive(late, 1), Err(StorageError::LeaseNotFound(1)), "its holder lost it");
    store.tick(late);
    store.publish_all();
    let read = store.range(&RangeRequest::new(KeyRange::key("k"))).unwrap();
    assert_eq!((read.revision, read.count), (before + 1, 0));
}
