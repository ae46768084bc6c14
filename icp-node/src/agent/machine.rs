//! The machine of one node.

use alloc::collections::{BTreeMap, BTreeSet, VecDeque};
use alloc::format;
use alloc::string::{String, ToString};
use alloc::sync::Arc;
use alloc::vec::Vec;
use core::net::IpAddr;

use base64::Engine;
use icp_core::api::{Object, reason, resources};
use icp_core::base::{Backoff, Duration, Machine, Rng, Time};
use icp_core::client::{
    ApiError, ApiRequest, ClientEffect, ClientEvent, Delta, EventNote, EventRecorder, EventType, Informer,
    ListOptions, Reply, RequestId, RequestIds, block_of,
};
use serde_json::Value;

use super::admission::admit;
use super::entry::{Entry, Written, agent_call, hash_of, is_agent_call};
use super::node::{
    NodeConditions, new_lease, node_status, register, relabel, renew, usual_conditions, write_status,
};
use super::sources::{RefKey, References, View, token_reply, token_request, tokens_of};
use super::{KubeletConfig, KubeletEffect, KubeletEvent, NodeCondition};
use crate::pod::{Pod, PodEffect, PodEvent, PodMachine, PodNotice};
use crate::resolve::{NodeFacts, ResolveError, Source, Sources, container_spec, sandbox_spec};
use crate::runtime::{
    CallId, ContainerKey, Image, ImageInfo, Outcome, PodListing, PodUid, PullPolicy, RegistryAuth,
    RuntimeCall, RuntimeError, RuntimeEvent, RuntimeOp,
};
use crate::volume::{references, volume_content};

/// Between tries of what the agent itself asks of the API server or the runtime.
const RETRY: Duration = Duration::from_secs(1);
/// Between tries to update volumes of running pods.
const VOLUME_RETRY: Duration = Duration::from_secs(60);
/// Steps that one event may cause; a bound against a runtime that answers calls in a circle.
const STEPS_MAX: usize = 100_000;

#[derive(Debug)]
enum Asked {
    Register,
    Relabel,
    NodeStatus,
    Lease,
    NewLease,
    PodStatus(PodUid),
    PodDelete(PodUid),
    Token(PodUid, usize),
}

/// The machine of one node.
#[derive(Debug)]
pub struct Kubelet {
    config: KubeletConfig,
    facts: Arc<NodeFacts>,
    ids: RequestIds,
    asked: BTreeMap<RequestId, Asked>,
    pods_informer: Informer,
    /// The node's own object, to see when others write to its status or delete it.
    node_informer: Informer,
    services: Option<Informer>,
    references: References,
    recorder: EventRecorder,
    pods: BTreeMap<PodUid, Entry>,
    /// What the runtime knew at the start, until the pods are known.
    listed: Option<BTreeMap<PodUid, PodListing>>,
    adopted: bool,
    queue: VecDeque<(PodUid, PodEvent)>,
    dirty: BTreeSet<PodUid>,
    conditions: NodeConditions,
    images: Vec<ImageInfo>,
    node_uid: String,
    registered: bool,
    register_backoff: Backoff,
    status_asked: bool,
    lease_asked: bool,
    next_call: u64,
    relist_call: Option<CallId>,
    images_call: Option<CallId>,
    start_at: Option<Time>,
    relist_at: Option<Time>,
    register_at: Option<Time>,
    lease_at: Option<Time>,
    report_at: Option<Time>,
    reported_at: Time,
    due: Option<Time>,
}

impl Machine for Kubelet {
    type Event = KubeletEvent;
    type Effect = KubeletEffect;

    fn on(&mut self, now: Time, event: KubeletEvent, out: &mut Vec<KubeletEffect>) {
        self.start(now, out);
        match event {
            KubeletEvent::Client(event) => self.client(now, event, out),
            KubeletEvent::Runtime(event) => self.runtime(now, event, out),
            KubeletEvent::Condition(condition) => {
                if self.conditions.set(now, condition) {
                    self.report_at = Some(now);
                }
            }
            KubeletEvent::Evict { pod, reason, message, at_once } => {
                self.queue.push_back((pod, PodEvent::Evict { reason, message, at_once }));
            }
        }
        self.settle(now, out);
    }

    fn wake(&mut self, now: Time, out: &mut Vec<KubeletEffect>) {
        self.start(now, out);
        self.pods_informer.wake(now, out);
        self.node_informer.wake(now, out);
        if let Some(services) = &mut self.services {
            services.wake(now, out);
        }
        for followed in self.references.followed.values_mut() {
            followed.informer.wake(now, out);
        }
        let due: Vec<PodUid> = self
            .pods
            .iter()
            .filter(|(_, e)| e.machine.deadline().is_some_and(|at| at <= now))
            .map(|(uid, _)| uid.clone())
            .collect();
        for uid in due {
            let mut effects = Vec::new();
            if let Some(entry) = self.pods.get_mut(&uid) {
                entry.machine.wake(now, &mut effects);
            }
            self.perform(now, &uid, effects, out);
        }
        self.timers(now, out);
        self.settle(now, out);
    }

