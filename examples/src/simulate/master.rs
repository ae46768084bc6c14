//! A master: API server, controller manager, scheduler and its part in the shared address.

use std::collections::{BTreeMap, BTreeSet};
use std::net::Ipv4Addr;
use std::sync::{Arc, Mutex, PoisonError};

use bytes::Bytes;
use futures_util::StreamExt as _;
use http_body_util::{BodyExt as _, Full};
use icp_core::base::{Duration, Machine, Rng, Time};
use icp_core::client::LeaderElectorConfig;
use icp_core::controllers::{Effect as ManagerEffect, Event as ManagerEvent, Manager, ManagerConfig};
use icp_core::server::{ApiServer, Options};
use icp_core::sim::{Executor, HostId, Output, RemoteStorage, SimClock, StoreOrder, StreamId, TaskId};
use icp_net::vip::{DeadTime, VipConfig, VipEffect, VipEvent, VipMachine, VipState};

use super::message::{Component, Payload, Seen, Stamp};
use super::mutant::Mutant;
use super::port::{Cx, Port, Streams};
use super::scheduling::{Observer, Scheduler, SchedulerEffect, SchedulerEvent, broken, scheduler};

/// The shared address of the masters.
pub const VIP: Ipv4Addr = Ipv4Addr::new(10, 0, 0, 100);
/// Between looks at the API server's health.
const HEALTH_EVERY: Duration = Duration::from_secs(1);
/// A call to the store without an answer for so long counts as failed.
const STORE_TIMEOUT: Duration = Duration::from_secs(3);
/// A request of a leader without an answer for so long counts as failed: less than the margin between two leaders.
const LEADER_TIMEOUT: Duration = Duration::from_secs(4);

/// What a master is told at its start.
#[derive(Clone, Debug)]
pub struct MasterConfig {
    /// This host.
    pub host: HostId,
    /// Its life.
    pub life: u32,
    /// Which master, from 0.
    pub index: u8,
    /// The store's host.
    pub store: HostId,
    /// All masters.
    pub masters: Vec<HostId>,
    /// All hosts that use the shared address.
    pub clients: Vec<HostId>,
    /// How long silent nodes are borne.
    pub node_grace: Duration,
    /// What is broken on purpose.
    pub mutant: Option<Mutant>,
}

enum Served {
    Response(u16, Bytes),
    Chunk(Bytes),
    End,
}

type Outbox = Arc<Mutex<Vec<(StreamId, Served)>>>;

/// What a served stream is.
struct Client {
    task: TaskId,
    from: HostId,
    by_vip: bool,
}

/// The host of a master.
pub struct MasterHost {
    config: MasterConfig,
    streams: Streams,
    server: ApiServer,
    clock: SimClock,
    remote: RemoteStorage,
    executor: Executor,
    stamps: BTreeMap<TaskId, Stamp>,
    outbox: Outbox,
    clients: BTreeMap<StreamId, Client>,
    store_stream: Option<StreamId>,
    store_due: BTreeMap<u64, Time>,
    manager: Manager,
    manager_port: Port,
    scheduler: Scheduler,
    scheduler_port: Port,
    observer: Observer,
    /// When the components want to be woken: kept, because most events of a master are not theirs.
    manager_due: Option<Time>,
    scheduler_due: Option<Time>,
    vip: VipMachine,
    owns: bool,
    health_at: Time,
    health_asked: Option<Time>,
    health: Arc<Mutex<Option<bool>>>,
    busy_at: Time,
    /// For the checkers.
    pub seen: Vec<Seen>,
}

