//! Server-side apply (KEP-555): who owns which field.
//!
//! An apply says what its manager wants of an object: the result is the live object with these fields, without those
//! that the manager wanted before and nobody else has. A field that another manager has with another value is a
//! conflict. Follows `structured-merge-diff` `merge.Updater` and `apimachinery/pkg/util/managedfields`; what a list or
//! map means comes from the schema of the kind.
//!
//! ```
//! use icp_core::api::{apply::{Manager, apply}, table};
//! use icp_core::base::Time;
//! use serde_json::json;
//! let maps = table::find("", "v1", "configmaps").unwrap();
//! let by = |name| Manager { name, subresource: "", now: Time::ZERO };
//! let a = apply(maps, None, &json!({"metadata":{"name":"m"},"data":{"k":"1","old":"x"}}), by("a"), false).unwrap();
//! // What a manager no longer says goes, unless somebody else says it.
//! let a = apply(maps, Some(&a), &json!({"metadata":{"name":"m"},"data":{"k":"1"}}), by("a"), false).unwrap();
//! assert_eq!(a["data"], json!({"k":"1"}));
//! let other = json!({"metadata":{"name":"m"},"data":{"k":"2"}});
//! let conflict = apply(maps, Some(&a), &other, by("b"), false).unwrap_err();
//! assert_eq!(conflict.to_string(), r#"Apply failed with 1 conflict: conflict with "a": .data.k"#);
//! assert_eq!(apply(maps, Some(&a), &other, by("b"), true).unwrap()["data"], json!({"k":"2"}));
//! ```

mod last_applied;
mod managed;
mod set;
mod walk;

use alloc::format;
use alloc::string::{String, ToString};
use alloc::vec::Vec;

use serde_json::{Map, Value};

use self::managed::{Id, Managers, Owned};
use self::set::FieldSet;
use self::walk::{Comparison, Place};
use super::table::ResourceInfo;
use super::{Status, StatusCause, StatusDetails, reason};
use crate::base::Time;

/// The manager of the fields of an object that nobody was known to manage when it was first applied.
const BEFORE_FIRST_APPLY: &str = "before-first-apply";
/// Who writes, and how.
#[derive(Clone, Copy, Debug)]
pub struct Manager<'a> {
    /// The name (`fieldManager`, or the first part of the user agent).
    pub name: &'a str,
    /// The subresource that is written through; empty for the resource itself.
    pub subresource: &'a str,
    /// Now.
    pub now: Time,
}

/// Why an apply failed.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum ApplyError {
    /// 409: others own fields that the configuration sets to other values.
    #[error("Apply failed with {} conflict{}: {text}", .causes.len(), if .causes.len() == 1 { "" } else { "s" })]
    Conflict {
        /// One a field.
        causes: Vec<StatusCause>,
        /// The conflicts in words.
        text: String,
    },
    /// 400: the configuration sets `metadata.managedFields`, lacks a key of a list, or is of another kind.
    #[error("{0}")]
    Malformed(String),
}

impl ApplyError {
    /// The failure that tells it.
    #[must_use]
    pub fn to_status(&self) -> Status {
        match self {
            Self::Conflict { causes, .. } => Status {
                details: Some(StatusDetails { causes: causes.clone(), ..StatusDetails::default() }),
                ..Status::failure(409, reason::CONFLICT, self.to_string())
            },
            Self::Malformed(_) => Status::failure(400, reason::BAD_REQUEST, self.to_string()),
        }
    }
}

/// The conflicts in words, as upstream orders them: by manager, then by path.
fn conflict(conflicts: &[(Id, Vec<String>)]) -> ApplyError {
    let cause = |(id, path): (&Id, &String)| StatusCause {
        reason: "FieldManagerConflict".into(),
        message: format!("conflict with {}", id.text()),
        field: path.clone(),
    };
    let all = || conflicts.iter().flat_map(|(id, paths)| paths.iter().map(move |path| (id, path)));
    let causes: Vec<StatusCause> = all().map(cause).collect();
    let text = match causes.as_slice() {
        [one] => format!("{}: {}", one.message, one.field),
        _ => {
            let mut lines = Vec::new();
            for (id, paths) in conflicts {
                lines.push(format!("conflicts with {}:", id.text()));
                lines.extend(paths.iter().map(|path| format!("- {path}")));
            }
            lines.join("\n")
        }
    };
    ApplyError::Conflict { causes, text }
}

