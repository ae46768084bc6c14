//! Watches that outlive their connection.

use alloc::vec::Vec;

use ::etcd_client::{WatchFilterType, WatchOptions, WatchRequestSender, WatchResponse, WatchResponseStream};
use icp_core::storage::{Revision, StorageError, WatchRequest, WatchStream};
use tokio::sync::watch as signal;

use super::{Client, convert};
use crate::etcd::convert::Asked;
use crate::etcd::resume::cancelled;
use crate::etcd::rewatch::{self, Response, Stream};

struct Watch {
    client: Client,
    streams: Option<(WatchRequestSender, WatchResponseStream)>,
    /// Changes when somebody asks for progress; nobody may if the watch does not tell of it.
    progress: Option<signal::Receiver<u64>>,
    /// Whether progress was asked for and not told yet; a new connection asks again.
    asked: bool,
    /// Counts this watch as open.
    _open: signal::Receiver<()>,
}

/// Begins a watch, and waits until the server has it.
pub(super) async fn begin(client: &Client, request: WatchRequest) -> Result<WatchStream, StorageError> {
    let watch = Watch {
        streams: None,
        progress: request.progress_notify.then(|| client.progress.subscribe()),
        asked: false,
        _open: client.watches.subscribe(),
        client: client.clone(),
    };
    let options = &client.options;
    rewatch::begin(watch, request, options.request_timeout, options.retry_delay_max).await
}

impl Stream for Watch {
    async fn open(&mut self, request: &WatchRequest, start: Revision) -> Result<Revision, StorageError> {
        self.streams = None;
        let (key, end) = convert::key_and_end(request.range.clone());
        let mut filters = Vec::new();
        if request.no_put {
            filters.push(WatchFilterType::NoPut);
        }
        if request.no_delete {
            filters.push(WatchFilterType::NoDelete);
        }
        let mut options =
            WatchOptions::new().with_range(end).with_start_revision(start).with_filters(filters);
        if request.progress_notify {
            options = options.with_progress_notify();
        }
        if request.prev_kv {
            options = options.with_prev_key();
        }
        let failed = |e| convert::error(&e, Asked::default());
        let opened = self.client.watch.watch(key, Some(options)).await.map_err(failed)?;
        let (requests, mut responses) = opened.split();
        let Some(created) = responses.message().await.map_err(failed)? else {
            return Err(StorageError::Unavailable { detail: "the watch was not created".into() });
        };
        refused(&created)?;
        if let Some(progress) = self.progress.as_mut().filter(|_| self.asked) {
            progress.mark_changed();
        }
        self.streams = Some((requests, responses));
        Ok(convert::revision(created.header()))
    }

    async fn response(&mut self) -> Result<Option<Response>, StorageError> {
        let Some((requests, responses)) = &mut self.streams else { return Ok(None) };
        let response = loop {
            let progress = &mut self.progress;
            let wanted = async {
                let Some(progress) = progress else { return core::future::pending().await };
                if progress.changed().await.is_err() {
                    core::future::pending().await
                }
            };
            tokio::select! {
                response = responses.message() => break response,
                () = wanted => {
                    self.asked = true;
                    if requests.request_progress().await.is_err() {
                        return Ok(None);
                    }
                }
            }
        };
        let Ok(Some(response)) = response else { return Ok(None) };
        refused(&response)?;
        self.asked &= !response.0.events.is_empty();
        Ok(Some(Response {
            revision: convert::revision(response.header()),
            more: response.0.fragment,
            events: response.0.events.into_iter().map(convert::event).collect(),
        }))
    }
}

/// The error of a response that ends the watch.
fn refused(response: &WatchResponse) -> Result<(), StorageError> {
    if !response.canceled() {
        return Ok(());
    }
    Err(cancelled(response.compact_revision(), response.cancel_reason()))
}