impl MasterHost {
    /// A master that starts at its first [`MasterHost::wake`].
    #[must_use]
    pub fn new(config: MasterConfig, now: Time, rng: &Rng) -> Self {
        let clock = SimClock::default();
        clock.set(now);
        let remote = RemoteStorage::default();
        let server = ApiServer::builder(Arc::new(remote.clone()))
            .clock(clock.clone())
            .rng(rng.child("apiserver"))
            .options(Options::default())
            .build();
        let identity = format!("m{}_{}", config.index, config.life);
        let elect = |name: &str| LeaderElectorConfig::new("kube-system", name, &identity);
        let manager_config = ManagerConfig {
            instance: format!("m{}", config.index),
            leader_election: Some(elect("kube-controller-manager")),
            node_lifecycle: icp_core::controllers::node::NodeLifecycleConfig {
                grace: config.node_grace,
                ..Default::default()
            },
            ..ManagerConfig::default()
        };
        let port = |component| {
            let rng = rng.child("port");
            Port::new(component, config.host, config.life, LEADER_TIMEOUT, config.mutant, rng)
        };
        Self {
            streams: Streams::new(config.host, config.life),
            server,
            clock,
            remote,
            executor: Executor::default(),
            stamps: BTreeMap::new(),
            outbox: Outbox::default(),
            clients: BTreeMap::new(),
            store_stream: None,
            store_due: BTreeMap::new(),
            manager: Manager::new(manager_config, rng.child("manager")),
            manager_port: port(Component::Manager),
            scheduler: scheduler(elect("kube-scheduler"), rng.child("scheduler")),
            scheduler_port: port(Component::Scheduler),
            observer: Observer::default(),
            manager_due: None,
            scheduler_due: None,
            vip: VipMachine::new(vip_config(config.index), rng.child("vip").next_u64()),
            owns: false,
            health_at: now,
            health_asked: None,
            health: Arc::default(),
            busy_at: now,
            seen: Vec::new(),
            config,
        }
    }

    /// The first things to do.
    pub fn begin(&mut self, now: Time, out: &mut Vec<Output<Payload>>) {
        self.vip(now, VipEvent::LinkUp, out);
        self.manage(now, Some(ManagerEvent::Start), out);
        self.schedule(now, Some(SchedulerEvent::Start), out);
        self.pump(now, out);
    }

    /// The controller manager.
    #[must_use]
    pub const fn manager(&self) -> &Manager {
        &self.manager
    }

    /// The scheduler.
    #[must_use]
    pub const fn scheduler(&self) -> &Scheduler {
        &self.scheduler
    }

    /// Whether the shared address is on this host.
    #[must_use]
    pub const fn owns(&self) -> bool {
        self.owns
    }

    /// What the address machine says.
    #[must_use]
    pub const fn vip_state(&self) -> VipState {
        self.vip.state()
    }

    /// Futures that have not ended.
    #[must_use]
    pub fn tasks(&self) -> usize {
        self.executor.len()
    }

    /// Takes a datagram.
    pub fn on_packet(&mut self, now: Time, from: HostId, payload: Payload, out: &mut Vec<Output<Payload>>) {
        match payload {
            Payload::Frame(frame) if frame.get(12..14) == Some(&[0x08, 0x00]) => {
                let packet = frame.get(14..).unwrap_or_default().to_vec();
                self.vip(now, VipEvent::Packet(packet), out);
            }
            Payload::WhoHas if self.owns => {
                let frame = icp_net::vip::gratuitous_arp(VIP, mac(self.config.index));
                out.push(Output::Packet { to: from, payload: Payload::Frame(frame) });
            }
            _ => {}
        }
        self.pump(now, out);
    }

    /// Takes a message of a stream.
    pub fn on_stream(
        &mut self,
        now: Time,
        stream: StreamId,
        from: HostId,
        payload: Payload,
        end: bool,
        out: &mut Vec<Output<Payload>>,
    ) {
        match payload {
            Payload::Request { http, stamp } => self.serve(stream, from, http, stamp, out),
            Payload::News(news) => {
                if let icp_core::sim::StoreNews::Answer { id, .. } = &news {
                    self.store_due.remove(id);
                }
                self.remote.tell(news);
            }
            payload => {
                let mut cx = Cx { out, seen: &mut self.seen, streams: &mut self.streams };
                let mine = self.manager_port.on_stream(stream, &payload, end, &mut cx)
                    || self.scheduler_port.on_stream(stream, &payload, end, &mut cx);
                debug_assert!(
                    mine || matches!(
                        payload,
                        Payload::Chunk(_) | Payload::Response { .. } | Payload::Refused
                    )
                );
            }
        }
        self.pump(now, out);
    }

    /// A stream is no more.
    pub fn on_closed(&mut self, now: Time, stream: StreamId, out: &mut Vec<Output<Payload>>) {
        if self.store_stream == Some(stream) {
            self.store_stream = None;
            self.store_due.clear();
            self.remote.fail("the connection to the store broke");
        }
        if let Some(client) = self.clients.remove(&stream) {
            // The client is gone: its request is dropped where it stands.
            self.executor.cancel(client.task);
            self.stamps.remove(&client.task);
        }
        let mut cx = Cx { out, seen: &mut self.seen, streams: &mut self.streams };
        self.manager_port.on_closed(stream, &mut cx);
        self.scheduler_port.on_closed(stream, &mut cx);
        self.pump(now, out);
    }