    fn deadline(&self) -> Option<Time> {
        self.due
    }
}

impl Kubelet {
    /// The agent of a node that has not started yet; it starts at its first deadline.
    #[must_use]
    pub fn new(config: KubeletConfig) -> Self {
        let mut facts = config.facts.clone();
        facts.allocatable = config.allocatable_millis();
        if facts.memory_bytes == 0 {
            let memory = facts.allocatable.get("memory").copied().unwrap_or(0);
            facts.memory_bytes = u64::try_from(memory / 1000).unwrap_or(0);
        }
        let name = facts.name.clone();
        let rng = Rng::new(config.seed);
        let own = ListOptions { field_selector: format!("metadata.name={name}"), ..ListOptions::default() };
        let of_node =
            ListOptions { field_selector: format!("spec.nodeName={name}"), ..ListOptions::default() };
        Self {
            facts: Arc::new(facts),
            ids: RequestIds::new(),
            asked: BTreeMap::new(),
            pods_informer: Informer::new(resources::PODS, of_node).with_rng(rng.child("pods")),
            node_informer: Informer::new(resources::NODES, own).with_rng(rng.child("node")),
            services: config.service_links.then(|| {
                Informer::new(resources::SERVICES, ListOptions::default()).with_rng(rng.child("services"))
            }),
            references: References::default(),
            recorder: EventRecorder::new("kubelet", &name, rng.child("events")),
            pods: BTreeMap::new(),
            listed: None,
            adopted: false,
            queue: VecDeque::new(),
            dirty: BTreeSet::new(),
            conditions: NodeConditions::default(),
            images: Vec::new(),
            node_uid: String::new(),
            registered: false,
            register_backoff: Backoff::new(RETRY, Duration::from_secs(7)),
            status_asked: false,
            lease_asked: false,
            next_call: 0,
            relist_call: None,
            images_call: None,
            start_at: Some(Time::ZERO),
            relist_at: None,
            register_at: None,
            lease_at: None,
            report_at: None,
            reported_at: Time::ZERO,
            due: Some(Time::ZERO),
            config,
        }
    }

    /// The configuration.
    #[must_use]
    pub const fn config(&self) -> &KubeletConfig {
        &self.config
    }

    /// The pods of the node, as their machines have them.
    pub fn pods(&self) -> impl Iterator<Item = &PodMachine> {
        self.pods.values().map(|e| &e.machine)
    }

    /// The pod of a name.
    #[must_use]
    pub fn pod(&self, namespace: &str, name: &str) -> Option<&PodMachine> {
        self.pods().find(|m| m.pod().namespace == namespace && m.pod().name == name)
    }

    /// The objects of the node's pods as they were last seen, for the agent's HTTP API.
    pub fn pod_objects(&self) -> impl Iterator<Item = &Arc<Object>> {
        self.pods_informer.store().iter()
    }

    /// Whether the node's object was written at least once.
    #[must_use]
    pub const fn is_registered(&self) -> bool {
        self.registered
    }

    // ---- start and timers -----------------------------------------------------------------------------------

    fn start(&mut self, now: Time, out: &mut Vec<KubeletEffect>) {
        if self.start_at.take().is_none() {
            return;
        }
        for condition in usual_conditions(&self.config) {
            self.conditions.set(now, condition);
        }
        self.pods_informer.start(now, &mut self.ids, out);
        self.node_informer.start(now, &mut self.ids, out);
        if let Some(services) = &mut self.services {
            services.start(now, &mut self.ids, out);
        }
        self.relist_at = Some(now);
        self.timers(now, out);
    }

    fn timers(&mut self, now: Time, out: &mut Vec<KubeletEffect>) {
        let is_due = |at: Option<Time>| at.is_some_and(|at| at <= now);
        if is_due(self.relist_at) {
            self.relist_at = None;
            self.relist_call = Some(self.node_call(RuntimeOp::Relist, out));
        }
        if is_due(self.register_at) {
            self.register_at = None;
            let status = node_status(&self.config, &self.conditions, &self.images, now);
            self.ask(Asked::Register, register(&self.config, status), out);
        }
        if is_due(self.lease_at) {
            self.lease_at = Some(now + self.config.heartbeat);
            if !self.lease_asked {
                self.lease_asked = true;
                self.ask(Asked::Lease, renew(&self.config, now), out);
            }
        }
        if is_due(self.report_at) && self.registered && !self.status_asked {
            self.report_at = Some(now + self.config.report_every);
            self.status_asked = true;
            self.reported_at = now;
            let status = node_status(&self.config, &self.conditions, &self.images, now);
            self.ask(Asked::NodeStatus, write_status(&self.config, status), out);
            if self.images_call.is_none() {
                self.images_call = Some(self.node_call(RuntimeOp::ListImages, out));
            }
        }
        let mut refresh: Vec<PodUid> = Vec::new();
        for (uid, entry) in &mut self.pods {
            if is_due(entry.report.retry_at) {
                entry.report.retry_at = None;
                self.dirty.insert(uid.clone());
            }
            if is_due(entry.delete_at) {
                entry.delete_at = None;
                self.dirty.insert(uid.clone());
            }
            let tokens_due =
                entry.prepared && entry.tokens.iter().any(|t| t.asked.is_none() && t.refresh_at <= now);
            if is_due(entry.volumes_retry_at) || (tokens_due && !entry.machine.is_over()) {
                entry.volumes_retry_at = None;
                refresh.push(uid.clone());
            }
        }
        for uid in refresh {
            self.ask_tokens(now, &uid, out);
            self.write_volumes(now, &uid, out);
        }
    }

