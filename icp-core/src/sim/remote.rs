//! A store at the other end of a link.

use alloc::boxed::Box;
use alloc::collections::{BTreeMap, VecDeque};
use alloc::string::ToString;
use alloc::sync::Arc;
use alloc::vec::Vec;
use core::pin::Pin;
use core::task::{Context, Poll, Waker};
use std::sync::{Mutex, MutexGuard, PoisonError};

use async_trait::async_trait;
use futures_core::Stream;

use crate::storage::{
    LeaseId, LeaseTtl, RangeRequest, RangeResponse, Revision, Storage, StorageError, Txn, TxnResponse,
    WatchRequest, WatchResponse, WatchStream,
};

/// What is asked of the store.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum StoreCall {
    /// Read.
    Range(RangeRequest),
    /// Compare, then read and write.
    Txn(Txn),
    /// Begin a watch; its batches carry the call's id.
    Watch(WatchRequest),
    /// Compact history.
    Compact(Revision),
    /// Grant a lease; id 0 lets the store choose.
    LeaseGrant {
        /// The lease.
        id: LeaseId,
        /// Seconds to live.
        ttl_secs: i64,
    },
    /// Renew a lease.
    LeaseKeepAlive(LeaseId),
    /// End a lease.
    LeaseRevoke(LeaseId),
    /// Ask watches for their progress.
    RequestProgress,
}

/// What the store answers.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum StoreAnswer {
    /// Of a read.
    Range(RangeResponse),
    /// Of a transaction.
    Txn(TxnResponse),
    /// Of a grant or a renewal.
    Lease(LeaseTtl),
    /// Of everything else.
    Done,
}

/// What a [`RemoteStorage`] wants sent to the store.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum StoreOrder {
    /// A call.
    Call {
        /// Names the answer.
        id: u64,
        /// On whose behalf; see [`RemoteStorage::set_tag`].
        tag: u64,
        /// What is asked.
        call: StoreCall,
    },
    /// Nobody reads the watch of that call any more.
    CancelWatch(u64),
}

/// What came from the store.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum StoreNews {
    /// The answer to a call.
    Answer {
        /// The call.
        id: u64,
        /// The answer.
        answer: Result<StoreAnswer, StorageError>,
    },
    /// A batch of a watch, or its end.
    Batch {
        /// The call that began it.
        id: u64,
        /// The batch; an error is the last one.
        batch: Result<WatchResponse, StorageError>,
    },
}

#[derive(Debug, Default)]
struct Watched {
    batches: VecDeque<Result<WatchResponse, StorageError>>,
    waker: Option<Waker>,
    ended: bool,
}

#[derive(Debug, Default)]
struct State {
    next: u64,
    tag: u64,
    orders: Vec<StoreOrder>,
    /// Calls that wait, with who waits.
    waiting: BTreeMap<u64, Option<Waker>>,
    answers: BTreeMap<u64, Result<StoreAnswer, StorageError>>,
    watches: BTreeMap<u64, Watched>,
}

/// The storage port over messages: calls become orders that the host sends, and news that the host received end them.
///
/// It knows no link and no time: when the store cannot be reached, the host says so with [`RemoteStorage::fail`].
#[derive(Clone, Debug, Default)]
pub struct RemoteStorage(Arc<Mutex<State>>);

