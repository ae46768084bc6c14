//! `metav1.Status`: how every failure is told.

use alloc::string::String;
use alloc::vec::Vec;
use core::fmt;

use serde::{Deserialize, Serialize};

/// Machine-readable reasons (`metav1.StatusReason`).
pub mod reason {
    /// 409: an object of that name exists.
    pub const ALREADY_EXISTS: &str = "AlreadyExists";
    /// 400: the request makes no sense.
    pub const BAD_REQUEST: &str = "BadRequest";
    /// 409: the object changed, or is in the wrong state.
    pub const CONFLICT: &str = "Conflict";
    /// 410: the resourceVersion or continue token is too old.
    pub const EXPIRED: &str = "Expired";
    /// 403: the caller may not do this.
    pub const FORBIDDEN: &str = "Forbidden";
    /// 410: gone.
    pub const GONE: &str = "Gone";
    /// 500: the server's own fault.
    pub const INTERNAL_ERROR: &str = "InternalError";
    /// 422: the object is not valid.
    pub const INVALID: &str = "Invalid";
    /// 405: the verb is not supported by the resource.
    pub const METHOD_NOT_ALLOWED: &str = "MethodNotAllowed";
    /// 406: none of the accepted media types can be produced.
    pub const NOT_ACCEPTABLE: &str = "NotAcceptable";
    /// 404: no such object or resource.
    pub const NOT_FOUND: &str = "NotFound";
    /// 413: the body is too large.
    pub const REQUEST_ENTITY_TOO_LARGE: &str = "RequestEntityTooLarge";
    /// 503: the server cannot serve now.
    pub const SERVICE_UNAVAILABLE: &str = "ServiceUnavailable";
    /// 504: the request took too long.
    pub const TIMEOUT: &str = "Timeout";
    /// 429: too many requests.
    pub const TOO_MANY_REQUESTS: &str = "TooManyRequests";
    /// 401: the caller is not known.
    pub const UNAUTHORIZED: &str = "Unauthorized";
    /// 415: the media type of the body is not understood.
    pub const UNSUPPORTED_MEDIA_TYPE: &str = "UnsupportedMediaType";
}

/// `metav1.Status`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct Status {
    /// `Status`.
    pub kind: String,
    /// `v1`.
    pub api_version: String,
    /// Always empty; clients expect the field.
    pub metadata: serde_json::Map<String, serde_json::Value>,
    /// `Success` or `Failure`.
    pub status: String,
    /// For people.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub message: String,
    /// For programs: one of [`reason`].
    #[serde(skip_serializing_if = "String::is_empty")]
    pub reason: String,
    /// More for programs.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub details: Option<StatusDetails>,
    /// The HTTP status code.
    pub code: u16,
}

/// `metav1.StatusDetails`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct StatusDetails {
    /// The name of the object.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub name: String,
    /// The API group.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub group: String,
    /// The resource or kind.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub kind: String,
    /// The uid of the object.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub uid: String,
    /// One entry a field at fault.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub causes: Vec<StatusCause>,
    /// Seconds to wait before a retry.
    #[serde(skip_serializing_if = "is_zero")]
    pub retry_after_seconds: u32,
}

/// `metav1.StatusCause`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct StatusCause {
    /// `FieldValueRequired`, `FieldValueInvalid`, and so on.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub reason: String,
    /// For people.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub message: String,
    /// The path of the field, such as `spec.containers[0].name`.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub field: String,
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde calls it with a reference")]
fn is_zero(n: &u32) -> bool {
    *n == 0
}

impl Default for Status {
    fn default() -> Self {
        Self {
            kind: "Status".into(),
            api_version: "v1".into(),
            metadata: serde_json::Map::new(),
            status: "Success".into(),
            message: String::new(),
            reason: String::new(),
            details: None,
            code: 200,
        }
    }
}

impl Status {
    /// A failure.
    #[must_use]
    pub fn failure(code: u16, reason: &str, message: impl Into<String>) -> Self {
        Self {
            status: "Failure".into(),
            code,
            reason: reason.into(),
            message: message.into(),
            ..Self::default()
        }
    }

    /// Whether the reason is `reason`.
    #[must_use]
    pub fn is(&self, reason: &str) -> bool {
        self.reason == reason
    }
}

impl fmt::Display for Status {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} ({} {})", self.message, self.code, self.reason)
    }
}

impl core::error::Error for Status {}
