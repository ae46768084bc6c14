//! What the server does to an object before validation: status isolation and generations.
//!
//! Follows `pkg/registry/*/strategy.go` upstream: `PrepareForCreate` and `PrepareForUpdate`.

use alloc::string::{String, ToString as _};

use serde_json::{Map, Value};

use super::ResourceInfo;

/// Fields of the metadata that only the server writes; an update keeps what is stored.
const SERVER_METADATA: &[&str] =
    &["uid", "creationTimestamp", "deletionTimestamp", "deletionGracePeriodSeconds", "selfLink"];

fn metadata(value: &mut Value) -> Option<&mut Map<String, Value>> {
    value.as_object_mut()?.entry("metadata").or_insert_with(|| Value::Object(Map::new())).as_object_mut()
}

/// Sets or removes a field to match another object.
fn copy_field(to: &mut Map<String, Value>, from: Option<&Map<String, Value>>, field: &str) {
    match from.and_then(|f| f.get(field)) {
        Some(v) => drop(to.insert(field.into(), v.clone())),
        None => drop(to.remove(field)),
    }
}

/// Prepares an object that is to be created: removes `status` where a status subresource exists, removes what
/// only the server writes, and sets the first generation. The caller then sets name, namespace, uid and
/// creationTimestamp.
pub fn prepare_create(info: &ResourceInfo, object: &mut Value) {
    if let Some(meta) = metadata(object) {
        for field in SERVER_METADATA.iter().chain(&["generation", "resourceVersion"]) {
            meta.remove(*field);
        }
        if info.strategy.generation {
            meta.insert("generation".into(), 1.into());
        }
    }
    let keeps_status =
        matches!(info.kind.as_str(), "Namespace" | "PersistentVolume" | "PersistentVolumeClaim");
    if let Some(map) = object.as_object_mut().filter(|_| info.strategy.status) {
        // Nodes register themselves with their status; so upstream keeps it.
        if info.kind != "Node" {
            map.remove("status");
        }
        let phase = match info.kind.as_str() {
            "Namespace" => "Active",
            _ => "Pending",
        };
        if keeps_status {
            map.insert("status".into(), serde_json::json!({ "phase": phase }));
        }
        if info.kind == "Pod" {
            map.insert("status".into(), serde_json::json!({ "phase": "Pending" }));
        }
    }
    if info.kind == "Namespace"
        && info.gvr.group.is_empty()
        && let Some(map) = object.as_object_mut()
    {
        map.insert("spec".into(), serde_json::json!({ "finalizers": ["kubernetes"] }));
    }
}

/// Gives a new Job, which has its name and uid, a selector and labels that only its own pods have, unless it brings its
/// own (`generateSelector` of `pkg/registry/batch/job`).
pub fn select_own_pods(info: &ResourceInfo, job: &mut Value) {
    if info.kind != "Job"
        || info.gvr.group != "batch"
        || job.pointer("/spec/manualSelector") == Some(&true.into())
    {
        return;
    }
    let text = |field: &str| job.pointer(field).and_then(Value::as_str).unwrap_or_default().to_string();
    let (name, uid) = (text("/metadata/name"), text("/metadata/uid"));
    for (label, value) in [("controller-uid", &uid), ("job-name", &name)] {
        for prefix in ["", "batch.kubernetes.io/"] {
            let label = alloc::format!("{prefix}{label}");
            crate::api::set_at(job, &["spec", "template", "metadata", "labels", &label], value.as_str());
        }
    }
    crate::api::set_at(job, &["spec", "selector", "matchLabels", "batch.kubernetes.io/controller-uid"], uid);
}

/// Prepares an object that is to replace `old`: keeps what only the server writes, keeps `status` (or, through
/// the `status` subresource, everything else), and counts the generation up if the desired state changed.
pub fn prepare_update(info: &ResourceInfo, subresource: Option<&str>, new: &mut Value, old: &Value) {
    let old_map = old.as_object();
    let old_meta = old.get("metadata").and_then(Value::as_object);
    if let Some(map) = new.as_object_mut() {
        match subresource {
            Some("status") => {
                let keep: alloc::vec::Vec<_> =
                    map.keys().filter(|k| !matches!(k.as_str(), "status" | "metadata")).cloned().collect();
                keep.iter().for_each(|k| drop(map.remove(k)));
                for (k, v) in old_map.into_iter().flatten() {
                    if !matches!(k.as_str(), "status" | "metadata") {
                        map.insert(k.clone(), v.clone());
                    }
                }
            }
            // A binding writes the node and the condition that tells of it, at once.
            Some("binding") => {}
            _ if info.strategy.status => copy_field(map, old_map, "status"),
            _ => {}
        }
    }
    let changed = info.strategy.generation && desired(new) != desired(old);
    if let Some(meta) = metadata(new) {
        for field in SERVER_METADATA.iter().chain(&["generation"]) {
            copy_field(meta, old_meta, field);
        }
        if subresource == Some("status") {
            // Upstream keeps the stored labels and annotations of most kinds only by validation; owner
            // references and finalizers never change through status.
            copy_field(meta, old_meta, "ownerReferences");
            copy_field(meta, old_meta, "finalizers");
        }
        if changed {
            let generation = meta.get("generation").and_then(Value::as_i64).unwrap_or(0);
            meta.insert("generation".into(), (generation + 1).into());
        }
    }
}

/// The part of an object whose change counts as a new generation.
fn desired(object: &Value) -> Map<String, Value> {
    let mut map = object.as_object().cloned().unwrap_or_default();
    for field in ["metadata", "status", "apiVersion", "kind"] {
        map.remove(field);
    }
    map
}

#[cfg(test)]
mod tests {
    use super::super::find;
    use super::*;
    use serde_json::json;

    #[test]
    fn status_is_isolated() {
        let info = find("apps", "v1", "deployments").unwrap();
        let mut new =
            json!({"metadata":{"generation":99,"uid":"x"},"spec":{"replicas":1},"status":{"replicas":9}});
        prepare_create(info, &mut new);
        assert_eq!(new, json!({"metadata":{"generation":1},"spec":{"replicas":1}}));

        let old =
            json!({"metadata":{"generation":1,"uid":"u"},"spec":{"replicas":1},"status":{"replicas":1}});
        let mut put = json!({"metadata":{"uid":"z"},"spec":{"replicas":2},"status":{"replicas":7}});
        prepare_update(info, None, &mut put, &old);
        assert_eq!(
            put,
            json!({"metadata":{"generation":2,"uid":"u"},"spec":{"replicas":2},"status":{"replicas":1}})
        );
        let mut status = json!({"metadata":{"uid":"z"},"spec":{"replicas":2},"status":{"replicas":7}});
        prepare_update(info, Some("status"), &mut status, &old);
        assert_eq!(
            status,
            json!({"metadata":{"generation":1,"uid":"u"},"spec":{"replicas":1},"status":{"replicas":7}})
        );
    }
}
