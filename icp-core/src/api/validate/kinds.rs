//! The rules of each kind.

use alloc::collections::BTreeSet;
use alloc::format;
use alloc::string::ToString;
use alloc::vec::Vec;

use serde_json::Value;

use super::{faults, items, join, list, number, pod, pod_groups, service, text, workloads};
use crate::api::table::ResourceInfo;
use crate::api::{FieldError, Quantity, names};

/// Largest sum of the values of a config map or secret, in bytes (`MaxSecretSize`).
const DATA_BYTES_MAX: usize = 1024 * 1024;

/// Bytes of the values in a map of texts, or of what base64 values stand for.
fn data_bytes(object: &Value, field: &str, base64: bool) -> usize {
    let values = object.get(field).and_then(Value::as_object).into_iter().flatten();
    let bytes_of = |text: &str| match base64 {
        true => (text.len() / 4 * 3).saturating_sub(text.bytes().rev().take_while(|b| *b == b'=').count()),
        false => text.len(),
    };
    values.filter_map(|(_, v)| v.as_str()).map(bytes_of).sum()
}

pub(super) fn validate(info: &ResourceInfo, object: &Value, out: &mut Vec<FieldError>) {
    match info.kind.as_str() {
        "Pod" => match object.get("spec") {
            Some(spec) => pod::spec(spec, "spec", out),
            None => out.push(FieldError::required("spec.containers", "")),
        },
        "PodTemplate" => {
            if let Some(spec) = object.pointer("/template/spec") {
                pod::spec(spec, "template.spec", out);
            }
        }
        "Service" => service::service(object, out),
        "EndpointSlice" => service::endpoint_slice(object, out),
        "NetworkPolicy" => service::network_policy(object, out),
        "Ingress" => service::ingress(object, out),
        "ConfigMap" | "Secret" => {
            for field in ["data", "binaryData"] {
                for (key, _) in object.get(field).and_then(Value::as_object).into_iter().flatten() {
                    faults(out, &format!("{field}[{key}]"), key, names::config_key(key));
                }
            }
            let bytes = data_bytes(object, "data", info.kind == "Secret")
                + data_bytes(object, "binaryData", true)
                + data_bytes(object, "stringData", false);
            if bytes > DATA_BYTES_MAX {
                out.push(FieldError::too_long("[]", DATA_BYTES_MAX));
            }
            if info.kind == "Secret" {
                secret(object, out);
            }
        }
        "PersistentVolume" => volume(object, out),
        "PersistentVolumeClaim" => claim(object, out),
        "PodDisruptionBudget" => {
            workloads::disruption_budget(object.get("spec").unwrap_or(&Value::Null), out);
        }
        "HorizontalPodAutoscaler" => {
            let spec = object.get("spec").unwrap_or(&Value::Null);
            let (min, max) =
                (number(spec, "minReplicas").unwrap_or(1), number(spec, "maxReplicas").unwrap_or(0));
            if max < 1 {
                out.push(FieldError::invalid("spec.maxReplicas", max, "must be greater than 0"));
            }
            if min < 1 {
                out.push(FieldError::invalid("spec.minReplicas", min, "must be greater than or equal to 1"));
            }
            if max < min {
                let detail = "must be greater than or equal to `minReplicas`";
                out.push(FieldError::invalid("spec.maxReplicas", max, detail));
            }
        }
        "Role" | "ClusterRole" => {
            for (path, rule) in items(object, "", "rules") {
                rule_of(rule, &path, info.kind == "Role", out);
            }
        }
        "RoleBinding" | "ClusterRoleBinding" => binding(info, object, out),
        "PodGroup" => pod_groups::group(object, out),
        "Workload" => pod_groups::workload(object, out),
        "PriorityClass" => {
            let (name, value) = (
                object.pointer("/metadata/name").and_then(Value::as_str).unwrap_or(""),
                number(object, "value"),
            );
            if name.starts_with("system-")
                && !matches!(name, "system-node-critical" | "system-cluster-critical")
            {
                let detail = "priority class names with 'system-' prefix are reserved for system use only. error: only system priority classes may use it";
                out.push(FieldError::forbidden("metadata.name", detail));
            } else if let Some(n) = value.filter(|n| *n > 1_000_000_000 && !name.starts_with("system-")) {
                let detail =
                    format!("maximum allowed value of a user defined priority is 1000000000, got {n}");
                out.push(FieldError::forbidden("value", detail));
            }
        }
        "StorageClass" => {
            let name = text(object, "provisioner");
            if !name.is_empty() {
                faults(out, "provisioner", name, names::qualified_name(&name.to_lowercase()));
            }
        }
        "Lease" => {
            let spec = object.get("spec").unwrap_or(&Value::Null);
            if let Some(n) = number(spec, "leaseDurationSeconds").filter(|n| *n <= 0) {
                out.push(FieldError::invalid("spec.leaseDurationSeconds", n, "must be greater than 0"));
            }
            if let Some(n) = number(spec, "leaseTransitions").filter(|n| *n < 0) {
                out.push(FieldError::invalid(
                    "spec.leaseTransitions",
                    n,
                    "must be greater than or equal to 0",
                ));
            }
        }
        "ResourceQuota" => quantities(object.pointer("/spec/hard"), "spec.hard", out),
        "LimitRange" => {
            for (path, item) in object.get("spec").into_iter().flat_map(|s| items(s, "spec", "limits")) {
                for field in ["max", "min", "default", "defaultRequest"] {
                    quantities(item.get(field), &join(&path, field), out);
                }
            }
        }
        "CustomResourceDefinition" => super::custom::definition(object, out),
        _ => workloads::validate(info, object, out),
    }
}

