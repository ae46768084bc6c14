//! The machine.

use alloc::collections::VecDeque;
use alloc::sync::Arc;
use alloc::vec::Vec;

use icp_core::base::{Duration, Machine, Rng, Time};
use icp_core::storage::{
    DeleteRangeRequest, KeyRange, LeaseId, LeaseStatus, LeaseTtl, Op, RangeRequest, RangeResponse, Revision,
    StorageError, StoreStatus, Txn, TxnResponse, WatchRequest,
};

use super::alarm::Alarms;
use super::{Answer, Config, Effect, Entry, Event, Request};
use crate::lease::Leases;
use crate::mvcc::{Commit, Limits, Mvcc, invalid};
use crate::watch::{Polled, WatchId, Watches};

fn leases(config: &Config) -> Leases {
    Leases::new(config.lease_ttl_secs_min, config.lease_checkpoint_interval_secs)
}

/// Keys, watches and leases; see the [module](super).
#[derive(Debug)]
pub struct Store {
    pub(super) config: Config,
    pub(super) kv: Mvcc,
    watches: Watches,
    pub(super) leases: Leases,
    pub(super) alarms: Alarms,
    rng: Rng,
    visible: Revision,
    /// The latest time that was told.
    pub(super) now: Time,
    /// When watches are told next how far they are, if one wants to be.
    progress_due: Time,
    unpublished: VecDeque<Arc<Commit>>,
    pub(super) entries: Vec<Entry>,
}

impl Store {
    /// An empty store at revision 1.
    #[must_use]
    pub fn new(config: Config) -> Self {
        Self {
            config,
            kv: Mvcc::new(),
            watches: Watches::new(config.watch_lag_events_max),
            leases: leases(&config),
            alarms: Alarms::default(),
            rng: Rng::new(config.seed).child("leases"),
            visible: 1,
            now: Time::ZERO,
            progress_due: Time::ZERO,
            unpublished: VecDeque::new(),
            entries: Vec::new(),
        }
    }

    /// The newest revision that readers and watchers see.
    #[must_use]
    pub const fn visible(&self) -> Revision {
        self.visible
    }

    /// The revision of the last write, published or not.
    #[must_use]
    pub const fn applied(&self) -> Revision {
        self.kv.revision()
    }

    /// Figures of the store.
    #[must_use]
    pub fn status(&self) -> StoreStatus {
        StoreStatus {
            revision: self.visible,
            compacted: self.kv.compacted(),
            size_bytes: self.kv.value_bytes(),
            in_use_bytes: self.kv.value_bytes(),
            quota_bytes: self.config.quota_bytes,
            watches: self.watches.len(),
        }
    }

    /// Reads a range. Revision 0 means the newest published revision.
    ///
    /// # Errors
    /// Those of [`Mvcc::range`], and [`StorageError::Invalid`] for an empty key.
    pub fn range(&self, request: &RangeRequest) -> Result<RangeResponse, StorageError> {
        if request.range.start.is_empty() && request.range.end.is_none() {
            return Err(invalid("range.key", "key is not provided"));
        }
        self.kv.range(request, self.visible)
    }

    /// Applies a transaction. The answer may be given out when its revision is published.
    ///
    /// # Errors
    /// Those of [`Mvcc::txn`], and [`StorageError::NoSpace`] and [`StorageError::CorruptAlarm`] for an alarm; nothing was
    /// changed then, but the first transaction above the quota raises the alarm.
    pub fn txn(&mut self, now: Time, txn: &Txn) -> Result<TxnResponse, StorageError> {
        self.now = self.now.max(now);
        self.admit_txn(txn)?;
        self.write(txn, &self.config.limits.clone())
    }

    fn write(&mut self, txn: &Txn, limits: &Limits) -> Result<TxnResponse, StorageError> {
        let leases = &self.leases;
        let applied = self.kv.txn(txn, limits, |id| leases.exists(id))?;
        if let Some(commit) = applied.commit {
            commit.changes.iter().for_each(|c| self.leases.follow(c));
            self.entries.push(Entry::Commit(commit.clone()));
            self.unpublished.push_back(commit);
            self.kv.sweep(self.config.sweep_commits_max);
        }
        Ok(applied.response)
    }

    /// Shows all commits up to `revision` to readers and watchers.
    pub fn publish(&mut self, revision: Revision) {
        while self.unpublished.front().is_some_and(|c| c.revision <= revision) {
            if let Some(commit) = self.unpublished.pop_front() {
                self.visible = commit.revision;
                self.watches.publish(&commit);
            }
        }
    }

    /// Shows all commits to readers and watchers.
    pub fn publish_all(&mut self) {
        self.publish(Revision::MAX);
    }

    /// Whether there are log entries to take.
    #[must_use]
    pub fn has_entries(&self) -> bool {
        !self.entries.is_empty()
    }

    /// Takes the log entries of all changes since the last call, in order.
    pub fn take_entries(&mut self) -> Vec<Entry> {
        core::mem::take(&mut self.entries)
    }

