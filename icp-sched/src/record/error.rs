//! What is wrong with a history.

use alloc::string::String;

use crate::config::ConfigErrors;

/// What is wrong with a history. Lines are counted from 1.
#[derive(Clone, Debug, PartialEq, thiserror::Error)]
#[non_exhaustive]
pub enum HistoryError {
    /// There is not even a first line.
    #[error("the history is empty")]
    Empty,
    /// The first line is not that of a history.
    #[error("line 1: this is no history of icp-sched")]
    NotAHistory,
    /// It was written by a later version.
    #[error("line 1: version: {found} is not known, only {} is", super::VERSION)]
    Version {
        /// The version.
        found: u64,
    },
    /// A line is longer than any that is written.
    #[error("line {line}: longer than {} bytes", super::LINE_MAX)]
    TooLong {
        /// The line.
        line: u64,
    },
    /// A line is no JSON object.
    #[error("line {line}: {detail}")]
    Json {
        /// The line.
        line: u64,
        /// What the parser says.
        detail: String,
    },
    /// A field is missing, or holds what it cannot hold.
    #[error("line {line}: {field}: {detail}")]
    Field {
        /// The line.
        line: u64,
        /// The field.
        field: String,
        /// What is wrong with it.
        detail: String,
    },
    /// A field that no line has.
    #[error("line {line}: unknown field {field:?}")]
    UnknownField {
        /// The line.
        line: u64,
        /// The field.
        field: String,
    },
    /// The scheduler of the history cannot be made, because of its configuration or of the one to replay it under.
    #[error("configuration: {0}")]
    Configuration(ConfigErrors),
}
