//! Resources of a custom resource definition.

use alloc::format;
use alloc::string::{String, ToString};
use alloc::sync::Arc;
use alloc::vec::Vec;

use serde_json::Value;

use super::{ResourceInfo, ScalePaths, SchemaSource, Strategy, SubresourceInfo, rows, words};
use crate::api::{Gvk, Gvr};

fn text<'v>(value: &'v Value, pointer: &str) -> &'v str {
    value.pointer(pointer).and_then(Value::as_str).unwrap_or("")
}

fn texts(value: &Value, pointer: &str) -> Vec<String> {
    let list = value.pointer(pointer).and_then(Value::as_array).into_iter().flatten();
    list.filter_map(Value::as_str).map(ToString::to_string).collect()
}

fn sub(name: &str, gvk: Gvk) -> SubresourceInfo {
    SubresourceInfo { name: name.into(), gvk, verbs: words("get,patch,update") }
}

/// The resources that a CustomResourceDefinition (`apiextensions.k8s.io/v1`) serves, one a served version. Names
/// come from `status.acceptedNames`, or from `spec.names` while nothing is accepted.
#[must_use]
pub fn from_crd(crd: &Value) -> Vec<ResourceInfo> {
    let names = match crd.pointer("/status/acceptedNames/plural").and_then(Value::as_str) {
        Some(plural) if !plural.is_empty() => "/status/acceptedNames",
        _ => "/spec/names",
    };
    let name = |field: &str| text(crd, &format!("{names}/{field}")).to_string();
    let (group, plural, kind) = (text(crd, "/spec/group").to_string(), name("plural"), name("kind"));
    let or = |value: String, other: String| if value.is_empty() { other } else { value };
    let versions = crd.pointer("/spec/versions").and_then(Value::as_array).map_or(&[][..], Vec::as_slice);
    let stored = versions.iter().find(|v| v.get("storage").and_then(Value::as_bool) == Some(true));
    let storage_gvk = |this: &str| Gvk {
        group: group.clone().into(),
        version: stored.map_or(this, |v| text(v, "/name")).to_string().into(),
        kind: kind.clone().into(),
    };
    let served = |v: &&Value| v.get("served").and_then(Value::as_bool) == Some(true);
    versions
        .iter()
        .filter(served)
        .map(|v| {
            let version = text(v, "/name").to_string();
            let gvk = Gvk {
                group: group.clone().into(),
                version: version.clone().into(),
                kind: kind.clone().into(),
            };
            let status = v.pointer("/subresources/status").is_some_and(|s| !s.is_null());
            let path = |scale: &Value, field: &str| text(scale, &format!("/{field}")).to_string();
            let scale_paths = v.pointer("/subresources/scale").filter(|s| !s.is_null()).map(|s| ScalePaths {
                spec_replicas: path(s, "specReplicasPath"),
                status_replicas: path(s, "statusReplicasPath"),
                label_selector: path(s, "labelSelectorPath"),
            });
            let mut subresources = Vec::new();
            if scale_paths.is_some() {
                subresources.push(sub("scale", Gvk::new("autoscaling", "v1", "Scale")));
            }
            if status {
                subresources.push(sub("status", gvk));
            }
            let selectable = v.pointer("/selectableFields").and_then(Value::as_array).into_iter().flatten();
            // Without a schema everything is kept.
            let open =
                || serde_json::json!({ "type": "object", "x-kubernetes-preserve-unknown-fields": true });
            let schema = v.pointer("/schema/openAPIV3Schema").cloned().unwrap_or_else(open);
            ResourceInfo {
                gvr: Gvr {
                    group: group.clone().into(),
                    version: version.clone().into(),
                    resource: plural.clone().into(),
                },
                kind: kind.clone(),
                list_kind: or(name("listKind"), format!("{kind}List")),
                singular: or(name("singular"), kind.to_ascii_lowercase()),
                short_names: texts(crd, &format!("{names}/shortNames")),
                categories: texts(crd, &format!("{names}/categories")),
                namespaced: text(crd, "/spec/scope") == "Namespaced",
                verbs: words(rows::ALL),
                subresources,
                storage_prefix: format!("/registry/{group}/{plural}/"),
                storage_gvk: storage_gvk(&version),
                schema: SchemaSource::Custom(Arc::new(schema)),
                strategy: Strategy {
                    status,
                    generation: true,
                    conditional_update: true,
                    ..Strategy::default()
                },
                printer_columns: v
                    .pointer("/additionalPrinterColumns")
                    .and_then(Value::as_array)
                    .cloned()
                    .unwrap_or_default(),
                selectable_fields: selectable
                    .map(|f| text(f, "/jsonPath").trim_start_matches('.').to_string())
                    .collect(),
                scale_paths,
            }
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn one_resource_a_served_version() {
        let crd = json!({"spec":{"group":"example.com","scope":"Namespaced",
            "names":{"plural":"widgets","kind":"Widget","shortNames":["wd"]},
            "versions":[
                {"name":"v1","served":true,"storage":true,"subresources":{"status":{}},
                 "schema":{"openAPIV3Schema":{"type":"object","properties":{"spec":{"type":"object"}}}},
                 "selectableFields":[{"jsonPath":".spec.color"}]},
                {"name":"v1alpha1","served":false,"storage":false}]}});
        let all = from_crd(&crd);
        assert_eq!(all.len(), 1);
        let info = &all[0];
        assert_eq!((info.singular.as_str(), info.list_kind.as_str()), ("widget", "WidgetList"));
        assert_eq!(info.key("a", "b"), "/registry/example.com/widgets/a/b");
        assert!(info.subresource("status").is_some() && info.subresource("scale").is_none());
        assert_eq!(info.selectable_fields, ["spec.color"]);
        assert!(info.schema().field("spec").is_some() && info.schema().field("x").is_none());
    }
}
