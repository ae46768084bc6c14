//! Requests and responses of the store.

use alloc::vec::Vec;

use bytes::Bytes;

use super::Revision;

/// The id of a lease; 0 means none.
pub type LeaseId = i64;

/// A half-open range of keys.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct KeyRange {
    /// The first key.
    pub start: Bytes,
    /// The first key after the range; `None` means the one key `start`; empty means no upper end.
    pub end: Option<Bytes>,
}

impl KeyRange {
    /// The one key `key`.
    #[must_use]
    pub fn key(key: impl Into<Bytes>) -> Self {
        Self { start: key.into(), end: None }
    }

    /// From `start` on, before `end`.
    #[must_use]
    pub fn between(start: impl Into<Bytes>, end: impl Into<Bytes>) -> Self {
        Self { start: start.into(), end: Some(end.into()) }
    }

    /// All keys that begin with `prefix`.
    ///
    /// ```
    /// use icp_core::storage::KeyRange;
    /// let pods = KeyRange::prefix("/registry/pods/");
    /// assert!(pods.contains(b"/registry/pods/default/web"));
    /// assert!(!pods.contains(b"/registry/podtemplates/x"));
    /// ```
    #[must_use]
    pub fn prefix(prefix: impl Into<Bytes>) -> Self {
        let start: Bytes = prefix.into();
        let mut end = start.to_vec();
        while let Some(last) = end.pop() {
            if last < 0xff {
                end.push(last + 1);
                break;
            }
        }
        Self { start, end: Some(end.into()) }
    }

    /// Whether `key` lies in the range.
    #[must_use]
    pub fn contains(&self, key: &[u8]) -> bool {
        match &self.end {
            None => key == self.start,
            Some(end) => key >= &self.start[..] && (end.is_empty() || key < &end[..]),
        }
    }
}

/// One version of a key.
#[derive(Clone, Debug, PartialEq, Eq, Default)]
pub struct KeyValue {
    /// The key.
    pub key: Bytes,
    /// The value; empty in a delete event.
    pub value: Bytes,
    /// The revision that created the key.
    pub create_revision: Revision,
    /// The revision of this version.
    pub mod_revision: Revision,
    /// 1 for the version that created the key, one more for each put; 0 in a delete event.
    pub version: i64,
    /// The lease the key is bound to; 0 for none.
    pub lease: LeaseId,
}

/// Order of a range's results.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub enum SortOrder {
    /// By key, ascending; with a `sort_by` other than the key ascending by that, after `limit` has cut the scan in
    /// key order (as etcd does).
    #[default]
    None,
    /// Smallest first.
    Ascend,
    /// Largest first.
    Descend,
}

/// What a range's results are ordered by.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub enum SortBy {
    /// The key.
    #[default]
    Key,
    /// The version.
    Version,
    /// The revision of creation.
    CreateRevision,
    /// The revision of the last change.
    ModRevision,
    /// The value.
    Value,
}

/// Reads keys.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RangeRequest {
    /// Which keys.
    pub range: KeyRange,
    /// Most results; 0 for no limit.
    pub limit: i64,
    /// At which revision; 0 for the newest.
    pub revision: Revision,
    /// The order of the results.
    pub sort_order: SortOrder,
    /// What they are ordered by.
    pub sort_by: SortBy,
    /// A read that may be stale.
    pub serializable: bool,
    /// Leave out the values.
    pub keys_only: bool,
    /// Only count.
    pub count_only: bool,
    /// Smallest `mod_revision` of a result; 0 for no bound.
    pub min_mod_revision: Revision,
    /// Largest `mod_revision` of a result; 0 for no bound.
    pub max_mod_revision: Revision,
    /// Smallest `create_revision` of a result; 0 for no bound.
    pub min_create_revision: Revision,
    /// Largest `create_revision` of a result; 0 for no bound.
    pub max_create_revision: Revision,
}