    fn serve(
        &mut self,
        stream: StreamId,
        from: HostId,
        request: http::Request<Bytes>,
        stamp: Stamp,
        out: &mut Vec<Output<Payload>>,
    ) {
        let by_vip = from != self.config.host;
        if by_vip && !self.owns {
            out.push(Output::Stream { stream, to: from, payload: Payload::Refused, end: true });
            return;
        }
        let mut request = request;
        if self.config.mutant == Some(Mutant::BlindWrite) && request.method() == http::Method::PUT {
            unconditional(&mut request);
        }
        let (server, outbox) = (self.server.clone(), self.outbox.clone());
        let watch = request.uri().query().is_some_and(|q| q.split('&').any(|p| p == "watch=true"));
        let task = self.executor.spawn(async move {
            let put = |served| outbox.lock().unwrap_or_else(PoisonError::into_inner).push((stream, served));
            let (parts, body) = server.handle(request.map(Full::new)).await.into_parts();
            let status = parts.status.as_u16();
            if !watch || status != 200 {
                let Ok(body) = body.collect().await;
                return put(Served::Response(status, body.to_bytes()));
            }
            match body.into_stream() {
                Some(mut chunks) => {
                    while let Some(chunk) = chunks.next().await {
                        put(Served::Chunk(chunk));
                    }
                    put(Served::End);
                }
                None => put(Served::Response(500, Bytes::new())),
            }
        });
        self.stamps.insert(task, stamp);
        self.clients.insert(stream, Client { task, from, by_vip });
    }

    /// Runs conversations, and sends what they and the components have to say, until nothing moves.
    fn pump(&mut self, now: Time, out: &mut Vec<Output<Payload>>) {
        loop {
            self.clock.set(now);
            let (stamps, remote) = (&self.stamps, &self.remote);
            self.executor.run(|task| remote.set_tag(stamps.get(&task).copied().unwrap_or_default().pack()));
            let served = std::mem::take(&mut *self.outbox.lock().unwrap_or_else(PoisonError::into_inner));
            for (stream, served) in served {
                let Some(client) = self.clients.get(&stream) else { continue };
                let to = client.from;
                let (payload, end) = match served {
                    Served::Response(status, body) => (Payload::Response { status, body }, true),
                    Served::Chunk(bytes) => (Payload::Chunk(bytes), false),
                    Served::End => (Payload::Chunk(Bytes::new()), true),
                };
                if end && let Some(client) = self.clients.remove(&stream) {
                    self.stamps.remove(&client.task);
                }
                out.push(Output::Stream { stream, to, payload, end });
            }
            self.order(now, out);
            let told = self.tell_components(now, out);
            let health = self.health.lock().unwrap_or_else(PoisonError::into_inner).take();
            if let Some(well) = health {
                self.health_asked = None;
                self.vip(now, VipEvent::Demote(if well { 0 } else { u8::MAX }), out);
            }
            if !told && health.is_none() {
                return;
            }
        }
    }

    /// Sends calls to the store.
    fn order(&mut self, now: Time, out: &mut Vec<Output<Payload>>) {
        for order in self.remote.take_orders() {
            let stream = match self.store_stream {
                Some(stream) => stream,
                // A watch of an earlier connection ended with it.
                None if matches!(order, StoreOrder::CancelWatch(_)) => continue,
                None => *self.store_stream.insert(self.streams.open()),
            };
            if let StoreOrder::Call { id, .. } = &order {
                self.store_due.insert(*id, now + STORE_TIMEOUT);
            }
            out.push(Output::Stream {
                stream,
                to: self.config.store,
                payload: Payload::Order(order),
                end: false,
            });
        }
    }

    fn tell_components(&mut self, now: Time, out: &mut Vec<Output<Payload>>) -> bool {
        let (for_manager, for_scheduler) =
            (self.manager_port.take_events(), self.scheduler_port.take_events());
        let told = !for_manager.is_empty() || !for_scheduler.is_empty();
        for event in for_manager {
            self.manage(now, Some(ManagerEvent::Client(event)), out);
        }
        for event in for_scheduler {
            self.schedule(now, Some(SchedulerEvent::Client(event)), out);
        }
        told
    }

