//! etcd's sequential meaning of requests, as plainly as it can be written.

use std::cmp::Ordering;
use std::collections::BTreeMap;

use bytes::Bytes;
use icp_core::storage::{
    Compare, CompareOp, CompareTarget, DeleteRangeResponse, KeyRange, KeyValue, Op, OpResponse, PutResponse,
    RangeRequest, RangeResponse, Revision, Txn, TxnResponse,
};

/// All keys at one revision.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct State {
    pub revision: Revision,
    pub kvs: BTreeMap<Bytes, KeyValue>,
}

impl Default for State {
    fn default() -> Self {
        Self { revision: 1, kvs: BTreeMap::new() }
    }
}

impl State {
    fn within<'a>(&'a self, range: &'a KeyRange) -> impl Iterator<Item = &'a KeyValue> {
        self.kvs.values().filter(|kv| range.contains(&kv.key))
    }

    /// Reads; sorting and filters by revision are not part of the model.
    pub fn range(&self, request: &RangeRequest, revision: Revision) -> RangeResponse {
        let all: Vec<&KeyValue> = self.within(&request.range).collect();
        let limit = if request.limit > 0 { request.limit as usize } else { usize::MAX };
        let count = all.len();
        let mut kvs: Vec<KeyValue> = all.into_iter().take(limit).cloned().collect();
        if request.keys_only {
            kvs.iter_mut().for_each(|kv| kv.value.clear());
        }
        if request.count_only {
            return RangeResponse { revision, count: count as i64, ..RangeResponse::default() };
        }
        RangeResponse { revision, more: count > kvs.len(), kvs, count: count as i64 }
    }

    /// The state after a transaction, and its answer. The revision is a new one if something was written.
    pub fn txn(&self, txn: &Txn) -> (Self, TxnResponse) {
        let mut next = self.clone();
        let mut wrote = false;
        let mut response = next.run(txn, self.revision + 1, &mut wrote);
        next.revision = self.revision + Revision::from(wrote);
        response.revision = next.revision;
        (next, response)
    }

    fn run(&mut self, txn: &Txn, new: Revision, wrote: &mut bool) -> TxnResponse {
        let succeeded = txn.compare.iter().all(|c| self.holds(c));
        let mut responses = Vec::new();
        for op in if succeeded { &txn.success } else { &txn.failure } {
            responses.push(match op {
                Op::Range(r) => OpResponse::Range(self.range(r, new - Revision::from(!*wrote))),
                Op::Put(p) => {
                    let prev = self.kvs.get(&p.key).cloned();
                    let (create_revision, version) = match &prev {
                        Some(kv) => (kv.create_revision, kv.version + 1),
                        None => (new, 1),
                    };
                    let (key, value, lease) = (p.key.clone(), p.value.clone(), p.lease);
                    let kv = KeyValue { key, value, create_revision, mod_revision: new, version, lease };
                    self.kvs.insert(p.key.clone(), kv);
                    *wrote = true;
                    OpResponse::Put(PutResponse { prev_kv: prev.filter(|_| p.prev_kv) })
                }
                Op::DeleteRange(d) => {
                    let gone: Vec<KeyValue> = self.within(&d.range).cloned().collect();
                    gone.iter().for_each(|kv| drop(self.kvs.remove(&kv.key)));
                    *wrote |= !gone.is_empty();
                    let deleted = gone.len() as i64;
                    let prev_kvs = if d.prev_kv { gone } else { Vec::new() };
                    OpResponse::DeleteRange(DeleteRangeResponse { deleted, prev_kvs })
                }
                Op::Txn(nested) => OpResponse::Txn(self.run(nested, new, wrote)),
            });
        }
        let revision = new - Revision::from(!*wrote);
        TxnResponse { revision, succeeded, responses }
    }

    fn holds(&self, compare: &Compare) -> bool {
        let kvs: Vec<KeyValue> = self.within(&compare.range).cloned().collect();
        if kvs.is_empty() {
            let of_value = matches!(compare.target, CompareTarget::Value(_));
            return !of_value && holds(compare, &KeyValue::default());
        }
        kvs.iter().all(|kv| holds(compare, kv))
    }
}

fn holds(compare: &Compare, kv: &KeyValue) -> bool {
    let order = match &compare.target {
        CompareTarget::Version(v) => kv.version.cmp(v),
        CompareTarget::CreateRevision(r) => kv.create_revision.cmp(r),
        CompareTarget::ModRevision(r) => kv.mod_revision.cmp(r),
        CompareTarget::Value(v) => kv.value.cmp(v),
        CompareTarget::Lease(l) => kv.lease.cmp(l),
    };
    match compare.op {
        CompareOp::Equal => order == Ordering::Equal,
        CompareOp::Greater => order == Ordering::Greater,
        CompareOp::Less => order == Ordering::Less,
        CompareOp::NotEqual => order != Ordering::Equal,
    }
}

/// Whether an answer says that something was written.
pub fn wrote(response: &TxnResponse) -> bool {
    response.responses.iter().any(|r| match r {
        OpResponse::Put(_) => true,
        OpResponse::DeleteRange(d) => d.deleted > 0,
        OpResponse::Txn(nested) => wrote(nested),
        OpResponse::Range(_) => false,
    })
}
