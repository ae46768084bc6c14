use alloc::vec;
use alloc::vec::Vec;

use icp_core::base::{Machine, Time, drive};
use icp_core::storage::{AlarmKind, KeyRange, Op, PutRequest, RangeRequest, StorageError, Txn};

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

#[test]
fn the_quota_raises_an_alarm_that_refuses_what_adds_data_until_it_is_disarmed() {
    let mut store = Store::new(Config { quota_bytes: 10, ..Config::default() });
    let mut log = Vec::new();
    let no_space = |r: Result<_, StorageError>| matches!(r, Err(StorageError::NoSpace { .. }));
    for key in ["a", "b", "c", "d"] {
        store.txn(Time::ZERO, &put(key, 0)).unwrap();
    }
    let large = Txn { success: vec![Op::Put(PutRequest::new("k", "12345678"))], ..Txn::default() };
    assert!(no_space(store.txn(Time::ZERO, &large).map(drop)));
    assert_eq!(store.alarms(), [AlarmKind::NoSpace]);
    // Smaller ones and leases are refused as well now; deletions, reads and compaction are taken.
    assert!(no_space(store.txn(Time::ZERO, &put("a", 0)).map(drop)));
    assert!(no_space(store.lease_grant(Time::ZERO, 1, 60).map(drop)));
    assert!(matches!(store.txn(Time::ZERO, &put("", 0)), Err(StorageError::Invalid { .. })), "as in etcd");
    let delete = Op::DeleteRange(icp_core::storage::DeleteRangeRequest {
        range: KeyRange::between("b", "z"),
        prev_kv: false,
    });
    store.txn(Time::ZERO, &Txn { success: vec![delete], ..Txn::default() }).unwrap();
    store.publish_all();
    store.compact(store.visible()).unwrap();
    store.defragment();
    log.extend(store.take_entries());
    for entries in [log, store.snapshot()] {
        let mut again = Store::new(Config { quota_bytes: 10, ..Config::default() });
        entries.iter().for_each(|e| again.replay(Time::ZERO, e).unwrap());
        assert_eq!(again.alarms(), [AlarmKind::NoSpace], "alarms are durable");
        assert!(no_space(again.txn(Time::ZERO, &put("a", 0)).map(drop)));
        assert!(again.set_alarm(AlarmKind::NoSpace, false));
        assert!(!again.set_alarm(AlarmKind::NoSpace, false));
        again.txn(Time::ZERO, &put("a", 0)).unwrap();
    }
}

#[test]
fn a_store_that_is_corrupt_takes_no_write_and_ends_no_lease() {
    let mut store = Store::new(Config::default());
    store.lease_grant(Time::ZERO, 1, 60).unwrap();
    store.txn(Time::ZERO, &put("a", 1)).unwrap();
    store.publish_all();
    store.set_alarm(AlarmKind::Corrupt, true);
    let corrupt = Err(StorageError::CorruptAlarm);
    assert_eq!(store.txn(Time::ZERO, &put("a", 0)).map(drop), corrupt);
    assert_eq!(store.lease_revoke(Time::ZERO, 1), corrupt);
    assert_eq!(store.compact(2), corrupt);
    assert_eq!(store.lease_deadline(), None);
    store.tick(Time::from_secs(100));
    assert_eq!(count(&store), 1);
    let read = Txn { success: vec![Op::Range(RangeRequest::new(KeyRange::key("a")))], ..Txn::default() };
    assert!(store.txn(Time::ZERO, &read).is_ok());
    store.set_alarm(AlarmKind::Corrupt, false);
    store.tick(Time::from_secs(100));
    store.publish_all();
    assert_eq!(count(&store), 0);
}

#[test]
fn a_view_and_a_replayed_log_have_the_same_versions_and_hash() {
    let mut store = Store::new(Config::default());
    store.lease_grant(Time::ZERO, 3, 50).unwrap();
    let many = |keys: &[&'static str]| Txn {
        success: keys.iter().map(|k| Op::Put(PutRequest::new(*k, "v"))).collect(),
        ..Txn::default()
    };
    store.txn(Time::ZERO, &many(&["a", "b", "c"])).unwrap();
    store.txn(Time::ZERO, &many(&["a", "d"])).unwrap();
    store.txn(Time::ZERO, &many(&["e"])).unwrap();
    store.publish_all();
    store.compact(3).unwrap();
    let mut again = Store::new(Config::default());
    store.snapshot().iter().for_each(|e| again.replay(Time::ZERO, e).unwrap());
    let places = |store: &Store| -> Vec<(i64, u32)> {
        let copy = store.view(Time::ZERO).unwrap().into_snapshot();
        assert_eq!((copy.revision, copy.compacted, copy.leases.len()), (4, 3, 1));
        copy.versions.map(|v| (v.kv.mod_revision, v.sub)).collect()
    };
    assert_eq!(places(&store), [(2, 1), (2, 2), (3, 0), (3, 1), (4, 0)]);
    assert_eq!(places(&again), places(&store));
    assert_eq!(store.hash_view(0).unwrap().hash(), again.hash_view(0).unwrap().hash());
}

/// Writes the log of a store that lives by virtual time, and replays it at any moment.
#[test]
fn what_is_left_of_a_long_lease_survives_a_restart_within_one_interval() {
    let at = Time::from_secs;
    let mut store = Store::new(Config::default());
    let mut log = Vec::new();
    store.lease_grant(at(0), 1, 3_600).unwrap();
    store.lease_grant(at(0), 2, 60).unwrap();
    let mut renewed = [0, 0];
    for now in (0..3_000).step_by(10) {
        store.tick(at(now));
        if now % 50 == 0 {
            store.lease_keep_alive(at(now), 2).unwrap();
            renewed[1] = now;
        }
        if now == 1_500 {
            store.lease_keep_alive(at(now), 1).unwrap();
            renewed[0] = now;
        }
        log.extend(store.take_entries());
        for entries in [&log, &store.snapshot()] {
            let mut again = Store::new(Config::default());
            entries.iter().for_each(|e| again.replay(at(now), e).unwrap());
            let left = |id| again.lease_info(at(now), id).unwrap().ttl_secs;
            let promised = 3_600 - (now - renewed[0]);
            assert!((promised..=promised + 300).contains(&left(1)), "at {now}: {} of {promised}", left(1));
            assert_eq!(left(2), 60, "a short lease begins anew");
        }
    }
    let checkpoints = log.iter().filter(|e| matches!(e, Entry::LeaseCheckpoint { .. })).count();
    assert_eq!(checkpoints, 10, "one in 300 s, and one for the renewal at 1,500 s");
}
