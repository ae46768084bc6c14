//! A naive API server around schedulers, in virtual time.

use alloc::boxed::Box;
use alloc::collections::BTreeMap;
use alloc::format;
use alloc::string::{String, ToString};
use alloc::sync::Arc;
use alloc::vec::Vec;

use icp_core::api::{Gvr, Object, Status, reason, resources};
use icp_core::base::{Duration, Machine, Rng, Time};
use icp_core::client::{
    ApiError, ApiRequest, ClientEffect, ClientEvent, ObjectKey, Operation, Reply, RequestId, WatchEvent,
    WatchKind,
};
use serde_json::{Value, json};

use crate::extender::{ExtenderAnswer, ExtenderCall};
use crate::machine::{BindCall, Effect, Event, SchedulerMachine};
use crate::record::Writer;

type Answer = Result<Reply, ApiError>;

/// What may go wrong.
#[derive(Clone, Copy, Default)]
pub(crate) struct Faults {
    /// Longest way of a message, in milliseconds.
    pub(crate) delay_ms: u64,
    /// Of a million requests, so many are lost, half of them after they were served.
    pub(crate) lost_per_million: u32,
    /// Of a million bindings, so many are refused.
    pub(crate) refused_per_million: u32,
    /// Of a million watch events, so many end the watch instead.
    pub(crate) watch_breaks_per_million: u32,
}

enum Message {
    Serve(usize, RequestId, ApiRequest),
    Tell(usize, ClientEvent),
    Opinion(usize, RequestId, Result<ExtenderAnswer, String>),
    Bound(usize, RequestId, Result<(), String>),
}

/// Answers a call of an extender; says nothing if it is silent.
pub(crate) type Server = Box<dyn FnMut(&ExtenderCall) -> Option<Result<ExtenderAnswer, String>>>;

/// Binds a pod; says nothing if it is silent.
pub(crate) type Binder = Box<dyn FnMut(&BindCall) -> Option<Result<(), String>>>;

pub(crate) struct World {
    pub(crate) now: Time,
    pub(crate) machines: Vec<SchedulerMachine>,
    pub(crate) objects: BTreeMap<(Gvr, ObjectKey), Arc<Object>>,
    pub(crate) faults: Faults,
    /// Bindings that were carried out: pod uid and node.
    pub(crate) bindings: Vec<(String, String)>,
    /// When each machine sent a binding.
    pub(crate) sent_bindings: Vec<(Time, usize)>,
    /// Machines that reach nobody.
    pub(crate) cut_off: Vec<usize>,
    /// Resources that the server does not know.
    pub(crate) unserved: Vec<Gvr>,
    /// All extenders.
    pub(crate) extender: Option<Server>,
    /// Who binds for plugins that leave it to the shell.
    pub(crate) binder: Option<Binder>,
    /// Hears of what the first machine is given, and of what it decided on it.
    pub(crate) writer: Option<Writer>,
    rng: Rng,
    revision: u64,
    log: Vec<(Gvr, WatchEvent)>,
    watches: BTreeMap<(usize, RequestId), (Gvr, usize)>,
    watch_due: BTreeMap<(usize, RequestId), Time>,
    wire: BTreeMap<(Time, u64), Message>,
    sent: u64,
}

fn run(machine: &mut SchedulerMachine, now: Time, event: Option<Event>, out: &mut Vec<Effect>) {
    match event {
        Some(event) => machine.on(now, event, out),
        None => machine.wake(now, out),
    }
}

fn refuse(code: u16, reason: &str, message: &str) -> Answer {
    Err(ApiError::Status(Status::failure(code, reason, message)))
}

impl World {
    pub(crate) fn new(seed: u64, faults: Faults, machines: Vec<SchedulerMachine>) -> Self {
        Self::recorded(seed, faults, machines, None)
    }

