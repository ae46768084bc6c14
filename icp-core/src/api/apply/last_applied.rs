//! From client-side to server-side apply: what `kubectl apply` noted in an annotation is kubectl's own, so that its
//! first server-side apply has no conflict with it (`lastappliedmanager.go`, `lastappliedupdater.go`).

use alloc::string::String;

use serde_json::Value;

use super::set::FieldSet;
use super::walk::{self, Place};
use crate::api::set_at;
use crate::api::table::ResourceInfo;

/// The manager whose applies are considered; others opt out by their name.
const KUBECTL: &str = "kubectl";
const ANNOTATION: &str = "kubectl.kubernetes.io/last-applied-configuration";
/// Longest annotation that is written, in bytes: all annotations together have a bound.
const ANNOTATION_BYTES_MAX: usize = crate::base::limits::ANNOTATION_BYTES_MAX;

fn noted(object: &Value) -> Option<&str> {
    object.pointer("/metadata/annotations")?.get(ANNOTATION)?.as_str().filter(|text| !text.is_empty())
}

/// The fields of the noted configuration that the live object still has as noted.
pub(super) fn own(info: &ResourceInfo, manager: &str, live: &Value) -> FieldSet {
    let config = match noted(live).filter(|_| manager == KUBECTL).map(serde_json::from_str::<Value>) {
        Some(Ok(config)) => config,
        _ => return FieldSet::default(),
    };
    if config.get("apiVersion").and_then(Value::as_str) != Some(info.api_version().as_str()) {
        return FieldSet::default();
    }
    let place = Place::root(info.schema());
    let changes = walk::compare(place, &config, live);
    let changed = changes.modified.union(&changes.added).union(&changes.removed);
    walk::fields(place, &config).difference(&changed)
}

/// Notes the configuration in an object that has a note.
pub(super) fn note(manager: &str, config: &Value, object: &mut Value) {
    if manager != KUBECTL || noted(object).is_none() {
        return;
    }
    let mut config = config.clone();
    if let Some(meta) = config.get_mut("metadata").and_then(Value::as_object_mut)
        && let Some(annotations) = meta.get_mut("annotations").and_then(Value::as_object_mut)
    {
        annotations.remove(ANNOTATION);
        if annotations.is_empty() {
            meta.remove("annotations");
        }
    }
    let text: String = alloc::format!("{config}\n");
    if text.len() <= ANNOTATION_BYTES_MAX {
        set_at(object, &["metadata", "annotations", ANNOTATION], text);
    } else if let Some(annotations) =
        object.pointer_mut("/metadata/annotations").and_then(Value::as_object_mut)
    {
        annotations.remove(ANNOTATION);
    }
}
