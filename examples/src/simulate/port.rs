//! The way from a component to an API server: the shell that a tokio task is in production.

use std::collections::BTreeMap;
use std::sync::Arc;

use icp_core::api::resources;
use icp_core::base::{Duration, Rng, Time, TimingWheel};
use icp_core::client::{
    ApiError, ApiRequest, ClientEffect, ClientEvent, Operation, Reply, RequestId, WatchEvent, WatchKind,
};
use icp_core::server::client::wire;
use icp_core::sim::{HostId, Output, StreamId};

use super::message::{Component, Payload, Seen, Stamp};
use super::mutant::Mutant;

/// Names streams in the order in which they are opened.
#[derive(Debug)]
pub struct Streams {
    host: HostId,
    life: u32,
    next: u64,
}

impl Streams {
    /// No stream was opened in this life of the host.
    #[must_use]
    pub const fn new(host: HostId, life: u32) -> Self {
        Self { host, life, next: 0 }
    }

    /// A new stream.
    pub const fn open(&mut self) -> StreamId {
        self.next += 1;
        StreamId::new(self.host, self.life, self.next)
    }
}

#[expect(clippy::large_enum_variant, reason = "most exchanges are requests, and each is kept once")]
enum Exchange {
    Request { id: RequestId, request: ApiRequest },
    Watch { id: RequestId, name: u64, rest: Vec<u8> },
}

/// One component's connections to API servers.
pub struct Port {
    component: Component,
    host: HostId,
    timeout: Duration,
    mutant: Option<Mutant>,
    rng: Rng,
    open: BTreeMap<StreamId, Exchange>,
    watches: BTreeMap<RequestId, StreamId>,
    timers: TimingWheel<StreamId>,
    /// Events for the component that arose here.
    events: Vec<ClientEvent>,
    next_watch: u64,
    /// Held by [`Mutant::LateWrites`].
    held: BTreeMap<(Time, u64), (ClientEffect, Stamp)>,
    /// Sent when the way is known; so many at most, so old at most.
    waiting: Vec<(Time, ClientEffect, Stamp)>,
}

const WAITING_MAX: usize = 4_096;

impl Port {
    /// A port without connections. A request without an answer for `timeout` counts as failed.
    #[must_use]
    pub fn new(
        component: Component,
        host: HostId,
        life: u32,
        timeout: Duration,
        mutant: Option<Mutant>,
        rng: Rng,
    ) -> Self {
        Self {
            component,
            host,
            timeout,
            mutant,
            rng,
            open: BTreeMap::new(),
            watches: BTreeMap::new(),
            timers: TimingWheel::new(),
            events: Vec::new(),
            next_watch: (u64::from(host.0) << 48)
                | (u64::from(life & 0xffff) << 32)
                | ((component as u64) << 28),
            held: BTreeMap::new(),
            waiting: Vec::new(),
        }
    }

    /// Performs what the component wants of the API server `to`; without one, it waits until the way is known.
    pub fn perform(
        &mut self,
        now: Time,
        to: Option<HostId>,
        term: Option<u64>,
        effect: ClientEffect,
        cx: &mut Cx<'_>,
    ) {
        let stamp = Stamp {
            component: self.component,
            host: self.host.0,
            term: term.map_or(0, |t| u32::try_from(t).unwrap_or(u32::MAX - 1) + 1),
        };
        if self.suppressed(&effect) {
            return;
        }
        let late = self.mutant == Some(Mutant::LateWrites) && self.component == Component::Manager;
        if late && stamp.term > 0 && is_creation(&effect) {
            self.next_watch += 1;
            self.held.insert((now + Duration::from_secs(30), self.next_watch), (effect, stamp));
            return;
        }
        match to {
            Some(to) => self.send(now, to, stamp, effect, cx),
            None if self.waiting.len() < WAITING_MAX => self.waiting.push((now, effect, stamp)),
            None => self.refuse(effect, "no way to the API server is known"),
        }
    }

    fn suppressed(&self, effect: &ClientEffect) -> bool {
        let ClientEffect::Request { request, .. } = effect else { return false };
        match self.mutant {
            Some(Mutant::NoBinding) => {
                self.component == Component::Scheduler && request.subresource == Some("binding")
            }
            Some(Mutant::NoCollection) => {
                self.component == Component::Manager
                    && matches!(request.op, Operation::Delete(_))
                    && (request.gvr == resources::REPLICA_SETS || request.gvr == resources::PODS)
            }
            _ => false,
        }
    }

    fn refuse(&mut self, effect: ClientEffect, why: &str) {
        let error = ApiError::Unreachable(why.into());
        match effect {
            ClientEffect::Request { id, .. } => {
                self.events.push(ClientEvent::Reply { id, result: Err(error) })
            }
            ClientEffect::Watch { id, .. } => {
                self.events.push(ClientEvent::WatchClosed { id, error: Some(error) });
            }
            _ => {}
        }
    }

