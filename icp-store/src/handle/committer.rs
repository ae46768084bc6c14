//! Group commit: one thread makes what others queue durable.

use alloc::collections::VecDeque;
use alloc::string::{String, ToString};
use alloc::sync::Arc;
use alloc::vec::Vec;
use core::sync::atomic::{AtomicU64, Ordering};
use core::task::Waker;
use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;

use icp_core::base::{Duration, Time};
use icp_core::storage::{Revision, StorageError};

use super::clock::Clock;
use super::shared::Shared;
use crate::Store;
use crate::log::{Log, LogError, approximate_bytes};
use crate::store::Entry;

/// How often a full disk is tried again, and the longest sleep.
const RETRY: Duration = Duration::from_millis(500);
const SLEEP_MAX: Duration = Duration::from_secs(10);

/// What a write does to the size of the data.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Growth {
    /// It may add some.
    Adds,
    /// It never does, apart from its own record.
    Frees,
}

/// What waits to become durable, and who waits for it.
#[derive(Debug)]
pub(super) struct Queue {
    state: Mutex<QueueState>,
    wake: Condvar,
    pub(super) entries: AtomicU64,
    pub(super) syncs: AtomicU64,
    pub(super) snapshots: AtomicU64,
    pub(super) disk_bytes: AtomicU64,
}

#[derive(Debug)]
struct QueueState {
    /// Entries with the store's revision after them and their approximate bytes.
    entries: VecDeque<(Entry, Revision, usize)>,
    /// Bytes that are queued or being written.
    bytes: usize,
    last_seq: u64,
    durable_seq: u64,
    waiters: Vec<(u64, Waker)>,
    /// What the system said, and how many bytes of freeing writes are still taken.
    full: Option<(String, usize)>,
    poisoned: Option<String>,
    closing: bool,
    snapshot_done: Option<Result<u64, LogError>>,
}

impl Queue {
    pub(super) fn new(log: &dyn Log) -> Self {
        let seq = log.last_seq();
        Self {
            state: Mutex::new(QueueState {
                entries: VecDeque::new(),
                bytes: 0,
                last_seq: seq,
                durable_seq: seq,
                waiters: Vec::new(),
                full: None,
                poisoned: None,
                closing: false,
                snapshot_done: None,
            }),
            wake: Condvar::new(),
            entries: AtomicU64::new(0),
            syncs: AtomicU64::new(0),
            snapshots: AtomicU64::new(0),
            disk_bytes: AtomicU64::new(log.log_bytes() + log.snapshot_bytes()),
        }
    }

    fn lock(&self) -> MutexGuard<'_, QueueState> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn close(&self) {
        self.lock().closing = true;
        self.wake.notify_all();
    }

    /// Whether a write may be applied.
    pub(super) fn admit(&self, growth: Growth) -> Result<(), StorageError> {
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

    /// The number to wait for if more than `bytes_max` are queued.
    pub(super) fn over(&self, bytes_max: usize) -> Option<u64> {
        let state = self.lock();
        (state.bytes > bytes_max && state.poisoned.is_none()).then_some(state.last_seq)
    }

    /// Queues what the store has to log, and returns the number of the last entry. The caller holds the store, so that
    /// entries are queued in the order in which they were made.
    pub(super) fn push(&self, store: &mut Store) -> u64 {
        let entries = store.take_entries();
        let mut state = self.lock();
        if entries.is_empty() {
            return state.last_seq;
        }
        for entry in entries {
            let bytes = approximate_bytes(&entry);
            state.bytes += bytes;
            state.last_seq += 1;
            if let Some((_, reserve)) = &mut state.full {
                *reserve = reserve.saturating_sub(bytes);
            }
            state.entries.push_back((entry, store.applied(), bytes));
        }
        self.wake.notify_all();
        state.last_seq
    }

    /// Whether the entry `seq` is durable; if it is not known yet, `waker` is called when it is.
    pub(super) fn durable(&self, seq: u64, waker: &Waker) -> Option<Result<(), StorageError>> {
        let mut state = self.lock();
        if state.durable_seq >= seq {
            return Some(Ok(()));
        }
        if let Some(detail) = &state.poisoned {
            return Some(Err(StorageError::Poisoned { detail: detail.clone() }));
        }
        state.waiters.push((seq, waker.clone()));
        None
    }
}

