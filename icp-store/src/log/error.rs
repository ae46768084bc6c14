//! What can go wrong with a log.

use alloc::format;
use alloc::string::{String, ToString};
use std::io;

use icp_core::storage::StorageError;

/// Errors of a [`Log`](super::Log). Each says which file or directory, and what can be done.
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
        /// What the system said, and what may help.
        detail: String,
    },
    /// Bytes that were once synced are not what was written; the store must be restored from elsewhere.
    #[error(
        "{file} is corrupt at byte {offset}: {detail}; nothing is served: restore the directory from a copy"
    )]
    Corrupt {
        /// Which file.
        file: String,
        /// Where in it.
        offset: u64,
        /// What does not fit.
        detail: String,
    },
    /// The file was written by another release.
    #[error(
        "{file} has format version {found} and this release knows version {known}: open it with the release that wrote it, or a later one"
    )]
    Version {
        /// Which file.
        file: String,
        /// Its version.
        found: u32,
        /// The newest known one.
        known: u32,
    },
    /// Another opener, in this process or another, has the directory.
    #[error("{directory} is in use: end the process that has it open, or name another directory")]
    Locked {
        /// The directory.
        directory: String,
    },
    /// The directory holds something else than a store; it would be made private to this user.
    #[error("{directory} is not the directory of a store, for it holds {file}: name an empty one")]
    Foreign {
        /// The directory.
        directory: String,
        /// One of the files that do not belong to a store.
        file: String,
    },
    /// The directory belongs to another user, who could change it under the store.
    #[error(
        "{directory} belongs to user {owner} and this process runs as user {user}: change its owner, or run as user {owner}"
    )]
    Owner {
        /// The directory.
        directory: String,
        /// Whose it is.
        owner: u32,
        /// Who runs this process.
        user: u32,
    },
    /// More was to be made durable at once than a frame can hold.
    #[error("a batch of {bytes} bytes does not fit a frame of the log (at most {bytes_max})")]
    TooLarge {
        /// What was to be written.
        bytes: usize,
        /// The limit.
        bytes_max: usize,
    },
    /// The device is full.
    #[error("no space left: {detail}")]
    NoSpace {
        /// On which file, and what the system said.
        detail: String,
    },
    /// A write or a sync failed before.
    #[error("the log is poisoned: {detail}; look at the disk, then open the store again")]
    Poisoned {
        /// The first error.
        detail: String,
    },
}

impl LogError {
    pub(super) fn io(operation: &'static str, file: &str, error: &io::Error) -> Self {
        let help = match error.kind() {
            io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded => {
                return Self::NoSpace { detail: format!("{operation} {file}: {error}") };
            }
            io::ErrorKind::PermissionDenied => ": the user of this process must be able to read and write it",
            io::ErrorKind::ReadOnlyFilesystem => ": mount it writable, or name another directory",
            io::ErrorKind::NotADirectory => ": name a directory for the store alone",
            _ => "",
        };
        Self::Io { operation, file: file.into(), detail: format!("{error}{help}") }
    }

    /// Says where an entry stands that cannot be replayed.
    pub(super) fn at(self, file: &str, offset: u64) -> Self {
        match self {
            Self::Corrupt { detail, .. } => Self::Corrupt { file: file.into(), offset, detail },
            other => other,
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
