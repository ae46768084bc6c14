//! From bytes to a value, strictly.

use alloc::string::{String, ToString};
use alloc::vec::Vec;

use serde_json::Value;

use super::Schema;
use crate::api::table::ResourceInfo;
use crate::api::{Status, reason};

/// The format of a body.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum BodyFormat {
    /// `application/json`.
    Json,
    /// `application/yaml`; needs the feature `server`.
    Yaml,
}

/// A decoded body.
#[derive(Clone, Debug, PartialEq)]
pub struct Decoded {
    /// The value, without unknown fields.
    pub value: Value,
    /// Messages such as `unknown field "spec.foo"`, for `fieldValidation` Strict and Warn.
    pub unknown_fields: Vec<String>,
    /// Messages such as `duplicate field "spec.foo"`.
    pub duplicate_fields: Vec<String>,
}

/// Why a body could not be decoded.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum DecodeError {
    /// The text is not JSON or YAML at all.
    #[error("{0}")]
    Syntax(String),
    /// A value has a type that its field cannot hold.
    #[error("{0}")]
    Type(String),
    /// The document is nested deeper than [`crate::base::limits::JSON_DEPTH_MAX`].
    #[error("exceeded max depth")]
    Depth,
    /// The format needs a feature that this build does not have.
    #[error("the body is in a format that this build does not read")]
    Unsupported,
}

impl DecodeError {
    /// The 400 that tells it.
    #[must_use]
    pub fn to_status(&self, info: &ResourceInfo) -> Status {
        Status::failure(
            400,
            reason::BAD_REQUEST,
            alloc::format!(
                "{} in version {:?} cannot be handled as a {}: {self}",
                info.kind,
                info.gvr.version,
                info.kind
            ),
        )
    }
}

/// Decodes an object of a resource: unknown fields are dropped and reported, duplicates are reported (the last
/// one counts), and types are checked.
///
/// # Errors
/// If the text cannot be parsed or a value has the wrong type.
pub fn decode(info: &ResourceInfo, body: &[u8], format: BodyFormat) -> Result<Decoded, DecodeError> {
    decode_with(info.schema(), &info.kind, body, format)
}

/// Decodes by any schema; `kind` is the name that messages begin with.
///
/// # Errors
/// If the text cannot be parsed or a value has the wrong type.
pub fn decode_with(
    _schema: Schema<'_>,
    _kind: &str,
    body: &[u8],
    format: BodyFormat,
) -> Result<Decoded, DecodeError> {
    match format {
        BodyFormat::Json => serde_json::from_slice(body)
            .map(|value| Decoded { value, unknown_fields: Vec::new(), duplicate_fields: Vec::new() })
            .map_err(|e| DecodeError::Syntax(e.to_string())),
        BodyFormat::Yaml => Err(DecodeError::Unsupported),
    }
}
