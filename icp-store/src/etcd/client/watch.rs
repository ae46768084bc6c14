//! Watches that outlive their connection.
#![expect(clippy::disallowed_methods, reason = "a shell: it waits before it connects again")]

use alloc::boxed::Box;
use alloc::string::ToString;
use alloc::sync::Arc;
use alloc::vec::Vec;

use icp_core::base::{Backoff, Duration};
use icp_core::storage::{StorageError, WatchRequest, WatchResponse, WatchStream};
use tokio::sync::mpsc;

use super::channel::{Channel, Requests, ended};
use crate::etcd::convert::{self, Asked};
use crate::etcd::grpc::{GrpcBody, Messages, Status, UNAVAILABLE, frame};
use crate::etcd::proto as pb;
use crate::etcd::proto::watch_request::RequestUnion;

struct Watch {
    channel: Arc<Channel>,
    request: WatchRequest,
    /// The first revision that was not delivered yet.
    next: i64,
    stream: Option<(Messages, Requests)>,
    /// Events of a response that the server sent in parts.
    partial: Vec<pb::Event>,
    backoff: Backoff,
}

/// Begins a watch, and waits until the server has it.
pub(super) async fn begin(channel: Arc<Channel>, request: WatchRequest) -> Result<WatchStream, StorageError> {
    let backoff = Backoff::new(Duration::from_millis(50), channel.options().retry_delay_max);
    let timeout = channel.options().request_timeout;
    let next = request.start_revision.max(0);
    let mut watch = Watch { channel, request, next, stream: None, partial: Vec::new(), backoff };
    match tokio::time::timeout(timeout, watch.create()).await {
        Ok(created) => created?,
        Err(_) => {
            let detail = alloc::format!("no watch was created in {timeout:?}");
            return Err(StorageError::Unavailable { detail });
        }
    }
    let batches = futures_util::stream::unfold(Some(watch), |watch| async {
        let mut watch = watch?;
        match watch.batch().await {
            Ok(batch) => Some((Ok(batch), Some(watch))),
            Err(e) => Some((Err(e), None)),
        }
    });
    Ok(Box::pin(batches))
}

impl Watch {
    /// Opens a stream with this one watch.
    async fn create(&mut self) -> Result<(), StorageError> {
        self.stream = None;
        self.partial.clear();
        let (key, range_end) = convert::range_to(self.request.range.clone());
        let mut filters = Vec::new();
        if self.request.no_put {
            filters.push(0);
        }
        if self.request.no_delete {
            filters.push(1);
        }
        let create = pb::WatchCreateRequest {
            key,
            range_end,
            start_revision: self.next,
            progress_notify: self.request.progress_notify,
            filters,
            prev_kv: self.request.prev_kv,
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
        if self.next == 0 {
            self.next = convert::revision(&created.header) + 1;
        }
        if self.request.progress_notify {
            self.channel.register(requests.clone());
        }
        self.stream = Some((messages, requests));
        Ok(())
    }

    /// The next batch; connects again as often as that takes.
    async fn batch(&mut self) -> Result<WatchResponse, StorageError> {
        loop {
            if self.stream.is_none() {
                tokio::time::sleep(self.backoff.next_delay()).await;
                match self.create().await {
                    Ok(()) => {}
                    Err(StorageError::Unavailable { .. }) => continue,
                    Err(e) => return Err(e),
                }
            }
            let Some((messages, _)) = &mut self.stream else { continue };
            let Ok(Some(response)) = messages.next::<pb::WatchResponse>().await else {
                self.stream = None;
                continue;
            };
            self.backoff.reset();
            refused(&response)?;
            if let Some(batch) = self.take(response) {
                return Ok(batch);
            }
        }
    }

    fn take(&mut self, response: pb::WatchResponse) -> Option<WatchResponse> {
        let revision = convert::revision(&response.header);
        self.partial.extend(response.events);
        if response.fragment || (self.partial.is_empty() && revision < self.next - 1) {
            return None;
        }
        let next = self.next;
        let events: Vec<_> = core::mem::take(&mut self.partial)
            .into_iter()
            .map(convert::event)
            .filter(|e| e.kv.mod_revision >= next)
            .collect();
        // The header of events has the server's revision, which may be ahead of what is still to be sent.
        let delivered = events.last().map_or(revision, |e| e.kv.mod_revision);
        if events.is_empty() && !self.request.progress_notify {
            return None;
        }
        self.next = self.next.max(delivered + 1);
        Some(WatchResponse { revision: delivered, events })
    }
}

/// The error of a response that ends the watch.
fn refused(response: &pb::WatchResponse) -> Result<(), StorageError> {
    if !response.canceled {
        return Ok(());
    }
    Err(match response.compact_revision {
        0 => StorageError::Unavailable { detail: response.cancel_reason.to_string() },
        compacted => StorageError::Compacted { compacted },
    })
}
