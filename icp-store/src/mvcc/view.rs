//! All versions at one revision, for copies and hashes that must not stop the store.

use alloc::sync::Arc;
use alloc::vec::Vec;

use icp_core::storage::{Revision, StorageError};

use super::{Commit, Mvcc, Version};

/// Everything that is kept at one revision. Making it costs a pointer for each key that has not changed since the
/// compaction and one for each revision since; what is done with it needs no lock.
#[derive(Clone, Debug)]
pub struct View {
    /// The revision.
    pub revision: Revision,
    /// The revision up to which history is compacted; 0 if none is.
    pub compacted: Revision,
    /// The keys as they were at the compacted revision, in order of revision and place.
    base: Vec<Arc<Version>>,
    /// What came after.
    commits: Vec<Arc<Commit>>,
    /// Whether `base` is in order already.
    sorted: bool,
}

impl Mvcc {
    /// The view at `revision`.
    ///
    /// # Errors
    /// [`StorageError::FutureRevision`] above the current revision, [`StorageError::Compacted`] below the compacted one.
    pub fn view(&self, revision: Revision) -> Result<View, StorageError> {
        self.check_revision(revision, self.revision)?;
        let base = match self.compacted {
            0 => Vec::new(),
            compacted => self.keys.values().filter_map(|h| h.at(compacted)).cloned().collect(),
        };
        let first = self.commits.front().map_or(0, |c| c.revision);
        let place =
            |revision: Revision| usize::try_from(revision - first).unwrap_or(0).min(self.commits.len());
        let commits =
            self.commits.range(place(self.compacted + 1)..place(revision + 1).max(place(self.compacted + 1)));
        Ok(View {
            revision,
            compacted: self.compacted,
            base,
            commits: commits.cloned().collect(),
            sorted: false,
        })
    }
}

impl View {
    /// Brings the base in order; the first one who needs it pays for it.
    pub(super) fn sort(&mut self) {
        if !core::mem::replace(&mut self.sorted, true) {
            self.base.sort_unstable_by_key(|v| (v.mod_revision, v.sub));
        }
    }

    pub(super) fn base(&self) -> &[Arc<Version>] {
        &self.base
    }

    pub(super) fn commits(&self) -> &[Arc<Commit>] {
        &self.commits
    }

    /// All versions, in order of revision and place.
    #[must_use]
    pub fn into_versions(mut self) -> Vec<Arc<Version>> {
        self.sort();
        let mut all = self.base;
        all.reserve(self.commits.iter().map(|c| c.changes.len()).sum());
        all.extend(self.commits.iter().flat_map(|c| c.changes.iter()).map(|c| c.kv.clone()));
        all
    }
}
