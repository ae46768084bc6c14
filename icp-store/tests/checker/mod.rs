//! Checks recorded histories of concurrent clients of a store against what etcd promises.
//!
//! A [`History`] is what clients did and were told, with the order of invocations and answers; [`Truth`] is the state at
//! every revision, read back afterwards. [`linear::check`] says whether the answers are those of one sequence of
//! operations in the order of revisions that respects real time. [`watch::check`] says whether each watch was told what
//! happened as etcd guarantees it. A [`Violation`] names the guarantee.
#![allow(dead_code, reason = "each test binary uses its part")]

pub mod linear;
pub mod model;
pub mod record;
pub mod truth;
pub mod watch;

use icp_core::storage::{
    RangeRequest, RangeResponse, Revision, StorageError, Txn, TxnResponse, WatchRequest, WatchResponse,
};

pub use truth::Truth;

/// A broken guarantee.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Violation {
    /// Which one, in a word.
    pub guarantee: &'static str,
    /// What was seen instead.
    pub detail: String,
}

pub fn violation<T>(guarantee: &'static str, detail: impl Into<String>) -> Result<T, Violation> {
    Err(Violation { guarantee, detail: detail.into() })
}

/// A request with its answer; `None` if it is unknown whether it took effect.
#[derive(Clone, Debug)]
pub enum Call {
    Range(RangeRequest, RangeResponse),
    Txn(Txn, Option<TxnResponse>),
}

/// A call of one client. Numbers of `invoked` and `returned` come from one counter: what returned before another was
/// invoked has the smaller number.
#[derive(Clone, Debug)]
pub struct Operation {
    pub client: usize,
    pub invoked: u64,
    /// `None` if no answer came; it may then take effect at any later time.
    pub returned: Option<u64>,
    pub call: Call,
}

/// One watch, begun again where it stood whenever it ended.
#[derive(Clone, Debug)]
pub struct Watched {
    pub request: WatchRequest,
    pub attempts: Vec<Attempt>,
}

/// One life of a watch.
#[derive(Clone, Debug, Default)]
pub struct Attempt {
    /// The revision that it was begun at.
    pub from: Revision,
    pub responses: Vec<WatchResponse>,
    /// What ended it, if something did.
    pub ended: Option<StorageError>,
}

/// What all clients did.
#[derive(Clone, Debug, Default)]
pub struct History {
    pub operations: Vec<Operation>,
    pub watches: Vec<Watched>,
}

/// What was checked.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Checked {
    pub writes: usize,
    pub reads: usize,
    /// Writes without an answer that did take effect.
    pub unknown: usize,
    pub events: usize,
}

impl History {
    /// Checks everything.
    pub fn check(&self, truth: &Truth) -> Result<Checked, Violation> {
        let mut checked = linear::check(truth, &self.operations)?;
        for watched in &self.watches {
            checked.events += watch::check(truth, watched)?;
        }
        Ok(checked)
    }
}