    pub(crate) fn recorded(
        seed: u64,
        faults: Faults,
        machines: Vec<SchedulerMachine>,
        writer: Option<Writer>,
    ) -> Self {
        let mut world = Self {
            now: Time::from_secs(1_800_000_000),
            machines,
            objects: BTreeMap::new(),
            faults,
            bindings: Vec::new(),
            sent_bindings: Vec::new(),
            cut_off: Vec::new(),
            unserved: Vec::new(),
            extender: None,
            binder: None,
            writer,
            rng: Rng::new(seed),
            revision: 0,
            log: Vec::new(),
            watches: BTreeMap::new(),
            watch_due: BTreeMap::new(),
            wire: BTreeMap::new(),
            sent: 0,
        };
        world.create(&resources::NAMESPACES, json!({"metadata": {"name": "default"}}));
        for m in 0..world.machines.len() {
            world.feed(m, Some(Event::Start));
        }
        world
    }

    /// Gives a machine an event, or wakes it.
    pub(crate) fn feed(&mut self, m: usize, event: Option<Event>) {
        let mut out = Vec::new();
        let writer = self.writer.as_mut().filter(|_| m == 0);
        let machine = &mut self.machines[m];
        match writer {
            Some(writer) => {
                writer.input(self.now, event.as_ref());
                run(machine, self.now, event, &mut out);
                writer.done(&out, machine.decisions());
            }
            None => run(machine, self.now, event, &mut out),
        }
        self.perform(m, out);
    }

    pub(crate) fn create(&mut self, gvr: &Gvr, object: Value) {
        let mut object: Object = serde_json::from_value(object).unwrap();
        object.metadata.uid = self.rng.uuid();
        object.metadata.creation_timestamp = Some(Time::from_secs(self.now.as_secs()));
        self.store(gvr, object, WatchKind::Added);
    }

    pub(crate) fn node(&mut self, name: &str, cpu: &str) {
        let room = json!({"cpu": cpu, "memory": "8Gi", "pods": "110"});
        self.create(&resources::NODES, json!({"metadata": {"name": name}, "status": {"allocatable": room}}));
    }

    pub(crate) fn pod(&mut self, name: &str, cpu: &str) {
        self.create(
            &resources::PODS,
            json!({"apiVersion": "v1", "kind": "Pod", "metadata": {"name": name, "namespace": "default"},
            "spec": {"schedulerName": "default-scheduler", "containers": [{"name": "c", "resources": {"requests": {"cpu": cpu}}}]}}),
        );
    }

    pub(crate) fn get(&self, gvr: &Gvr, name: &str) -> Option<&Arc<Object>> {
        let namespace = if *gvr == resources::NODES { "" } else { "default" };
        self.objects.get(&(gvr.clone(), ObjectKey::new(namespace, name)))
    }

    pub(crate) fn node_of(&self, pod: &str) -> String {
        self.get(&resources::PODS, pod).map(|p| p.str_at("/spec/nodeName").into()).unwrap_or_default()
    }

    pub(crate) fn events(&self) -> Vec<String> {
        let events = self.objects.iter().filter(|((g, _), _)| *g == resources::EVENTS);
        events.map(|(_, e)| format!("{} {}", e.str_at("/reason"), e.str_at("/note"))).collect()
    }

    pub(crate) fn change(&mut self, gvr: &Gvr, name: &str, change: impl FnOnce(&mut Object)) {
        let mut object = Object::clone(self.get(gvr, name).unwrap());
        change(&mut object);
        self.store(gvr, object, WatchKind::Modified);
    }

    pub(crate) fn delete(&mut self, gvr: &Gvr, name: &str) {
        let object = Object::clone(self.get(gvr, name).unwrap());
        self.store(gvr, object, WatchKind::Deleted);
    }

    pub(crate) fn run_for(&mut self, time: Duration) {
        let end = self.now + time;
        for _ in 0..2_000_000 {
            let wire = self.wire.first_key_value().map(|((due, _), _)| *due);
            let timers = self.machines.iter().enumerate().filter_map(|(m, s)| Some((s.deadline()?, m)));
            let timer = timers.min();
            let due = [wire, timer.map(|(t, _)| t)].into_iter().flatten().min();
            let Some(due) = due.filter(|due| *due <= end) else {
                self.now = end;
                return;
            };
            self.now = self.now.max(due);
            match timer {
                Some((t, m)) if wire.is_none_or(|w| t < w) => {
                    self.feed(m, None);
                }
                _ => {
                    if let Some((_, message)) = self.wire.pop_first() {
                        self.handle(message);
                    }
                }
            }
        }
        panic!("time does not pass");
    }

