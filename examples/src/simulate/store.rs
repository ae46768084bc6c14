//! The store machine with its shell: a log on a simulated disk, group commit, connections.

use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;

use icp_core::base::{Duration, Machine, Rng, Time};
use icp_core::sim::{Disk, HostId, Output, StoreAnswer, StoreCall, StoreNews, StoreOrder, StreamId};
use icp_core::storage::{Op, StorageError, Txn};
use icp_store::Store;
use icp_store::log::{DiskLog, Log as _, LogError, LogOptions, SimFiles};
use icp_store::mvcc::Commit;
use icp_store::store::{Answer, Config, Effect, Entry, Event, Request};
use icp_store::watch::{Polled, WatchId};

use super::message::{Payload, Seen, Stamp};
use super::mutant::Mutant;
use super::rewrite;

/// The disk of a host.
#[derive(Clone, Debug, Default)]
pub enum HostDisk {
    /// The host keeps nothing.
    #[default]
    None,
    /// A directory.
    Files(SimFiles),
}

impl Disk for HostDisk {
    fn power_loss(&self) -> Self {
        match self {
            Self::None => Self::None,
            Self::Files(files) => Self::Files(files.crash()),
        }
    }
}

/// How the store's shell behaves.
#[derive(Clone, Copy, Debug)]
pub struct StoreConfig {
    /// A sync takes at least and at most so long.
    pub sync: (Duration, Duration),
    /// History older than this is compacted, this often.
    pub compact_every: Duration,
    /// A snapshot is made when the log has grown to this.
    pub snapshot_bytes: u64,
    /// What is broken on purpose.
    pub mutant: Option<Mutant>,
}

enum Waiter {
    Call { stream: StreamId, from: HostId, id: u64, acknowledged: i64, stale: Option<i64> },
    Own,
}

/// A sync under way.
struct Syncing {
    /// When it ends.
    due: Time,
    /// The revision that is durable then.
    revision: i64,
    commits: Vec<(Arc<Commit>, Stamp)>,
}

/// The host of the store.
pub struct StoreHost {
    config: StoreConfig,
    store: Store,
    log: DiskLog<SimFiles>,
    rng: Rng,
    next: u64,
    waiters: BTreeMap<u64, Waiter>,
    /// Watches by the store's name: the connection, who, the call that began them.
    watches: BTreeMap<WatchId, (StreamId, HostId, u64)>,
    /// Applied, not yet in the log: with the revision after them and whose they are.
    queue: VecDeque<(Vec<Entry>, i64, Stamp)>,
    syncing: Option<Syncing>,
    /// Answers that wait until a number of appends is durable.
    answers: VecDeque<(u64, u64, Result<Answer, StorageError>)>,
    appended: u64,
    begun: u64,
    durable: u64,
    acknowledged: i64,
    poisoned: Option<String>,
    full: bool,
    retry_at: Option<Time>,
    compact_at: Time,
    compact_to: i64,
    /// For the checkers.
    pub seen: Vec<Seen>,
}

impl StoreHost {
    /// Opens the store on a disk.
    ///
    /// # Errors
    /// What the log says.
    pub fn open(files: SimFiles, config: StoreConfig, now: Time, rng: Rng) -> Result<Self, LogError> {
        let mut store = Store::new(Config { seed: rng.clone().next_u64(), ..Config::default() });
        let options = LogOptions { segment_bytes: 256 << 10, ..LogOptions::default() };
        let mut commits: Vec<Arc<Commit>> = Vec::new();
        let log = DiskLog::open(files, options, &mut |entry| {
            if let Entry::Commit(commit) = &entry {
                commits.push(commit.clone());
            }
            store.replay(now, &entry).map_err(|e| LogError::Corrupt {
                file: "the log".into(),
                offset: 0,
                detail: format!("an entry does not follow from those before it: {e}"),
            })
        })?;
        let revision = store.visible();
        let compacted = store.status().compacted;
        Ok(Self {
            config,
            store,
            log,
            rng,
            next: 0,
            waiters: BTreeMap::new(),
            watches: BTreeMap::new(),
            queue: VecDeque::new(),
            syncing: None,
            answers: VecDeque::new(),
            appended: 0,
            begun: 0,
            durable: 0,
            acknowledged: revision,
            poisoned: None,
            full: false,
            retry_at: None,
            compact_at: now + config.compact_every,
            compact_to: revision,
            seen: vec![Seen::Recovered { commits, compacted, revision }],
        })
    }