/// An object without its managed fields.
fn bare(object: &Value) -> Value {
    let mut object = object.clone();
    if let Some(meta) = object.get_mut("metadata").and_then(Value::as_object_mut) {
        meta.remove("managedFields");
    }
    object
}

/// The fields that a writer can own through a resource or subresource: others are reset (`GetResetFields`).
fn owned_through(info: &ResourceInfo, subresource: &str, mut fields: FieldSet) -> FieldSet {
    match subresource {
        "status" => fields.retain_roots(|root| matches!(root, "status" | "metadata")),
        "" if info.strategy.status => fields.retain_roots(|root| root != "status"),
        _ => {}
    }
    fields
}

fn store(object: &mut Value, managers: Managers) {
    let stays = !managers.0.is_empty();
    let Some(map) = object.as_object_mut() else { return };
    let meta = map.entry("metadata").or_insert_with(|| Value::Object(Map::new()));
    if let Some(meta) = meta.as_object_mut() {
        if stays {
            meta.insert("managedFields".into(), managers.encode());
        } else {
            meta.remove("managedFields");
        }
    }
}

/// Applies a configuration to the stored object (`None`: create it); the result carries new managedFields.
///
/// # Errors
/// On conflicts without `force`, and on malformed configurations.
pub fn apply(
    info: &ResourceInfo,
    live: Option<&Value>,
    config: &Value,
    manager: Manager<'_>,
    force: bool,
) -> Result<Value, ApplyError> {
    let place = Place::root(info.schema());
    if config.pointer("/metadata/managedFields").is_some() {
        return Err(ApplyError::Malformed("metadata.managedFields must be nil".into()));
    }
    walk::check(place, config, "").map_err(|why| {
        let name = config.pointer("/metadata/name").and_then(Value::as_str).unwrap_or("");
        let what = format!("{name}; {}, Kind={}", info.api_version(), info.kind);
        ApplyError::Malformed(format!("failed to create typed patch object ({what}): {why}"))
    })?;
    let own = Id {
        manager: manager.name.into(),
        operation: "Apply",
        api_version: String::new(),
        subresource: manager.subresource.into(),
    };
    let time = manager.now.to_rfc3339();
    let mut managers = live.map(Managers::of).unwrap_or_default();
    let live = live.map(bare);
    if let Some(live) = live.as_ref().filter(|_| managers.0.is_empty()) {
        let mut fields = walk::compare(place, &walk::empty(place), live).added;
        fields.strip();
        let id = update_id(info, BEFORE_FIRST_APPLY, "");
        if !fields.is_empty() {
            managers.0.insert(id, Owned { api_version: info.api_version(), time: time.clone(), fields });
        }
    }
    let live = live.unwrap_or_else(|| Value::Object(Map::new()));
    let former = managers.0.get(&own).cloned();
    let fields = owned_through(info, manager.subresource, walk::fields(place, config));
    let mut owned = Owned { api_version: info.api_version(), time, fields };
    managers.0.insert(own.clone(), owned.clone());
    let merged = walk::merge(place, &live, config);
    let mut new = prune(place, &merged, &managers, former.as_ref().map(|f| &f.fields));

    let Comparison { removed, modified, added } = walk::compare(place, &live, &new);
    let changed = owned_through(info, manager.subresource, modified.union(&added));
    let noted = last_applied::own(info, manager.name, &live);
    let others = managers.0.iter().filter(|(id, _)| **id != own);
    let conflicts: Vec<(Id, Vec<String>)> = others
        .map(|(id, owned)| (id.clone(), owned.fields.intersection(&changed).difference(&noted).paths()))
        .filter(|(_, paths)| !paths.is_empty())
        .collect();
    if !force && !conflicts.is_empty() {
        return Err(conflict(&conflicts));
    }
    managers.take(&changed, Some(&own));
    managers.take(&removed, Some(&own));
    owned.fields.strip();
    if let Some(former) = former
        && new == live
        && (&former.fields, &former.api_version) == (&owned.fields, &owned.api_version)
    {
        owned.time = former.time;
    }
    managers.0.remove(&own);
    if !owned.fields.is_empty() {
        managers.0.insert(own, owned);
    }
    last_applied::note(manager.name, config, &mut new);
    store(&mut new, managers);
    Ok(new)
}

