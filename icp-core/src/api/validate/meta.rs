//! Metadata (`k8s.io/apimachinery/pkg/api/validation/objectmeta.go`).

use alloc::format;
use alloc::string::String;
use alloc::vec::Vec;

use serde_json::Value;

use super::{faults, flag, items, text};
use crate::api::table::ResourceInfo;
use crate::api::{FieldError, names};
use crate::base::limits::ANNOTATION_BYTES_MAX;

/// The rule of names of a kind.
fn name_faults(info: &ResourceInfo, name: &str) -> Vec<String> {
    match info.kind.as_str() {
        "Namespace" => names::dns1123_label(name),
        "Service" => names::dns1035_label(name),
        "Role" | "ClusterRole" | "RoleBinding" | "ClusterRoleBinding" | "FlowSchema" => {
            names::path_segment(name)
        }
        // A bundle is named after its signer, with a colon: `example.com:signer:name`.
        "ClusterTrustBundle" => {
            let last = name.rsplit(':').next().unwrap_or(name);
            names::dns1123_subdomain(last)
        }
        "IPAddress" if name.parse::<core::net::IpAddr>().is_err() => {
            alloc::vec!["must be a valid IP address, (e.g. 10.9.8.7 or 2001:db8::ffff)".into()]
        }
        "IPAddress" => Vec::new(),
        _ => names::dns1123_subdomain(name),
    }
}

pub(super) fn labels(out: &mut Vec<FieldError>, labels: Option<&Value>, path: &str) {
    for (key, value) in labels.and_then(Value::as_object).into_iter().flatten() {
        faults(out, path, key, names::qualified_name(key));
        let value = value.as_str().unwrap_or_default();
        faults(out, path, value, names::label_value(value));
    }
}

pub(super) fn annotations(out: &mut Vec<FieldError>, annotations: Option<&Value>, path: &str) {
    let mut total = 0;
    for (key, value) in annotations.and_then(Value::as_object).into_iter().flatten() {
        faults(out, path, key, names::qualified_name(&key.to_lowercase()));
        total += key.len() + value.as_str().map_or(0, str::len);
    }
    if total > ANNOTATION_BYTES_MAX {
        out.push(FieldError::too_long(path, ANNOTATION_BYTES_MAX));
    }
}

fn common(meta: &Value, out: &mut Vec<FieldError>) {
    labels(out, meta.get("labels"), "metadata.labels");
    annotations(out, meta.get("annotations"), "metadata.annotations");
    let mut controllers = 0;
    for (path, owner) in items(meta, "metadata", "ownerReferences") {
        for field in ["apiVersion", "kind", "name", "uid"] {
            if text(owner, field).is_empty() {
                let detail =
                    if field == "apiVersion" { "version must not be empty" } else { "must not be empty" };
                out.push(FieldError::invalid(format!("{path}.{field}"), "", detail));
            }
        }
        controllers += u32::from(flag(owner, "controller"));
    }
    if controllers > 1 {
        let all = meta.get("ownerReferences").cloned().unwrap_or_default();
        let detail = "Only one reference can have Controller set to true.";
        out.push(FieldError::invalid("metadata.ownerReferences", all, detail));
    }
    for finalizer in super::list(meta, "finalizers").iter().filter_map(Value::as_str) {
        faults(out, "metadata.finalizers", finalizer, names::qualified_name(finalizer));
    }
}

pub(super) fn create(info: &ResourceInfo, object: &Value, out: &mut Vec<FieldError>) {
    let meta = object.get("metadata").unwrap_or(&Value::Null);
    let (name, prefix) = (text(meta, "name"), text(meta, "generateName"));
    // Reviews and bindings are answered, not stored.
    if info.has_verb("get") {
        if !prefix.is_empty() {
            // The server completes the prefix, so it may end in a dash.
            let sample = format!("{}a", prefix.strip_suffix('-').unwrap_or(prefix));
            faults(out, "metadata.generateName", prefix, name_faults(info, &sample));
        }
        if name.is_empty() {
            out.push(FieldError::required("metadata.name", "name or generateName is required"));
        } else {
            faults(out, "metadata.name", name, name_faults(info, name));
        }
        let namespace = text(meta, "namespace");
        if info.namespaced && namespace.is_empty() {
            out.push(FieldError::required("metadata.namespace", ""));
        } else if info.namespaced {
            faults(out, "metadata.namespace", namespace, names::dns1123_label(namespace));
        } else if !namespace.is_empty() {
            out.push(FieldError::forbidden("metadata.namespace", "not allowed on this type"));
        }
    }
    common(meta, out);
}

pub(super) fn update(info: &ResourceInfo, new: &Value, old: &Value, out: &mut Vec<FieldError>) {
    let (empty, path) = (Value::Null, |f: &str| format!("metadata.{f}"));
    let (new, old) = (new.get("metadata").unwrap_or(&empty), old.get("metadata").unwrap_or(&empty));
    for field in ["name", "namespace", "uid", "creationTimestamp"] {
        if text(new, field) != text(old, field) && (field != "namespace" || info.namespaced) {
            let value = new.get(field).cloned().unwrap_or_default();
            out.push(FieldError::invalid(path(field), value, "field is immutable"));
        }
    }
    if !text(old, "deletionTimestamp").is_empty() {
        let added: Vec<&str> = super::list(new, "finalizers")
            .iter()
            .filter(|f| !super::list(old, "finalizers").contains(f))
            .filter_map(Value::as_str)
            .collect();
        if !added.is_empty() {
            let detail = format!(
                "no new finalizers can be added if the object is being deleted, found new finalizers {added:?}"
            );
            out.push(FieldError::forbidden(path("finalizers"), detail));
        }
    }
    common(new, out);
}
