//! What makes an object invalid.

use alloc::vec::Vec;

use serde_json::Value;

use super::FieldError;
use super::table::ResourceInfo;

/// The faults of an object that is to be created, after [`super::defaults::apply`].
#[must_use]
pub fn create(_info: &ResourceInfo, _object: &Value) -> Vec<FieldError> {
    Vec::new()
}

/// The faults of an object that is to replace `old` through a subresource (`None`: the resource itself).
#[must_use]
pub fn update(
    _info: &ResourceInfo,
    _subresource: Option<&str>,
    _new: &Value,
    _old: &Value,
) -> Vec<FieldError> {
    Vec::new()
}
