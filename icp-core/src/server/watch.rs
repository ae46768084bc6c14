//! Watches: a body that is fed by the watch cache.

use alloc::boxed::Box;
use alloc::collections::VecDeque;
use alloc::string::ToString;
use alloc::vec::Vec;
use core::pin::Pin;
use core::task::{Context as TaskContext, Poll};

use bytes::Bytes;
use futures_core::Stream;
use http::Response;
use serde_json::{Value, json};

use super::cacher::{Change, Subscription};
use super::context::Context;
use super::negotiate::Accept;
use super::read::Filter;
use super::{Body, codec, failure};
use crate::api::{Status, printer, set_at};
use crate::base::{Duration, Time};
use crate::client::WatchKind;
use crate::storage::{KeyRange, RangeRequest, Revision, StorageError};

/// What upstream calls the annotation of the bookmark after the initial events.
const INITIAL_EVENTS_END: &str = "k8s.io/initial-events-end";
/// How long before its end a watch gets its last bookmark.
const LAST_BOOKMARK_BEFORE: Duration = Duration::from_secs(2);
/// Largest chunk of frames that one poll joins, in bytes.
const CHUNK_BYTES_MAX: usize = 256 * 1024;

type Sleep = Pin<Box<dyn Future<Output = ()> + Send>>;

struct WatchBody {
    context: Context,
    filter: Filter,
    all: bool,
    key_prefix: Bytes,
    subscription: Option<Subscription>,
    ready: VecDeque<Bytes>,
    ends_at: Time,
    bookmark_at: Option<Time>,
    alarm: Option<(Time, Sleep)>,
    columns_sent: bool,
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
        let mut columns_sent = false;
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
            for (kv, value) in page.items {
                let object = match value {
                    None if self.accept != Accept::Table
                        && self.accept != Accept::Partial
                        && self.stored_form() =>
                    {
                        codec::with_revision(&kv.value, kv.mod_revision)
                    }
                    None => {
                        let mut value = codec::decode(&kv.value, kv.mod_revision)?;
                        super::version::from_storage(&self.info, &mut value);
                        self.watch_object(&value, &mut columns_sent)
                    }
                    Some(value) => self.watch_object(&value, &mut columns_sent),
                };
                ready.push_back(codec::watch_frame(WatchKind::Added, &object));
            }
            if initial && bookmarks {
                ready.push_back(self.bookmark(page.revision, true));
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
                    let frame = codec::error_frame(&failure::expired(lost.to_string()));
                    return Ok(
                        self.respond_bytes(200, Body::stream(Box::pin(futures_util::stream::iter([frame]))))
                    );
                }
                Err(e) => return Err(e.into()),
            }
        }
        let subscription = hub.subscribe(start);
        let body = WatchBody {
            all: filter.is_all() && self.stored_form() && matches!(self.accept, Accept::Json | Accept::Yaml),
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
            columns_sent,
            context: self,
        };
        let context = &body.context;
        let response = context.respond_bytes(200, Body::empty());
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

impl WatchBody {
    /// The frame by which this watcher learns of a change, if it does.
    fn frame(&mut self, change: &Change) -> Option<Bytes> {
        if !change.key.starts_with(&self.key_prefix) {
            return None;
        }
        if self.all {
            return Some(change.frame().clone());
        }
        let context = &self.context;
        let convert = |value: Option<&Value>| {
            let mut value = value?.clone();
            codec::set_revision(&mut value, change.revision);
            if !context.stored_form() {
                super::version::from_storage(&context.info, &mut value);
            }
            Some(value)
        };
        // The filter looks at the parsed object that all watchers share, unless the version differs.
        let matches = |value: Option<&Value>| match value {
            None => false,
            Some(value) if context.stored_form() => self.filter.matches(value),
            Some(_) => convert(value).is_some_and(|v| self.filter.matches(&v)),
        };
        let was = matches(change.parsed_prev());
        let is = change.kind != WatchKind::Deleted && matches(change.parsed());
        let (kind, source) = match (was, is) {
            (false, true) => (WatchKind::Added, change.parsed()),
            (true, true) => (WatchKind::Modified, change.parsed()),
            (true, false) => (WatchKind::Deleted, change.parsed_prev()),
            (false, false) => return None,
        };
        let plain = matches!(context.accept, Accept::Json | Accept::Yaml) && context.stored_form();
        let object = if plain && (is || change.kind == WatchKind::Deleted) {
            change.object().clone()
        } else if plain {
            change.object_prev()?
        } else {
            let value = convert(source)?;
            self.context.watch_object(&value, &mut self.columns_sent)
        };
        Some(codec::watch_frame(kind, &object))
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

    fn take_ready(&mut self) -> Option<Bytes> {
        let first = self.ready.pop_front()?;
        if self.ready.is_empty() {
            return Some(first);
        }
        let mut chunk = Vec::from(first);
        while let Some(next) = self.ready.front() {
            if chunk.len() + next.len() > CHUNK_BYTES_MAX {
                break;
            }
            chunk.extend_from_slice(next);
            self.ready.pop_front();
        }
        Some(chunk.into())
    }
}

impl Stream for WatchBody {
    type Item = Bytes;

    fn poll_next(self: Pin<&mut Self>, cx: &mut TaskContext<'_>) -> Poll<Option<Bytes>> {
        let this = self.get_mut();
        loop {
            if let Some(chunk) = this.take_ready() {
                return Poll::Ready(Some(chunk));
            }
            let Some(subscription) = &mut this.subscription else { return Poll::Ready(None) };
            match subscription.poll_changes(cx) {
                Poll::Ready(Ok(changes)) => {
                    for change in changes {
                        if let Some(frame) = this.frame(&change) {
                            this.ready.push_back(frame);
                        }
                    }
                    continue;
                }
                Poll::Ready(Err(lost)) => {
                    this.subscription = None;
                    return Poll::Ready(Some(codec::error_frame(&failure::expired(lost.to_string()))));
                }
                Poll::Pending => {}
            }
            if !this.poll_alarm(cx) {
                return Poll::Pending;
            }
            let now = this.context.server.now();
            let revision = this.subscription.as_ref().map_or(0, Subscription::revision);
            if now >= this.ends_at {
                this.subscription = None;
            } else if this.bookmark_at.is_some_and(|at| at <= now) {
                let last = this.ends_at - LAST_BOOKMARK_BEFORE;
                let every = this.context.server.0.options.bookmark_every;
                this.bookmark_at = Some(if now < last { last.min(now + every) } else { this.ends_at });
                let bookmark = this.context.bookmark(revision, false);
                this.ready.push_back(bookmark);
            }
        }
    }
}
