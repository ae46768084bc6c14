//! `LimitRanger`: the defaults and bounds that a namespace has for pods, containers and claims
//! (`plugin/pkg/admission/limitranger`), as functions of its `LimitRange` objects.

use alloc::collections::BTreeMap;
use alloc::format;
use alloc::string::{String, ToString};
use alloc::vec::Vec;

use serde_json::{Map, Value};

use crate::api::{Quantity, set_at};

/// Says in a pod what was set.
const ANNOTATION: &str = "kubernetes.io/limit-ranger";

type Resources = BTreeMap<String, Quantity>;

/// What a container, pod or claim asks for and is limited to.
#[derive(Clone, Debug, Default)]
struct Usage {
    requests: Resources,
    limits: Resources,
}

fn array<'a>(object: &'a Value, pointer: &str) -> impl Iterator<Item = &'a Value> + use<'a> {
    object.pointer(pointer).and_then(Value::as_array).into_iter().flatten()
}

fn text<'a>(object: &'a Value, field: &str) -> &'a str {
    object.get(field).and_then(Value::as_str).unwrap_or("")
}

fn quantities(value: Option<&Value>) -> Resources {
    let pairs = value.and_then(Value::as_object).into_iter().flatten();
    pairs.filter_map(|(name, v)| Some((name.clone(), Quantity::from_value(v).ok()?))).collect()
}

/// The limits of one type in all ranges.
fn limits_of<'a>(ranges: &'a [Value], kind: &'a str) -> impl Iterator<Item = &'a Value> {
    ranges
        .iter()
        .flat_map(|range| array(range, "/spec/limits"))
        .filter(move |limit| text(limit, "type") == kind)
}

/// Gives containers the requests and limits that they do not name.
pub(super) fn set_defaults(pod: &mut Value, ranges: &[Value]) {
    let mut notes = Vec::new();
    let (mut requests, mut limits) = (Map::new(), Map::new());
    for limit in limits_of(ranges, "Container") {
        for (field, out) in [("defaultRequest", &mut requests), ("default", &mut limits)] {
            out.extend(limit.get(field).and_then(Value::as_object).cloned().unwrap_or_default());
        }
    }
    for (field, what) in [("containers", "container"), ("initContainers", "init container")] {
        let list = pod.pointer_mut(&format!("/spec/{field}")).and_then(Value::as_array_mut);
        for container in list.into_iter().flatten() {
            let name = text(container, "name").to_string();
            for (part, defaults, word) in [("requests", &requests, "request"), ("limits", &limits, "limit")] {
                let mut set = Vec::new();
                for (resource, value) in defaults {
                    if container
                        .pointer(&format!("/resources/{part}"))
                        .is_none_or(|r| r.get(resource).is_none())
                    {
                        set_at(container, &["resources", part, resource], value.clone());
                        set.push(resource.as_str());
                    }
                }
                if !set.is_empty() {
                    notes.push(format!("{} {word} for {what} {name}", set.join(", ")));
                }
            }
        }
    }
    if !notes.is_empty() {
        let note = format!("LimitRanger plugin set: {}", notes.join("; "));
        set_at(pod, &["metadata", "annotations", ANNOTATION], note);
    }
}

fn usage(container: &Value) -> Usage {
    let of = |part: &str| quantities(container.pointer(&format!("/resources/{part}")));
    Usage { requests: of("requests"), limits: of("limits") }
}

/// What a pod uses: its containers together, or its greatest init container if that is more.
fn pod_usage(pod: &Value) -> Usage {
    let mut total = Usage::default();
    let sidecar = |c: &&Value| text(c, "restartPolicy") == "Always";
    let combine = |total: &mut Resources, part: Resources, with: fn(Quantity, Quantity) -> Quantity| {
        for (name, quantity) in part {
            let sum = total.get(&name).map_or(quantity, |old| with(*old, quantity));
            total.insert(name, sum);
        }
    };
    for container in array(pod, "/spec/containers").chain(array(pod, "/spec/initContainers").filter(sidecar))
    {
        let one = usage(container);
        combine(&mut total.requests, one.requests, |a, b| a + b);
        combine(&mut total.limits, one.limits, |a, b| a + b);
    }
    for container in array(pod, "/spec/initContainers").filter(|c| !sidecar(c)) {
        let one = usage(container);
        combine(&mut total.requests, one.requests, Ord::max);
        combine(&mut total.limits, one.limits, Ord::max);
    }
    total
}

