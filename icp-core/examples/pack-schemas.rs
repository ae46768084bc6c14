//! Packs the published Kubernetes API definitions into the table that `icp_core::api::schema` reads.
//!
//! ```text
//! cargo run -p icp-core --example pack-schemas -- _definitions.json icp-core/src/api/schema/ [K8S_PB_SRC]
//! ```
//!
//! The input is a JSON object whose `$defs` (or `definitions`) hold one JSON schema a type, with the
//! `x-kubernetes-*` extensions; the package `kubernetes-validate` on PyPI carries one a release. The output is
//! `types.bin` and `descriptions.txt`; `schema/packed.rs` describes the format. With the folder `src` of the crate
//! `k8s-pb`, which holds the protobuf messages of the same release, it writes `tags.bin` too: the protobuf number of
//! each field.

use std::collections::{BTreeMap, BTreeSet};
use std::error::Error;
use std::path::Path;

use icp_core::api::table;
use serde_json::{Map, Value};

type Result<T> = std::result::Result<T, Box<dyn Error>>;

/// Kinds that are spoken but are no resource of the table.
const EXTRA: &[&str] = &[
    "io.k8s.api.autoscaling.v1.Scale",
    "io.k8s.api.policy.v1.Eviction",
    "io.k8s.api.authentication.v1.TokenRequest",
    "io.k8s.apimachinery.pkg.apis.meta.v1.DeleteOptions",
    "io.k8s.apimachinery.pkg.apis.meta.v1.Patch",
    "io.k8s.apimachinery.pkg.apis.meta.v1.Status",
    "io.k8s.apimachinery.pkg.apis.meta.v1.WatchEvent",
];

/// Kinds of values; the numbers are part of the format.
const ANY: u8 = 0;
const STRING: u8 = 1;
const INTEGER: u8 = 2;
const NUMBER: u8 = 3;
const BOOLEAN: u8 = 4;
const FREE: u8 = 5;
const LIST: u8 = 6;
const MAP: u8 = 7;
const REF: u8 = 8;
const OBJECT: u8 = 9;
const INT_OR_STRING: u8 = 10;
const QUANTITY: u8 = 11;

const NONE: u16 = u16::MAX;

#[derive(Default)]
struct Packer {
    types: BTreeMap<String, u16>,
    strings: Vec<String>,
    string_ids: BTreeMap<String, u16>,
    nodes: Vec<[u8; 12]>,
    node_ids: BTreeMap<[u8; 12], u16>,
    keys: Vec<u16>,
    descriptions: String,
    description_ids: BTreeMap<String, u32>,
}

fn put16(out: &mut Vec<u8>, n: u16) {
    out.extend_from_slice(&n.to_le_bytes());
}

fn put32(out: &mut Vec<u8>, n: u32) {
    out.extend_from_slice(&n.to_le_bytes());
}

fn text<'a>(schema: &'a Value, key: &str) -> &'a str {
    schema.get(key).and_then(Value::as_str).unwrap_or("")
}

fn type_of(schema: &Value) -> &str {
    match schema.get("type") {
        Some(Value::String(s)) => s,
        Some(Value::Array(list)) => {
            list.iter().filter_map(Value::as_str).find(|t| *t != "null").unwrap_or("")
        }
        _ => "",
    }
}

fn refers(schema: &Value) -> Option<&str> {
    schema.get("$ref")?.as_str()?.rsplit('/').next()
}

fn reach(name: &str, defs: &Map<String, Value>, seen: &mut BTreeSet<String>) {
    fn walk(value: &Value, defs: &Map<String, Value>, seen: &mut BTreeSet<String>) {
        if let Some(name) = refers(value) {
            reach(name, defs, seen);
        }
        match value {
            Value::Object(map) => map.values().for_each(|v| walk(v, defs, seen)),
            Value::Array(list) => list.iter().for_each(|v| walk(v, defs, seen)),
            _ => {}
        }
    }
    if let Some(def) = defs.get(name).filter(|_| !seen.contains(name)) {
        seen.insert(name.to_string());
        walk(def, defs, seen);
    }
}

impl Packer {
    fn string(&mut self, s: &str) -> Result<u16> {
        if let Some(id) = self.string_ids.get(s) {
            return Ok(*id);
        }
        let id = u16::try_from(self.strings.len())?;
        self.strings.push(s.to_string());
        self.string_ids.insert(s.to_string(), id);
        Ok(id)
    }

