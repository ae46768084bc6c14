//! Against a model that keeps every version in one vector and looks at all of them.

use alloc::collections::BTreeMap;
use alloc::format;
use alloc::string::String;
use alloc::vec;
use alloc::vec::Vec;

use icp_core::storage::{
    Compare, CompareOp, CompareTarget, DeleteRangeRequest, DeleteRangeResponse, KeyRange, KeyValue, Op,
    OpResponse, PutRequest, PutResponse, RangeRequest, RangeResponse, SortBy, SortOrder, StorageError, Txn,
    TxnResponse,
};
use proptest::prelude::*;

use super::{Limits, Mvcc};

/// Every version ever, in order.
#[derive(Default)]
struct Naive {
    versions: Vec<KeyValue>,
    revision: i64,
    compacted: i64,
}

impl Naive {
    fn at(&self, revision: i64) -> BTreeMap<Vec<u8>, KeyValue> {
        let mut keys = BTreeMap::new();
        for kv in self.versions.iter().filter(|kv| kv.mod_revision <= revision) {
            if kv.version == 0 {
                keys.remove(&kv.key[..]);
            } else {
                keys.insert(kv.key.to_vec(), kv.clone());
            }
        }
        keys
    }

    fn within(&self, range: &KeyRange, revision: i64) -> Vec<KeyValue> {
        self.at(revision).into_values().filter(|kv| range.contains(&kv.key)).collect()
    }

    fn range(&self, r: &RangeRequest, newest: i64) -> Result<RangeResponse, &'static str> {
        if r.revision > newest {
            return Err("future");
        }
        if r.revision > 0 && r.revision < self.compacted {
            return Err("compacted");
        }
        let all = self.within(&r.range, if r.revision <= 0 { newest } else { r.revision });
        let count = all.len() as i64;
        if r.count_only {
            return Ok(RangeResponse { revision: newest, count, ..RangeResponse::default() });
        }
        let mut kvs = all;
        kvs.retain(|kv| kv.mod_revision >= r.min_mod_revision);
        kvs.retain(|kv| r.max_create_revision == 0 || kv.create_revision <= r.max_create_revision);
        match r.sort_by {
            SortBy::Value => kvs.sort_by_key(|kv| kv.value.clone()),
            SortBy::Version => kvs.sort_by_key(|kv| kv.version),
            _ => {}
        }
        if r.sort_order == SortOrder::Descend {
            kvs.reverse();
            // Ties stand in key order in both directions.
            match r.sort_by {
                SortBy::Value => kvs.sort_by(|a, b| b.value.cmp(&a.value).then(a.key.cmp(&b.key))),
                SortBy::Version => kvs.sort_by(|a, b| b.version.cmp(&a.version).then(a.key.cmp(&b.key))),
                _ => {}
            }
        }
        let more = r.limit > 0 && kvs.len() as i64 > r.limit;
        if more {
            kvs.truncate(r.limit as usize);
        }
        if r.keys_only {
            kvs.iter_mut().for_each(|kv| kv.value = Default::default());
        }
        Ok(RangeResponse { revision: newest, kvs, more, count })
    }

    fn holds(&self, c: &Compare) -> bool {
        let mut kvs = self.within(&c.range, self.revision);
        if kvs.is_empty() {
            if matches!(c.target, CompareTarget::Value(_)) {
                return false;
            }
            kvs.push(KeyValue::default());
        }
        kvs.iter().all(|kv| {
            let order = match &c.target {
                CompareTarget::Version(n) => kv.version.cmp(n),
                CompareTarget::CreateRevision(n) => kv.create_revision.cmp(n),
                CompareTarget::ModRevision(n) => kv.mod_revision.cmp(n),
                CompareTarget::Value(v) => kv.value.cmp(v),
                CompareTarget::Lease(n) => kv.lease.cmp(n),
            };
            match c.op {
                CompareOp::Equal => order.is_eq(),
                CompareOp::NotEqual => order.is_ne(),
                CompareOp::Less => order.is_lt(),
                CompareOp::Greater => order.is_gt(),
            }
        })
    }

    /// Replaces every inner transaction by the branch that it takes, looking only at the state before.
    fn decide(&self, txn: &Txn) -> (bool, Vec<(Op, Option<bool>)>) {
        let succeeded = txn.compare.iter().all(|c| self.holds(c));
        let ops = if succeeded { &txn.success } else { &txn.failure };
        let decided = ops.iter().map(|op| match op {
            Op::Txn(t) => {
                let (succeeded, _) = self.decide(t);
                let success = if succeeded { t.success.clone() } else { t.failure.clone() };
                (Op::Txn(Txn { success, ..Txn::default() }), Some(succeeded))
            }
            op => (op.clone(), None),
        });
        (succeeded, decided.collect())
    }

    fn txn(&mut self, txn: &Txn) -> Result<TxnResponse, &'static str> {
        let begin = self.revision;
        let (succeeded, ops) = self.decide(txn);
        for (op, _) in &ops {
            let reads: Vec<&RangeRequest> = match op {
                Op::Range(r) => vec![r],
                Op::Txn(t) => t
                    .success
                    .iter()
                    .filter_map(|o| if let Op::Range(r) = o { Some(r) } else { None })
                    .collect(),
                _ => vec![],
            };
            for r in reads {
                self.range(r, begin).map(drop)?;
            }
        }
        let before = self.versions.len();
        let mut responses = Vec::new();
        for (op, succeeded) in ops {
            responses.push(match (op, succeeded) {
                (Op::Txn(t), Some(succeeded)) => {
                    let responses: Vec<OpResponse> =
                        t.success.iter().map(|op| self.one(op, begin, before)).collect();
                    let revision = self.newest(begin, before);
                    OpResponse::Txn(TxnResponse { revision, succeeded, responses })
                }
                (op, _) => self.one(&op, begin, before),
            });
        }
        self.revision = self.newest(begin, before);
        Ok(TxnResponse { revision: self.revision, succeeded, responses })
    }

    fn newest(&self, begin: i64, before: usize) -> i64 {
        begin + i64::from(self.versions.len() > before)
    }

    fn one(&mut self, op: &Op, begin: i64, before: usize) -> OpResponse {
        let newest = self.newest(begin, before);
        match op {
            Op::Range(r) => OpResponse::Range(self.range(r, newest).unwrap()),
            Op::Put(p) => {
                let prev = self.at(begin + 1).remove(&p.key[..]);
                self.versions.push(KeyValue {
                    key: p.key.clone(),
                    value: p.value.clone(),
                    create_revision: prev.as_ref().map_or(begin + 1, |kv| kv.create_revision),
                    mod_revision: begin + 1,
                    version: prev.as_ref().map_or(1, |kv| kv.version + 1),
                    lease: p.lease,
                });
                OpResponse::Put(PutResponse { prev_kv: prev.filter(|_| p.prev_kv) })
            }
            Op::DeleteRange(d) => {
                let gone = self.within(&d.range, begin + 1);
                for kv in &gone {
                    let (key, mod_revision) = (kv.key.clone(), begin + 1);
                    self.versions.push(KeyValue { key, mod_revision, ..KeyValue::default() });
                }
                let deleted = gone.len() as i64;
                let prev_kvs = if d.prev_kv { gone } else { vec![] };
                OpResponse::DeleteRange(DeleteRangeResponse { deleted, prev_kvs })
            }
            Op::Txn(_) => unreachable!("one level of nesting is generated"),
        }
    }
}