    fn manage(&mut self, now: Time, event: Option<ManagerEvent>, out: &mut Vec<Output<Payload>>) {
        let mut effects = Vec::new();
        match event {
            Some(event) => self.manager.on(now, event, &mut effects),
            None => self.manager.wake(now, &mut effects),
        }
        self.manager_due = self.manager.deadline();
        for effect in effects {
            match effect {
                ManagerEffect::Client(effect) => {
                    let term = self.manager.leading(now).map(|t| t.0);
                    let mut cx = Cx { out, seen: &mut self.seen, streams: &mut self.streams };
                    self.manager_port.perform(now, Some(self.config.host), term, effect, &mut cx);
                }
                ManagerEffect::Led(term) => out.push(Output::Note(match term {
                    Some(term) => format!("manager leads, term {}", term.0),
                    None => "manager does not lead".into(),
                })),
                _ => {}
            }
        }
    }

    fn schedule(&mut self, now: Time, event: Option<SchedulerEvent>, out: &mut Vec<Output<Payload>>) {
        let mut effects = Vec::new();
        match event {
            Some(SchedulerEvent::Client(event)) => {
                self.observer.told(&event);
                let Some(event) = broken(self.config.mutant, event) else { return };
                self.scheduler.on(now, event.into(), &mut effects);
            }
            Some(event) => self.scheduler.on(now, event, &mut effects),
            None => self.scheduler.wake(now, &mut effects),
        }
        self.observer.decided(self.scheduler.decisions(), &mut self.seen);
        self.scheduler_due = self.scheduler.deadline();
        for effect in effects {
            self.observer.asked(&effect);
            if let SchedulerEffect::Client(effect) = effect {
                let term = self.scheduler.leading(now).map(|t| t.0);
                let mut cx = Cx { out, seen: &mut self.seen, streams: &mut self.streams };
                self.scheduler_port.perform(now, Some(self.config.host), term, effect, &mut cx);
            }
        }
    }

    /// What is looked at now and then.
    pub fn look_at_scheduling(&mut self, now: Time) {
        if self.scheduler.leading(now).is_some() && self.scheduler.synced() {
            self.observer.look(now, &self.scheduler, &mut self.seen);
        }
    }

    fn vip(&mut self, now: Time, event: VipEvent, out: &mut Vec<Output<Payload>>) {
        let mut effects = Vec::new();
        self.vip.on(now, event, &mut effects);
        self.vip_effects(effects, out);
    }

    fn vip_effects(&mut self, effects: Vec<VipEffect>, out: &mut Vec<Output<Payload>>) {
        for effect in effects {
            match effect {
                VipEffect::Send(frame) => {
                    // Advertisements are for the other masters; a gratuitous ARP is for everybody.
                    let arp = frame.get(12..14) == Some(&[0x08, 0x06]);
                    let others = self.config.masters.iter().filter(|m| **m != self.config.host);
                    let clients = self.config.clients.iter().filter(|_| arp);
                    for to in others.chain(clients) {
                        out.push(Output::Packet { to: *to, payload: Payload::Frame(frame.clone()) });
                    }
                }
                VipEffect::Claim => {
                    self.owns = true;
                    out.push(Output::Note("claims the address".into()));
                }
                VipEffect::Release => {
                    out.push(Output::Note("releases the address".into()));
                    if self.config.mutant == Some(Mutant::TwoOwners) {
                        continue;
                    }
                    self.owns = false;
                    // Connections over the address are of no use without it.
                    let gone: BTreeSet<StreamId> =
                        self.clients.iter().filter(|(_, c)| c.by_vip).map(|(s, _)| *s).collect();
                    for stream in gone {
                        if let Some(client) = self.clients.remove(&stream) {
                            self.executor.cancel(client.task);
                            self.stamps.remove(&client.task);
                        }
                        out.push(Output::Close { stream });
                    }
                }
                _ => {}
            }
        }
    }

    /// Asks the API server of this host how it is.
    fn look_at_health(&mut self, now: Time, out: &mut Vec<Output<Payload>>) {
        self.health_at = now + HEALTH_EVERY;
        if let Some(asked) = self.health_asked {
            if asked + STORE_TIMEOUT <= now {
                self.vip(now, VipEvent::Demote(u8::MAX), out);
            }
            return;
        }
        self.health_asked = Some(now);
        let (server, health) = (self.server.clone(), self.health.clone());
        self.executor.spawn(async move {
            let request = http::Request::get("/readyz").body(Full::new(Bytes::new()));
            let well = match request {
                Ok(request) => server.handle(request).await.status().is_success(),
                Err(_) => false,
            };
            *health.lock().unwrap_or_else(PoisonError::into_inner) = Some(well);
        });
    }