/// Removes from a merged object what its applier said before and does not say now, unless others have it.
fn prune(place: Place<'_>, merged: &Value, managers: &Managers, former: Option<&FieldSet>) -> Value {
    let Some(former) = former.filter(|f| !f.is_empty()) else { return merged.clone() };
    let named = |set: &FieldSet| walk::with_named_fields(place, set);
    let gone = |set: &FieldSet| walk::remove(place, merged, set).unwrap_or_else(|| Value::Object(Map::new()));
    let former = named(former);
    let all = named(&walk::fields(place, merged));
    // What is left without the former fields, and what somebody has, stays.
    let left = named(&walk::fields(place, &gone(&former)));
    let managed = managers.0.values().fold(FieldSet::default(), |all, owned| all.union(&owned.fields));
    let kept = gone(&all.difference(&left.union(&named(&managed))));
    // What went along with them and was never the applier's stays too.
    let kept = named(&walk::fields(place, &kept));
    gone(&all.difference(&kept).intersection(&former))
}

fn update_id(info: &ResourceInfo, name: &str, subresource: &str) -> Id {
    Id {
        manager: name.into(),
        operation: "Update",
        api_version: info.api_version(),
        subresource: subresource.into(),
    }
}

/// The managers that an updated object starts with: those that the writer says, or the live ones.
fn starting_managers(live: Option<&Value>, new: &Value, subresource: &str) -> Managers {
    let of_live = || live.map(Managers::of).unwrap_or_default();
    if !subresource.is_empty() {
        return of_live();
    }
    let said = new.pointer("/metadata/managedFields").and_then(Value::as_array);
    // A list of one empty entry is the way to say "none".
    if said.is_some_and(|list| matches!(list.as_slice(), [Value::Object(one)] if one.is_empty())) {
        return Managers::default();
    }
    let said = Managers::of(new);
    if said.0.is_empty() { of_live() } else { said }
}

/// Records a create, update or patch by a manager in `new.metadata.managedFields`; call it with what the writer
/// wants, before admission adds what nobody asked for.
pub fn track_update(info: &ResourceInfo, live: Option<&Value>, new: &mut Value, manager: Manager<'_>) {
    let mut managers = starting_managers(live, new, manager.subresource);
    let place = Place::root(info.schema());
    if live.is_some() && managers.0.is_empty() {
        // Nobody was recorded when the object was made: then nobody is, until somebody applies.
        store(new, managers);
        return;
    }
    let Comparison { removed, modified, added } = match live {
        Some(live) => walk::compare(place, live, new),
        None => walk::compare(place, &walk::empty(place), new),
    };
    let through = |fields| owned_through(info, manager.subresource, fields);
    let changed = if modified.is_empty() { added } else { modified.union(&added) };
    let (changed, removed) = (through(changed), through(removed));
    // Where nobody has a field, none is taken away.
    let (changed, mut fields) =
        if managers.0.is_empty() { (FieldSet::default(), changed) } else { (changed.clone(), changed) };
    fields.strip();
    let said = |object: &Value| object.pointer("/metadata/managedFields").cloned();
    if fields.is_empty() && removed.is_empty() && live.is_some_and(|live| said(live) == said(new)) {
        return;
    }
    managers.take(&changed, None);
    managers.take(&removed, None);
    if !fields.is_empty() {
        let id = update_id(info, manager.name, manager.subresource);
        let time = manager.now.to_rfc3339();
        let owned = Owned { api_version: info.api_version(), time, fields };
        match managers.0.get_mut(&id) {
            Some(had) => {
                had.fields = had.fields.union(&owned.fields);
                had.time = owned.time;
            }
            None => drop(managers.0.insert(id, owned)),
        }
    }
    store(new, managers);
}

#[cfg(test)]
mod tests;
