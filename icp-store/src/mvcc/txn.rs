//! Transactions.

use alloc::sync::Arc;
use alloc::vec::Vec;
use core::cmp::Ordering;

use bytes::Bytes;
use icp_core::storage::{
    Compare, CompareOp, CompareTarget, DeleteRangeRequest, DeleteRangeResponse, KeyValue, LeaseId, Op,
    OpResponse, PutRequest, PutResponse, Revision, StorageError, Txn, TxnResponse,
};
use smallvec::SmallVec;

use super::{Change, Commit, Limits, Mvcc, Version, check, invalid};

/// What a transaction did.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Applied {
    /// The answer.
    pub response: TxnResponse,
    /// The new revision, if the transaction changed something.
    pub commit: Option<Arc<Commit>>,
}

impl Mvcc {
    /// Evaluates the comparisons on the state before the transaction, nested ones included, checks all operations of
    /// the branches taken, and only then applies them: a refused transaction changes nothing. Operations see the
    /// writes of those before them. `lease_exists` says whether a lease can be bound to.
    ///
    /// # Errors
    /// [`StorageError::Invalid`] for a malformed request or `ignore_value`/`ignore_lease` on a missing key,
    /// [`StorageError::TooLarge`], [`StorageError::LeaseNotFound`], and the errors of [`Mvcc::range`].
    pub fn txn(
        &mut self,
        txn: &Txn,
        limits: &Limits,
        lease_exists: impl Fn(LeaseId) -> bool,
    ) -> Result<Applied, StorageError> {
        check::check(txn, limits)?;
        let mut path = Vec::new();
        self.decide(txn, &mut path);
        // All puts are checked before all reads, as in etcd, so that of two errors the same one is answered.
        self.check_puts(txn, &mut path.iter().copied(), &lease_exists)?;
        self.check_reads(txn, &mut path.iter().copied())?;
        let mut changes = SmallVec::new();
        let begin = self.revision;
        let mut response = self.apply(txn, begin, &mut path.iter().copied(), &mut changes)?;
        let commit = (!changes.is_empty()).then(|| self.seal(begin + 1, changes));
        response.revision = self.revision;
        Ok(Applied { response, commit })
    }

    /// Which branch each transaction takes, in the order in which they are met.
    fn decide(&self, txn: &Txn, path: &mut Vec<bool>) {
        let holds = txn.compare.iter().all(|c| self.holds(c));
        path.push(holds);
        for op in branch(txn, holds) {
            if let Op::Txn(nested) = op {
                self.decide(nested, path);
            }
        }
    }

    fn holds(&self, compare: &Compare) -> bool {
        let mut any = false;
        for kv in self.scan(&compare.range, self.revision) {
            any = true;
            if !compare_kv(compare, kv) {
                return false;
            }
        }
        // An empty value cannot be told from a missing one, so that no value comparison holds for a missing key.
        any || (!matches!(compare.target, CompareTarget::Value(_))
            && compare_kv(compare, &KeyValue::default()))
    }

    fn check_puts(
        &self,
        txn: &Txn,
        path: &mut impl Iterator<Item = bool>,
        lease_exists: &impl Fn(LeaseId) -> bool,
    ) -> Result<(), StorageError> {
        let succeeded = path.next().unwrap_or(false);
        for op in branch(txn, succeeded) {
            match op {
                Op::Put(p) if (p.ignore_value || p.ignore_lease) && self.get(&p.key).is_none() => {
                    return Err(invalid("put.key", "key not found"));
                }
                Op::Put(p) if p.lease != 0 && !lease_exists(p.lease) => {
                    return Err(StorageError::LeaseNotFound(p.lease));
                }
                Op::Txn(nested) => self.check_puts(nested, path, lease_exists)?,
                _ => {}
            }
        }
        Ok(())
    }