fn key() -> impl Strategy<Value = String> {
    (0..5_u8).prop_map(|k| format!("k{k}"))
}

fn range() -> impl Strategy<Value = KeyRange> {
    prop_oneof![
        3 => key().prop_map(KeyRange::key),
        1 => (key(), key()).prop_map(|(a, b)| KeyRange::between(a, b)),
        1 => key().prop_map(|a| KeyRange::between(a, "")),
        1 => Just(KeyRange::prefix("")),
    ]
}

fn range_request() -> impl Strategy<Value = RangeRequest> {
    let order = prop_oneof![Just(SortOrder::None), Just(SortOrder::Ascend), Just(SortOrder::Descend)];
    let by = prop_oneof![Just(SortBy::Key), Just(SortBy::Value), Just(SortBy::Version)];
    let flags = (any::<bool>(), 0..10_u8);
    (range(), 0..4_i64, prop_oneof![2 => Just(0_i64), 1 => 1..30_i64], order, by, flags, 0..6_i64, 0..9_i64)
        .prop_map(|(range, limit, revision, order, by, (keys_only, count), min, max)| {
            let mut r = RangeRequest::new(range).at(revision);
            r.sort_order = order;
            r.keys_only = keys_only;
            r.count_only = count == 0;
            // Without an order a limit cuts before it sorts; that quirk has a test of its own.
            if order != SortOrder::None {
                (r.sort_by, r.limit) = (by, limit);
            } else {
                (r.min_mod_revision, r.max_create_revision) = (min, max);
            }
            r
        })
}

fn leaf() -> impl Strategy<Value = Op> {
    prop_oneof![
        4 => (key(), 0..4_u8, any::<bool>()).prop_map(|(k, v, prev_kv)| {
            Op::Put(PutRequest { prev_kv, ..PutRequest::new(k, format!("v{v}")) })
        }),
        1 => (range(), any::<bool>()).prop_map(|(range, prev_kv)| Op::DeleteRange(DeleteRangeRequest { range, prev_kv })),
        2 => range_request().prop_map(Op::Range),
    ]
}

