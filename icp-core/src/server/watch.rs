//! Watches: a body that is fed by the watch cache.

use alloc::boxed::Box;
use alloc::collections::VecDeque;
use alloc::string::ToString;
use alloc::sync::Arc;
use alloc::vec::Vec;
use core::pin::Pin;
use core::task::{Context as TaskContext, Poll};

use bytes::Bytes;
use futures_core::Stream;
use http::Response;
use serde_json::{Value, json};

use super::body::Direct;
use super::cacher::{Change, Subscription};
use super::client::wire;
use super::context::Context;
use super::negotiate::Accept;
use super::read::{Filter, lean};
use super::{Body, codec, failure};
use crate::api::{Object, Status, printer, set_at};
use crate::base::{Duration, Time};
use crate::client::{ApiError, WatchEvent, WatchKind};
use crate::storage::{KeyRange, KeyValue, RangeRequest, Revision, StorageError};

/// What upstream calls the annotation of the bookmark after the initial events.
const INITIAL_EVENTS_END: &str = "k8s.io/initial-events-end";
/// How long before its end a watch gets its last bookmark.
const LAST_BOOKMARK_BEFORE: Duration = Duration::from_secs(2);
/// Largest chunk of frames that one poll joins, in bytes.
const CHUNK_BYTES_MAX: usize = 256 * 1024;

type Sleep = Pin<Box<dyn Future<Output = ()> + Send>>;

/// What a watcher is told.
enum Told {
    /// An object that was there at the beginning, and its value if it had to be parsed.
    Initial(KeyValue, Option<Value>),
    /// A change, as what, and whether the object is the one before it.
    Change { change: Arc<Change>, kind: WatchKind, before: bool },
    /// Up to which revision it was told everything; whether that ends the initial objects.
    Bookmark(Revision, bool),
    /// The end: history is missing.
    Lost(Status),
}

/// What one watcher wants, and where it is.
struct Watcher {
    context: Context,
    filter: Filter,
    all: bool,
    key_prefix: Bytes,
    subscription: Option<Subscription>,
    ready: VecDeque<Told>,
    ends_at: Time,
    bookmark_at: Option<Time>,
    alarm: Option<(Time, Sleep)>,
}

/// A watch as lines of JSON.
struct WatchBody {
    watcher: Watcher,
    columns_sent: bool,
}

/// A watch as values.
struct WatchEvents {
    watcher: Watcher,
    ended: bool,
}

