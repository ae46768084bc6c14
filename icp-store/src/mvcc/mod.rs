//! Multi-version keys: every change makes a new version, every transaction that changes something a new revision.
//!
//! The semantics are those of etcd v3 (`etcd-io/etcd server/storage/mvcc`): the first write is revision 2, a deletion
//! is a version of its own (a tombstone), a read at a revision sees the newest version at or below it, and compaction
//! forgets what no read at or above the compacted revision can see.
//!
//! ```
//! use icp_core::storage::{DeleteRangeRequest, KeyRange, Op, PutRequest, RangeRequest, Txn};
//! use icp_store::mvcc::{Limits, Mvcc};
//!
//! let mut kv = Mvcc::new();
//! let limits = Limits::default();
//! let put = |v: &'static str| Txn { success: vec![Op::Put(PutRequest::new("k", v))], ..Txn::default() };
//! kv.txn(&put("a"), &limits, |_| true)?;
//! kv.txn(&put("b"), &limits, |_| true)?;
//! let at_2 = kv.range(&RangeRequest::new(KeyRange::key("k")).at(2), kv.revision())?;
//! assert_eq!(at_2.kvs[0].value, "a");
//! kv.compact(3)?;
//! assert!(kv.range(&RangeRequest::new(KeyRange::key("k")).at(2), kv.revision()).is_err());
//! # Ok::<(), icp_core::storage::StorageError>(())
//! ```

mod check;
mod hash;
mod history;
mod range;
mod txn;
mod version;
mod view;

#[cfg(test)]
mod tests;

use alloc::collections::{BTreeMap, VecDeque};
use alloc::sync::Arc;
use alloc::vec::Vec;
use core::ops::ControlFlow;

use bytes::Bytes;
use icp_core::storage::{KeyValue, Revision, StorageError};
use smallvec::SmallVec;

use history::History;

pub(crate) use check::check;
pub use txn::Applied;
pub use version::Version;
pub use view::{Copying, View};

/// One change of one key. A tombstone is a [`Version`] of version 0.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Change {
    /// The new version.
    pub kv: Arc<Version>,
    /// The version before; `None` if there was none or if it is compacted.
    pub prev: Option<Arc<Version>>,
}

impl Change {
    /// Whether the change is a deletion.
    #[must_use]
    pub fn is_delete(&self) -> bool {
        self.kv.version == 0
    }
}

/// All changes of one revision, in the order in which the transaction made them; watchers share it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Commit {
    /// The revision.
    pub revision: Revision,
    /// Its changes; never empty, and nearly always one.
    pub changes: SmallVec<[Change; 1]>,
}

/// Bounds of one request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    /// Most comparisons or operations of a transaction, nested ones included (etcd `--max-txn-ops`).
    pub txn_ops_max: usize,
    /// Most bytes of keys and values of a transaction (etcd `--max-request-bytes`).
    pub request_bytes_max: usize,
    /// Deepest nesting of transactions; etcd has no such limit and recurses.
    pub txn_depth_max: usize,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            txn_ops_max: 128,
            request_bytes_max: icp_core::base::limits::OBJECT_BYTES_MAX,
            txn_depth_max: 16,
        }
    }
}

/// The versions of all keys.
///
/// A range costs what the keys inside it cost, whatever else is stored; a compaction costs what the changes since the
/// last one cost, and is worked off in steps ([`Mvcc::sweep`]).
#[derive(Debug)]
pub struct Mvcc {
    keys: BTreeMap<Bytes, History>,
    /// One commit per revision, without gaps; the front may lie below `compacted` until it is swept.
    commits: VecDeque<Arc<Commit>>,
    revision: Revision,
    compacted: Revision,
    /// The compacted revision up to which nothing is left to free.
    swept: Revision,
    value_bytes: u64,
    /// Shared with every [`Copying`]: nothing is freed while there is one.
    hold: Arc<()>,
}

impl Default for Mvcc {
    fn default() -> Self {
        Self::new()
    }
}

impl Mvcc {
    /// No keys, at revision 1.
    #[must_use]
    pub fn new() -> Self {
        Self {
            keys: BTreeMap::new(),
            commits: VecDeque::new(),
            revision: 1,
            compacted: 0,
            swept: 0,
            value_bytes: 0,
            hold: Arc::new(()),
        }
    }

    /// The revision of the last write.
    #[must_use]
    pub const fn revision(&self) -> Revision {
        self.revision
    }

    /// The revision up to which history is compacted; 0 if none is.
    #[must_use]
    pub const fn compacted(&self) -> Revision {
        self.compacted
    }

    /// Bytes of keys and values in all versions that are kept.
    #[must_use]
    pub const fn value_bytes(&self) -> u64 {
        self.value_bytes
    }

    /// The newest version of `key`, if it exists.
    #[must_use]
    pub fn get(&self, key: &[u8]) -> Option<&Arc<Version>> {
        self.keys.get(key)?.live()
    }

    /// The commit of `revision`, if it happened and is not compacted; the compacted revision itself is kept.
    #[must_use]
    pub fn commit(&self, revision: Revision) -> Option<&Arc<Commit>> {
        if revision < self.compacted {
            return None;
        }
        let first = self.commits.front()?.revision;
        self.commits.get(usize::try_from(revision.checked_sub(first)?).ok()?)
    }

