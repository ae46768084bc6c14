//! A resource, followed: list, then watch, then list again when the watch cannot go on.

use alloc::collections::BTreeMap;
use alloc::string::String;
use alloc::sync::Arc;
use alloc::vec;
use alloc::vec::Vec;

use super::{
    ApiError, ApiRequest, ClientEffect, ClientEvent, IdBlock, IndexFn, ListOptions, ObjectKey, Operation,
    Reply, RequestId, RequestIds, Store, WatchEvent, WatchKind,
};
use crate::api::{Gvr, Object, reason, table};
use crate::base::{Backoff, Duration, Rng, Time};

/// Items of one page of the list, as client-go's pager asks for.
const PAGE_ITEMS: u32 = 500;
/// First and longest pause after a failure (client-go `tools/cache/reflector.go`).
const RETRY_INITIAL: Duration = Duration::from_millis(800);
const RETRY_MAX: Duration = Duration::from_secs(30);
/// A watch that ends sooner is taken for a failure, so that a server which closes at once is not hammered.
const WATCH_SHORT: Duration = Duration::from_secs(1);
/// A watch is asked for at least this long and at most twice as long (client-go `minWatchTimeout`).
const WATCH_TIMEOUT: Duration = Duration::from_secs(300);
/// How long after its time-out a silent watch is given up.
const WATCH_GRACE: Duration = Duration::from_secs(30);

/// A change of the observed state.
#[derive(Clone, Debug, PartialEq)]
pub enum Delta {
    /// The object was not known.
    Added(Arc<Object>),
    /// The object was known by another version.
    Updated {
        /// What was known.
        old: Arc<Object>,
        /// What is known now.
        new: Arc<Object>,
    },
    /// The object is gone. After a list that followed a gap, the object is the last state that was known.
    Deleted(Arc<Object>),
}

impl Delta {
    /// The object as it is now, or as it last was.
    #[must_use]
    pub const fn object(&self) -> &Arc<Object> {
        match self {
            Self::Added(object) | Self::Deleted(object) => object,
            Self::Updated { new, .. } => new,
        }
    }
}

#[derive(Debug)]
enum State {
    /// Not started.
    Idle,
    /// Pages are coming in.
    Listing { id: RequestId, seen: BTreeMap<ObjectKey, Arc<Object>> },
    /// The watch is open.
    Watching { id: RequestId, since: Time, give_up: Time },
    /// Something failed; at `due` there is another try: a watch from where the last one ended, or a list.
    Waiting { due: Time, relist: bool },
}

/// Follows one resource and keeps its objects in a [`Store`].
///
/// It lists in pages of 500 with a consistent read, so that the observed state never goes back in time, then
/// watches with bookmarks. If the server says that the version is gone (410, `Expired`) it lists again and tells
/// the differences, including the deletions that it missed. After other failures it pauses (0.8 s doubling to
/// 30 s, with jitter) and resumes the watch where it ended.
///
/// ```
/// use icp_core::api::{Object, resources};
/// use icp_core::base::Time;
/// use icp_core::client::{ClientEffect, ClientEvent, Delta, Informer, ListOptions, Reply, RequestIds};
/// # use std::sync::Arc;
/// let (mut ids, mut out) = (RequestIds::new(), Vec::<ClientEffect>::new());
/// let mut pods = Informer::new(resources::PODS, ListOptions::default());
/// pods.start(Time::ZERO, &mut ids, &mut out);
/// let Some(ClientEffect::Request { id, .. }) = out.pop() else { panic!("no list") };
/// let web = Arc::new(Object::new("v1", "Pod", "default", "web"));
/// let page = Reply::List { items: vec![web.clone()], resource_version: "7".into(), continue_token: None };
/// let deltas = pods.on(Time::ZERO, &ClientEvent::Reply { id, result: Ok(page) }, &mut out);
/// assert_eq!(deltas, [Delta::Added(web)]);
/// assert!(pods.synced() && matches!(out[0], ClientEffect::Watch { .. }));
/// ```
#[derive(Debug)]
pub struct Informer {
    gvr: Gvr,
    namespace: String,
    options: ListOptions,
    ids: IdBlock,
    rng: Rng,
    store: Store,
    state: State,
    backoff: Backoff,
    /// How far the observed state is complete.
    resource_version: String,
    synced: bool,
    missing: bool,
}

impl Informer {
    /// Follows `gvr` in all namespaces; of `options`, the selectors count.
    #[must_use]
    pub fn new(gvr: Gvr, options: ListOptions) -> Self {
        let rng = Rng::new(0).child(&gvr.path(None));
        Self {
            gvr,
            namespace: String::new(),
            options,
            ids: RequestIds::new().block(),
            rng,
            store: Store::new(),
            state: State::Idle,
            backoff: Backoff::new(RETRY_INITIAL, RETRY_MAX),
            resource_version: String::new(),
            synced: false,
            missing: false,
        }
    }

    /// The same for one namespace.
    #[must_use]
    pub fn in_namespace(mut self, namespace: &str) -> Self {
        self.namespace = namespace.into();
        self
    }

