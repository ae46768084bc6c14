//! Tables (`metav1.Table`) and partial metadata.

use serde_json::{Value, json};

use super::table::ResourceInfo;
use crate::base::Time;

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

/// The table of objects of a resource. `list_meta` is the `metadata` of the list (`resourceVersion`, `continue`,
/// `remainingItemCount`), or of a single object only its resourceVersion; `with_columns` is false for the
/// second and later events of a watch.
#[must_use]
pub fn table(
    _info: &ResourceInfo,
    _objects: &[&Value],
    list_meta: Value,
    _now: Time,
    _include: IncludeObject,
    _with_columns: bool,
) -> Value {
    json!({"kind":"Table","apiVersion":"meta.k8s.io/v1","metadata":list_meta,"columnDefinitions":[],"rows":[]})
}

/// The `PartialObjectMetadata` of an object.
#[must_use]
pub fn partial_metadata(object: &Value) -> Value {
    json!({"kind":"PartialObjectMetadata","apiVersion":"meta.k8s.io/v1","metadata":object.get("metadata")})
}