impl RemoteStorage {
    fn state(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// On whose behalf the calls from now on are made.
    pub fn set_tag(&self, tag: u64) {
        self.state().tag = tag;
    }

    /// Takes what is to be sent, in order.
    #[must_use]
    pub fn take_orders(&self) -> Vec<StoreOrder> {
        core::mem::take(&mut self.state().orders)
    }

    /// Whether a call waits for its answer.
    #[must_use]
    pub fn waits(&self, id: u64) -> bool {
        self.state().waiting.contains_key(&id)
    }

    /// Hands over what came from the store. What nobody waits for is dropped.
    pub fn tell(&self, news: StoreNews) {
        let waker = {
            let mut state = self.state();
            match news {
                StoreNews::Answer { id, answer } => match state.waiting.remove(&id) {
                    Some(waker) => {
                        state.answers.insert(id, answer);
                        waker
                    }
                    None => None,
                },
                StoreNews::Batch { id, batch } => match state.watches.get_mut(&id) {
                    Some(watched) => {
                        watched.ended |= batch.is_err();
                        watched.batches.push_back(batch);
                        watched.waker.take()
                    }
                    None => None,
                },
            }
        };
        if let Some(waker) = waker {
            waker.wake();
        }
    }

    /// The store cannot be reached: all calls that wait fail, with an unknown outcome, and all watches end.
    pub fn fail(&self, detail: &str) {
        let (calls, watches): (Vec<u64>, Vec<u64>) = {
            let state = self.state();
            (
                state.waiting.keys().copied().collect(),
                state.watches.iter().filter(|(_, w)| !w.ended).map(|(id, _)| *id).collect(),
            )
        };
        for id in calls {
            self.fail_call(id, detail);
        }
        let gone = || StorageError::Unavailable { detail: detail.to_string() };
        for id in watches {
            self.tell(StoreNews::Batch { id, batch: Err(gone()) });
        }
    }

    /// One call fails, with an unknown outcome.
    pub fn fail_call(&self, id: u64, detail: &str) {
        let answer = Err(StorageError::Unavailable { detail: detail.to_string() });
        self.tell(StoreNews::Answer { id, answer });
    }

    fn call(&self, call: StoreCall) -> Call {
        let mut state = self.state();
        state.next += 1;
        let (id, tag) = (state.next, state.tag);
        state.orders.push(StoreOrder::Call { id, tag, call });
        state.waiting.insert(id, None);
        Call { storage: self.clone(), id }
    }
}

/// A call under way; a drop leaves its outcome unknown.
struct Call {
    storage: RemoteStorage,
    id: u64,
}

impl Future for Call {
    type Output = Result<StoreAnswer, StorageError>;

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let mut state = self.storage.state();
        if let Some(answer) = state.answers.remove(&self.id) {
            return Poll::Ready(answer);
        }
        state.waiting.insert(self.id, Some(cx.waker().clone()));
        Poll::Pending
    }
}

impl Drop for Call {
    fn drop(&mut self) {
        let mut state = self.storage.state();
        state.waiting.remove(&self.id);
        state.answers.remove(&self.id);
    }
}

struct Batches {
    storage: RemoteStorage,
    id: u64,
}

impl Stream for Batches {
    type Item = Result<WatchResponse, StorageError>;

    fn poll_next(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        let mut state = self.storage.state();
        let Some(watched) = state.watches.get_mut(&self.id) else { return Poll::Ready(None) };
        match watched.batches.pop_front() {
            Some(batch) => Poll::Ready(Some(batch)),
            None if watched.ended => Poll::Ready(None),
            None => {
                watched.waker = Some(cx.waker().clone());
                Poll::Pending
            }
        }
    }
}

impl Drop for Batches {
    fn drop(&mut self) {
        let mut state = self.storage.state();
        if state.watches.remove(&self.id).is_some_and(|w| !w.ended) {
            let id = self.id;
            state.orders.push(StoreOrder::CancelWatch(id));
        }
    }
}

fn nonsense() -> StorageError {
    StorageError::Unavailable { detail: "the store answered something else".to_string() }
}

#[async_trait]
impl Storage for RemoteStorage {
    async fn range(&self, request: RangeRequest) -> Result<RangeResponse, StorageError> {
        match self.call(StoreCall::Range(request)).await? {
            StoreAnswer::Range(response) => Ok(response),
            _ => Err(nonsense()),
        }
    }

    async fn txn(&self, txn: Txn) -> Result<TxnResponse, StorageError> {
        match self.call(StoreCall::Txn(txn)).await? {
            StoreAnswer::Txn(response) => Ok(response),
            _ => Err(nonsense()),
        }
    }

    async fn watch(&self, request: WatchRequest) -> Result<WatchStream, StorageError> {
        let call = self.call(StoreCall::Watch(request));
        // Batches may come before the answer is looked at.
        self.state().watches.insert(call.id, Watched::default());
        let batches = Batches { storage: self.clone(), id: call.id };
        call.await?;
        Ok(Box::pin(batches))
    }

    async fn compact(&self, revision: Revision) -> Result<(), StorageError> {
        self.call(StoreCall::Compact(revision)).await.map(|_| ())
    }

    async fn lease_grant(&self, id: LeaseId, ttl_secs: i64) -> Result<LeaseTtl, StorageError> {
        match self.call(StoreCall::LeaseGrant { id, ttl_secs }).await? {
            StoreAnswer::Lease(lease) => Ok(lease),
            _ => Err(nonsense()),
        }
    }

    async fn lease_keep_alive(&self, id: LeaseId) -> Result<LeaseTtl, StorageError> {
        match self.call(StoreCall::LeaseKeepAlive(id)).await? {
            StoreAnswer::Lease(lease) => Ok(lease),
            _ => Err(nonsense()),
        }
    }

    async fn lease_revoke(&self, id: LeaseId) -> Result<(), StorageError> {
        self.call(StoreCall::LeaseRevoke(id)).await.map(|_| ())
    }

    async fn request_progress(&self) -> Result<(), StorageError> {
        self.call(StoreCall::RequestProgress).await.map(|_| ())
    }
}
