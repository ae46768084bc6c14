//! A store behind a lock, with the wakers of its watches.

use alloc::collections::BTreeMap;
use alloc::sync::Arc;
use alloc::vec::Vec;
use core::ops::ControlFlow;
use core::pin::Pin;
use core::task::{Context, Poll, Waker};
use std::sync::{Mutex, PoisonError, RwLock, RwLockReadGuard, RwLockWriteGuard};

use futures_core::Stream;
use icp_core::storage::{StorageError, WatchResponse};

use crate::Store;
use crate::mvcc::{Copying, View};
use crate::watch::{Polled, WatchId};

/// Most keys or revisions that are copied while the store is held.
const COPIED_AT_A_TIME: usize = 4_096;

/// A store that several handles share. Reads run side by side; no lock is held while a waker is called.
#[derive(Debug)]
pub(super) struct Shared {
    store: RwLock<Store>,
    wakers: Mutex<BTreeMap<WatchId, Waker>>,
}

impl Shared {
    pub(super) fn new(store: Store) -> Self {
        Self { store: RwLock::new(store), wakers: Mutex::new(BTreeMap::new()) }
    }

    /// A panic in another thread cannot leave the store between two states that matter here: it is used further.
    pub(super) fn read(&self) -> RwLockReadGuard<'_, Store> {
        self.store.read().unwrap_or_else(PoisonError::into_inner)
    }

    fn write(&self) -> RwLockWriteGuard<'_, Store> {
        self.store.write().unwrap_or_else(PoisonError::into_inner)
    }

    /// Changes the store and then wakes the watches that have become ready.
    pub(super) fn change<R>(&self, f: impl FnOnce(&mut Store) -> R) -> R {
        let (result, ready) = {
            let mut store = self.write();
            let result = f(&mut store);
            (result, store.take_ready())
        };
        if !ready.is_empty() {
            let woken: Vec<Waker> = {
                let mut wakers = self.wakers.lock().unwrap_or_else(PoisonError::into_inner);
                ready.iter().filter_map(|id| wakers.remove(id)).collect()
            };
            woken.into_iter().for_each(Waker::wake);
        }
        result
    }

    /// Completes a copy in steps: who writes waits for one step at most.
    pub(super) fn copied(&self, mut copying: Copying) -> View {
        loop {
            let step = self.read().copy_some(copying, COPIED_AT_A_TIME);
            match step {
                ControlFlow::Break(view) => return view,
                ControlFlow::Continue(more) => copying = more,
            }
        }
    }

    fn poll_watch(&self, id: WatchId, waker: &Waker) -> Polled {
        let mut store = self.write();
        let polled = store.poll_watch(id);
        if polled == Polled::Pending {
            // Under the store's lock, so that no change falls between the look and the waker.
            let mut wakers = self.wakers.lock().unwrap_or_else(PoisonError::into_inner);
            wakers.insert(id, waker.clone());
        }
        polled
    }

    fn cancel(&self, id: WatchId) {
        self.write().cancel_watch(id);
        self.wakers.lock().unwrap_or_else(PoisonError::into_inner).remove(&id);
    }
}

/// The batches of one watch; it ends when it is dropped. It needs no runtime.
pub(super) struct Watch {
    pub(super) shared: Arc<Shared>,
    pub(super) id: WatchId,
    pub(super) ended: bool,
}

impl Stream for Watch {
    type Item = Result<WatchResponse, StorageError>;

    fn poll_next(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        if self.ended {
            return Poll::Ready(None);
        }
        match self.shared.poll_watch(self.id, cx.waker()) {
            Polled::Batch(batch) => Poll::Ready(Some(Ok(batch))),
            Polled::Pending => Poll::Pending,
            Polled::Ended(error) => {
                self.ended = true;
                Poll::Ready(error.map(Err))
            }
        }
    }
}

impl Drop for Watch {
    fn drop(&mut self) {
        self.shared.cancel(self.id);
    }
}