impl Context {
    pub(super) async fn watch(self) -> Result<Response<Body>, Status> {
        let filter = self.filter()?;
        let initial = self.query.flag("sendInitialEvents");
        let version = self.resource_version()?;
        let bookmarks = self.query.flag("allowWatchBookmarks");
        let timeout = match self.query.number("timeoutSeconds")? {
            Some(secs) if secs > 0 => Duration::from_secs(secs.unsigned_abs()),
            _ => {
                let min = self.server.0.options.watch_timeout_min;
                let jitter = super::api_server::lock(&self.server.0.rng).fraction();
                min + min.mul_f64(jitter)
            }
        };
        let hub = self.server.hub(&self.info.storage_prefix);
        let mut ready = VecDeque::new();
        // Without a version, and with "0", a watch begins with what there is.
        let synthetic = match self.query.get("sendInitialEvents") {
            Some(_) => initial,
            None => version.is_none_or(|v| v == 0),
        };
        let start = if synthetic {
            let page = self.page_for_watch(&filter).await?;
            if let Some(asked) = version.filter(|asked| *asked > page.revision) {
                return Err(failure::too_large_resource_version(asked, page.revision));
            }
            ready.extend(page.items.into_iter().map(|(kv, value)| Told::Initial(kv, value)));
            if initial && bookmarks {
                ready.push_back(Told::Bookmark(page.revision, true));
            }
            page.revision
        } else {
            match version {
                Some(version) if version > 0 => version,
                _ => self.server.revision(&self.info).await?,
            }
        };
        if !hub.covers(start) {
            // Whether the store still has the history is known before the answer begins.
            let range = KeyRange::prefix(self.info.storage_prefix.clone().into_bytes());
            let mut probe = RangeRequest::new(range).limit(1).at(start);
            probe.count_only = true;
            match self.server.storage().range(probe).await {
                Ok(_) | Err(StorageError::FutureRevision { .. }) => {}
                Err(StorageError::Compacted { compacted }) => {
                    let lost = super::cacher::Lost { asked: start, oldest: compacted };
                    let status = failure::expired(lost.to_string());
                    if self.direct {
                        let lost = futures_util::stream::iter([Err(ApiError::Status(status))]);
                        return Ok(Response::new(Body::direct(Direct::Events(Box::pin(lost)))));
                    }
                    let lost = futures_util::stream::iter([codec::error_frame(&status)]);
                    return Ok(self.respond_bytes(200, Body::stream(Box::pin(lost))));
                }
                Err(e) => return Err(e.into()),
            }
        }
        let subscription = hub.subscribe(start);
        let watcher = Watcher {
            all: filter.is_all() && self.stored_form(),
            key_prefix: self.info.key_prefix(Some(self.namespace())).into_bytes().into(),
            filter,
            subscription: Some(subscription),
            ready,
            ends_at: self.now + timeout,
            bookmark_at: bookmarks.then(|| {
                let last = self.now + timeout.saturating_sub(LAST_BOOKMARK_BEFORE);
                last.min(self.now + self.server.0.options.bookmark_every)
            }),
            alarm: None,
            context: self,
        };
        if watcher.context.direct {
            let events = Box::pin(WatchEvents { watcher, ended: false });
            return Ok(Response::new(Body::direct(Direct::Events(events))));
        }
        let response = watcher.context.respond_bytes(200, Body::empty());
        let body = WatchBody { watcher, columns_sent: false };
        Ok(response.map(|_| Body::stream(Box::pin(body))))
    }

    async fn page_for_watch(&self, filter: &Filter) -> Result<super::read::Page, Status> {
        let range = KeyRange::prefix(self.info.key_prefix(Some(self.namespace())).into_bytes());
        let response = self.server.storage().range(RangeRequest::new(range)).await?;
        let mut page =
            super::read::Page { revision: response.revision, items: Vec::new(), next: None, remaining: None };
        for kv in response.kvs {
            if let Some(value) = self.select(filter, &kv)? {
                page.items.push((kv, value));
            }
        }
        Ok(page)
    }

    /// An object as watch events carry it.
    fn watch_object(&self, object: &Value, columns_sent: &mut bool) -> Bytes {
        let value = match self.accept {
            Accept::Json | Accept::Yaml => return serde_json::to_vec(object).unwrap_or_default().into(),
            Accept::Partial => printer::partial_metadata(object),
            Accept::Table => {
                let meta = json!({ "resourceVersion": codec::meta_str(object, "resourceVersion") });
                let columns = !core::mem::replace(columns_sent, true);
                printer::table(&self.info, &[object], meta, self.now, self.include_object(), columns)
            }
        };
        serde_json::to_vec(&value).unwrap_or_default().into()
    }

    fn bookmark(&self, revision: Revision, initial_events_end: bool) -> Bytes {
        let mut meta = json!({ "resourceVersion": revision.to_string(), "creationTimestamp": null });
        if initial_events_end {
            set_at(&mut meta, &["annotations"], json!({ INITIAL_EVENTS_END: "true" }));
        }
        let (kind, api_version) = match self.accept {
            Accept::Json | Accept::Yaml => (self.info.kind.as_str(), self.info.api_version()),
            Accept::Partial => ("PartialObjectMetadata", "meta.k8s.io/v1".to_string()),
            Accept::Table => ("Table", "meta.k8s.io/v1".to_string()),
        };
        let mut object = json!({ "kind": kind, "apiVersion": api_version, "metadata": meta });
        if self.accept == Accept::Table {
            set_at(&mut object, &["rows"], json!([]));
        }
        codec::watch_frame(WatchKind::Bookmark, &serde_json::to_vec(&object).unwrap_or_default())
    }
}

