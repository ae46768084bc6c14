//! What writers hand to the committer, and who waits for it.

use alloc::collections::VecDeque;
use alloc::string::String;
use alloc::sync::Arc;
use alloc::vec::Vec;
use core::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use core::task::Waker;
use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};

use icp_core::base::Duration;
use icp_core::storage::{Revision, StorageError};

use crate::Store;
use crate::log::{Log, LogError, approximate_bytes};
use crate::store::Entry;

/// What a write does to the size of the data.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Growth {
    /// It may add some.
    Adds,
    /// It never does, apart from its own record.
    Frees,
}

/// A place in the queue.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Ticket {
    /// The last entry that must be durable.
    seq: u64,
    /// The number of the waiter; `None` if nobody had to wait.
    waiter: Option<u64>,
}

/// What waits to become durable, and who waits for it.
///
/// A write takes its lock once, while it holds the store; whether it is durable it sees without a lock.
#[derive(Debug)]
pub(super) struct Queue {
    state: Mutex<State>,
    wake: Condvar,
    /// The last entry that is durable and published.
    durable_seq: AtomicU64,
    /// Bytes that are queued or being written.
    bytes: AtomicUsize,
    /// Whether `full` or `poisoned` say something.
    troubled: AtomicBool,
    pub(super) entries: AtomicU64,
    pub(super) syncs: AtomicU64,
    pub(super) snapshots: AtomicU64,
    pub(super) disk_bytes: AtomicU64,
}

#[derive(Debug)]
struct State {
    /// Entries with the store's revision after them and their approximate bytes.
    entries: VecDeque<(Entry, Revision, usize)>,
    entries_bytes: usize,
    last_seq: u64,
    /// Who waits, in the order of the entries; the first one has the number `first_waiter`.
    waiters: VecDeque<(u64, Waker)>,
    first_waiter: u64,
    /// Whether the committer sleeps and must be woken.
    idle: bool,
    /// What the system said, and how many bytes of freeing writes are still taken.
    full: Option<(String, usize)>,
    poisoned: Option<String>,
    closing: bool,
    snapshot_done: Option<Result<u64, LogError>>,
    /// Who waits for the next snapshot that begins.
    snapshot_wanted: Vec<Arc<SnapshotRequest>>,
}

/// A wish for a snapshot.
#[derive(Debug, Default)]
pub(super) struct SnapshotRequest(Mutex<Wish>);

#[derive(Debug, Default)]
struct Wish {
    answer: Option<Result<(), LogError>>,
    waker: Option<Waker>,
}

impl SnapshotRequest {
    fn lock(&self) -> MutexGuard<'_, Wish> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn answer(&self, result: Result<(), LogError>) {
        let waker = {
            let mut wish = self.lock();
            wish.answer = Some(result);
            wish.waker.take()
        };
        if let Some(waker) = waker {
            waker.wake();
        }
    }

    /// The answer; if there is none yet, `waker` is called when there is.
    pub(super) fn poll(&self, waker: &Waker) -> Option<Result<(), LogError>> {
        let mut wish = self.lock();
        if wish.answer.is_none() {
            wish.waker = Some(waker.clone());
        }
        wish.answer.clone()
    }
}

/// What the committer has to do next.
#[derive(Debug)]
pub(super) struct Work {
    /// Entries to make durable, the bytes they were counted as, and the revision after them.
    pub(super) entries: VecDeque<(Entry, Revision, usize)>,
    pub(super) bytes: usize,
    pub(super) snapshot_done: Option<Result<u64, LogError>>,
    pub(super) closing: bool,
}

