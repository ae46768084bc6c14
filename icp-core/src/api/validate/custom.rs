//! Custom resources by their OpenAPI v3 schemas, and the definitions themselves.
//!
//! Messages follow `kube-openapi` validation as the API server shows it. `pattern` and CEL rules are not checked
//! here.

use alloc::format;
use alloc::string::{String, ToString};
use alloc::vec::Vec;

use serde_json::Value;

use super::{faults, items, join, list, number, text};
use crate::api::{FieldError, names};

/// The faults of an object of a custom kind.
pub(super) fn validate(schema: &Value, object: &Value, out: &mut Vec<FieldError>) {
    if let Some(map) = object.as_object() {
        required(schema, map, "", out);
        let properties = schema.get("properties").and_then(Value::as_object);
        for (field, value) in map {
            if matches!(field.as_str(), "metadata" | "apiVersion" | "kind") {
                continue;
            }
            if let Some(sub) = properties.and_then(|p| p.get(field)) {
                place(sub, value, field, out);
            }
        }
    }
}

fn required(schema: &Value, map: &serde_json::Map<String, Value>, path: &str, out: &mut Vec<FieldError>) {
    for field in list(schema, "required").iter().filter_map(Value::as_str) {
        if !map.contains_key(field) {
            out.push(FieldError::required(join(path, field), ""));
        }
    }
}

fn type_of(value: &Value) -> &'static str {
    match value {
        Value::Null => "null",
        Value::Bool(_) => "boolean",
        Value::Number(n) if n.is_f64() => "number",
        Value::Number(_) => "integer",
        Value::String(_) => "string",
        Value::Array(_) => "array",
        Value::Object(_) => "object",
    }
}

fn fits(wanted: &str, value: &Value) -> bool {
    match (wanted, value) {
        ("number", Value::Number(_)) => true,
        ("integer", Value::Number(n)) => {
            n.is_i64() || n.is_u64() || n.as_f64().is_some_and(|f| libm::floor(f) == f)
        }
        (wanted, value) => wanted == type_of(value),
    }
}

fn place(schema: &Value, value: &Value, path: &str, out: &mut Vec<FieldError>) {
    if out.len() > super::ERRORS_MAX {
        return;
    }
    if value.is_null() && super::flag(schema, "nullable") {
        return;
    }
    let wanted = text(schema, "type");
    let int_or_string = super::flag(schema, "x-kubernetes-int-or-string");
    let good = if int_or_string {
        matches!(value, Value::Number(_) | Value::String(_))
    } else {
        wanted.is_empty() || fits(wanted, value)
    };
    if !good {
        let wanted = if int_or_string { "integer,string" } else { wanted };
        let got = type_of(value);
        let detail = format!("{path} in body must be of type {wanted}: {got:?}");
        let mut error = FieldError::invalid(path, got, detail);
        error.kind = crate::api::FieldErrorKind::TypeInvalid;
        out.push(error);
        return;
    }
    let allowed = list(schema, "enum");
    if !allowed.is_empty() && !allowed.contains(value) {
        let texts: Vec<String> =
            allowed.iter().map(|v| v.as_str().map_or_else(|| v.to_string(), ToString::to_string)).collect();
        let texts: Vec<&str> = texts.iter().map(String::as_str).collect();
        out.push(FieldError::not_supported(path, value.clone(), &texts));
    }
    bounds(schema, value, path, out);
    match value {
        Value::Object(map) => {
            required(schema, map, path, out);
            let properties = schema.get("properties").and_then(Value::as_object);
            let rest = schema.get("additionalProperties").filter(|s| s.is_object());
            for (field, inner) in map {
                if let Some(sub) = properties.and_then(|p| p.get(field)).or(rest) {
                    place(sub, inner, &join(path, field), out);
                }
            }
        }
        Value::Array(all) => {
            if let Some(sub) = schema.get("items").filter(|s| s.is_object()) {
                all.iter().enumerate().for_each(|(i, inner)| place(sub, inner, &format!("{path}[{i}]"), out));
            }
            duplicates(schema, all, path, out);
        }
        _ => {}
    }
    combined(schema, value, path, out);
}

/// Items of sets and of keyed lists stand there once.
fn duplicates(schema: &Value, all: &[Value], path: &str, out: &mut Vec<FieldError>) {
    let keys: Vec<&str> =
        list(schema, "x-kubernetes-list-map-keys").iter().filter_map(Value::as_str).collect();
    let key_of = |v: &Value| -> Value {
        keys.iter()
            .map(|k| (String::from(*k), v.get(k).cloned().unwrap_or_default()))
            .collect::<serde_json::Map<_, _>>()
            .into()
    };
    let unique = super::flag(schema, "uniqueItems");
    let identity: Vec<Value> = match text(schema, "x-kubernetes-list-type") {
        "map" => all.iter().map(key_of).collect(),
        "set" => all.to_vec(),
        _ if unique => all.to_vec(),
        _ => return,
    };
    let mut seen = alloc::collections::BTreeSet::new();
    for (i, v) in identity.iter().enumerate() {
        if !seen.insert(v.to_string()) {
            out.push(FieldError::duplicate(format!("{path}[{i}]"), v.clone()));
        }
    }
}