    /// Begins a watch; take its batches with [`Store::poll_watch`].
    ///
    /// # Errors
    /// [`StorageError::Compacted`] if the start lies below the compacted revision.
    pub fn watch(&mut self, request: WatchRequest) -> Result<WatchId, StorageError> {
        if self.watches.notifying() == 0 {
            self.progress_due = self.now + self.progress_interval();
        }
        self.watches.watch(request, &self.kv, self.visible)
    }

    /// Takes the next batch of a watch.
    pub fn poll_watch(&mut self, id: WatchId) -> Polled {
        self.watches.poll(id, &self.kv, self.visible)
    }

    /// Ends a watch.
    pub fn cancel_watch(&mut self, id: WatchId) {
        self.watches.cancel(id);
    }

    /// Asks one watch for a progress notification, whatever it was begun with.
    pub fn request_progress(&mut self, id: WatchId) {
        self.watches.request_progress(id);
    }

    /// Asks the watches that were begun with `progress_notify` for a progress notification.
    pub fn request_progress_all(&mut self) {
        self.watches.request_progress_all();
    }

    /// Takes the watches that may have something to say since the last call.
    pub fn take_ready(&mut self) -> Vec<WatchId> {
        self.watches.take_ready()
    }

    /// Forgets what only reads below `revision` can see.
    ///
    /// # Errors
    /// Those of [`Mvcc::compact`]; a revision that is not published yet is a future one. [`StorageError::CorruptAlarm`].
    pub fn compact(&mut self, revision: Revision) -> Result<(), StorageError> {
        self.admit_any()?;
        if revision > self.visible {
            return Err(StorageError::FutureRevision { requested: revision, current: self.visible });
        }
        self.kv.compact(revision)?;
        self.entries.push(Entry::Compact { revision });
        self.kv.sweep(self.config.sweep_commits_max);
        Ok(())
    }

    /// Grants a lease; id 0 lets the store choose one.
    ///
    /// # Errors
    /// Those of [`Leases::grant`], and [`StorageError::NoSpace`] and [`StorageError::CorruptAlarm`] for an alarm.
    pub fn lease_grant(&mut self, now: Time, id: LeaseId, ttl_secs: i64) -> Result<LeaseTtl, StorageError> {
        self.admit_lease()?;
        let mut id = id;
        while id == 0 {
            let drawn = (self.rng.next_u64() >> 1) as LeaseId;
            id = if self.leases.exists(drawn) { 0 } else { drawn };
        }
        self.now = self.now.max(now);
        let granted = self.leases.grant(now, id, ttl_secs)?;
        self.entries.push(Entry::LeaseGrant { id, ttl_secs: granted.ttl_secs });
        Ok(granted)
    }

    /// Renews a lease. If it has something to log ([`Store::has_entries`]), it may be answered when that is durable.
    ///
    /// # Errors
    /// Those of [`Leases::keep_alive`].
    pub fn lease_keep_alive(&mut self, now: Time, id: LeaseId) -> Result<LeaseTtl, StorageError> {
        self.now = self.now.max(now);
        let renewed = self.leases.keep_alive(now, id)?;
        if renewed.log {
            self.entries.push(Entry::LeaseCheckpoint { id, left_secs: renewed.lease.ttl_secs });
        }
        Ok(renewed.lease)
    }

    /// Ends a lease and deletes its keys as one revision; without keys there is no new revision.
    ///
    /// # Errors
    /// [`StorageError::LeaseNotFound`], [`StorageError::CorruptAlarm`].
    pub fn lease_revoke(&mut self, _now: Time, id: LeaseId) -> Result<(), StorageError> {
        self.admit_any()?;
        let keys = self.leases.revoke(id)?;
        let success: Vec<Op> = keys
            .into_iter()
            .map(|key| Op::DeleteRange(DeleteRangeRequest { range: KeyRange::key(key), prev_kv: false }))
            .collect();
        if !success.is_empty() {
            let no_limits =
                Limits { txn_ops_max: usize::MAX, request_bytes_max: usize::MAX, txn_depth_max: 1 };
            self.write(&Txn { success, ..Txn::default() }, &no_limits)?;
        }
        self.entries.push(Entry::LeaseRevoke { id });
        Ok(())
    }

    /// What is known of a lease.
    #[must_use]
    pub fn lease_info(&self, now: Time, id: LeaseId) -> Option<LeaseStatus> {
        self.leases.info(now, id)
    }

    /// The ids of all leases, in order.
    #[must_use]
    pub fn lease_ids(&self) -> Vec<LeaseId> {
        self.leases.ids().collect()
    }

