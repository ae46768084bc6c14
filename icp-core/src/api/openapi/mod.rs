//! OpenAPI v3 documents.

use alloc::string::String;
use alloc::sync::Arc;

use serde_json::{Value, json};

use super::table::ResourceInfo;

/// The path part of a group-version in `/openapi/v3`: `api/v1`, `apis/apps/v1`.
#[must_use]
pub fn group_version_path(group: &str, version: &str) -> String {
    if group.is_empty() { alloc::format!("api/{version}") } else { alloc::format!("apis/{group}/{version}") }
}

/// The document of one group-version; `resources` are those of that group-version.
#[must_use]
pub fn document(_group: &str, _version: &str, _resources: &[Arc<ResourceInfo>]) -> Value {
    json!({"openapi":"3.0.0"})
}

/// The index that `/openapi/v3` answers with: each path with the hash of its document.
#[must_use]
pub fn index(_resources: &[Arc<ResourceInfo>]) -> Value {
    json!({"paths":{}})
}
