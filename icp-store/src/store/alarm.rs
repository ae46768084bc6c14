//! Alarms and the quota (`etcd-io/etcd etcdserver/{apply.go,quota.go}`).

use alloc::collections::BTreeSet;
use alloc::vec::Vec;

use icp_core::storage::{AlarmKind, Op, StorageError, Txn};

use super::{Entry, Store};
use crate::mvcc;

/// The alarms that are raised.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Alarms(BTreeSet<AlarmKind>);

impl Alarms {
    /// Says whether that changed something.
    pub(super) fn set(&mut self, kind: AlarmKind, raised: bool) -> bool {
        if raised { self.0.insert(kind) } else { self.0.remove(&kind) }
    }
}

/// What a lease counts against the quota (etcd's `leaseOverhead`).
const LEASE_BYTES: u64 = 64;

impl Store {
    /// The alarms that are raised, in order.
    #[must_use]
    pub fn alarms(&self) -> Vec<AlarmKind> {
        self.alarms.0.iter().copied().collect()
    }

    /// Raises or disarms an alarm, and says whether that changed something.
    pub fn set_alarm(&mut self, kind: AlarmKind, raised: bool) -> bool {
        let changed = self.alarms.set(kind, raised);
        if changed {
            self.entries.push(Entry::Alarm { kind, raised });
        }
        changed
    }

    /// Whether any write may be applied.
    pub(super) fn admit_any(&self) -> Result<(), StorageError> {
        match self.alarms.0.contains(&AlarmKind::Corrupt) {
            true => Err(StorageError::CorruptAlarm),
            false => Ok(()),
        }
    }

    pub(super) fn admit_txn(&mut self, txn: &Txn) -> Result<(), StorageError> {
        if self.alarms.0.is_empty() && self.config.quota_bytes == 0 {
            return Ok(());
        }
        let cost = cost(txn);
        self.admit_bytes(cost)?;
        if self.alarms.0.is_empty() || (cost == 0 && reads_only(txn)) {
            return Ok(());
        }
        // As in etcd a malformed request is told so even now.
        mvcc::check(txn, &self.config.limits)?;
        self.admit_any()?;
        if cost > 0 { self.refuse_if_full() } else { Ok(()) }
    }

    pub(super) fn admit_lease(&mut self) -> Result<(), StorageError> {
        self.admit_bytes(LEASE_BYTES)?;
        self.admit_any()?;
        self.refuse_if_full()
    }

    /// Raises the alarm if `bytes` more do not fit the quota.
    fn admit_bytes(&mut self, bytes: u64) -> Result<(), StorageError> {
        let quota = self.config.quota_bytes;
        if quota > 0 && bytes > 0 && self.kv.value_bytes().saturating_add(bytes) > quota {
            self.set_alarm(AlarmKind::NoSpace, true);
            return Err(StorageError::NoSpace { detail: alloc::format!("the quota is {quota} bytes") });
        }
        Ok(())
    }

    fn refuse_if_full(&self) -> Result<(), StorageError> {
        if self.alarms.0.contains(&AlarmKind::NoSpace) {
            return Err(StorageError::NoSpace { detail: "the alarm NOSPACE is raised".into() });
        }
        Ok(())
    }
}

/// Bytes of keys and values that a transaction puts at most, whichever branches it takes.
fn cost(txn: &Txn) -> u64 {
    let branch = |ops: &[Op]| {
        ops.iter()
            .map(|op| match op {
                Op::Put(p) => (p.key.len() + p.value.len()) as u64,
                Op::Txn(nested) => cost(nested),
                Op::Range(_) | Op::DeleteRange(_) => 0,
            })
            .fold(0, u64::saturating_add)
    };
    branch(&txn.success).max(branch(&txn.failure))
}

fn reads_only(txn: &Txn) -> bool {
    txn.success.iter().chain(&txn.failure).all(|op| match op {
        Op::Range(_) => true,
        Op::Txn(nested) => reads_only(nested),
        Op::Put(_) | Op::DeleteRange(_) => false,
    })
}
