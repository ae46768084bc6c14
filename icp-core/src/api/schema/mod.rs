//! The shape of every kind: types, list semantics, merge keys, required fields and descriptions.
//!
//! Built-in kinds come from one compact table made of the published API definitions; custom kinds bring their
//! OpenAPI v3 schema. [`Schema`] is a cheap handle that walks both in the same way.
//!
//! ```
//! use icp_core::api::{Gvk, schema::{ListType, Schema, Shape}};
//! let pod = Schema::of(&Gvk::new("", "v1", "Pod"));
//! let containers = pod.field("spec").unwrap().field("containers").unwrap();
//! assert_eq!((containers.shape(), containers.list_type()), (Shape::List, ListType::Map));
//! assert_eq!(containers.list_keys(), ["name"]);
//! assert_eq!(containers.items().type_name(), "v1.Container");
//! assert!(pod.field("spex").is_none());
//! ```

mod decode;
mod packed;
mod reader;

pub(crate) mod describe;

pub use decode::{BodyFormat, DecodeError, Decoded, decode, decode_object, decode_value, decode_with};

use alloc::borrow::Cow;
use alloc::format;
use alloc::string::String;
use alloc::vec::Vec;

use serde_json::Value;

use super::Gvk;

/// A handle to one place in a schema.
#[derive(Clone, Copy, Debug)]
pub enum Schema<'a> {
    /// A place in the built-in table.
    Builtin(u16),
    /// A place in an OpenAPI v3 structural schema.
    Open(&'a Value),
    /// Nothing is known: any value, kept as it is.
    Any,
}

/// What a value at a place looks like.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Shape {
    /// An object with named fields.
    Object,
    /// An object with free keys and values of one shape.
    Map,
    /// A list.
    List,
    /// A text.
    String,
    /// A text that is base64.
    Bytes,
    /// An RFC 3339 time; with microseconds if `micro`.
    Time {
        /// Whether it is a `MicroTime`.
        micro: bool,
    },
    /// A number without fraction, of so many bits.
    Integer {
        /// 32 or 64.
        bits: u8,
    },
    /// Any number.
    Number,
    /// True or false.
    Bool,
    /// A number or a text (`IntOrString`).
    IntOrString,
    /// A quantity: a number or a text.
    Quantity,
    /// Any value, kept as it is.
    Any,
}

/// How a list merges.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ListType {
    /// As one value.
    Atomic,
    /// Each scalar is an item of its own.
    Set,
    /// Items are known by their keys.
    Map,
}

/// A field found by its number.
pub(crate) struct Numbered<'a> {
    /// Its name in JSON.
    pub(crate) name: &'static str,
    /// What it holds.
    pub(crate) schema: Schema<'a>,
    /// Whether a zero differs from nothing.
    pub(crate) zero_is_a_value: bool,
}

/// The name of a built-in type in the published definitions.
pub(crate) fn type_name(group: &str, version: &str, kind: &str) -> String {
    let package: Cow<'_, str> = match group {
        "" => "io.k8s.api.core".into(),
        "apiextensions.k8s.io" => "io.k8s.apiextensions-apiserver.pkg.apis.apiextensions".into(),
        "apiregistration.k8s.io" => "io.k8s.kube-aggregator.pkg.apis.apiregistration".into(),
        "meta.k8s.io" => "io.k8s.apimachinery.pkg.apis.meta".into(),
        other => format!("io.k8s.api.{}", other.split('.').next().unwrap_or(other)).into(),
    };
    format!("{package}.{version}.{kind}")
}

fn flag(value: &Value, name: &str) -> bool {
    value.get(name).and_then(Value::as_bool) == Some(true)
}

fn text<'v>(value: &'v Value, name: &str) -> &'v str {
    value.get(name).and_then(Value::as_str).unwrap_or("")
}

/// `ObjectMeta`, which every custom resource has at its root whatever its schema says of `metadata`.
fn object_meta() -> Schema<'static> {
    packed::Type::find("io.k8s.apimachinery.pkg.apis.meta.v1.ObjectMeta")
        .map_or(Schema::Any, |t| Schema::Builtin(t.0))
}

