//! The failures that the server tells, with the words of `apimachinery/pkg/api/errors`.

use alloc::format;
use alloc::string::{String, ToString};
use alloc::vec;

use crate::api::table::ResourceInfo;
use crate::api::{Status, StatusCause, StatusDetails, reason};
use crate::storage::{Revision, StorageError};

fn details(info: &ResourceInfo, name: &str) -> StatusDetails {
    StatusDetails {
        name: name.into(),
        group: info.gvr.group.to_string(),
        kind: info.gvr.resource.to_string(),
        ..StatusDetails::default()
    }
}

fn of(info: &ResourceInfo, name: &str, code: u16, why: &str, message: String) -> Status {
    Status { details: Some(details(info, name)), ..Status::failure(code, why, message) }
}

/// 404: no object of that name.
#[must_use]
pub fn not_found(info: &ResourceInfo, name: &str) -> Status {
    of(info, name, 404, reason::NOT_FOUND, format!("{} {name:?} not found", info.group_resource()))
}

/// 404: no such path.
#[must_use]
pub fn no_such_path() -> Status {
    Status {
        details: Some(StatusDetails::default()),
        ..Status::failure(404, reason::NOT_FOUND, "the server could not find the requested resource")
    }
}

/// 409: the name is taken.
#[must_use]
pub fn already_exists(info: &ResourceInfo, name: &str) -> Status {
    of(info, name, 409, reason::ALREADY_EXISTS, format!("{} {name:?} already exists", info.group_resource()))
}

/// 409: somebody else changed the object.
#[must_use]
pub fn conflict(info: &ResourceInfo, name: &str, why: &str) -> Status {
    let message = format!("Operation cannot be fulfilled on {} {name:?}: {why}", info.group_resource());
    of(info, name, 409, reason::CONFLICT, message)
}

/// Why a write with an old resourceVersion conflicts.
pub const MODIFIED: &str =
    "the object has been modified; please apply your changes to the latest version and try again";

/// 403: not allowed, whoever asks.
#[must_use]
pub fn forbidden(info: &ResourceInfo, name: &str, why: &str) -> Status {
    let what = if name.is_empty() { String::new() } else { format!(" {name:?}") };
    let message = format!("{}{what} is forbidden: {why}", info.group_resource());
    of(info, name, 403, reason::FORBIDDEN, message)
}

/// 403: the namespace is going away.
#[must_use]
pub fn namespace_terminating(info: &ResourceInfo, name: &str, namespace: &str) -> Status {
    let why = format!("unable to create new content in namespace {namespace} because it is being terminated");
    let mut status = forbidden(info, name, &why);
    if let Some(details) = &mut status.details {
        details.causes = vec![StatusCause {
            reason: "NamespaceTerminating".into(),
            message: format!("namespace {namespace} is being terminated"),
            field: "metadata.namespace".into(),
        }];
    }
    status
}

/// 405: the resource does not support the verb.
#[must_use]
pub fn method_not_allowed() -> Status {
    Status {
        details: Some(StatusDetails::default()),
        ..Status::failure(
            405,
            reason::METHOD_NOT_ALLOWED,
            "the server does not allow this method on the requested resource",
        )
    }
}

/// 400: the request makes no sense.
#[must_use]
pub fn bad_request(message: impl Into<String>) -> Status {
    Status::failure(400, reason::BAD_REQUEST, message)
}

/// 401: the caller is not known.
#[must_use]
pub fn unauthorized() -> Status {
    Status::failure(401, reason::UNAUTHORIZED, "Unauthorized")
}

/// 406: the client takes nothing that the server can write.
#[must_use]
pub fn not_acceptable() -> Status {
    Status::failure(
        406,
        reason::NOT_ACCEPTABLE,
        "only the following media types are accepted: application/json, application/yaml",
    )
}

/// 413: the body is too large.
#[must_use]
pub fn too_large(bytes_max: usize) -> Status {
    Status::failure(
        413,
        reason::REQUEST_ENTITY_TOO_LARGE,
        format!("Request entity too large: limit is {bytes_max}"),
    )
}

/// 415: the body has a media type that nobody reads.
#[must_use]
pub fn unsupported_media_type(accepted: &str) -> Status {
    Status::failure(
        415,
        reason::UNSUPPORTED_MEDIA_TYPE,
        format!(
            "the body of the request was in an unknown format - accepted media types include: {accepted}"
        ),
    )
}

/// 429: later.
#[must_use]
pub fn too_many_requests(message: impl Into<String>, retry_after_seconds: u32) -> Status {
    Status {
        details: Some(StatusDetails { retry_after_seconds, ..StatusDetails::default() }),
        ..Status::failure(429, reason::TOO_MANY_REQUESTS, message)
    }
}

/// 500: the server's own fault.
#[must_use]
pub fn internal(message: impl Into<String>) -> Status {
    let message = message.into();
    Status {
        details: Some(StatusDetails {
            causes: vec![StatusCause { message: message.clone(), ..StatusCause::default() }],
            ..StatusDetails::default()
        }),
        ..Status::failure(500, reason::INTERNAL_ERROR, format!("Internal error occurred: {message}"))
    }
}

/// 410: the history that was asked for is gone.
#[must_use]
pub fn expired(message: impl Into<String>) -> Status {
    Status::failure(410, reason::EXPIRED, message)
}

/// 504: the revision that was asked for has not happened yet.
#[must_use]
pub fn too_large_resource_version(asked: Revision, current: Revision) -> Status {
    Status {
        details: Some(StatusDetails {
            causes: vec![StatusCause {
                reason: "ResourceVersionTooLarge".into(),
                message: "Too large resource version".into(),
                field: String::new(),
            }],
            retry_after_seconds: 1,
            ..StatusDetails::default()
        }),
        ..Status::failure(
            504,
            reason::TIMEOUT,
            format!("Timeout: Too large resource version: {asked}, current: {current}"),
        )
    }
}

/// What the failure of the store means to the client.
#[must_use]
pub fn storage(error: &StorageError) -> Status {
    match error {
        StorageError::Compacted { .. } => expired("The resourceVersion for the provided list is too old."),
        StorageError::FutureRevision { requested, current } => {
            too_large_resource_version(*requested, *current)
        }
        StorageError::TooLarge { bytes_max, .. } => too_large(*bytes_max),
        StorageError::NoSpace { .. } | StorageError::Poisoned { .. } | StorageError::Unavailable { .. } => {
            Status::failure(503, reason::SERVICE_UNAVAILABLE, format!("storage: {error}"))
        }
        other => internal(other.to_string()),
    }
}

impl From<StorageError> for Status {
    fn from(error: StorageError) -> Self {
        storage(&error)
    }
}
