//! The OpenAPI v2 document of all resources, as JSON and as protobuf.
//!
//! Clients that know v3 ask for it where v3 cannot answer: kubectl validates a `List` by it, and looks up kinds that
//! nobody serves. It holds the definitions; operations stand in the v3 documents, so `paths` is empty.
//!
//! ```
//! use icp_core::api::{openapi::v2, table};
//! let document = v2::document(table::builtin());
//! assert_eq!(document["definitions"]["io.k8s.api.core.v1.ConfigMap"]["type"], "object");
//! assert!(v2::protobuf(&document).starts_with(b"\x0a\x032.0")); // field 1: the version of Swagger
//! ```

use alloc::string::{String, ToString};
use alloc::sync::Arc;
use alloc::vec::Vec;

use serde_json::{Map, Value, json};

use super::{component_name, custom_components};
use crate::api::schema::describe;
use crate::api::table::{ResourceInfo, SchemaSource};

/// The media type that asks for [`protobuf`], and that of the answer.
pub const PROTOBUF: [&str; 2] = [
    "application/com.github.proto-openapi.spec.v2@v1.0+protobuf",
    "application/com.github.proto-openapi.spec.v2.v1.0+protobuf",
];

/// Parts of a schema that OpenAPI v2 has no word for; what they say is left out.
const ONLY_V3: [&str; 5] = ["oneOf", "anyOf", "not", "nullable", "allOf"];

/// The document.
#[must_use]
pub fn document(resources: &[Arc<ResourceInfo>]) -> Value {
    let mut custom = Map::new();
    let mut names: Vec<String> = Vec::new();
    for info in resources {
        names.push(component_name(info, &info.kind));
        names.push(component_name(info, &info.list_kind));
        if let SchemaSource::Custom(schema) = &info.schema {
            custom_components(info, schema, &mut custom);
        }
    }
    let mut schemas = describe::components(names.iter().map(String::as_str));
    schemas.extend(custom);
    let definitions: Map<String, Value> = schemas.into_iter().map(|(name, s)| (name, schema(&s))).collect();
    json!({
        "swagger": "2.0",
        "info": { "title": "Kubernetes", "version": "v1.37.0" },
        "paths": {},
        "definitions": definitions,
    })
}

/// A schema of v3 in the words of v2.
fn schema(v3: &Value) -> Value {
    let Some(from) = v3.as_object() else { return v3.clone() };
    let mut to = Map::new();
    let reference = |v: &Value| {
        let name = v.get("$ref")?.as_str()?.strip_prefix("#/components/schemas/")?;
        Some(alloc::format!("#/definitions/{name}"))
    };
    let wrapped = from.get("allOf").and_then(Value::as_array).and_then(|all| reference(all.first()?));
    if let Some(reference) = reference(v3).or(wrapped) {
        to.insert("$ref".into(), reference.into());
        if let Some(text) = from.get("description") {
            to.insert("description".into(), text.clone());
        }
        return Value::Object(to);
    }
    if from.contains_key("oneOf") && !from.contains_key("type") {
        to.insert("type".into(), "string".into());
    }
    // What may hold anything is checked by the server alone, as upstream's document of custom resources.
    let open = ["x-kubernetes-preserve-unknown-fields", "x-kubernetes-embedded-resource"]
        .iter()
        .any(|key| from.get(*key) == Some(&Value::Bool(true)));
    for (key, value) in from {
        let new = match key.as_str() {
            key if ONLY_V3.contains(&key) => continue,
            "properties" | "items" | "additionalProperties" | "required" if open => continue,
            "properties" => match value.as_object() {
                Some(map) => Value::Object(map.iter().map(|(k, v)| (k.clone(), schema(v))).collect()),
                None => continue,
            },
            "items" | "additionalProperties" => schema(value),
            _ => value.clone(),
        };
        to.insert(key.clone(), new);
    }
    Value::Object(to)
}

/// A writer of protobuf messages.
#[derive(Default)]
struct Message(Vec<u8>);

impl Message {
    fn varint(&mut self, mut value: u64) {
        while value >= 0x80 {
            self.0.push((value & 0x7f) as u8 | 0x80);
            value >>= 7;
        }
        self.0.push(value as u8);
    }

    fn bytes(&mut self, field: u64, bytes: &[u8]) {
        self.varint(field << 3 | 2);
        self.varint(bytes.len() as u64);
        self.0.extend_from_slice(bytes);
    }

    fn text(&mut self, field: u64, value: Option<&Value>) {
        if let Some(text) = value.and_then(Value::as_str) {
            self.bytes(field, text.as_bytes());
        }
    }

    fn texts(&mut self, field: u64, value: Option<&Value>) {
        for text in value.and_then(Value::as_array).into_iter().flatten() {
            self.text(field, Some(text));
        }
    }

    fn message(&mut self, field: u64, message: &Self) {
        self.bytes(field, &message.0);
    }