impl Watcher {
    /// A value in the request's version.
    fn convert(&self, value: Option<&Value>, revision: Revision) -> Option<Value> {
        let mut value = value?.clone();
        codec::set_revision(&mut value, revision);
        if !self.context.stored_form() {
            super::version::from_storage(&self.context.info, &mut value);
        }
        Some(value)
    }

    /// What this watcher learns of a change, if it does.
    fn told(&self, change: Arc<Change>) -> Option<Told> {
        if !change.key.starts_with(&self.key_prefix) {
            return None;
        }
        if self.all {
            let kind = change.kind;
            return Some(Told::Change { change, kind, before: false });
        }
        // The filter looks at the parsed object that all watchers share, unless the version differs.
        let matches = |value: Option<&Value>| match value {
            None => false,
            Some(value) if self.context.stored_form() => self.filter.matches(value),
            Some(_) => self.convert(value, change.revision).is_some_and(|v| self.filter.matches(&v)),
        };
        let was = matches(change.parsed_prev());
        let is = change.kind != WatchKind::Deleted && matches(change.parsed());
        let (kind, before) = match (was, is) {
            (false, true) => (WatchKind::Added, false),
            (true, true) => (WatchKind::Modified, false),
            (true, false) => (WatchKind::Deleted, change.kind != WatchKind::Deleted),
            (false, false) => return None,
        };
        Some(Told::Change { change, kind, before })
    }

    fn poll_told(&mut self, cx: &mut TaskContext<'_>) -> Poll<Option<Told>> {
        loop {
            if let Some(told) = self.ready.pop_front() {
                return Poll::Ready(Some(told));
            }
            let Some(subscription) = &mut self.subscription else { return Poll::Ready(None) };
            match subscription.poll_changes(cx) {
                Poll::Ready(Ok(changes)) => {
                    for change in changes {
                        if let Some(told) = self.told(change) {
                            self.ready.push_back(told);
                        }
                    }
                    continue;
                }
                Poll::Ready(Err(lost)) => {
                    self.subscription = None;
                    return Poll::Ready(Some(Told::Lost(failure::expired(lost.to_string()))));
                }
                Poll::Pending => {}
            }
            if !self.poll_alarm(cx) {
                return Poll::Pending;
            }
            let now = self.context.server.now();
            let revision = self.subscription.as_ref().map_or(0, Subscription::revision);
            if now >= self.ends_at {
                self.subscription = None;
            } else if self.bookmark_at.is_some_and(|at| at <= now) {
                let last = self.ends_at - LAST_BOOKMARK_BEFORE;
                let every = self.context.server.0.options.bookmark_every;
                self.bookmark_at = Some(if now < last { last.min(now + every) } else { self.ends_at });
                self.ready.push_back(Told::Bookmark(revision, false));
            }
        }
    }

    fn poll_alarm(&mut self, cx: &mut TaskContext<'_>) -> bool {
        let due = self.bookmark_at.map_or(self.ends_at, |b| b.min(self.ends_at));
        loop {
            if self.context.server.now() >= due {
                self.alarm = None;
                return true;
            }
            if self.alarm.as_ref().is_none_or(|(at, _)| *at != due) {
                self.alarm = Some((due, self.context.server.0.clock.sleep_until(due)));
            }
            let Some((_, sleep)) = &mut self.alarm else { return false };
            match sleep.as_mut().poll(cx) {
                Poll::Pending => return false,
                Poll::Ready(()) => self.alarm = None,
            }
            if self.context.server.now() < due {
                // The clock rang early: it is asked again.
                continue;
            }
        }
    }
}

