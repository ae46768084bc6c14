//! Defaults of custom resources: the `default` of each place of a structural schema.

use alloc::string::String;

use serde_json::{Map, Value};

/// Fills missing fields with the `default` of the schema (`structural/defaulting` upstream). A null of a field
/// that is not nullable and has a default counts as missing.
pub fn apply_schema(schema: &Value, value: &mut Value) {
    match value {
        Value::Object(map) => {
            let properties = schema.get("properties").and_then(Value::as_object);
            for (name, sub) in properties.into_iter().flatten() {
                let nullable = sub.get("nullable").and_then(Value::as_bool) == Some(true);
                let missing = map.get(name).is_none_or(|v| v.is_null() && !nullable);
                if let Some(default) = sub.get("default").filter(|_| missing) {
                    map.insert(name.clone(), default.clone());
                }
            }
            let rest = schema.get("additionalProperties").filter(|s| s.is_object());
            each_field(map, properties, rest);
        }
        Value::Array(list) => {
            if let Some(items) = schema.get("items").filter(|s| s.is_object()) {
                list.iter_mut().for_each(|item| apply_schema(items, item));
            }
        }
        _ => {}
    }
}

fn each_field(map: &mut Map<String, Value>, properties: Option<&Map<String, Value>>, rest: Option<&Value>) {
    for (name, value) in map.iter_mut() {
        if let Some(sub) = properties.and_then(|p| p.get(name)).or(rest) {
            apply_schema(sub, value);
        }
    }
}