    /// Forgets what only reads below `revision` can see.
    ///
    /// # Errors
    /// [`StorageError::Compacted`] if `revision` is at or below the compacted revision already,
    /// [`StorageError::FutureRevision`] if it is above the current one.
    pub fn compact(&mut self, revision: Revision) -> Result<(), StorageError> {
        if revision <= self.compacted {
            return Err(StorageError::Compacted { compacted: self.compacted });
        }
        if revision > self.revision {
            return Err(StorageError::FutureRevision { requested: revision, current: self.revision });
        }
        self.compacted = revision;
        // The version before a change at the compacted revision can no longer be read, so it is not reported either.
        if let Some(commit) = self.commit(revision).cloned()
            && let Some(first) = self.commits.front().map(|c| c.revision)
            && let Some(slot) = usize::try_from(revision - first).ok().and_then(|i| self.commits.get_mut(i))
        {
            let changes = commit.changes.iter().map(|c| Change { kv: c.kv.clone(), prev: None }).collect();
            *slot = Arc::new(Commit { revision, changes });
        }
        Ok(())
    }

    /// Frees what compaction made unreachable, at most `commits_max` commits of it; says whether more can be freed. Nothing
    /// is as long as there is a [`Copying`].
    pub fn sweep(&mut self, commits_max: usize) -> bool {
        if self.swept == self.compacted || Arc::strong_count(&self.hold) > 1 {
            return false;
        }
        for _ in 0..commits_max {
            match self.commits.front() {
                Some(commit) if commit.revision < self.compacted => {}
                _ => break,
            }
            if let Some(commit) = self.commits.pop_front() {
                self.sweep_keys(&commit);
            }
        }
        let more = self.commits.front().is_some_and(|c| c.revision < self.compacted);
        if !more {
            if let Some(commit) = self.commit(self.compacted).cloned() {
                self.sweep_keys(&commit);
            }
            self.swept = self.compacted;
        }
        more
    }

    /// Gives back room that was kept for more commits.
    pub fn shrink(&mut self) {
        self.commits.shrink_to_fit();
    }

    fn sweep_keys(&mut self, commit: &Commit) {
        for change in &commit.changes {
            if let Some(history) = self.keys.get_mut(&change.kv.key) {
                self.value_bytes = self.value_bytes.saturating_sub(history.compact(self.compacted));
                if history.is_empty() {
                    self.keys.remove(&change.kv.key);
                }
            }
        }
    }

    /// Everything that is needed to build the same state again: the keys as they were at the compacted revision, and
    /// the commits from it on. Shares all keys and values.
    #[must_use]
    pub fn dump(&self) -> (Vec<Arc<Version>>, Vec<Arc<Commit>>) {
        let mut copying = self.begin_copy_newest();
        loop {
            match self.copy_some(copying, usize::MAX) {
                ControlFlow::Break(view) => return view.into_dump(),
                ControlFlow::Continue(more) => copying = more,
            }
        }
    }

    /// Begins to build a state from a [`Mvcc::dump`]: no keys, at the compacted revision.
    #[must_use]
    pub fn restore(compacted: Revision) -> Self {
        Self { revision: compacted.max(1), compacted, swept: compacted, ..Self::new() }
    }

    /// Adds a key of a dump's base.
    ///
    /// # Errors
    /// [`StorageError::Invalid`] if the version does not belong to the base or if the key is there already.
    pub fn restore_base(&mut self, kv: Version) -> Result<(), StorageError> {
        let fits =
            kv.version > 0 && kv.mod_revision <= self.compacted.max(0) && !self.keys.contains_key(&kv.key);
        if !fits || self.revision != self.compacted.max(1) {
            return Err(invalid("entry", "a base version that does not fit the dump"));
        }
        self.push(Arc::new(kv));
        Ok(())
    }

    /// Adds a commit as it was logged: the next revision, or the compacted one that a dump repeats.
    ///
    /// # Errors
    /// [`StorageError::Invalid`] if the revision is not the next one or if a change does not carry it.
    pub fn restore_commit(
        &mut self,
        revision: Revision,
        kvs: impl IntoIterator<Item = KeyValue>,
    ) -> Result<Arc<Commit>, StorageError> {
        let repeats = revision == self.compacted && self.revision == revision && self.commits.is_empty();
        if !repeats && self.revision.checked_add(1) != Some(revision) {
            return Err(invalid("entry", "a commit that does not follow the revision before it"));
        }
        let mut changes = SmallVec::new();
        for kv in kvs {
            if kv.mod_revision != revision {
                return Err(invalid("entry", "a change that does not carry its commit's revision"));
            }
            let kv = Version::new(kv, changes.len());
            if repeats {
                changes.push(Change { kv, prev: None });
            } else {
                let prev = self.get(&kv.key).cloned();
                self.push(kv.clone());
                changes.push(Change { kv, prev });
            }
        }
        Ok(self.seal(revision, changes))
    }

    /// Adds a version to the history of its key.
    fn push(&mut self, kv: Arc<Version>) {
        self.value_bytes = self.value_bytes.saturating_add((kv.key.len() + kv.value.len()) as u64);
        match self.keys.get_mut(&kv.key) {
            Some(history) => history.push(kv),
            None => {
                self.keys.insert(kv.key.clone(), History::new(kv));
            }
        }
    }

    /// Makes `changes` the commit of `revision`.
    fn seal(&mut self, revision: Revision, changes: SmallVec<[Change; 1]>) -> Arc<Commit> {
        let commit = Arc::new(Commit { revision, changes });
        self.commits.push_back(commit.clone());
        self.revision = revision;
        commit
    }
}

/// An [`StorageError::Invalid`] of one field.
pub(crate) fn invalid(field: &'static str, message: &str) -> StorageError {
    StorageError::Invalid { field, message: message.into() }
}
