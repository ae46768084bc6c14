//! Keys and leases over virtual time and restarts, against a model of two maps.

use alloc::collections::{BTreeMap, BTreeSet};
use alloc::format;
use alloc::string::String;
use alloc::vec;
use alloc::vec::Vec;

use icp_core::base::Time;
use icp_core::storage::{
    DeleteRangeRequest, KeyRange, LeaseId, Op, PutRequest, RangeRequest, StorageError, Txn,
};
use proptest::prelude::*;

use super::{Config, Entry, Store};

#[derive(Clone, Debug)]
enum Step {
    Grant(LeaseId, i64),
    Put(u8, LeaseId),
    /// All keys between two.
    Delete(u8, u8),
    Renew(LeaseId),
    Revoke(LeaseId),
    /// Seconds pass, and the store is woken when it wants to be.
    Pass(u64),
    Compact,
    /// The process ends and comes back after some seconds, from its log or from a snapshot that was made just before.
    Restart(bool, u64),
}

fn step() -> impl Strategy<Value = Step> {
    let ttl = prop_oneof![Just(1_i64), 5..60_i64, 290..310_i64, 500..2_000_i64];
    let lease = 1..5_i64;
    prop_oneof![
        4 => (lease.clone(), ttl).prop_map(|(id, ttl)| Step::Grant(id, ttl)),
        6 => (0..6_u8, 0..5_i64).prop_map(|(key, lease)| Step::Put(key, lease)),
        2 => (0..6_u8, 0..7_u8).prop_map(|(from, to)| Step::Delete(from, to)),
        4 => lease.clone().prop_map(Step::Renew),
        1 => lease.prop_map(Step::Revoke),
        5 => prop_oneof![1..30_u64, 100..900_u64].prop_map(Step::Pass),
        1 => Just(Step::Compact),
        2 => (any::<bool>(), 0..100_u64).prop_map(|(snapshot, secs)| Step::Restart(snapshot, secs)),
    ]
}

#[derive(Default)]
struct Model {
    now: u64,
    revision: i64,
    /// Each key's lease.
    keys: BTreeMap<String, LeaseId>,
    /// Each lease's time to live, and when it ends.
    leases: BTreeMap<LeaseId, (u64, u64)>,
}

impl Model {
    fn end(&mut self, lease: LeaseId) {
        self.leases.remove(&lease);
        let before = self.keys.len();
        self.keys.retain(|_, l| *l != lease);
        self.revision += i64::from(self.keys.len() < before);
    }

    /// Ends what has run out.
    fn pass(&mut self, secs: u64) {
        self.now += secs;
        let over = |(id, (_, end)): (&LeaseId, &(u64, u64))| (*end <= self.now).then_some(*id);
        let over: Vec<LeaseId> = self.leases.iter().filter_map(over).collect();
        over.into_iter().for_each(|id| self.end(id));
    }

    fn check(&self, store: &Store) {
        let all = store.range(&RangeRequest::new(KeyRange::prefix(""))).unwrap();
        let keys: BTreeMap<String, LeaseId> =
            all.kvs.iter().map(|kv| (String::from_utf8(kv.key.to_vec()).unwrap(), kv.lease)).collect();
        assert_eq!((&keys, all.revision), (&self.keys, self.revision));
        assert_eq!(store.lease_ids(), self.leases.keys().copied().collect::<Vec<_>>());
        for (id, (ttl, end)) in &self.leases {
            let info = store.lease_info(Time::from_secs(self.now as i64), *id).unwrap();
            assert_eq!((info.granted_ttl_secs as u64, info.ttl_secs as u64), (*ttl, end - self.now), "{id}");
            let bound: BTreeSet<&str> = info.keys.iter().map(|k| core::str::from_utf8(k).unwrap()).collect();
            let expected: BTreeSet<&str> =
                self.keys.iter().filter(|(_, l)| *l == id).map(|(k, _)| k.as_str()).collect();
            assert_eq!(bound, expected);
        }
    }
}