impl WatchBody {
    /// The line that tells it.
    fn frame(&mut self, told: &Told) -> Option<Bytes> {
        let (watcher, columns_sent) = (&self.watcher, &mut self.columns_sent);
        let context = &watcher.context;
        let plain = matches!(context.accept, Accept::Json | Accept::Yaml) && context.stored_form();
        Some(match told {
            Told::Initial(kv, None) if plain => {
                codec::watch_frame(WatchKind::Added, &codec::with_revision(&kv.value, kv.mod_revision))
            }
            Told::Initial(kv, value) => match context.item(kv, value.clone()) {
                Ok(value) => {
                    codec::watch_frame(WatchKind::Added, &context.watch_object(&value, columns_sent))
                }
                Err(status) => codec::error_frame(&status),
            },
            Told::Change { change, kind, before: false } if plain && *kind == change.kind => {
                change.frame().clone()
            }
            Told::Change { change, kind, before: false } if plain => {
                codec::watch_frame(*kind, change.object())
            }
            Told::Change { change, kind, before: true } if plain => {
                codec::watch_frame(*kind, &change.object_prev()?)
            }
            Told::Change { change, kind, before } => {
                let value = if *before { change.parsed_prev() } else { change.parsed() };
                let value = watcher.convert(value, change.revision)?;
                codec::watch_frame(*kind, &context.watch_object(&value, columns_sent))
            }
            Told::Bookmark(revision, initial) => context.bookmark(*revision, *initial),
            Told::Lost(status) => codec::error_frame(status),
        })
    }
}

impl Stream for WatchBody {
    type Item = Bytes;

    /// The lines that are there, joined, so that a burst of changes costs few writes.
    fn poll_next(self: Pin<&mut Self>, cx: &mut TaskContext<'_>) -> Poll<Option<Bytes>> {
        let this = self.get_mut();
        let first = loop {
            match this.watcher.poll_told(cx) {
                Poll::Ready(Some(told)) => {
                    if let Some(frame) = this.frame(&told) {
                        break frame;
                    }
                }
                Poll::Ready(None) => return Poll::Ready(None),
                Poll::Pending => return Poll::Pending,
            }
        };
        if this.watcher.ready.is_empty() {
            return Poll::Ready(Some(first));
        }
        let mut chunk = Vec::from(first);
        while chunk.len() < CHUNK_BYTES_MAX
            && let Some(told) = this.watcher.ready.pop_front()
        {
            if let Some(frame) = this.frame(&told) {
                chunk.extend_from_slice(&frame);
            }
        }
        Poll::Ready(Some(chunk.into()))
    }
}

impl WatchEvents {
    fn event(&self, told: &Told) -> Option<Result<WatchEvent, ApiError>> {
        let watcher = &self.watcher;
        let context = &watcher.context;
        let read = |value: Value| Object::from_value(value).ok().map(|object| Arc::new(lean(object)));
        let (kind, object) = match told {
            Told::Initial(kv, None) if context.stored_form() => {
                (WatchKind::Added, codec::object(&kv.value, kv.mod_revision, true).map(Arc::new))
            }
            Told::Initial(kv, value) => {
                (WatchKind::Added, context.item(kv, value.clone()).ok().and_then(read))
            }
            Told::Change { change, kind, before: false } if context.stored_form() => {
                (*kind, change.lean().cloned())
            }
            Told::Change { change, kind, before: true } if context.stored_form() => {
                (*kind, change.lean_prev())
            }
            Told::Change { change, kind, before } => {
                let value = if *before { change.parsed_prev() } else { change.parsed() };
                (*kind, read(watcher.convert(value, change.revision)?))
            }
            Told::Bookmark(revision, initial) => {
                let frame = context.bookmark(*revision, *initial);
                return wire::decode_event(&frame).transpose();
            }
            Told::Lost(status) => return Some(Err(ApiError::Status(status.clone()))),
        };
        let unread = || ApiError::Decode("a stored object does not have the shape of an object".to_string());
        Some(object.map(|object| WatchEvent { kind, object }).ok_or_else(unread))
    }
}

impl Stream for WatchEvents {
    type Item = Result<WatchEvent, ApiError>;

    fn poll_next(self: Pin<&mut Self>, cx: &mut TaskContext<'_>) -> Poll<Option<Self::Item>> {
        let this = self.get_mut();
        while !this.ended {
            match this.watcher.poll_told(cx) {
                Poll::Pending => return Poll::Pending,
                Poll::Ready(None) => this.ended = true,
                Poll::Ready(Some(told)) => {
                    if let Some(event) = this.event(&told) {
                        this.ended = event.is_err();
                        return Poll::Ready(Some(event));
                    }
                }
            }
        }
        Poll::Ready(None)
    }
}