fn quantities(map: Option<&Value>, path: &str, out: &mut Vec<FieldError>) {
    for (name, value) in map.and_then(Value::as_object).into_iter().flatten() {
        if Quantity::from_value(value).is_ok_and(Quantity::is_negative) {
            out.push(FieldError::invalid(
                format!("{path}[{name}]"),
                value.clone(),
                "must be greater than or equal to 0",
            ));
        }
    }
}

fn secret(object: &Value, out: &mut Vec<FieldError>) {
    let has = |key: &str| object.pointer("/data").and_then(|d| d.get(key)).is_some();
    let needs: &[&str] = match text(object, "type") {
        "kubernetes.io/tls" => &["tls.crt", "tls.key"],
        "kubernetes.io/dockerconfigjson" => &[".dockerconfigjson"],
        "kubernetes.io/dockercfg" => &[".dockercfg"],
        "kubernetes.io/ssh-auth" => &["ssh-privatekey"],
        _ => &[],
    };
    for key in needs.iter().filter(|k| !has(k)) {
        out.push(FieldError::required(format!("data[{key}]"), ""));
    }
    let account =
        object.pointer("/metadata/annotations").and_then(|a| a.get("kubernetes.io/service-account.name"));
    if text(object, "type") == "kubernetes.io/service-account-token" && account.is_none() {
        out.push(FieldError::required("metadata.annotations[kubernetes.io/service-account.name]", ""));
    }
}

fn volume(object: &Value, out: &mut Vec<FieldError>) {
    const PLAIN: &[&str] = &[
        "accessModes",
        "capacity",
        "claimRef",
        "mountOptions",
        "nodeAffinity",
        "persistentVolumeReclaimPolicy",
        "storageClassName",
        "volumeAttributesClassName",
        "volumeMode",
    ];
    let Some(spec) = object.get("spec").and_then(Value::as_object) else {
        out.push(FieldError::required("spec", ""));
        return;
    };
    for field in ["accessModes", "capacity"] {
        if spec.get(field).is_none() {
            out.push(FieldError::required(format!("spec.{field}"), ""));
        }
    }
    if spec.get("capacity").is_some_and(|c| c.get("storage").is_none()) {
        let all = spec.get("capacity").cloned().unwrap_or_default();
        out.push(FieldError::invalid("spec.capacity", all, "must specify storage"));
    }
    let sources: Vec<&str> = spec.keys().map(|k| k.as_str()).filter(|k| !PLAIN.contains(k)).collect();
    if sources.is_empty() {
        out.push(FieldError::required("spec", "must specify a volume type"));
    }
    for extra in sources.iter().skip(1) {
        out.push(FieldError::forbidden(format!("spec.{extra}"), "may not specify more than 1 volume type"));
    }
    if spec.contains_key("local") && !spec.contains_key("nodeAffinity") {
        out.push(FieldError::required("spec.nodeAffinity", "Local volume requires node affinity"));
    }
}

