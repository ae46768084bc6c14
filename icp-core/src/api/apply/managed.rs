//! `metadata.managedFields`: who owns what, read and written.

use alloc::collections::BTreeMap;
use alloc::format;
use alloc::string::{String, ToString};
use alloc::vec::Vec;

use serde_json::{Value, json};

use super::set::FieldSet;
use crate::base::Time;

/// Most managers that update an object; the fields of older ones go to [`ANCIENT`] (`DefaultMaxUpdateManagers`).
const UPDATE_MANAGERS_MAX: usize = 10;
/// The manager of the fields that nobody remembers the writer of.
const ANCIENT: &str = "ancient-changes";

/// Who a manager is. The time is no part of it, and for appliers the version is none either.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Id {
    pub(super) manager: String,
    /// `Apply` or `Update`.
    pub(super) operation: &'static str,
    pub(super) api_version: String,
    pub(super) subresource: String,
}

impl Id {
    /// As in messages.
    pub(super) fn text(&self) -> String {
        let mut out = format!("{:?}", self.manager);
        if !self.subresource.is_empty() {
            out.push_str(&format!(" with subresource {:?}", self.subresource));
        }
        if self.operation == "Update" {
            out.push_str(&format!(" using {}", self.api_version));
        }
        out
    }
}

/// What a manager owns, since when, and in which version of the API it said so.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Owned {
    pub(super) api_version: String,
    pub(super) time: String,
    pub(super) fields: FieldSet,
}

/// The managers of an object.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Managers(pub(super) BTreeMap<Id, Owned>);

impl Managers {
    /// The managers of an object; none if what the object says of them is nonsense, as upstream has it.
    pub(super) fn of(object: &Value) -> Self {
        let entries = object.pointer("/metadata/managedFields").and_then(Value::as_array);
        Self(entries.into_iter().flatten().map(decode).collect::<Option<_>>().unwrap_or_default())
    }

    /// Takes paths away from every manager but `except`.
    pub(super) fn take(&mut self, paths: &FieldSet, except: Option<&Id>) {
        if paths.is_empty() {
            return;
        }
        for (_, owned) in self.0.iter_mut().filter(|(id, _)| except != Some(*id)) {
            owned.fields = owned.fields.difference(paths);
        }
        self.0.retain(|id, owned| except == Some(id) || !owned.fields.is_empty());
    }

    /// Joins the oldest updates into one manager until there are few enough.
    fn cap(&mut self) {
        let mut updates: Vec<(String, Id)> = self
            .0
            .iter()
            .filter(|(id, _)| id.operation == "Update" && id.subresource.is_empty())
            .map(|(id, owned)| (owned.time.clone(), id.clone()))
            .collect();
        updates.sort();
        let mut left = updates.len();
        for (_, id) in updates {
            if left <= UPDATE_MANAGERS_MAX {
                break;
            }
            let bucket = Id { manager: ANCIENT.into(), ..id.clone() };
            if id == bucket {
                continue;
            }
            let Some(old) = self.0.remove(&id) else { continue };
            left -= 1;
            match self.0.get_mut(&bucket) {
                Some(ancient) => {
                    ancient.fields = ancient.fields.union(&old.fields);
                    ancient.time = ancient.time.clone().max(old.time);
                }
                None => {
                    left += 1;
                    self.0.insert(bucket, old);
                }
            }
        }
    }

    /// The list, in upstream's order: appliers first, then by time and name.
    pub(super) fn encode(mut self) -> Value {
        self.cap();
        let mut entries: Vec<(Id, Owned)> = self.0.into_iter().collect();
        entries.sort_by(|(a, x), (b, y)| {
            (a.operation, &x.time, &a.manager, &x.api_version, &a.subresource).cmp(&(
                b.operation,
                &y.time,
                &b.manager,
                &y.api_version,
                &b.subresource,
            ))
        });
        let encode = |(id, owned): (Id, Owned)| {
            let mut entry = json!({
                "manager": id.manager, "operation": id.operation, "apiVersion": owned.api_version,
                "time": owned.time, "fieldsType": "FieldsV1", "fieldsV1": owned.fields.encode(),
            });
            if let Some(map) = entry.as_object_mut() {
                if !id.subresource.is_empty() {
                    map.insert("subresource".into(), id.subresource.into());
                }
                if owned.time.is_empty() {
                    map.remove("time");
                }
            }
            entry
        };
        entries.into_iter().map(encode).collect::<Vec<_>>().into()
    }
}

fn decode(entry: &Value) -> Option<(Id, Owned)> {
    let text = |field: &str| entry.get(field).and_then(Value::as_str).unwrap_or("").to_string();
    let operation = match text("operation").as_str() {
        "Apply" => "Apply",
        "Update" | "" => "Update",
        _ => return None,
    };
    if !matches!(text("fieldsType").as_str(), "FieldsV1") {
        return None;
    }
    let time = match text("time").as_str() {
        "" => String::new(),
        given => given.parse::<Time>().ok()?.to_rfc3339(),
    };
    let api_version = text("apiVersion");
    let id = Id {
        manager: text("manager"),
        operation,
        api_version: if operation == "Apply" { String::new() } else { api_version.clone() },
        subresource: text("subresource"),
    };
    let fields = FieldSet::decode(entry.get("fieldsV1").unwrap_or(&Value::Object(serde_json::Map::new())))?;
    Some((id, Owned { api_version, time, fields }))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_oldest_updates_are_joined() {
        let entry = |n: usize| {
            json!({"manager": format!("m{n:02}"), "operation": "Update", "apiVersion": "v1",
                "time": format!("2026-01-01T00:00:{n:02}Z"), "fieldsType": "FieldsV1",
                "fieldsV1": {"f:data": {format!("f:k{n}"): {}}}})
        };
        let list: Vec<Value> = (0..13).map(entry).collect();
        let out = Managers::of(&json!({"metadata": {"managedFields": list}})).encode();
        let names: Vec<&str> =
            out.as_array().unwrap().iter().map(|e| e["manager"].as_str().unwrap()).collect();
        assert_eq!(names.len(), UPDATE_MANAGERS_MAX);
        assert_eq!(names[0], ANCIENT);
        assert_eq!(out[0]["fieldsV1"], json!({"f:data": {"f:k0": {}, "f:k1": {}, "f:k2": {}, "f:k3": {}}}));
        let nonsense = json!({"metadata": {"managedFields": [entry(1), {"operation": "Guess"}]}});
        assert_eq!(Managers::of(&nonsense), Managers::default());
    }
}
