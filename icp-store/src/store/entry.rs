//! What a log holds.

use alloc::sync::Arc;

use icp_core::storage::{AlarmKind, LeaseId, Revision};

use crate::mvcc::{Commit, Version};

/// One change of the store's state, as its effect and not as the request: replaying entries in order gives the same
/// state again. A snapshot is a sequence of entries too, which begins with [`Entry::Restore`].
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Entry {
    /// The changes of one revision.
    Commit(Arc<Commit>),
    /// A lease was granted.
    LeaseGrant {
        /// The lease.
        id: LeaseId,
        /// Its time to live, in seconds.
        ttl_secs: i64,
    },
    /// What was left of a lease; all of its time to live after a renewal.
    LeaseCheckpoint {
        /// The lease.
        id: LeaseId,
        /// Seconds until it ends.
        left_secs: i64,
    },
    /// A lease ended. The commit that deletes its keys stands before, so that a cut between leaves no key bound to a
    /// lease that nobody ends.
    LeaseRevoke {
        /// The lease.
        id: LeaseId,
    },
    /// History was compacted.
    Compact {
        /// Up to here.
        revision: Revision,
    },
    /// Forget everything: a snapshot begins.
    Restore {
        /// The compacted revision of the snapshot.
        compacted: Revision,
    },
    /// A key as it was at the compacted revision of the snapshot.
    Base(Arc<Version>),
    /// An alarm was raised or disarmed.
    Alarm {
        /// Which.
        kind: AlarmKind,
        /// Whether it is raised now.
        raised: bool,
    },
}
