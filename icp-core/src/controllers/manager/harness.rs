//! A naive API server, kubelet and network around a manager, in virtual time.

use alloc::collections::BTreeMap;
use alloc::format;
use alloc::string::{String, ToString};
use alloc::sync::Arc;
use alloc::vec::Vec;
use core::cell::RefCell;

use serde_json::{Value, json};

use super::{Effect, Event, Manager};
use crate::api::{Gvr, Object, Status, StatusCause, StatusDetails, reason, resources};
use crate::base::{Duration, Machine, Rng, Time};
use crate::client::{
    ApiError, ApiRequest, ClientEffect, ClientEvent, ObjectKey, Operation, PatchKind, Propagation, Reply,
    RequestId, WatchEvent, WatchKind,
};

type Answer = Result<Reply, ApiError>;

enum Message {
    Serve(u64, RequestId, ApiRequest),
    Tell(u64, ClientEvent),
    /// The kubelet looks at a pod.
    Kubelet(ObjectKey, String),
    Heartbeat(String),
    Boot,
}

/// What may go wrong.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Faults {
    /// Longest way of a message, in milliseconds.
    pub(crate) delay_ms: u64,
    /// Of a million requests, so many are lost, half of them after they were served.
    pub(crate) lost_per_million: u32,
    /// Of a million watch events, so many end the watch instead.
    pub(crate) watch_breaks_per_million: u32,
    /// The manager crashes after this write, counted from 1.
    pub(crate) crash_after_write: Option<u64>,
}

impl Faults {
    /// Lost answers, broken watches, and delays that are short for some seeds and long for others.
    pub(crate) fn lossy(seed: u64) -> Self {
        Self {
            delay_ms: 1 + 400 * (seed % 4),
            lost_per_million: 100_000,
            watch_breaks_per_million: 20_000,
            crash_after_write: None,
        }
    }

    /// A crash after this write, and a short way of messages.
    pub(crate) fn crash_after(write: u64) -> Self {
        Self { delay_ms: 50, crash_after_write: Some(write), ..Self::default() }
    }
}

pub(crate) struct World {
    pub(crate) now: Time,
    pub(crate) objects: BTreeMap<(Gvr, ObjectKey), Arc<Object>>,
    pub(crate) manager: Option<Manager>,
    pub(crate) writes: u64,
    pub(crate) faults: Faults,
    /// Creations of pods, counted.
    pub(crate) pods_created: usize,
    /// Called after each message.
    pub(crate) check: fn(&World),
    /// For the check to use.
    pub(crate) memory: RefCell<BTreeMap<String, usize>>,
    /// Requests as `verb resource name`, without Events and leases.
    pub(crate) trace: Vec<String>,
    make: fn(u64) -> Manager,
    rng: Rng,
    revision: u64,
    log: Vec<(Gvr, WatchEvent)>,
    watches: BTreeMap<RequestId, (Gvr, usize)>,
    wire: BTreeMap<(Time, u64), Message>,
    sent: u64,
    /// The incarnation of the manager.
    epoch: u64,
    /// The last watch message is delivered before the next.
    watch_due: BTreeMap<RequestId, Time>,
    /// Nodes whose kubelet lives; pods are placed on them in turn.
    pub(crate) alive: Vec<String>,
}

fn refuse(code: u16, reason: &str, message: &str) -> Answer {
    Err(ApiError::Status(Status::failure(code, reason, message)))
}

impl World {
    pub(crate) fn new(seed: u64, faults: Faults, make: fn(u64) -> Manager) -> Self {
        let mut world = Self {
            now: Time::from_secs(1_800_000_000),
            objects: BTreeMap::new(),
            manager: None,
            writes: 0,
            faults,
            pods_created: 0,
            check: |_| {},
            memory: RefCell::default(),
            trace: Vec::new(),
            make,
            rng: Rng::new(seed),
            revision: 0,
            log: Vec::new(),
            watches: BTreeMap::new(),
            wire: BTreeMap::new(),
            sent: 0,
            epoch: 0,
            watch_due: BTreeMap::new(),
            alive: alloc::vec!["w1".into()],
        };
        world.post(Duration::ZERO, Message::Boot);
        world
    }

    pub(crate) fn get(&self, gvr: &Gvr, namespace: &str, name: &str) -> Option<&Arc<Object>> {
        self.objects.get(&(gvr.clone(), ObjectKey::new(namespace, name)))
    }

