//! What is wrong with one field, and the 422 that tells it.

use alloc::format;
use alloc::string::String;
use alloc::vec::Vec;
use core::fmt;

use serde_json::Value;

use super::table::ResourceInfo;
use super::{Status, StatusCause, StatusDetails, reason};

/// The kind of fault (`field.ErrorType` upstream).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FieldErrorKind {
    /// The field must be set.
    Required,
    /// The value is malformed.
    Invalid,
    /// The value is not one of those that are allowed.
    NotSupported,
    /// The value stands there twice.
    Duplicate,
    /// The field may not be set here, or not be changed.
    Forbidden,
    /// The text is too long.
    TooLong,
    /// The list has too many items.
    TooMany,
    /// What the field refers to does not exist.
    NotFound,
    /// The value has the wrong type.
    TypeInvalid,
}

impl FieldErrorKind {
    /// The reason in a `StatusCause`.
    #[must_use]
    pub const fn reason(self) -> &'static str {
        match self {
            Self::Required => "FieldValueRequired",
            Self::Invalid => "FieldValueInvalid",
            Self::NotSupported => "FieldValueNotSupported",
            Self::Duplicate => "FieldValueDuplicate",
            Self::Forbidden => "FieldValueForbidden",
            Self::TooLong => "FieldValueTooLong",
            Self::TooMany => "FieldValueTooMany",
            Self::NotFound => "FieldValueNotFound",
            Self::TypeInvalid => "FieldValueTypeInvalid",
        }
    }

    const fn words(self) -> &'static str {
        match self {
            Self::Required => "Required value",
            Self::Invalid | Self::TypeInvalid => "Invalid value",
            Self::NotSupported => "Unsupported value",
            Self::Duplicate => "Duplicate value",
            Self::Forbidden => "Forbidden",
            Self::TooLong => "Too long",
            Self::TooMany => "Too many",
            Self::NotFound => "Not found",
        }
    }
}

/// One fault of one field (`field.Error` upstream).
#[derive(Clone, Debug, PartialEq)]
pub struct FieldError {
    /// The kind of fault.
    pub kind: FieldErrorKind,
    /// The path, such as `spec.containers[0].name`.
    pub field: String,
    /// The value at fault, where it is shown.
    pub value: Option<Value>,
    /// What is wrong.
    pub detail: String,
}

impl FieldError {
    /// A field that must be set.
    #[must_use]
    pub fn required(field: impl Into<String>, detail: impl Into<String>) -> Self {
        Self { kind: FieldErrorKind::Required, field: field.into(), value: None, detail: detail.into() }
    }

    /// A malformed value.
    #[must_use]
    pub fn invalid(field: impl Into<String>, value: impl Into<Value>, detail: impl Into<String>) -> Self {
        Self {
            kind: FieldErrorKind::Invalid,
            field: field.into(),
            value: Some(value.into()),
            detail: detail.into(),
        }
    }

    /// A value that is not one of `allowed`.
    #[must_use]
    pub fn not_supported(field: impl Into<String>, value: impl Into<Value>, allowed: &[&str]) -> Self {
        let mut allowed: Vec<&str> = allowed.to_vec();
        allowed.sort_unstable();
        let list: Vec<String> = allowed.iter().map(|a| format!("{a:?}")).collect();
        let detail =
            if list.is_empty() { String::new() } else { format!("supported values: {}", list.join(", ")) };
        Self { kind: FieldErrorKind::NotSupported, field: field.into(), value: Some(value.into()), detail }
    }

    /// A value that stands there twice.
    #[must_use]
    pub fn duplicate(field: impl Into<String>, value: impl Into<Value>) -> Self {
        let (field, value) = (field.into(), Some(value.into()));
        Self { kind: FieldErrorKind::Duplicate, field, value, detail: String::new() }
    }

    /// A field that may not be set or changed.
    #[must_use]
    pub fn forbidden(field: impl Into<String>, detail: impl Into<String>) -> Self {
        Self { kind: FieldErrorKind::Forbidden, field: field.into(), value: None, detail: detail.into() }
    }

    /// A text that is too long.
    #[must_use]
    pub fn too_long(field: impl Into<String>, max: usize) -> Self {
        let detail = format!("may not be more than {max} bytes");
        Self { kind: FieldErrorKind::TooLong, field: field.into(), value: None, detail }
    }

    /// A list with more items than it may have.
    #[must_use]
    pub fn too_many(field: impl Into<String>, actual: usize, max: usize) -> Self {
        let detail = format!("{actual}: must have at most {max} items");
        Self { kind: FieldErrorKind::TooMany, field: field.into(), value: None, detail }
    }

    /// A value that refers to something that does not exist.
    #[must_use]
    pub fn not_found(field: impl Into<String>, value: impl Into<Value>) -> Self {
        let (field, value) = (field.into(), Some(value.into()));
        Self { kind: FieldErrorKind::NotFound, field, value, detail: String::new() }
    }

    /// The message without the field (`ErrorBody`).
    #[must_use]
    pub fn body(&self) -> String {
        let mut text = String::from(self.kind.words());
        match (&self.value, self.kind) {
            (
                _,
                FieldErrorKind::Required
                | FieldErrorKind::Forbidden
                | FieldErrorKind::TooLong
                | FieldErrorKind::TooMany,
            ) => {}
            (Some(v), _) => text.push_str(&format!(": {}", go_value(v))),
            (None, _) => {}
        }
        if !self.detail.is_empty() {
            text.push_str(": ");
            text.push_str(&self.detail);
        }
        text
    }
}

/// A value as Go's `%#v`-like printing in `field.Error` shows it: texts quoted, others as JSON.
fn go_value(value: &Value) -> String {
    match value {
        Value::String(s) => format!("{s:?}"),
        Value::Null => "null".into(),
        Value::Array(list) if !list.is_empty() && list.iter().all(Value::is_string) => {
            let texts: Vec<String> = list.iter().map(go_value).collect();
            format!("[]string{{{}}}", texts.join(", "))
        }
        other => format!("{other}"),
    }
}

impl fmt::Display for FieldError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.field, self.body())
    }
}

/// The 422 for an object with faults (`apierrors.NewInvalid`).
#[must_use]
pub fn invalid(info: &ResourceInfo, name: &str, errors: &[FieldError]) -> Status {
    invalid_kind((&info.gvr.group, &info.kind), name, errors)
}

/// The 422 for a value of any group and kind with faults, such as the options of a request.
#[must_use]
pub fn invalid_kind((group, kind): (&str, &str), name: &str, errors: &[FieldError]) -> Status {
    let group_kind = if group.is_empty() { kind.into() } else { format!("{kind}.{group}") };
    let texts: Vec<String> = errors.iter().map(|e| format!("{e}")).collect();
    let all = match texts.as_slice() {
        [one] => one.clone(),
        many => format!("[{}]", many.join(", ")),
    };
    let mut status =
        Status::failure(422, reason::INVALID, format!("{group_kind} {name:?} is invalid: {all}"));
    status.details = Some(StatusDetails {
        name: name.into(),
        group: group.into(),
        kind: kind.into(),
        causes: errors
            .iter()
            .map(|e| StatusCause {
                reason: e.kind.reason().into(),
                message: e.body(),
                field: e.field.clone(),
            })
            .collect(),
        ..StatusDetails::default()
    });
    status
}
