use alloc::vec;
use alloc::vec::Vec;

use icp_core::base::{Machine, Time, drive};
use icp_core::storage::{KeyRange, Op, PutRequest, RangeRequest, StorageError, Txn};

use super::*;

fn put(key: &'static str, lease: i64) -> Txn {
    Txn { success: vec![Op::Put(PutRequest { lease, ..PutRequest::new(key, "v") })], ..Txn::default() }
}

fn count(store: &Store) -> i64 {
    store.range(&RangeRequest::new(KeyRange::prefix(""))).unwrap().count
}

#[test]
fn a_lease_that_runs_out_deletes_its_keys_in_one_revision() {
    let mut store = Store::new(Config::default());
    store.lease_grant(Time::ZERO, 7, 10).unwrap();
    store.txn(Time::ZERO, &put("a", 7)).unwrap();
    store.txn(Time::ZERO, &put("b", 7)).unwrap();
    // A put without the lease frees the key from it.
    store.txn(Time::ZERO, &put("b", 0)).unwrap();
    store.txn(Time::ZERO, &put("c", 7)).unwrap();
    let mut out = Vec::new();
    assert_eq!(drive(&mut store, Time::from_secs(60), 10, &mut out), 1);
    store.publish_all();
    assert_eq!((count(&store), store.visible(), store.lease_ids().len()), (1, 6, 0));
    let Effect::Append { entries, .. } = &out[0] else { panic!("{out:?}") };
    assert!(
        matches!(entries.last(), Some(Entry::LeaseRevoke { id: 7 })),
        "the commit stands before the revocation"
    );
}

#[test]
fn reads_see_only_what_is_published_and_transactions_see_all() {
    let mut store = Store::new(Config::default());
    let (mut out, txn) = (Vec::new(), |id, t| Event::Request { id, request: Request::Txn(t) });
    store.on(Time::ZERO, txn(1, put("a", 0)), &mut out);
    assert_eq!((count(&store), store.visible(), store.applied()), (0, 1, 2));
    let only_if_new = Txn { compare: vec![icp_core::storage::Compare::mod_revision("a", 0)], ..put("a", 0) };
    store.on(Time::ZERO, txn(2, only_if_new), &mut out);
    let Some(Effect::Answer { id: 2, answer: Ok(Answer::Txn(answer)) }) = out.last() else {
        panic!("{out:?}")
    };
    assert!(!answer.succeeded);
    store.on(Time::ZERO, Event::Durable(2), &mut out);
    assert_eq!(count(&store), 1);
    assert!(matches!(store.compact(3), Err(StorageError::FutureRevision { current: 2, .. })));
}

#[test]
fn ids_of_leases_are_chosen_by_the_seed() {
    let grant = |seed| {
        let mut store = Store::new(Config { seed, ..Config::default() });
        (store.lease_grant(Time::ZERO, 0, 5).unwrap().id, store.lease_grant(Time::ZERO, 0, 5).unwrap().id)
    };
    assert_eq!(grant(1), grant(1));
    assert_ne!(grant(1), grant(2));
    assert!(grant(1).0 > 0 && grant(1).0 != grant(1).1);
}

/// etcd 17780: the revision never goes back over a restart, also after compaction of everything.
#[test]
fn etcd_17780_the_revision_survives_a_restart_after_compaction() {
    let mut store = Store::new(Config::default());
    let mut log = Vec::new();
    for _ in 0..4 {
        store.txn(Time::ZERO, &put("a", 0)).unwrap();
    }
    let range = KeyRange::prefix("");
    let delete = Op::DeleteRange(icp_core::storage::DeleteRangeRequest { range, prev_kv: false });
    store.txn(Time::ZERO, &Txn { success: vec![delete], ..Txn::default() }).unwrap();
    store.publish_all();
    store.compact(6).unwrap();
    log.extend(store.take_entries());
    for entries in [log, store.snapshot()] {
        let mut again = Store::new(Config::default());
        entries.iter().for_each(|e| again.replay(Time::ZERO, e).unwrap());
        assert_eq!((again.visible(), again.status()), (6, store.status()));
        assert_eq!(again.txn(Time::ZERO, &put("a", 0)).unwrap().revision, 7);
    }
}

/// etcd 18055: snapshots of snapshots, in a row.
#[test]
fn etcd_18055_a_snapshot_of_a_restored_store_is_the_same() {
    let mut store = Store::new(Config::default());
    store.lease_grant(Time::ZERO, 3, 50).unwrap();
    for key in ["a", "b", "a", "c"] {
        store.txn(Time::ZERO, &put(key, 3)).unwrap();
    }
    store.publish_all();
    store.compact(3).unwrap();
    let first = store.snapshot();
    let mut again = Store::new(Config::default());
    first.iter().for_each(|e| again.replay(Time::ZERO, e).unwrap());
    first.iter().for_each(|e| again.replay(Time::ZERO, e).unwrap());
    assert_eq!(again.snapshot(), first);
    again.lease_revoke(Time::ZERO, 3).unwrap();
    again.publish_all();
    assert_eq!(count(&again), 0, "the restored lease holds its keys");
}

#[test]
fn entries_of_another_history_are_refused() {
    let mut store = Store::new(Config::default());
    store.txn(Time::ZERO, &put("a", 0)).unwrap();
    let entries = store.take_entries();
    let mut again = Store::new(Config::default());
    again.replay(Time::ZERO, &entries[0]).unwrap();
    assert!(matches!(again.replay(Time::ZERO, &entries[0]), Err(StorageError::Invalid { .. })));
    assert!(again.replay(Time::ZERO, &Entry::LeaseRevoke { id: 1 }).is_err());
}