    pub(crate) fn all(&self, gvr: &Gvr) -> Vec<Arc<Object>> {
        self.objects.iter().filter(|((g, _), _)| g == gvr).map(|(_, o)| Arc::clone(o)).collect()
    }

    /// Does what a user does; the request must succeed.
    pub(crate) fn user(&mut self, request: &ApiRequest) {
        let answer = self.serve(request);
        assert!(answer.is_ok(), "{request:?}: {answer:?}");
    }

    pub(crate) fn create(&mut self, gvr: &Gvr, object: Value) {
        let object: Object = serde_json::from_value(object).unwrap();
        let namespace = object.metadata.namespace.clone();
        self.user(&ApiRequest::collection(gvr, &namespace, Operation::Create(Arc::new(object))));
    }

    pub(crate) fn patch(&mut self, gvr: &Gvr, namespace: &str, name: &str, body: Value) {
        let op = Operation::Patch { kind: PatchKind::Merge, body, field_manager: None, force: false };
        self.user(&ApiRequest::object(gvr, namespace, name, op));
    }

    pub(crate) fn patch_status(&mut self, gvr: &Gvr, namespace: &str, name: &str, body: Value) {
        let op = Operation::Patch { kind: PatchKind::Merge, body, field_manager: None, force: false };
        self.user(&ApiRequest::object(gvr, namespace, name, op).sub("status"));
    }

    /// Lets time pass until nothing is to do but timers further away than `quiet`, at most `limit`.
    pub(crate) fn settle(&mut self, limit: Duration, quiet: Duration) {
        let end = self.now + limit;
        loop {
            let next = [
                self.wire.first_key_value().map(|((due, _), _)| *due),
                self.manager.as_ref().and_then(Machine::deadline),
            ];
            let Some(due) = next.into_iter().flatten().min() else { return };
            let idle = self.manager.as_ref().is_some_and(|m| m.synced() && m.idle());
            if due > end || (idle && self.wire.is_empty() && due > self.now + quiet) {
                return;
            }
            self.step();
        }
    }

    pub(crate) fn run_for(&mut self, time: Duration) {
        let end = self.now + time;
        while self.next_due().is_some_and(|due| due <= end) {
            self.step();
        }
        self.now = end;
    }

    fn next_due(&self) -> Option<Time> {
        let wire = self.wire.first_key_value().map(|((due, _), _)| *due);
        [wire, self.manager.as_ref().and_then(Machine::deadline)].into_iter().flatten().min()
    }

    fn step(&mut self) {
        let wire = self.wire.first_key_value().map(|((due, _), _)| *due);
        let timer = self.manager.as_ref().and_then(Machine::deadline);
        if timer.is_some_and(|t| wire.is_none_or(|w| t < w)) {
            self.now = self.now.max(timer.unwrap());
            let mut out = Vec::new();
            let manager = self.manager.as_mut().unwrap();
            manager.wake(self.now, &mut out);
            let after = manager.deadline();
            assert!(
                !out.is_empty() || after.is_none_or(|d| d > self.now),
                "the manager wants to be woken for nothing"
            );
            self.perform(out);
        } else if let Some(((due, _), message)) = self.wire.pop_first() {
            self.now = self.now.max(due);
            self.handle(message);
        }
        (self.check)(self);
    }

    fn post(&mut self, delay: Duration, message: Message) {
        self.sent += 1;
        self.wire.insert((self.now + delay, self.sent), message);
    }

    fn delay(&mut self) -> Duration {
        Duration::from_millis(1 + self.rng.below(self.faults.delay_ms.max(1)))
    }

    fn perform(&mut self, out: Vec<Effect>) {
        for effect in out {
            match effect {
                Effect::Client(
                    ClientEffect::Request { id, request } | ClientEffect::Watch { id, request },
                ) => {
                    let delay = self.delay();
                    self.post(delay, Message::Serve(self.epoch, id, request));
                }
                Effect::Client(ClientEffect::CloseWatch { id }) => {
                    self.watches.remove(&id);
                }
                Effect::Led(_) => {}
            }
        }
    }