    /// Delivers what is on its way, for at most a second; says whether nothing is any more.
    pub(super) fn run_until_quiet(&mut self) -> bool {
        for _ in 0..20 {
            if self.wire.is_empty() && self.machines.iter().all(|m| m.idle(self.now)) {
                return true;
            }
            self.run_for(Duration::from_millis(50));
        }
        false
    }

    fn post(&mut self, due: Time, message: Message) {
        self.sent += 1;
        self.wire.insert((due, self.sent), message);
    }

    fn later(&mut self) -> Time {
        self.now + Duration::from_millis(1 + self.rng.below(self.faults.delay_ms.max(1)))
    }

    pub(crate) fn perform(&mut self, machine: usize, out: Vec<Effect>) {
        for effect in out {
            match effect {
                Effect::Client(
                    ClientEffect::Request { id, request } | ClientEffect::Watch { id, request },
                ) => {
                    if request.subresource == Some("binding") {
                        assert!(self.machines[machine].leading(self.now).is_some(), "not fenced");
                        self.sent_bindings.push((self.now, machine));
                    }
                    let due = self.later();
                    self.post(due, Message::Serve(machine, id, request));
                }
                Effect::Client(ClientEffect::CloseWatch { id }) => {
                    self.watches.remove(&(machine, id));
                }
                Effect::AskExtender(call) => {
                    let answer = self.extender.as_mut().and_then(|e| e(&call));
                    if let Some(answer) = answer {
                        let due = self.later();
                        self.post(due, Message::Opinion(machine, call.id, answer));
                    }
                }
                Effect::Bind(call) => {
                    let answer = self.binder.as_mut().and_then(|b| b(&call));
                    if let Some(answer) = answer {
                        let due = self.later();
                        self.post(due, Message::Bound(machine, call.id, answer));
                    }
                }
                _ => {}
            }
        }
    }

    fn handle(&mut self, message: Message) {
        match message {
            Message::Tell(m, event) => {
                if !self.cut_off.contains(&m) {
                    self.feed(m, Some(event.into()));
                }
            }
            Message::Opinion(m, id, answer) => {
                self.feed(m, Some(Event::Extender { id, answer }));
            }
            Message::Bound(m, id, result) => {
                self.feed(m, Some(Event::Bound { id, result }));
            }
            Message::Serve(m, ..) if self.cut_off.contains(&m) => {}
            Message::Serve(m, id, request) => {
                if let Operation::Watch(options) = &request.op {
                    let from: u64 = options.resource_version.as_ref().unwrap().parse().unwrap();
                    let version = |e: &WatchEvent| e.object.metadata.resource_version.parse::<u64>().unwrap();
                    let all = self.log.len();
                    let cursor = self.log.iter().position(|(_, e)| version(e) > from).unwrap_or(all);
                    self.watches.insert((m, id), (request.gvr, cursor));
                    self.deliver();
                    return;
                }
                let lost = self.rng.chance(self.faults.lost_per_million);
                let served = !lost || self.rng.chance(500_000);
                let answer = if served { self.serve(&request) } else { refuse(0, "", "") };
                let result = if lost { Err(ApiError::Unreachable("lost".into())) } else { answer };
                let due = self.later();
                self.post(due, Message::Tell(m, ClientEvent::Reply { id, result }));
            }
        }
    }

    fn deliver(&mut self) {
        let ids: Vec<(usize, RequestId)> = self.watches.keys().copied().collect();
        for at in ids {
            while let Some((gvr, cursor)) = self.watches.get(&at).cloned() {
                let Some((of, event)) = self.log.get(cursor).cloned() else { break };
                self.watches.insert(at, (gvr.clone(), cursor + 1));
                if of != gvr {
                    continue;
                }
                let due = self.watch_due.get(&at).copied().unwrap_or(self.now).max(self.later());
                self.watch_due.insert(at, due);
                let id = at.1;
                let tell = if self.rng.chance(self.faults.watch_breaks_per_million) {
                    self.watches.remove(&at);
                    let error = Status::failure(410, reason::EXPIRED, "watch");
                    ClientEvent::WatchClosed { id, error: Some(ApiError::Status(error)) }
                } else {
                    ClientEvent::Watch { id, event }
                };
                self.post(due, Message::Tell(at.0, tell));
            }
        }
    }

