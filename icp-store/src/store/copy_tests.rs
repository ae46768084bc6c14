//! Copies in steps with changes between them, against what was read before the first step.

use alloc::format;
use alloc::string::String;
use alloc::vec;
use alloc::vec::Vec;
use core::ops::ControlFlow;

use icp_core::base::Time;
use icp_core::storage::{
    AlarmKind, DeleteRangeRequest, KeyRange, LeaseId, Op, PutRequest, RangeRequest, Txn,
};
use proptest::prelude::*;

use super::{Config, Store};
use crate::mvcc::{Copying, View};

#[derive(Clone, Debug)]
enum Step {
    Put(Vec<u8>, LeaseId),
    Delete(u8, u8),
    /// So many revisions below the newest.
    Compact(i64),
    Grant(LeaseId),
    Renew(LeaseId),
    Revoke(LeaseId),
    Alarm(bool),
    Pass(i64),
    Defragment,
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        8 => (proptest::collection::vec(0..12_u8, 1..4), 0..3_i64).prop_map(|(keys, lease)| Step::Put(keys, lease)),
        3 => (0..12_u8, 0..13_u8).prop_map(|(from, to)| Step::Delete(from, to)),
        3 => (0..4_i64).prop_map(Step::Compact),
        2 => (1..3_i64).prop_map(Step::Grant),
        1 => (1..3_i64).prop_map(Step::Renew),
        1 => (1..3_i64).prop_map(Step::Revoke),
        1 => any::<bool>().prop_map(Step::Alarm),
        1 => (1..400_i64).prop_map(Step::Pass),
        1 => Just(Step::Defragment),
    ]
}

fn key(k: u8) -> String {
    format!("k{k:02}")
}

/// Does one step to a store; whether it is refused does not matter.
fn apply(store: &mut Store, now: &mut i64, step: &Step) {
    let at = Time::from_secs(*now);
    let txn = |success| Txn { success, ..Txn::default() };
    match step {
        Step::Put(keys, lease) => {
            let put =
                |k: &u8| Op::Put(PutRequest { lease: *lease, ..PutRequest::new(key(*k), format!("{now}")) });
            let mut keys = keys.clone();
            keys.dedup();
            let _ = store.txn(at, &txn(keys.iter().map(put).collect()));
        }
        Step::Delete(from, to) => {
            let range = KeyRange::between(key(*from), key(*to));
            let _ = store.txn(at, &txn(vec![Op::DeleteRange(DeleteRangeRequest { range, prev_kv: false })]));
        }
        Step::Compact(below) => _ = store.compact(store.visible() - below),
        Step::Grant(id) => _ = store.lease_grant(at, *id, 1_000),
        Step::Renew(id) => _ = store.lease_keep_alive(at, *id),
        Step::Revoke(id) => _ = store.lease_revoke(at, *id),
        Step::Alarm(raised) => _ = store.set_alarm(AlarmKind::NoSpace, *raised),
        Step::Pass(secs) => {
            *now += secs;
            store.tick(Time::from_secs(*now));
        }
        Step::Defragment => store.defragment(),
    }
    store.publish_all();
    store.take_entries();
}

/// All that can be read of a store: every revision, leases with their keys, alarms.
fn readable(store: &Store) -> String {
    let status = store.status();
    let mut all = format!("{} {} {:?}", status.revision, status.compacted, store.alarms());
    for revision in status.compacted.max(1)..=status.revision {
        let range = store.range(&RangeRequest::new(KeyRange::prefix("")).at(revision)).unwrap();
        all += &format!("\n{revision}: {:?}", range.kvs);
    }
    for id in store.lease_ids() {
        let info = store.lease_info(Time::ZERO, id).unwrap();
        all += &format!("\n{id}: {} {:?}", info.granted_ttl_secs, info.keys);
    }
    all
}

fn complete(store: &mut Store, now: &mut i64, copying: Copying, keys_max: usize, between: &[Step]) -> View {
    let (mut copying, mut between) = (copying, between.iter());
    loop {
        match store.copy_some(copying, keys_max) {
            ControlFlow::Break(view) => {
                between.for_each(|step| apply(store, now, step));
                return view;
            }
            ControlFlow::Continue(more) => copying = more,
        }
        between.by_ref().take(3).for_each(|step| apply(store, now, step));
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(256))]
    #[test]
    fn a_copy_in_steps_is_the_state_when_it_was_begun(
        before in proptest::collection::vec(step(), 1..50),
        between in proptest::collection::vec(step(), 0..60),
        keys_max in 1..5_usize,
    ) {
        // Unswept remains of compactions are there from the beginning.
        let config = Config { sweep_commits_max: 1, ..Config::default() };
        let (mut store, mut twin, mut now) = (Store::new(config), Store::new(config), 0);
        before.iter().for_each(|step| apply(&mut store, &mut now, step));
        now = 0;
        before.iter().for_each(|step| apply(&mut twin, &mut now, step));
        let (begun, expected, whole) = (now, readable(&store), store.snapshot());
        let copy = |store: &Store| {
            let copy = store.view(Time::from_secs(begun)).unwrap().into_snapshot();
            (copy.revision, copy.compacted, copy.leases, copy.alarms, copy.versions.collect::<Vec<_>>())
        };
        let whole_view = copy(&store);

        let (head, copying) = store.begin_snapshot();
        let (view_head, view_copying) = store.begin_view(Time::from_secs(begun)).unwrap();
        let (first, second) = between.split_at(between.len() / 2);
        let view = complete(&mut store, &mut now, copying, keys_max, first);
        let versions = complete(&mut store, &mut now, view_copying, keys_max, second);

        let entries = head.into_entries(view);
        let mut again = Store::new(config);
        entries.iter().for_each(|e| again.replay(Time::from_secs(begun), e).unwrap());
        prop_assert_eq!(readable(&again), expected);
        prop_assert_eq!(again.snapshot().len(), whole.len());
        prop_assert_eq!(again.hash_view(0).unwrap().hash(), {
            let mut other = Store::new(Config::default());
            whole.iter().for_each(|e| other.replay(Time::from_secs(begun), e).unwrap());
            other.hash_view(0).unwrap().hash()
        });
        let s = view_head.into_view(versions).into_snapshot();
        prop_assert_eq!((s.revision, s.compacted, s.leases, s.alarms, s.versions.collect::<Vec<_>>()), whole_view);

        // What was held back is freed afterwards: nothing tells the store from one that was never copied.
        now = begun;
        between.iter().for_each(|step| apply(&mut twin, &mut now, step));
        store.defragment();
        twin.defragment();
        prop_assert_eq!(store.status().in_use_bytes, twin.status().in_use_bytes);
        prop_assert_eq!(readable(&store), readable(&twin));
        prop_assert_eq!(store.snapshot(), twin.snapshot());
    }
}
