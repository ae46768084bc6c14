//! Discovery documents: the legacy lists and the aggregated form (`apidiscovery.k8s.io/v2`).

use alloc::sync::Arc;

use serde_json::{Value, json};

use super::table::ResourceInfo;

/// `GET /api`: `APIVersions`. `address` is `host:port` of this server.
#[must_use]
pub fn api_versions(_address: &str) -> Value {
    json!({"kind":"APIVersions"})
}

/// `GET /apis`: `APIGroupList`.
#[must_use]
pub fn group_list(_resources: &[Arc<ResourceInfo>]) -> Value {
    json!({"kind":"APIGroupList","apiVersion":"v1","groups":[]})
}

/// `GET /apis/GROUP`: `APIGroup`; `None` if nothing is in the group.
#[must_use]
pub fn group(_resources: &[Arc<ResourceInfo>], _group: &str) -> Option<Value> {
    None
}

/// `GET /api/v1` and `/apis/GROUP/VERSION`: `APIResourceList`; `None` if nothing is in the group-version.
#[must_use]
pub fn resource_list(_resources: &[Arc<ResourceInfo>], _group: &str, _version: &str) -> Option<Value> {
    None
}

/// `GET /api` (`core`) and `/apis` (all others) as `APIGroupDiscoveryList`.
#[must_use]
pub fn aggregated(_resources: &[Arc<ResourceInfo>], _core: bool) -> Value {
    json!({"kind":"APIGroupDiscoveryList","apiVersion":"apidiscovery.k8s.io/v2","metadata":{},"items":[]})
}