fn compare() -> impl Strategy<Value = Compare> {
    let op = prop_oneof![
        Just(CompareOp::Equal),
        Just(CompareOp::Greater),
        Just(CompareOp::Less),
        Just(CompareOp::NotEqual)
    ];
    let target = (0..5_u8, 0..12_i64).prop_map(|(kind, n)| match kind {
        0 => CompareTarget::Version(n % 3),
        1 => CompareTarget::CreateRevision(n),
        2 => CompareTarget::ModRevision(n),
        3 => CompareTarget::Value(format!("v{}", n % 4).into()),
        _ => CompareTarget::Lease(n % 2),
    });
    (range(), op, target).prop_map(|(range, op, target)| Compare { range, op, target })
}

fn txn() -> impl Strategy<Value = Txn> {
    let ops = || proptest::collection::vec(leaf(), 0..3);
    let compares = || proptest::collection::vec(compare(), 0..2);
    let inner = (compares(), ops(), ops())
        .prop_map(|(compare, success, failure)| Op::Txn(Txn { compare, success, failure }));
    (compares(), ops(), ops(), proptest::option::of(inner)).prop_map(
        |(compare, mut success, failure, inner)| {
            success.extend(inner);
            Txn { compare, success, failure }
        },
    )
}

#[derive(Debug, Clone)]
enum Step {
    Txn(Txn),
    Range(RangeRequest),
    Compact(i64),
    Sweep,
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        6 => txn().prop_map(Step::Txn),
        3 => range_request().prop_map(Step::Range),
        1 => (0..6_i64).prop_map(Step::Compact),
        1 => Just(Step::Sweep),
    ]
}

fn kind(e: &StorageError) -> &'static str {
    match e {
        StorageError::FutureRevision { .. } => "future",
        StorageError::Compacted { .. } => "compacted",
        _ => "other",
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]
    #[test]
    fn answers_like_a_model_that_keeps_everything(steps in proptest::collection::vec(step(), 1..40)) {
        let mut naive = Naive { revision: 1, ..Naive::default() };
        let mut kv = Mvcc::new();
        for step in steps {
            match step {
                Step::Txn(txn) => match kv.txn(&txn, &Limits::default(), |_| true) {
                    // A key that is written twice; the model does not check that.
                    Err(StorageError::Invalid { .. }) => {}
                    answer => {
                        let answer = answer.map(|a| a.response).map_err(|e| kind(&e));
                        prop_assert_eq!(answer, naive.txn(&txn));
                    }
                },
                Step::Range(r) => {
                    let answer = kv.range(&r, kv.revision()).map_err(|e| kind(&e));
                    prop_assert_eq!(answer, naive.range(&r, naive.revision));
                }
                Step::Compact(back) => {
                    let to = naive.revision + 1 - back;
                    let answer = kv.compact(to).map_err(|e| kind(&e));
                    let expected = if to <= naive.compacted { Err("compacted") }
                        else if to > naive.revision { Err("future") } else { Ok(()) };
                    prop_assert_eq!(&answer, &expected);
                    if answer.is_ok() {
                        naive.compacted = to;
                    }
                }
                Step::Sweep => {
                    kv.sweep(2);
                }
            }
        }
        while kv.sweep(10) {}
        // Everything that can still be read is there, and nothing else is kept.
        let from = naive.compacted.max(1);
        for revision in from..=naive.revision {
            let all = RangeRequest::new(KeyRange::prefix("")).at(revision);
            let answer = kv.range(&all, kv.revision()).map_err(|e| kind(&e));
            prop_assert_eq!(answer, naive.range(&all, naive.revision));
        }
        let reachable: u64 = naive.versions.iter().enumerate().filter(|(i, kv)| {
            let newer = naive.versions[i + 1..].iter().find(|n| n.key == kv.key);
            newer.is_none_or(|n| n.mod_revision > from) && (kv.version > 0 || kv.mod_revision > from)
        }).map(|(_, kv)| (kv.key.len() + kv.value.len()) as u64).sum();
        prop_assert_eq!(kv.value_bytes(), reachable);

        let (base, commits) = kv.dump();
        let mut again = Mvcc::restore(kv.compacted());
        for kv in base {
            again.restore_base(kv.as_ref().clone()).unwrap();
        }
        for commit in commits {
            again.restore_commit(commit.revision, commit.changes.iter().map(|c| c.kv.kv.clone())).unwrap();
        }
        prop_assert_eq!(again.dump(), kv.dump());
        prop_assert_eq!(again.revision(), kv.revision());
    }
}

fn put(key: &'static str, value: &'static str) -> Op {
    Op::Put(PutRequest::new(key, value))
}

