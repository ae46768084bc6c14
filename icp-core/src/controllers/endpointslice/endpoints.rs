//! The plan of Endpoints, the older form.

use alloc::collections::BTreeMap;
use alloc::string::{String, ToString};
use alloc::sync::Arc;
use alloc::vec;
use alloc::vec::Vec;

use serde_json::{Map, Value, json};

use super::backends::{Backend, Port, ServiceSpec};
use super::plan::{HEADLESS, on_pod, selected_pods, target};
use crate::api::{Gvr, Object, reason, resources};
use crate::base::{Rng, Time};
use crate::client::{Delta, ObjectKey};
use crate::controllers::{Action, Cache, Controller, Plan};

/// Addresses of one object; what is more is cut off and the annotation says so.
const ADDRESSES_MAX: usize = 1000;
const OVER_CAPACITY: &str = "endpoints.kubernetes.io/over-capacity";
const MANAGED_BY: &str = "endpoints.kubernetes.io/managed-by";

/// Makes the Endpoints object of a Service hold the pods behind it: those that are ready in `addresses`, the others,
/// but for those that are being deleted, in `notReadyAddresses`; one subset per set of ports.
#[must_use]
pub fn plan(service: &Object, pods: &[Arc<Object>], current: Option<&Arc<Object>>) -> Plan {
    let spec = ServiceSpec::of(service);
    let mut plan = Plan::none();
    if !spec.selects() || service.is_terminating() {
        return plan;
    }
    let family = spec.families().into_iter().next().unwrap_or_default();
    let mut subsets: BTreeMap<Vec<Port>, (Vec<Value>, Vec<Value>)> = BTreeMap::new();
    let mut backends: Vec<Backend> = spec
        .backends(service, pods, &family)
        .into_iter()
        .filter(|b| !b.terminating || spec.publish_not_ready_addresses)
        .collect();
    let over = backends.len() > ADDRESSES_MAX;
    // Ready ones are kept first.
    backends.sort_by_key(|b| (!b.serving, b.address));
    for b in backends.into_iter().take(ADDRESSES_MAX) {
        let (ready, unready) = subsets.entry(b.ports.clone()).or_default();
        let list = if b.serving || spec.publish_not_ready_addresses { ready } else { unready };
        list.push(address(&b));
    }
    let mut next = match current {
        Some(current) => Object::clone(current),
        None => Object::new("v1", "Endpoints", &service.metadata.namespace, &service.metadata.name),
    };
    next.metadata.labels.clone_from(&service.metadata.labels);
    next.metadata.labels.insert(MANAGED_BY.into(), "endpoint-controller".into());
    if spec.is_headless() {
        next.metadata.labels.insert(HEADLESS.into(), String::new());
    }
    if over {
        next.metadata.annotations.insert(OVER_CAPACITY.into(), "truncated".into());
    } else {
        next.metadata.annotations.remove(OVER_CAPACITY);
    }
    let subsets: Vec<Value> = subsets.into_iter().map(|(ports, lists)| subset(&ports, lists)).collect();
    if subsets.is_empty() {
        next.rest.remove("subsets");
    } else {
        next.rest.insert("subsets".into(), Value::Array(subsets));
    }
    match current {
        Some(current) if **current == next => {}
        Some(_) => plan.one(Action::update(&resources::ENDPOINTS, next)),
        None => plan.one(Action::create(&resources::ENDPOINTS, next).tolerating(&[reason::ALREADY_EXISTS])),
    }
    plan
}

fn address(backend: &Backend) -> Value {
    let mut map = Map::new();
    map.insert("ip".into(), json!(backend.address.to_string()));
    if !backend.hostname.is_empty() {
        map.insert("hostname".into(), json!(backend.hostname));
    }
    let node = backend.pod.str_at("/spec/nodeName");
    if !node.is_empty() {
        map.insert("nodeName".into(), json!(node));
    }
    map.insert("targetRef".into(), target(&backend.pod));
    Value::Object(map)
}

fn subset(ports: &[Port], (ready, unready): (Vec<Value>, Vec<Value>)) -> Value {
    let mut map = Map::new();
    let mut put = |key: &str, list: Vec<Value>| {
        if !list.is_empty() {
            map.insert(key.to_string(), Value::Array(list));
        }
    };
    put("addresses", ready);
    put("notReadyAddresses", unready);
    let port = |p: &Port| {
        let mut value = json!(p);
        if let Some(map) = value.as_object_mut().filter(|_| p.name.is_empty()) {
            map.remove("name");
        }
        value
    };
    put("ports", ports.iter().map(port).collect());
    Value::Object(map)
}

/// The controller of Endpoints.
#[derive(Clone, Copy, Debug, Default)]
pub struct Endpoints;

impl Controller for Endpoints {
    fn name(&self) -> &'static str {
        "endpoint-controller"
    }

    fn watches(&self) -> Vec<Gvr> {
        vec![resources::SERVICES, resources::PODS, resources::ENDPOINTS]
    }

    fn concerns(&mut self, _now: Time, cache: &Cache, gvr: &Gvr, delta: &Delta, keys: &mut Vec<ObjectKey>) {
        if *gvr == resources::PODS {
            on_pod(cache, delta, keys);
        } else {
            keys.push(ObjectKey::of(delta.object()));
        }
    }

    fn plan(&mut self, _now: Time, cache: &Cache, key: &ObjectKey, _rng: &mut Rng) -> Plan {
        let current = cache.store(&resources::ENDPOINTS).get_key(key);
        match (cache.store(&resources::SERVICES).get_key(key), current) {
            (Some(service), current) => plan(service, &selected_pods(cache, service), current),
            // Endpoints that this controller made go with their Service; others belong to whoever made them.
            (None, Some(orphan)) if orphan.metadata.labels.contains_key(MANAGED_BY) => {
                let mut plan = Plan::none();
                plan.one(Action::delete(&resources::ENDPOINTS, orphan, None));
                plan
            }
            _ => Plan::none(),
        }
    }
}