    fn handle(&mut self, message: Message) {
        match message {
            Message::Boot => {
                self.epoch += 1;
                self.watches.clear();
                let mut manager = (self.make)(self.epoch);
                let mut out = Vec::new();
                manager.on(self.now, Event::Start, &mut out);
                self.manager = Some(manager);
                self.perform(out);
            }
            Message::Tell(epoch, event) => {
                if let Some(manager) = self.manager.as_mut().filter(|_| epoch == self.epoch) {
                    let mut out = Vec::new();
                    manager.on(self.now, event.into(), &mut out);
                    self.perform(out);
                }
            }
            Message::Serve(epoch, id, request) if matches!(request.op, Operation::Watch(_)) => {
                if epoch == self.epoch {
                    let Operation::Watch(options) = &request.op else { return };
                    let from: u64 = options.resource_version.as_ref().unwrap().parse().unwrap();
                    let version = |e: &WatchEvent| e.object.metadata.resource_version.parse::<u64>().unwrap();
                    let cursor =
                        self.log.iter().position(|(_, e)| version(e) > from).unwrap_or(self.log.len());
                    self.watches.insert(id, (request.gvr, cursor));
                    self.deliver();
                }
            }
            // What a crashed manager sent is cut off with its connections.
            Message::Serve(epoch, ..) if epoch != self.epoch => {}
            Message::Serve(epoch, id, request) => {
                let lost = self.rng.chance(self.faults.lost_per_million);
                let served = !lost || self.rng.chance(500_000);
                let writes = self.writes;
                let answer = if served { self.serve(&request) } else { refuse(0, "", "") };
                let answer = if lost { Err(ApiError::Unreachable("lost".into())) } else { answer };
                let delay = self.delay();
                self.post(delay, Message::Tell(epoch, ClientEvent::Reply { id, result: answer }));
                if self.faults.crash_after_write.is_some_and(|n| writes < n && n <= self.writes) {
                    self.manager = None;
                    self.epoch += 1;
                    self.post(Duration::from_secs(1), Message::Boot);
                }
            }
            Message::Heartbeat(node) => self.heartbeat(&node),
            Message::Kubelet(key, uid) => self.kubelet_sees(&key, &uid),
        }
    }

    fn kubelet_sees(&mut self, key: &ObjectKey, uid: &str) {
        let Some(pod) = self.objects.get(&(resources::PODS, key.clone())).filter(|p| p.metadata.uid == uid)
        else {
            return;
        };
        let mut next = Object::clone(pod);
        let node = String::from(pod.str_at("/spec/nodeName"));
        if !node.is_empty() && !self.alive.contains(&node) || self.alive.is_empty() {
            return;
        }
        if pod.is_terminating() {
            self.remove(&resources::PODS, key);
        } else if next.str_at("/status/phase") != "Running" {
            let now = self.now.to_rfc3339();
            next.rest.insert(
                "status".into(),
                json!({"phase": "Running", "podIP": format!("10.0.{}.{}", self.revision / 250, self.revision % 250), "conditions": [
                {"type": "Ready", "status": "True", "lastTransitionTime": now}]}),
            );
            if node.is_empty() {
                let node = self.alive[self.rng.below(self.alive.len() as u64) as usize].clone();
                crate::controllers::support::set(&mut next, "spec", "nodeName", json!(node));
            }
            self.store(&resources::PODS, next, WatchKind::Modified);
        }
    }

    /// A node that reports every ten seconds as long as it is `alive`.
    pub(crate) fn add_node(&mut self, name: &str) {
        self.create(
            &resources::NODES,
            json!({"apiVersion": "v1", "kind": "Node", "metadata": {"name": name},
            "status": {"conditions": [{"type": "Ready", "status": "True"}]}}),
        );
        self.create(
            &resources::LEASES,
            json!({"apiVersion": "coordination.k8s.io/v1", "kind": "Lease",
            "metadata": {"name": name, "namespace": "kube-node-lease"}, "spec": {}}),
        );
        self.post(Duration::ZERO, Message::Heartbeat(name.into()));
    }

    fn heartbeat(&mut self, name: &str) {
        if self.alive.iter().any(|n| n == name) {
            let stamp = self.now.to_rfc3339_micros();
            self.patch(&resources::LEASES, "kube-node-lease", name, json!({"spec": {"renewTime": stamp}}));
            if !crate::controllers::support::is_ready(self.get(&resources::NODES, "", name).unwrap()) {
                let ready =
                    json!({"conditions": [{"type": "Ready", "status": "True", "lastHeartbeatTime": stamp}]});
                self.patch_status(&resources::NODES, "", name, json!({"status": ready}));
            }
        }
        self.post(Duration::from_secs(10), Message::Heartbeat(name.into()));
    }

