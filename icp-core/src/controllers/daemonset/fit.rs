//! Which nodes a template fits.

use alloc::vec::Vec;

use serde::Deserialize;
use serde_json::{Map, Value, json};

use crate::api::{Object, labels::Selector, set_at};
use crate::controllers::node::{Taint, Toleration, taints_of};

/// Taints that a DaemonSet's pod stands (`AddOrUpdateDaemonPodTolerations`).
const TOLERATED: [(&str, &str); 6] = [
    ("node.kubernetes.io/not-ready", "NoExecute"),
    ("node.kubernetes.io/unreachable", "NoExecute"),
    ("node.kubernetes.io/disk-pressure", "NoSchedule"),
    ("node.kubernetes.io/memory-pressure", "NoSchedule"),
    ("node.kubernetes.io/pid-pressure", "NoSchedule"),
    ("node.kubernetes.io/unschedulable", "NoSchedule"),
];

/// What a node means to a template.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Fit {
    /// A pod shall run there.
    pub(super) run: bool,
    /// A pod that is there may stay.
    pub(super) stay: bool,
}

/// Adds the tolerations of daemons to the spec of a pod.
pub(super) fn tolerate(spec: &mut Value) {
    let mut all: Vec<Value> = spec.get("tolerations").and_then(Value::as_array).cloned().unwrap_or_default();
    let host = spec.get("hostNetwork") == Some(&Value::Bool(true));
    let network = host.then_some(("node.kubernetes.io/network-unavailable", "NoSchedule"));
    for (key, effect) in TOLERATED.into_iter().chain(network) {
        let new = json!({"key": key, "operator": "Exists", "effect": effect});
        if !all.contains(&new) {
            all.push(new);
        }
    }
    set_at(spec, &["tolerations"], all);
}

/// Binds the spec of a pod to a node by its affinity; other required terms of the template were looked at already
/// (`ReplaceDaemonSetPodNodeNameNodeAffinity`).
pub(super) fn pin(spec: &mut Value, node: &str) {
    const REQUIRED: &str = "requiredDuringSchedulingIgnoredDuringExecution";
    let terms = json!([{"matchFields": [{"key": "metadata.name", "operator": "In", "values": [node]}]}]);
    set_at(spec, &["affinity", "nodeAffinity", REQUIRED, "nodeSelectorTerms"], terms);
}

/// The node of a pod: where it is bound, or where its affinity wants it.
pub(super) fn node_of(pod: &Object) -> &str {
    match pod.str_at("/spec/nodeName") {
        "" => pod.str_at(
            "/spec/affinity/nodeAffinity/requiredDuringSchedulingIgnoredDuringExecution/nodeSelectorTerms/0\
             /matchFields/0/values/0",
        ),
        node => node,
    }
}

fn requirement(labels: &Object, requirement: &Value, field: bool) -> bool {
    let text = |key: &str| requirement.get(key).and_then(Value::as_str).unwrap_or_default();
    let (key, op) = (text("key"), text("operator"));
    let value = match field {
        true => (key == "metadata.name").then_some(labels.metadata.name.as_str()),
        false => labels.metadata.labels.get(key).map(alloc::string::String::as_str),
    };
    if matches!(op, "Gt" | "Lt") {
        let bound = requirement.pointer("/values/0").and_then(Value::as_str);
        let numbers = (value.and_then(|v| v.parse::<i64>().ok()), bound.and_then(|b| b.parse::<i64>().ok()));
        return match numbers {
            (Some(value), Some(bound)) if op == "Gt" => value > bound,
            (Some(value), Some(bound)) => value < bound,
            _ => false,
        };
    }
    let selector = json!({"matchExpressions": [{
        "key": "k", "operator": op, "values": requirement.get("values").cloned().unwrap_or_else(|| json!([])),
    }]});
    let labels = value.map(|v| ("k".into(), v.into())).into_iter().collect();
    // Names of nodes are no label values; a field that is one of them is compared as such.
    Selector::from_label_selector(&selector).is_ok_and(|s| s.matches(&labels))
}

