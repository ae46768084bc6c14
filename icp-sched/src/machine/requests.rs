//! The requests that the machine makes.

use alloc::format;
use alloc::string::String;
use alloc::sync::Arc;
use alloc::vec::Vec;

use icp_core::api::labels::Selector;
use icp_core::api::{Object, reason, resources};
use icp_core::base::Time;
use icp_core::client::{ApiError, ApiRequest, DeleteOptions, ObjectKey, Operation, PatchKind};
use serde_json::{Value, json};

use crate::DisruptionBudget;
use crate::model::{Pod, SELECTED_NODE};

/// Binds a pod to a node. The uid makes it fail for another pod of that name.
pub(super) fn binding(pod: &Pod, node: &str) -> ApiRequest {
    let mut binding = Object::new("v1", "Binding", &pod.key.namespace, &pod.key.name);
    binding.metadata.uid.clone_from(&pod.uid);
    binding.rest.insert("target".into(), json!({"apiVersion": "v1", "kind": "Node", "name": node}));
    on_pod(&pod.key, Operation::Create(Arc::new(binding))).sub("binding")
}

/// Reads a pod, to learn what became of a binding.
pub(super) fn read(key: &ObjectKey) -> ApiRequest {
    on_pod(key, Operation::Get)
}

fn on_pod(key: &ObjectKey, op: Operation) -> ApiRequest {
    ApiRequest::object(&resources::PODS, &key.namespace, &key.name, op)
}

/// Writes the condition `PodScheduled` with status False, and the nominated node if that changes; nothing if the pod
/// says so already.
pub(super) fn not_scheduled(
    now: Time,
    object: &Object,
    why: &'static str,
    message: &str,
    nominated: Option<&str>,
) -> Option<ApiRequest> {
    let conditions = object.at("/status/conditions").and_then(Value::as_array);
    let is_ours = |c: &&Value| c.get("type").and_then(Value::as_str) == Some("PodScheduled");
    let old = conditions.and_then(|list| list.iter().find(is_ours));
    let text = |field: &str| old.and_then(|c| c.get(field)).and_then(Value::as_str).unwrap_or("");
    let told = text("status") == "False" && text("reason") == why && text("message") == message;
    let seated = nominated.is_none_or(|n| n == object.str_at("/status/nominatedNodeName"));
    if told && seated {
        return None;
    }
    let since = match text("status") {
        "False" if !text("lastTransitionTime").is_empty() => String::from(text("lastTransitionTime")),
        _ => now.to_rfc3339(),
    };
    let mut status = json!({"conditions": [{
        "type": "PodScheduled", "status": "False", "reason": why, "message": message,
        "lastProbeTime": null, "lastTransitionTime": since,
    }]});
    if let (Some(node), Some(map)) = (nominated, status.as_object_mut()) {
        map.insert("nominatedNodeName".into(), if node.is_empty() { Value::Null } else { json!(node) });
    }
    let body = json!({"metadata": {"uid": object.metadata.uid}, "status": status});
    let op = Operation::Patch { kind: PatchKind::Strategic, body, field_manager: None, force: false };
    Some(on_pod(&ObjectKey::of(object), op).sub("status"))
}

/// Writes the condition `PodGroupInitiallyScheduled`; nothing if the group says so already, or once said that it was
/// scheduled: that stays.
pub(super) fn group_scheduled(
    now: Time,
    group: &Object,
    scheduled: bool,
    reason: &'static str,
    message: &str,
) -> Option<ApiRequest> {
    const TYPE: &str = "PodGroupInitiallyScheduled";
    let conditions = group.at("/status/conditions").and_then(Value::as_array);
    let old = conditions.and_then(|list| list.iter().find(|c| c.get("type") == Some(&json!(TYPE))));
    let text = |field: &str| old.and_then(|c| c.get(field)).and_then(Value::as_str).unwrap_or("");
    let (status, before) = (if scheduled { "True" } else { "False" }, text("status"));
    if before == "True" || (before == status && text("reason") == reason && text("message") == message) {
        return None;
    }
    let since = if before == status { text("lastTransitionTime").into() } else { now.to_rfc3339() };
    let body = json!({"metadata": {"uid": group.metadata.uid}, "status": {"conditions": [{
        "type": TYPE, "status": status, "reason": reason, "message": message, "lastTransitionTime": since,
        "observedGeneration": group.metadata.generation,
    }]}});
    let op = Operation::Patch { kind: PatchKind::Strategic, body, field_manager: None, force: false };
    let meta = &group.metadata;
    Some(ApiRequest::object(&resources::POD_GROUPS, &meta.namespace, &meta.name, op).sub("status"))
}