    /// Ends the leases that have run out at `now`, notes what is left of those that live long, tells watches how far they
    /// are, and frees some of what is compacted.
    pub fn tick(&mut self, now: Time) {
        self.now = self.now.max(now);
        if self.lease_deadline().is_some() {
            for id in self.leases.expired(now) {
                // The lease exists: it has just been reported.
                let _ = self.lease_revoke(now, id);
            }
            let due = self.leases.due_checkpoints(now).into_iter();
            self.entries.extend(due.map(|(id, left_secs)| Entry::LeaseCheckpoint { id, left_secs }));
        }
        if self.progress_deadline().is_some_and(|due| due <= now) {
            self.watches.request_progress_all();
            self.progress_due = now + self.progress_interval();
        }
        self.kv.sweep(self.config.sweep_commits_max);
    }

    fn progress_interval(&self) -> Duration {
        Duration::from_secs(u64::try_from(self.config.watch_progress_interval_secs).unwrap_or(0))
    }

    fn progress_deadline(&self) -> Option<Time> {
        let wanted = self.config.watch_progress_interval_secs > 0 && self.watches.notifying() > 0;
        wanted.then_some(self.progress_due)
    }

    /// When [`Store::tick`] has something to do.
    #[must_use]
    pub fn wake_at(&self) -> Option<Time> {
        self.lease_deadline().into_iter().chain(self.progress_deadline()).min()
    }

    /// When the next lease runs out or is noted; none is while all writes are refused.
    #[must_use]
    pub fn lease_deadline(&self) -> Option<Time> {
        self.leases.deadline().filter(|_| self.admit_any().is_ok())
    }

    /// Replays one entry of a log or of a snapshot, and shows it at once. Leases start with their full time to live, or
    /// with what their last checkpoint left.
    ///
    /// # Errors
    /// [`StorageError::Invalid`] if the entry does not follow from those before it: the log is not one that a store
    /// wrote.
    pub fn replay(&mut self, now: Time, entry: &Entry) -> Result<(), StorageError> {
        self.now = self.now.max(now);
        match entry {
            Entry::Restore { compacted } => {
                self.kv = Mvcc::restore(*compacted);
                self.leases = leases(&self.config);
                self.alarms = Alarms::default();
            }
            Entry::Alarm { kind, raised } => _ = self.alarms.set(*kind, *raised),
            Entry::Base(kv) => {
                self.leases.bind(kv.lease, kv.key.clone());
                self.kv.restore_base(kv.as_ref().clone())?;
            }
            Entry::Commit(commit) => {
                let kvs = commit.changes.iter().map(|c| c.kv.kv.clone());
                let commit = self.kv.restore_commit(commit.revision, kvs)?;
                commit.changes.iter().for_each(|c| self.leases.follow(c));
            }
            Entry::LeaseGrant { id, ttl_secs } => {
                self.leases.grant(now, *id, *ttl_secs)?;
            }
            Entry::LeaseCheckpoint { id, left_secs } => self.leases.checkpoint(now, *id, *left_secs)?,
            Entry::LeaseRevoke { id } => {
                self.leases.revoke(*id)?;
            }
            Entry::Compact { revision } => {
                self.kv.compact(*revision)?;
                self.kv.sweep(usize::MAX);
            }
        }
        self.visible = self.kv.revision();
        Ok(())
    }

    fn answer(&mut self, now: Time, request: Request) -> Result<Answer, StorageError> {
        Ok(match request {
            Request::Range(r) => Answer::Range(self.range(&r)?),
            Request::Txn(t) => Answer::Txn(self.txn(now, &t)?),
            Request::Watch(w) => Answer::Watch(self.watch(w)?),
            Request::Compact(revision) => {
                self.compact(revision)?;
                Answer::Done
            }
            Request::LeaseGrant { id, ttl_secs } => Answer::Lease(self.lease_grant(now, id, ttl_secs)?),
            Request::LeaseKeepAlive(id) => Answer::Lease(self.lease_keep_alive(now, id)?),
            Request::LeaseRevoke(id) => {
                self.lease_revoke(now, id)?;
                Answer::Done
            }
        })
    }

    fn flush(&mut self, out: &mut Vec<Effect>) {
        let entries = self.take_entries();
        if !entries.is_empty() {
            out.push(Effect::Append { entries, revision: self.kv.revision() });
        }
        out.extend(self.take_ready().into_iter().map(Effect::WatchReady));
    }
}

impl Machine for Store {
    type Event = Event;
    type Effect = Effect;

    fn on(&mut self, now: Time, event: Event, out: &mut Vec<Effect>) {
        match event {
            Event::Request { id, request } => {
                let answer = self.answer(now, request);
                self.flush(out);
                out.push(Effect::Answer { id, answer });
                return;
            }
            Event::Durable(revision) => self.publish(revision),
            Event::Poll(watch) => {
                let polled = self.poll_watch(watch);
                out.push(Effect::Polled { watch, polled });
            }
            Event::CancelWatch(watch) => self.cancel_watch(watch),
            Event::RequestProgress => self.request_progress_all(),
        }
        self.flush(out);
    }

    fn wake(&mut self, now: Time, out: &mut Vec<Effect>) {
        self.tick(now);
        self.flush(out);
    }

    fn deadline(&self) -> Option<Time> {
        self.wake_at()
    }
}
