//! Copies of a store that are made in steps, so that nobody who writes waits for a whole one.
//!
//! ```
//! use core::ops::ControlFlow;
//! use icp_core::base::Time;
//! use icp_core::storage::{Op, PutRequest, Txn};
//! use icp_store::{Config, Store};
//!
//! let mut store = Store::new(Config::default());
//! let put = |key: &'static str| Txn { success: vec![Op::Put(PutRequest::new(key, "v"))], ..Txn::default() };
//! store.txn(Time::ZERO, &put("a"))?;
//! store.txn(Time::ZERO, &put("b"))?;
//! let before = store.snapshot();
//! let (head, mut copying) = store.begin_snapshot();
//! let view = loop {
//!     match store.copy_some(copying, 1) {
//!         ControlFlow::Break(view) => break view,
//!         ControlFlow::Continue(more) => copying = more,
//!     }
//!     store.txn(Time::ZERO, &put("c"))?;
//! };
//! assert_eq!(head.into_entries(view), before);
//! # Ok::<(), icp_core::storage::StorageError>(())
//! ```

use alloc::vec::Vec;
use core::ops::ControlFlow;

use super::{Entry, Store};
use crate::mvcc::{Copying, View};

/// What a snapshot holds beside the keys: leases and alarms as they were when it was begun.
#[derive(Clone, Debug)]
pub struct SnapshotHead(Vec<Entry>);

impl SnapshotHead {
    /// The entries of the snapshot whose keys are `view`; see [`Store::snapshot`].
    #[must_use]
    pub fn into_entries(self, view: View) -> Vec<Entry> {
        let Self(mut entries) = self;
        let (base, commits) = view.into_dump();
        entries.reserve(base.len() + commits.len());
        entries.extend(base.into_iter().map(Entry::Base));
        entries.extend(commits.into_iter().map(Entry::Commit));
        entries
    }
}

impl Store {
    /// The entries of a snapshot: replayed, they give this state. Shares all keys and values. Of a lease with a checkpoint
    /// it says what is left at the latest time that the store was told; the others are to begin with their full time.
    #[must_use]
    pub fn snapshot(&self) -> Vec<Entry> {
        let (head, mut copying) = self.begin_snapshot();
        loop {
            match self.copy_some(copying, usize::MAX) {
                ControlFlow::Break(view) => return head.into_entries(view),
                ControlFlow::Continue(more) => copying = more,
            }
        }
    }

    /// Begins a snapshot of this moment, which [`Store::copy_some`] completes in steps. It costs an entry for each lease.
    #[must_use]
    pub fn begin_snapshot(&self) -> (SnapshotHead, Copying) {
        let mut entries = Vec::new();
        entries.push(Entry::Restore { compacted: self.kv.compacted() });
        let times = self.leases.times(self.now);
        entries.extend(times.map(|t| Entry::LeaseGrant { id: t.id, ttl_secs: t.granted_ttl_secs }));
        let left = self.leases.checkpointed(self.now);
        entries.extend(left.map(|(id, left_secs)| Entry::LeaseCheckpoint { id, left_secs }));
        entries.extend(self.alarms().into_iter().map(|kind| Entry::Alarm { kind, raised: true }));
        (SnapshotHead(entries), self.kv.begin_copy_newest())
    }

    /// Takes a step of a copy that this store began: at most `keys_max` keys or revisions. The store may be changed between
    /// two steps; what compaction makes superfluous is freed when the copy is complete or dropped.
    pub fn copy_some(&self, copying: Copying, keys_max: usize) -> ControlFlow<View, Copying> {
        self.kv.copy_some(copying, keys_max)
    }
}