    /// The same with one more index; see [`Store::by`].
    #[must_use]
    pub fn with_index(mut self, name: &'static str, values_of: IndexFn) -> Self {
        self.store.add_index(name, values_of);
        self
    }

    /// The same with jitter from `rng`; without it, jitter depends on the resource alone and many clients that
    /// lose the server together come back together.
    #[must_use]
    pub fn with_rng(mut self, rng: Rng) -> Self {
        self.rng = rng;
        self
    }

    /// Adds an index; see [`Store::add_index`].
    pub fn add_index(&mut self, name: &'static str, values_of: IndexFn) {
        self.store.add_index(name, values_of);
    }

    /// The resource.
    #[must_use]
    pub const fn gvr(&self) -> &Gvr {
        &self.gvr
    }

    /// What was observed.
    #[must_use]
    pub const fn store(&self) -> &Store {
        &self.store
    }

    /// The object of that name; see [`Store::get`].
    #[must_use]
    pub fn get(&self, namespace: &str, name: &str) -> Option<&Arc<Object>> {
        self.store.get(namespace, name)
    }

    /// The objects of a namespace; see [`Store::list`].
    pub fn list(&self, namespace: &str) -> impl Iterator<Item = &Arc<Object>> {
        self.store.list(namespace)
    }

    /// Whether a list was complete once; the store is empty before.
    #[must_use]
    pub const fn synced(&self) -> bool {
        self.synced
    }

    /// Whether the server last said that it does not know the resource.
    #[must_use]
    pub const fn missing(&self) -> bool {
        self.missing
    }

    /// The resourceVersion up to which the observed state is complete; empty before the first list.
    #[must_use]
    pub fn resource_version(&self) -> &str {
        &self.resource_version
    }

    /// The number of the block that this informer's request ids are of (0 before the start); see
    /// [`block_of`](super::block_of).
    #[must_use]
    pub const fn block(&self) -> u64 {
        self.ids.number()
    }

    /// Whether `event` answers this informer.
    #[must_use]
    pub fn expects(&self, event: &ClientEvent) -> bool {
        let (ClientEvent::Reply { id, .. }
        | ClientEvent::Watch { id, .. }
        | ClientEvent::WatchClosed { id, .. }) = event;
        !matches!(self.state, State::Idle) && self.ids.owns(*id)
    }

    /// Begins to follow. The informer takes a block of `ids` of its own.
    pub fn start<E: From<ClientEffect>>(&mut self, _now: Time, ids: &mut RequestIds, out: &mut Vec<E>) {
        self.ids = ids.block();
        self.begin_list(None, BTreeMap::new(), out);
    }

    /// Takes an event and returns what changed; an event that is not for this informer changes nothing.
    pub fn on<E: From<ClientEffect>>(
        &mut self,
        now: Time,
        event: &ClientEvent,
        out: &mut Vec<E>,
    ) -> Vec<Delta> {
        match (event, &mut self.state) {
            (ClientEvent::Reply { id, result }, State::Listing { id: mine, seen }) if id == mine => {
                let seen = core::mem::take(seen);
                self.on_page(now, result, seen, out)
            }
            (ClientEvent::Watch { id, event }, State::Watching { id: mine, .. }) if id == mine => {
                self.backoff.reset();
                self.on_watch(event)
            }
            (ClientEvent::WatchClosed { id, error }, State::Watching { id: mine, since, .. })
                if id == mine =>
            {
                let lived = now.since(*since);
                match error {
                    Some(e) if is_expired(e) => self.wait(now, true),
                    None if lived >= WATCH_SHORT => self.begin_watch(now, out),
                    _ => self.wait(now, false),
                }
                Vec::new()
            }
            _ => Vec::new(),
        }
    }

    /// Tries again what failed, once [`Informer::deadline`] has passed.
    pub fn wake<E: From<ClientEffect>>(&mut self, now: Time, out: &mut Vec<E>) {
        match self.state {
            State::Waiting { due, relist } if due <= now => {
                if relist {
                    self.begin_list(None, BTreeMap::new(), out);
                } else {
                    self.begin_watch(now, out);
                }
            }
            State::Watching { id, give_up, .. } if give_up <= now => {
                out.push(ClientEffect::CloseWatch { id }.into());
                self.begin_watch(now, out);
            }
            _ => {}
        }
    }

    /// When [`Informer::wake`] should be called.
    #[must_use]
    pub const fn deadline(&self) -> Option<Time> {
        match self.state {
            State::Waiting { due, .. } => Some(due),
            State::Watching { give_up, .. } => Some(give_up),
            State::Idle | State::Listing { .. } => None,
        }
    }

    /// Stops following; the store keeps what was observed.
    pub fn stop<E: From<ClientEffect>>(&mut self, out: &mut Vec<E>) {
        if let State::Watching { id, .. } = self.state {
            out.push(ClientEffect::CloseWatch { id }.into());
        }
        self.state = State::Idle;
    }

