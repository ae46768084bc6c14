//! Clients that record what they do.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use futures_util::StreamExt;
use icp_core::base::Rng;
use icp_core::storage::{
    Compare, DeleteRangeRequest, KeyRange, KeyValue, Op, OpResponse, PutRequest, RangeRequest, Revision,
    Storage, StorageError, Txn, TxnResponse, WatchRequest,
};
use tokio::task::JoinHandle;

use super::watch::last_wanted;
use super::{Attempt, Call, History, Operation, Truth, Watched};

/// How many keys the clients write.
const KEYS: u64 = 8;
/// How many writes [`Recorder::settle`] makes.
pub const SETTLING_WRITES: usize = KEYS as usize + 1;

/// Records the calls of all clients.
#[derive(Clone)]
pub struct Recorder {
    store: Arc<dyn Storage>,
    history: Arc<Mutex<History>>,
    clock: Arc<AtomicU64>,
    stop: Arc<AtomicBool>,
}

/// Whether a write that was answered so may have taken effect.
fn outcome_is_unknown(error: &StorageError) -> bool {
    matches!(error, StorageError::Unavailable { .. } | StorageError::Poisoned { .. })
}

fn put(key: &str, value: &str) -> Op {
    Op::Put(PutRequest { prev_kv: true, ..PutRequest::new(key.to_string(), value.to_string()) })
}

impl Recorder {
    pub fn new(store: Arc<dyn Storage>) -> Self {
        Self { store, history: Arc::default(), clock: Arc::default(), stop: Arc::default() }
    }

    fn history(&self) -> MutexGuard<'_, History> {
        self.history.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn moment(&self) -> u64 {
        self.clock.fetch_add(1, Ordering::SeqCst)
    }

    fn record(&self, client: usize, invoked: u64, answered: bool, call: Call) {
        let returned = answered.then(|| self.moment());
        self.history().operations.push(Operation { client, invoked, returned, call });
    }

    async fn txn(&self, client: usize, txn: Txn) -> Option<TxnResponse> {
        let invoked = self.moment();
        match self.store.txn(txn.clone()).await {
            Ok(response) => {
                self.record(client, invoked, true, Call::Txn(txn, Some(response.clone())));
                Some(response)
            }
            Err(e) if outcome_is_unknown(&e) => {
                self.record(client, invoked, false, Call::Txn(txn, None));
                // A server that is down is not asked all the time.
                tokio::time::sleep(Duration::from_millis(20)).await;
                None
            }
            // Refused before it did anything.
            Err(_) => None,
        }
    }

    async fn range(&self, client: usize, request: RangeRequest) -> Option<Vec<KeyValue>> {
        let invoked = self.moment();
        let response = self.store.range(request.clone()).await.ok()?;
        self.record(client, invoked, true, Call::Range(request, response.clone()));
        Some(response.kvs)
    }

    /// A client that does `calls` random calls, or goes on until it is told to stop.
    pub async fn client(self, client: usize, seed: u64, calls: u64) {
        let mut rng = Rng::new(seed).child(&format!("client {client}"));
        let mut newest: Revision = 1;
        for n in 0..calls {
            if self.stop.load(Ordering::Relaxed) {
                return;
            }
            let key = format!("k{}", rng.below(KEYS));
            let other = format!("k{}", rng.below(KEYS));
            let value = format!("{client}-{n}");
            let one = |op: Op| Txn { success: vec![op], ..Txn::default() };
            let delete = |range| Op::DeleteRange(DeleteRangeRequest { range, prev_kv: true });
            let answer = match rng.below(12) {
                0..3 => self.txn(client, one(put(&key, &value))).await,
                3 => self.txn(client, one(delete(KeyRange::key(key)))).await,
                4 => self.txn(client, one(delete(KeyRange::between(key, other)))).await,
                5 | 6 => {
                    // Read, then swap.
                    let read = self.range(client, RangeRequest::new(KeyRange::key(key.clone()))).await;
                    let at = read.iter().flatten().next().map_or(0, |kv| kv.mod_revision);
                    let swap = Txn {
                        compare: vec![Compare::mod_revision(key.clone(), at)],
                        success: vec![put(&key, &value)],
                        failure: vec![Op::Range(RangeRequest::new(KeyRange::key(key)))],
                    };
                    self.txn(client, swap).await
                }
                7 | 8 => {
                    let mut success: Vec<Op> =
                        (0..3).map(|i| put(&format!("k{}", (n + 2 * i) % KEYS), &value)).collect();
                    success.push(Op::Range(RangeRequest::new(KeyRange::prefix("k"))));
                    success.push(delete(KeyRange::key(format!("k{}", (n + 1) % KEYS))));
                    self.txn(client, Txn { success, ..Txn::default() }).await
                }
                9 => {
                    let past =
                        RangeRequest::new(KeyRange::prefix("k")).at((newest - rng.below(6) as i64).max(1));
                    self.range(client, past).await;
                    None
                }
                _ => {
                    self.range(client, RangeRequest::new(KeyRange::prefix("k")).limit(rng.below(6) as i64))
                        .await;
                    None
                }
            };
            newest = answer.map_or(newest, |a| a.revision);
        }
    }