    fn send(&mut self, now: Time, to: HostId, stamp: Stamp, effect: ClientEffect, cx: &mut Cx<'_>) {
        let (id, request, watch) = match effect {
            ClientEffect::Request { id, request } => (id, request, false),
            ClientEffect::Watch { id, request } => (id, request, true),
            ClientEffect::CloseWatch { id } => {
                if let Some(stream) = self.watches.remove(&id) {
                    self.forget(stream, cx);
                    cx.out.push(Output::Close { stream });
                }
                return;
            }
            _ => return,
        };
        let http = match wire::encode(&request) {
            Ok(http) => http,
            Err(e) => {
                self.events.push(match watch {
                    true => ClientEvent::WatchClosed { id, error: Some(e) },
                    false => ClientEvent::Reply { id, result: Err(e) },
                });
                return;
            }
        };
        let stream = cx.streams.open();
        if watch {
            self.next_watch += 1;
            let name = self.next_watch;
            self.watches.insert(id, stream);
            cx.seen.push(Seen::WatchOpened { watch: name, request: Box::new(request) });
            self.open.insert(stream, Exchange::Watch { id, name, rest: Vec::new() });
        } else {
            self.open.insert(stream, Exchange::Request { id, request });
        }
        // A watch says nothing for long: only the beginning of its answer is waited for, by the world's own means.
        if !watch {
            self.timers.set(stream, now + self.timeout);
        }
        cx.out.push(Output::Stream { stream, to, payload: Payload::Request { http, stamp }, end: false });
    }

    /// The way is known now.
    pub fn connected(&mut self, now: Time, to: HostId, cx: &mut Cx<'_>) {
        for (_, effect, stamp) in std::mem::take(&mut self.waiting) {
            self.send(now, to, stamp, effect, cx);
        }
    }

    /// Whether something waits for the way to be known.
    #[must_use]
    pub fn is_waiting(&self) -> bool {
        !self.waiting.is_empty()
    }

    /// Takes a message of one of this port's streams; says whether it is one.
    pub fn on_stream(&mut self, stream: StreamId, payload: &Payload, end: bool, cx: &mut Cx<'_>) -> bool {
        let Some(exchange) = self.open.get_mut(&stream) else { return false };
        match (exchange, payload) {
            (Exchange::Watch { id, name, rest }, Payload::Chunk(bytes)) => {
                let (id, name) = (*id, *name);
                rest.extend_from_slice(bytes);
                let mut lines = Vec::new();
                let whole = rest.iter().rposition(|b| *b == b'\n').map_or(0, |at| at + 1);
                for line in rest.drain(..whole).as_slice().split(|b| *b == b'\n').filter(|l| !l.is_empty()) {
                    lines.push(wire::decode_event(line));
                }
                for line in lines {
                    match line {
                        Ok(Some(event)) => self.watched(id, name, event, cx),
                        Ok(None) => {}
                        Err(error) => {
                            self.forget(stream, cx);
                            cx.out.push(Output::Close { stream });
                            self.events.push(ClientEvent::WatchClosed { id, error: Some(error) });
                            return true;
                        }
                    }
                }
                if end {
                    self.forget(stream, cx);
                    self.events.push(ClientEvent::WatchClosed { id, error: None });
                }
            }
            (Exchange::Watch { id, .. }, Payload::Response { status, body }) => {
                let error = wire::decode_failure(*status, body);
                let id = *id;
                self.forget(stream, cx);
                self.events.push(ClientEvent::WatchClosed { id, error: Some(error) });
            }
            (Exchange::Request { id, request }, Payload::Response { status, body }) => {
                let result = wire::decode(request, *status, body);
                let seen = Box::new(result.clone());
                cx.seen.push(Seen::Answered { request: Box::new(request.clone()), result: seen });
                self.events.push(ClientEvent::Reply { id: *id, result });
                self.forget(stream, cx);
            }
            (_, Payload::Refused) => {
                self.forget_with(stream, "connection refused", cx);
            }
            _ => {}
        }
        true
    }

    fn watched(&mut self, id: RequestId, name: u64, event: WatchEvent, cx: &mut Cx<'_>) {
        let mut event = event;
        let bookmark = event.kind == WatchKind::Bookmark;
        match self.mutant {
            Some(Mutant::DropEvent) if !bookmark && self.rng.below(50) == 0 => return,
            Some(Mutant::RepeatEvent) if !bookmark && self.rng.below(50) == 0 => {
                cx.seen.push(Seen::Watched { watch: name, event: event.clone() });
                self.events.push(ClientEvent::Watch { id, event: event.clone() });
            }
            Some(Mutant::BookmarkAhead) if bookmark => {
                let object = Arc::make_mut(&mut event.object);
                let version: i64 = object.metadata.resource_version.parse().unwrap_or(0);
                object.metadata.resource_version = (version + 1_000).to_string();
            }
            Some(Mutant::Zombie)
                if self.component == Component::Node
                    && event.object.kind == "Pod"
                    && (event.kind == WatchKind::Deleted || event.object.is_terminating()) =>
            {
                return;
            }
            Some(Mutant::Overcommit)
                if self.component == Component::Scheduler && event.object.kind == "Node" =>
            {
                distort(&mut event.object);
            }
            _ => {}
        }
        if self.mutant != Some(Mutant::Zombie) {
            cx.seen.push(Seen::Watched { watch: name, event: event.clone() });
        }
        self.events.push(ClientEvent::Watch { id, event });
    }

