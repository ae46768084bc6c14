//! Watch streams: several watches in one stream.
//!
//! Every watch asks the store for progress notifications. Those that a client did not ask for are used to answer its
//! progress requests: such an answer names the smallest revision that all watches of the stream have reported since, so
//! that it is never ahead of an event that is still to come.
#![expect(clippy::disallowed_methods, reason = "a shell: a watch stream is a task")]

use alloc::collections::BTreeMap;
use alloc::string::{String, ToString};
use alloc::sync::Arc;
use alloc::vec::Vec;

use bytes::Bytes;
use futures_util::StreamExt;
use futures_util::stream::{AbortHandle, Abortable, SelectAll};
use icp_core::storage::{self as port, StorageError, WatchStream};
use tokio::sync::mpsc;

use super::Server;
use super::metrics::Call;
use crate::etcd::convert;
use crate::etcd::grpc::{CANCELLED, GrpcBody, Messages, OK, Status, frame};
use crate::etcd::proto as pb;
use crate::etcd::proto::watch_request::RequestUnion;

/// Most watches of one stream.
const WATCHES_MAX: usize = 100_000;
/// What a client may ask to have a large response split at, in bytes.
const FRAGMENT_BYTES: usize = 1 << 20;

pub(super) fn serve(server: Arc<Server>, messages: Messages, call: Call) -> GrpcBody {
    // Small: a client that does not read holds a few responses here, and the rest as references in the store.
    let (answers, body) = mpsc::channel(4);
    tokio::spawn(async move {
        let metrics = server.metrics.clone();
        let _open = metrics.watch_streams.enter();
        let watches = SelectAll::new();
        let mut stream =
            WatchStreamOf { server, answers, watches, open: BTreeMap::new(), next_id: 0, progress: None };
        match stream.run(messages).await {
            Ok(()) => call.end(OK),
            Err(status) => {
                call.end(status.code);
                // The client may be gone; then nobody is to be told.
                let _ = stream.answers.send(Err(status)).await;
            }
        }
    });
    GrpcBody::stream(body)
}

struct Open {
    abort: AbortHandle,
    progress_notify: bool,
    fragment: bool,
    /// What it has reported since the pending progress request.
    reported: Option<i64>,
}

type Tagged =
    futures_core::stream::BoxStream<'static, (i64, Option<Result<port::WatchResponse, StorageError>>)>;

struct WatchStreamOf {
    server: Arc<Server>,
    answers: mpsc::Sender<Result<Bytes, Status>>,
    watches: SelectAll<Tagged>,
    open: BTreeMap<i64, Open>,
    next_id: i64,
    /// A progress request waits for the watches' reports.
    progress: Option<()>,
}

impl WatchStreamOf {
    async fn run(&mut self, mut messages: Messages) -> Result<(), Status> {
        // A client that has nothing more to ask still gets its events, as in etcd.
        let mut asks = true;
        loop {
            tokio::select! {
                request = messages.next::<pb::WatchRequest>(), if asks => match request? {
                    Some(request) => self.request(request).await?,
                    None => asks = false,
                },
                Some((id, item)) = self.watches.next(), if !self.watches.is_empty() => self.item(id, item).await?,
                () = self.answers.closed() => return Ok(()),
            }
        }
    }

    async fn send(&mut self, response: pb::WatchResponse) -> Result<(), Status> {
        let message = frame(&response);
        self.server.metrics.events.add(response.events.len() as u64);
        self.server.metrics.sent_bytes.add(message.len() as u64);
        let sent = self.answers.send(Ok(message)).await;
        sent.map_err(|_| Status::new(CANCELLED, "the client is gone"))
    }

    async fn revision(&mut self) -> Result<i64, Status> {
        Ok(self.server.storage.status().await.map_err(|e| convert::status(&e))?.revision)
    }

    async fn request(&mut self, request: pb::WatchRequest) -> Result<(), Status> {
        match request.request_union {
            Some(RequestUnion::Create(create)) => self.create(create).await,
            Some(RequestUnion::Cancel(cancel)) => {
                if let Some(open) = self.open.remove(&cancel.watch_id) {
                    open.abort.abort();
                    self.canceled(cancel.watch_id, 0, String::new()).await?;
                    self.answer_progress().await?;
                }
                Ok(())
            }
            Some(RequestUnion::Progress(_)) => {
                self.open.values_mut().for_each(|open| open.reported = None);
                self.progress = Some(());
                self.server.storage.request_progress().await.map_err(|e| convert::status(&e))?;
                self.answer_progress().await
            }
            None => Ok(()),
        }
    }