impl Queue {
    pub(super) fn new(log: &dyn Log) -> Self {
        let last_seq = log.last_seq();
        Self {
            state: Mutex::new(State {
                entries: VecDeque::new(),
                entries_bytes: 0,
                last_seq,
                waiters: VecDeque::new(),
                first_waiter: 0,
                idle: false,
                full: None,
                poisoned: None,
                closing: false,
                snapshot_done: None,
                snapshot_wanted: Vec::new(),
            }),
            wake: Condvar::new(),
            durable_seq: AtomicU64::new(last_seq),
            bytes: AtomicUsize::new(0),
            troubled: AtomicBool::new(false),
            entries: AtomicU64::new(0),
            syncs: AtomicU64::new(0),
            snapshots: AtomicU64::new(0),
            disk_bytes: AtomicU64::new(log.log_bytes() + log.snapshot_bytes()),
        }
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Changes the state, and wakes the committer if it sleeps.
    fn tell(&self, f: impl FnOnce(&mut State)) {
        let mut state = self.lock();
        f(&mut state);
        let sleeps = core::mem::take(&mut state.idle);
        drop(state);
        self.wake_if(sleeps);
    }

    /// A committer that works looks again before it sleeps: to wake it would be a system call for nothing.
    fn wake_if(&self, sleeps: bool) {
        if sleeps {
            self.wake.notify_one();
        }
    }

    pub(super) fn close(&self) {
        self.tell(|state| state.closing = true);
    }

    /// Asks for a snapshot of what is queued now.
    pub(super) fn want_snapshot(&self) -> Arc<SnapshotRequest> {
        let request = Arc::new(SnapshotRequest::default());
        self.tell(|state| state.snapshot_wanted.push(request.clone()));
        request
    }

    pub(super) fn take_snapshot_wanted(&self) -> Vec<Arc<SnapshotRequest>> {
        core::mem::take(&mut self.lock().snapshot_wanted)
    }

    pub(super) fn snapshot_done(&self, done: Result<u64, LogError>) {
        self.tell(|state| state.snapshot_done = Some(done));
    }

    pub(super) fn last_seq(&self) -> u64 {
        self.lock().last_seq
    }

    /// Why nothing is written any more, if so.
    pub(super) fn poisoned(&self) -> Option<String> {
        self.lock().poisoned.clone()
    }

    /// Whether a write may be applied.
    pub(super) fn admit(&self, growth: Growth) -> Result<(), StorageError> {
        if !self.troubled.load(Ordering::Acquire) {
            return Ok(());
        }
        let state = self.lock();
        if let Some(detail) = &state.poisoned {
            return Err(StorageError::Poisoned { detail: detail.clone() });
        }
        match &state.full {
            Some((detail, reserve)) if growth == Growth::Adds || *reserve == 0 => {
                Err(StorageError::NoSpace { detail: detail.clone() })
            }
            _ => Ok(()),
        }
    }

    /// A place behind all that is queued, if more than `bytes_max` are.
    pub(super) fn over(&self, bytes_max: usize, waker: &Waker) -> Option<Ticket> {
        if self.bytes.load(Ordering::Relaxed) <= bytes_max {
            return None;
        }
        let mut state = self.lock();
        if state.poisoned.is_some() {
            return None;
        }
        Some(self.wait_behind(&mut state, waker))
    }

    /// Queues what the store has to log, and returns the place of its last entry; `waker` is called when that is durable
    /// or never will be. The caller holds the store, so that entries are queued in the order in which they were made.
    pub(super) fn push(&self, store: &mut Store, waker: Option<&Waker>) -> Option<Ticket> {
        let entries = store.take_entries();
        let revision = store.applied();
        let mut state = self.lock();
        for entry in entries {
            let bytes = approximate_bytes(&entry);
            state.entries_bytes += bytes;
            self.bytes.fetch_add(bytes, Ordering::Relaxed);
            state.last_seq += 1;
            if let Some((_, reserve)) = &mut state.full {
                *reserve = reserve.saturating_sub(bytes);
            }
            state.entries.push_back((entry, revision, bytes));
        }
        let sleeps = !state.entries.is_empty() && core::mem::take(&mut state.idle);
        let ticket = waker.map(|waker| self.wait_behind(&mut state, waker));
        drop(state);
        self.wake_if(sleeps);
        ticket
    }

    fn wait_behind(&self, state: &mut State, waker: &Waker) -> Ticket {
        let seq = state.last_seq;
        if self.durable_seq.load(Ordering::Acquire) >= seq {
            return Ticket { seq, waiter: None };
        }
        state.waiters.push_back((seq, waker.clone()));
        Ticket { seq, waiter: Some(state.first_waiter + state.waiters.len() as u64 - 1) }
    }

    /// Whether what stands before `ticket` is durable; if it is not known yet and `again` is given, that is called
    /// instead of the waker that was given with the ticket.
    pub(super) fn durable(&self, ticket: Ticket, again: Option<&Waker>) -> Option<Result<(), StorageError>> {
        if self.durable_seq.load(Ordering::Acquire) >= ticket.seq {
            return Some(Ok(()));
        }
        let again = again?;
        let mut state = self.lock();
        if self.durable_seq.load(Ordering::Acquire) >= ticket.seq {
            return Some(Ok(()));
        }
        if let Some(detail) = &state.poisoned {
            return Some(Err(StorageError::Poisoned { detail: detail.clone() }));
        }
        let at = ticket.waiter?.checked_sub(state.first_waiter)?;
        let (_, waker) = state.waiters.get_mut(usize::try_from(at).ok()?)?;
        waker.clone_from(again);
        None
    }

    /// Waits for something to do, but no longer than `sleep`, or than `retry` if a full disk holds a batch back or writes
    /// are refused: leases that cannot be ended now may be due already. Takes at most about `bytes_max` of entries, and
    /// none while a batch is held.
    pub(super) fn next(
        &self,
        held: bool,
        bytes_max: usize,
        snapshot_running: bool,
        sleep: Duration,
        retry: Duration,
    ) -> Work {
        let mut state = self.lock();
        let nothing = state.entries.is_empty()
            && state.snapshot_done.is_none()
            && (snapshot_running || state.snapshot_wanted.is_empty());
        if (held || nothing) && !state.closing {
            let troubled = held || state.full.is_some() || state.poisoned.is_some();
            state.idle = true;
            let sleep = if troubled { sleep.min(retry) } else { sleep };
            state = self.wake.wait_timeout(state, sleep).unwrap_or_else(PoisonError::into_inner).0;
            state.idle = false;
        }
        let snapshot_done = state.snapshot_done.take();
        let mut work = Work { entries: VecDeque::new(), bytes: 0, snapshot_done, closing: state.closing };
        if held {
            return work;
        }
        if state.entries_bytes <= bytes_max {
            work.bytes = core::mem::take(&mut state.entries_bytes);
            work.entries = core::mem::take(&mut state.entries);
        }
        while let Some(&(_, _, bytes)) = state.entries.front() {
            if work.bytes > 0 && work.bytes + bytes > bytes_max {
                break;
            }
            work.bytes += bytes;
            state.entries_bytes -= bytes;
            work.entries.extend(state.entries.pop_front());
        }
        work.closing = state.closing && state.entries.is_empty();
        work
    }

    /// All entries up to `seq`, which were counted as `bytes`, are durable and published: those who wait are woken.
    pub(super) fn written(&self, seq: u64, bytes: usize, wakers: &mut Vec<Waker>) {
        self.bytes.fetch_sub(bytes, Ordering::Relaxed);
        let mut state = self.lock();
        self.durable_seq.store(seq, Ordering::Release);
        while state.waiters.front().is_some_and(|(waits, _)| *waits <= seq) {
            wakers.extend(state.waiters.pop_front().map(|(_, waker)| waker));
            state.first_waiter += 1;
        }
    }

    /// Nothing will be written any more: all who wait are told.
    pub(super) fn poison(&self, detail: String, wakers: &mut Vec<Waker>) {
        let mut state = self.lock();
        state.poisoned.get_or_insert(detail);
        self.troubled.store(true, Ordering::Release);
        state.entries.clear();
        state.entries_bytes = 0;
        self.bytes.store(0, Ordering::Relaxed);
        state.first_waiter += state.waiters.len() as u64;
        wakers.extend(state.waiters.drain(..).map(|(_, waker)| waker));
    }

    /// What is taken next has its space.
    pub(super) fn roomy(&self) {
        if self.troubled.load(Ordering::Acquire) {
            let mut state = self.lock();
            state.full = None;
            self.troubled.store(state.poisoned.is_some(), Ordering::Release);
        }
    }

    /// There is no space but what is reserved; of that, freeing writes may take up to `reserve_bytes`.
    pub(super) fn full(&self, detail: String, reserve_bytes: usize, reserved_bytes: usize) {
        let mut state = self.lock();
        let left = reserved_bytes.saturating_sub(self.bytes.load(Ordering::Relaxed));
        state.full.get_or_insert((detail, reserve_bytes.min(left)));
        self.troubled.store(true, Ordering::Release);
    }
}
