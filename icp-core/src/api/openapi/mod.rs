//! OpenAPI v3 documents, one a group-version, from the schema table.
//!
//! Enough for kubectl: `explain`, validation, `--dry-run=server`, `apply`. Each operation names its kind and
//! action; PATCH names `fieldValidation`, `dryRun` and `force`, by which kubectl knows what the server can do.
//!
//! ```
//! use icp_core::api::{openapi, table};
//! let apps = openapi::document("apps", "v1", table::builtin());
//! assert!(apps["components"]["schemas"]["io.k8s.api.apps.v1.Deployment"]["properties"]["spec"].is_object());
//! ```

pub mod v2;

use alloc::collections::BTreeMap;
use alloc::format;
use alloc::string::{String, ToString};
use alloc::sync::Arc;
use alloc::vec::Vec;

use serde_json::{Map, Value, json};

use super::Gvk;
use super::discovery::hash;
use super::schema::{describe, type_name};
use super::table::{ResourceInfo, SchemaSource};

/// The path part of a group-version in `/openapi/v3`: `api/v1`, `apis/apps/v1`.
#[must_use]
pub fn group_version_path(group: &str, version: &str) -> String {
    if group.is_empty() { format!("api/{version}") } else { format!("apis/{group}/{version}") }
}

/// The name of a kind's component. Custom kinds use the reversed group, as upstream.
fn component_name(info: &ResourceInfo, kind: &str) -> String {
    if info.is_custom() {
        let reversed: Vec<&str> = info.gvr.group.rsplit('.').collect();
        return format!("{}.{}.{kind}", reversed.join("."), info.gvr.version);
    }
    type_name(&info.gvr.group, &info.gvr.version, kind)
}

fn subresource_component(info: &ResourceInfo, gvk: &Gvk) -> String {
    if gvk.kind == info.kind.as_str() && gvk.group == info.gvr.group {
        component_name(info, &info.kind)
    } else {
        type_name(&gvk.group, &gvk.version, &gvk.kind)
    }
}

fn query(name: &str, kind: &str, description: &str) -> Value {
    json!({ "name": name, "in": "query", "description": description, "schema": { "type": kind, "uniqueItems": true } })
}

fn write_parameters(patch: bool) -> Vec<Value> {
    let mut out = alloc::vec![
        query(
            "dryRun",
            "string",
            "When present, indicates that modifications should not be persisted. Valid values are: - All: all dry run stages will be processed"
        ),
        query(
            "fieldManager",
            "string",
            "fieldManager is a name associated with the actor or entity that is making these changes."
        ),
        query(
            "fieldValidation",
            "string",
            "fieldValidation instructs the server on how to handle objects in the request (POST/PUT/PATCH) containing unknown or duplicate fields. Valid values are: - Ignore - Warn - Strict"
        ),
    ];
    if patch {
        out.push(query("force", "boolean", "Force is going to \"force\" Apply requests. It means user will re-acquire conflicting fields owned by other people."));
    }
    out
}

fn list_parameters() -> Vec<Value> {
    [
        ("allowWatchBookmarks", "boolean"),
        ("continue", "string"),
        ("fieldSelector", "string"),
        ("labelSelector", "string"),
        ("limit", "integer"),
        ("resourceVersion", "string"),
        ("resourceVersionMatch", "string"),
        ("sendInitialEvents", "boolean"),
        ("timeoutSeconds", "integer"),
        ("watch", "boolean"),
    ]
    .iter()
    .map(|(name, kind)| query(name, kind, ""))
    .collect()
}

const MEDIA_TYPES: [&str; 2] = ["application/json", "application/yaml"];
const PATCH_TYPES: [&str; 5] = [
    "application/apply-patch+yaml",
    "application/json-patch+json",
    "application/merge-patch+json",
    "application/strategic-merge-patch+json",
    "application/apply-patch+cbor",
];

fn content(types: &[&str], component: &str) -> Value {
    let schema = json!({ "schema": { "$ref": format!("#/components/schemas/{component}") } });
    Value::Object(types.iter().map(|t| ((*t).to_string(), schema.clone())).collect())
}

struct Operation<'a> {
    action: &'a str,
    gvk: &'a Gvk,
    answer: &'a str,
    body: Option<(&'a [&'a str], &'a str)>,
    parameters: Vec<Value>,
    id: String,
    tag: &'a str,
}

