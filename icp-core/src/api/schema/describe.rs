//! The built-in types as OpenAPI v3 components.

use alloc::collections::BTreeSet;
use alloc::format;
use alloc::string::String;
use alloc::vec::Vec;

use serde_json::{Map, Value, json};

use super::packed::{self, Type};

fn format_name(format: u8) -> Option<&'static str> {
    match format {
        1 => Some("int32"),
        2 => Some("int64"),
        3 => Some("byte"),
        4 => Some("date-time"),
        5 => Some("double"),
        _ => None,
    }
}

fn reference(t: Type) -> String {
    format!("#/components/schemas/{}", t.name())
}

/// One place as a schema, with its description and extensions.
fn node(id: u16, description: &str, out: &mut BTreeSet<Type>) -> Value {
    let mut map = Map::new();
    if !description.is_empty() {
        map.insert("description".into(), description.into());
    }
    if let Some(t) = packed::referred(id) {
        out.insert(t);
        // Siblings of `$ref` have no meaning in OpenAPI v3.0, so upstream wraps the reference.
        map.insert("allOf".into(), json!([{ "$ref": reference(t) }]));
        if t.kind() == packed::OBJECT {
            map.insert("default".into(), json!({}));
        }
    } else {
        let kind = match packed::kind(id) {
            packed::STRING => "string",
            packed::INTEGER => "integer",
            packed::NUMBER => "number",
            packed::BOOLEAN => "boolean",
            packed::LIST => "array",
            packed::MAP | packed::FREE => "object",
            _ => "",
        };
        if !kind.is_empty() {
            map.insert("type".into(), kind.into());
        }
        if let Some(format) = format_name(packed::format(id)) {
            map.insert("format".into(), format.into());
        }
        match packed::kind(id) {
            packed::LIST => drop(map.insert("items".into(), bare(packed::argument(id), out))),
            packed::MAP => drop(map.insert("additionalProperties".into(), bare(packed::argument(id), out))),
            _ => {}
        }
    }
    let flags = packed::flags(id);
    if let Some(kind) = [None, Some("atomic"), Some("set"), Some("map")]
        .get(usize::from(packed::list_type(id)))
        .copied()
        .flatten()
    {
        map.insert("x-kubernetes-list-type".into(), kind.into());
    }
    let keys: Vec<&str> = packed::list_keys(id).collect();
    if !keys.is_empty() {
        map.insert("x-kubernetes-list-map-keys".into(), keys.into());
    }
    if flags & 3 != 0 {
        let kind = if flags & 1 != 0 { "atomic" } else { "granular" };
        map.insert("x-kubernetes-map-type".into(), kind.into());
    }
    let strategy = match flags & 12 {
        4 => "merge",
        8 => "retainKeys",
        12 => "merge,retainKeys",
        _ => "",
    };
    if !strategy.is_empty() {
        map.insert("x-kubernetes-patch-strategy".into(), strategy.into());
    }
    if !packed::merge_key(id).is_empty() {
        map.insert("x-kubernetes-patch-merge-key".into(), packed::merge_key(id).into());
    }
    Value::Object(map)
}

/// A place without a description: a plain reference where possible.
fn bare(id: u16, out: &mut BTreeSet<Type>) -> Value {
    match packed::referred(id) {
        Some(t) => {
            out.insert(t);
            json!({ "$ref": reference(t) })
        }
        None => node(id, "", out),
    }
}

fn component(t: Type, out: &mut BTreeSet<Type>) -> Value {
    let mut map = Map::new();
    if !t.description().is_empty() {
        map.insert("description".into(), t.description().into());
    }
    match t.kind() {
        packed::OBJECT | packed::FREE => drop(map.insert("type".into(), "object".into())),
        packed::STRING => drop(map.insert("type".into(), "string".into())),
        packed::INT_OR_STRING => {
            map.insert("oneOf".into(), json!([{"type":"integer"},{"type":"string"}]));
            map.insert("format".into(), "int-or-string".into());
        }
        packed::QUANTITY => {
            map.insert("oneOf".into(), json!([{"type":"string"},{"type":"number"}]));
        }
        _ => {}
    }
    if let Some(format) = format_name(t.format()) {
        map.insert("format".into(), format.into());
    }
    if t.atomic() {
        map.insert("x-kubernetes-map-type".into(), "atomic".into());
    }
    if t.kind() == packed::OBJECT {
        let required: Vec<&str> = t.fields().filter(|f| f.required()).map(packed::Field::name).collect();
        if !required.is_empty() {
            map.insert("required".into(), required.into());
        }
        let properties = t.fields().map(|f| (f.name().into(), node(f.node(), f.description(), out)));
        map.insert("properties".into(), Value::Object(properties.collect()));
    }
    if let Some((group, version, kind)) = t.gvk() {
        let gvk = json!([{"group": group, "version": version, "kind": kind}]);
        map.insert("x-kubernetes-group-version-kind".into(), gvk);
    }
    Value::Object(map)
}

/// The components of the named types and of all that they refer to. Names that the table does not have are left
/// out.
pub(crate) fn components<'n>(names: impl Iterator<Item = &'n str>) -> Map<String, Value> {
    let mut todo: BTreeSet<Type> = names.filter_map(Type::find).collect();
    let mut done = Map::new();
    while let Some(t) = todo.pop_first() {
        if done.contains_key(t.name()) {
            continue;
        }
        let mut found = BTreeSet::new();
        done.insert(t.name().into(), component(t, &mut found));
        todo.extend(found);
    }
    done
}