    /// A map as pairs of name and message (`NamedSchema` and its kin).
    fn named<'v>(
        pairs: impl Iterator<Item = (&'v String, &'v Value)>,
        one: impl Fn(&Value) -> Self,
        field: u64,
    ) -> Self {
        let mut all = Self::default();
        for (name, value) in pairs {
            let mut pair = Self::default();
            pair.bytes(1, name.as_bytes());
            pair.message(2, &one(value));
            all.message(field, &pair);
        }
        all
    }
}

/// `Any`, whose text is YAML: every JSON text is one.
fn any(value: &Value) -> Message {
    let mut out = Message::default();
    out.bytes(2, value.to_string().as_bytes());
    out
}

/// `Schema`, with the fields that clients read.
fn schema_message(schema: &Value) -> Message {
    let mut out = Message::default();
    out.text(1, schema.get("$ref"));
    out.text(2, schema.get("format"));
    out.text(4, schema.get("description"));
    out.texts(19, schema.get("required"));
    match schema.get("additionalProperties") {
        Some(Value::Bool(all)) => {
            let mut item = Message::default();
            item.varint(2 << 3);
            item.varint(u64::from(*all));
            out.message(21, &item);
        }
        Some(of) => {
            let mut item = Message::default();
            item.message(1, &schema_message(of));
            out.message(21, &item);
        }
        None => {}
    }
    if let Some(kind) = schema.get("type") {
        let mut item = Message::default();
        item.text(1, Some(kind));
        out.message(22, &item);
    }
    if let Some(of) = schema.get("items") {
        let mut item = Message::default();
        item.message(1, &schema_message(of));
        out.message(23, &item);
    }
    if let Some(properties) = schema.get("properties").and_then(Value::as_object) {
        out.message(25, &Message::named(properties.iter(), schema_message, 1));
    }
    let extensions = schema.as_object().into_iter().flatten().filter(|(key, _)| key.starts_with("x-"));
    out.0.extend(Message::named(extensions, any, 31).0);
    out
}

/// The document as `openapi.v2.Document` (`github.com/google/gnostic-models/openapiv2`).
#[must_use]
pub fn protobuf(document: &Value) -> Vec<u8> {
    let mut out = Message::default();
    out.text(1, document.get("swagger"));
    let mut info = Message::default();
    info.text(1, document.pointer("/info/title"));
    info.text(2, document.pointer("/info/version"));
    out.message(2, &info);
    out.message(8, &Message::default());
    if let Some(definitions) = document.get("definitions").and_then(Value::as_object) {
        out.message(9, &Message::named(definitions.iter(), schema_message, 1));
    }
    out.0
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::api::table;

    #[test]
    fn definitions_are_closed_and_have_no_words_of_v3() {
        let document = document(table::builtin());
        let definitions = document["definitions"].as_object().unwrap();
        assert!(definitions.len() > 500, "{}", definitions.len());
        let mut todo: Vec<&Value> = definitions.values().collect();
        while let Some(value) = todo.pop() {
            match value {
                Value::Object(map) => {
                    if let Some(Value::String(name)) = map.get("$ref") {
                        let name = name.strip_prefix("#/definitions/").unwrap();
                        assert!(definitions.contains_key(name), "{name}");
                        assert!(!map.contains_key("type") && !map.contains_key("properties"));
                    }
                    todo.extend(map.values());
                }
                Value::Array(list) => todo.extend(list),
                _ => {}
            }
        }
        let port = &definitions["io.k8s.apimachinery.pkg.util.intstr.IntOrString"];
        assert_eq!((&port["type"], &port["format"]), (&json!("string"), &json!("int-or-string")));
        assert!(port.get("oneOf").is_none());
    }

    #[test]
    fn what_is_open_is_not_described() {
        let closed =
            json!({"type":"object","properties":{"a":{"type":"string","nullable":true}},"required":["a"]});
        assert_eq!(
            schema(&closed),
            json!({"type":"object","properties":{"a":{"type":"string"}},"required":["a"]})
        );
        let mut open = closed;
        open["x-kubernetes-preserve-unknown-fields"] = true.into();
        assert_eq!(schema(&open), json!({"type":"object","x-kubernetes-preserve-unknown-fields":true}));
    }

    #[test]
    fn the_bytes_are_those_of_gnostic() {
        let document = json!({ "swagger": "2.0", "info": { "title": "K", "version": "v" }, "definitions": {
            "A": { "type": "array", "items": { "$ref": "#/definitions/A" } },
            "M": { "additionalProperties": true, "x-k": [1] },
        }});
        let want: &[u8] = b"\x0a\x032.0\x12\x06\x0a\x01K\x12\x01v\x42\x00\x4a\x41\
            \x0a\x25\x0a\x01A\x12\x20\xb2\x01\x07\x0a\x05array\xba\x01\x13\x0a\x11\x0a\x0f#/definitions/A\
            \x0a\x18\x0a\x01M\x12\x13\xaa\x01\x02\x10\x01\xfa\x01\x0b\x0a\x03x-k\x12\x04\x12\x02[]";
        let mut document = document;
        document["definitions"]["M"]["x-k"] = json!([]);
        let made = protobuf(&document);
        assert_eq!(String::from_utf8_lossy(&made), String::from_utf8_lossy(want), "{made:?}");
    }
}