impl Operation<'_> {
    fn value(self) -> Value {
        let mut map = Map::new();
        map.insert("tags".into(), json!([self.tag]));
        map.insert("operationId".into(), self.id.into());
        if !self.parameters.is_empty() {
            map.insert("parameters".into(), self.parameters.into());
        }
        if let Some((types, component)) = self.body {
            map.insert(
                "requestBody".into(),
                json!({ "content": content(types, component), "required": true }),
            );
        }
        map.insert(
            "responses".into(),
            json!({
                "200": { "description": "OK", "content": content(&MEDIA_TYPES, self.answer) },
                "401": { "description": "Unauthorized" },
            }),
        );
        map.insert("x-kubernetes-action".into(), self.action.into());
        map.insert(
            "x-kubernetes-group-version-kind".into(),
            json!({ "group": self.gvk.group, "version": self.gvk.version, "kind": self.gvk.kind }),
        );
        Value::Object(map)
    }
}

fn path_parameters(namespaced: bool, named: bool) -> Vec<Value> {
    let one = |name: &str, text: &str| {
        json!({ "name": name, "in": "path", "required": true, "description": text,
            "schema": { "type": "string", "uniqueItems": true } })
    };
    let mut out = Vec::new();
    if named {
        out.push(one("name", "name of the object"));
    }
    if namespaced {
        out.push(one("namespace", "object name and auth scope, such as for teams and projects"));
    }
    out.push(query("pretty", "string", "If 'true', then the output is pretty printed."));
    out
}

fn resource_paths(info: &ResourceInfo, paths: &mut Map<String, Value>) {
    let base = format!("/{}", group_version_path(&info.gvr.group, &info.gvr.version));
    let gvk = info.gvk();
    let one = component_name(info, &info.kind);
    let list = component_name(info, &info.list_kind);
    let scope = if info.namespaced { "Namespaced" } else { "" };
    let tag: String = format!("{}_{}", info.gvr.group.split('.').next().unwrap_or(""), info.gvr.version);
    let tag = if info.gvr.group.is_empty() { format!("core_{}", info.gvr.version) } else { tag };
    let op = |action: &'static str,
              method: &str,
              kind: &Gvk,
              answer: &str,
              body: Option<(&[&str], &str)>,
              parameters: Vec<Value>,
              suffix: &str| {
        Operation {
            action,
            gvk: kind,
            answer,
            body,
            parameters,
            id: format!("{method}{}{scope}{}{suffix}", camel(&tag), info.kind),
            tag: &tag,
        }
        .value()
    };
    const STATUS: &str = "io.k8s.apimachinery.pkg.apis.meta.v1.Status";
    const DELETE: &str = "io.k8s.apimachinery.pkg.apis.meta.v1.DeleteOptions";
    const PATCH: &str = "io.k8s.apimachinery.pkg.apis.meta.v1.Patch";
    let collection = if info.namespaced {
        format!("{base}/namespaces/{{namespace}}/{}", info.gvr.resource)
    } else {
        format!("{base}/{}", info.gvr.resource)
    };
    let patch_types: &[&str] =
        if info.is_custom() { PATCH_TYPES.get(..3).unwrap_or_default() } else { &PATCH_TYPES };

    let mut item = Map::new();
    item.insert("parameters".into(), path_parameters(info.namespaced, false).into());
    if info.has_verb("list") {
        item.insert("get".into(), op("list", "list", &gvk, &list, None, list_parameters(), ""));
    }
    if info.has_verb("create") {
        item.insert(
            "post".into(),
            op("post", "create", &gvk, &one, Some((&MEDIA_TYPES, &one)), write_parameters(false), ""),
        );
    }
    if info.has_verb("deletecollection") {
        let mut parameters = list_parameters();
        parameters.extend(write_parameters(false).into_iter().take(1));
        item.insert(
            "delete".into(),
            op(
                "deletecollection",
                "deleteCollection",
                &gvk,
                STATUS,
                Some((&MEDIA_TYPES, DELETE)),
                parameters,
                "",
            ),
        );
    }
    paths.insert(collection.clone(), Value::Object(item));
    if info.namespaced && info.has_verb("list") {
        let mut item = Map::new();
        item.insert("parameters".into(), list_parameters().into());
        item.insert("get".into(), op("list", "list", &gvk, &list, None, Vec::new(), "ForAllNamespaces"));
        paths.insert(format!("{base}/{}", info.gvr.resource), Value::Object(item));
    }
    if info.has_verb("get") {
        let mut item = Map::new();
        item.insert("parameters".into(), path_parameters(info.namespaced, true).into());
        item.insert("get".into(), op("get", "read", &gvk, &one, None, Vec::new(), ""));
        item.insert(
            "put".into(),
            op("put", "replace", &gvk, &one, Some((&MEDIA_TYPES, &one)), write_parameters(false), ""),
        );
        item.insert(
            "patch".into(),
            op("patch", "patch", &gvk, &one, Some((patch_types, PATCH)), write_parameters(true), ""),
        );
        item.insert(
            "delete".into(),
            op(
                "delete",
                "delete",
                &gvk,
                STATUS,
                Some((&MEDIA_TYPES, DELETE)),
                write_parameters(false).into_iter().take(1).collect(),
                "",
            ),
        );
        paths.insert(format!("{collection}/{{name}}"), Value::Object(item));
    }
    for sub in &info.subresources {
        let component = subresource_component(info, &sub.gvk);
        let suffix = capital(&sub.name);
        let mut item = Map::new();
        item.insert("parameters".into(), path_parameters(info.namespaced, true).into());
        for verb in &sub.verbs {
            let body = Some((MEDIA_TYPES.as_slice(), component.as_str()));
            match verb.as_str() {
                "get" => drop(item.insert(
                    "get".into(),
                    op("get", "read", &sub.gvk, &component, None, Vec::new(), &suffix),
                )),
                "create" => drop(item.insert(
                    "post".into(),
                    op("post", "create", &sub.gvk, &component, body, write_parameters(false), &suffix),
                )),
                "update" => drop(item.insert(
                    "put".into(),
                    op("put", "replace", &sub.gvk, &component, body, write_parameters(false), &suffix),
                )),
                "patch" => drop(item.insert(
                    "patch".into(),
                    op(
                        "patch",
                        "patch",
                        &sub.gvk,
                        &component,
                        Some((patch_types, PATCH)),
                        write_parameters(true),
                        &suffix,
                    ),
                )),
                _ => {}
            }
        }
        // What is streamed (exec, log, proxy, ...) has no component: it stays out, as it has nothing to explain.
        if matches!(
            sub.name.as_str(),
            "status"
                | "scale"
                | "binding"
                | "eviction"
                | "ephemeralcontainers"
                | "resize"
                | "approval"
                | "finalize"
                | "token"
        ) {
            paths.insert(format!("{collection}/{{name}}/{}", sub.name), Value::Object(item));
        }
    }
}

