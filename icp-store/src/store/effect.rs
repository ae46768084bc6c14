//! What a store wants done.

use alloc::vec::Vec;

use icp_core::storage::{LeaseTtl, RangeResponse, Revision, StorageError, TxnResponse};

use super::Entry;
use crate::watch::{Polled, WatchId};

/// The answer to a [`Request`](super::Request).
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Answer {
    /// Of a read.
    Range(RangeResponse),
    /// Of a transaction.
    Txn(TxnResponse),
    /// Of a watch: poll it when it is ready.
    Watch(WatchId),
    /// Of a compaction or a revocation.
    Done,
    /// Of a grant or a renewal.
    Lease(LeaseTtl),
}

/// What a [`Store`](super::Store) wants done.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Effect {
    /// Append to the log, in order.
    Append {
        /// What to append.
        entries: Vec<Entry>,
        /// The revision after them; report it as [`Event::Durable`](super::Event::Durable).
        revision: Revision,
    },
    /// Answer, once all entries that were appended before are durable.
    Answer {
        /// The request's name.
        id: u64,
        /// The answer.
        answer: Result<Answer, StorageError>,
    },
    /// The watch may have something to say.
    WatchReady(WatchId),
    /// What the watch that was polled says.
    Polled {
        /// The watch.
        watch: WatchId,
        /// What it says.
        polled: Polled,
    },
}
