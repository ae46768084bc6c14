//! Between the version of a request and the version that is stored.

use serde_json::Value;

use crate::api::convert;
use crate::api::table::ResourceInfo;

fn label(object: &mut Value, api_version: &str, kind: &str) {
    if let Some(map) = object.as_object_mut() {
        map.insert("apiVersion".into(), api_version.into());
        map.insert("kind".into(), kind.into());
    }
}

/// From the request's version to the stored one.
pub(super) fn to_storage(info: &ResourceInfo, object: &mut Value) {
    if info.storage_gvk != info.gvk() {
        convert::to_storage(info, object);
    }
    label(object, &info.storage_gvk.api_version(), &info.storage_gvk.kind);
}

/// From the stored version to the request's one.
pub(super) fn from_storage(info: &ResourceInfo, object: &mut Value) {
    if info.storage_gvk != info.gvk() {
        convert::from_storage(info, object);
        label(object, &info.api_version(), &info.kind);
    }
}