fn capital(s: &str) -> String {
    let mut chars = s.chars();
    chars.next().map(|c| c.to_ascii_uppercase().to_string() + chars.as_str()).unwrap_or_default()
}

fn camel(tag: &str) -> String {
    tag.split('_').map(capital).collect()
}

fn custom_components(info: &ResourceInfo, schema: &Value, out: &mut Map<String, Value>) {
    const META: &str = "#/components/schemas/io.k8s.apimachinery.pkg.apis.meta.v1.";
    let gvk = json!([{ "group": info.gvr.group, "version": info.gvr.version, "kind": info.kind }]);
    let list_gvk = json!([{ "group": info.gvr.group, "version": info.gvr.version, "kind": info.list_kind }]);
    let mut one = schema.as_object().cloned().unwrap_or_default();
    one.entry("type").or_insert_with(|| "object".into());
    let text = |description: &str| json!({ "type": "string", "description": description });
    if let Some(properties) =
        one.entry("properties").or_insert_with(|| Value::Object(Map::new())).as_object_mut()
    {
        properties.insert(
            "apiVersion".into(),
            text("APIVersion defines the versioned schema of this representation of an object."),
        );
        properties.insert(
            "kind".into(),
            text("Kind is a string value representing the REST resource this object represents."),
        );
        properties.insert("metadata".into(), json!({ "description": "Standard object's metadata.", "allOf": [{ "$ref": format!("{META}ObjectMeta") }] }));
    }
    one.insert("x-kubernetes-group-version-kind".into(), gvk);
    let name = component_name(info, &info.kind);
    out.insert(
        component_name(info, &info.list_kind),
        json!({
            "description": format!("{} is a list of {}", info.list_kind, info.kind),
            "type": "object",
            "required": ["items"],
            "properties": {
                "apiVersion": text(""), "kind": text(""),
                "items": { "type": "array", "items": { "$ref": format!("#/components/schemas/{name}") } },
                "metadata": { "allOf": [{ "$ref": format!("{META}ListMeta") }] },
            },
            "x-kubernetes-group-version-kind": list_gvk,
        }),
    );
    out.insert(name, Value::Object(one));
}

