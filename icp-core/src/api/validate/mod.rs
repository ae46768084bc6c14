//! What makes an object invalid.
//!
//! Follows `pkg/apis/*/validation` upstream. What the schema table knows (required fields, values of fixed sets)
//! is checked by one walk; what spans fields is code, one file an area; custom resources are checked by their
//! OpenAPI v3 schemas. Turn the faults into a 422 with [`super::invalid`].
//!
//! ```
//! use icp_core::api::{defaults, invalid, table, validate};
//! let info = table::find("apps", "v1", "deployments").unwrap();
//! let mut web = serde_json::json!({"metadata":{"name":"web","namespace":"a"},"spec":{
//!     "selector":{"matchLabels":{"app":"web"}},
//!     "template":{"metadata":{"labels":{"app":"db"}},"spec":{"containers":[{"name":"c","image":"i"}]}}}});
//! defaults::apply(info, &mut web);
//! let status = invalid(info, "web", &validate::create(info, &web));
//! assert_eq!(status.message, "Deployment.apps \"web\" is invalid: spec.template.metadata.labels: Invalid value: \
//!     {\"app\":\"db\"}: `selector` does not match template `labels`");
//! ```

mod custom;
mod immutable;
mod kinds;
mod meta;
mod pod;
mod pod_groups;
mod service;
mod walk;
mod workloads;

use alloc::format;
use alloc::string::String;
use alloc::vec::Vec;

use serde_json::Value;

use super::FieldError;
use super::table::{ResourceInfo, SchemaSource};

/// Most faults that are told; an object with more is no better for a longer list.
const ERRORS_MAX: usize = 100;

/// The faults of an object that is to be created, after [`super::defaults::apply`].
#[must_use]
pub fn create(info: &ResourceInfo, object: &Value) -> Vec<FieldError> {
    let mut out = Vec::new();
    meta::create(info, object, &mut out);
    content(info, object, &mut out);
    out.truncate(ERRORS_MAX);
    out
}

fn content(info: &ResourceInfo, object: &Value, out: &mut Vec<FieldError>) {
    match &info.schema {
        SchemaSource::Custom(schema) => custom::validate(schema, object, out),
        SchemaSource::Builtin(schema) => {
            walk::walk(info, *schema, object, out);
            kinds::validate(info, object, out);
        }
    }
}

/// The faults of an object that is to replace `old` through a subresource (`None`: the resource itself).
#[must_use]
pub fn update(info: &ResourceInfo, subresource: Option<&str>, new: &Value, old: &Value) -> Vec<FieldError> {
    let mut out = Vec::new();
    meta::update(info, new, old, &mut out);
    if subresource.is_none() {
        immutable::update(info, new, old, &mut out);
        // What was stored is not refused for rules that came later: only what changes is checked.
        let same = |field: &str| new.get(field) == old.get(field);
        let unchanged =
            new.as_object().is_some_and(|m| m.keys().all(|k| k == "metadata" || k == "status" || same(k)));
        if !unchanged {
            content(info, new, &mut out);
        }
    }
    out.truncate(ERRORS_MAX);
    out
}

/// A text field, empty if it is missing.
fn text<'v>(value: &'v Value, field: &str) -> &'v str {
    value.get(field).and_then(Value::as_str).unwrap_or("")
}

fn number(value: &Value, field: &str) -> Option<i64> {
    value.get(field).and_then(Value::as_i64)
}

fn flag(value: &Value, field: &str) -> bool {
    value.get(field).and_then(Value::as_bool) == Some(true)
}

fn list<'v>(value: &'v Value, field: &str) -> &'v [Value] {
    value.get(field).and_then(Value::as_array).map_or(&[], Vec::as_slice)
}

/// Each item of a list with its path.
fn items<'v>(value: &'v Value, path: &str, field: &str) -> impl Iterator<Item = (String, &'v Value)> {
    let base = join(path, field);
    list(value, field).iter().enumerate().map(move |(i, v)| (format!("{base}[{i}]"), v))
}

fn join(path: &str, field: &str) -> String {
    if path.is_empty() { field.into() } else { format!("{path}.{field}") }
}

/// The messages of a check as faults of a field.
fn faults(out: &mut Vec<FieldError>, field: &str, value: &str, messages: Vec<String>) {
    out.extend(messages.into_iter().map(|m| FieldError::invalid(field, value, m)));
}

fn non_negative(out: &mut Vec<FieldError>, value: &Value, path: &str, fields: &[&str]) {
    for field in fields {
        if let Some(n) = number(value, field).filter(|n| *n < 0) {
            out.push(FieldError::invalid(join(path, field), n, "must be greater than or equal to 0"));
        }
    }
}

#[cfg(test)]
mod tests;
