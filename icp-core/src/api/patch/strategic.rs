//! Strategic merge patch: a merge patch that merges lists by their keys.
//!
//! Follows `k8s.io/apimachinery/pkg/util/strategicpatch`: the order of merged lists included.

use alloc::format;
use alloc::string::String;
use alloc::vec::Vec;

use serde_json::{Map, Value};

use super::PatchError;
use crate::api::schema::Schema;

const DIRECTIVE: &str = "$patch";
const RETAIN: &str = "$retainKeys";
const DELETE: &str = "$deleteFromPrimitiveList/";
const ORDER: &str = "$setElementOrder/";

fn malformed<T>(message: impl Into<String>) -> Result<T, PatchError> {
    Err(PatchError::Malformed(message.into()))
}

/// Strategic merge patch by a schema.
///
/// # Errors
/// If a directive is malformed or an item of a keyed list lacks its key.
pub fn strategic(schema: Schema<'_>, current: &Value, patch: &Value) -> Result<Value, PatchError> {
    let Some(changes) = patch.as_object() else {
        return malformed("a strategic merge patch must be an object");
    };
    let original = current.as_object().cloned().unwrap_or_default();
    Ok(Value::Object(merge_maps(schema, original, changes)?))
}

fn directive(map: &Map<String, Value>) -> Result<Option<&str>, PatchError> {
    match map.get(DIRECTIVE) {
        None => Ok(None),
        Some(Value::String(s)) if matches!(s.as_str(), "merge" | "replace" | "delete") => Ok(Some(s)),
        Some(other) => malformed(format!("unknown patch type found: {other}")),
    }
}

/// A value that is new in the object: without directives and without nulls.
fn plain(value: &Value) -> Value {
    match value {
        Value::Object(map) => Value::Object(
            map.iter()
                .filter(|(k, v)| !v.is_null() && !is_directive(k))
                .map(|(k, v)| (k.clone(), plain(v)))
                .collect(),
        ),
        Value::Array(list) => {
            let special = |v: &&Value| v.get(DIRECTIVE).is_none();
            Value::Array(list.iter().filter(special).map(plain).collect())
        }
        other => other.clone(),
    }
}

fn is_directive(key: &str) -> bool {
    key == DIRECTIVE || key == RETAIN || key.starts_with(DELETE) || key.starts_with(ORDER)
}

fn list_of<'v>(name: &str, value: &'v Value) -> Result<&'v Vec<Value>, PatchError> {
    value.as_array().ok_or_else(|| PatchError::Malformed(format!("{name} must be a list")))
}

fn merge_maps(
    schema: Schema<'_>,
    mut original: Map<String, Value>,
    patch: &Map<String, Value>,
) -> Result<Map<String, Value>, PatchError> {
    match directive(patch)? {
        Some("replace") => {
            let Value::Object(map) = plain(&Value::Object(patch.clone())) else { return Ok(Map::new()) };
            return Ok(map);
        }
        Some("delete") => return Ok(Map::new()),
        _ => {}
    }
    if let Some(keys) = patch.get(RETAIN) {
        let keys = list_of(RETAIN, keys)?;
        for (key, value) in patch.iter().filter(|(k, _)| !is_directive(k)) {
            if !value.is_null() && !keys.iter().any(|k| k.as_str() == Some(key)) {
                return malformed(format!("{RETAIN} list doesn't contain a key present in the patch: {key}"));
            }
        }
        original.retain(|key, _| keys.iter().any(|k| k.as_str() == Some(key)));
    }
    for (key, change) in patch {
        if let Some(field) = key.strip_prefix(DELETE) {
            let gone = list_of(key, change)?;
            if let Some(Value::Array(list)) = original.get_mut(field) {
                list.retain(|v| !gone.contains(v));
            }
        }
    }
    for (key, change) in patch.iter().filter(|(k, _)| !is_directive(k)) {
        if change.is_null() {
            original.remove(key);
            continue;
        }
        let sub = schema.field(key).unwrap_or(Schema::Any);
        let merged = match (original.remove(key), change) {
            (Some(Value::Object(old)), Value::Object(new)) => {
                let deleted = directive(new)? == Some("delete");
                let map = merge_maps(sub, old, new)?;
                // A deleted map leaves an empty one, as upstream does.
                if deleted { Value::Object(Map::new()) } else { Value::Object(map) }
            }
            (Some(Value::Array(old)), Value::Array(new)) => match sub.merge_key() {
                Some(merge_key) => {
                    let order = patch.get(&format!("{ORDER}{key}"));
                    let order = order.map(|o| list_of(ORDER, o)).transpose()?;
                    Value::Array(merge_lists(sub, merge_key, &old, new, order)?)
                }
                None => plain(change),
            },
            _ => plain(change),
        };
        original.insert(key.clone(), merged);
    }
    // An order without a list of changes only moves what is there.
    for (key, order) in patch {
        let Some(field) = key.strip_prefix(ORDER).filter(|f| !patch.contains_key(*f)) else { continue };
        let sub = schema.field(field).unwrap_or(Schema::Any);
        if let (Some(Value::Array(list)), Some(merge_key)) = (original.get(field), sub.merge_key()) {
            let sorted = normalize(list, list_of(key, order)?, list, merge_key);
            original.insert(field.into(), Value::Array(sorted));
        }
    }
    Ok(original)
}