/// What is wrong with a usage by one limit.
fn check(kind: &str, limit: &Value, usage: &Usage, out: &mut Vec<String>) {
    let of = |all: &Resources, name: &str| all.get(name).copied();
    for (name, least) in quantities(limit.get("min")) {
        let head = format!("minimum {name} usage per {kind} is {least}");
        match (of(&usage.requests, &name), of(&usage.limits, &name)) {
            (None, _) => out.push(format!("{head}.  No request is specified")),
            (Some(request), _) if request.nanos() < least.nanos() => {
                out.push(format!("{head}, but request is {request}"));
            }
            (_, Some(limit)) if limit.nanos() < least.nanos() => {
                out.push(format!("{head}, but limit is {limit}"))
            }
            _ => {}
        }
    }
    for (name, most) in quantities(limit.get("max")) {
        let head = format!("maximum {name} usage per {kind} is {most}");
        match (of(&usage.limits, &name), of(&usage.requests, &name)) {
            (None, _) => out.push(format!("{head}.  No limit is specified")),
            (Some(limit), _) if limit.nanos() > most.nanos() => {
                out.push(format!("{head}, but limit is {limit}"))
            }
            (_, Some(request)) if request.nanos() > most.nanos() => {
                out.push(format!("{head}, but request is {request}"));
            }
            _ => {}
        }
    }
    for (name, most) in quantities(limit.get("maxLimitRequestRatio")) {
        let head = format!("{name} max limit to request ratio per {kind} is {most}");
        let set = |all: &Resources| of(all, &name).filter(|q| !q.is_zero());
        match (set(&usage.requests), set(&usage.limits)) {
            (None, _) => out.push(format!("{head}, but no request is specified or request is 0")),
            (_, None) => out.push(format!("{head}, but no limit is specified or limit is 0")),
            (Some(request), Some(limit)) => {
                let ratio = limit.nanos() as f64 / request.nanos() as f64;
                if ratio > most.nanos() as f64 / 1e9 {
                    out.push(format!("{head}, but provided ratio is {ratio:.6}"));
                }
            }
        }
    }
}

/// Why the ranges of its namespace refuse a pod.
pub(super) fn pod_faults(pod: &Value, ranges: &[Value]) -> Vec<String> {
    let mut out = Vec::new();
    for limit in limits_of(ranges, "Container") {
        for container in array(pod, "/spec/containers").chain(array(pod, "/spec/initContainers")) {
            check("Container", limit, &usage(container), &mut out);
        }
    }
    for limit in limits_of(ranges, "Pod") {
        check("Pod", limit, &pod_usage(pod), &mut out);
    }
    out
}

/// Why the ranges of its namespace refuse a claim. A claim has requests alone.
pub(super) fn claim_faults(claim: &Value, ranges: &[Value]) -> Vec<String> {
    const KIND: &str = "PersistentVolumeClaim";
    let asked = quantities(claim.pointer("/spec/resources/requests"));
    let mut out = Vec::new();
    for limit in limits_of(ranges, KIND) {
        for (word, field) in [("minimum", "min"), ("maximum", "max")] {
            for (name, bound) in quantities(limit.get(field)) {
                let head = format!("{word} {name} usage per {KIND} is {bound}");
                match asked.get(&name) {
                    None => out.push(format!("{head}.  No request is specified")),
                    Some(request) => {
                        let beyond = match field {
                            "min" => request.nanos() < bound.nanos(),
                            _ => request.nanos() > bound.nanos(),
                        };
                        if beyond {
                            out.push(format!("{head}, but request is {request}"));
                        }
                    }
                }
            }
        }
    }
    out
}