    /// The store.
    #[must_use]
    pub const fn store(&self) -> &Store {
        &self.store
    }

    /// Whether writes are refused until the store is opened again.
    #[must_use]
    pub const fn is_poisoned(&self) -> bool {
        self.poisoned.is_some()
    }

    /// Whether something is written and not yet synced.
    #[must_use]
    pub const fn is_syncing(&self) -> bool {
        self.syncing.is_some()
    }

    /// Takes a message of an API server.
    pub fn on_order(
        &mut self,
        now: Time,
        stream: StreamId,
        from: HostId,
        order: StoreOrder,
        out: &mut Vec<Output<Payload>>,
    ) {
        match order {
            StoreOrder::Call { id, tag, call } => {
                let stamp = Stamp::unpack(tag);
                let mut stale = None;
                let request = match call {
                    StoreCall::Range(mut range) => {
                        if self.config.mutant == Some(Mutant::StaleRead) && range.revision == 0 {
                            range.revision = (self.store.visible() - 5).max(self.compact_to).max(1);
                            stale = Some(range.revision);
                        }
                        Request::Range(range)
                    }
                    StoreCall::Txn(txn) => {
                        if let Err(e) = self.admit(&txn) {
                            return out.push(answer(stream, from, id, Err(e)));
                        }
                        Request::Txn(match self.config.mutant {
                            Some(mutant) => rewrite::txn(mutant, txn, &self.store),
                            None => txn,
                        })
                    }
                    StoreCall::Watch(watch) => Request::Watch(watch),
                    StoreCall::Compact(revision) => Request::Compact(revision),
                    StoreCall::LeaseGrant { id, ttl_secs } => Request::LeaseGrant { id, ttl_secs },
                    StoreCall::LeaseKeepAlive(id) => Request::LeaseKeepAlive(id),
                    StoreCall::LeaseRevoke(id) => Request::LeaseRevoke(id),
                    StoreCall::RequestProgress => {
                        out.push(answer(stream, from, id, Ok(StoreAnswer::Done)));
                        return self.drive(now, Event::RequestProgress, Stamp::default(), out);
                    }
                };
                self.next += 1;
                let own = self.next;
                let waiter = Waiter::Call { stream, from, id, acknowledged: self.acknowledged, stale };
                self.waiters.insert(own, waiter);
                self.drive(now, Event::Request { id: own, request }, stamp, out);
            }
            StoreOrder::CancelWatch(id) => {
                let watch = self.watches.iter().find(|(_, w)| w.0 == stream && w.2 == id).map(|(k, _)| *k);
                if let Some(watch) = watch {
                    self.watches.remove(&watch);
                    self.drive(now, Event::CancelWatch(watch), Stamp::default(), out);
                }
            }
        }
    }

    /// A connection is no more.
    pub fn on_closed(&mut self, now: Time, stream: StreamId, out: &mut Vec<Output<Payload>>) {
        let gone: Vec<WatchId> =
            self.watches.iter().filter(|(_, w)| w.0 == stream).map(|(id, _)| *id).collect();
        for watch in gone {
            self.watches.remove(&watch);
            self.drive(now, Event::CancelWatch(watch), Stamp::default(), out);
        }
    }

    fn admit(&self, txn: &Txn) -> Result<(), StorageError> {
        if let Some(detail) = &self.poisoned {
            return Err(StorageError::Poisoned { detail: detail.clone() });
        }
        let puts = |ops: &[Op]| ops.iter().any(|op| matches!(op, Op::Put(_) | Op::Txn(_)));
        if self.full && (puts(&txn.success) || puts(&txn.failure)) {
            return Err(StorageError::NoSpace { detail: "the simulated disk is full".into() });
        }
        Ok(())
    }