/// The thread behind a [`super::Disk`].
pub(super) struct Committer<L> {
    pub(super) log: L,
    pub(super) shared: Arc<Shared>,
    pub(super) queue: Arc<Queue>,
    pub(super) clock: Clock,
    pub(super) batch_bytes_max: usize,
    pub(super) snapshot_log_bytes: u64,
    pub(super) reserve_bytes: usize,
    /// After a failed snapshot the log must have grown to this before the next is tried.
    pub(super) snapshot_retry_log_bytes: u64,
}

struct Batch {
    entries: Vec<Entry>,
    bytes: usize,
    revision: Revision,
}

impl<L: Log> Committer<L> {
    pub(super) fn run(mut self) {
        let mut snapshot: Option<JoinHandle<()>> = None;
        // What a full disk did not take.
        let mut held: Option<Batch> = None;
        loop {
            let (batch, snapshot_done, closing) = self.wait(held.take());
            self.expire_leases();
            if let Some(batch) = batch {
                held = self.commit(batch);
            }
            self.reserve();
            if let Some(done) = snapshot_done
                && self.install(done)
            {
                snapshot = None;
            }
            if closing {
                if held.is_some() {
                    self.poison("the store was closed while the disk was full".into());
                }
                let _ = self.log.close();
                // It holds the directory, which may be opened again at once; the log's end ends it soon.
                let _ = snapshot.map(JoinHandle::join);
                return;
            }
            if snapshot.is_none() {
                snapshot = self.begin_snapshot();
            }
        }
    }

    /// Waits for something to do; a batch that is held comes first.
    fn wait(&self, held: Option<Batch>) -> (Option<Batch>, Option<Result<u64, LogError>>, bool) {
        let deadline = self.shared.read().lease_deadline();
        let mut state = self.queue.lock();
        let idle = held.is_some() || (state.entries.is_empty() && state.snapshot_done.is_none());
        if idle && !state.closing {
            let until = |t: Time| t.since(self.clock.now());
            let mut sleep = deadline.map_or(SLEEP_MAX, until).min(SLEEP_MAX);
            if held.is_some() || state.full.is_some() || state.poisoned.is_some() {
                // Leases that cannot be ended now may be due already.
                sleep = RETRY;
            }
            state = self.queue.wake.wait_timeout(state, sleep).unwrap_or_else(PoisonError::into_inner).0;
        }
        if held.is_some() {
            return (held, state.snapshot_done.take(), state.closing);
        }
        let mut batch = Batch { entries: Vec::new(), bytes: 0, revision: 0 };
        while let Some((_, _, bytes)) = state.entries.front() {
            if batch.bytes > 0 && batch.bytes + bytes > self.batch_bytes_max {
                break;
            }
            let Some((entry, revision, bytes)) = state.entries.pop_front() else { break };
            batch.entries.push(entry);
            batch.bytes += bytes;
            batch.revision = revision;
        }
        let closing = state.closing && state.entries.is_empty();
        ((!batch.entries.is_empty()).then_some(batch), state.snapshot_done.take(), closing)
    }

    fn expire_leases(&self) {
        let now = self.clock.now();
        if self.shared.read().lease_deadline().is_some_and(|due| due <= now)
            && self.queue.admit(Growth::Frees).is_ok()
        {
            self.shared.change(|store| {
                store.tick(now);
                self.queue.push(store);
            });
        }
    }

