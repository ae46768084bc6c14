//! All versions at one revision, for copies and hashes that must not stop the store.

use alloc::sync::Arc;
use alloc::vec::Vec;
use core::ops::{Bound, ControlFlow};

use bytes::Bytes;
use icp_core::storage::{Revision, StorageError};

use super::{Commit, Mvcc, Version};

/// Everything that is kept at one revision. It shares all keys and values; what is done with it needs no lock.
#[derive(Clone, Debug)]
pub struct View {
    /// The revision.
    pub revision: Revision,
    /// The revision up to which history is compacted; 0 if none is.
    pub compacted: Revision,
    /// The keys as they were at the compacted revision, in order of key, or of revision and place.
    base: Vec<Arc<Version>>,
    /// The compacted revision's commit, if it had one, and those after it.
    commits: Vec<Arc<Commit>>,
    /// Whether `base` is in order of revision and place.
    sorted: bool,
}

/// A [`View`] in the making ([`Mvcc::begin_copy`]). The store may be written and compacted between two steps: nothing
/// that the view needs is freed as long as this value lives.
#[derive(Debug)]
pub struct Copying {
    view: View,
    /// The key that was looked at last.
    last: Option<Bytes>,
    /// Whether all keys have been looked at.
    based: bool,
    /// Keeps the store from freeing versions.
    _hold: Arc<()>,
}

impl Mvcc {
    /// The view at `revision`, in one go: it costs a pointer for each key that has not changed since the compaction and
    /// one for each revision since.
    ///
    /// # Errors
    /// Those of [`Mvcc::begin_copy`].
    pub fn view(&self, revision: Revision) -> Result<View, StorageError> {
        let mut copying = self.begin_copy(revision)?;
        loop {
            match self.copy_some(copying, usize::MAX) {
                ControlFlow::Break(view) => return Ok(view),
                ControlFlow::Continue(more) => copying = more,
            }
        }
    }

    /// Begins the view at `revision`, which [`Mvcc::copy_some`] completes in steps.
    ///
    /// # Errors
    /// [`StorageError::FutureRevision`] above the current revision, [`StorageError::Compacted`] below the compacted one.
    pub fn begin_copy(&self, revision: Revision) -> Result<Copying, StorageError> {
        self.check_revision(revision, self.revision)?;
        Ok(self.copying(revision))
    }

    /// Begins the view at the newest revision.
    #[must_use]
    pub fn begin_copy_newest(&self) -> Copying {
        self.copying(self.revision)
    }

    fn copying(&self, revision: Revision) -> Copying {
        let compacted = self.compacted;
        // Without a compaction all keys stand in the commits.
        let keys = if compacted == 0 { 0 } else { self.keys.len() };
        let view = View {
            revision,
            compacted,
            base: Vec::with_capacity(keys),
            commits: Vec::with_capacity(self.commits.len()),
            sorted: false,
        };
        Copying { view, last: None, based: compacted == 0, _hold: self.hold.clone() }
    }

    /// Looks at `keys_max` more keys or takes as many commits more, at least one; breaks with the view when it is
    /// complete. `copying` must have been begun by the same `Mvcc`.
    pub fn copy_some(&self, mut copying: Copying, keys_max: usize) -> ControlFlow<View, Copying> {
        let (view, keys_max) = (&mut copying.view, keys_max.max(1));
        if !copying.based {
            let from = copying.last.as_ref().map_or(Bound::Unbounded, Bound::Excluded);
            let mut seen = 0;
            let mut last = None;
            for (key, history) in self.keys.range::<Bytes, _>((from, Bound::Unbounded)).take(keys_max) {
                view.base.extend(history.at(view.compacted).cloned());
                (seen, last) = (seen + 1, Some(key));
            }
            copying.based = seen < keys_max;
            copying.last = last.cloned();
            return ControlFlow::Continue(copying);
        }
        let next = view.commits.last().map_or(view.compacted, |c| c.revision + 1);
        let first = self.commits.front().map_or(0, |c| c.revision);
        let place =
            |revision: Revision| usize::try_from(revision - first).unwrap_or(0).min(self.commits.len());
        let (from, end) = (place(next), place(view.revision + 1));
        let until = end.min(from.saturating_add(keys_max));
        view.commits.extend(self.commits.range(from..until.max(from)).cloned());
        if until < end { ControlFlow::Continue(copying) } else { ControlFlow::Break(copying.view) }
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

    /// What came after the compacted revision.
    pub(super) fn commits(&self) -> &[Arc<Commit>] {
        match self.commits.split_first() {
            Some((first, after)) if first.revision <= self.compacted => after,
            _ => &self.commits,
        }
    }

    /// What [`Mvcc::restore`] builds the same state from: the keys as they were at the compacted revision, and the
    /// commits from it on.
    #[must_use]
    pub fn into_dump(self) -> (Vec<Arc<Version>>, Vec<Arc<Commit>>) {
        (self.base, self.commits)
    }

    /// All versions, in order of revision and place.
    #[must_use]
    pub fn into_versions(mut self) -> Vec<Arc<Version>> {
        self.sort();
        let mut all = core::mem::take(&mut self.base);
        all.reserve(self.commits().iter().map(|c| c.changes.len()).sum());
        all.extend(self.commits().iter().flat_map(|c| c.changes.iter()).map(|c| c.kv.clone()));
        all
    }
}
