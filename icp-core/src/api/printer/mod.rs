//! Tables (`metav1.Table`) and partial metadata: what `kubectl get` shows.
//!
//! Columns and cells follow `pkg/printers/internalversion/printers.go` upstream. Ages are counted from a `now`
//! that the caller gives.
//!
//! ```
//! use icp_core::api::{printer::{self, IncludeObject}, table};
//! use icp_core::base::Time;
//! let info = table::find("", "v1", "configmaps").unwrap();
//! let object = serde_json::json!({"metadata":{"name":"a","creationTimestamp":"1970-01-01T00:00:00Z"},"data":{"k":"v"}});
//! let t = printer::table(info, &[&object], serde_json::json!({}), Time::from_secs(90), IncludeObject::None, true);
//! assert_eq!(t["rows"][0]["cells"], serde_json::json!(["a", 1, "90s"]));
//! ```

mod cells;
mod columns;
mod format;
mod pod;
mod workloads;

pub use format::human_duration;

use alloc::string::{String, ToString};
use alloc::vec::Vec;

use serde_json::{Map, Value, json};

use super::table::ResourceInfo;
use crate::base::Time;
use format::View;

/// What the rows of a table carry (`includeObject`).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum IncludeObject {
    /// Nothing.
    None,
    /// `PartialObjectMetadata`.
    #[default]
    Metadata,
    /// The object.
    Object,
}

fn column(name: &str, kind: &str, priority: u8, format: &str, description: &str) -> Value {
    json!({ "name": name, "type": kind, "format": format, "description": description, "priority": priority })
}

fn column_definitions(info: &ResourceInfo) -> Vec<Value> {
    if !info.printer_columns.is_empty() {
        let name = column("Name", "string", 0, "name", "Name must be unique within a namespace.");
        let custom = info.printer_columns.iter().map(|c| {
            let text = |k: &str| c.get(k).and_then(Value::as_str).unwrap_or_default();
            let priority =
                c.get("priority").and_then(Value::as_u64).and_then(|p| u8::try_from(p).ok()).unwrap_or(0);
            column(text("name"), text("type"), priority, text("format"), text("description"))
        });
        return core::iter::once(name).chain(custom).collect();
    }
    columns::of(info)
        .split(',')
        .map(|spec| {
            let (spec, priority) = spec.strip_suffix('+').map_or((spec, 0), |s| (s, 1));
            let (spec, kind) = match spec.strip_suffix('#') {
                Some(s) => (s, "integer"),
                None => (spec, if spec == "Created At" { "date" } else { "string" }),
            };
            let format = if spec == "Name" && priority == 0 { "name" } else { "" };
            column(spec, kind, priority, format, "")
        })
        .collect()
}

/// The value at a simple JSON path such as `.spec.replicas` or `.status.conditions[?(@.type=="Ready")].status`.
fn json_path(object: &Value, path: &str) -> Option<Value> {
    let mut found = object;
    let mut rest = path.trim().trim_start_matches('$');
    while !rest.is_empty() {
        if let Some(tail) = rest.strip_prefix("[?(@.") {
            let (filter, tail) = tail.split_once(")]")?;
            let (field, wanted) = filter.split_once("==")?;
            let wanted = wanted.trim().trim_matches(['"', '\'']);
            found = found
                .as_array()?
                .iter()
                .find(|v| v.get(field.trim()).and_then(Value::as_str) == Some(wanted))?;
            rest = tail;
        } else if let Some(tail) = rest.strip_prefix('[') {
            let (token, tail) = tail.split_once(']')?;
            found = match token.trim_matches(['"', '\'']) {
                "*" => found.as_array()?.first()?,
                key => match key.parse::<usize>() {
                    Ok(i) => found.as_array()?.get(i)?,
                    Err(_) => found.get(key)?,
                },
            };
            rest = tail;
        } else {
            let tail = rest.strip_prefix('.').unwrap_or(rest);
            let mut name = String::new();
            let mut chars = tail.char_indices();
            let mut end = tail.len();
            while let Some((i, c)) = chars.next() {
                match c {
                    '\\' => name.extend(chars.next().map(|(_, c)| c)),
                    '.' | '[' => {
                        end = i;
                        break;
                    }
                    c => name.push(c),
                }
            }
            if name.is_empty() {
                return None;
            }
            found = found.get(&name)?;
            rest = tail.get(end..)?;
        }
    }
    Some(found.clone())
}

fn custom_cells(info: &ResourceInfo, object: &Value, now: Time) -> Vec<Value> {
    let view = View::new(object, now);
    let mut out = alloc::vec![Value::from(view.name())];
    for c in &info.printer_columns {
        let path = c.get("jsonPath").and_then(Value::as_str).unwrap_or_default();
        let value = json_path(object, path);
        out.push(match (c.get("type").and_then(Value::as_str), value) {
            (_, None) => Value::Null,
            (Some("date"), Some(v)) => view.age_of(v.as_str().unwrap_or_default()).into(),
            (Some("string"), Some(v)) if !v.is_string() => v.to_string().into(),
            (_, Some(v)) => v,
        });
    }
    out
}

/// The table of objects of a resource. `list_meta` is the `metadata` of the list (`resourceVersion`, `continue`,
/// `remainingItemCount`), or of a single object only its resourceVersion; `with_columns` is false for the
/// second and later events of a watch.
#[must_use]
pub fn table(
    info: &ResourceInfo,
    objects: &[&Value],
    list_meta: Value,
    now: Time,
    include: IncludeObject,
    with_columns: bool,
) -> Value {
    let rows: Vec<Value> = objects
        .iter()
        .map(|object| {
            let view = View::new(object, now);
            let cells = if info.printer_columns.is_empty() {
                cells::of(info, &view)
            } else {
                custom_cells(info, object, now)
            };
            let mut row = Map::new();
            row.insert("cells".into(), cells.into());
            if let Some(condition) = (info.kind == "Pod").then(|| pod::completed(&view)).flatten() {
                row.insert("conditions".into(), json!([condition]));
            }
            match include {
                IncludeObject::None => {}
                IncludeObject::Metadata => drop(row.insert("object".into(), partial_metadata(object))),
                IncludeObject::Object => drop(row.insert("object".into(), (*object).clone())),
            }
            Value::Object(row)
        })
        .collect();
    let columns = if with_columns { column_definitions(info) } else { Vec::new() };
    json!({
        "kind": "Table",
        "apiVersion": "meta.k8s.io/v1",
        "metadata": list_meta,
        "columnDefinitions": columns,
        "rows": rows,
    })
}

/// The `PartialObjectMetadata` of an object.
#[must_use]
pub fn partial_metadata(object: &Value) -> Value {
    let metadata = object.get("metadata").cloned().unwrap_or_else(|| Value::Object(Map::new()));
    json!({ "kind": "PartialObjectMetadata", "apiVersion": "meta.k8s.io/v1", "metadata": metadata })
}

/// The `PartialObjectMetadataList` of objects.
#[must_use]
pub fn partial_metadata_list(objects: &[&Value], list_meta: Value) -> Value {
    let items: Vec<Value> = objects.iter().map(|o| partial_metadata(o)).collect();
    json!({
        "kind": "PartialObjectMetadataList",
        "apiVersion": "meta.k8s.io/v1",
        "metadata": list_meta,
        "items": items,
    })
}

#[cfg(test)]
mod tests;
