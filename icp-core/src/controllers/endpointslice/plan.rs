//! The plan of EndpointSlices.

use alloc::collections::BTreeMap;
use alloc::format;
use alloc::string::{String, ToString};
use alloc::sync::Arc;
use alloc::vec;
use alloc::vec::Vec;

use serde_json::{Value, json};

use super::backends::{Backend, Port, ServiceSpec};
use crate::api::{Gvr, Object, reason, resources};
use crate::base::{Rng, Time};
use crate::client::{Delta, IndexFn, ObjectKey, index};
use crate::controllers::support;
use crate::controllers::{Action, Cache, Controller, Note, Plan};

/// Endpoints of one slice (`--max-endpoints-per-slice`).
const SLICE_MAX: usize = 100;
pub(super) const SERVICE_NAME: &str = "kubernetes.io/service-name";
const MANAGED_BY: &str = "endpointslice.kubernetes.io/managed-by";
const MANAGER: &str = "endpointslice-controller.k8s.io";
pub(super) const HEADLESS: &str = "service.kubernetes.io/headless";
const ZONE: &str = "topology.kubernetes.io/zone";

/// What the plan is made from.
#[derive(Clone, Debug)]
pub struct Observed {
    /// The Service.
    pub service: Arc<Object>,
    /// The pods that its selector matches.
    pub pods: Vec<Arc<Object>>,
    /// The zone of each node that has one.
    pub zones: BTreeMap<String, String>,
    /// The slices of the Service.
    pub slices: Vec<Arc<Object>>,
}

/// Endpoints of one address family with the same ports.
type Groups = BTreeMap<(String, Vec<Port>), BTreeMap<String, Value>>;

/// Makes the slices hold exactly the pods behind the Service: endpoints stay in the slice where they are, new
/// ones fill slices up to 100, slices that became empty go. Without any endpoint one empty slice remains.
#[must_use]
pub fn plan(observed: &Observed, rng: &mut Rng) -> Plan {
    let service = &observed.service;
    let spec = ServiceSpec::of(service);
    let mut plan = Plan::none();
    if !spec.selects() || service.is_terminating() {
        return plan;
    }
    let mut groups = Groups::new();
    for family in spec.families() {
        for backend in spec.backends(service, &observed.pods, &family) {
            let value = endpoint(&backend, &spec, &observed.zones);
            groups
                .entry((family.clone(), backend.ports))
                .or_default()
                .insert(backend.pod.metadata.uid.clone(), value);
        }
        if groups.keys().all(|(f, _)| *f != family) {
            groups.insert((family, Vec::new()), BTreeMap::new());
        }
    }
    let mine = observed
        .slices
        .iter()
        .filter(|s| s.metadata.labels.get(MANAGED_BY).is_some_and(|m| m == MANAGER) && !s.is_terminating());
    let mut existing: BTreeMap<(String, Vec<Port>), Vec<&Arc<Object>>> = BTreeMap::new();
    for slice in mine {
        let ports: Vec<Port> = slice.view("ports").unwrap_or_default();
        existing.entry((slice_text(slice, "addressType"), ports)).or_default().push(slice);
    }
    let labels = labels(service, &spec);
    let (mut writes, mut deletes) = (Vec::new(), Vec::new());
    for (group, mut endpoints) in groups {
        let slices = existing.remove(&group).unwrap_or_default();
        let only_placeholder = endpoints.is_empty();
        let mut filled: Vec<(&Arc<Object>, Vec<Value>)> = slices
            .into_iter()
            .map(|slice| {
                let kept =
                    uids(slice).iter().filter_map(|uid| endpoints.remove(uid)).take(SLICE_MAX).collect();
                (slice, kept)
            })
            .collect();
        let mut rest = endpoints.into_values();
        for (_, kept) in &mut filled {
            kept.extend(rest.by_ref().take(SLICE_MAX - kept.len()));
        }
        for (i, (slice, kept)) in filled.iter_mut().enumerate() {
            if kept.is_empty() && !(only_placeholder && i == 0) {
                deletes.push(delete(slice));
            } else {
                writes.extend(update(slice, core::mem::take(kept), &labels));
            }
        }
        let mut rest: Vec<Value> = rest.collect();
        let mut none_yet = filled.is_empty() && only_placeholder;
        while !rest.is_empty() || none_yet {
            none_yet = false;
            let tail = rest.split_off(rest.len().min(SLICE_MAX));
            writes.push(create(service, &group, rest, &labels, rng));
            rest = tail;
        }
    }
    deletes.extend(existing.into_values().flatten().map(|slice| delete(slice)));
    // What is there stays until what replaces it is there.
    plan.all(writes);
    plan.all(deletes);
    plan
}

