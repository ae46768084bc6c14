//! What can go wrong with a log.

use alloc::string::{String, ToString};
use std::io;

use icp_core::storage::StorageError;

/// Errors of a [`Log`](super::Log).
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum LogError {
    /// The system refused an operation on a file.
    #[error("{operation} {file}: {detail}")]
    Io {
        /// What was tried.
        operation: &'static str,
        /// On which file.
        file: String,
        /// What the system said.
        detail: String,
    },
    /// Bytes that were once synced are not what was written; the store must be restored from elsewhere.
    #[error("{file} is corrupt at byte {offset}: {detail}")]
    Corrupt {
        /// Which file.
        file: String,
        /// Where in it.
        offset: u64,
        /// What does not fit.
        detail: String,
    },
    /// The file was written by a later release.
    #[error("{file} has format version {found}; this release knows versions up to {known}")]
    Version {
        /// Which file.
        file: String,
        /// Its version.
        found: u32,
        /// The newest known one.
        known: u32,
    },
    /// Another process has the directory open.
    #[error("{directory} is in use by another process")]
    Locked {
        /// The directory.
        directory: String,
    },
    /// The device is full.
    #[error("no space left: {detail}")]
    NoSpace {
        /// On which file, and what the system said.
        detail: String,
    },
    /// A write or a sync failed before.
    #[error("the log is poisoned: {detail}")]
    Poisoned {
        /// The first error.
        detail: String,
    },
}

impl LogError {
    pub(super) fn io(operation: &'static str, file: &str, error: &io::Error) -> Self {
        match error.kind() {
            io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded => {
                Self::NoSpace { detail: alloc::format!("{operation} {file}: {error}") }
            }
            _ => Self::Io { operation, file: file.into(), detail: error.to_string() },
        }
    }

    pub(super) fn corrupt(file: &str, offset: u64, detail: impl Into<String>) -> Self {
        Self::Corrupt { file: file.into(), offset, detail: detail.into() }
    }
}

impl From<LogError> for StorageError {
    fn from(error: LogError) -> Self {
        match error {
            LogError::NoSpace { detail } => Self::NoSpace { detail },
            LogError::Poisoned { detail } => Self::Poisoned { detail },
            other => Self::Unavailable { detail: other.to_string() },
        }
    }
}