    fn store(&mut self, gvr: &Gvr, mut object: Object, kind: WatchKind) -> Arc<Object> {
        self.revision += 1;
        object.metadata.resource_version = self.revision.to_string();
        let object = Arc::new(object);
        let at = (gvr.clone(), ObjectKey::of(&object));
        match kind {
            WatchKind::Deleted => self.objects.remove(&at),
            _ => self.objects.insert(at, Arc::clone(&object)),
        };
        self.log.push((gvr.clone(), WatchEvent { kind, object: Arc::clone(&object) }));
        self.deliver();
        object
    }

    fn serve(&mut self, request: &ApiRequest) -> Answer {
        let gvr = &request.gvr;
        let namespace = request.namespace.clone().unwrap_or_default();
        let key = ObjectKey::new(&namespace, request.name.as_deref().unwrap_or(""));
        let old = self.objects.get(&(gvr.clone(), key)).cloned();
        match (&request.op, old) {
            _ if self.unserved.contains(gvr) => refuse(404, reason::NOT_FOUND, "no such resource"),
            (Operation::List(_), _) => Ok(Reply::List {
                items: self
                    .objects
                    .iter()
                    .filter(|((g, _), _)| g == gvr)
                    .map(|(_, o)| Arc::clone(o))
                    .collect(),
                resource_version: self.revision.to_string(),
                continue_token: None,
            }),
            (Operation::Create(binding), Some(pod)) if request.subresource == Some("binding") => {
                self.bind(binding, &pod)
            }
            (Operation::Create(object), None) if request.subresource.is_none() => {
                if self.objects.contains_key(&(gvr.clone(), ObjectKey::of(object))) {
                    return refuse(409, reason::ALREADY_EXISTS, "exists");
                }
                Ok(Reply::Object(self.store(gvr, Object::clone(object), WatchKind::Added)))
            }
            (Operation::Get, Some(old)) => Ok(Reply::Object(old)),
            (Operation::Update(new), Some(old)) => {
                if new.metadata.resource_version != old.metadata.resource_version {
                    return refuse(409, reason::CONFLICT, "modified");
                }
                Ok(Reply::Object(self.store(gvr, Object::clone(new), WatchKind::Modified)))
            }
            (Operation::Patch { body, .. }, Some(old)) => {
                if body.pointer("/metadata/uid").is_some_and(|u| *u != json!(old.metadata.uid)) {
                    return refuse(409, reason::CONFLICT, "uid");
                }
                let mut new = Object::clone(&old);
                let annotations = body.pointer("/metadata/annotations").and_then(Value::as_object);
                for (k, v) in annotations.into_iter().flatten() {
                    new.metadata.annotations.insert(k.clone(), v.as_str().unwrap().into());
                }
                for field in ["status", "series"] {
                    let Some(change) = body.get(field).and_then(Value::as_object) else { continue };
                    let part = new.rest.get_or_insert_with(field, || json!({}));
                    for (k, v) in change {
                        part[k.as_str()] = v.clone();
                    }
                }
                Ok(Reply::Object(self.store(gvr, new, WatchKind::Modified)))
            }
            (Operation::Delete(_), Some(old)) => {
                self.store(gvr, Object::clone(&old), WatchKind::Deleted);
                Ok(Reply::Status(Status::default()))
            }
            (_, None) => refuse(404, reason::NOT_FOUND, "not found"),
            (op, _) => panic!("{op:?}"),
        }
    }

    fn bind(&mut self, binding: &Object, pod: &Arc<Object>) -> Answer {
        assert_eq!(binding.str_at("/target/kind"), "Node");
        if self.rng.chance(self.faults.refused_per_million) {
            return refuse(403, reason::FORBIDDEN, "no");
        }
        if binding.metadata.uid != pod.metadata.uid || !pod.str_at("/spec/nodeName").is_empty() {
            return refuse(409, reason::CONFLICT, "already assigned");
        }
        let node = binding.str_at("/target/name");
        self.bindings.push((pod.metadata.uid.clone(), node.into()));
        let mut new = Object::clone(pod);
        new.rest.get_or_insert_with("spec", || json!({}))["nodeName"] = json!(node);
        self.store(&resources::PODS, new, WatchKind::Modified);
        Ok(Reply::Status(Status::default()))
    }
}
