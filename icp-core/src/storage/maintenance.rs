//! What is asked of a store as a whole: its hash, its alarms, a copy of it.

use alloc::boxed::Box;
use alloc::vec::Vec;
use core::fmt;

use super::{KeyValue, LeaseId, Revision};

/// The hash of all versions up to a revision (etcd `Maintenance.HashKV`): equal for stores that hold the same.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub struct KvHash {
    /// The store's revision when it hashed.
    pub revision: Revision,
    /// The revision up to which history was compacted, -1 if none was; hashes compare only if these are equal.
    pub compacted: Revision,
    /// The hash.
    pub hash: u32,
}

/// Why a store refuses requests until somebody has looked at it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[non_exhaustive]
pub enum AlarmKind {
    /// The quota is used up: what adds data is refused, deletions and compaction are taken.
    NoSpace,
    /// The data is not to be trusted: all writes are refused.
    Corrupt,
}

/// A version as it is stored: its revision is `kv.mod_revision` and its place in the transaction that made it. A
/// deletion has `kv.version` 0.
#[derive(Clone, Debug, PartialEq, Eq, Default)]
pub struct StoredVersion {
    /// The version.
    pub kv: KeyValue,
    /// Its place among the changes of its transaction, from 0 on.
    pub sub: u32,
}

impl StoredVersion {
    /// Whether it is a deletion.
    #[must_use]
    pub fn is_delete(&self) -> bool {
        self.kv.version == 0
    }
}

/// A lease as it is stored.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct StoredLease {
    /// The lease.
    pub id: LeaseId,
    /// Seconds that a renewal gives.
    pub granted_ttl_secs: i64,
    /// Whole seconds until it ends, rounded down.
    pub ttl_secs: i64,
}

/// Everything that a store holds at one revision, from which an equal store can be made. It is a view: it shares keys
/// and values with the store, which goes on meanwhile.
pub struct StoreSnapshot {
    /// The newest revision of the view.
    pub revision: Revision,
    /// The revision up to which history is compacted; 0 if none is.
    pub compacted: Revision,
    /// The leases, in order of their ids.
    pub leases: Vec<StoredLease>,
    /// The alarms that are raised, in order.
    pub alarms: Vec<AlarmKind>,
    /// The versions in order of revision and place: those that the compaction left, then all after it.
    pub versions: Box<dyn ExactSizeIterator<Item = StoredVersion> + Send>,
}

impl fmt::Debug for StoreSnapshot {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("StoreSnapshot")
            .field("revision", &self.revision)
            .field("compacted", &self.compacted)
            .field("leases", &self.leases)
            .field("alarms", &self.alarms)
            .field("versions", &self.versions.len())
            .finish()
    }
}