    /// A watch that goes on until it is dropped; it begins `offset` revisions from the newest, and is begun again where
    /// it stood whenever it ends, and now and then without need.
    pub async fn watcher(self, seed: u64, n: usize, offset: Revision) {
        let mut rng = Rng::new(seed).child(&format!("watcher {n}"));
        let newest = loop {
            match self.store.range(RangeRequest::new(KeyRange::key("?"))).await {
                Ok(read) => break read.revision,
                // A server that is still starting.
                Err(_) => tokio::time::sleep(Duration::from_millis(20)).await,
            }
        };
        let range = match rng.below(4) {
            0 => KeyRange::key(format!("k{}", rng.below(KEYS))),
            1 => KeyRange::between(format!("k{}", rng.below(4)), format!("k{}", 4 + rng.below(4))),
            _ => KeyRange::prefix("k"),
        };
        let request = WatchRequest {
            prev_kv: rng.below(2) == 0,
            progress_notify: true,
            no_put: rng.below(5) == 0,
            no_delete: rng.below(5) == 0,
            ..WatchRequest::new(range, (newest + offset).max(1))
        };
        let (number, mut from) = {
            let mut history = self.history();
            history.watches.push(Watched { request: request.clone(), attempts: Vec::new() });
            (history.watches.len() - 1, request.start_revision)
        };
        let attempt = |change: &mut dyn FnMut(&mut Vec<Attempt>)| {
            if let Some(watched) = self.history().watches.get_mut(number) {
                change(&mut watched.attempts);
            }
        };
        let end = |error: StorageError| {
            attempt(&mut |attempts| {
                if let Some(last) = attempts.last_mut() {
                    last.ended = Some(error.clone());
                }
            });
            match error {
                StorageError::Compacted { compacted } => Some(compacted),
                _ => None,
            }
        };
        loop {
            attempt(&mut |attempts| attempts.push(Attempt { from, ..Attempt::default() }));
            let again = WatchRequest { start_revision: from, ..request.clone() };
            let mut stream = match self.store.watch(again).await {
                Ok(stream) => stream,
                Err(e) => {
                    from = end(e).unwrap_or(from);
                    tokio::task::yield_now().await;
                    continue;
                }
            };
            for _ in 0..3 + rng.below(40) {
                match stream.next().await {
                    Some(Ok(response)) => {
                        from = response.revision + 1;
                        attempt(&mut |attempts| {
                            if let Some(last) = attempts.last_mut() {
                                last.responses.push(response.clone());
                            }
                        });
                    }
                    Some(Err(e)) => {
                        from = end(e).unwrap_or(from);
                        break;
                    }
                    None => break,
                }
            }
        }
    }

    /// Asks for progress, and compacts behind what the truth has read, until it is told to stop.
    pub async fn caretaker(self, seed: u64, mut truth: Truth) -> Truth {
        let mut rng = Rng::new(seed).child("caretaker");
        while !self.stop.load(Ordering::Relaxed) {
            // A server that is down now is asked again.
            let _ = self.store.request_progress().await;
            if truth.extend(&*self.store).await.is_ok() && rng.below(8) == 0 {
                let revision = truth.last() - rng.below(12) as i64;
                // It is counted before it is tried: a compaction without an answer may have happened.
                truth.compacted = truth.compacted.max(revision);
                let _ = self.store.compact(revision).await;
            }
            tokio::task::yield_now().await;
        }
        truth
    }