fn wake(store: &mut Store, now: u64, log: &mut Vec<Entry>) {
    let now = Time::from_secs(now as i64);
    while let Some(due) = store.lease_deadline().filter(|due| *due <= now) {
        store.tick(due);
        assert!(store.lease_deadline().is_none_or(|next| next > due), "it would be woken for ever");
    }
    store.publish_all();
    log.extend(store.take_entries());
}

fn run(steps: Vec<Step>) {
    let key = |k: u8| format!("k{k}");
    let mut store = Store::new(Config::default());
    let mut model = Model { revision: 1, ..Model::default() };
    let mut log = Vec::new();
    for step in steps {
        let now = Time::from_secs(model.now as i64);
        match step {
            Step::Grant(id, ttl) => {
                let granted = store.lease_grant(now, id, ttl);
                let ttl = ttl.max(2) as u64;
                match model.leases.contains_key(&id) {
                    true => assert_eq!(granted, Err(StorageError::LeaseExists(id))),
                    false => {
                        assert_eq!(granted.unwrap().ttl_secs as u64, ttl);
                        model.leases.insert(id, (ttl, model.now + ttl));
                    }
                }
            }
            Step::Put(k, lease) => {
                let put = PutRequest { lease, ..PutRequest::new(key(k), "v") };
                let done = store.txn(now, &Txn { success: vec![Op::Put(put)], ..Txn::default() });
                if lease == 0 || model.leases.contains_key(&lease) {
                    model.revision += 1;
                    assert_eq!(done.unwrap().revision, model.revision);
                    model.keys.insert(key(k), lease);
                } else {
                    assert_eq!(done, Err(StorageError::LeaseNotFound(lease)));
                }
            }
            Step::Delete(from, to) => {
                let range = KeyRange::between(key(from), key(to));
                let gone: Vec<String> =
                    model.keys.keys().filter(|k| range.contains(k.as_bytes())).cloned().collect();
                let delete = Op::DeleteRange(DeleteRangeRequest { range, prev_kv: false });
                store.txn(now, &Txn { success: vec![delete], ..Txn::default() }).unwrap();
                model.revision += i64::from(!gone.is_empty());
                gone.iter().for_each(|k| _ = model.keys.remove(k));
            }
            Step::Renew(id) => match (store.lease_keep_alive(now, id), model.leases.get_mut(&id)) {
                (Ok(lease), Some((ttl, end))) => {
                    assert_eq!(lease.ttl_secs as u64, *ttl);
                    *end = model.now + *ttl;
                }
                (Err(StorageError::LeaseNotFound(_)), None) => {}
                (answer, lease) => panic!("{answer:?} for {lease:?}"),
            },
            Step::Revoke(id) => {
                let there = model.leases.contains_key(&id);
                assert_eq!(store.lease_revoke(now, id).is_ok(), there);
                if there {
                    model.end(id);
                }
            }
            Step::Pass(secs) => model.pass(secs),
            Step::Compact => _ = store.compact(store.visible()),
            Step::Restart(snapshot, secs) => {
                wake(&mut store, model.now, &mut log);
                if snapshot {
                    log = store.snapshot();
                }
                model.now += secs;
                store = Store::new(Config::default());
                let now = Time::from_secs(model.now as i64);
                log.iter().for_each(|e| store.replay(now, e).unwrap());
                for (id, (ttl, end)) in &mut model.leases {
                    // The process was away for `secs`: nobody could renew, and nothing ran out.
                    let promised = *end - (model.now - secs);
                    let left = store.lease_info(now, *id).unwrap().ttl_secs as u64;
                    assert!(left >= promised && left <= promised + 300, "{left} of {promised}");
                    assert!(*ttl > 300 || left == *ttl, "short ones begin anew");
                    *end = model.now + left;
                }
            }
        }
        wake(&mut store, model.now, &mut log);
        model.check(&store);
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(128))]
    #[test]
    fn keys_and_leases_are_those_of_the_model(steps in proptest::collection::vec(step(), 1..60)) {
        run(steps);
    }
}
