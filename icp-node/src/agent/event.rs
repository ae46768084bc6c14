//! What happens to a node agent, and what it wants done.

use alloc::string::String;

use icp_core::client::{ClientEffect, ClientEvent};

use super::NodeCondition;
use crate::runtime::{PodUid, RuntimeCall, RuntimeEvent};

/// What happens to a node agent.
#[derive(Clone, Debug, PartialEq)]
#[non_exhaustive]
pub enum KubeletEvent {
    /// The API server answered.
    Client(ClientEvent),
    /// The runtime answered, or something happened to a container.
    Runtime(RuntimeEvent),
    /// A condition of the node is set or changed.
    Condition(NodeCondition),
    /// A pod is to be ended for the node's sake.
    Evict {
        /// The pod.
        pod: PodUid,
        /// Such as `Evicted`.
        reason: &'static str,
        /// For people.
        message: String,
        /// Kill its containers at once.
        at_once: bool,
    },
}

impl From<ClientEvent> for KubeletEvent {
    fn from(event: ClientEvent) -> Self {
        Self::Client(event)
    }
}

impl From<RuntimeEvent> for KubeletEvent {
    fn from(event: RuntimeEvent) -> Self {
        Self::Runtime(event)
    }
}

/// What a node agent wants done.
#[allow(
    clippy::large_enum_variant,
    reason = "effects live in a buffer for an instant; a box each would cost more"
)]
#[derive(Clone, Debug, PartialEq)]
#[non_exhaustive]
pub enum KubeletEffect {
    /// Ask the API server.
    Client(ClientEffect),
    /// Ask the runtime.
    Runtime(RuntimeCall),
}

impl From<ClientEffect> for KubeletEffect {
    fn from(effect: ClientEffect) -> Self {
        Self::Client(effect)
    }
}

impl From<RuntimeCall> for KubeletEffect {
    fn from(call: RuntimeCall) -> Self {
        Self::Runtime(call)
    }
}