/// Several faults as one text (`utilerrors.NewAggregate`).
pub(super) fn together(faults: &[String]) -> String {
    match faults {
        [one] => one.clone(),
        many => format!("[{}]", many.join(", ")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn pod(containers: Value) -> Value {
        json!({ "metadata": { "name": "p" }, "spec": { "containers": containers } })
    }

    #[test]
    fn defaults_fill_what_is_not_named() {
        let ranges = [json!({ "spec": { "limits": [{
            "type": "Container",
            "default": { "cpu": "1", "memory": "1Gi" }, "defaultRequest": { "cpu": "500m", "memory": "512Mi" },
        }] } })];
        let mut p =
            pod(json!([{ "name": "a" }, { "name": "b", "resources": { "requests": { "cpu": "1" } } }]));
        set_defaults(&mut p, &ranges);
        assert_eq!(
            p["spec"]["containers"],
            json!([
                { "name": "a", "resources": {
                    "limits": { "cpu": "1", "memory": "1Gi" }, "requests": { "cpu": "500m", "memory": "512Mi" } } },
                { "name": "b", "resources": {
                    "limits": { "cpu": "1", "memory": "1Gi" }, "requests": { "cpu": "1", "memory": "512Mi" } } },
            ])
        );
        assert_eq!(
            p["metadata"]["annotations"][ANNOTATION],
            "LimitRanger plugin set: cpu, memory request for container a; cpu, memory limit for container a; \
             memory request for container b; cpu, memory limit for container b"
        );
        let before = p.clone();
        set_defaults(&mut p, &ranges);
        assert_eq!(p, before);
    }

    #[test]
    fn bounds_refuse_with_the_words_of_upstream() {
        let of = |kind: &str, field: &str, value: Value| {
            [json!({ "spec": { "limits": [{ "type": kind, field: value }] } })]
        };
        let p = pod(json!([
            { "name": "a", "resources": { "requests": { "cpu": "1" }, "limits": { "cpu": "3" } } },
            { "name": "b", "resources": { "requests": { "cpu": "100m" } } },
        ]));
        let faults = |kind, field, value| pod_faults(&p, &of(kind, field, value));
        assert_eq!(
            faults("Container", "max", json!({ "cpu": "2" })),
            [
                "maximum cpu usage per Container is 2, but limit is 3",
                "maximum cpu usage per Container is 2.  No limit is specified",
            ]
        );
        assert_eq!(
            faults("Container", "min", json!({ "cpu": "500m" })),
            ["minimum cpu usage per Container is 500m, but request is 100m"]
        );
        assert_eq!(
            faults("Container", "maxLimitRequestRatio", json!({ "cpu": "2" })),
            [
                "cpu max limit to request ratio per Container is 2, but provided ratio is 3.000000",
                "cpu max limit to request ratio per Container is 2, but no limit is specified or limit is 0",
            ]
        );
        assert_eq!(
            faults("Pod", "min", json!({ "cpu": "1200m" })),
            ["minimum cpu usage per Pod is 1200m, but request is 1100m"]
        );
        assert!(faults("Pod", "min", json!({ "cpu": "1100m" })).is_empty());
        assert_eq!(
            faults("Pod", "min", json!({ "memory": "1" })),
            ["minimum memory usage per Pod is 1.  No request is specified"]
        );
        let claim = json!({ "spec": { "resources": { "requests": { "storage": "5Gi" } } } });
        assert_eq!(
            claim_faults(&claim, &of("PersistentVolumeClaim", "max", json!({ "storage": "2Gi" }))),
            ["maximum storage usage per PersistentVolumeClaim is 2Gi, but request is 5Gi"]
        );
        assert_eq!(together(&["a".into(), "b".into()]), "[a, b]");
    }
}
