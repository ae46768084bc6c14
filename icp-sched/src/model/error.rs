//! Why an object cannot be scheduled from.

use alloc::string::String;

/// An object does not have the form that the scheduler needs.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum ModelError {
    /// A part of the object cannot be decoded.
    #[error("{object}: {part}: {message}")]
    Decode {
        /// `namespace/name` of the object.
        object: String,
        /// The part: `spec` or `status`.
        part: &'static str,
        /// What is wrong with it.
        message: String,
    },
    /// A selector is not valid.
    #[error("{object}: {field}: {message}")]
    Selector {
        /// `namespace/name` of the object.
        object: String,
        /// The field that holds the selector.
        field: &'static str,
        /// What is wrong with it.
        message: String,
    },
}
