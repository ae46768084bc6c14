//! A store in a directory.

use alloc::boxed::Box;
use alloc::sync::Arc;
use alloc::vec::Vec;
use core::future::poll_fn;
use core::sync::atomic::Ordering;
use core::task::{Poll, Waker};
use std::path::Path;
use std::sync::Mutex;
use std::thread::JoinHandle;

use async_trait::async_trait;
use icp_core::storage::{
    AlarmKind, KvHash, LeaseId, LeaseStatus, LeaseTtl, Op, RangeRequest, RangeResponse, Revision, Storage,
    StorageError, StoreSnapshot, StoreStatus, Txn, TxnResponse, WatchRequest, WatchStream,
};

use super::clock::Clock;
use super::committer::Committer;
use super::queue::{Growth, Queue, Ticket};
use super::shared::{Shared, Watch};
use crate::log::{DiskLog, Files, LogError, LogOptions, OsFiles};
use crate::store::{Config, Store};

/// Settings of a [`Disk`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct DiskOptions {
    /// Settings of the store.
    pub store: Config,
    /// Settings of the log.
    pub log: LogOptions,
    /// Most bytes of entries that share one sync.
    pub batch_bytes_max: usize,
    /// A snapshot is made when the log is larger than this, than two segments, and than twice the last snapshot.
    pub snapshot_log_bytes: u64,
}

impl Default for DiskOptions {
    fn default() -> Self {
        Self {
            store: Config::default(),
            log: LogOptions::default(),
            batch_bytes_max: 1 << 20,
            snapshot_log_bytes: 64 << 20,
        }
    }
}

/// Figures of a [`Disk`] since it was opened.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct DiskStats {
    /// Log entries that were made durable.
    pub entries: u64,
    /// Syncs that did it.
    pub syncs: u64,
    /// Snapshots that were made.
    pub snapshots: u64,
}

/// A durable store in a directory that this process has alone.
///
/// Writes are applied to the store in memory at once, queued, and made durable by one committer thread, many with one
/// `fdatasync` (group commit). A write is answered after the sync of its batch. Reads and watches see only what is
/// durable: a read is evaluated at the newest durable revision, which includes every write that was answered, so that
/// reads are linearizable and never wait for the disk. A transaction is evaluated on the newest state and answered when
/// that state is durable, even if it only read. A future that is dropped has an unknown outcome.
///
/// A full disk refuses writes that add data with [`StorageError::NoSpace`] before they change anything; deletions,
/// compaction and lease expiry go on within a reserve, and all goes on within about a second after space has returned. A
/// failed write or sync poisons the store: writes are refused until it is opened again, reads of what is durable go on.
///
/// Leases are durable. When the store is opened their time starts again from full, or from the last checkpoint of those
/// that live long ([`Config::lease_checkpoint_interval_secs`]).
/// Clones share the store; it is closed when the last one is dropped.
///
/// ```
/// use icp_store::{Disk, DiskOptions};
/// let dir = std::env::temp_dir().join(format!("icp-store-doc-{}", std::process::id()));
/// let store = Disk::open(&dir, DiskOptions::default())?;
/// assert!(Disk::open(&dir, DiskOptions::default()).is_err(), "one opener at a time");
/// drop(store);
/// std::fs::remove_dir_all(&dir).unwrap();
/// # Ok::<(), icp_store::log::LogError>(())
/// ```
#[derive(Clone, Debug)]
pub struct Disk {
    owner: Arc<Owner>,
}

#[derive(Debug)]
struct Owner {
    shared: Arc<Shared>,
    queue: Arc<Queue>,
    clock: Clock,
    queue_bytes_max: usize,
    committer: Mutex<Option<JoinHandle<()>>>,
}

impl Drop for Owner {
    fn drop(&mut self) {
        self.queue.close();
        let committer = self.committer.get_mut().ok().and_then(Option::take);
        if let Some(thread) = committer {
            // A panic of the committer has nothing more to tell here.
            let _ = thread.join();
        }
    }
}

impl Disk {
    /// Opens the store of `directory`, which is made with mode 0700 if it is missing.
    ///
    /// # Errors
    /// [`LogError::Locked`] if another opener has it, [`LogError::Corrupt`] and [`LogError::Version`] if it cannot be
    /// read whole, [`LogError::NoSpace`] if a first segment does not fit, [`LogError::Io`].
    pub fn open(directory: impl AsRef<Path>, options: DiskOptions) -> Result<Self, LogError> {
        Self::open_files(OsFiles::open(directory.as_ref())?, options)
    }

