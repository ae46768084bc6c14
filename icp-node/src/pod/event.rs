//! What happens to a pod machine.

use alloc::string::String;
use alloc::sync::Arc;

use super::Pod;
use crate::runtime::{CallId, ContainerKey, Exit, Outcome, PodListing, RuntimeError};

/// What happens to a pod machine.
#[derive(Clone, Debug, PartialEq)]
#[non_exhaustive]
pub enum PodEvent {
    /// The object changed.
    Update(Arc<Pod>),
    /// The object is gone from the API server.
    Gone,
    /// What the runtime knows of the pod after a restart of the agent; given at most once, before any other
    /// event.
    Adopt(PodListing),
    /// A call was done.
    Done {
        /// The call.
        call: CallId,
        /// What came of it.
        result: Result<Outcome, RuntimeError>,
    },
    /// A container ended.
    Exited {
        /// Which try.
        container: ContainerKey,
        /// How.
        exit: Exit,
    },
    /// The sandbox is gone with all that ran in it.
    SandboxDied {
        /// Why.
        message: String,
    },
    /// Something that the pod refers to changed: try again at once what failed for want of it.
    Retry,
    /// The node ends the pod: it fails with `reason` and is not started again.
    Evict {
        /// Such as `Evicted`.
        reason: &'static str,
        /// For people.
        message: String,
        /// Whether containers are killed at once instead of with the pod's grace.
        at_once: bool,
    },
}