    fn deliver(&mut self) {
        let ids: Vec<RequestId> = self.watches.keys().copied().collect();
        for id in ids {
            while let Some((gvr, cursor)) = self.watches.get(&id).cloned() {
                let Some((of, event)) = self.log.get(cursor).cloned() else { break };
                self.watches.insert(id, (gvr.clone(), cursor + 1));
                if of != gvr {
                    continue;
                }
                let due = self.watch_due.get(&id).copied().unwrap_or(self.now).max(self.now + self.delay());
                self.watch_due.insert(id, due);
                let tell = if self.rng.chance(self.faults.watch_breaks_per_million) {
                    self.watches.remove(&id);
                    let code = if self.rng.chance(500_000) { 410 } else { 500 };
                    let error =
                        Status::failure(code, if code == 410 { reason::EXPIRED } else { "" }, "watch");
                    ClientEvent::WatchClosed { id, error: Some(ApiError::Status(error)) }
                } else {
                    ClientEvent::Watch { id, event }
                };
                self.sent += 1;
                self.wire.insert((due, self.sent), Message::Tell(self.epoch, tell));
            }
        }
    }

    fn store(&mut self, gvr: &Gvr, mut object: Object, kind: WatchKind) -> Arc<Object> {
        self.revision += 1;
        object.metadata.resource_version = self.revision.to_string();
        let object = Arc::new(object);
        let key = ObjectKey::of(&object);
        if kind == WatchKind::Deleted {
            self.objects.remove(&(gvr.clone(), key.clone()));
        } else {
            self.objects.insert((gvr.clone(), key.clone()), Arc::clone(&object));
        }
        self.log.push((gvr.clone(), WatchEvent { kind, object: Arc::clone(&object) }));
        if *gvr == resources::PODS && kind != WatchKind::Deleted {
            let delay = Duration::from_millis(100 + self.rng.below(3000));
            self.post(delay, Message::Kubelet(key, object.metadata.uid.clone()));
        }
        self.deliver();
        object
    }

    fn remove(&mut self, gvr: &Gvr, key: &ObjectKey) {
        let object = self.objects.get(&(gvr.clone(), key.clone())).cloned();
        if let Some(object) = object.filter(|o| o.metadata.finalizers.is_empty()) {
            self.store(gvr, Object::clone(&object), WatchKind::Deleted);
        }
    }

    fn serve(&mut self, request: &ApiRequest) -> Answer {
        let gvr = &request.gvr;
        let namespace = request.namespace.clone().unwrap_or_default();
        let key = ObjectKey::new(&namespace, request.name.as_deref().unwrap_or(""));
        let at = (gvr.clone(), key.clone());
        let old = self.objects.get(&at).cloned();
        let quiet = gvr.resource == "events" || gvr.resource == "leases";
        if !matches!(request.op, Operation::Get | Operation::List(_)) && !quiet {
            self.writes += 1;
            let verb = match request.op {
                Operation::Create(_) => "create",
                Operation::Update(_) => "update",
                Operation::Patch { .. } => "patch",
                _ => "delete",
            };
            self.trace.push(format!("{verb} {}/{} {key}", gvr.resource, request.subresource.unwrap_or("")));
        }
        match (&request.op, old) {
            (Operation::List(_), _) => Ok(Reply::List {
                items: self
                    .objects
                    .iter()
                    .filter(|((g, k), _)| g == gvr && (namespace.is_empty() || k.namespace == namespace))
                    .map(|(_, o)| Arc::clone(o))
                    .collect(),
                resource_version: self.revision.to_string(),
                continue_token: None,
            }),
            (Operation::DeleteCollection(..), _) => {
                let keys: Vec<ObjectKey> = self
                    .objects
                    .keys()
                    .filter(|(g, k)| g == gvr && k.namespace == namespace)
                    .map(|(_, k)| k.clone())
                    .collect();
                for key in keys {
                    let op = Operation::Delete(crate::client::DeleteOptions::default());
                    self.serve(&ApiRequest::object(gvr, &namespace, &key.name, op))?;
                }
                Ok(Reply::Status(Status::default()))
            }
            (Operation::Create(object), _) => self.serve_create(gvr, object),
            (_, None) => refuse(404, reason::NOT_FOUND, "not found"),
            (Operation::Get, Some(old)) => Ok(Reply::Object(old)),
            (Operation::Update(new), Some(old)) => self.serve_update(request, Object::clone(new), &old),
            (Operation::Patch { body, .. }, Some(old)) => {
                let mut value = serde_json::to_value(&*old).unwrap();
                merge(&mut value, body);
                let mut new: Object = serde_json::from_value(value).unwrap();
                if new.metadata.uid != old.metadata.uid {
                    return refuse(409, reason::CONFLICT, "uid");
                }
                if body.pointer("/metadata/resourceVersion").is_none() {
                    new.metadata.resource_version.clone_from(&old.metadata.resource_version);
                }
                self.serve_update(request, new, &old)
            }
            (Operation::Delete(options), Some(old)) => {
                if options.uid.as_ref().is_some_and(|uid| *uid != old.metadata.uid)
                    || options.resource_version.as_ref().is_some_and(|v| *v != old.metadata.resource_version)
                {
                    return refuse(409, reason::CONFLICT, "precondition");
                }
                let mut next = Object::clone(&old);
                let finalizer = match options.propagation {
                    Some(Propagation::Foreground) => Some("foregroundDeletion"),
                    Some(Propagation::Orphan) => Some("orphan"),
                    _ => None,
                };
                next.metadata.finalizers.extend(finalizer.map(String::from));
                let graceful = *gvr == resources::PODS
                    && !old.str_at("/spec/nodeName").is_empty()
                    && options.grace_period_seconds != Some(0);
                let spec_finalizers = gvr.resource == "namespaces" && !old.is_terminating();
                if next.metadata.finalizers.is_empty() && !graceful && !spec_finalizers {
                    self.store(gvr, next, WatchKind::Deleted);
                } else if !old.is_terminating() {
                    next.metadata.deletion_timestamp =
                        Some(self.now + Duration::from_secs(if graceful { 30 } else { 0 }));
                    next.metadata.generation += 1;
                    self.store(gvr, next, WatchKind::Modified);
                }
                Ok(Reply::Status(Status::default()))
            }
            other => panic!("{other:?}"),
        }
    }