/// Deletes a pod, and no other of that name.
pub(super) fn evict(victim: &Pod) -> ApiRequest {
    let uid = (!victim.uid.is_empty()).then(|| victim.uid.clone());
    on_pod(&victim.key, Operation::Delete(DeleteOptions { uid, ..DeleteOptions::default() }))
}

/// Writes why a pod is about to go.
pub(super) fn disrupted(now: Time, object: &Object, scheduler: &str) -> Option<ApiRequest> {
    let body = json!({"metadata": {"uid": object.metadata.uid}, "status": {"conditions": [{
        "type": "DisruptionTarget", "status": "True", "reason": "PreemptionByScheduler",
        "message": format!("{scheduler}: preempting to accommodate a higher priority pod"),
        "lastTransitionTime": now.to_rfc3339(),
    }]}});
    let op = Operation::Patch { kind: PatchKind::Strategic, body, field_manager: None, force: false };
    (!object.is_terminating()).then(|| on_pod(&ObjectKey::of(object), op).sub("status"))
}

/// Takes the nominated node out of a pod's status.
pub(super) fn no_nomination(object: &Object) -> ApiRequest {
    let body = json!({"metadata": {"uid": object.metadata.uid}, "status": {"nominatedNodeName": null}});
    let op = Operation::Patch { kind: PatchKind::Strategic, body, field_manager: None, force: false };
    on_pod(&ObjectKey::of(object), op).sub("status")
}

/// Keeps a volume for a claim; its controller completes the binding.
pub(super) fn keep(volume: &str, claim: &Object) -> ApiRequest {
    let body = json!({"spec": {"claimRef": {
        "apiVersion": "v1", "kind": "PersistentVolumeClaim", "namespace": claim.metadata.namespace,
        "name": claim.metadata.name, "uid": claim.metadata.uid, "resourceVersion": claim.metadata.resource_version,
    }}});
    let op = Operation::Patch { kind: PatchKind::Merge, body, field_manager: None, force: false };
    ApiRequest::object(&resources::PERSISTENT_VOLUMES, "", volume, op)
}

/// Asks for a volume for a claim that a node reaches.
pub(super) fn provision(claim: &Object, node: &str) -> ApiRequest {
    let body = json!({"metadata": {"uid": claim.metadata.uid, "annotations": {SELECTED_NODE: node}}});
    let op = Operation::Patch { kind: PatchKind::Merge, body, field_manager: None, force: false };
    let meta = &claim.metadata;
    ApiRequest::object(&resources::PERSISTENT_VOLUME_CLAIMS, &meta.namespace, &meta.name, op)
}

/// How many volumes of each driver a node takes (CSINode).
pub(super) fn limits(object: &Object) -> Vec<((String, String), i64)> {
    let drivers = object.at("/spec/drivers").and_then(Value::as_array).into_iter().flatten();
    let of = |d: &Value| {
        let driver = d.get("name")?.as_str()?.into();
        Some(((object.metadata.name.clone(), driver), d.pointer("/allocatable/count")?.as_i64()?))
    };
    drivers.filter_map(of).collect()
}

/// Reads a PodDisruptionBudget; nothing if its selector is not valid.
pub(super) fn budget(object: &Object) -> Option<DisruptionBudget> {
    let selector = Selector::from_label_selector(object.at("/spec/selector").unwrap_or(&Value::Null)).ok()?;
    let disrupted = object.at("/status/disruptedPods").and_then(Value::as_object);
    Some(DisruptionBudget {
        selector,
        allowed: object.at("/status/disruptionsAllowed").and_then(Value::as_i64).unwrap_or(0),
        disrupted: disrupted.into_iter().flat_map(|m| m.keys().cloned()).collect(),
    })
}

/// What the answer to a binding means.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Outcome {
    Bound,
    /// The pod is not there any more.
    Gone,
    Refused,
    Unknown,
}

pub(super) fn outcome<T>(answer: &Result<T, ApiError>) -> Outcome {
    match answer {
        Ok(_) => Outcome::Bound,
        Err(e) if e.is(reason::NOT_FOUND) => Outcome::Gone,
        Err(ApiError::Status(s)) if !matches!(s.code, 500 | 502 | 503 | 504) => Outcome::Refused,
        Err(_) => Outcome::Unknown,
    }
}
