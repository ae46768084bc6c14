//! Patches: JSON patch, merge patch and strategic merge patch.
//!
//! ```
//! use icp_core::api::patch;
//! use serde_json::json;
//! let mut target = json!({"a": 1, "b": {"c": 2}});
//! patch::merge(&mut target, &json!({"a": null, "b": {"d": 3}}));
//! assert_eq!(target, json!({"b": {"c": 2, "d": 3}}));
//! ```

mod json;
mod merge;
mod strategic;

use alloc::format;
use alloc::string::String;

use serde_json::Value;

use super::table::ResourceInfo;
use super::{Status, reason};
use crate::client::PatchKind;

pub use json::json;
pub use merge::merge;
pub use strategic::strategic;

/// Why a patch could not be applied.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum PatchError {
    /// 400: the patch is not a patch of its language.
    #[error("{0}")]
    Malformed(String),
    /// 422: an operation names a place that does not exist, or a `test` failed.
    #[error("the server rejected our request due to an error in our request")]
    Failed(String),
    /// 413: more operations than [`crate::base::limits::JSON_PATCH_OPS_MAX`].
    #[error("Request entity too large: The allowed maximum operations in a JSON patch is {max}, got {count}")]
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
    /// The failure that tells it (`patch.go` of the API server's handlers upstream).
    #[must_use]
    pub fn to_status(&self) -> Status {
        let (code, why) = match self {
            Self::Malformed(_) => (400, reason::BAD_REQUEST),
            Self::Failed(_) => (422, reason::INVALID),
            Self::TooManyOperations { .. } => (413, reason::REQUEST_ENTITY_TOO_LARGE),
            Self::UnsupportedMediaType(_) => (415, reason::UNSUPPORTED_MEDIA_TYPE),
        };
        let mut status = Status::failure(code, why, format!("{self}"));
        if let Self::Failed(detail) = self {
            let cause = super::StatusCause {
                reason: "UnexpectedServerResponse".into(),
                message: detail.clone(),
                ..Default::default()
            };
            status.details = Some(super::StatusDetails { causes: alloc::vec![cause], ..Default::default() });
        }
        status
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
    match kind {
        PatchKind::Json => json(current, patch),
        PatchKind::Merge => {
            if !patch.is_object() {
                return Err(PatchError::Malformed("a merge patch of an object must be an object".into()));
            }
            let mut out = current.clone();
            merge(&mut out, patch);
            Ok(out)
        }
        PatchKind::Strategic if info.is_custom() => Err(PatchError::UnsupportedMediaType(
            "application/json-patch+json, application/merge-patch+json, application/apply-patch+yaml".into(),
        )),
        PatchKind::Strategic => strategic(info.schema(), current, patch),
        PatchKind::Apply => Err(PatchError::Malformed("an apply configuration is no patch".into())),
    }
}

#[cfg(test)]
mod tests;
