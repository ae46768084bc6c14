//! The defaults that the API server writes into objects.
//!
//! Follows `pkg/apis/*/v1/defaults.go` upstream. What an object of a kind always gets stands in tables of
//! `path = value`; what depends on other fields is code. Custom resources take the `default` of their schemas.
//!
//! ```
//! use icp_core::api::{defaults, table};
//! let mut service = serde_json::json!({"spec": {"ports": [{"port": 80}]}});
//! defaults::apply(table::find("", "v1", "services").unwrap(), &mut service);
//! assert_eq!(service["spec"]["ports"][0], serde_json::json!({"port": 80, "protocol": "TCP", "targetPort": 80}));
//! assert_eq!(service["spec"]["type"], "ClusterIP");
//! ```

mod custom;
mod kinds;
mod pod;
mod tables;

pub use custom::apply_schema;

use alloc::string::String;

use serde_json::{Map, Value};

use super::table::{ResourceInfo, SchemaSource};

/// Fills what the object leaves open, as the API reference says. Idempotent.
pub fn apply(info: &ResourceInfo, object: &mut Value) {
    if let SchemaSource::Custom(schema) = &info.schema {
        apply_schema(schema, object);
        return;
    }
    kinds::apply(info, object);
}

/// Sets a field of an object if it is missing or null.
fn set(object: &mut Value, field: &str, value: impl Into<Value>) {
    if let Some(map) = object.as_object_mut()
        && map.get(field).is_none_or(Value::is_null)
    {
        map.insert(field.into(), value.into());
    }
}

/// Sets a field if it is missing, null or the empty text: fields that are no pointers upstream.
fn set_text(object: &mut Value, field: &str, value: &str) {
    if let Some(map) = object.as_object_mut()
        && map.get(field).is_none_or(|v| v.is_null() || v.as_str() == Some(""))
    {
        map.insert(field.into(), value.into());
    }
}

/// Sets a number if it is missing or zero: fields that are no pointers upstream.
fn set_number(object: &mut Value, field: &str, value: i64) {
    if let Some(map) = object.as_object_mut()
        && map.get(field).is_none_or(|v| v.is_null() || v.as_i64() == Some(0))
    {
        map.insert(field.into(), value.into());
    }
}

/// The object at a field, made if it is missing.
fn object_at<'v>(object: &'v mut Value, field: &str) -> Option<&'v mut Value> {
    let map = object.as_object_mut()?;
    let slot = map.entry(String::from(field)).or_insert(Value::Null);
    if slot.is_null() {
        *slot = Value::Object(Map::new());
    }
    slot.is_object().then_some(slot)
}

fn text<'v>(object: &'v Value, field: &str) -> &'v str {
    object.get(field).and_then(Value::as_str).unwrap_or("")
}

/// Calls `f` for each item of a list at a field.
fn each(object: &mut Value, field: &str, f: impl FnMut(&mut Value)) {
    if let Some(list) = object.get_mut(field).and_then(Value::as_array_mut) {
        list.iter_mut().for_each(f);
    }
}

/// Calls `f` for the object at a field, if there is one.
fn at(object: &mut Value, field: &str, f: impl FnOnce(&mut Value)) {
    if let Some(value) = object.get_mut(field).filter(|v| v.is_object()) {
        f(value);
    }
}

#[cfg(test)]
mod tests;