    fn next_due(&self) -> Option<Time> {
        let mut due: Option<Time> = None;
        let mut at = |t: Option<Time>| {
            if let Some(t) = t {
                due = Some(due.map_or(t, |d| d.min(t)));
            }
        };
        at(self.start_at);
        at(self.relist_at);
        at(self.register_at);
        at(self.lease_at);
        if self.registered && !self.status_asked {
            at(self.report_at);
        }
        at(self.pods_informer.deadline());
        at(self.node_informer.deadline());
        at(self.services.as_ref().and_then(Informer::deadline));
        for followed in self.references.followed.values() {
            at(followed.informer.deadline());
        }
        for entry in self.pods.values() {
            at(entry.machine.deadline());
            at(entry.report.retry_at);
            at(entry.delete_at);
            at(entry.volumes_retry_at);
            if entry.prepared && !entry.machine.is_over() {
                for token in entry.tokens.iter().filter(|t| t.asked.is_none()) {
                    at(Some(token.refresh_at));
                }
            }
        }
        due
    }

    fn ask(&mut self, what: Asked, request: ApiRequest, out: &mut Vec<KubeletEffect>) -> RequestId {
        let id = self.ids.next_id();
        self.asked.insert(id, what);
        out.push(ClientEffect::Request { id, request }.into());
        id
    }

    fn agent_id(&mut self) -> CallId {
        self.next_call += 1;
        agent_call(self.next_call)
    }

    fn node_call(&mut self, op: RuntimeOp, out: &mut Vec<KubeletEffect>) -> CallId {
        let id = self.agent_id();
        out.push(RuntimeCall { id, pod: PodUid::from(""), generation: 0, op }.into());
        id
    }

    // ---- answers of the API server --------------------------------------------------------------------------

    fn client(&mut self, now: Time, event: ClientEvent, out: &mut Vec<KubeletEffect>) {
        if self.pods_informer.expects(&event) {
            for delta in self.pods_informer.on(now, &event, out) {
                self.pod_delta(now, delta, out);
            }
            self.adopt(now, out);
            return;
        }
        if self.node_informer.expects(&event) {
            for delta in self.node_informer.on(now, &event, out) {
                self.node_delta(now, &delta);
            }
            return;
        }
        if let Some(services) = &mut self.services
            && services.expects(&event)
        {
            services.on(now, &event, out);
            return;
        }
        let (ClientEvent::Reply { id, .. }
        | ClientEvent::Watch { id, .. }
        | ClientEvent::WatchClosed { id, .. }) = &event
        else {
            return;
        };
        let id = *id;
        if let Some(followed) = self.references.by_block(block_of(id)) {
            let before = followed.informer.synced();
            let deltas = followed.informer.on(now, &event, out);
            if !deltas.is_empty() || before != followed.informer.synced() {
                for uid in followed.users.clone() {
                    self.sources_changed(now, &uid, out);
                }
            }
            return;
        }
        if let ClientEvent::Reply { result, .. } = event
            && let Some(asked) = self.asked.remove(&id)
        {
            self.reply(now, asked, id, result, out);
        }
    }

