//! Fields that an update may not change.

use alloc::format;
use alloc::vec::Vec;

use serde_json::Value;

use super::{flag, list, pod_groups, text};
use crate::api::FieldError;
use crate::api::table::ResourceInfo;

const IMMUTABLE: &str = "field is immutable";

/// Group-less kind and the path of the field.
const FIELDS: &[(&str, &str)] = &[
    ("Deployment", "/spec/selector"),
    ("ReplicaSet", "/spec/selector"),
    ("DaemonSet", "/spec/selector"),
    ("Job", "/spec/selector"),
    ("Job", "/spec/completionMode"),
    ("Job", "/spec/podFailurePolicy"),
    ("Job", "/spec/backoffLimitPerIndex"),
    ("Job", "/spec/managedBy"),
    ("ControllerRevision", "/data"),
    ("Secret", "/type"),
    ("EndpointSlice", "/addressType"),
    ("RuntimeClass", "/handler"),
    ("IngressClass", "/spec/controller"),
    ("StorageClass", "/volumeBindingMode"),
    ("ResourceClaim", "/spec"),
    ("ResourceClaimTemplate", "/spec"),
    ("VolumeAttachment", "/spec"),
    ("IPAddress", "/spec/parentRef"),
    ("CustomResourceDefinition", "/spec/group"),
    ("CustomResourceDefinition", "/spec/scope"),
];

fn dotted(pointer: &str) -> alloc::string::String {
    pointer.trim_start_matches('/').replace('/', ".")
}

/// The object without the parts at some pointers.
fn without(object: &Value, pointers: &[&str]) -> Value {
    let mut out = object.clone();
    for pointer in pointers {
        if let Some((parent, last)) = pointer.rsplit_once('/')
            && let Some(map) = out.pointer_mut(parent).and_then(Value::as_object_mut)
        {
            map.remove(last);
        }
    }
    out
}