    async fn create(&mut self, create: pb::WatchCreateRequest) -> Result<(), Status> {
        let revision = self.revision().await?;
        let header = self.server.header(revision);
        let taken = create.watch_id != 0 && self.open.contains_key(&create.watch_id);
        if taken || self.open.len() >= WATCHES_MAX {
            let reason = if taken {
                "mvcc: duplicate watch ID provided on the WatchStream"
            } else {
                "too many watches on the WatchStream"
            };
            let cancel_reason = reason.to_string();
            let refused = pb::WatchResponse {
                header,
                watch_id: -1,
                created: true,
                canceled: true,
                ..Default::default()
            };
            return self.send(pb::WatchResponse { cancel_reason, ..refused }).await;
        }
        let watch_id = if create.watch_id == 0 { self.free_id() } else { create.watch_id };
        // etcd takes an empty key for the first one.
        let key = if create.key.is_empty() { Bytes::from_static(&[0]) } else { create.key };
        let request = port::WatchRequest {
            range: convert::range(key, create.range_end),
            start_revision: create.start_revision,
            prev_kv: create.prev_kv,
            progress_notify: true,
            no_put: create.filters.contains(&0),
            no_delete: create.filters.contains(&1),
        };
        let watch = self.server.storage.watch(request).await;
        self.send(pb::WatchResponse { header, watch_id, created: true, ..Default::default() }).await?;
        match watch {
            Ok(watch) => {
                let (abort, registration) = AbortHandle::new_pair();
                self.watches.push(tagged(watch_id, Abortable::new(watch, registration)));
                let (progress_notify, fragment) = (create.progress_notify, create.fragment);
                self.open.insert(watch_id, Open { abort, progress_notify, fragment, reported: None });
                Ok(())
            }
            Err(e) => self.ended(watch_id, Some(e)).await,
        }
    }

    fn free_id(&mut self) -> i64 {
        while self.open.contains_key(&self.next_id) {
            self.next_id += 1;
        }
        self.next_id += 1;
        self.next_id - 1
    }

    async fn item(
        &mut self,
        watch_id: i64,
        item: Option<Result<port::WatchResponse, StorageError>>,
    ) -> Result<(), Status> {
        let Some(open) = self.open.get_mut(&watch_id) else { return Ok(()) };
        match item {
            Some(Ok(batch)) => {
                open.reported = Some(batch.revision);
                let (fragment, wanted) = (open.fragment, open.progress_notify || !batch.events.is_empty());
                if wanted {
                    self.batch(watch_id, batch, fragment).await?;
                }
                self.answer_progress().await
            }
            Some(Err(e)) => {
                self.open.remove(&watch_id);
                self.ended(watch_id, Some(e)).await
            }
            None => {
                self.open.remove(&watch_id);
                self.ended(watch_id, None).await
            }
        }
    }

    async fn batch(
        &mut self,
        watch_id: i64,
        batch: port::WatchResponse,
        fragment: bool,
    ) -> Result<(), Status> {
        let header = self.server.header(batch.revision);
        let mut events: Vec<pb::Event> = batch.events.into_iter().map(convert::event_to).collect();
        let answer = |events, fragment| pb::WatchResponse {
            header: header.clone(),
            watch_id,
            fragment,
            events,
            ..Default::default()
        };
        let bytes_max = if fragment { FRAGMENT_BYTES } else { usize::MAX };
        loop {
            let mut bytes = 0_usize;
            let fit = events.iter().take_while(|e| {
                bytes += prost::Message::encoded_len(*e);
                bytes <= bytes_max
            });
            let fit = fit.count().max(1);
            if fit >= events.len() {
                break;
            }
            let rest = events.split_off(fit);
            self.send(answer(core::mem::replace(&mut events, rest), true)).await?;
        }
        self.send(answer(events, false)).await
    }

    /// Answers a progress request when every watch of the stream has reported.
    async fn answer_progress(&mut self) -> Result<(), Status> {
        if self.progress.is_none() {
            return Ok(());
        }
        let mut least = None;
        for open in self.open.values() {
            let Some(reported) = open.reported else { return Ok(()) };
            least = Some(least.map_or(reported, |l: i64| l.min(reported)));
        }
        let revision = match least {
            Some(revision) => revision,
            None => self.revision().await?,
        };
        self.progress = None;
        let header = self.server.header(revision);
        self.send(pb::WatchResponse { header, watch_id: -1, ..Default::default() }).await
    }

    async fn ended(&mut self, watch_id: i64, error: Option<StorageError>) -> Result<(), Status> {
        match error {
            Some(StorageError::Compacted { compacted }) => {
                let reason = "etcdserver: mvcc: required revision has been compacted";
                self.canceled(watch_id, compacted, reason.into()).await
            }
            Some(e) => {
                self.server.metrics.slow_cut.add(u64::from(matches!(e, StorageError::SlowWatcher { .. })));
                self.canceled(watch_id, 0, e.to_string()).await
            }
            None => self.canceled(watch_id, 0, "the store was closed".into()).await,
        }
    }

    async fn canceled(
        &mut self,
        watch_id: i64,
        compact_revision: i64,
        cancel_reason: String,
    ) -> Result<(), Status> {
        let revision = self.revision().await?;
        let header = self.server.header(revision);
        let canceled = true;
        self.send(pb::WatchResponse {
            header,
            watch_id,
            canceled,
            compact_revision,
            cancel_reason,
            ..Default::default()
        })
        .await
    }
}

/// The batches of a watch with its id, and one `None` at the end, unless it was aborted.
fn tagged(id: i64, watch: Abortable<WatchStream>) -> Tagged {
    let ended = futures_util::stream::once(async { None });
    watch.map(Some).chain(ended).map(move |item| (id, item)).boxed()
}