fn slice_text(slice: &Object, field: &str) -> String {
    slice.rest.get(field).and_then(Value::as_str).unwrap_or("").to_string()
}

fn uids(slice: &Object) -> Vec<String> {
    let endpoints = slice.rest.get("endpoints").and_then(Value::as_array);
    let uid = |e: &Value| e.pointer("/targetRef/uid").and_then(Value::as_str).map(String::from);
    endpoints.into_iter().flatten().filter_map(uid).collect()
}

fn endpoint(backend: &Backend, spec: &ServiceSpec, zones: &BTreeMap<String, String>) -> Value {
    let Backend { pod, address, serving, terminating, hostname, .. } = backend;
    let ready = spec.publish_not_ready_addresses || *serving && !terminating;
    let mut value = json!({
        "addresses": [address.to_string()],
        "conditions": {"ready": ready, "serving": serving, "terminating": terminating},
        "targetRef": target(pod),
    });
    let node = pod.str_at("/spec/nodeName");
    let optional = [
        ("nodeName", node),
        ("zone", zones.get(node).map_or("", String::as_str)),
        ("hostname", hostname.as_str()),
    ];
    if let Some(map) = value.as_object_mut() {
        map.extend(optional.into_iter().filter(|(_, v)| !v.is_empty()).map(|(k, v)| (k.into(), json!(v))));
    }
    value
}

pub(super) fn target(pod: &Object) -> Value {
    let meta = &pod.metadata;
    json!({"kind": "Pod", "namespace": meta.namespace, "name": meta.name, "uid": meta.uid})
}

fn labels(service: &Object, spec: &ServiceSpec) -> BTreeMap<String, String> {
    let mut labels = service.metadata.labels.clone();
    labels.remove(HEADLESS);
    labels.insert(SERVICE_NAME.into(), service.metadata.name.clone());
    labels.insert(MANAGED_BY.into(), MANAGER.into());
    if spec.is_headless() {
        labels.insert(HEADLESS.into(), String::new());
    }
    labels
}

fn create(
    service: &Arc<Object>,
    (family, ports): &(String, Vec<Port>),
    endpoints: Vec<Value>,
    labels: &BTreeMap<String, String>,
    rng: &mut Rng,
) -> Action {
    let mut slice = Object::new("discovery.k8s.io/v1", "EndpointSlice", &service.metadata.namespace, "");
    support::name_generated(&mut slice, &format!("{}-", service.metadata.name), rng);
    slice.metadata.labels.clone_from(labels);
    slice.metadata.owner_references = vec![service.controller_reference()];
    slice.rest.insert("addressType".into(), json!(family));
    slice.rest.insert("endpoints".into(), Value::Array(endpoints));
    slice.rest.insert("ports".into(), json!(ports));
    let failed = "Failed to create EndpointSlice for Service: ";
    Action::create(&resources::ENDPOINT_SLICES, slice).told_failure(Note::warning(
        service,
        "FailedToCreateEndpointSlices",
        failed,
    ))
}

fn update(slice: &Object, endpoints: Vec<Value>, labels: &BTreeMap<String, String>) -> Option<Action> {
    let mut next = slice.clone();
    next.metadata.labels.clone_from(labels);
    let same = match slice.rest.get("endpoints").and_then(Value::as_array) {
        // The order of endpoints carries no meaning.
        Some(old) => old.len() == endpoints.len() && endpoints.iter().all(|e| old.contains(e)),
        None => endpoints.is_empty(),
    };
    if !same {
        next.rest.insert("endpoints".into(), Value::Array(endpoints));
    }
    (next != *slice).then(|| Action::update(&resources::ENDPOINT_SLICES, next))
}

