//! What happens to a store.

use icp_core::storage::{LeaseId, RangeRequest, Revision, Txn, WatchRequest};

use crate::watch::WatchId;

/// A request.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Request {
    /// Read.
    Range(RangeRequest),
    /// Compare, then read and write.
    Txn(Txn),
    /// Begin a watch.
    Watch(WatchRequest),
    /// Compact history.
    Compact(Revision),
    /// Grant a lease; id 0 lets the store choose.
    LeaseGrant {
        /// The lease.
        id: LeaseId,
        /// Seconds to live.
        ttl_secs: i64,
    },
    /// Renew a lease.
    LeaseKeepAlive(LeaseId),
    /// End a lease and delete its keys.
    LeaseRevoke(LeaseId),
}

/// What happens to a [`Store`](super::Store).
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Event {
    /// Somebody asks something.
    Request {
        /// Names the answer.
        id: u64,
        /// What is asked.
        request: Request,
    },
    /// All entries up to this revision are durable: show it to readers and watchers.
    Durable(Revision),
    /// A watcher takes its next batch.
    Poll(WatchId),
    /// A watcher is gone.
    CancelWatch(WatchId),
    /// Watches that were begun with `progress_notify` are to say how far they are.
    RequestProgress,
}
