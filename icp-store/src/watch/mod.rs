//! Watches: every change of a range, in revision order, once, a whole revision at a time.
//!
//! All watchers share the commits of [`crate::mvcc`]; a watcher owns a cursor or a queue of references. A new commit is
//! matched through an index by range, so that its cost does not depend on unrelated watchers. A watcher that starts in
//! the past reads the shared history in steps and then joins the index; one that falls too far behind is cut with
//! [`StorageError::SlowWatcher`], after everything that was queued before was delivered: there is never a gap.
//!
//! ```
//! use icp_core::storage::{KeyRange, Op, PutRequest, Txn, WatchRequest};
//! use icp_store::mvcc::{Limits, Mvcc};
//! use icp_store::watch::{Polled, Watches};
//!
//! let (mut kv, mut watches) = (Mvcc::new(), Watches::new(1_000));
//! let id = watches.watch(WatchRequest::new(KeyRange::prefix("pods/"), 0), &kv, kv.revision())?;
//! let put = Txn { success: vec![Op::Put(PutRequest::new("pods/a", "1"))], ..Txn::default() };
//! let commit = kv.txn(&put, &Limits::default(), |_| true)?.commit.unwrap();
//! watches.publish(&commit);
//! let Polled::Batch(batch) = watches.poll(id, &kv, kv.revision()) else { panic!() };
//! assert_eq!((batch.revision, batch.events.len()), (2, 1));
//! # Ok::<(), icp_core::storage::StorageError>(())
//! ```

mod index;
mod watcher;

#[cfg(test)]
mod tests;

use alloc::collections::BTreeMap;
use alloc::sync::Arc;
use alloc::vec::Vec;

use icp_core::storage::{Revision, StorageError, WatchRequest, WatchResponse};

use crate::mvcc::{Commit, Mvcc};
use index::Index;
use watcher::Watcher;

/// Names a watch of one store.
pub type WatchId = u64;

/// What a watch has to say.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Polled {
    /// Events, or none: a progress notification.
    Batch(WatchResponse),
    /// Nothing now.
    Pending,
    /// The watch has ended; `None` if it had ended before.
    Ended(Option<StorageError>),
}

/// All watches of a store.
#[derive(Debug)]
pub struct Watches {
    by_id: BTreeMap<WatchId, Watcher>,
    index: Index,
    next_id: WatchId,
    lag_max: usize,
    ready: Vec<WatchId>,
    notifying: usize,
}

impl Watches {
    /// No watches; each may fall `lag_max` events behind.
    #[must_use]
    pub fn new(lag_max: usize) -> Self {
        Self {
            by_id: BTreeMap::new(),
            index: Index::default(),
            next_id: 1,
            lag_max,
            ready: Vec::new(),
            notifying: 0,
        }
    }

    /// How many watches there are.
    #[must_use]
    pub fn len(&self) -> usize {
        self.by_id.len()
    }

    /// Whether there are none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.by_id.is_empty()
    }

    /// How many were begun with `progress_notify`.
    #[must_use]
    pub fn notifying(&self) -> usize {
        self.notifying
    }

    /// Begins a watch; `visible` is the newest revision that watchers may see. A start above it waits silently.
    ///
    /// # Errors
    /// [`StorageError::Compacted`] if the start lies below the compacted revision.
    pub fn watch(
        &mut self,
        request: WatchRequest,
        kv: &Mvcc,
        visible: Revision,
    ) -> Result<WatchId, StorageError> {
        let start = if request.start_revision <= 0 { visible + 1 } else { request.start_revision };
        if start < kv.compacted() {
            return Err(StorageError::Compacted { compacted: kv.compacted() });
        }
        let id = self.next_id;
        self.next_id += 1;
        self.notifying += usize::from(request.progress_notify);
        let watcher = Watcher::new(request, start, visible);
        if watcher.is_live() {
            self.index.insert(watcher.range(), id);
        } else {
            self.ready.push(id);
        }
        self.by_id.insert(id, watcher);
        Ok(id)
    }

    /// Ends a watch and says whether it was there.
    pub fn cancel(&mut self, id: WatchId) -> bool {
        let Some(watcher) = self.by_id.remove(&id) else { return false };
        self.notifying -= usize::from(watcher.progress_notify());
        if watcher.is_live() {
            self.index.remove(watcher.range(), id);
        }
        true
    }

    /// Hands a commit to the watches whose range it touches. Commits come in revision order, each once.
    pub fn publish(&mut self, commit: &Arc<Commit>) {
        if self.index.is_empty() {
            return;
        }
        let (by_id, ready, lag_max) = (&mut self.by_id, &mut self.ready, self.lag_max);
        let mut cut = Vec::new();
        for (at, change) in commit.changes.iter().enumerate() {
            self.index.stab(&change.kv.key, &mut |id| {
                let Some(watcher) = by_id.get_mut(&id) else { return };
                match watcher.offer(commit, at, lag_max) {
                    watcher::Offered::Ignored | watcher::Offered::Queued => {}
                    watcher::Offered::First => ready.push(id),
                    watcher::Offered::Cut => cut.push(id),
                }
            });
        }
        for id in cut {
            if let Some(watcher) = self.by_id.get(&id) {
                self.index.remove(watcher.range(), id);
                self.ready.push(id);
            }
        }
    }

    /// Takes the next batch of a watch.
    pub fn poll(&mut self, id: WatchId, kv: &Mvcc, visible: Revision) -> Polled {
        let Some(watcher) = self.by_id.get_mut(&id) else { return Polled::Ended(None) };
        let was_live = watcher.is_live();
        let polled = watcher.poll(kv, visible, self.lag_max);
        if !was_live && watcher.is_live() {
            self.index.insert(watcher.range(), id);
        }
        if matches!(polled, Polled::Ended(_)) {
            self.cancel(id);
        }
        polled
    }

    /// Asks for a progress notification of one watch. It is sent when everything before it is delivered.
    pub fn request_progress(&mut self, id: WatchId) {
        if let Some(watcher) = self.by_id.get_mut(&id) {
            watcher.progress_wanted = true;
            self.ready.push(id);
        }
    }

    /// Asks for a progress notification of every watch that was begun with `progress_notify`.
    pub fn request_progress_all(&mut self) {
        for (id, watcher) in &mut self.by_id {
            if watcher.progress_notify() {
                watcher.progress_wanted = true;
                self.ready.push(*id);
            }
        }
    }

    /// Takes the watches that may have something to say since the last call.
    pub fn take_ready(&mut self) -> Vec<WatchId> {
        core::mem::take(&mut self.ready)
    }
}