    /// Opens the store of any [`Files`], a simulated disk for instance.
    ///
    /// # Errors
    /// Those of [`Disk::open`].
    pub fn open_files<F: Files>(files: F, options: DiskOptions) -> Result<Self, LogError>
    where
        F::File: Send,
    {
        let clock = Clock::new();
        let now = clock.now();
        let mut store = Store::new(options.store);
        let log = DiskLog::open(files, options.log, &mut |entry| {
            store.replay(now, &entry).map_err(|e| LogError::Corrupt {
                file: "the log".into(),
                offset: 0,
                detail: alloc::format!("an entry does not follow from those before it: {e}"),
            })
        })?;
        let (shared, queue) = (Arc::new(Shared::new(store)), Arc::new(Queue::new(&log)));
        let mut committer = Committer {
            log,
            shared: shared.clone(),
            queue: queue.clone(),
            clock,
            batch_bytes_max: options.batch_bytes_max,
            snapshot_log_bytes: options.snapshot_log_bytes.max(2 * options.log.segment_bytes),
            reserve_bytes: usize::try_from(options.log.segment_bytes / 4).unwrap_or(usize::MAX),
            snapshot_retry_log_bytes: 0,
            snapshot_for: Vec::new(),
        };
        // A disk that is full already must be known before the first write is taken.
        committer.reserve();
        let thread = std::thread::Builder::new()
            .name("icp-store-committer".into())
            .spawn(move || committer.run())
            .map_err(|e| LogError::Io {
                operation: "start",
                file: "the committer's thread".into(),
                detail: alloc::format!("{e}"),
            })?;
        let queue_bytes_max = usize::try_from(options.log.segment_bytes / 2).unwrap_or(usize::MAX);
        let committer = Mutex::new(Some(thread));
        Ok(Self { owner: Arc::new(Owner { shared, queue, clock, queue_bytes_max, committer }) })
    }

    /// The newest durable revision.
    #[must_use]
    pub fn revision(&self) -> Revision {
        self.owner.shared.read().visible()
    }

    /// What the committer did since the store was opened.
    #[must_use]
    pub fn stats(&self) -> DiskStats {
        let q = &self.owner.queue;
        DiskStats {
            entries: q.entries.load(Ordering::Relaxed),
            syncs: q.syncs.load(Ordering::Relaxed),
            snapshots: q.snapshots.load(Ordering::Relaxed),
        }
    }

    /// Makes a snapshot now, which replaces the log before it, and waits until it is in force. Reads and writes go on
    /// meanwhile.
    ///
    /// # Errors
    /// [`LogError::NoSpace`], [`LogError::Io`] and [`LogError::Poisoned`]; the log is kept whole then.
    pub async fn snapshot_log(&self) -> Result<(), LogError> {
        let request = self.owner.queue.want_snapshot();
        poll_fn(|cx| match request.poll(cx.waker()) {
            Some(result) => Poll::Ready(result),
            None => Poll::Pending,
        })
        .await
    }

    /// Changes the store and waits until the change is durable.
    async fn change<R>(
        &self,
        growth: Growth,
        f: impl FnOnce(&mut Store) -> Result<R, StorageError> + Send,
    ) -> Result<R, StorageError> {
        let Owner { shared, queue, queue_bytes_max, .. } = &*self.owner;
        while let Some(ticket) = now(|waker| queue.over(*queue_bytes_max, waker)).await {
            self.durable(ticket).await?;
        }
        let (result, ticket) = now(|waker| {
            shared.change(|store| {
                queue.admit(growth)?;
                let result = f(store);
                Ok::<_, StorageError>((result, queue.push(store, Some(waker))))
            })
        })
        .await?;
        if let Some(ticket) = ticket {
            self.durable(ticket).await?;
        }
        result
    }

    async fn durable(&self, ticket: Ticket) -> Result<(), StorageError> {
        // The waker of the first poll came with the ticket.
        let mut again = false;
        poll_fn(|cx| {
            let waker = core::mem::replace(&mut again, true).then(|| cx.waker());
            self.owner.queue.durable(ticket, waker).map_or(Poll::Pending, Poll::Ready)
        })
        .await
    }
}