pub(super) fn update(info: &ResourceInfo, new: &Value, old: &Value, out: &mut Vec<FieldError>) {
    if info.is_custom() {
        return;
    }
    let kind = info.kind.as_str();
    for (_, pointer) in FIELDS.iter().filter(|(k, _)| *k == kind) {
        let value = new.pointer(pointer);
        if value != old.pointer(pointer) {
            out.push(FieldError::invalid(dotted(pointer), value.cloned().unwrap_or_default(), IMMUTABLE));
        }
    }
    match kind {
        "Pod" => pod(new, old, out),
        "PodGroup" => pod_groups::group_update(new, old, out),
        "Workload" => pod_groups::workload_update(new, old, out),
        "StatefulSet" => {
            let free = [
                "/spec/replicas",
                "/spec/template",
                "/spec/updateStrategy",
                "/spec/revisionHistoryLimit",
                "/spec/persistentVolumeClaimRetentionPolicy",
                "/spec/minReadySeconds",
                "/spec/ordinals",
            ];
            if without(new, &free).get("spec") != without(old, &free).get("spec") {
                let detail = "updates to statefulset spec for fields other than 'replicas', 'ordinals', 'template', 'updateStrategy', 'revisionHistoryLimit', 'persistentVolumeClaimRetentionPolicy' and 'minReadySeconds' are forbidden";
                out.push(FieldError::forbidden("spec", detail));
            }
        }
        "Job" => {
            let at = |v: &Value, p: &str| v.pointer(p).cloned();
            let indexed = old.pointer("/spec/completionMode").and_then(Value::as_str) == Some("Indexed");
            if at(new, "/spec/completions") != at(old, "/spec/completions") {
                // An indexed job may grow and shrink if parallelism goes with it.
                let together = at(new, "/spec/completions") == at(new, "/spec/parallelism");
                if !(indexed && together) {
                    let value = at(new, "/spec/completions").unwrap_or_default();
                    out.push(FieldError::invalid("spec.completions", value, IMMUTABLE));
                }
            }
            let unstarted = old.pointer("/spec/suspend").and_then(Value::as_bool) == Some(true)
                && old.pointer("/status/startTime").is_none();
            if !unstarted && at(new, "/spec/template") != at(old, "/spec/template") {
                let value = at(new, "/spec/template").unwrap_or_default();
                out.push(FieldError::invalid("spec.template", value, IMMUTABLE));
            }
        }
        "Service" => service(new, old, out),
        "ConfigMap" | "Secret" if flag(old, "immutable") => {
            if !flag(new, "immutable") {
                out.push(FieldError::forbidden("immutable", "field is immutable when `immutable` is set"));
            }
            for field in ["data", "binaryData"] {
                if new.get(field) != old.get(field) {
                    out.push(FieldError::forbidden(field, "field is immutable when `immutable` is set"));
                }
            }
        }
        "RoleBinding" | "ClusterRoleBinding" if new.get("roleRef") != old.get("roleRef") => {
            let value = new.get("roleRef").cloned().unwrap_or_default();
            out.push(FieldError::invalid("roleRef", value, "cannot change roleRef"));
        }
        "StorageClass" => {
            for field in ["parameters", "provisioner", "reclaimPolicy"] {
                if new.get(field) != old.get(field) {
                    out.push(FieldError::forbidden(field, format!("updates to {field} are forbidden.")));
                }
            }
        }
        "PriorityClass" => {
            for field in ["value", "preemptionPolicy"] {
                if new.get(field) != old.get(field) {
                    out.push(FieldError::forbidden(field, "may not be changed in an update."));
                }
            }
        }
        "CertificateSigningRequest" if new.get("spec") != old.get("spec") => {
            out.push(FieldError::invalid("spec", new.get("spec").cloned().unwrap_or_default(), IMMUTABLE));
        }
        "PersistentVolume" => {
            let free = [
                "/spec/capacity",
                "/spec/accessModes",
                "/spec/claimRef",
                "/spec/persistentVolumeReclaimPolicy",
                "/spec/storageClassName",
                "/spec/mountOptions",
                "/spec/nodeAffinity",
                "/spec/volumeAttributesClassName",
                "/spec/volumeMode",
            ];
            if without(new, &free).get("spec") != without(old, &free).get("spec") {
                let detail = "spec.persistentvolumesource is immutable after creation";
                out.push(FieldError::forbidden("spec.persistentvolumesource", detail));
            }
            if new.pointer("/spec/volumeMode") != old.pointer("/spec/volumeMode") {
                let value = new.pointer("/spec/volumeMode").cloned().unwrap_or_default();
                out.push(FieldError::invalid("spec.volumeMode", value, IMMUTABLE));
            }
        }
        "PersistentVolumeClaim" => claim(new, old, out),
        "Node" => {
            let old_cidr = old.pointer("/spec/podCIDR").and_then(Value::as_str).unwrap_or("");
            if !old_cidr.is_empty() && new.pointer("/spec/podCIDR") != old.pointer("/spec/podCIDR") {
                let detail = "node updates may not change podCIDR except from \"\" to valid";
                out.push(FieldError::forbidden("spec.podCIDRs", detail));
            }
            let old_id = old.pointer("/spec/providerID").and_then(Value::as_str).unwrap_or("");
            if !old_id.is_empty() && new.pointer("/spec/providerID") != old.pointer("/spec/providerID") {
                let detail = "node updates may not change providerID except from \"\" to valid";
                out.push(FieldError::forbidden("spec.providerID", detail));
            }
        }
        _ => {}
    }
}

