//! Conversion between the versions that share stored objects: events and horizontal pod autoscalers.

use serde_json::Value;

use super::table::ResourceInfo;

/// From the request's version to the stored one.
pub fn to_storage(_info: &ResourceInfo, _object: &mut Value) {}

/// From the stored version to the request's one.
pub fn from_storage(_info: &ResourceInfo, _object: &mut Value) {}