    fn reply(
        &mut self,
        now: Time,
        asked: Asked,
        id: RequestId,
        result: Result<Reply, ApiError>,
        out: &mut Vec<KubeletEffect>,
    ) {
        match asked {
            Asked::Register => match result {
                Ok(reply) => self.is_on(now, &reply),
                Err(error) if error.is(reason::ALREADY_EXISTS) => {
                    self.ask(Asked::Relabel, relabel(&self.config), out);
                }
                Err(_) => self.register_at = Some(now + self.register_backoff.next_delay()),
            },
            Asked::Relabel => match result {
                Ok(reply) => {
                    self.is_on(now, &reply);
                    self.report_at = Some(now);
                }
                Err(_) => self.register_at = Some(now + self.register_backoff.next_delay()),
            },
            Asked::NodeStatus => {
                self.status_asked = false;
                match result {
                    Err(error) if error.is(reason::NOT_FOUND) => {
                        self.registered = false;
                        self.register_at = Some(now);
                    }
                    Err(_) => self.report_at = Some(now + self.config.heartbeat),
                    Ok(_) => {}
                }
            }
            Asked::Lease => {
                self.lease_asked = false;
                if result.is_err_and(|e| e.is(reason::NOT_FOUND)) {
                    self.lease_asked = true;
                    self.ask(Asked::NewLease, new_lease(&self.config, &self.node_uid, now), out);
                }
            }
            Asked::NewLease => self.lease_asked = false,
            Asked::PodStatus(uid) => {
                let Some(entry) = self.pods.get_mut(&uid).filter(|e| e.report.asked == Some(id)) else {
                    return;
                };
                entry.report.asked = None;
                match result {
                    Ok(reply) => {
                        entry.report.backoff.reset();
                        if let Reply::Object(object) = &reply {
                            entry.report.acknowledged = version_of(object);
                            if entry.report.acknowledged < entry.report.doubt {
                                entry.report.doubtful(now);
                            }
                        }
                    }
                    // The object is gone or another: the watch tells.
                    Err(error) if error.is(reason::NOT_FOUND) => {}
                    Err(error) => {
                        entry.report.sent = 0;
                        let refused = error.is(reason::INVALID) || error.is(reason::BAD_REQUEST);
                        let delay = entry.report.backoff.next_delay();
                        let delay = if refused { delay.max(Duration::from_secs(60)) } else { delay };
                        entry.report.retry_at = Some(now + delay);
                        entry.report.dirty = true;
                    }
                }
                self.dirty.insert(uid);
            }
            Asked::PodDelete(uid) => {
                let Some(entry) = self.pods.get_mut(&uid).filter(|e| e.deleting == Some(id)) else { return };
                let gone = match result {
                    Ok(_) => true,
                    Err(error) => error.is(reason::NOT_FOUND) || error.is(reason::CONFLICT),
                };
                if !gone {
                    entry.deleting = None;
                    entry.delete_at = Some(now + RETRY);
                }
            }
            Asked::Token(uid, i) => {
                let Some(token) = self.pods.get_mut(&uid).and_then(|e| e.tokens.get_mut(i)) else { return };
                token.asked = None;
                let parsed = match &result {
                    Ok(Reply::Object(object)) => {
                        token_reply(now, object).ok_or("the reply holds no token".into())
                    }
                    Ok(_) => Err("the reply holds no token".into()),
                    Err(error) => Err(error.to_string()),
                };
                match parsed {
                    Ok((text, refresh_at)) => {
                        token.text = Some(text);
                        token.refresh_at = refresh_at;
                        token.error = None;
                    }
                    Err(error) => {
                        token.refresh_at = now + Duration::from_secs(10);
                        token.error = Some(format!("failed to fetch token: {error}"));
                    }
                }
                self.sources_changed(now, &uid, out);
            }
        }
    }

    /// The node's object exists.
    fn is_on(&mut self, now: Time, reply: &Reply) {
        if let Reply::Object(object) = reply {
            self.node_uid.clone_from(&object.metadata.uid);
        }
        self.registered = true;
        self.register_backoff.reset();
        self.lease_at.get_or_insert(now);
        self.report_at.get_or_insert(now + self.config.report_every);
    }

    /// Reports anew when the node's object does not say what this agent says: after a silence the node lifecycle
    /// controller takes it for lost, and somebody may have deleted it (upstream looks every
    /// `nodeStatusUpdateFrequency`).
    fn node_delta(&mut self, now: Time, delta: &Delta) {
        if !self.registered {
            return;
        }
        match delta {
            Delta::Deleted(_) => {
                self.registered = false;
                self.register_at = Some(now);
            }
            Delta::Added(node) | Delta::Updated { new: node, .. } => {
                if !self.conditions.agrees(node) {
                    let due = now.max(self.reported_at + RETRY);
                    self.report_at = Some(self.report_at.map_or(due, |at| at.min(due)));
                }
            }
        }
    }

    fn pod_delta(&mut self, now: Time, delta: Delta, out: &mut Vec<KubeletEffect>) {
        match delta {
            Delta::Deleted(object) => {
                let uid = PodUid::from(object.metadata.uid.as_str());
                if let Some(entry) = self.pods.get_mut(&uid) {
                    entry.gone = true;
                    self.queue.push_back((uid, PodEvent::Gone));
                }
            }
            Delta::Added(object) | Delta::Updated { new: object, .. } => {
                if self.adopted {
                    self.pod_seen(now, &object, None, out);
                }
            }
        }
    }

    /// Takes over what runs, once both the runtime and the API server have told what there is.
    fn adopt(&mut self, now: Time, out: &mut Vec<KubeletEffect>) {
        if self.adopted || !self.pods_informer.synced() {
            return;
        }
        let Some(mut listed) = self.listed.take() else { return };
        self.adopted = true;
        let objects: Vec<Arc<Object>> = self.pods_informer.store().iter().cloned().collect();
        for object in objects {
            let listing = listed.remove(&PodUid::from(object.metadata.uid.as_str()));
            self.pod_seen(now, &object, listing, out);
        }
        for uid in listed.into_keys() {
            let id = self.agent_id();
            out.push(RuntimeCall { id, pod: uid, generation: 0, op: RuntimeOp::RemoveSandbox }.into());
        }
    }