    fn description(&mut self, schema: &Value) -> Result<(u32, u16)> {
        let s = text(schema, "description").trim_end();
        let len = u16::try_from(s.len())?;
        if let Some(at) = self.description_ids.get(s) {
            return Ok((*at, len));
        }
        let at = u32::try_from(self.descriptions.len())?;
        self.descriptions.push_str(s);
        self.descriptions.push('\n');
        self.description_ids.insert(s.to_string(), at);
        Ok((at, len))
    }

    /// kind, list type, flags, format, argument, merge key, list keys, reserved.
    fn node(&mut self, schema: &Value) -> Result<u16> {
        let (mut kind, mut arg) = (ANY, NONE);
        if let Some(name) = refers(schema) {
            kind = REF;
            arg = *self.types.get(name).ok_or_else(|| format!("{name} is not defined"))?;
        } else {
            match type_of(schema) {
                "string" => kind = STRING,
                "integer" => kind = INTEGER,
                "number" => kind = NUMBER,
                "boolean" => kind = BOOLEAN,
                "array" => {
                    kind = LIST;
                    arg = self.node(schema.get("items").unwrap_or(&Value::Null))?;
                }
                "object" => match schema.get("additionalProperties") {
                    Some(values) => {
                        kind = MAP;
                        arg = self.node(values)?;
                    }
                    None => kind = FREE,
                },
                _ => {}
            }
        }
        let list_type = match text(schema, "x-kubernetes-list-type") {
            "atomic" => 1,
            "set" => 2,
            "map" => 3,
            _ => 0,
        };
        let strategy = text(schema, "x-kubernetes-patch-strategy");
        let mut flags = 0u8;
        flags |= match text(schema, "x-kubernetes-map-type") {
            "atomic" => 1,
            "granular" => 2,
            _ => 0,
        };
        flags |= if strategy.contains("merge") { 4 } else { 0 };
        flags |= if strategy.contains("retainKeys") { 8 } else { 0 };
        let merge_key = match text(schema, "x-kubernetes-patch-merge-key") {
            "" => NONE,
            key => self.string(key)?,
        };
        let keys = match schema.get("x-kubernetes-list-map-keys").and_then(Value::as_array) {
            Some(list) => {
                let at = u16::try_from(self.keys.len())?;
                let ids: Vec<u16> =
                    list.iter().filter_map(Value::as_str).map(|k| self.string(k)).collect::<Result<_>>()?;
                self.keys.push(u16::try_from(ids.len())?);
                self.keys.extend(ids);
                at
            }
            None => NONE,
        };
        let mut node = vec![kind, list_type, flags, format_of(schema)];
        [arg, merge_key, keys, 0].into_iter().for_each(|n| put16(&mut node, n));
        let node: [u8; 12] = node.as_slice().try_into()?;
        if let Some(id) = self.node_ids.get(&node) {
            return Ok(*id);
        }
        let id = u16::try_from(self.nodes.len())?;
        self.nodes.push(node);
        self.node_ids.insert(node, id);
        Ok(id)
    }
}

fn format_of(schema: &Value) -> u8 {
    match text(schema, "format") {
        "int32" => 1,
        "int64" => 2,
        "byte" => 3,
        "date-time" => 4,
        "double" => 5,
        _ => 0,
    }
}

fn type_name(group: &str, version: &str, kind: &str) -> String {
    let package = match group {
        "apiextensions.k8s.io" => "io.k8s.apiextensions-apiserver.pkg.apis.apiextensions".to_string(),
        "apiregistration.k8s.io" => "io.k8s.kube-aggregator.pkg.apis.apiregistration".to_string(),
        "" => "io.k8s.api.core".to_string(),
        other => format!("io.k8s.api.{}", other.split('.').next().unwrap_or(other)),
    };
    format!("{package}.{version}.{kind}")
}