fn claim(object: &Value, out: &mut Vec<FieldError>) {
    let spec = object.get("spec").unwrap_or(&Value::Null);
    if list(spec, "accessModes").is_empty() {
        out.push(FieldError::required("spec.accessModes", "at least 1 access mode is required"));
    }
    match spec.pointer("/resources/requests/storage").map(Quantity::from_value) {
        None => out.push(FieldError::required("spec.resources[storage]", "")),
        Some(Ok(q)) if q.is_negative() || q.is_zero() => {
            out.push(FieldError::invalid(
                "spec.resources[storage]",
                q.to_string(),
                "must be greater than zero",
            ));
        }
        Some(_) => {}
    }
    workloads::selector(spec.get("selector"), "spec.selector", out);
}

fn rule_of(rule: &Value, path: &str, namespaced: bool, out: &mut Vec<FieldError>) {
    let (urls, resources) = (list(rule, "nonResourceURLs"), list(rule, "resources"));
    if !urls.is_empty() {
        if namespaced {
            let detail = "namespaced rules cannot apply to non-resource URLs";
            out.push(FieldError::invalid(join(path, "nonResourceURLs"), Value::from(urls.to_vec()), detail));
        }
        if !resources.is_empty() || !list(rule, "apiGroups").is_empty() {
            let detail = "rules cannot apply to both regular resources and non-resource URLs";
            out.push(FieldError::invalid(join(path, "nonResourceURLs"), Value::from(urls.to_vec()), detail));
        }
        return;
    }
    if list(rule, "apiGroups").is_empty() {
        out.push(FieldError::required(
            join(path, "apiGroups"),
            "resource rules must supply at least one api group",
        ));
    }
    if resources.is_empty() {
        out.push(FieldError::required(
            join(path, "resources"),
            "resource rules must supply at least one resource",
        ));
    }
}

fn binding(info: &ResourceInfo, object: &Value, out: &mut Vec<FieldError>) {
    const GROUP: &str = "rbac.authorization.k8s.io";
    let role = object.get("roleRef").unwrap_or(&Value::Null);
    let kinds: &[&str] = if info.kind == "RoleBinding" { &["ClusterRole", "Role"] } else { &["ClusterRole"] };
    if text(role, "apiGroup") != GROUP {
        out.push(FieldError::not_supported("roleRef.apiGroup", text(role, "apiGroup"), &[GROUP]));
    }
    let kind = text(role, "kind");
    if !kind.is_empty() && !kinds.contains(&kind) {
        out.push(FieldError::not_supported("roleRef.kind", kind, kinds));
    }
    for (path, subject) in items(object, "", "subjects") {
        match text(subject, "kind") {
            "ServiceAccount" => {
                let name = text(subject, "name");
                faults(out, &join(&path, "name"), name, names::dns1123_subdomain(name));
                if text(subject, "namespace").is_empty() {
                    out.push(FieldError::required(join(&path, "namespace"), ""));
                }
            }
            "User" | "Group" | "" => {}
            other => out.push(FieldError::not_supported(
                join(&path, "kind"),
                other,
                &["Group", "ServiceAccount", "User"],
            )),
        }
    }
}

/// Whether all texts of a list differ.
pub(super) fn distinct(values: &[&str]) -> bool {
    values.iter().collect::<BTreeSet<_>>().len() == values.len()
}
