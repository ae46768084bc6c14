//! An API server and a kernel in memory, just enough to drive the machine.

use alloc::collections::BTreeMap;
use alloc::format;
use alloc::string::{String, ToString};
use alloc::sync::Arc;
use alloc::vec::Vec;
use core::net::IpAddr;

use icp_core::api::Object;
use icp_core::base::{Machine, Time};
use icp_core::client::{ClientEffect, ClientEvent, Operation, Reply, RequestId, WatchEvent, WatchKind};
use serde_json::{Value as Json, json};

use crate::rules::{Ruleset, Snapshot};
use crate::service::{Config, Effect, Event, ProxyMachine};

/// What stands behind the machine's effects on tables.
pub(super) trait Kernel {
    fn perform(&mut self, effect: &Effect) -> Option<Event>;
}

impl Kernel for Ruleset {
    fn perform(&mut self, effect: &Effect) -> Option<Event> {
        match effect {
            Effect::Observe { generation, tables } => {
                let of = |id: &crate::rules::TableId| self.tables.get(id).map(Snapshot::from);
                let result = Ok(tables.iter().map(|id| (id.clone(), of(id))).collect());
                Some(Event::Observed { generation: *generation, result })
            }
            Effect::Apply { generation, batch } => {
                let result = self.apply(batch).map_err(|e| crate::service::BackendError(e.to_string()));
                Some(Event::Applied { generation: *generation, result })
            }
            Effect::Client(_) | Effect::ForgetFlows(_) => None,
        }
    }
}

#[cfg(feature = "netlink")]
impl Kernel for crate::backend::service::ServiceBackend {
    fn perform(&mut self, effect: &Effect) -> Option<Event> {
        Self::perform(self, effect)
    }
}

/// A machine, an API server, a kernel.
pub(super) struct World<K> {
    pub(super) machine: ProxyMachine,
    pub(super) kernel: K,
    pub(super) now: Time,
    pub(super) objects: BTreeMap<(String, String), Arc<Object>>,
    /// Open watches, by resource.
    watches: BTreeMap<String, RequestId>,
    version: u64,
    /// Every batch that was asked for.
    pub(super) batches: Vec<crate::rules::Batch>,
    /// Every flow that was to be forgotten.
    pub(super) forgotten: Vec<crate::service::StaleFlows>,
}

fn resource_of(object: &Object) -> String {
    if object.kind == "Service" { "services".into() } else { "endpointslices".into() }
}

impl<K: Kernel> World<K> {
    pub(super) fn new(config: Config, kernel: K) -> Self {
        Self {
            machine: ProxyMachine::new(config),
            kernel,
            now: Time::from_secs(1),
            objects: BTreeMap::new(),
            watches: BTreeMap::new(),
            version: 1,
            batches: Vec::new(),
            forgotten: Vec::new(),
        }
    }

    pub(super) fn start(&mut self) {
        let mut out = Vec::new();
        self.machine.start(self.now, &mut out);
        self.perform(out);
    }

    fn on(&mut self, event: Event) -> Vec<Effect> {
        let mut out = Vec::new();
        self.machine.on(self.now, event, &mut out);
        out
    }

    pub(super) fn tell(&mut self, event: Event) {
        let out = self.on(event);
        self.perform(out);
    }

    pub(super) fn perform(&mut self, effects: Vec<Effect>) {
        let mut queue: alloc::collections::VecDeque<Effect> = effects.into();
        let mut steps = 0;
        while let Some(effect) = queue.pop_front() {
            steps += 1;
            assert!(steps < 10_000, "the machine does not come to rest");
            match &effect {
                Effect::Client(ClientEffect::Request { id, request }) => {
                    assert!(matches!(request.op, Operation::List(_)));
                    let items = self.objects.iter().filter(|((r, _), _)| *r == request.gvr.resource);
                    let reply = Reply::List {
                        items: items.map(|(_, o)| Arc::clone(o)).collect(),
                        resource_version: self.version.to_string(),
                        continue_token: None,
                    };
                    queue.extend(self.on(ClientEvent::Reply { id: *id, result: Ok(reply) }.into()));
                }
                Effect::Client(ClientEffect::Watch { id, request }) => {
                    self.watches.insert(request.gvr.resource.to_string(), *id);
                }
                Effect::Client(_) => {}
                Effect::ForgetFlows(flows) => {
                    self.forgotten.extend(flows.iter().cloned());
                    assert_eq!(self.kernel.perform(&effect), None);
                }
                effect => {
                    if let Effect::Apply { batch, .. } = effect {
                        self.batches.push(batch.clone());
                    }
                    if let Some(event) = self.kernel.perform(effect) {
                        queue.extend(self.on(event));
                    }
                }
            }
        }
    }