/// The document of one group-version. Resources of other group-versions are passed over.
#[must_use]
pub fn document(group: &str, version: &str, resources: &[Arc<ResourceInfo>]) -> Value {
    let mut paths = Map::new();
    let mut custom = Map::new();
    let mut names: Vec<String> = ["DeleteOptions", "Patch", "Status", "WatchEvent", "ObjectMeta", "ListMeta"]
        .iter()
        .map(|n| type_name("meta.k8s.io", "v1", n))
        .collect();
    for info in resources.iter().filter(|i| i.gvr.group == group && i.gvr.version == version) {
        resource_paths(info, &mut paths);
        names.push(component_name(info, &info.kind));
        names.push(component_name(info, &info.list_kind));
        names.extend(info.subresources.iter().map(|s| subresource_component(info, &s.gvk)));
        if let SchemaSource::Custom(schema) = &info.schema {
            custom_components(info, schema, &mut custom);
        }
    }
    let mut schemas = describe::components(names.iter().map(String::as_str));
    schemas.extend(custom);
    json!({
        "openapi": "3.0.0",
        "info": { "title": "Kubernetes", "version": "v1.37.0" },
        "paths": paths,
        "components": {
            "schemas": schemas,
            "securitySchemes": { "BearerToken": {
                "type": "apiKey", "name": "authorization", "in": "header",
                "description": "Bearer Token authentication",
            } },
        },
    })
}

/// The index that `/openapi/v3` answers with: each path with a tag of its content, so that clients may cache a
/// document for good. Built-in documents change only with the table; custom ones with their schemas.
#[must_use]
pub fn index(resources: &[Arc<ResourceInfo>]) -> Value {
    let mut tags: BTreeMap<String, u64> = BTreeMap::new();
    for info in resources {
        let path = group_version_path(&info.gvr.group, &info.gvr.version);
        let mut text =
            format!("{}{}{:?}{}", info.gvr.resource, info.kind, info.short_names, env!("CARGO_PKG_VERSION"));
        if let SchemaSource::Custom(schema) = &info.schema {
            text.push_str(&schema.to_string());
        }
        let tag = tags.entry(path).or_insert(0);
        *tag = tag.rotate_left(5) ^ hash(&text);
    }
    let paths: Map<String, Value> = tags
        .into_iter()
        .map(|(path, tag)| {
            let url = format!("/openapi/v3/{path}?hash={tag:016X}");
            (path, json!({ "serverRelativeURL": url }))
        })
        .collect();
    json!({ "paths": paths })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::api::table;
    use alloc::collections::BTreeSet;

    fn references(value: &Value, out: &mut BTreeSet<String>) {
        match value {
            Value::Object(map) => {
                if let Some(Value::String(r)) = map.get("$ref") {
                    out.insert(r.trim_start_matches("#/components/schemas/").to_string());
                }
                map.values().for_each(|v| references(v, out));
            }
            Value::Array(list) => list.iter().for_each(|v| references(v, out)),
            _ => {}
        }
    }

    #[test]
    fn documents_are_closed() {
        let index = index(table::builtin());
        for info in table::builtin() {
            let path = group_version_path(&info.gvr.group, &info.gvr.version);
            assert!(index["paths"][&path]["serverRelativeURL"].is_string());
        }
        for (group, version) in
            [("", "v1"), ("apps", "v1"), ("autoscaling", "v2"), ("apiextensions.k8s.io", "v1")]
        {
            let doc = document(group, version, table::builtin());
            let mut all = BTreeSet::new();
            references(&doc, &mut all);
            let schemas = doc["components"]["schemas"].as_object().unwrap();
            let missing: Vec<_> = all.iter().filter(|r| !schemas.contains_key(*r)).collect();
            assert!(missing.is_empty(), "{group}/{version}: {missing:?}");
        }
    }

    #[test]
    fn patch_tells_what_the_server_can_do() {
        let doc = document("apps", "v1", table::builtin());
        let patch = &doc["paths"]["/apis/apps/v1/namespaces/{namespace}/deployments/{name}"]["patch"];
        assert_eq!(patch["x-kubernetes-group-version-kind"]["kind"], "Deployment");
        let names: Vec<&str> =
            patch["parameters"].as_array().unwrap().iter().filter_map(|p| p["name"].as_str()).collect();
        assert_eq!(names, ["dryRun", "fieldManager", "fieldValidation", "force"]);
        let container = &doc["components"]["schemas"]["io.k8s.api.core.v1.Container"];
        assert_eq!(container["properties"]["env"]["x-kubernetes-patch-merge-key"], "name");
        assert_eq!(container["required"], json!(["name"]));
    }
}
