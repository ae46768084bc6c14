//! Watches that outlive their connection.
//!
//! HTTP/2 frames that stay unread, or that arrive for a stream that was reset, count against the whole connection: h2 ends it
//! (`too_many_data_frames`) when there are too many small ones. So a task reads each stream whether or not its events are
//! taken, and ends it by etcd's cancel request and reading up to the answer. A watch whose taker lags far behind is ended
//! so too, and begins again where its queue ended.
#![expect(clippy::disallowed_methods, reason = "a shell: a task reads each stream")]

use alloc::sync::Arc;
use alloc::vec::Vec;

use icp_core::base::Duration;
use icp_core::storage::{Revision, StorageError, WatchRequest, WatchStream};
use tokio::sync::{OwnedSemaphorePermit, Semaphore, mpsc, watch as signal};

use super::channel::{Channel, Requests, ended};
use crate::etcd::convert::{self, Asked};
use crate::etcd::grpc::{GrpcBody, Messages, Status, UNAVAILABLE, frame};
use crate::etcd::proto as pb;
use crate::etcd::proto::watch_request::RequestUnion;
use crate::etcd::resume::cancelled;
use crate::etcd::rewatch::{self, Response, Stream};

/// Most responses of one watch that wait to be taken; one with more is ended, to begin again.
const QUEUED_MAX: usize = 4096;
/// Most bytes of them; then the stream is left unread, which is safe: responses are large if these come before
/// [`QUEUED_MAX`], and only small ones count against the connection.
const QUEUED_BYTES_MAX: u32 = 1 << 20;

/// A response, and its part of [`QUEUED_BYTES_MAX`].
type Queued = (pb::WatchResponse, OwnedSemaphorePermit);

struct Watch {
    channel: Arc<Channel>,
    /// The responses of the stream that is open; its task ends the stream when this is dropped.
    queued: Option<mpsc::Receiver<Queued>>,
    /// Counts this watch as open.
    _open: signal::Receiver<()>,
}

/// Begins a watch, and waits until the server has it.
pub(super) async fn begin(channel: Arc<Channel>, request: WatchRequest) -> Result<WatchStream, StorageError> {
    let (timeout, retry_max) = (channel.options().request_timeout, channel.options().retry_delay_max);
    let _open = channel.watches.subscribe();
    rewatch::begin(Watch { channel, queued: None, _open }, request, timeout, retry_max).await
}

impl Stream for Watch {
    async fn open(&mut self, request: &WatchRequest, start: Revision) -> Result<Revision, StorageError> {
        self.queued = None;
        let (key, range_end) = convert::range_to(request.range.clone());
        let mut filters = Vec::new();
        if request.no_put {
            filters.push(0);
        }
        if request.no_delete {
            filters.push(1);
        }
        let create = pb::WatchCreateRequest {
            key,
            range_end,
            start_revision: start,
            progress_notify: request.progress_notify,
            filters,
            prev_kv: request.prev_kv,
            watch_id: 0,
            fragment: false,
        };
        let (requests, body) = mpsc::channel(2);
        let first = frame(&pb::WatchRequest { request_union: Some(RequestUnion::Create(create)) });
        let failed = |status: Status| convert::error(&status, Asked::default());
        if requests.try_send(Ok(first)).is_err() {
            return Err(failed(Status::new(UNAVAILABLE, "the request could not be sent")));
        }
        let sent = self.channel.send("/etcdserverpb.Watch/Watch", GrpcBody::request_stream(body)).await;
        let mut messages = sent.map_err(failed)?;
        let created: pb::WatchResponse = match messages.next().await.map_err(failed)? {
            Some(created) => created,
            None => return Err(failed(ended(&messages))),
        };
        refused(&created)?;
        if request.progress_notify {
            self.channel.register(requests.clone());
        }
        let (queue, queued) = mpsc::channel(QUEUED_MAX);
        let answer_timeout = self.channel.options().request_timeout;
        let reader = Reader { messages, requests, watch_id: created.watch_id, answer_timeout };
        tokio::spawn(reader.run(queue));
        self.queued = Some(queued);
        Ok(convert::revision(&created.header))
    }

    async fn response(&mut self) -> Result<Option<Response>, StorageError> {
        let Some(queued) = &mut self.queued else { return Ok(None) };
        let Some((response, _)) = queued.recv().await else { return Ok(None) };
        refused(&response)?;
        Ok(Some(Response {
            revision: convert::revision(&response.header),
            events: response.events.into_iter().map(convert::event).collect(),
            more: response.fragment,
        }))
    }
}

/// The open stream of one watch.
struct Reader {
    messages: Messages,
    requests: Requests,
    watch_id: i64,
    /// How long the answer to the cancel request may take.
    answer_timeout: Duration,
}

impl Reader {
    /// Reads until the stream ends, nobody takes the responses, or they are taken too slowly.
    async fn run(mut self, queue: mpsc::Sender<Queued>) {
        if self.forward(&queue).await {
            return;
        }
        // What is queued is still taken; then the watch begins again.
        drop(queue);
        // Without an answer the stream is reset.
        let _ = tokio::time::timeout(self.answer_timeout, self.cancel()).await;
    }

    /// Whether the stream has ended.
    async fn forward(&mut self, queue: &mpsc::Sender<Queued>) -> bool {
        let room = Arc::new(Semaphore::new(QUEUED_BYTES_MAX as usize));
        loop {
            let before = self.messages.taken_bytes();
            let next = tokio::select! {
                biased;
                () = queue.closed() => return false,
                next = self.messages.next::<pb::WatchResponse>() => next,
            };
            let Ok(Some(response)) = next else { return true };
            let bytes = self.messages.taken_bytes() - before;
            let bytes = u32::try_from(bytes).map_or(QUEUED_BYTES_MAX, |b| b.min(QUEUED_BYTES_MAX));
            let permit = tokio::select! {
                biased;
                () = queue.closed() => return false,
                permit = room.clone().acquire_many_owned(bytes) => permit,
            };
            let canceled = response.canceled;
            let Ok(permit) = permit else { return false };
            if queue.try_send((response, permit)).is_err() {
                return canceled;
            }
            if canceled {
                return true;
            }
        }
    }

    /// Ends the watch, and reads what was sent before the server knew.
    async fn cancel(&mut self) {
        let cancel = pb::WatchCancelRequest { watch_id: self.watch_id };
        let request = pb::WatchRequest { request_union: Some(RequestUnion::Cancel(cancel)) };
        if self.requests.send(Ok(frame(&request))).await.is_err() {
            return;
        }
        while let Ok(Some(response)) = self.messages.next::<pb::WatchResponse>().await {
            if response.canceled {
                return;
            }
        }
    }
}

/// The error of a response that ends the watch.
fn refused(response: &pb::WatchResponse) -> Result<(), StorageError> {
    if !response.canceled {
        return Ok(());
    }
    Err(cancelled(response.compact_revision, &response.cancel_reason))
}
