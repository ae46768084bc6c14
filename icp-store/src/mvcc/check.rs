//! What a transaction must fulfil before anything is looked at (`etcd server/etcdserver/api/v3rpc/key.go`).

use alloc::collections::BTreeSet;
use alloc::vec::Vec;

use bytes::Bytes;
use icp_core::storage::{KeyRange, Op, PutRequest, StorageError, Txn};

use super::{Limits, invalid};

/// Checks the shape of a transaction: sizes, options that exclude each other, keys that are written twice.
pub(crate) fn check(txn: &Txn, limits: &Limits) -> Result<(), StorageError> {
    let mut bytes = 0_usize;
    shape(txn, limits.txn_ops_max, limits.txn_depth_max, &mut bytes)?;
    if bytes > limits.request_bytes_max {
        return Err(StorageError::TooLarge { bytes, bytes_max: limits.request_bytes_max });
    }
    for ops in [&txn.success, &txn.failure] {
        writes(ops)?;
        let mut starts = Vec::new();
        open_deletes(ops, &mut starts);
        if let Some(first) = starts.into_iter().min()
            && keeps_part(ops, first)
        {
            return Err(invalid("txn", "duplicate key given in txn request"));
        }
    }
    Ok(())
}

fn shape(txn: &Txn, ops_left: usize, depth_left: usize, bytes: &mut usize) -> Result<(), StorageError> {
    let ops = txn.compare.len().max(txn.success.len()).max(txn.failure.len());
    let (Some(ops_left), Some(depth_left)) = (ops_left.checked_sub(ops), depth_left.checked_sub(1)) else {
        return Err(invalid("txn", "too many operations in txn request"));
    };
    for compare in &txn.compare {
        key("compare.key", &compare.range)?;
        *bytes += range_bytes(&compare.range);
    }
    for op in txn.success.iter().chain(&txn.failure) {
        match op {
            Op::Range(r) => {
                key("range.key", &r.range)?;
                *bytes += range_bytes(&r.range);
            }
            Op::Put(p) => {
                put(p)?;
                *bytes += p.key.len() + p.value.len();
            }
            Op::DeleteRange(d) => {
                key("delete_range.key", &d.range)?;
                *bytes += range_bytes(&d.range);
            }
            Op::Txn(t) => shape(t, ops_left, depth_left, bytes)?,
        }
    }
    Ok(())
}

fn range_bytes(range: &KeyRange) -> usize {
    range.start.len() + range.end.as_ref().map_or(0, Bytes::len)
}

fn key(field: &'static str, range: &KeyRange) -> Result<(), StorageError> {
    if range.start.is_empty() && range.end.is_none() {
        return Err(invalid(field, "key is not provided"));
    }
    Ok(())
}

fn put(put: &PutRequest) -> Result<(), StorageError> {
    if put.key.is_empty() {
        return Err(invalid("put.key", "key is not provided"));
    }
    if put.ignore_value && !put.value.is_empty() {
        return Err(invalid("put.value", "value is provided"));
    }
    if put.ignore_lease && put.lease != 0 {
        return Err(invalid("put.lease", "lease is provided"));
    }
    Ok(())
}

/// What the operations of one branch put and delete. A key that is put twice, or put and deleted, is refused; the two
/// branches of one nested transaction exclude each other and may name the same key. A deletion without an upper end
/// does not count, since etcd overlooks it: it and the puts are done in their order. Only puts that keep a part of the
/// version before are refused then ([`keeps_part`]), because that may be deleted: an etcd member ends with a panic there,
/// and does so again whenever it is started.
fn writes(ops: &[Op]) -> Result<(BTreeSet<&Bytes>, Vec<&KeyRange>), StorageError> {
    let mut deletes: Vec<&KeyRange> = Vec::new();
    for op in ops {
        if let Op::DeleteRange(d) = op
            && d.range.end.as_ref().is_none_or(|end| !end.is_empty())
        {
            deletes.push(&d.range);
        }
    }
    let duplicate = || invalid("txn", "duplicate key given in txn request");
    let deleted = |deletes: &[&KeyRange], key: &[u8]| deletes.iter().any(|range| range.contains(key));
    let mut puts: BTreeSet<&Bytes> = BTreeSet::new();
    for op in ops {
        let Op::Txn(nested) = op else { continue };
        let (then_puts, then_deletes) = writes(&nested.success)?;
        let (else_puts, else_deletes) = writes(&nested.failure)?;
        for key in then_puts.union(&else_puts) {
            if puts.contains(*key) || deleted(&deletes, key) {
                return Err(duplicate());
            }
        }
        puts.extend(then_puts);
        puts.extend(else_puts);
        deletes.extend(then_deletes);
        deletes.extend(else_deletes);
    }
    for op in ops {
        if let Op::Put(p) = op
            && (deleted(&deletes, &p.key) || !puts.insert(&p.key))
        {
            return Err(duplicate());
        }
    }
    Ok((puts, deletes))
}

/// The starts of all deletions without an upper end.
fn open_deletes<'a>(ops: &'a [Op], starts: &mut Vec<&'a Bytes>) {
    for op in ops {
        match op {
            Op::DeleteRange(d) if d.range.end.as_ref().is_some_and(Bytes::is_empty) => {
                starts.push(&d.range.start)
            }
            Op::Txn(nested) => {
                open_deletes(&nested.success, starts);
                open_deletes(&nested.failure, starts);
            }
            _ => {}
        }
    }
}

/// Whether a put of a key from `first` on keeps the value or the lease that the key has.
fn keeps_part(ops: &[Op], first: &Bytes) -> bool {
    ops.iter().any(|op| match op {
        Op::Put(p) => (p.ignore_value || p.ignore_lease) && p.key >= first,
        Op::Txn(nested) => keeps_part(&nested.success, first) || keeps_part(&nested.failure, first),
        Op::Range(_) | Op::DeleteRange(_) => false,
    })
}