/// A pod may get another image, a deadline, more tolerations; a gated pod may lose gates and gain node rules.
fn pod(new: &Value, old: &Value, out: &mut Vec<FieldError>) {
    let (empty, mut new_spec, mut old_spec) =
        (Value::Null, new.get("spec").cloned(), old.get("spec").cloned());
    let count = |spec: &Option<Value>, field: &str| list(spec.as_ref().unwrap_or(&empty), field).len();
    for field in ["containers", "initContainers"] {
        if count(&new_spec, field) != count(&old_spec, field) {
            out.push(FieldError::forbidden(
                format!("spec.{field}"),
                "pod updates may not add or remove containers",
            ));
            return;
        }
    }
    let tolerations = |spec: &Option<Value>| list(spec.as_ref().unwrap_or(&empty), "tolerations").to_vec();
    let (kept, all) = (tolerations(&old_spec), tolerations(&new_spec));
    // A toleration may get a shorter time, everything else must stay.
    let plain = |t: &Value| without(t, &["/tolerationSeconds"]);
    let missing = kept.iter().any(|t| !all.iter().any(|n| plain(n) == plain(t)));
    let gated = !list(old_spec.as_ref().unwrap_or(&empty), "schedulingGates").is_empty();
    for spec in [&mut new_spec, &mut old_spec] {
        let Some(map) = spec.as_mut().and_then(Value::as_object_mut) else { continue };
        for field in
            ["activeDeadlineSeconds", "terminationGracePeriodSeconds", "tolerations", "schedulingGates"]
        {
            map.remove(field);
        }
        // Pods that wait at a gate may still be steered; ephemeral containers and resizes have subresources.
        if gated {
            map.remove("nodeSelector");
            map.remove("affinity");
        }
        for field in ["containers", "initContainers"] {
            for c in map.get_mut(field).and_then(Value::as_array_mut).into_iter().flatten() {
                if let Some(c) = c.as_object_mut() {
                    c.remove("image");
                    c.remove("imagePullPolicy");
                }
            }
        }
    }
    if new_spec != old_spec || missing {
        let detail = "pod updates may not change fields other than `spec.containers[*].image`,`spec.initContainers[*].image`,`spec.activeDeadlineSeconds`,`spec.tolerations` (only additions to existing tolerations),`spec.terminationGracePeriodSeconds` (allow it to be set to 1 if it was previously negative)";
        out.push(FieldError::forbidden("spec", detail));
    }
    let gates = |v: &Value| list(v.get("spec").unwrap_or(&Value::Null), "schedulingGates").to_vec();
    let old_gates = gates(old);
    for gate in gates(new).iter().filter(|g| !old_gates.contains(g)) {
        let name = text(gate, "name");
        let detail = format!("only deletion is allowed, but found new scheduling gate '{name}'");
        out.push(FieldError::forbidden("spec.schedulingGates", detail));
    }
}

fn service(new: &Value, old: &Value, out: &mut Vec<FieldError>) {
    let spec = |v: &Value| v.get("spec").cloned().unwrap_or_default();
    let (new, old) = (spec(new), spec(old));
    let (before, after) = (text(&old, "clusterIP"), text(&new, "clusterIP"));
    let to_name = text(&new, "type") == "ExternalName" || text(&old, "type") == "ExternalName";
    if !before.is_empty() && before != after && !to_name {
        let value = new.get("clusterIPs").cloned().unwrap_or_else(|| after.into());
        out.push(FieldError::invalid("spec.clusterIPs[0]", value, "may not change once set"));
    }
}

fn claim(new: &Value, old: &Value, out: &mut Vec<FieldError>) {
    let free = [
        "/spec/resources/requests",
        "/spec/resources/limits",
        "/spec/resources",
        "/spec/volumeAttributesClassName",
    ];
    let (mut a, mut b) = (without(new, &free), without(old, &free));
    // Binding sets the volume; a default class may come late.
    for (field, pointer) in
        [("volumeName", "/spec/volumeName"), ("storageClassName", "/spec/storageClassName")]
    {
        if old.pointer(pointer).is_none_or(|v| v.as_str() == Some("")) {
            for v in [&mut a, &mut b] {
                if let Some(spec) = v.get_mut("spec").and_then(Value::as_object_mut) {
                    spec.remove(field);
                }
            }
        }
    }
    if a.get("spec") != b.get("spec") {
        let detail = "spec is immutable after creation except resources.requests and volumeAttributesClassName for bound claims";
        out.push(FieldError::forbidden("spec", detail));
    }
    let size = |v: &Value| {
        v.pointer("/spec/resources/requests/storage").and_then(|q| crate::api::Quantity::from_value(q).ok())
    };
    if let (Some(a), Some(b)) = (size(new), size(old))
        && a < b
    {
        let detail = "field can not be less than status.capacity";
        out.push(FieldError::forbidden("spec.resources.requests.storage", detail));
    }
}
