//! An API server in memory, just enough to drive machines that follow resources.

use std::boxed::Box;
use std::collections::{BTreeMap, VecDeque};
use std::string::{String, ToString};
use std::sync::Arc;
use std::vec::Vec;

use icp_core::api::Object;
use icp_core::base::{Machine, Time};
use icp_core::client::{
    ApiRequest, ClientEffect, ClientEvent, Operation, Reply, RequestId, WatchEvent, WatchKind,
};
use serde_json::Value as Json;

/// What a runner does with an effect.
#[expect(clippy::large_enum_variant, reason = "a step is moved once, not kept")]
pub(super) enum Step<E> {
    Client(ClientEffect),
    Event(Option<E>),
}

/// A machine and what stands behind its effects.
pub(super) struct Runner<M: Machine> {
    pub(super) machine: M,
    perform: Box<dyn FnMut(M::Effect) -> Step<M::Event>>,
    watches: BTreeMap<String, RequestId>,
    now: Time,
    /// Requests other than lists and watches.
    pub(super) requests: Vec<ApiRequest>,
}

impl<M: Machine> Runner<M>
where
    M::Event: From<ClientEvent>,
{
    pub(super) fn new(machine: M, perform: impl FnMut(M::Effect) -> Step<M::Event> + 'static) -> Self {
        let perform = Box::new(perform);
        Self { machine, perform, watches: BTreeMap::new(), now: Time::from_secs(1), requests: Vec::new() }
    }

    /// Wakes the machine, which starts itself.
    pub(super) fn start(&mut self, api: &Api) {
        let mut out = Vec::new();
        self.machine.wake(self.now, &mut out);
        self.work(api, out);
    }

    /// Lets time pass up to the next deadline.
    pub(super) fn wake(&mut self, api: &Api) {
        self.now = self.now.max(self.machine.deadline().unwrap_or(self.now));
        self.start(api);
    }

    pub(super) fn tell(&mut self, api: &Api, event: M::Event) {
        let mut out = Vec::new();
        self.machine.on(self.now, event, &mut out);
        self.work(api, out);
    }

    /// Reports a change of the API server's objects.
    pub(super) fn see(&mut self, api: &Api, (kind, object): &(WatchKind, Arc<Object>)) {
        if let Some(id) = self.watches.get(resource(object)) {
            let event = WatchEvent { kind: *kind, object: Arc::clone(object) };
            self.tell(api, ClientEvent::Watch { id: *id, event }.into());
        }
    }

    fn work(&mut self, api: &Api, effects: Vec<M::Effect>) {
        let mut queue = VecDeque::from(effects);
        let mut steps = 0;
        while let Some(effect) = queue.pop_front() {
            steps += 1;
            assert!(steps < 1000, "the machine does not come to rest");
            let event = match (self.perform)(effect) {
                Step::Event(event) => event,
                Step::Client(ClientEffect::Watch { id, request }) => {
                    self.watches.insert(request.gvr.resource.to_string(), id);
                    None
                }
                Step::Client(ClientEffect::Request { id, request }) => {
                    let result = if matches!(request.op, Operation::List(_)) {
                        Ok(api.list(&request.gvr.resource))
                    } else {
                        self.requests.push(request);
                        Ok(Reply::Object(Arc::new(Object::default())))
                    };
                    Some(ClientEvent::Reply { id, result }.into())
                }
                Step::Client(_) => None,
            };
            if let Some(event) = event {
                let mut out = Vec::new();
                self.machine.on(self.now, event, &mut out);
                queue.extend(out);
            }
        }
    }
}

/// The objects.
#[derive(Default)]
pub(super) struct Api {
    objects: BTreeMap<(String, String), Arc<Object>>,
    version: u64,
}

fn resource(object: &Object) -> &'static str {
    match object.kind.as_str() {
        "Node" => "nodes",
        "Service" => "services",
        _ => "endpointslices",
    }
}

impl Api {
    pub(super) fn list(&self, of: &str) -> Reply {
        let items = self.objects.iter().filter(|((resource, _), _)| resource == of);
        Reply::List {
            items: items.map(|(_, object)| Arc::clone(object)).collect(),
            resource_version: self.version.max(1).to_string(),
            continue_token: None,
        }
    }

    fn stamp(&mut self, mut object: Object) -> Arc<Object> {
        self.version += 1;
        object.metadata.resource_version = self.version.to_string();
        Arc::new(object)
    }

    pub(super) fn put(&mut self, object: &Json) -> (WatchKind, Arc<Object>) {
        let object = self.stamp(serde_json::from_value(object.clone()).unwrap());
        let key = (resource(&object).into(), object.key());
        let old = self.objects.insert(key, Arc::clone(&object));
        (if old.is_some() { WatchKind::Modified } else { WatchKind::Added }, object)
    }

    pub(super) fn delete(&mut self, resource: &str, key: &str) -> (WatchKind, Arc<Object>) {
        let object = self.objects.remove(&(resource.into(), key.into())).unwrap();
        (WatchKind::Deleted, self.stamp((*object).clone()))
    }
}