impl RangeRequest {
    /// All keys of `range` at the newest revision.
    #[must_use]
    pub fn new(range: KeyRange) -> Self {
        Self {
            range,
            limit: 0,
            revision: 0,
            sort_order: SortOrder::None,
            sort_by: SortBy::Key,
            serializable: false,
            keys_only: false,
            count_only: false,
            min_mod_revision: 0,
            max_mod_revision: 0,
            min_create_revision: 0,
            max_create_revision: 0,
        }
    }

    /// The same, with at most `limit` results.
    #[must_use]
    pub fn limit(mut self, limit: i64) -> Self {
        self.limit = limit;
        self
    }

    /// The same, at `revision`.
    #[must_use]
    pub fn at(mut self, revision: Revision) -> Self {
        self.revision = revision;
        self
    }
}

/// What a range read.
#[derive(Clone, Debug, PartialEq, Eq, Default)]
pub struct RangeResponse {
    /// The store's revision when it read.
    pub revision: Revision,
    /// The keys.
    pub kvs: Vec<KeyValue>,
    /// Whether `limit` cut the result.
    pub more: bool,
    /// How many keys lie in the range, whatever `limit` is.
    pub count: i64,
}

/// Writes a key.
#[derive(Clone, Debug, PartialEq, Eq, Default)]
pub struct PutRequest {
    /// The key.
    pub key: Bytes,
    /// Its new value.
    pub value: Bytes,
    /// The lease to bind it to; 0 for none.
    pub lease: LeaseId,
    /// Answer with the version before.
    pub prev_kv: bool,
    /// Keep the present value.
    pub ignore_value: bool,
    /// Keep the present lease.
    pub ignore_lease: bool,
}

impl PutRequest {
    /// Sets `key` to `value`.
    #[must_use]
    pub fn new(key: impl Into<Bytes>, value: impl Into<Bytes>) -> Self {
        Self { key: key.into(), value: value.into(), ..Self::default() }
    }
}

/// What a put did.
#[derive(Clone, Debug, PartialEq, Eq, Default)]
pub struct PutResponse {
    /// The version before, if it was asked for and there was one.
    pub prev_kv: Option<KeyValue>,
}

/// Deletes keys.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DeleteRangeRequest {
    /// Which keys.
    pub range: KeyRange,
    /// Answer with the versions before.
    pub prev_kv: bool,
}

/// What a deletion did.
#[derive(Clone, Debug, PartialEq, Eq, Default)]
pub struct DeleteRangeResponse {
    /// How many keys it deleted.
    pub deleted: i64,
    /// The versions before, if they were asked for.
    pub prev_kvs: Vec<KeyValue>,
}

/// One operation of a transaction.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Op {
    /// Read.
    Range(RangeRequest),
    /// Write.
    Put(PutRequest),
    /// Delete.
    DeleteRange(DeleteRangeRequest),
    /// A nested transaction.
    Txn(Txn),
}

/// The answer to one operation, in the same place.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum OpResponse {
    /// Of a read.
    Range(RangeResponse),
    /// Of a write.
    Put(PutResponse),
    /// Of a deletion.
    DeleteRange(DeleteRangeResponse),
    /// Of a nested transaction.
    Txn(TxnResponse),
}

/// How a comparison compares.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum CompareOp {
    /// `=`
    Equal,
    /// `>`
    Greater,
    /// `<`
    Less,
    /// `!=`
    NotEqual,
}

/// What a comparison compares with; a key that does not exist has version, revisions and lease 0.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum CompareTarget {
    /// The version.
    Version(i64),
    /// The revision of creation.
    CreateRevision(Revision),
    /// The revision of the last change.
    ModRevision(Revision),
    /// The value; false for a key that does not exist.
    Value(Bytes),
    /// The lease.
    Lease(LeaseId),
}

/// A condition of a transaction; over a range it must hold for every key.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Compare {
    /// Which keys.
    pub range: KeyRange,
    /// How to compare.
    pub op: CompareOp,
    /// With what.
    pub target: CompareTarget,
}

