//! What a store can answer instead of a result.

use alloc::string::String;

use super::{LeaseId, Revision};

/// Errors of a [`Storage`](super::Storage).
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum StorageError {
    /// The revision asked for has been compacted away; a watcher must list again.
    #[error("required revision has been compacted (oldest is {compacted})")]
    Compacted {
        /// The revision up to which history is gone.
        compacted: Revision,
    },
    /// The revision asked for is in the future.
    #[error("required revision {requested} is a future revision (current is {current})")]
    FutureRevision {
        /// What was asked for.
        requested: Revision,
        /// What the store has.
        current: Revision,
    },
    /// No lease has this id.
    #[error("requested lease {0} not found")]
    LeaseNotFound(LeaseId),
    /// The id of a lease to grant is taken.
    #[error("lease {0} already exists")]
    LeaseExists(LeaseId),
    /// A field of the request is out of bounds.
    #[error("{field}: {message}")]
    Invalid {
        /// The field at fault.
        field: &'static str,
        /// What is wrong with it.
        message: String,
    },
    /// A request is larger than the store takes.
    #[error("request of {bytes} bytes is too large (at most {bytes_max})")]
    TooLarge {
        /// The size of the request.
        bytes: usize,
        /// The limit.
        bytes_max: usize,
    },
    /// A watcher did not keep up and was cut; nothing was skipped before the cut.
    #[error("watcher was too slow: more than {lag_max} events behind")]
    SlowWatcher {
        /// The limit, in events.
        lag_max: usize,
    },
    /// The device is full: writes are refused, reads go on.
    #[error("no space left: writes are refused until space returns ({detail})")]
    NoSpace {
        /// Where, and what the system said.
        detail: String,
    },
    /// The alarm [`AlarmKind::Corrupt`](super::AlarmKind::Corrupt) is raised: writes are refused.
    #[error("corrupt cluster: writes are refused until the alarm is disarmed")]
    CorruptAlarm,
    /// A sync failed, so that the state of the disk is unknown: writes are refused until a restart.
    #[error("the log is poisoned after a failed sync: {detail}")]
    Poisoned {
        /// The first error.
        detail: String,
    },
    /// The store cannot be reached or does not answer; the outcome of a write is unknown.
    #[error("store unavailable: {detail}")]
    Unavailable {
        /// What the transport said.
        detail: String,
    },
    /// The operation is not built for this backend.
    #[error("{0} is not implemented by this backend")]
    Unimplemented(&'static str),
}