impl<'a> Schema<'a> {
    /// The schema of a built-in kind, or [`Schema::Any`].
    #[must_use]
    pub fn of(gvk: &Gvk) -> Schema<'static> {
        let name = type_name(&gvk.group, &gvk.version, &gvk.kind);
        packed::Type::find(&name).map_or(Schema::Any, |t| Schema::Builtin(t.0))
    }

    /// The type here, if the table has it by name.
    fn referred(self) -> Option<packed::Type> {
        match self {
            Schema::Builtin(node) => packed::referred(node),
            _ => None,
        }
    }

    /// What a value here looks like.
    #[must_use]
    pub fn shape(self) -> Shape {
        match self {
            Schema::Any => Shape::Any,
            Schema::Builtin(node) => {
                let (kind, format) = match packed::referred(node) {
                    Some(t) => (t.kind(), t.format()),
                    None => (packed::kind(node), packed::format(node)),
                };
                match (kind, format) {
                    (packed::STRING, 3) => Shape::Bytes,
                    (packed::STRING, 4) => Shape::Time {
                        micro: self.referred().is_some_and(|t| t.name().ends_with("MicroTime")),
                    },
                    (packed::STRING, _) => Shape::String,
                    (packed::INTEGER, 1) => Shape::Integer { bits: 32 },
                    (packed::INTEGER, _) => Shape::Integer { bits: 64 },
                    (packed::NUMBER, _) => Shape::Number,
                    (packed::BOOLEAN, _) => Shape::Bool,
                    (packed::LIST, _) => Shape::List,
                    (packed::MAP, _) => Shape::Map,
                    (packed::OBJECT, _) => Shape::Object,
                    (packed::INT_OR_STRING, _) => Shape::IntOrString,
                    (packed::QUANTITY, _) => Shape::Quantity,
                    _ => Shape::Any,
                }
            }
            Schema::Open(v) => {
                if flag(v, "x-kubernetes-int-or-string") {
                    return Shape::IntOrString;
                }
                match text(v, "type") {
                    "object"
                        if v.get("properties").is_some() || flag(v, "x-kubernetes-embedded-resource") =>
                    {
                        Shape::Object
                    }
                    "object" if v.get("additionalProperties").is_some_and(Value::is_object) => Shape::Map,
                    "object" if v.get("additionalProperties").and_then(Value::as_bool) == Some(true) => {
                        Shape::Any
                    }
                    "object" if flag(v, "x-kubernetes-preserve-unknown-fields") => Shape::Any,
                    "object" => Shape::Object,
                    "array" => Shape::List,
                    "string" => Shape::String,
                    "integer" => Shape::Integer { bits: 64 },
                    "number" => Shape::Number,
                    "boolean" => Shape::Bool,
                    _ => Shape::Any,
                }
            }
        }
    }

    /// Whether fields that an object here does not know are kept.
    #[must_use]
    pub fn keeps_unknown(self) -> bool {
        match self {
            Schema::Any => true,
            Schema::Builtin(_) => false,
            Schema::Open(v) => flag(v, "x-kubernetes-preserve-unknown-fields"),
        }
    }

    /// Whether an explicit null is a value here.
    #[must_use]
    pub fn nullable(self) -> bool {
        matches!(self, Schema::Any) || matches!(self, Schema::Open(v) if flag(v, "nullable"))
    }

    /// Whether an object of this place is a whole resource (`x-kubernetes-embedded-resource`).
    #[must_use]
    pub fn embedded(self) -> bool {
        matches!(self, Schema::Open(v) if flag(v, "x-kubernetes-embedded-resource"))
    }

    /// The schema of a field of an object, or of the values of a map.
    #[must_use]
    pub fn field(self, name: &str) -> Option<Schema<'a>> {
        match self {
            Schema::Any => Some(Schema::Any),
            Schema::Builtin(node) => match packed::referred(node) {
                Some(t) => t.field(name).map(|f| Schema::Builtin(f.node())),
                None if packed::kind(node) == packed::MAP => Some(Schema::Builtin(packed::argument(node))),
                None if packed::kind(node) == packed::FREE || packed::kind(node) == packed::ANY => {
                    Some(Schema::Any)
                }
                None => None,
            },
            Schema::Open(v) => {
                if let Some(found) = v.get("properties").and_then(|p| p.get(name)) {
                    return Some(Schema::Open(found));
                }
                if self.embedded() {
                    match name {
                        "apiVersion" | "kind" => return Some(Schema::Any),
                        "metadata" => return Some(object_meta()),
                        _ => {}
                    }
                }
                match v.get("additionalProperties") {
                    Some(Value::Bool(true)) => return Some(Schema::Any),
                    Some(values @ Value::Object(_)) => return Some(Schema::Open(values)),
                    _ => {}
                }
                (flag(v, "x-kubernetes-preserve-unknown-fields") || text(v, "type").is_empty())
                    .then_some(Schema::Any)
            }
        }
    }

    /// The schema of a field at the root of an object: metadata, apiVersion and kind are known for every kind.
    #[must_use]
    pub fn root_field(self, name: &str) -> Option<Schema<'a>> {
        match (self, name) {
            (Schema::Open(_) | Schema::Any, "metadata") => Some(object_meta()),
            (Schema::Open(_) | Schema::Any, "apiVersion" | "kind") => Some(Schema::Any),
            _ => self.field(name),
        }
    }

    /// The schema of the items of a list.
    #[must_use]
    pub fn items(self) -> Schema<'a> {
        match self {
            Schema::Builtin(node) if packed::kind(node) == packed::LIST => {
                Schema::Builtin(packed::argument(node))
            }
            Schema::Open(v) => v.get("items").map_or(Schema::Any, Schema::Open),
            _ => Schema::Any,
        }
    }

    /// How a list here merges.
    #[must_use]
    pub fn list_type(self) -> ListType {
        let (map, set) = match self {
            Schema::Any => (false, false),
            Schema::Builtin(node) => (packed::list_type(node) == 3, packed::list_type(node) == 2),
            Schema::Open(v) => {
                let t = text(v, "x-kubernetes-list-type");
                (t == "map", t == "set")
            }
        };
        match (map, set) {
            (true, _) => ListType::Map,
            (_, true) => ListType::Set,
            _ => ListType::Atomic,
        }
    }

    /// The keys that items of a [`ListType::Map`] list are known by.
    #[must_use]
    pub fn list_keys(self) -> Vec<&'a str> {
        match self {
            Schema::Any => Vec::new(),
            Schema::Builtin(node) => packed::list_keys(node).collect(),
            Schema::Open(v) => v
                .get("x-kubernetes-list-map-keys")
                .and_then(Value::as_array)
                .map(|l| l.iter().filter_map(Value::as_str).collect())
                .unwrap_or_default(),
        }
    }

    /// Whether an object or map here is one value for server-side apply.
    #[must_use]
    pub fn atomic_map(self) -> bool {
        match self {
            Schema::Any => false,
            Schema::Builtin(node) => {
                let flags = packed::flags(node);
                flags & 1 != 0 || (flags & 2 == 0 && packed::referred(node).is_some_and(packed::Type::atomic))
            }
            Schema::Open(v) => text(v, "x-kubernetes-map-type") == "atomic",
        }
    }

    /// The key by which a strategic merge patch merges a list here; empty for a set of scalars, `None` if a list
    /// is replaced.
    #[must_use]
    pub fn merge_key(self) -> Option<&'a str> {
        match self {
            Schema::Builtin(node) if packed::flags(node) & 4 != 0 => Some(packed::merge_key(node)),
            _ => None,
        }
    }

    /// Whether a strategic merge patch keeps only the fields that `$retainKeys` names.
    #[must_use]
    pub fn retain_keys(self) -> bool {
        matches!(self, Schema::Builtin(node) if packed::flags(node) & 8 != 0)
    }

    /// Whether an object must have a field.
    #[must_use]
    pub fn requires(self, name: &str) -> bool {
        match self {
            Schema::Any => false,
            Schema::Builtin(_) => {
                self.referred().and_then(|t| t.field(name)).is_some_and(packed::Field::required)
            }
            Schema::Open(v) => v
                .get("required")
                .and_then(Value::as_array)
                .is_some_and(|l| l.iter().any(|r| r.as_str() == Some(name))),
        }
    }

    /// The names of the fields of an object.
    #[must_use]
    pub fn field_names(self) -> Vec<&'a str> {
        match self {
            Schema::Any => Vec::new(),
            Schema::Builtin(_) => {
                self.referred().map(|t| t.fields().map(packed::Field::name).collect()).unwrap_or_default()
            }
            Schema::Open(v) => v
                .get("properties")
                .and_then(Value::as_object)
                .map(|p| p.keys().map(alloc::string::String::as_str).collect())
                .unwrap_or_default(),
        }
    }

    /// The field with a number in the protobuf form; `inner` is 0, or the number within an embedded struct's message.
    pub(crate) fn numbered(self, number: u64, inner: u64) -> Option<Numbered<'a>> {
        let found = self.referred()?.fields().find(|f| {
            let (tag, within, _) = f.tag();
            tag != 0 && u64::from(tag) == number && u64::from(within) == inner
        })?;
        let (name, schema) = (found.name(), Schema::Builtin(found.node()));
        Some(Numbered { name, schema, zero_is_a_value: found.tag().2 })
    }

    /// Whether the protobuf field of this number is the message of an embedded struct.
    pub(crate) fn inlines(self, number: u64) -> bool {
        let inlined = |f: packed::Field| u64::from(f.tag().0) == number && f.tag().1 != 0;
        self.referred().is_some_and(|t| t.fields().any(inlined))
    }

    /// The name of the type here as Go prints it: `v1.Container`, `[]v1.Container`, `string`, `int32`.
    #[must_use]
    pub fn type_name(self) -> String {
        if let Some(t) = self.referred() {
            let mut parts = t.name().rsplit('.');
            let kind = parts.next().unwrap_or("");
            return format!("{}.{kind}", parts.next().unwrap_or(""));
        }
        match self.shape() {
            Shape::List => format!("[]{}", self.items().type_name()),
            Shape::Map => format!("map[string]{}", self.field("").unwrap_or(Schema::Any).type_name()),
            Shape::Object => "object".into(),
            Shape::String => "string".into(),
            Shape::Bytes => "[]uint8".into(),
            Shape::Time { .. } => "v1.Time".into(),
            Shape::Integer { bits } => format!("int{bits}"),
            Shape::Number => "float64".into(),
            Shape::Bool => "bool".into(),
            Shape::IntOrString => "intstr.IntOrString".into(),
            Shape::Quantity => "resource.Quantity".into(),
            Shape::Any => "interface {}".into(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::api::table;

    #[test]
    fn every_resource_has_a_schema() {
        for info in table::builtin() {
            assert_eq!(info.schema().shape(), Shape::Object, "{}", info.gvr);
            assert!(info.schema().field("metadata").is_some(), "{}", info.gvr);
        }
    }

    #[test]
    fn shapes_of_well_known_fields() {
        let pod = Schema::of(&Gvk::new("", "v1", "Pod"));
        let at = |path: &str| {
            path.split('.').fold(pod, |s, name| if name == "[]" { s.items() } else { s.field(name).unwrap() })
        };
        assert_eq!(at("metadata.creationTimestamp").shape(), Shape::Time { micro: false });
        assert_eq!(at("metadata.labels").type_name(), "map[string]string");
        assert_eq!(at("spec.containers.[].resources.limits.cpu").shape(), Shape::Quantity);
        assert_eq!(at("spec.containers.[].ports").list_keys(), ["containerPort", "protocol"]);
        assert_eq!(at("spec.containers.[].ports").merge_key(), Some("containerPort"));
        assert_eq!(at("spec.containers.[].ports.[].hostPort").shape(), Shape::Integer { bits: 32 });
        assert_eq!(at("spec.containers.[].livenessProbe.httpGet.port").shape(), Shape::IntOrString);
        assert_eq!(at("metadata.finalizers").merge_key(), Some(""));
        assert!(at("spec.volumes").retain_keys());
        assert!(at("spec.nodeSelector").atomic_map());
        assert!(at("spec").requires("containers"));
        assert_eq!(at("metadata.managedFields.[].fieldsV1").shape(), Shape::Any);
    }

    #[test]
    fn custom_schemas_walk_alike() {
        let value = serde_json::json!({"type":"object","properties":{"spec":{"type":"object","required":["a"],
            "properties":{"a":{"type":"array","x-kubernetes-list-type":"map","x-kubernetes-list-map-keys":["k"],
            "items":{"type":"object","properties":{"k":{"type":"string"}}}}}}}});
        let list = Schema::Open(&value).field("spec").unwrap().field("a").unwrap();
        assert_eq!(
            (list.shape(), list.list_type(), list.list_keys()),
            (Shape::List, ListType::Map, alloc::vec!["k"])
        );
        assert!(Schema::Open(&value).field("nope").is_none());
        assert!(Schema::Open(&value).root_field("metadata").unwrap().field("labels").is_some());
    }
}