    fn pod_seen(
        &mut self,
        now: Time,
        object: &Object,
        listing: Option<PodListing>,
        out: &mut Vec<KubeletEffect>,
    ) {
        let pod = match Pod::from_object(object) {
            Ok(pod) => Arc::new(pod),
            Err(error) => {
                let note = EventNote {
                    kind: EventType::Warning,
                    reason: "FailedDecode",
                    action: "FailedDecode",
                    note: error.to_string(),
                };
                self.record(now, object, &note, out);
                return;
            }
        };
        let uid = pod.uid.clone();
        if let Some(entry) = self.pods.get_mut(&uid) {
            let old = entry.pod();
            let downward = old.labels != pod.labels || old.annotations != pod.annotations;
            if old.spec.ephemeral_containers.len() != pod.spec.ephemeral_containers.len() {
                self.follow(now, &pod, out);
            }
            if let Some(entry) = self.pods.get_mut(&uid)
                && entry.report.sent != 0
                && !entry.report.dirty
                && version_of(object) > entry.report.acknowledged
                && !agrees(object, &entry.machine.status(&self.facts.ips))
            {
                // Somebody else wrote to its status, as the node lifecycle controller does when a node is silent. It may
                // do so again until it hears of the node: hence the pause.
                let report = &mut entry.report;
                if report.asked.is_some() {
                    report.doubt = version_of(object);
                } else if report.retry_at.is_none() {
                    report.doubtful(now);
                }
            }
            self.queue.push_back((uid.clone(), PodEvent::Update(pod)));
            if downward {
                self.settle(now, out);
                self.write_volumes(now, &uid, out);
            }
            return;
        }
        let fresh = listing.is_none() && pod.remembered.containers.iter().all(|c| c.container_id.is_empty());
        let machine = if fresh && !matches!(pod.remembered.phase.as_str(), "Succeeded" | "Failed") {
            let others = self.pods.values().filter(|e| !e.machine.is_over()).map(|e| &**e.pod());
            match admit(&pod, others, &self.facts.allocatable, &self.config.labels) {
                Ok(()) => PodMachine::new(pod.clone(), now),
                Err(rejection) => {
                    let note = EventNote {
                        kind: EventType::Warning,
                        reason: "FailedAdmission",
                        action: "FailedAdmission",
                        note: format!("{}: {}", rejection.reason, rejection.message),
                    };
                    self.record(now, object, &note, out);
                    PodMachine::rejected(pod.clone(), now, &rejection.reason, rejection.message)
                }
            }
        } else {
            PodMachine::new(pod.clone(), now)
        };
        if !machine.is_over() {
            self.follow(now, &pod, out);
        }
        self.pods.insert(uid.clone(), Entry::new(machine, tokens_of(&pod)));
        if let Some(listing) = listing {
            self.queue.push_back((uid.clone(), PodEvent::Adopt(listing)));
        }
        self.queue.push_back((uid, PodEvent::Update(pod)));
    }

    fn follow(&mut self, now: Time, pod: &Pod, out: &mut Vec<KubeletEffect>) {
        let (config_maps, secrets) = references(pod);
        for (secret, names) in [(false, config_maps), (true, secrets)] {
            for name in names {
                let key = RefKey { secret, namespace: pod.namespace.clone(), name: name.into() };
                self.references.follow(now, key, &pod.uid, &mut self.ids, out);
            }
        }
    }

    // ---- answers of the runtime -----------------------------------------------------------------------------

    fn runtime(&mut self, now: Time, event: RuntimeEvent, out: &mut Vec<KubeletEffect>) {
        match event {
            RuntimeEvent::Done { call, pod, result } if is_agent_call(call) => {
                self.agent_done(now, call, &pod, result, out);
            }
            RuntimeEvent::Done { call, pod, result } => {
                self.queue.push_back((pod, PodEvent::Done { call, result }));
            }
            RuntimeEvent::ContainerExited { pod, container, exit } => {
                self.queue.push_back((pod, PodEvent::Exited { container, exit }));
            }
            RuntimeEvent::SandboxDied { pod, message } => {
                self.queue.push_back((pod, PodEvent::SandboxDied { message }));
            }
        }
    }

    fn agent_done(
        &mut self,
        now: Time,
        call: CallId,
        pod: &PodUid,
        result: Result<Outcome, RuntimeError>,
        out: &mut Vec<KubeletEffect>,
    ) {
        if self.relist_call == Some(call) {
            self.relist_call = None;
            match result {
                Ok(Outcome::Listed(pods)) => {
                    self.listed = Some(pods.into_iter().map(|p| (p.uid.clone(), p)).collect());
                    self.register_at = Some(now);
                    self.timers(now, out);
                    self.adopt(now, out);
                }
                _ => self.relist_at = Some(now + RETRY),
            }
        } else if self.images_call == Some(call) {
            self.images_call = None;
            if let Ok(Outcome::Images(images)) = result {
                let changed = self.images != images;
                self.images = images;
                if changed {
                    self.report_at = Some(now + self.config.heartbeat);
                }
            }
        } else if let Some(entry) = self.pods.get_mut(pod) {
            let Some(volume) = entry.volumes.iter_mut().find(|v| v.busy == Some(call)) else { return };
            volume.busy = None;
            volume.error = result.err().map(|e| e.to_string());
            if volume.error.is_some() {
                volume.hash = 0;
                entry.volumes_retry_at = Some(now + VOLUME_RETRY);
            }
            self.volumes_step(pod);
        }
    }