fn bounds(schema: &Value, value: &Value, path: &str, out: &mut Vec<FieldError>) {
    let limit = |name: &str| schema.get(name).and_then(Value::as_f64);
    let size = |name: &str| number(schema, name).and_then(|n| usize::try_from(n).ok());
    let mut wrong = |detail: String| {
        out.push(FieldError::invalid(path, value.clone(), format!("{path} in body {detail}")))
    };
    match value {
        Value::Number(n) => {
            let n = n.as_f64().unwrap_or_default();
            let exclusive = |name: &str| super::flag(schema, name);
            if let Some(max) = limit("maximum")
                && (n > max || (exclusive("exclusiveMaximum") && n >= max))
            {
                let or_equal = if exclusive("exclusiveMaximum") { "" } else { " or equal to" };
                wrong(format!("should be less than{or_equal} {max}"));
            }
            if let Some(min) = limit("minimum")
                && (n < min || (exclusive("exclusiveMinimum") && n <= min))
            {
                let or_equal = if exclusive("exclusiveMinimum") { "" } else { " or equal to" };
                wrong(format!("should be greater than{or_equal} {min}"));
            }
            if let Some(step) = limit("multipleOf").filter(|s| *s > 0.0)
                && libm::fabs(n / step - libm::round(n / step)) > 1e-9
            {
                wrong(format!("should be a multiple of {step}"));
            }
        }
        Value::String(s) => {
            let chars = s.chars().count();
            if let Some(min) = size("minLength").filter(|m| chars < *m) {
                wrong(format!("should be at least {min} chars long"));
            }
            if let Some(max) = size("maxLength").filter(|m| chars > *m) {
                let mut error = FieldError::too_long(path, max);
                error.value = Some(value.clone());
                out.push(error);
            }
        }
        Value::Array(all) => {
            if let Some(min) = size("minItems").filter(|m| all.len() < *m) {
                wrong(format!("should have at least {min} items"));
            }
            if let Some(max) = size("maxItems").filter(|m| all.len() > *m) {
                let mut error =
                    FieldError::invalid(path, all.len(), format!("must have at most {max} items"));
                error.kind = crate::api::FieldErrorKind::TooMany;
                out.push(error);
            }
        }
        Value::Object(map) => {
            if let Some(min) = size("minProperties").filter(|m| map.len() < *m) {
                wrong(format!("should have at least {min} properties"));
            }
            if let Some(max) = size("maxProperties").filter(|m| map.len() > *m) {
                wrong(format!("should have at most {max} properties"));
            }
        }
        _ => {}
    }
}

/// `allOf`, `anyOf`, `oneOf` and `not`.
fn combined(schema: &Value, value: &Value, path: &str, out: &mut Vec<FieldError>) {
    let ok = |sub: &Value| {
        let mut found = Vec::new();
        place(sub, value, path, &mut found);
        found.is_empty()
    };
    for sub in list(schema, "allOf") {
        place(sub, value, path, out);
    }
    let any = list(schema, "anyOf");
    if !any.is_empty() && !any.iter().any(ok) {
        out.push(FieldError::invalid(
            path,
            value.clone(),
            format!("{path} in body must validate at least one schema (anyOf)"),
        ));
    }
    let one = list(schema, "oneOf");
    if !one.is_empty() && one.iter().filter(|s| ok(s)).count() != 1 {
        out.push(FieldError::invalid(
            path,
            value.clone(),
            format!("{path} in body must validate one and only one schema (oneOf)"),
        ));
    }
    if schema.get("not").is_some_and(ok) {
        out.push(FieldError::invalid(
            path,
            value.clone(),
            format!("{path} in body must not validate the schema (not)"),
        ));
    }
}

/// A CustomResourceDefinition.
pub(super) fn definition(object: &Value, out: &mut Vec<FieldError>) {
    let Some(spec) = object.get("spec") else { return };
    let names = spec.get("names").unwrap_or(&Value::Null);
    let (plural, group) = (text(names, "plural"), text(spec, "group"));
    let wanted = format!("{plural}.{group}");
    let name = object.pointer("/metadata/name").and_then(Value::as_str).unwrap_or("");
    if name != wanted {
        out.push(FieldError::invalid("metadata.name", name, "must be spec.names.plural+\".\"+spec.group"));
    }
    if !group.is_empty() {
        faults(out, "spec.group", group, names::dns1123_subdomain(group));
        if !group.contains('.') {
            out.push(FieldError::invalid("spec.group", group, "should be a domain with at least one dot"));
        }
    }
    for field in ["plural", "singular"] {
        let name = text(names, field);
        if !name.is_empty() {
            faults(out, &format!("spec.names.{field}"), name, names::dns1035_label(name));
        }
    }
    let stored = list(spec, "versions").iter().filter(|v| super::flag(v, "storage")).count();
    if stored != 1 {
        let value = spec.get("versions").cloned().unwrap_or_default();
        let detail = "must have exactly one version marked as storage version";
        out.push(FieldError::invalid("spec.versions", value, detail));
    }
    let all: Vec<&str> = list(spec, "versions").iter().map(|v| text(v, "name")).collect();
    if !super::kinds::distinct(&all) {
        let value = spec.get("versions").cloned().unwrap_or_default();
        out.push(FieldError::invalid("spec.versions", value, "must contain unique version names"));
    }
    for (path, version) in items(spec, "spec", "versions") {
        match version.pointer("/schema/openAPIV3Schema") {
            None => {
                let at = format!("{path}.schema.openAPIV3Schema");
                out.push(FieldError::required(at, "schemas are required"));
            }
            Some(schema) if text(schema, "type") != "object" => {
                let at = format!("{path}.schema.openAPIV3Schema.type");
                out.push(FieldError::invalid(at, text(schema, "type"), "must be object at the root"));
            }
            Some(_) => {}
        }
    }
}
