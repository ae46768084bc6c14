//! What a pod machine wants done.

use alloc::string::String;
use alloc::sync::Arc;

use crate::runtime::{CallId, ContainerKey, Image, RuntimeOp};

/// What a pod machine wants done.
///
/// Calls carry an id that is unique within the pod; each is answered by one
/// [`PodEvent::Done`](super::PodEvent::Done).
#[derive(Clone, Debug, PartialEq)]
#[non_exhaustive]
pub enum PodEffect {
    /// Make all volumes of the pod; answered by [`crate::runtime::Outcome::Done`].
    PrepareVolumes {
        /// The call.
        call: CallId,
    },
    /// Make the sandbox; answered by [`crate::runtime::Outcome::Sandbox`].
    CreateSandbox {
        /// The call.
        call: CallId,
    },
    /// Make a container's image usable; answered by [`crate::runtime::Outcome::Image`].
    EnsureImage {
        /// The call.
        call: CallId,
        /// The container.
        container: Arc<str>,
    },
    /// Resolve a container's environment and start it; answered by [`crate::runtime::Outcome::Started`].
    StartContainer {
        /// The call.
        call: CallId,
        /// Which try.
        container: ContainerKey,
        /// Its image.
        image: Arc<Image>,
    },
    /// A call that needs nothing more.
    Call {
        /// The call.
        call: CallId,
        /// What to do.
        op: RuntimeOp,
    },
    /// The status is another than before; read it with [`PodMachine::status`](super::PodMachine::status).
    StatusChanged,
    /// Something to tell people.
    Event(PodNotice),
    /// Nothing of the pod is left on the node, and its object may go.
    Finished,
}

/// Something to tell people: an `Event` object about the pod.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PodNotice {
    /// Whether it is `Warning` rather than `Normal`.
    pub warning: bool,
    /// For programs, such as `BackOff`.
    pub reason: &'static str,
    /// For people.
    pub message: String,
    /// The container that it is about.
    pub container: Option<Arc<str>>,
}