    pub fn stop(&self) {
        self.stop.store(true, Ordering::Relaxed);
    }

    /// Writes and deletes every key, so that every watch has something to be told last; then waits until all were.
    pub async fn settle(&self, truth: &mut Truth) -> Result<(), StorageError> {
        for n in 0..KEYS {
            let key = format!("k{n}");
            self.store.txn(Txn { success: vec![put(&key, "last")], ..Txn::default() }).await?;
        }
        let all = Op::DeleteRange(DeleteRangeRequest { range: KeyRange::prefix("k"), prev_kv: false });
        self.store.txn(Txn { success: vec![all], ..Txn::default() }).await?;
        truth.extend(&*self.store).await?;
        let deadline = Instant::now() + Duration::from_secs(60);
        while !self.all_told(truth) {
            assert!(
                Instant::now() < deadline,
                "a watch is not told the last event: {:?}",
                self.history().watches
            );
            std::thread::yield_now();
            tokio::task::yield_now().await;
        }
        Ok(())
    }

    fn all_told(&self, truth: &Truth) -> bool {
        self.history().watches.iter().all(|watched| {
            let told = watched.attempts.iter().flat_map(|a| &a.responses).map(|r| r.revision).max();
            last_wanted(truth, &watched.request).is_none_or(|wanted| told >= Some(wanted))
        })
    }

    /// What was recorded. The writes of [`Recorder::settle`] are not of any client: they are added as unanswered.
    pub fn take(&self) -> History {
        let mut history = self.history().clone();
        let invoked = self.moment();
        let mut unanswered = |op: Op| {
            let call = Call::Txn(Txn { success: vec![op], ..Txn::default() }, None);
            history.operations.push(Operation { client: usize::MAX, invoked, returned: None, call });
        };
        (0..KEYS).for_each(|n| unanswered(put(&format!("k{n}"), "last")));
        unanswered(Op::DeleteRange(DeleteRangeRequest { range: KeyRange::prefix("k"), prev_kv: false }));
        history
    }
}

/// Clients, watchers and a caretaker at once on one store.
pub struct Running {
    recorder: Recorder,
    clients: Vec<JoinHandle<()>>,
    watchers: Vec<JoinHandle<()>>,
    caretaker: JoinHandle<Truth>,
}

/// Starts them; each client makes `calls` calls.
pub fn start(store: Arc<dyn Storage>, seed: u64, clients: usize, calls: u64) -> Running {
    let recorder = Recorder::new(store);
    let offsets = [0, 1, -5, 30, 0, 1];
    let watch = |(n, offset)| tokio::spawn(recorder.clone().watcher(seed, n, offset));
    let watchers = offsets.into_iter().enumerate().map(watch).collect();
    let caretaker = tokio::spawn(recorder.clone().caretaker(seed, Truth::new()));
    let clients = (0..clients).map(|n| tokio::spawn(recorder.clone().client(n, seed, calls))).collect();
    Running { recorder, clients, watchers, caretaker }
}

impl Running {
    /// How many calls were answered.
    pub fn answered(&self) -> usize {
        self.recorder.history().operations.iter().filter(|o| o.returned.is_some()).count()
    }

    /// Lets the clients make no more calls.
    pub fn stop(&self) {
        self.recorder.stop();
    }

    /// Waits for the clients, and until every watch was told everything; what they did, and what was true.
    pub async fn finish(self) -> (History, Truth) {
        for client in self.clients {
            client.await.unwrap();
        }
        self.recorder.stop();
        let mut truth = self.caretaker.await.unwrap();
        self.recorder.settle(&mut truth).await.unwrap();
        self.watchers.into_iter().for_each(|w| w.abort());
        (self.recorder.take(), truth)
    }
}

/// Runs them until each client has made its calls.
pub async fn run(store: Arc<dyn Storage>, seed: u64, clients: usize, calls: u64) -> (History, Truth) {
    start(store, seed, clients, calls).finish().await
}

/// The answer of a read inside a transaction, for those who look for one to change.
pub fn reads(response: &mut TxnResponse) -> Option<&mut Vec<KeyValue>> {
    response.responses.iter_mut().find_map(|r| match r {
        OpResponse::Range(range) => Some(&mut range.kvs),
        _ => None,
    })
}