/// Fields whose zero value says something: they are pointers in Go, so that zero and absent differ.
const ZERO_IS_A_VALUE: &[&str] = &[
    "activeDeadlineSeconds",
    "allocateLoadBalancerNodePorts",
    "allowPrivilegeEscalation",
    "automountServiceAccountToken",
    "averageUtilization",
    "backoffLimit",
    "backoffLimitPerIndex",
    "blockOwnerDeletion",
    "completions",
    "controller",
    "defaultMode",
    "enableServiceLinks",
    "expirationSeconds",
    "failedJobsHistoryLimit",
    "fsGroup",
    "gracePeriodSeconds",
    "hostUsers",
    "immutable",
    "maxSkew",
    "minReplicas",
    "mode",
    "optional",
    "orphanDependents",
    "parallelism",
    "partition",
    "privileged",
    "progressDeadlineSeconds",
    "readOnlyRootFilesystem",
    "ready",
    "replicas",
    "revisionHistoryLimit",
    "runAsGroup",
    "runAsNonRoot",
    "runAsUser",
    "serving",
    "setHostnameAsFQDN",
    "shareProcessNamespace",
    "startingDeadlineSeconds",
    "storageClassName",
    "successfulJobsHistoryLimit",
    "suspend",
    "terminating",
    "terminationGracePeriodSeconds",
    "tolerationSeconds",
    "ttlSecondsAfterFinished",
    "value",
];

/// The protobuf messages, by the name of their type in the definitions.
#[derive(Default)]
struct Messages(BTreeMap<String, Message>);

/// Name without case and underscores, number, type.
type Message = Vec<(String, u8, String)>;

fn plain(name: &str) -> String {
    name.trim_start_matches("r#").replace('_', "").to_lowercase()
}

impl Messages {
    fn read(folder: &Path) -> Result<Self> {
        let mut all = Self::default();
        all.read_folder(folder, &mut Vec::new())?;
        Ok(all)
    }

    fn read_folder(&mut self, folder: &Path, path: &mut Vec<String>) -> Result<()> {
        for entry in std::fs::read_dir(folder)? {
            let entry = entry?;
            let name = entry.file_name().to_string_lossy().into_owned();
            if entry.file_type()?.is_dir() {
                path.push(name);
                self.read_folder(&entry.path(), path)?;
                path.pop();
            } else if name == "mod.rs" {
                self.read_module(&std::fs::read_to_string(entry.path())?, path);
            }
        }
        Ok(())
    }

    fn read_module(&mut self, source: &str, path: &[String]) {
        let package = format!("io.k8s.{}", path.join(".").replace('_', "-"));
        let (mut message, mut number) = (String::new(), None);
        for line in source.lines().map(str::trim) {
            if let Some(name) = line.strip_prefix("pub struct ") {
                // prost spells initials its own way: `HttpGetAction`.
                message = format!("{package}.{}", name.trim_end_matches(['{', ' '])).to_lowercase();
            } else if line.starts_with("#[prost(") {
                let tag = line.rsplit("tag = \"").next().and_then(|t| t.split('"').next());
                number = tag.and_then(|t| t.parse::<u8>().ok());
            } else if let (Some(field), Some(number)) = (line.strip_prefix("pub "), number.take())
                && let Some((name, kind)) = field.split_once(':')
            {
                let kind = kind.trim().trim_end_matches(',').to_string();
                self.0.entry(message.clone()).or_default().push((plain(name), number, kind));
            }
        }
    }

    /// The number of a field; the number within that message if it lies in an inlined one; whether zero is a value.
    fn tag(&self, of: &str, field: &str, siblings: Option<&Map<String, Value>>) -> [u8; 3] {
        let zero = u8::from(ZERO_IS_A_VALUE.contains(&field));
        let of = of.to_lowercase();
        let Some(message) = self.0.get(&of) else { return [0, 0, zero] };
        if let Some((_, number, _)) = message.iter().find(|(name, ..)| *name == plain(field)) {
            return [*number, 0, zero];
        }
        let known = |name: &str| siblings.is_some_and(|s| s.keys().any(|k| plain(k) == name));
        let package = of.rsplit_once('.').map_or("", |(package, _)| package);
        let inlined = message.iter().filter(|(name, ..)| !known(name)).find_map(|(_, outer, kind)| {
            let inner = kind.trim_start_matches("::core::option::Option<").trim_end_matches('>');
            let fields = self.0.get(&format!("{package}.{}", inner.to_lowercase()))?;
            let (_, number, _) = fields.iter().find(|(name, ..)| *name == plain(field))?;
            Some([*outer, *number, zero])
        });
        inlined.unwrap_or([0, 0, zero])
    }
}