    /// Answers the pod's machine if all its volumes are written or one failed.
    fn volumes_step(&mut self, uid: &PodUid) {
        let Some(entry) = self.pods.get_mut(uid) else { return };
        let Some(call) = entry.prepare else { return };
        let Some(done) = entry.volumes_done() else { return };
        entry.prepare = None;
        entry.prepared = done.is_ok();
        let result = done.map(|()| Outcome::Done).map_err(|message| RuntimeError::Volume { message });
        self.queue.push_back((uid.clone(), PodEvent::Done { call, result }));
    }

    // ---- what pods refer to ---------------------------------------------------------------------------------

    /// Something that a pod refers to changed: go on with what waited, write volumes anew.
    fn sources_changed(&mut self, now: Time, uid: &PodUid, out: &mut Vec<KubeletEffect>) {
        self.write_volumes(now, uid, out);
        let Some(entry) = self.pods.get_mut(uid) else { return };
        for (call, container, image) in core::mem::take(&mut entry.deferred) {
            self.start_container(uid, call, container, image, out);
        }
        self.queue.push_back((uid.clone(), PodEvent::Retry));
    }

    fn ask_tokens(&mut self, now: Time, uid: &PodUid, out: &mut Vec<KubeletEffect>) {
        let Some(entry) = self.pods.get(uid) else { return };
        let due: Vec<_> = entry
            .tokens
            .iter()
            .enumerate()
            .filter(|(_, t)| t.asked.is_none() && t.refresh_at <= now)
            .map(|(i, t)| (i, token_request(entry.pod(), t)))
            .collect();
        for (i, request) in due {
            let id = self.ask(Asked::Token(uid.clone(), i), request, out);
            if let Some(token) = self.pods.get_mut(uid).and_then(|e| e.tokens.get_mut(i)) {
                token.asked = Some(id);
            }
        }
    }

    /// Writes the volumes of a pod whose content is another than what was written, as far as it is known.
    fn write_volumes(&mut self, now: Time, uid: &PodUid, out: &mut Vec<KubeletEffect>) {
        let Some(entry) = self.pods.get(uid) else { return };
        if entry.machine.is_over() || (entry.prepare.is_none() && !entry.prepared) {
            return;
        }
        let pod = entry.pod().clone();
        let mut writes = Vec::new();
        let mut failed: Option<String> = None;
        let mut waiting = false;
        {
            let view = View { references: &self.references, services: None, tokens: &entry.tokens };
            for volume in &pod.spec.volumes {
                match volume_content(&pod, volume, entry.machine.ips(), &self.facts, &view) {
                    Ok(content) => writes.push((volume.name.clone(), Arc::new(content))),
                    Err(ResolveError::Unknown { kind, .. }) => {
                        let error =
                            entry.tokens.iter().find_map(|t| t.error.clone()).filter(|_| kind == "token");
                        match error {
                            Some(e) => {
                                failed = Some(format!(
                                    "MountVolume.SetUp failed for volume {:?} : {e}",
                                    volume.name
                                ));
                            }
                            None => waiting = true,
                        }
                    }
                    Err(error) => {
                        failed =
                            Some(format!("MountVolume.SetUp failed for volume {:?} : {error}", volume.name));
                    }
                }
            }
        }
        for (name, content) in writes {
            let hash = hash_of(&*content);
            let id = self.agent_id();
            let Some(entry) = self.pods.get_mut(uid) else { return };
            let known = match entry.volumes.iter_mut().position(|v| *v.name == *name) {
                Some(i) => i,
                None => {
                    let name: Arc<str> = name.as_str().into();
                    entry.volumes.push(Written { name, hash: 0, busy: None, error: None });
                    entry.volumes.len() - 1
                }
            };
            let Some(volume) = entry.volumes.get_mut(known) else { continue };
            if volume.hash == hash {
                continue;
            }
            volume.hash = hash;
            volume.busy = Some(id);
            volume.error = None;
            let op = RuntimeOp::WriteVolume { volume: volume.name.clone(), content };
            out.push(RuntimeCall { id, pod: uid.clone(), generation: pod.generation, op }.into());
        }
        let Some(entry) = self.pods.get_mut(uid) else { return };
        if let Some(message) = failed {
            if let Some(call) = entry.prepare.take() {
                let result = Err(RuntimeError::Volume { message });
                self.queue.push_back((uid.clone(), PodEvent::Done { call, result }));
            } else {
                entry.volumes_retry_at = Some(now + VOLUME_RETRY);
            }
        } else if !waiting {
            self.volumes_step(uid);
        }
    }

