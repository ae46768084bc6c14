//! The port to an etcd-shaped store: revisions, ranges, transactions, watches and leases.
//!
//! The shapes are those of the etcd v3 API (`etcd-io/etcd api/etcdserverpb/rpc.proto`), so that a real etcd can
//! stand behind the port and the embedded store can be served as one. The one implementation of the MVCC logic is
//! in `icp-store`.

mod error;
mod maintenance;
mod types;

use alloc::boxed::Box;
use alloc::vec::Vec;
use core::pin::Pin;

use async_trait::async_trait;
use futures_core::Stream;

pub use error::StorageError;
pub use maintenance::{AlarmKind, KvHash, StoreSnapshot, StoredLease, StoredVersion};
pub use types::{
    Compare, CompareOp, CompareTarget, DeleteRangeRequest, DeleteRangeResponse, Event, EventKind, KeyRange,
    KeyValue, LeaseId, LeaseStatus, LeaseTtl, Op, OpResponse, PutRequest, PutResponse, RangeRequest,
    RangeResponse, SortBy, SortOrder, StoreStatus, Txn, TxnResponse, WatchRequest, WatchResponse,
};

/// A global, strictly increasing number; every transaction that writes makes one new revision.
pub type Revision = i64;

/// Batches of one watch, in revision order, without gaps and without repeats. The stream ends after an `Err`.
pub type WatchStream = Pin<Box<dyn Stream<Item = Result<WatchResponse, StorageError>> + Send>>;

/// An etcd-shaped store.
///
/// All reads and writes are linearizable unless the request says `serializable`. A write that was answered `Ok` is
/// durable in the sense of the backend. A future that is dropped has an unknown outcome.
#[async_trait]
pub trait Storage: Send + Sync {
    /// Reads a range of keys at one revision.
    async fn range(&self, request: RangeRequest) -> Result<RangeResponse, StorageError>;

    /// Evaluates the comparisons and applies one of the two branches, atomically.
    async fn txn(&self, txn: Txn) -> Result<TxnResponse, StorageError>;

    /// Watches a range of keys from a revision on. A start below the compacted revision is answered with
    /// [`StorageError::Compacted`] here, or by the stream if compaction overtakes it later; a start above the current
    /// revision waits silently.
    async fn watch(&self, request: WatchRequest) -> Result<WatchStream, StorageError>;

    /// Forgets all versions older than the newest at or below `revision`.
    async fn compact(&self, revision: Revision) -> Result<(), StorageError>;

    /// Grants a lease of `ttl_secs` seconds; `id` 0 lets the store choose.
    async fn lease_grant(&self, id: LeaseId, ttl_secs: i64) -> Result<LeaseTtl, StorageError>;

    /// Renews a lease.
    async fn lease_keep_alive(&self, id: LeaseId) -> Result<LeaseTtl, StorageError>;

    /// Ends a lease and deletes its keys.
    async fn lease_revoke(&self, id: LeaseId) -> Result<(), StorageError>;

    /// Asks every watch of this handle that was begun with `progress_notify` to say up to which revision it is
    /// complete; a watch says so after everything before it is delivered. Consistent reads from a cache are made so.
    async fn request_progress(&self) -> Result<(), StorageError> {
        Err(StorageError::Unimplemented("request_progress"))
    }

    /// What is left of a lease, and its keys.
    async fn lease_status(&self, _id: LeaseId) -> Result<LeaseStatus, StorageError> {
        Err(StorageError::Unimplemented("lease_status"))
    }

    /// The ids of all leases, in order.
    async fn leases(&self) -> Result<Vec<LeaseId>, StorageError> {
        Err(StorageError::Unimplemented("leases"))
    }

    /// Figures of the store.
    async fn status(&self) -> Result<StoreStatus, StorageError> {
        Err(StorageError::Unimplemented("status"))
    }

    /// The hash of all versions up to `revision`; 0 means the newest.
    async fn hash_kv(&self, _revision: Revision) -> Result<KvHash, StorageError> {
        Err(StorageError::Unimplemented("hash_kv"))
    }

    /// The alarms that are raised, in order.
    async fn alarms(&self) -> Result<Vec<AlarmKind>, StorageError> {
        Err(StorageError::Unimplemented("alarms"))
    }

    /// Raises or disarms an alarm, and says whether that changed something.
    async fn set_alarm(&self, _alarm: AlarmKind, _raised: bool) -> Result<bool, StorageError> {
        Err(StorageError::Unimplemented("set_alarm"))
    }

    /// Everything that the store holds, as a view of one revision.
    async fn snapshot(&self) -> Result<StoreSnapshot, StorageError> {
        Err(StorageError::Unimplemented("snapshot"))
    }

    /// Gives back what compaction has made superfluous, at once.
    async fn defragment(&self) -> Result<(), StorageError> {
        Err(StorageError::Unimplemented("defragment"))
    }
}