fn main() -> Result<()> {
    let mut args = std::env::args().skip(1);
    let (Some(input), Some(output)) = (args.next(), args.next()) else {
        return Err("usage: pack-schemas DEFINITIONS OUTPUT_FOLDER [K8S_PB_SRC]".into());
    };
    let messages = args.next().map(|folder| Messages::read(Path::new(&folder))).transpose()?;
    let root: Value = serde_json::from_slice(&std::fs::read(input)?)?;
    let defs = root.get("$defs").or_else(|| root.get("definitions")).unwrap_or(&root);
    let defs = defs.as_object().ok_or("the definitions are no object")?;

    let mut names = BTreeSet::new();
    for info in table::builtin() {
        for kind in [&info.kind, &info.list_kind] {
            reach(&type_name(&info.gvr.group, &info.gvr.version, kind), defs, &mut names);
        }
    }
    EXTRA.iter().for_each(|name| reach(name, defs, &mut names));

    let mut p = Packer::default();
    for (i, name) in names.iter().enumerate() {
        p.types.insert(name.clone(), u16::try_from(i)?);
    }
    // The first nodes are the types themselves, in order.
    for name in &names {
        p.node(&serde_json::json!({ "$ref": name }))?;
    }

    let (mut types, mut fields, mut field_count) = (Vec::new(), Vec::new(), 0u16);
    let (mut tags, mut unnumbered) = (Vec::new(), 0);
    for name in &names {
        let def = defs.get(name).ok_or("a type vanished")?;
        let properties = def.get("properties").and_then(Value::as_object);
        let kind = match (name.rsplit('.').next().unwrap_or(""), type_of(def)) {
            ("IntOrString", _) => INT_OR_STRING,
            ("Quantity", _) => QUANTITY,
            (_, "object") if properties.is_some() => OBJECT,
            ("RawExtension", _) => ANY,
            (_, "object") => FREE,
            (_, "string") => STRING,
            _ => ANY,
        };
        let required: BTreeSet<&str> = def
            .get("required")
            .and_then(Value::as_array)
            .map(|list| list.iter().filter_map(Value::as_str).collect())
            .unwrap_or_default();
        let gvk =
            match def.get("x-kubernetes-group-version-kind").and_then(Value::as_array).map(Vec::as_slice) {
                Some([one]) => [
                    p.string(text(one, "group"))?,
                    p.string(text(one, "version"))?,
                    p.string(text(one, "kind"))?,
                ],
                _ => [NONE; 3],
            };
        let (at, len) = p.description(def)?;
        let id = p.string(name)?;
        put16(&mut types, id);
        put16(&mut types, len);
        put32(&mut types, at);
        put16(&mut types, field_count);
        put16(&mut types, u16::try_from(properties.map_or(0, Map::len))?);
        gvk.into_iter().for_each(|n| put16(&mut types, n));
        let atomic = text(def, "x-kubernetes-map-type") == "atomic";
        types.extend_from_slice(&[kind, u8::from(atomic), format_of(def), 0]);
        let type_name = name;
        for (name, schema) in properties.into_iter().flatten() {
            if let Some(messages) = &messages {
                let tag = messages.tag(type_name, name, properties);
                unnumbered += usize::from(tag[0] == 0);
                tags.extend_from_slice(&tag);
            }
            let (id, node) = (p.string(name)?, p.node(schema)?);
            let (at, len) = p.description(schema)?;
            put16(&mut fields, id);
            put16(&mut fields, node);
            put16(&mut fields, u16::from(required.contains(name.as_str())));
            put16(&mut fields, len);
            put32(&mut fields, at);
            field_count = field_count.checked_add(1).ok_or("too many fields")?;
        }
    }

    let mut out = b"ICPSCHM1".to_vec();
    let mut offset = 0u32;
    let mut ends = Vec::new();
    for s in &p.strings {
        offset += u32::try_from(s.len())?;
        put32(&mut ends, offset);
    }
    for n in [names.len(), usize::from(field_count), p.nodes.len(), p.keys.len(), p.strings.len()] {
        put32(&mut out, u32::try_from(n)?);
    }
    out.extend_from_slice(&types);
    out.extend_from_slice(&fields);
    p.nodes.iter().for_each(|n| out.extend_from_slice(n));
    p.keys.iter().for_each(|k| put16(&mut out, *k));
    out.extend_from_slice(&ends);
    p.strings.iter().for_each(|s| out.extend_from_slice(s.as_bytes()));
    println!("{} types, {field_count} fields, {} nodes, {} bytes", names.len(), p.nodes.len(), out.len());
    let folder = Path::new(&output);
    std::fs::write(folder.join("types.bin"), out)?;
    std::fs::write(folder.join("descriptions.txt"), p.descriptions)?;
    if messages.is_some() {
        println!("{unnumbered} fields have no protobuf number");
        std::fs::write(folder.join("tags.bin"), tags)?;
    }
    Ok(())
}
