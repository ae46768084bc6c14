//! Polls one storage watch on behalf of many watchers.

use alloc::boxed::Box;
use alloc::collections::BTreeMap;
use alloc::sync::Arc;
use alloc::task::Wake;
use alloc::vec::Vec;
use core::fmt;
use core::pin::Pin;
use core::sync::atomic::{AtomicBool, Ordering};
use core::task::{Context, Poll, Waker};
use std::sync::{Mutex, MutexGuard, PoisonError};

use bytes::Bytes;

use super::{Cacher, CacherConfig, Change, Effect, Event, Lost};
use crate::base::{Machine as _, Time};
use crate::storage::{KeyRange, Revision, Storage, StorageError, WatchRequest, WatchStream};

type Opening = Pin<Box<dyn Future<Output = Result<WatchStream, StorageError>> + Send>>;

enum Source {
    Closed,
    Opening(Opening),
    Open(WatchStream),
}

#[derive(Default)]
struct Wakers {
    ready: AtomicBool,
    waiting: Mutex<BTreeMap<u64, Waker>>,
}

impl Wakers {
    fn waiting(&self) -> MutexGuard<'_, BTreeMap<u64, Waker>> {
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn wake_all(&self) {
        let waiting = core::mem::take(&mut *self.waiting());
        waiting.into_values().for_each(Waker::wake);
    }
}

impl Wake for Wakers {
    fn wake(self: Arc<Self>) {
        self.ready.store(true, Ordering::Release);
        self.wake_all();
    }
}

struct State {
    cacher: Cacher,
    source: Source,
    watchers: usize,
    next_id: u64,
}

/// The watch cache of one resource with its storage watch.
pub struct Hub {
    storage: Arc<dyn Storage>,
    prefix: Bytes,
    state: Mutex<State>,
    wakers: Arc<Wakers>,
}

impl fmt::Debug for Hub {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Hub").field("prefix", &self.prefix).finish_non_exhaustive()
    }
}

impl Hub {
    /// A hub over the keys that begin with `prefix`; it opens its storage watch when somebody watches, and closes
    /// it when nobody does.
    pub fn new(storage: Arc<dyn Storage>, prefix: impl Into<Bytes>, config: CacherConfig) -> Arc<Self> {
        Arc::new(Self {
            storage,
            prefix: prefix.into(),
            state: Mutex::new(State {
                cacher: Cacher::new(config),
                source: Source::Closed,
                watchers: 0,
                next_id: 0,
            }),
            wakers: Arc::default(),
        })
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Whether a watcher may start after `revision` without a look at the store's history.
    #[must_use]
    pub fn covers(&self, revision: Revision) -> bool {
        self.state().cacher.covers(revision)
    }

    /// A watcher that has seen everything up to `revision`.
    ///
    /// The caller has made sure that the store still has the history after `revision`
    /// (see [`Hub::covers`]).
    pub fn subscribe(self: &Arc<Self>, revision: Revision) -> Subscription {
        let mut state = self.state();
        state.watchers += 1;
        state.next_id += 1;
        let id = state.next_id;
        self.feed(&mut state, Event::Seek(revision));
        Subscription { hub: self.clone(), id, revision }
    }

    fn feed(&self, state: &mut State, event: Event) {
        let mut effects = Vec::new();
        state.cacher.on(Time::ZERO, event, &mut effects);
        for effect in effects {
            match effect {
                Effect::Open(from) => {
                    let (storage, range) = (self.storage.clone(), KeyRange::prefix(self.prefix.clone()));
                    let mut request = WatchRequest::new(range, from);
                    request.prev_kv = true;
                    request.progress_notify = true;
                    state.source = Source::Opening(Box::pin(async move { storage.watch(request).await }));
                    self.wakers.ready.store(true, Ordering::Release);
                }
                Effect::Close => state.source = Source::Closed,
            }
        }
    }

    /// Takes what the storage watch has, if it said that it has something.
    fn pump(&self, state: &mut State) {
        if !self.wakers.ready.swap(false, Ordering::AcqRel) {
            return;
        }
        let waker = Waker::from(self.wakers.clone());
        let mut cx = Context::from_waker(&waker);
        let mut moved = false;
        loop {
            let ended = match &mut state.source {
                Source::Closed => break,
                Source::Opening(opening) => match opening.as_mut().poll(&mut cx) {
                    Poll::Pending => break,
                    Poll::Ready(Ok(stream)) => {
                        state.source = Source::Open(stream);
                        continue;
                    }
                    Poll::Ready(Err(_)) => true,
                },
                Source::Open(stream) => match stream.as_mut().poll_next(&mut cx) {
                    Poll::Pending => break,
                    Poll::Ready(Some(Ok(batch))) => {
                        moved = true;
                        self.feed(state, Event::Batch(batch));
                        continue;
                    }
                    Poll::Ready(Some(Err(_)) | None) => true,
                },
            };
            if ended {
                moved = true;
                state.source = Source::Closed;
                self.feed(state, Event::Ended);
            }
        }
        if moved {
            // The waker of the storage watch woke everybody who was waiting then; who came later waits for this.
            self.wakers.wake_all();
        }
    }
}

/// One watcher's place in a [`Hub`].
#[derive(Debug)]
pub struct Subscription {
    hub: Arc<Hub>,
    id: u64,
    revision: Revision,
}

/// Most changes that one poll takes, so that one watcher does not hold the hub for long.
const CHANGES_PER_POLL: usize = 256;

impl Subscription {
    /// Up to which revision this watcher has been told everything.
    #[must_use]
    pub const fn revision(&self) -> Revision {
        self.revision
    }

    /// The changes since the last poll, never none.
    ///
    /// # Errors
    /// [`Lost`] if the watcher fell out of the log or the storage watch ended.
    pub fn poll_changes(&mut self, cx: &mut Context<'_>) -> Poll<Result<Vec<Arc<Change>>, Lost>> {
        let mut state = self.hub.state();
        // Registered before the look, so that what happens in between is not missed.
        self.hub.wakers.waiting().insert(self.id, cx.waker().clone());
        self.hub.pump(&mut state);
        let changes = state.cacher.after(self.revision, CHANGES_PER_POLL)?;
        match changes.last() {
            Some(last) => {
                self.revision = last.revision;
                self.hub.wakers.waiting().remove(&self.id);
                Poll::Ready(Ok(changes))
            }
            None => {
                self.revision = self.revision.max(state.cacher.current());
                self.hub.wakers.waiting().entry(self.id).or_insert_with(|| cx.waker().clone());
                Poll::Pending
            }
        }
    }
}

impl Drop for Subscription {
    fn drop(&mut self) {
        self.hub.wakers.waiting().remove(&self.id);
        let mut state = self.hub.state();
        state.watchers -= 1;
        if state.watchers == 0 {
            self.hub.feed(&mut state, Event::Idle);
        }
    }
}