    fn forget(&mut self, stream: StreamId, cx: &mut Cx<'_>) {
        self.timers.cancel(&stream);
        if let Some(Exchange::Watch { id, name, .. }) = self.open.remove(&stream) {
            self.watches.remove(&id);
            cx.seen.push(Seen::WatchOver { watch: name });
        }
    }

    fn forget_with(&mut self, stream: StreamId, why: &str, cx: &mut Cx<'_>) {
        let event = match self.open.get(&stream) {
            Some(Exchange::Request { id, .. }) => {
                ClientEvent::Reply { id: *id, result: Err(ApiError::Unreachable(why.into())) }
            }
            Some(Exchange::Watch { id, .. }) => {
                ClientEvent::WatchClosed { id: *id, error: Some(ApiError::Unreachable(why.into())) }
            }
            None => return,
        };
        self.events.push(event);
        self.forget(stream, cx);
    }

    /// A stream is no more; says whether it was one of this port's.
    pub fn on_closed(&mut self, stream: StreamId, cx: &mut Cx<'_>) -> bool {
        let mine = self.open.contains_key(&stream);
        if mine {
            self.forget_with(stream, "the connection broke", cx);
        }
        mine
    }

    /// Gives up what was not answered in time. Says whether there was something.
    pub fn wake(&mut self, now: Time, to: Option<HostId>, cx: &mut Cx<'_>) -> bool {
        let mut late = false;
        while let Some(stream) = self.timers.pop(now) {
            self.forget_with(stream, "no answer in time", cx);
            cx.out.push(Output::Close { stream });
            late = true;
        }
        while let Some(first) = self.held.first_entry().filter(|e| e.key().0 <= now) {
            let (effect, stamp) = first.remove();
            if let Some(to) = to {
                self.send(now, to, stamp, effect, cx);
            }
        }
        let timeout = self.timeout;
        let (old, young) = std::mem::take(&mut self.waiting).into_iter().partition(|w| w.0 + timeout <= now);
        self.waiting = young;
        let old: Vec<(Time, ClientEffect, Stamp)> = old;
        for (_, effect, _) in old {
            self.refuse(effect, "no way to the API server is known");
        }
        late
    }

    /// When [`Port::wake`] should be called.
    #[must_use]
    pub fn deadline(&self) -> Option<Time> {
        let waiting = self.waiting.first().map(|w| w.0 + self.timeout);
        let held = self.held.first_key_value().map(|(k, _)| k.0);
        [waiting, held, self.timers.deadline()].into_iter().flatten().min()
    }

    /// Takes what the component is to be told.
    pub fn take_events(&mut self) -> Vec<ClientEvent> {
        let mut events = std::mem::take(&mut self.events);
        if self.mutant == Some(Mutant::Overcommit) && self.component == Component::Scheduler {
            events.iter_mut().for_each(distort_listed);
        }
        events
    }
}

fn is_creation(effect: &ClientEffect) -> bool {
    matches!(effect, ClientEffect::Request { request, .. }
        if matches!(request.op, Operation::Create(_)) && request.gvr != resources::LEASES)
}

/// [`Mutant::Overcommit`]: one node is far larger than it is, all others are full.
fn distort(node: &mut Arc<icp_core::api::Object>) {
    let node = Arc::make_mut(node);
    let cpu = if node.metadata.name == "n0" { "4000" } else { "0" };
    if let Some(allocatable) = node
        .rest
        .get_mut("status")
        .and_then(|s| s.get_mut("allocatable"))
        .and_then(serde_json::Value::as_object_mut)
    {
        allocatable.insert("cpu".into(), cpu.into());
        allocatable.insert("memory".into(), "8000Gi".into());
        allocatable.insert("pods".into(), "11000".into());
    }
}

fn distort_listed(event: &mut ClientEvent) {
    if let ClientEvent::Reply { result: Ok(Reply::List { items, .. }), .. } = event {
        items.iter_mut().filter(|o| o.kind == "Node").for_each(distort);
    }
}

/// What a shell writes to.
pub struct Cx<'a> {
    /// What is to be sent.
    pub out: &'a mut Vec<Output<Payload>>,
    /// For the checkers.
    pub seen: &'a mut Vec<Seen>,
    /// The host's streams.
    pub streams: &'a mut Streams,
}