    /// Makes a batch durable; gives it back if the disk is full and has none of it.
    fn commit(&mut self, batch: Batch) -> Option<Batch> {
        let written = self.log.append(&batch.entries).and_then(|seq| self.log.sync().map(|()| seq));
        let woken: Vec<Waker> = match written {
            Ok(seq) => {
                self.queue.entries.fetch_add(batch.entries.len() as u64, Ordering::Relaxed);
                self.queue.syncs.fetch_add(1, Ordering::Relaxed);
                self.note_size();
                self.shared.change(|store| store.publish(batch.revision));
                let mut state = self.queue.lock();
                state.bytes = state.bytes.saturating_sub(batch.bytes);
                state.durable_seq = seq;
                let (done, waiting) =
                    core::mem::take(&mut state.waiters).into_iter().partition(|(s, _)| *s <= seq);
                state.waiters = waiting;
                let done: Vec<(u64, Waker)> = done;
                done.into_iter().map(|(_, w)| w).collect()
            }
            Err(LogError::NoSpace { .. }) => return Some(batch),
            Err(e) => {
                self.poison(e.to_string());
                return None;
            }
        };
        woken.into_iter().for_each(Waker::wake);
        None
    }

    /// Refuses all writes from now on; what waits has an unknown outcome.
    fn poison(&self, detail: String) {
        let woken = {
            let mut state = self.queue.lock();
            state.poisoned.get_or_insert(detail);
            state.entries.clear();
            state.bytes = 0;
            core::mem::take(&mut state.waiters)
        };
        woken.into_iter().for_each(|(_, waker)| waker.wake());
    }

    fn note_size(&self) {
        self.queue.disk_bytes.store(self.log.log_bytes() + self.log.snapshot_bytes(), Ordering::Relaxed);
    }

    /// Sees to it that what is taken next has its space. Whatever prevents it, nothing that was written is in doubt: it is
    /// tried again.
    pub(super) fn reserve(&mut self) {
        let detail = match self.log.reserve() {
            Ok(()) => {
                self.queue.lock().full = None;
                return;
            }
            Err(LogError::Poisoned { detail }) => return self.poison(detail),
            Err(LogError::NoSpace { detail }) => detail,
            Err(e) => e.to_string(),
        };
        let reserved = usize::try_from(self.log.reserved_bytes()).unwrap_or(usize::MAX);
        let mut state = self.queue.lock();
        let reserve = self.reserve_bytes.min(reserved.saturating_sub(state.bytes));
        state.full.get_or_insert((detail, reserve));
    }

    /// Starts to write a snapshot in a thread of its own, if the log has grown enough.
    fn begin_snapshot(&self) -> Option<JoinHandle<()>> {
        let due =
            self.snapshot_log_bytes.max(2 * self.log.snapshot_bytes()).max(self.snapshot_retry_log_bytes);
        if self.log.log_bytes() < due {
            return None;
        }
        let (seq, entries) = {
            let store = self.shared.read();
            // Nobody can apply a write now, so that the last number queued belongs to this state.
            let seq = self.queue.lock().last_seq;
            (seq, store.snapshot())
        };
        let (job, queue) = (self.log.snapshot_writer(seq, entries), self.queue.clone());
        let thread = std::thread::Builder::new().name("icp-store-snapshot".into());
        let started = thread.spawn(move || {
            let done = job().map(|()| seq);
            queue.lock().snapshot_done = Some(done);
            queue.wake.notify_all();
        });
        started.ok()
    }

    /// Puts a snapshot into force; says whether that is over, well or not. One that could not be written is tried
    /// again when the log has grown further; nothing is lost by it.
    fn install(&mut self, done: Result<u64, LogError>) -> bool {
        let installed = match done {
            Ok(seq) if self.log.last_seq() < seq => {
                self.queue.lock().snapshot_done = Some(Ok(seq));
                return false;
            }
            Ok(seq) => self.log.install_snapshot(seq),
            Err(e) => Err(e),
        };
        match installed {
            Ok(()) => _ = self.queue.snapshots.fetch_add(1, Ordering::Relaxed),
            Err(_) => self.snapshot_retry_log_bytes = self.log.log_bytes() + self.snapshot_log_bytes,
        }
        self.note_size();
        true
    }
}