    fn begin_list<E: From<ClientEffect>>(
        &mut self,
        continue_token: Option<String>,
        seen: BTreeMap<ObjectKey, Arc<Object>>,
        out: &mut Vec<E>,
    ) {
        let id = self.ids.next_id();
        let op = Operation::List(ListOptions {
            label_selector: self.options.label_selector.clone(),
            field_selector: self.options.field_selector.clone(),
            limit: PAGE_ITEMS,
            continue_token,
            ..ListOptions::default()
        });
        let request = ApiRequest::collection(&self.gvr, &self.namespace, op);
        self.state = State::Listing { id, seen };
        out.push(ClientEffect::Request { id, request }.into());
    }

    fn begin_watch<E: From<ClientEffect>>(&mut self, now: Time, out: &mut Vec<E>) {
        let id = self.ids.next_id();
        let timeout = WATCH_TIMEOUT + WATCH_TIMEOUT.mul_f64(self.rng.fraction());
        let op = Operation::Watch(ListOptions {
            label_selector: self.options.label_selector.clone(),
            field_selector: self.options.field_selector.clone(),
            resource_version: Some(self.resource_version.clone()),
            allow_bookmarks: true,
            timeout_seconds: u32::try_from(timeout.as_secs()).unwrap_or(u32::MAX),
            ..ListOptions::default()
        });
        let request = ApiRequest::collection(&self.gvr, &self.namespace, op);
        self.state = State::Watching { id, since: now, give_up: now + timeout + WATCH_GRACE };
        out.push(ClientEffect::Watch { id, request }.into());
    }

    fn wait(&mut self, now: Time, relist: bool) {
        let due = now + self.backoff.next_delay_jittered(1.0, &mut self.rng);
        self.state = State::Waiting { due, relist };
    }

    fn on_page<E: From<ClientEffect>>(
        &mut self,
        now: Time,
        result: &Result<Reply, ApiError>,
        mut seen: BTreeMap<ObjectKey, Arc<Object>>,
        out: &mut Vec<E>,
    ) -> Vec<Delta> {
        let Ok(Reply::List { items, resource_version, continue_token }) = result else {
            self.missing = matches!(result, Err(e) if e.is(reason::NOT_FOUND));
            self.wait(now, true);
            return Vec::new();
        };
        seen.extend(items.iter().map(|o| (ObjectKey::of(o), self.with_kind(o))));
        if let Some(token) = continue_token.as_ref().filter(|t| !t.is_empty()) {
            self.begin_list(Some(token.clone()), seen, out);
            return Vec::new();
        }
        let deltas = self.replace(seen);
        self.resource_version.clone_from(resource_version);
        self.synced = true;
        self.missing = false;
        self.begin_watch(now, out);
        deltas
    }

    /// The items of a list do not say their kind where the list does (upstream's typed lists).
    fn with_kind(&self, object: &Arc<Object>) -> Arc<Object> {
        let Gvr { group, version, resource } = &self.gvr;
        match table::find(group, version, resource) {
            Some(info) if object.kind.is_empty() => {
                let mut named = Object::clone(object);
                named.kind.clone_from(&info.kind);
                named.api_version = info.api_version();
                Arc::new(named)
            }
            _ => Arc::clone(object),
        }
    }

    /// Makes the store equal to `seen` and returns the differences, deletions first.
    fn replace(&mut self, seen: BTreeMap<ObjectKey, Arc<Object>>) -> Vec<Delta> {
        let gone: Vec<ObjectKey> =
            self.store.iter().map(|o| ObjectKey::of(o)).filter(|key| !seen.contains_key(key)).collect();
        let mut deltas: Vec<Delta> = gone
            .iter()
            .filter_map(|key| self.store.remove(&key.namespace, &key.name))
            .map(Delta::Deleted)
            .collect();
        for object in seen.into_values() {
            deltas.extend(self.put(&object));
        }
        deltas
    }

    fn on_watch(&mut self, event: &WatchEvent) -> Vec<Delta> {
        let object = &event.object;
        if !object.metadata.resource_version.is_empty() {
            self.resource_version.clone_from(&object.metadata.resource_version);
        }
        match event.kind {
            WatchKind::Added | WatchKind::Modified => self.put(object),
            WatchKind::Deleted => {
                let known = self.store.remove(&object.metadata.namespace, &object.metadata.name);
                known.map(|_| Delta::Deleted(Arc::clone(object))).into_iter().collect()
            }
            WatchKind::Bookmark => Vec::new(),
        }
    }

    fn put(&mut self, object: &Arc<Object>) -> Vec<Delta> {
        match self.store.insert(Arc::clone(object)) {
            None => vec![Delta::Added(Arc::clone(object))],
            // The object of that name was deleted and created anew unseen.
            Some(old) if old.metadata.uid != object.metadata.uid => {
                vec![Delta::Deleted(old), Delta::Added(Arc::clone(object))]
            }
            Some(old)
                if old.metadata.resource_version == object.metadata.resource_version
                    && !old.metadata.resource_version.is_empty() =>
            {
                Vec::new()
            }
            Some(old) => vec![Delta::Updated { old, new: Arc::clone(object) }],
        }
    }
}

fn is_expired(error: &ApiError) -> bool {
    error.is(reason::EXPIRED)
        || error.is(reason::GONE)
        || matches!(error, ApiError::Status(s) if s.code == 410)
}

#[cfg(test)]
mod tests;