    /// Does what is due.
    pub fn wake(&mut self, now: Time, out: &mut Vec<Output<Payload>>) {
        self.clock.set(now);
        if self.health_at <= now {
            self.look_at_health(now, out);
        }
        let late: Vec<u64> =
            self.store_due.iter().filter(|(_, due)| **due <= now).map(|(id, _)| *id).collect();
        for id in late {
            self.store_due.remove(&id);
            self.remote.fail_call(id, "no answer in time");
        }
        if self.vip.deadline().is_some_and(|due| due <= now) {
            let mut effects = Vec::new();
            self.vip.wake(now, &mut effects);
            self.vip_effects(effects, out);
        }
        if self.manager_due.is_some_and(|due| due <= now) {
            self.manage(now, None, out);
        }
        if self.scheduler_due.is_some_and(|due| due <= now) {
            self.schedule(now, None, out);
        }
        let to = Some(self.config.host);
        let mut cx = Cx { out, seen: &mut self.seen, streams: &mut self.streams };
        self.manager_port.wake(now, to, &mut cx);
        self.scheduler_port.wake(now, to, &mut cx);
        if self.config.mutant == Some(Mutant::Busy) && self.busy_at <= now {
            self.busy_at = now + Duration::from_secs(1);
            self.be_busy(now, out);
        }
        self.pump(now, out);
    }

    /// [`Mutant::Busy`].
    fn be_busy(&mut self, now: Time, out: &mut Vec<Output<Payload>>) {
        use icp_core::api::resources::DEPLOYMENTS;
        use icp_core::client::{ApiRequest, ClientEffect, ObjectKey, Operation, PatchKind};
        let Some(first) = self.manager.cache().store(&DEPLOYMENTS).iter().next().map(|d| ObjectKey::of(d))
        else {
            return;
        };
        let op = Operation::Patch {
            kind: PatchKind::Merge,
            body: serde_json::json!({"metadata": {"annotations": {"busy": now.as_micros().to_string()}}}),
            field_manager: None,
            force: false,
        };
        let request = ApiRequest::object(&DEPLOYMENTS, &first.namespace, &first.name, op);
        let effect = ClientEffect::Request { id: u64::MAX, request };
        let mut cx = Cx { out, seen: &mut self.seen, streams: &mut self.streams };
        self.manager_port.perform(now, Some(self.config.host), None, effect, &mut cx);
    }

    /// When [`MasterHost::wake`] should be called.
    #[must_use]
    pub fn deadline(&self) -> Option<Time> {
        [
            Some(self.health_at),
            self.store_due.values().min().copied(),
            self.vip.deadline(),
            self.manager_due,
            self.scheduler_due,
            self.manager_port.deadline(),
            self.scheduler_port.deadline(),
            self.clock.deadline(),
        ]
        .into_iter()
        .flatten()
        .min()
    }
}

/// [`Mutant::BlindWrite`].
fn unconditional(request: &mut http::Request<Bytes>) {
    if request.uri().path().contains("/deployments/")
        && let Ok(mut body) = serde_json::from_slice::<serde_json::Value>(request.body())
        && let Some(meta) = body.get_mut("metadata").and_then(serde_json::Value::as_object_mut)
    {
        meta.remove("resourceVersion");
        *request.body_mut() = serde_json::to_vec(&body).unwrap_or_default().into();
    }
}

/// The hardware address of a master.
#[must_use]
pub const fn mac(index: u8) -> [u8; 6] {
    [2, 0, 0, 0, 1, index]
}

/// Which master has a hardware address.
#[must_use]
pub fn master_of(frame: &[u8]) -> Option<u8> {
    match frame.get(6..12) {
        Some([2, 0, 0, 0, 1, index]) => Some(*index),
        _ => None,
    }
}

fn vip_config(index: u8) -> VipConfig {
    let source = Ipv4Addr::new(10, 0, 0, 1 + index);
    // The arguments are constants that the constructor takes.
    let Ok(mut config) = VipConfig::new(7, "simulated", VIP, source, mac(index)) else {
        unreachable!("the virtual host id and the password are valid")
    };
    config.advskew = index.saturating_mul(50);
    config.preempt = false;
    config.dead_time = DeadTime::Scaled;
    config
}