    fn serve_create(&mut self, gvr: &Gvr, object: &Object) -> Answer {
        let mut object = object.clone();
        assert!(!object.metadata.name.is_empty(), "a name that the client chose: {object:?}");
        if self.objects.contains_key(&(gvr.clone(), ObjectKey::of(&object))) {
            return refuse(409, reason::ALREADY_EXISTS, "exists");
        }
        let namespace = self.get(&resources::NAMESPACES, "", &object.metadata.namespace);
        if namespace.is_some_and(|ns| ns.is_terminating()) {
            let mut status = Status::failure(403, reason::FORBIDDEN, "namespace is being terminated");
            let cause = StatusCause { reason: "NamespaceTerminating".into(), ..StatusCause::default() };
            status.details = Some(StatusDetails { causes: alloc::vec![cause], ..StatusDetails::default() });
            return Err(ApiError::Status(status));
        }
        object.metadata.uid = self.rng.uuid();
        object.metadata.creation_timestamp = Some(self.now);
        object.metadata.generation = 1;
        self.pods_created += usize::from(*gvr == resources::PODS);
        Ok(Reply::Object(self.store(gvr, object, WatchKind::Added)))
    }

    fn serve_update(&mut self, request: &ApiRequest, mut new: Object, old: &Object) -> Answer {
        if new.metadata.resource_version != old.metadata.resource_version {
            return refuse(409, reason::CONFLICT, "the object has been modified");
        }
        if request.subresource == Some("status") {
            let status = new.rest.remove("status").unwrap_or(Value::Null);
            new = old.clone();
            new.rest.insert("status".into(), status);
        } else if request.subresource.is_none() {
            match old.rest.get("status") {
                Some(status) => new.rest.insert("status".into(), status.clone()),
                None => new.rest.remove("status"),
            };
            new.metadata.generation = old.metadata.generation + i64::from(new.rest != old.rest);
        }
        if new == *old {
            return Ok(Reply::Object(Arc::new(new)));
        }
        let ended = new.is_terminating()
            && new.metadata.finalizers.is_empty()
            && request.gvr != resources::PODS
            && new.at("/spec/finalizers").and_then(Value::as_array).is_none_or(Vec::is_empty);
        let kind = if ended { WatchKind::Deleted } else { WatchKind::Modified };
        Ok(Reply::Object(self.store(&request.gvr, new, kind)))
    }
}

fn merge(value: &mut Value, patch: &Value) {
    let (Value::Object(value), Value::Object(patch)) = (&mut *value, patch) else {
        *value = patch.clone();
        return;
    };
    for (key, change) in patch {
        if change.is_null() {
            value.remove(key);
        } else if change.is_object() {
            merge(value.entry(key.as_str()).or_insert_with(|| json!({})), change);
        } else {
            value.insert(key.clone(), change.clone());
        }
    }
}