fn affinity(spec: &Value, node: &Object) -> bool {
    let empty = Map::new();
    let selector = spec.get("nodeSelector").and_then(Value::as_object).unwrap_or(&empty);
    let selected = selector
        .iter()
        .all(|(k, v)| node.metadata.labels.get(k).map(alloc::string::String::as_str) == v.as_str());
    let terms = spec
        .pointer("/affinity/nodeAffinity/requiredDuringSchedulingIgnoredDuringExecution/nodeSelectorTerms")
        .and_then(Value::as_array);
    let all = |term: &Value, part: &str, field: bool| {
        let list = term.get(part).and_then(Value::as_array);
        list.into_iter().flatten().all(|r| requirement(node, r, field))
    };
    let term = |t: &Value| {
        // A term that asks for nothing matches nothing.
        t.as_object().is_some_and(|m| !m.is_empty())
            && all(t, "matchExpressions", false)
            && all(t, "matchFields", true)
    };
    selected && terms.is_none_or(|terms| terms.iter().any(term))
}

/// What `node` means to pods of this spec (`NodeShouldRunDaemonPod`).
pub(super) fn fit(spec: &Value, node: &Object) -> Fit {
    let named =
        spec.get("nodeName").and_then(Value::as_str).is_none_or(|n| n.is_empty() || n == node.metadata.name);
    if !named || !affinity(spec, node) {
        return Fit { run: false, stay: false };
    }
    let mut spec = spec.clone();
    tolerate(&mut spec);
    let tolerations: Vec<Toleration> =
        spec.get("tolerations").and_then(|t| Vec::deserialize(t).ok()).unwrap_or_default();
    let stands = |taint: &Taint| tolerations.iter().any(|t| t.tolerates(taint));
    let taints = taints_of(node);
    let none = |effects: &[&str]| !taints.iter().any(|t| effects.contains(&t.effect.as_str()) && !stands(t));
    Fit { run: none(&["NoSchedule", "NoExecute"]), stay: none(&["NoExecute"]) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nodes_are_chosen_by_labels_affinity_and_taints() {
        let mut node = Object::new("v1", "Node", "", "w1");
        node.metadata.labels.insert("disk".into(), "ssd".into());
        node.metadata.labels.insert("cores".into(), "8".into());
        let run = |spec: Value, node: &Object| (fit(&spec, node).run, fit(&spec, node).stay);
        let terms = |terms: Value| json!({"affinity": {"nodeAffinity": {"requiredDuringSchedulingIgnoredDuringExecution": {"nodeSelectorTerms": terms}}}});
        let yes = (true, true);
        assert_eq!(run(json!({}), &node), yes);
        assert_eq!(run(json!({"nodeSelector": {"disk": "ssd"}}), &node), yes);
        assert_eq!(run(json!({"nodeSelector": {"disk": "hdd"}}), &node), (false, false));
        let cores = |op: &str, n: &str| {
            terms(json!([{"matchExpressions": [{"key": "cores", "operator": op, "values": [n]}]}]))
        };
        assert_eq!(run(cores("Gt", "4"), &node), yes);
        assert_eq!(run(cores("Lt", "8"), &node), (false, false));
        assert_eq!(run(terms(json!([{}])), &node), (false, false));
        let mut pinned = json!({});
        pin(&mut pinned, "w1");
        assert_eq!(run(pinned.clone(), &node), yes);
        let other = Object::new("v1", "Node", "", "w2");
        assert_eq!(run(pinned, &other), (false, false));
        for (taint, want) in [
            (json!({"key": "node.kubernetes.io/unschedulable", "effect": "NoSchedule"}), yes),
            (json!({"key": "team", "value": "red", "effect": "NoSchedule"}), (false, true)),
            (json!({"key": "team", "value": "red", "effect": "NoExecute"}), (false, false)),
            (json!({"key": "team", "effect": "PreferNoSchedule"}), yes),
        ] {
            node.rest.insert("spec".into(), json!({"taints": [taint]}));
            assert_eq!(run(json!({}), &node), want);
        }
    }
}