impl Compare {
    /// `key` was last changed at `revision`; 0 means that it does not exist.
    #[must_use]
    pub fn mod_revision(key: impl Into<Bytes>, revision: Revision) -> Self {
        Self { range: KeyRange::key(key), op: CompareOp::Equal, target: CompareTarget::ModRevision(revision) }
    }
}

/// If all of `compare` hold then `success`, else `failure`, atomically and as one revision.
#[derive(Clone, Debug, PartialEq, Eq, Default)]
pub struct Txn {
    /// The conditions.
    pub compare: Vec<Compare>,
    /// What to do if they hold.
    pub success: Vec<Op>,
    /// What to do if one does not.
    pub failure: Vec<Op>,
}

/// What a transaction did.
#[derive(Clone, Debug, PartialEq, Eq, Default)]
pub struct TxnResponse {
    /// The revision of the write, or the store's revision if nothing was written.
    pub revision: Revision,
    /// Whether the conditions held.
    pub succeeded: bool,
    /// The answers, in the order of the branch taken.
    pub responses: Vec<OpResponse>,
}

/// What happened to a key.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum EventKind {
    /// It was created or changed.
    Put,
    /// It was deleted.
    Delete,
}

/// One change of one key.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Event {
    /// What happened.
    pub kind: EventKind,
    /// The new version; for a deletion the key and the revision of the deletion.
    pub kv: KeyValue,
    /// The version before, if it was asked for and is not compacted.
    pub prev_kv: Option<KeyValue>,
}

/// Watches keys.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct WatchRequest {
    /// Which keys.
    pub range: KeyRange,
    /// The first revision to report; 0 for what comes after the call.
    pub start_revision: Revision,
    /// Report the version before each change.
    pub prev_kv: bool,
    /// Send empty responses that carry the revision up to which the watch is complete.
    pub progress_notify: bool,
    /// Leave out puts.
    pub no_put: bool,
    /// Leave out deletions.
    pub no_delete: bool,
}

impl WatchRequest {
    /// All changes of `range` from `start_revision` on.
    #[must_use]
    pub fn new(range: KeyRange, start_revision: Revision) -> Self {
        Self {
            range,
            start_revision,
            prev_kv: false,
            progress_notify: false,
            no_put: false,
            no_delete: false,
        }
    }
}

/// One batch of a watch; all events of one revision are in one batch.
#[derive(Clone, Debug, PartialEq, Eq, Default)]
pub struct WatchResponse {
    /// Every event at or below this revision has been delivered.
    pub revision: Revision,
    /// The events, in revision order; empty for a progress notification.
    pub events: Vec<Event>,
}

/// The state of a lease.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LeaseTtl {
    /// The lease.
    pub id: LeaseId,
    /// Seconds until it ends.
    pub ttl_secs: i64,
}

/// What is known of one lease.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LeaseStatus {
    /// The lease.
    pub id: LeaseId,
    /// Whole seconds until it ends, rounded down.
    pub ttl_secs: i64,
    /// Seconds that a renewal gives.
    pub granted_ttl_secs: i64,
    /// The keys bound to it, in order.
    pub keys: Vec<Bytes>,
}

/// Figures of a store.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub struct StoreStatus {
    /// The newest revision that readers see.
    pub revision: Revision,
    /// The revision up to which history is compacted; 0 if none is or if the backend does not tell.
    pub compacted: Revision,
    /// Bytes that the data takes: on disk if there is one, else keys and values of all versions that are kept.
    pub size_bytes: u64,
    /// Bytes of keys and values of all versions that can be read or are not freed yet.
    pub in_use_bytes: u64,
    /// Bytes in use from which on what adds data is refused; 0 for no bound.
    pub quota_bytes: u64,
    /// Open watches of this process.
    pub watches: usize,
}