/// Calls `f` at once, with the waker of the task.
async fn now<R>(f: impl FnOnce(&Waker) -> R) -> R {
    let mut f = Some(f);
    poll_fn(|cx| f.take().map_or(Poll::Pending, |f| Poll::Ready(f(cx.waker())))).await
}

/// Whether a transaction can only make the data smaller.
fn growth(txn: &Txn) -> Growth {
    let grows = |op: &Op| match op {
        Op::Put(_) => true,
        Op::Range(_) | Op::DeleteRange(_) => false,
        Op::Txn(nested) => growth(nested) == Growth::Adds,
    };
    if txn.success.iter().chain(&txn.failure).any(grows) { Growth::Adds } else { Growth::Frees }
}

#[async_trait]
impl Storage for Disk {
    async fn range(&self, request: RangeRequest) -> Result<RangeResponse, StorageError> {
        self.owner.shared.read().range(&request)
    }

    async fn txn(&self, txn: Txn) -> Result<TxnResponse, StorageError> {
        let at = self.owner.clock.now();
        self.change(growth(&txn), move |store| store.txn(at, &txn)).await
    }

    async fn watch(&self, request: WatchRequest) -> Result<WatchStream, StorageError> {
        let shared = self.owner.shared.clone();
        let id = shared.change(|store| store.watch(request))?;
        Ok(Box::pin(Watch { shared, id, ended: false }))
    }

    async fn compact(&self, revision: Revision) -> Result<(), StorageError> {
        self.change(Growth::Frees, |store| store.compact(revision)).await
    }

    async fn request_progress(&self) -> Result<(), StorageError> {
        self.owner.shared.change(Store::request_progress_all);
        Ok(())
    }

    async fn lease_grant(&self, id: LeaseId, ttl_secs: i64) -> Result<LeaseTtl, StorageError> {
        let now = self.owner.clock.now();
        self.change(Growth::Adds, |store| store.lease_grant(now, id, ttl_secs)).await
    }

    async fn lease_keep_alive(&self, id: LeaseId) -> Result<LeaseTtl, StorageError> {
        let Owner { shared, queue, clock, .. } = &*self.owner;
        let at = clock.now();
        let (renewed, ticket) = now(|waker| {
            shared.change(|store| {
                let renewed = store.lease_keep_alive(at, id);
                (renewed, if store.has_entries() { queue.push(store, Some(waker)) } else { None })
            })
        })
        .await;
        if let Some(ticket) = ticket {
            self.durable(ticket).await?;
        }
        renewed
    }

    async fn lease_revoke(&self, id: LeaseId) -> Result<(), StorageError> {
        let now = self.owner.clock.now();
        self.change(Growth::Frees, |store| store.lease_revoke(now, id)).await
    }

    async fn lease_status(&self, id: LeaseId) -> Result<LeaseStatus, StorageError> {
        let now = self.owner.clock.now();
        self.owner.shared.read().lease_info(now, id).ok_or(StorageError::LeaseNotFound(id))
    }

    async fn leases(&self) -> Result<Vec<LeaseId>, StorageError> {
        Ok(self.owner.shared.read().lease_ids())
    }

    async fn status(&self) -> Result<StoreStatus, StorageError> {
        let size_bytes = self.owner.queue.disk_bytes.load(Ordering::Relaxed);
        Ok(StoreStatus { size_bytes, ..self.owner.shared.read().status() })
    }

    async fn hash_kv(&self, revision: Revision) -> Result<KvHash, StorageError> {
        let view = self.owner.shared.read().hash_view(revision)?;
        Ok(view.hash())
    }

    async fn alarms(&self) -> Result<Vec<AlarmKind>, StorageError> {
        Ok(self.owner.shared.read().alarms())
    }

    async fn set_alarm(&self, alarm: AlarmKind, raised: bool) -> Result<bool, StorageError> {
        self.change(Growth::Frees, |store| Ok(store.set_alarm(alarm, raised))).await
    }

    async fn snapshot(&self) -> Result<StoreSnapshot, StorageError> {
        let now = self.owner.clock.now();
        let (head, copying) = self.owner.shared.read().begin_view(now)?;
        Ok(head.into_view(self.owner.shared.copied(copying)).into_snapshot())
    }

    async fn defragment(&self) -> Result<(), StorageError> {
        self.owner.shared.change(Store::defragment);
        Ok(())
    }
}
