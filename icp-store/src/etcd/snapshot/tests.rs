use alloc::boxed::Box;
use alloc::format;
use alloc::string::ToString;
use alloc::vec;
use alloc::vec::Vec;

use icp_core::base::Time;
use icp_core::storage::{
    AlarmKind, DeleteRangeRequest, KeyRange, Op, PutRequest, Revision, StoredVersion, Txn,
};
use proptest::prelude::*;

use super::*;
use crate::etcd::bolt::{BoltError, Bucket, File};
use crate::{Config, Store};

fn bytes(mut file: File) -> Vec<u8> {
    let mut bytes = Vec::new();
    while file.next(&mut bytes) {}
    bytes
}

fn imported(file: &[u8]) -> Result<(Store, Imported), BoltError> {
    let mut store = Store::new(Config::default());
    let read = import(file, &mut |e| store.replay(Time::ZERO, &e).map_err(|e| e.to_string()))?;
    Ok((store, read))
}

/// Everything but the view itself.
#[derive(Debug, PartialEq)]
struct Whole {
    revision: Revision,
    compacted: Revision,
    leases: Vec<(i64, i64)>,
    alarms: Vec<AlarmKind>,
    versions: Vec<StoredVersion>,
}

fn whole(store: &Store) -> Whole {
    let s = store.view(Time::ZERO).unwrap().into_snapshot();
    let leases = s.leases.iter().map(|l| (l.id, l.granted_ttl_secs)).collect();
    let (revision, compacted, versions) = (s.revision, s.compacted, s.versions.collect());
    Whole { revision, compacted, leases, alarms: s.alarms, versions }
}

#[derive(Clone, Debug)]
enum Step {
    Put(Vec<(u8, u16)>),
    Delete(u8, u8),
    Grant(u8),
    Revoke(u8),
    Compact(u8),
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        6 => prop::collection::vec((0..12_u8, 0..700_u16), 1..4).prop_map(Step::Put),
        2 => (0..12_u8, 0..12_u8).prop_map(|(a, b)| Step::Delete(a, b)),
        1 => (1..5_u8).prop_map(Step::Grant),
        1 => (1..5_u8).prop_map(Step::Revoke),
        1 => any::<u8>().prop_map(Step::Compact),
    ]
}

fn apply(store: &mut Store, step: &Step) {
    let key = |k: &u8| format!("key{k:02}");
    // What is refused changes nothing.
    match step {
        Step::Put(puts) => {
            let put = |(k, n): &(u8, u16)| PutRequest {
                lease: i64::from(n % 5),
                ..PutRequest::new(key(k), vec![*k; usize::from(*n)])
            };
            let success = puts.iter().map(|p| Op::Put(put(p))).collect();
            let _ = store.txn(Time::ZERO, &Txn { success, ..Txn::default() });
        }
        Step::Delete(a, b) => {
            let range = KeyRange::between(key(a), key(b));
            let success = vec![Op::DeleteRange(DeleteRangeRequest { range, prev_kv: false })];
            let _ = store.txn(Time::ZERO, &Txn { success, ..Txn::default() });
        }
        Step::Grant(id) => _ = store.lease_grant(Time::ZERO, i64::from(*id), 100),
        Step::Revoke(id) => _ = store.lease_revoke(Time::ZERO, i64::from(*id)),
        Step::Compact(back) => {
            store.publish_all();
            let to = store.visible() - i64::from(back % 8);
            let _ = store.compact(to);
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(48))]

    #[test]
    fn a_store_comes_back_from_its_own_snapshot(steps in prop::collection::vec(step(), 0..80)) {
        let mut store = Store::new(Config::default());
        steps.iter().for_each(|s| apply(&mut store, s));
        store.set_alarm(AlarmKind::NoSpace, true);
        store.publish_all();
        let file = bytes(export(store.view(Time::ZERO).unwrap().into_snapshot(), 7));
        let (again, read) = imported(&file).unwrap();
        prop_assert_eq!(whole(&again), whole(&store));
        let hash = |s: &Store| s.hash_view(0).unwrap().hash();
        prop_assert_eq!(hash(&again), hash(&store));
        prop_assert_eq!((read.revision, read.versions), (store.visible(), whole(&store).versions.len() as u64));
    }
}

type Record = (Vec<u8>, Vec<u8>);

fn file(key: Vec<Record>, meta: Vec<Record>, auth: Vec<Record>) -> Vec<u8> {
    let bucket = |name, records: Vec<Record>| Bucket { name, records: Box::new(records) };
    bytes(File::new(vec![bucket(b"auth", auth), bucket(KEY, key), bucket(META, meta)]))
}

fn version(main: i64, name: &str) -> Record {
    let mut key = Vec::new();
    revision_key(main, 0, false, &mut key);
    let kv = crate::etcd::proto::KeyValue {
        key: name.to_string().into(),
        create_revision: main,
        mod_revision: main,
        version: 1,
        ..Default::default()
    };
    (key, prost::Message::encode_to_vec(&kv))
}

#[test]
fn a_compaction_that_was_only_scheduled_is_completed() {
    let mut scheduled = Vec::new();
    revision_key(4, 0, false, &mut scheduled);
    let meta = vec![(SCHEDULED_COMPACT.to_vec(), scheduled)];
    let versions = vec![version(2, "a"), version(3, "a"), version(4, "b"), version(5, "a")];
    let (store, read) = imported(&file(versions, meta, vec![])).unwrap();
    assert_eq!((read.compacted, read.versions, read.keys, store.visible()), (4, 3, 2, 5));
}

#[test]
fn what_is_no_history_is_refused_with_its_reason() {
    let refused = |key, auth| match imported(&file(key, vec![], auth)) {
        Err(BoltError::Refused(detail)) => detail,
        other => panic!("{:?}", other.map(|(_, read)| read)),
    };
    assert_eq!(refused(vec![version(2, "a"), version(4, "a")], vec![]), "revision 4 follows 2");
    assert_eq!(refused(vec![(b"short".to_vec(), vec![])], vec![]), "key: not a revision");
    assert_eq!(
        refused(vec![(version(2, "a").0, version(3, "a").1)], vec![]),
        "revision 2: not a version of a key"
    );
    let auth = vec![(b"authEnabled".to_vec(), vec![1])];
    assert!(refused(vec![], auth).contains("users and roles are not supported"));
}
