//! Where the machine puts snapshots and the sockets take them from.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use crate::dns::Snapshot;

/// The current snapshot.
#[derive(Debug)]
pub struct SnapshotCell {
    generation: AtomicU64,
    current: Mutex<Arc<Snapshot>>,
}

impl SnapshotCell {
    /// A cell that holds a first snapshot.
    #[must_use]
    pub fn new(snapshot: Snapshot) -> Arc<Self> {
        Arc::new(Self { generation: AtomicU64::new(0), current: Mutex::new(Arc::new(snapshot)) })
    }

    /// Puts a snapshot in the place of the last.
    pub fn store(&self, snapshot: Arc<Snapshot>) {
        *self.current.lock().unwrap_or_else(PoisonError::into_inner) = snapshot;
        self.generation.fetch_add(1, Ordering::Release);
    }

    /// The current snapshot.
    #[must_use]
    pub fn load(&self) -> Arc<Snapshot> {
        Arc::clone(&self.current.lock().unwrap_or_else(PoisonError::into_inner))
    }

    /// A view of the cell that takes its lock only after a change.
    #[must_use]
    pub fn reader(self: &Arc<Self>) -> SnapshotReader {
        // The generation first: who reads an old one looks again.
        let seen = self.generation.load(Ordering::Acquire);
        SnapshotReader { seen, current: self.load(), cell: Arc::clone(self) }
    }
}

/// A view of a [`SnapshotCell`].
#[derive(Clone, Debug)]
pub struct SnapshotReader {
    cell: Arc<SnapshotCell>,
    seen: u64,
    current: Arc<Snapshot>,
}

impl SnapshotReader {
    /// The current snapshot.
    pub fn current(&mut self) -> &Snapshot {
        let generation = self.cell.generation.load(Ordering::Acquire);
        if generation != self.seen {
            self.seen = generation;
            self.current = self.cell.load();
        }
        &self.current
    }
}