    fn drive(&mut self, now: Time, event: Event, stamp: Stamp, out: &mut Vec<Output<Payload>>) {
        let mut effects = Vec::new();
        self.store.on(now, event, &mut effects);
        self.perform(now, stamp, effects, out);
    }

    fn perform(&mut self, now: Time, stamp: Stamp, effects: Vec<Effect>, out: &mut Vec<Output<Payload>>) {
        for effect in effects {
            match effect {
                Effect::Append { entries, revision } => {
                    self.appended += 1;
                    self.queue.push_back((entries, revision, stamp));
                }
                Effect::Answer { id, answer } => {
                    let reads = matches!(answer, Ok(Answer::Range(_) | Answer::Watch(_)) | Err(_));
                    let after = if reads { 0 } else { self.appended };
                    self.answers.push_back((after, id, answer));
                }
                Effect::WatchReady(watch) => self.poll(now, watch, out),
                Effect::Polled { .. } | _ => {}
            }
        }
        self.begin_sync(now, out);
        self.answer_due(now, out);
    }

    fn poll(&mut self, now: Time, watch: WatchId, out: &mut Vec<Output<Payload>>) {
        loop {
            let Some((stream, from, id)) = self.watches.get(&watch).copied() else { return };
            let mut effects = Vec::new();
            self.store.on(now, Event::Poll(watch), &mut effects);
            for effect in effects {
                let batch = match effect {
                    Effect::Polled { polled: Polled::Batch(batch), .. } => Ok(batch),
                    Effect::Polled { polled: Polled::Ended(Some(error)), .. } => Err(error),
                    _ => return,
                };
                let ended = batch.is_err();
                let payload = Payload::News(StoreNews::Batch { id, batch });
                out.push(Output::Stream { stream, to: from, payload, end: false });
                if ended {
                    self.watches.remove(&watch);
                    return;
                }
            }
        }
    }

    fn answer_due(&mut self, now: Time, out: &mut Vec<Output<Payload>>) {
        let mut at = 0;
        let mut opened = Vec::new();
        while let Some((after, ..)) = self.answers.get(at) {
            if *after > self.durable {
                at += 1;
                continue;
            }
            let Some((_, id, result)) = self.answers.remove(at) else { break };
            let Some(Waiter::Call { stream, from, id, acknowledged, stale }) = self.waiters.remove(&id)
            else {
                continue;
            };
            let result = result.map(|a| match a {
                Answer::Range(mut response) => {
                    response.revision = stale.unwrap_or(response.revision);
                    self.seen.push(Seen::Read { acknowledged, revision: response.revision });
                    StoreAnswer::Range(response)
                }
                Answer::Txn(response) => {
                    if response.succeeded {
                        self.acknowledged = self.acknowledged.max(response.revision);
                        self.seen.push(Seen::Acknowledged(response.revision));
                    }
                    StoreAnswer::Txn(response)
                }
                Answer::Watch(name) => {
                    self.watches.insert(name, (stream, from, id));
                    opened.push(name);
                    StoreAnswer::Done
                }
                Answer::Lease(lease) => StoreAnswer::Lease(lease),
                _ => StoreAnswer::Done,
            });
            out.push(answer(stream, from, id, result));
        }
        for watch in opened {
            // It may have something to say from its beginning.
            self.poll(now, watch, out);
        }
    }

    fn begin_sync(&mut self, now: Time, out: &mut Vec<Output<Payload>>) {
        if self.syncing.is_some() || self.queue.is_empty() || self.poisoned.is_some() {
            return;
        }
        let (mut entries, mut revision, mut commits) = (Vec::new(), 0, Vec::new());
        for (some, after, stamp) in self.queue.drain(..) {
            self.begun += 1;
            revision = after;
            for entry in some {
                if let Entry::Commit(commit) = &entry {
                    commits.push((commit.clone(), stamp));
                    if self.config.mutant == Some(Mutant::LoseEntry) && self.rng.below(100) == 0 {
                        continue;
                    }
                }
                entries.push(entry);
            }
        }
        if let Err(e) = self.log.append(&entries) {
            return self.poison(&e);
        }
        let (min, max) = self.config.sync;
        let spread = u64::try_from(max.saturating_sub(min).as_micros()).unwrap_or(0);
        let due = now + min + Duration::from_micros(self.rng.below(spread + 1));
        let early = self.config.mutant == Some(Mutant::EarlyAck);
        let waiting = if early { Vec::new() } else { commits.clone() };
        self.syncing = Some(Syncing { due, revision, commits: waiting });
        if early {
            self.publish(now, revision, commits, out);
        }
    }