fn apply(kv: &mut Mvcc, success: Vec<Op>) -> Result<TxnResponse, StorageError> {
    kv.txn(&Txn { success, ..Txn::default() }, &Limits::default(), |_| true).map(|a| a.response)
}

#[test]
fn a_limit_without_an_order_cuts_before_it_sorts() {
    let mut kv = Mvcc::new();
    apply(&mut kv, vec![put("a", "3"), put("b", "2"), put("c", "1")]).unwrap();
    let mut r = RangeRequest::new(KeyRange::prefix("")).limit(1);
    r.sort_by = SortBy::Value;
    // etcd fetches one more than the limit in key order, and sorts these.
    let found = kv.range(&r, kv.revision()).unwrap();
    assert_eq!((&found.kvs[0].value[..], found.more, found.count), (&b"2"[..], true, 3));
}

#[test]
fn a_key_is_written_once_in_a_transaction() {
    let refused = |kv: &mut Mvcc, ops| {
        let error = apply(kv, ops).unwrap_err();
        assert!(
            matches!(&error, StorageError::Invalid { message, .. } if message.contains("duplicate key")),
            "{error}"
        );
    };
    let kv = &mut Mvcc::new();
    let delete = |range| Op::DeleteRange(DeleteRangeRequest { range, prev_kv: false });
    refused(kv, vec![put("a", "1"), put("a", "2")]);
    refused(kv, vec![put("b", "1"), delete(KeyRange::between("a", "c"))]);
    let inner = Op::Txn(Txn { success: vec![put("a", "1")], failure: vec![put("a", "2")], ..Txn::default() });
    refused(kv, vec![inner.clone(), put("a", "3")]);
    apply(kv, vec![inner]).unwrap();
    assert_eq!(kv.revision(), 2);
}

#[test]
fn requests_are_bounded() {
    let kv = &mut Mvcc::new();
    let limits = Limits { txn_ops_max: 4, request_bytes_max: 100, txn_depth_max: 3 };
    let txn = |success| Txn { success, ..Txn::default() };
    let get = || Op::Range(RangeRequest::new(KeyRange::key("k")));
    assert!(kv.txn(&txn((0..5).map(|_| get()).collect()), &limits, |_| true).is_err());
    let big = Op::Put(PutRequest::new("k", vec![0; 200]));
    assert!(matches!(
        kv.txn(&txn(vec![big]), &limits, |_| true),
        Err(StorageError::TooLarge { bytes: 201, .. })
    ));
    let deep = (0..3).fold(get(), |inner, _| Op::Txn(txn(vec![inner])));
    assert!(kv.txn(&txn(vec![deep]), &limits, |_| true).is_err());
    let empty = Op::Put(PutRequest::new("", "v"));
    assert!(matches!(
        kv.txn(&txn(vec![empty]), &limits, |_| true),
        Err(StorageError::Invalid { field: "put.key", .. })
    ));
}

/// A transaction that is refused changes nothing, even when what is wrong stands behind a write.
#[test]
fn a_refused_transaction_changes_nothing() {
    let kv = &mut Mvcc::new();
    let future = Op::Range(RangeRequest::new(KeyRange::key("k")).at(9));
    assert!(matches!(apply(kv, vec![put("k", "v"), future]), Err(StorageError::FutureRevision { .. })));
    assert_eq!((kv.revision(), kv.get(b"k")), (1, None));
}

/// etcd overlooks that a deletion without an upper end meets a put; `tests/etcd_differential.rs` compares.
#[test]
fn a_deletion_without_an_upper_end_and_a_put_are_done_in_order() {
    let delete =
        |start| Op::DeleteRange(DeleteRangeRequest { range: KeyRange::between(start, ""), prev_kv: false });
    let mut kv = Mvcc::new();
    apply(&mut kv, vec![put("a", "1"), put("b", "1")]).unwrap();
    apply(&mut kv, vec![put("b", "2"), delete("b")]).unwrap();
    assert_eq!((kv.revision(), kv.get(b"b")), (3, None));
    apply(&mut kv, vec![delete("a"), put("a", "2")]).unwrap();
    assert_eq!(kv.get(b"a").map(|v| (v.version, v.create_revision, v.sub)), Some((1, 4, 1)));
    let keep = PutRequest { ignore_value: true, ..PutRequest::new("a", "") };
    let refused = apply(&mut kv, vec![delete("a"), Op::Put(keep.clone())]);
    assert!(
        matches!(refused, Err(StorageError::Invalid { field: "txn", .. })),
        "etcd would end: {refused:?}"
    );
    apply(&mut kv, vec![delete("b"), Op::Put(keep)]).unwrap();
    // What was put and deleted at one revision is gone at it, and swept as one.
    kv.compact(4).unwrap();
    while kv.sweep(10) {}
    assert_eq!(kv.dump().0.len(), 1);
}
