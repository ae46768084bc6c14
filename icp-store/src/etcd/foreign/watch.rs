//! Watches that outlive their connection.
#![expect(clippy::disallowed_methods, reason = "a shell: it waits before it connects again")]

use alloc::boxed::Box;
use alloc::vec::Vec;

use ::etcd_client::{WatchFilterType, WatchOptions, WatchRequestSender, WatchResponse, WatchResponseStream};
use icp_core::base::{Backoff, Duration};
use icp_core::storage::{self as port, StorageError, WatchRequest, WatchStream};
use tokio::sync::watch as signal;

use super::{Client, convert};
use crate::etcd::convert::Asked;
use crate::etcd::resume::{Resume, cancelled};

struct Watch {
    client: Client,
    request: WatchRequest,
    resume: Resume,
    stream: Option<(WatchRequestSender, WatchResponseStream)>,
    /// Changes when somebody asks for progress.
    progress: signal::Receiver<u64>,
    /// Whether progress was asked for and not told yet; a new connection asks again.
    asked: bool,
    /// Counts this watch as open.
    _open: signal::Receiver<()>,
    backoff: Backoff,
}

/// Begins a watch, and waits until the server has it.
pub(super) async fn begin(client: &Client, request: WatchRequest) -> Result<WatchStream, StorageError> {
    let timeout = client.options.request_timeout;
    let mut watch = Watch {
        resume: Resume::new(&request),
        request,
        stream: None,
        progress: client.progress.subscribe(),
        asked: false,
        _open: client.watches.subscribe(),
        backoff: Backoff::new(Duration::from_millis(50), client.options.retry_delay_max),
        client: client.clone(),
    };
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
        let (key, end) = convert::key_and_end(self.request.range.clone());
        let mut filters = Vec::new();
        if self.request.no_put {
            filters.push(WatchFilterType::NoPut);
        }
        if self.request.no_delete {
            filters.push(WatchFilterType::NoDelete);
        }
        let start = self.resume.start_revision();
        let mut options =
            WatchOptions::new().with_range(end).with_start_revision(start).with_filters(filters);
        if self.request.progress_notify {
            options = options.with_progress_notify();
        }
        if self.request.prev_kv {
            options = options.with_prev_key();
        }
        let failed = |e| convert::error(&e, Asked::default());
        let opened = self.client.watch.watch(key, Some(options)).await.map_err(failed)?;
        let (requests, mut responses) = opened.split();
        let Some(created) = responses.message().await.map_err(failed)? else {
            return Err(StorageError::Unavailable { detail: "the watch was not created".into() });
        };
        refused(&created)?;
        self.resume.created(convert::revision(created.header()));
        if self.asked {
            self.progress.mark_changed();
        }
        self.stream = Some((requests, responses));
        Ok(())
    }

    /// The next batch; connects again as often as that takes.
    async fn batch(&mut self) -> Result<port::WatchResponse, StorageError> {
        loop {
            if self.stream.is_none() {
                tokio::time::sleep(self.backoff.next_delay()).await;
                let timeout = self.client.options.request_timeout;
                match tokio::time::timeout(timeout, self.create()).await {
                    Ok(Ok(())) => {}
                    Ok(Err(StorageError::Unavailable { .. })) | Err(_) => continue,
                    Ok(Err(e)) => return Err(e),
                }
            }
            let Some((requests, responses)) = &mut self.stream else { continue };
            let response = tokio::select! {
                response = responses.message() => response,
                Ok(()) = self.progress.changed(), if self.request.progress_notify => {
                    self.asked = true;
                    if requests.request_progress().await.is_err() {
                        self.stream = None;
                    }
                    continue;
                }
            };
            let Ok(Some(response)) = response else {
                self.stream = None;
                continue;
            };
            self.backoff.reset();
            refused(&response)?;
            let revision = convert::revision(response.header());
            let more = response.0.fragment;
            self.asked &= !response.0.events.is_empty();
            let events = response.0.events.into_iter().map(convert::event);
            if let Some(batch) = self.resume.take(revision, events, more) {
                return Ok(batch);
            }
        }
    }
}

/// The error of a response that ends the watch.
fn refused(response: &WatchResponse) -> Result<(), StorageError> {
    if !response.canceled() {
        return Ok(());
    }
    Err(cancelled(response.compact_revision(), response.cancel_reason()))
}