    fn report(&mut self, kind: WatchKind, object: Arc<Object>) {
        if let Some(id) = self.watches.get(&resource_of(&object)) {
            let event = ClientEvent::Watch { id: *id, event: WatchEvent { kind, object } };
            self.tell(event.into());
        }
    }

    pub(super) fn put(&mut self, object: &Json) {
        let mut object: Object = serde_json::from_value(object.clone()).unwrap();
        self.version += 1;
        object.metadata.resource_version = self.version.to_string();
        let key = (resource_of(&object), object.key());
        let object = Arc::new(object);
        let old = self.objects.insert(key, Arc::clone(&object));
        self.report(if old.is_some() { WatchKind::Modified } else { WatchKind::Added }, object);
    }

    pub(super) fn delete(&mut self, resource: &str, name: &str) {
        self.version += 1;
        if let Some(object) = self.objects.remove(&(resource.into(), format!("default/{name}"))) {
            let mut object = (*object).clone();
            object.metadata.resource_version = self.version.to_string();
            self.report(WatchKind::Deleted, Arc::new(object));
        }
    }

    /// Lets time pass up to the machine's next deadline.
    pub(super) fn wake(&mut self) {
        if let Some(due) = self.machine.deadline() {
            self.now = self.now.max(due);
            let mut out = Vec::new();
            self.machine.wake(self.now, &mut out);
            self.perform(out);
        }
    }
}

/// A service `name` at `ip` with one TCP port 80 called `http`; `spec` overrides.
pub(super) fn service(name: &str, ip: &str, spec: Json) -> Json {
    let mut full = json!({
        "clusterIP": ip, "clusterIPs": [ip], "type": "ClusterIP",
        "ports": [{"name": "http", "port": 80, "protocol": "TCP"}],
    });
    for (field, value) in spec.as_object().unwrap() {
        full[field] = value.clone();
    }
    json!({
        "apiVersion": "v1", "kind": "Service",
        "metadata": {"name": name, "namespace": "default", "uid": format!("uid-{name}")}, "spec": full,
    })
}

/// One endpoint: address, node, ready.
pub(super) fn endpoint(ip: impl ToString, node: &str, ready: bool) -> Json {
    json!({"addresses": [ip.to_string()], "nodeName": node, "conditions": {"ready": ready}})
}

/// A slice of service `name` with port 8080 called `http`.
pub(super) fn slice(service: &str, endpoints: Vec<Json>) -> Json {
    json!({
        "apiVersion": "discovery.k8s.io/v1", "kind": "EndpointSlice", "addressType": "IPv4",
        "metadata": {"name": format!("{service}-1"), "namespace": "default",
            "uid": format!("uid-{service}-1"), "labels": {"kubernetes.io/service-name": service}},
        "ports": [{"name": "http", "port": 8080, "protocol": "TCP"}],
        "endpoints": endpoints,
    })
}

pub(super) fn config() -> Config {
    Config {
        pod_networks: alloc::vec!["10.244.0.0/16".parse().unwrap()],
        service_networks: alloc::vec!["10.96.0.0/12".parse().unwrap()],
        ..Config::new("here")
    }
}

#[expect(dead_code, reason = "for tests that name addresses")]
pub(super) fn ip(text: &str) -> IpAddr {
    text.parse().unwrap()
}