    // ---- what pods want -------------------------------------------------------------------------------------

    fn settle(&mut self, now: Time, out: &mut Vec<KubeletEffect>) {
        for _ in 0..STEPS_MAX {
            let Some((uid, event)) = self.queue.pop_front() else { break };
            let mut effects = Vec::new();
            if let Some(entry) = self.pods.get_mut(&uid) {
                entry.machine.on(now, event, &mut effects);
                if entry.pod().deletion.is_some() || entry.gone || entry.machine.is_failed() {
                    // A pod that ends does not wait for what it would have needed to start.
                    for (call, container, _) in core::mem::take(&mut entry.deferred) {
                        let message = format!("container {} was not started: the pod ends", container.name);
                        let result = Err(RuntimeError::Config { message });
                        self.queue.push_back((uid.clone(), PodEvent::Done { call, result }));
                    }
                }
            }
            self.perform(now, &uid, effects, out);
        }
        for uid in core::mem::take(&mut self.dirty) {
            self.report(&uid, out);
        }
        self.due = self.next_due();
    }

    fn perform(&mut self, now: Time, uid: &PodUid, effects: Vec<PodEffect>, out: &mut Vec<KubeletEffect>) {
        for effect in effects {
            let Some(entry) = self.pods.get_mut(uid) else { return };
            let pod = entry.pod().clone();
            let call_of = |id, op| RuntimeCall { id, pod: uid.clone(), generation: pod.generation, op };
            match effect {
                PodEffect::PrepareVolumes { call } => {
                    entry.prepare = Some(call);
                    entry.volumes_retry_at = None;
                    for token in &mut entry.tokens {
                        token.error = None;
                        if token.text.is_none() && token.asked.is_none() {
                            token.refresh_at = now;
                        }
                    }
                    self.ask_tokens(now, uid, out);
                    self.write_volumes(now, uid, out);
                }
                PodEffect::CreateSandbox { call } => {
                    let spec = Arc::new(sandbox_spec(&pod, &self.facts));
                    out.push(call_of(call, RuntimeOp::CreateSandbox(spec)).into());
                }
                PodEffect::EnsureImage { call, container } => {
                    let Some(c) = pod.container(&container) else { continue };
                    let policy = pull_policy(&c.image_pull_policy, &c.image);
                    if policy == PullPolicy::Always {
                        let notice = PodNotice {
                            warning: false,
                            reason: "Pulling",
                            message: format!("Pulling image \"{}\"", c.image),
                            container: Some(container),
                        };
                        self.tell(now, &pod, &notice, out);
                    }
                    let auth = self.pull_credentials(&pod);
                    let op = RuntimeOp::EnsureImage { image: c.image.clone(), policy, auth };
                    out.push(call_of(call, op).into());
                }
                PodEffect::StartContainer { call, container, image } => {
                    self.start_container(uid, call, container, image, out);
                }
                PodEffect::Call { call, op } => out.push(call_of(call, op).into()),
                PodEffect::StatusChanged => {
                    entry.report.dirty = true;
                    self.dirty.insert(uid.clone());
                }
                PodEffect::Event(notice) => self.tell(now, &pod, &notice, out),
                PodEffect::Finished => {
                    entry.finished = true;
                    self.references.release(uid, out);
                    self.dirty.insert(uid.clone());
                }
            }
        }
    }

    fn start_container(
        &mut self,
        uid: &PodUid,
        call: CallId,
        container: ContainerKey,
        image: Arc<Image>,
        out: &mut Vec<KubeletEffect>,
    ) {
        let Some(entry) = self.pods.get_mut(uid) else { return };
        let pod = entry.pod().clone();
        let Some((kind, spec)) = pod.containers().find(|(_, c)| *c.name == *container.name) else { return };
        let services_known = self.services.as_ref().is_none_or(Informer::synced);
        let result = if services_known {
            let view = View {
                references: &self.references,
                services: self.services.as_ref(),
                tokens: &entry.tokens,
            };
            container_spec(&pod, kind, spec, &image, entry.machine.ips(), &self.facts, &view)
        } else {
            // Without the services the environment would be incomplete; upstream waits for them as well.
            Err(ResolveError::Missing {
                kind: "services",
                name: "have not been read at least once yet".into(),
            })
        };
        match result {
            Ok(spec) => {
                let op = RuntimeOp::StartContainer { container, spec: Arc::new(spec) };
                out.push(RuntimeCall { id: call, pod: uid.clone(), generation: pod.generation, op }.into());
            }
            Err(ResolveError::Unknown { .. }) => entry.deferred.push((call, container, image)),
            Err(error) => {
                let result = Err(RuntimeError::Config { message: error.to_string() });
                self.queue.push_back((uid.clone(), PodEvent::Done { call, result }));
            }
        }
    }