fn delete(slice: &Object) -> Action {
    Action::delete(&resources::ENDPOINT_SLICES, slice, None).tolerating(&[reason::NOT_FOUND])
}

/// The controller of EndpointSlices.
#[derive(Clone, Copy, Debug, Default)]
pub struct EndpointSlices;

/// The keys of the Services of a namespace that select `pod`.
pub(super) fn services_of(cache: &Cache, pod: &Object, keys: &mut Vec<ObjectKey>) {
    let services = cache.store(&resources::SERVICES).list(&pod.metadata.namespace);
    keys.extend(
        services.filter(|s| support::map_selector(s).matches(&pod.metadata.labels)).map(|s| ObjectKey::of(s)),
    );
}

/// The keys of Services that a change of a pod concerns: nothing that is published may have changed.
pub(super) fn on_pod(cache: &Cache, delta: &Delta, keys: &mut Vec<ObjectKey>) {
    match delta {
        Delta::Added(pod) | Delta::Deleted(pod) => services_of(cache, pod, keys),
        Delta::Updated { old, new } => {
            services_of(cache, new, keys);
            if old.metadata.labels != new.metadata.labels {
                services_of(cache, old, keys);
            }
        }
    }
}

pub(super) fn selected_pods(cache: &Cache, service: &Object) -> Vec<Arc<Object>> {
    let selector = support::map_selector(service);
    let pods = cache.store(&resources::PODS).list(&service.metadata.namespace);
    pods.filter(|p| selector.matches(&p.metadata.labels)).cloned().collect()
}

impl Controller for EndpointSlices {
    fn name(&self) -> &'static str {
        "endpoint-slice-controller"
    }

    fn watches(&self) -> Vec<Gvr> {
        vec![resources::SERVICES, resources::PODS, resources::NODES, resources::ENDPOINT_SLICES]
    }

    fn indices(&self) -> Vec<(Gvr, &'static str, IndexFn)> {
        vec![(resources::ENDPOINT_SLICES, SERVICE_NAME, index::label(SERVICE_NAME))]
    }

    fn concerns(&mut self, _now: Time, cache: &Cache, gvr: &Gvr, delta: &Delta, keys: &mut Vec<ObjectKey>) {
        let object = delta.object();
        if *gvr == resources::SERVICES {
            keys.push(ObjectKey::of(object));
        } else if *gvr == resources::PODS {
            on_pod(cache, delta, keys);
        } else if *gvr == resources::ENDPOINT_SLICES {
            let service = object.metadata.labels.get(SERVICE_NAME);
            keys.extend(service.map(|name| ObjectKey::new(&object.metadata.namespace, name)));
        } else {
            let zone = |o: &Object| o.metadata.labels.get(ZONE).cloned();
            if matches!(delta, Delta::Updated { old, new } if zone(old) == zone(new))
                || zone(object).is_none()
            {
                return;
            }
            keys.extend(cache.store(&resources::SERVICES).iter().map(|s| ObjectKey::of(s)));
        }
    }

    fn plan(&mut self, _now: Time, cache: &Cache, key: &ObjectKey, rng: &mut Rng) -> Plan {
        // The slices of a Service that is gone are garbage: their owner is absent.
        let Some(service) = cache.store(&resources::SERVICES).get_key(key) else { return Plan::none() };
        let zone = |n: &Arc<Object>| Some((n.metadata.name.clone(), n.metadata.labels.get(ZONE)?.clone()));
        let slices = cache.store(&resources::ENDPOINT_SLICES).by(SERVICE_NAME, &key.name);
        let observed = Observed {
            pods: selected_pods(cache, service),
            zones: cache.store(&resources::NODES).iter().filter_map(zone).collect(),
            slices: slices.filter(|s| s.metadata.namespace == key.namespace).cloned().collect(),
            service: Arc::clone(service),
        };
        plan(&observed, rng)
    }
}

#[cfg(test)]
mod tests;