    fn check_reads(&self, txn: &Txn, path: &mut impl Iterator<Item = bool>) -> Result<(), StorageError> {
        let succeeded = path.next().unwrap_or(false);
        for op in branch(txn, succeeded) {
            match op {
                Op::Range(r) => {
                    // Below zero is the newest revision for a read alone, but not within a transaction.
                    if r.revision < -i64::from(self.compacted == 0) {
                        return Err(StorageError::Compacted { compacted: self.compacted });
                    }
                    self.check_revision(r.revision, self.revision)?;
                }
                Op::Txn(nested) => self.check_reads(nested, path)?,
                _ => {}
            }
        }
        Ok(())
    }

    fn apply(
        &mut self,
        txn: &Txn,
        begin: Revision,
        path: &mut impl Iterator<Item = bool>,
        changes: &mut SmallVec<[Change; 1]>,
    ) -> Result<TxnResponse, StorageError> {
        let succeeded = path.next().unwrap_or(false);
        let mut responses = Vec::new();
        for op in branch(txn, succeeded) {
            let newest = begin + i64::from(!changes.is_empty());
            responses.push(match op {
                Op::Range(r) => OpResponse::Range(self.range(r, newest)?),
                Op::Put(p) => OpResponse::Put(self.put(p, begin + 1, changes)),
                Op::DeleteRange(d) => OpResponse::DeleteRange(self.delete_range(d, begin + 1, changes)),
                Op::Txn(nested) => OpResponse::Txn(self.apply(nested, begin, path, changes)?),
            });
        }
        Ok(TxnResponse { revision: begin + i64::from(!changes.is_empty()), succeeded, responses })
    }

    fn put(
        &mut self,
        put: &PutRequest,
        revision: Revision,
        changes: &mut SmallVec<[Change; 1]>,
    ) -> PutResponse {
        let prev = self.get(&put.key).cloned();
        let (create_revision, version) =
            prev.as_ref().map_or((revision, 1), |kv| (kv.create_revision, kv.version + 1));
        // What is stored is copied: the request may lie in a much larger buffer, which would be held for as long. The
        // stored key is reused, so that the versions of a key share it.
        let key = prev.as_ref().map_or_else(|| Bytes::copy_from_slice(&put.key), |kv| kv.key.clone());
        let value = match &prev {
            Some(kv) if put.ignore_value => kv.value.clone(),
            _ => Bytes::copy_from_slice(&put.value),
        };
        let lease = match &prev {
            Some(kv) if put.ignore_lease => kv.lease,
            _ => put.lease,
        };
        let kv = KeyValue { key, value, create_revision, mod_revision: revision, version, lease };
        let kv = Version::new(kv, changes.len());
        self.push(kv.clone());
        let prev_kv = prev.as_deref().filter(|_| put.prev_kv).map(|kv| kv.kv.clone());
        changes.push(Change { kv, prev });
        PutResponse { prev_kv }
    }

    fn delete_range(
        &mut self,
        delete: &DeleteRangeRequest,
        revision: Revision,
        changes: &mut SmallVec<[Change; 1]>,
    ) -> DeleteRangeResponse {
        let gone: Vec<Arc<Version>> = self.scan(&delete.range, revision).cloned().collect();
        let mut response = DeleteRangeResponse { deleted: gone.len() as i64, prev_kvs: Vec::new() };
        for prev in gone {
            let kv = KeyValue { key: prev.key.clone(), mod_revision: revision, ..KeyValue::default() };
            let kv = Version::new(kv, changes.len());
            self.push(kv.clone());
            if delete.prev_kv {
                response.prev_kvs.push(KeyValue::clone(&prev));
            }
            changes.push(Change { kv, prev: Some(prev) });
        }
        response
    }
}

fn branch(txn: &Txn, succeeded: bool) -> &[Op] {
    if succeeded { &txn.success } else { &txn.failure }
}

fn compare_kv(compare: &Compare, kv: &KeyValue) -> bool {
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
