//! Group commit: one thread makes what others queue durable.

use alloc::boxed::Box;
use alloc::collections::VecDeque;
use alloc::string::{String, ToString};
use alloc::sync::Arc;
use alloc::vec::Vec;
use core::sync::atomic::Ordering;
use core::task::Waker;
use std::thread::JoinHandle;

use icp_core::base::{Duration, Time};
use icp_core::storage::Revision;

use super::clock::Clock;
use super::queue::{Growth, Queue, SnapshotRequest, Work};
use super::shared::Shared;
use crate::log::{Log, LogError};
use crate::store::Entry;

/// How often a full disk is tried again, and the longest sleep.
const RETRY: Duration = Duration::from_millis(500);
const SLEEP_MAX: Duration = Duration::from_secs(10);
/// Most revisions that are published while the store is held: writers and readers get it in between.
const PUBLISHED_AT_A_TIME: Revision = 128;

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
    /// Who waits for the snapshot that is being written.
    pub(super) snapshot_for: Vec<Arc<SnapshotRequest>>,
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
            let work = self.wait(held.is_some(), snapshot.is_some());
            self.expire_leases();
            let batch = held.take().or_else(|| Batch::of(work.entries, work.bytes));
            if let Some(batch) = batch {
                held = self.commit(batch);
            }
            self.reserve();
            if let Some(done) = work.snapshot_done
                && self.install(done)
            {
                snapshot = None;
            }
            if work.closing {
                if held.is_some() {
                    self.poison("the store was closed while the disk was full".into());
                }
                let _ = self.log.close();
                // It holds the directory, which may be opened again at once; the log's end ends it soon.
                let _ = snapshot.map(JoinHandle::join);
                self.snapshot_for.append(&mut self.queue.take_snapshot_wanted());
                self.snapshot_over(&Err(LogError::Poisoned { detail: "the store is closed".into() }));
                return;
            }
            if snapshot.is_none() {
                snapshot = self.begin_snapshot();
            }
        }
    }

    /// Waits for something to do; a batch that is held comes first.
    fn wait(&self, held: bool, snapshot_running: bool) -> Work {
        let deadline = self.shared.read().wake_at();
        let until = |t: Time| t.since(self.clock.now());
        let sleep = deadline.map_or(SLEEP_MAX, until).min(SLEEP_MAX);
        self.queue.next(held, self.batch_bytes_max, snapshot_running, sleep, RETRY)
    }

    fn expire_leases(&self) {
        let now = self.clock.now();
        if self.shared.read().wake_at().is_some_and(|due| due <= now)
            && self.queue.admit(Growth::Frees).is_ok()
        {
            self.shared.change(|store| {
                store.tick(now);
                self.queue.push(store, None);
            });
        }
    }

    /// Makes a batch durable; gives it back if the disk is full and has none of it.
    fn commit(&mut self, batch: Batch) -> Option<Batch> {
        match self.log.append(&batch.entries).and_then(|seq| self.log.sync().map(|()| seq)) {
            Ok(seq) => {
                self.queue.entries.fetch_add(batch.entries.len() as u64, Ordering::Relaxed);
                self.queue.syncs.fetch_add(1, Ordering::Relaxed);
                self.note_size();
                self.publish(batch.revision);
                let mut wakers = Vec::new();
                self.queue.written(seq, batch.bytes, &mut wakers);
                wakers.into_iter().for_each(Waker::wake);
            }
            Err(LogError::NoSpace { .. }) => return Some(batch),
            Err(e) => self.poison(e.to_string()),
        }
        None
    }

    /// Shows everything up to `revision`, in steps.
    fn publish(&self, revision: Revision) {
        loop {
            let visible = self.shared.change(|store| {
                store.publish(revision.min(store.visible() + PUBLISHED_AT_A_TIME));
                store.visible()
            });
            if visible >= revision {
                return;
            }
        }
    }

    /// Refuses all writes from now on; what waits has an unknown outcome.
    fn poison(&self, detail: String) {
        let mut wakers = Vec::new();
        self.queue.poison(detail, &mut wakers);
        wakers.into_iter().for_each(Waker::wake);
    }

    fn note_size(&self) {
        self.queue.disk_bytes.store(self.log.log_bytes() + self.log.snapshot_bytes(), Ordering::Relaxed);
    }

    /// Sees to it that what is taken next has its space. Whatever prevents it, nothing that was written is in doubt: it is
    /// tried again.
    pub(super) fn reserve(&mut self) {
        let detail = match self.log.reserve() {
            Ok(()) => return self.queue.roomy(),
            Err(LogError::Poisoned { detail }) => return self.poison(detail),
            Err(LogError::NoSpace { detail }) => detail,
            Err(e) => e.to_string(),
        };
        let reserved = usize::try_from(self.log.reserved_bytes()).unwrap_or(usize::MAX);
        self.queue.full(detail, self.reserve_bytes, reserved);
    }

    /// Starts to write a snapshot in a thread of its own, if the log has grown enough or if somebody asks for one.
    fn begin_snapshot(&mut self) -> Option<JoinHandle<()>> {
        let due = self
            .snapshot_log_bytes
            .max(self.log.snapshot_bytes().saturating_mul(2))
            .max(self.snapshot_retry_log_bytes);
        let wanted = self.queue.take_snapshot_wanted();
        if self.log.log_bytes() < due && wanted.is_empty() {
            return None;
        }
        self.snapshot_for = wanted;
        let (seq, (head, copying)) = {
            let store = self.shared.read();
            // Nobody can apply a write now, so that the last number queued belongs to this state.
            (self.queue.last_seq(), store.begin_snapshot())
        };
        let (shared, queue) = (self.shared.clone(), self.queue.clone());
        let entries = Box::new(move || head.into_entries(shared.copied(copying)));
        let job = self.log.snapshot_writer_of(seq, entries);
        let thread = std::thread::Builder::new().name("icp-store-snapshot".into());
        match thread.spawn(move || queue.snapshot_done(job().map(|()| seq))) {
            Ok(thread) => Some(thread),
            Err(e) => {
                let file = "the writer of a snapshot".into();
                self.snapshot_over(&Err(LogError::Io { operation: "start", file, detail: e.to_string() }));
                None
            }
        }
    }

    fn snapshot_over(&mut self, result: &Result<(), LogError>) {
        self.snapshot_for.drain(..).for_each(|request| request.answer(result.clone()));
    }

    /// Puts a snapshot into force; says whether that is over, well or not. One that could not be written is tried
    /// again when the log has grown further; nothing is lost by it.
    fn install(&mut self, done: Result<u64, LogError>) -> bool {
        let installed = match done {
            Ok(seq) if self.log.last_seq() < seq => match self.queue.poisoned() {
                // It holds what will never be in the log.
                Some(detail) => Err(LogError::Poisoned { detail }),
                None => {
                    self.queue.snapshot_done(Ok(seq));
                    return false;
                }
            },
            Ok(seq) => self.log.install_snapshot(seq),
            Err(e) => Err(e),
        };
        match &installed {
            Ok(()) => _ = self.queue.snapshots.fetch_add(1, Ordering::Relaxed),
            Err(_) => {
                self.snapshot_retry_log_bytes = self.log.log_bytes().saturating_add(self.snapshot_log_bytes);
            }
        }
        self.note_size();
        self.snapshot_over(&installed);
        true
    }
}

impl Batch {
    fn of(entries: VecDeque<(Entry, Revision, usize)>, bytes: usize) -> Option<Self> {
        let revision = entries.back()?.1;
        Some(Self { entries: entries.into_iter().map(|(entry, ..)| entry).collect(), bytes, revision })
    }
}