    /// Credentials of the pod's pull secrets (`kubernetes.io/dockerconfigjson`).
    fn pull_credentials(&self, pod: &Pod) -> Vec<RegistryAuth> {
        let view = View { references: &self.references, services: None, tokens: &[] };
        let mut all = Vec::new();
        for secret in &pod.spec.image_pull_secrets {
            let Source::Found(object) = view.secret(&pod.namespace, &secret.name) else { continue };
            let data = crate::volume::secret_data(&object);
            let Some(text) = data.get(".dockerconfigjson") else { continue };
            let Ok(config) = serde_json::from_slice::<Value>(text) else { continue };
            for (registry, entry) in config.get("auths").and_then(Value::as_object).into_iter().flatten() {
                let field = |name: &str| entry.get(name).and_then(Value::as_str).map(String::from);
                let (mut user, mut password) = (field("username"), field("password"));
                if let Some(both) = field("auth")
                    && let Ok(bytes) = base64::engine::general_purpose::STANDARD.decode(both)
                    && let Ok(both) = String::from_utf8(bytes)
                    && let Some((u, p)) = both.split_once(':')
                {
                    user = Some(u.into());
                    password = Some(p.into());
                }
                if let (Some(username), Some(password)) = (user, password) {
                    all.push(RegistryAuth { registry: registry.clone(), username, password });
                }
            }
        }
        all
    }

    fn tell(&mut self, now: Time, pod: &Pod, notice: &PodNotice, out: &mut Vec<KubeletEffect>) {
        let mut about = Object::new("v1", "Pod", &pod.namespace, &pod.name);
        about.metadata.uid = pod.uid.to_string();
        about.metadata.resource_version.clone_from(&pod.resource_version);
        let note = EventNote {
            kind: if notice.warning { EventType::Warning } else { EventType::Normal },
            reason: notice.reason,
            action: notice.reason,
            note: notice.message.clone(),
        };
        self.record(now, &about, &note, out);
    }

    fn record(&mut self, now: Time, about: &Object, note: &EventNote, out: &mut Vec<KubeletEffect>) {
        if let Some(request) = self.recorder.record(now, about, note) {
            // Nobody waits for the answer: an Event that cannot be written is lost, as upstream.
            let id = self.ids.next_id();
            out.push(ClientEffect::Request { id, request }.into());
        }
    }

    /// Brings the API server's view of a pod up to date: its status, and at the end its deletion.
    fn report(&mut self, uid: &PodUid, out: &mut Vec<KubeletEffect>) {
        let host_ips: &[IpAddr] = &self.facts.ips;
        let Some(entry) = self.pods.get_mut(uid) else { return };
        if entry.gone {
            if entry.finished {
                self.pods.remove(uid);
                self.references.release(uid, out);
            }
            return;
        }
        if entry.report.asked.is_some() || entry.report.retry_at.is_some() {
            return;
        }
        if entry.report.dirty {
            entry.report.dirty = false;
            let status = entry.machine.status(host_ips);
            let hash = hash_of(&status.to_string());
            if hash != entry.report.sent {
                entry.report.sent = hash;
                let request = entry.status_request(status);
                let id = self.ask(Asked::PodStatus(uid.clone()), request, out);
                if let Some(entry) = self.pods.get_mut(uid) {
                    entry.report.asked = Some(id);
                }
                return;
            }
        }
        if entry.finished && entry.deleting.is_none() && entry.delete_at.is_none() {
            let request = entry.delete_request();
            let id = self.ask(Asked::PodDelete(uid.clone()), request, out);
            if let Some(entry) = self.pods.get_mut(uid) {
                entry.deleting = Some(id);
            }
        }
    }

    /// Sets a condition of the node, as [`KubeletEvent::Condition`] does.
    pub fn set_condition(&mut self, now: Time, condition: NodeCondition, out: &mut Vec<KubeletEffect>) {
        self.on(now, KubeletEvent::Condition(condition), out);
    }
}

/// The policy as the spec gives it, or the default of the image's tag.
fn pull_policy(policy: &str, image: &str) -> PullPolicy {
    match policy {
        "Always" => PullPolicy::Always,
        "IfNotPresent" => PullPolicy::IfNotPresent,
        "Never" => PullPolicy::Never,
        _ => {
            let name = image.rsplit('/').next().unwrap_or_default();
            let latest = !image.contains('@') && (name.ends_with(":latest") || !name.contains(':'));
            if latest { PullPolicy::Always } else { PullPolicy::IfNotPresent }
        }
    }
}

/// The version of an object: a number that grows over all objects (KEP-5504).
fn version_of(object: &Object) -> u64 {
    object.metadata.resource_version.parse().unwrap_or(0)
}

/// Whether the object says of the pod's readiness what the agent says.
fn agrees(object: &Object, status: &Value) -> bool {
    let ready = |conditions: Option<&Value>| {
        let conditions = conditions.and_then(Value::as_array)?;
        let ready = conditions.iter().find(|c| c.get("type").and_then(Value::as_str) == Some("Ready"))?;
        ready.get("status").and_then(Value::as_str).map(String::from)
    };
    ready(object.at("/status/conditions")) == ready(status.get("conditions"))
}