    fn poison(&mut self, error: &LogError) {
        self.poisoned.get_or_insert_with(|| error.to_string());
    }

    fn end_sync(&mut self, now: Time, out: &mut Vec<Output<Payload>>) {
        let Some(Syncing { revision, commits, .. }) = self.syncing.take_if(|s| s.due <= now) else { return };
        if let Err(e) = self.log.sync() {
            self.poison(&e);
            let detail = e.to_string();
            for (_, _, result) in &mut self.answers {
                *result = Err(StorageError::Poisoned { detail: detail.clone() });
            }
            self.durable = u64::MAX;
            return self.answer_due(now, out);
        }
        self.publish(now, revision, commits, out);
        self.reserve(now);
        if self.queue.is_empty() && self.syncing.is_none() {
            self.snapshot();
        }
    }

    fn publish(
        &mut self,
        now: Time,
        revision: i64,
        commits: Vec<(Arc<Commit>, Stamp)>,
        out: &mut Vec<Output<Payload>>,
    ) {
        self.durable = self.begun;
        self.seen.extend(commits.into_iter().map(|(commit, stamp)| Seen::Committed { commit, stamp }));
        self.drive(now, Event::Durable(revision), Stamp::default(), out);
    }

    fn reserve(&mut self, now: Time) {
        match self.log.reserve() {
            Ok(()) => (self.full, self.retry_at) = (false, None),
            Err(LogError::NoSpace { .. }) => {
                self.full = true;
                self.retry_at = Some(now + Duration::from_millis(500));
            }
            Err(e) => self.poison(&e),
        }
    }

    fn snapshot(&mut self) {
        let due = self.config.snapshot_bytes.max(2 * self.log.snapshot_bytes());
        if self.log.log_bytes() < due || self.poisoned.is_some() || self.full {
            return;
        }
        let seq = self.log.last_seq();
        let written = self.log.snapshot_writer(seq, self.store.snapshot())();
        // One that fails is tried again when the log has grown; nothing is lost by it.
        if written.is_ok() {
            let _ = self.log.install_snapshot(seq);
        }
    }

    /// Does what is due.
    pub fn wake(&mut self, now: Time, out: &mut Vec<Output<Payload>>) {
        self.end_sync(now, out);
        if self.retry_at.is_some_and(|at| at <= now) {
            self.reserve(now);
        }
        if self.compact_at <= now {
            let revision = self.compact_to;
            self.compact_to = self.store.visible();
            self.compact_at = now + self.config.compact_every;
            if self.poisoned.is_none() && revision > self.store.status().compacted {
                self.next += 1;
                self.waiters.insert(self.next, Waiter::Own);
                let event = Event::Request { id: self.next, request: Request::Compact(revision) };
                self.drive(now, event, Stamp::default(), out);
            }
        }
        if self.store.deadline().is_some_and(|due| due <= now) && self.poisoned.is_none() {
            let mut effects = Vec::new();
            self.store.wake(now, &mut effects);
            self.perform(now, Stamp::default(), effects, out);
        }
    }

    /// When [`StoreHost::wake`] should be called.
    #[must_use]
    pub fn deadline(&self) -> Option<Time> {
        let leases = self.store.deadline().filter(|_| self.poisoned.is_none());
        let sync = self.syncing.as_ref().map(|s| s.due);
        [leases, sync, self.retry_at, Some(self.compact_at)].into_iter().flatten().min()
    }
}

fn answer(
    stream: StreamId,
    to: HostId,
    id: u64,
    answer: Result<StoreAnswer, StorageError>,
) -> Output<Payload> {
    Output::Stream { stream, to, payload: Payload::News(StoreNews::Answer { id, answer }), end: false }
}