/// Whether two items are the same item of a list.
fn same(a: &Value, b: &Value, merge_key: &str) -> bool {
    if merge_key.is_empty() {
        return a == b;
    }
    match (a.get(merge_key), b.get(merge_key)) {
        (Some(a), Some(b)) => a == b,
        _ => false,
    }
}

fn merge_lists(
    schema: Schema<'_>,
    merge_key: &str,
    original: &[Value],
    patch: &[Value],
    order: Option<&Vec<Value>>,
) -> Result<Vec<Value>, PatchError> {
    let mut merged = original.to_vec();
    let mut changes: Vec<&Value> = Vec::new();
    let mut replace = false;
    for item in patch {
        let map = item.as_object();
        match map.map(directive).transpose()?.flatten() {
            Some("replace") => replace = true,
            Some("delete") => {
                if !merge_key.is_empty() && item.get(merge_key).is_none() {
                    return malformed(format!("delete patch type with no merge key defined: {item}"));
                }
                merged.retain(|v| !same(v, item, merge_key));
            }
            _ => changes.push(item),
        }
    }
    if replace {
        return Ok(changes.into_iter().map(plain).collect());
    }
    for item in &changes {
        if merge_key.is_empty() {
            if !merged.contains(item) {
                merged.push((*item).clone());
            }
            continue;
        }
        let Some(map) = item.as_object().filter(|m| m.contains_key(merge_key)) else {
            return malformed(format!("map: {item} does not contain declared merge key: {merge_key}"));
        };
        match merged.iter_mut().find(|v| same(v, item, merge_key)) {
            Some(found) => {
                let old = found.as_object().cloned().unwrap_or_default();
                *found = Value::Object(merge_maps(schema.items(), old, map)?);
            }
            None => merged.push(plain(item)),
        }
    }
    let changes: Vec<Value> = changes.into_iter().cloned().collect();
    let merged = normalize(&merged, &changes, original, merge_key);
    Ok(match order {
        Some(order) => normalize(&merged, order, original, merge_key),
        None => merged,
    })
}

/// Items that `order` names stand in that order; the others keep their place relative to those that the original
/// had (`normalizeElementOrder` and `mergeSortedSlice`).
fn normalize(merged: &[Value], order: &[Value], original: &[Value], merge_key: &str) -> Vec<Value> {
    let place = |list: &[Value], v: &Value| list.iter().position(|x| same(x, v, merge_key));
    let (mut ours, mut others): (Vec<&Value>, Vec<&Value>) =
        merged.iter().partition(|v| place(order, v).is_some());
    ours.sort_by_key(|v| place(order, v));
    others.sort_by_key(|v| place(original, v).unwrap_or(usize::MAX));
    let (mut ours, mut others) = (ours.into_iter().peekable(), others.into_iter().peekable());
    let mut out = Vec::with_capacity(merged.len());
    loop {
        let take_other = match (others.peek(), ours.peek()) {
            (None, None) => return out,
            (Some(_), None) => true,
            (None, Some(_)) => false,
            (Some(other), Some(our)) => match (place(original, other), place(original, our)) {
                (Some(a), Some(b)) => a < b,
                _ => false,
            },
        };
        let next = if take_other { others.next() } else { ours.next() };
        out.extend(next.cloned());
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn plain_drops_directives() {
        let value = serde_json::json!({"a":null,"$retainKeys":["b"],"b":[{"$patch":"delete","name":"x"},{"name":"y"}]});
        assert_eq!(plain(&value), serde_json::json!({"b":[{"name":"y"}]}));
        assert_eq!(list_of("x", &Value::Null).unwrap_err(), PatchError::Malformed("x must be a list".into()));
    }
}
