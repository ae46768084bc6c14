//! A store in this process.

use alloc::boxed::Box;
use alloc::sync::Arc;
use alloc::vec::Vec;
use core::sync::atomic::{AtomicI64, Ordering};

use async_trait::async_trait;
use icp_core::base::Time;
use icp_core::storage::{
    AlarmKind, KvHash, LeaseId, LeaseStatus, LeaseTtl, RangeRequest, RangeResponse, Revision, Storage,
    StorageError, StoreSnapshot, StoreStatus, Txn, TxnResponse, WatchRequest, WatchStream,
};

use super::shared::{Shared, Watch};
use crate::store::{Config, Entry, Store};

/// A store that lives in this process and ends with it: for tests, for simulations and for caches.
///
/// It needs no runtime, thread or file and costs a few hundred bytes; clones share the store. It has no clock either:
/// leases run on the time that [`Memory::tick`] was last told. A host that uses leases calls `tick` at
/// [`Memory::deadline`] (or once per second); without ticks leases never run out.
///
/// ```
/// use icp_core::base::Time;
/// use icp_store::Memory;
/// let store = Memory::new();
/// assert_eq!(store.deadline(), None);
/// store.tick(Time::from_secs(1));
/// assert_eq!(store.revision(), 1);
/// ```
#[derive(Clone, Debug)]
pub struct Memory {
    shared: Arc<Shared>,
    now_micros: Arc<AtomicI64>,
}

impl Default for Memory {
    fn default() -> Self {
        Self::new()
    }
}

impl Memory {
    /// An empty store with default settings.
    #[must_use]
    pub fn new() -> Self {
        Self::with_config(Config::default())
    }

    /// An empty store. It has no log, so that it notes nothing for one, and it wakes nobody by the clock to tell watches
    /// how far they are; they can be asked.
    #[must_use]
    pub fn with_config(config: Config) -> Self {
        Self { shared: Arc::new(Shared::new(Store::new(timeless(config)))), now_micros: Arc::default() }
    }

    /// A store that holds what a log or a snapshot says ([`Store::snapshot`]); leases begin at time zero.
    ///
    /// # Errors
    /// Those of [`Store::replay`].
    pub fn from_entries(
        config: Config,
        entries: impl IntoIterator<Item = Entry>,
    ) -> Result<Self, StorageError> {
        let mut store = Store::new(timeless(config));
        entries.into_iter().try_for_each(|entry| store.replay(Time::ZERO, &entry))?;
        Ok(Self { shared: Arc::new(Shared::new(store)), now_micros: Arc::default() })
    }

    /// The newest revision.
    #[must_use]
    pub fn revision(&self) -> Revision {
        self.shared.read().visible()
    }

    /// Tells the store the time, which never goes back, and ends the leases that have run out.
    pub fn tick(&self, now: Time) {
        self.now_micros.fetch_max(now.as_micros(), Ordering::AcqRel);
        self.change(|store, now| store.tick(now));
    }

    /// When a lease runs out next, if one does.
    #[must_use]
    pub fn deadline(&self) -> Option<Time> {
        self.shared.read().wake_at()
    }

    fn now(&self) -> Time {
        Time::from_micros(self.now_micros.load(Ordering::Acquire))
    }

    fn change<R>(&self, f: impl FnOnce(&mut Store, Time) -> R) -> R {
        let now = self.now();
        self.shared.change(|store| {
            let result = f(store, now);
            store.take_entries();
            store.publish_all();
            result
        })
    }
}

fn timeless(config: Config) -> Config {
    Config { lease_checkpoint_interval_secs: 0, watch_progress_interval_secs: 0, ..config }
}

#[async_trait]
impl Storage for Memory {
    async fn range(&self, request: RangeRequest) -> Result<RangeResponse, StorageError> {
        self.shared.read().range(&request)
    }

    async fn txn(&self, txn: Txn) -> Result<TxnResponse, StorageError> {
        self.change(|store, now| store.txn(now, &txn))
    }

    async fn watch(&self, request: WatchRequest) -> Result<WatchStream, StorageError> {
        let id = self.change(|store, _| store.watch(request))?;
        Ok(Box::pin(Watch { shared: self.shared.clone(), id, ended: false }))
    }

    async fn compact(&self, revision: Revision) -> Result<(), StorageError> {
        self.change(|store, _| store.compact(revision))
    }

    async fn request_progress(&self) -> Result<(), StorageError> {
        self.change(|store, _| store.request_progress_all());
        Ok(())
    }

    async fn lease_grant(&self, id: LeaseId, ttl_secs: i64) -> Result<LeaseTtl, StorageError> {
        self.change(|store, now| store.lease_grant(now, id, ttl_secs))
    }

    async fn lease_keep_alive(&self, id: LeaseId) -> Result<LeaseTtl, StorageError> {
        self.change(|store, now| store.lease_keep_alive(now, id))
    }

    async fn lease_revoke(&self, id: LeaseId) -> Result<(), StorageError> {
        self.change(|store, now| store.lease_revoke(now, id))
    }

    async fn lease_status(&self, id: LeaseId) -> Result<LeaseStatus, StorageError> {
        let now = self.now();
        let info = self.shared.read().lease_info(now, id).ok_or(StorageError::LeaseNotFound(id))?;
        Ok(info)
    }

    async fn leases(&self) -> Result<Vec<LeaseId>, StorageError> {
        Ok(self.shared.read().lease_ids())
    }

    async fn status(&self) -> Result<StoreStatus, StorageError> {
        Ok(self.shared.read().status())
    }

    async fn hash_kv(&self, revision: Revision) -> Result<KvHash, StorageError> {
        let view = self.shared.read().hash_view(revision)?;
        Ok(view.hash())
    }

    async fn alarms(&self) -> Result<Vec<AlarmKind>, StorageError> {
        Ok(self.shared.read().alarms())
    }

    async fn set_alarm(&self, alarm: AlarmKind, raised: bool) -> Result<bool, StorageError> {
        Ok(self.change(|store, _| store.set_alarm(alarm, raised)))
    }

    async fn snapshot(&self) -> Result<StoreSnapshot, StorageError> {
        let now = self.now();
        let (head, copying) = self.shared.read().begin_view(now)?;
        Ok(head.into_view(self.shared.copied(copying)).into_snapshot())
    }

    async fn defragment(&self) -> Result<(), StorageError> {
        self.change(|store, _| store.defragment());
        Ok(())
    }
}
