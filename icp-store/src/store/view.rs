//! Views of a store, for what must not hold it: hashes and copies.

use alloc::boxed::Box;
use alloc::vec::Vec;

use icp_core::base::Time;
use icp_core::storage::{AlarmKind, KvHash, Revision, StorageError, StoreSnapshot, StoredLease};

use super::Store;
use crate::mvcc::{Copying, View};

/// Everything that was published at one moment. It shares all keys and values with the store.
#[derive(Clone, Debug)]
pub struct StoreView {
    versions: View,
    leases: Vec<StoredLease>,
    alarms: Vec<AlarmKind>,
}

/// What a view holds beside the keys: leases and alarms as they were when it was begun.
#[derive(Clone, Debug)]
pub struct ViewHead {
    leases: Vec<StoredLease>,
    alarms: Vec<AlarmKind>,
}

impl ViewHead {
    /// The view whose keys are `versions`.
    #[must_use]
    pub fn into_view(self, versions: View) -> StoreView {
        StoreView { versions, leases: self.leases, alarms: self.alarms }
    }
}

impl StoreView {
    /// The copy of the store. Bringing the versions in order takes a while for many keys: no lock is to be held.
    #[must_use]
    pub fn into_snapshot(self) -> StoreSnapshot {
        let (revision, compacted) = (self.versions.revision, self.versions.compacted);
        let versions = Box::new(self.versions.into_versions().into_iter().map(|v| v.stored()));
        StoreSnapshot { revision, compacted, leases: self.leases, alarms: self.alarms, versions }
    }
}

/// What [`KvHash`] is computed from.
#[derive(Clone, Debug)]
pub struct HashView {
    revision: Revision,
    versions: View,
}

impl HashView {
    /// Computes the hash. It reads all keys and values: no lock is to be held.
    #[must_use]
    pub fn hash(mut self) -> KvHash {
        let compacted = if self.versions.compacted == 0 { -1 } else { self.versions.compacted };
        KvHash { revision: self.revision, compacted, hash: self.versions.hash() }
    }
}

impl Store {
    /// Everything that is published, in one go. It costs a pointer for each key and for each revision since the compaction.
    ///
    /// # Errors
    /// None in practice: the newest published revision can always be read.
    pub fn view(&self, now: Time) -> Result<StoreView, StorageError> {
        let (leases, alarms) = (self.leases.times(now).collect(), self.alarms());
        Ok(StoreView { versions: self.kv.view(self.visible())?, leases, alarms })
    }

    /// Begins a view of this moment, which [`Store::copy_some`] completes in steps. It costs an entry for each lease.
    ///
    /// # Errors
    /// None in practice, as for [`Store::view`].
    pub fn begin_view(&self, now: Time) -> Result<(ViewHead, Copying), StorageError> {
        let head = ViewHead { leases: self.leases.times(now).collect(), alarms: self.alarms() };
        Ok((head, self.kv.begin_copy(self.visible())?))
    }

    /// The published versions up to `revision` (0: the newest), for the hash that etcd computes of them.
    ///
    /// # Errors
    /// [`StorageError::FutureRevision`], [`StorageError::Compacted`] at or below the compacted revision, as in etcd 3.4.
    pub fn hash_view(&self, revision: Revision) -> Result<HashView, StorageError> {
        let (visible, compacted) = (self.visible(), self.kv.compacted());
        if revision > visible {
            return Err(StorageError::FutureRevision { requested: revision, current: visible });
        }
        if revision > 0 && revision <= compacted {
            return Err(StorageError::Compacted { compacted });
        }
        let versions = self.kv.view(if revision > 0 { revision } else { visible })?;
        Ok(HashView { revision: visible, versions })
    }

    /// Frees all that compaction has made superfluous, at once.
    pub fn defragment(&mut self) {
        while self.kv.sweep(usize::MAX) {}
        self.kv.shrink();
    }
}
