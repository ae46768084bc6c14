//! What happens to the machine, and what it wants done.

use alloc::string::String;

use icp_core::base::Duration;
use icp_core::client::{ClientEffect, ClientEvent, ObjectKey, RequestId, Term};

use crate::extender::{ExtenderAnswer, ExtenderCall};

/// What happens to the machine.
#[derive(Clone, Debug, PartialEq)]
#[non_exhaustive]
pub enum Event {
    /// Begin.
    Start,
    /// Stop placing pods and give leadership up.
    Stop,
    /// The API server answered.
    Client(ClientEvent),
    /// An extender answered a call, or could not be asked.
    Extender {
        /// The call ([`ExtenderCall::id`]).
        id: RequestId,
        /// The answer, or why there is none.
        answer: Result<ExtenderAnswer, String>,
    },
    /// A pod was bound that [`Effect::Bind`] asked for, or was not.
    Bound {
        /// The order ([`BindCall::id`]).
        id: RequestId,
        /// Why it was not.
        result: Result<(), String>,
    },
    /// Somebody wants to know what was counted: answered with [`Effect::Metrics`].
    Scrape,
    /// A plugin lets a pod go that waits for its leave ([`Permit::Wait`](crate::framework::Permit::Wait)).
    Allow {
        /// The pod.
        pod: ObjectKey,
        /// The plugin.
        plugin: String,
    },
    /// A plugin takes the node away from a pod that waits for its leave.
    Reject {
        /// The pod.
        pod: ObjectKey,
        /// The plugin.
        plugin: String,
        /// Why.
        reason: String,
    },
}

/// An order to bind a pod, by a plugin that leaves it to the shell ([`Bind::Shell`](crate::framework::Bind::Shell)).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BindCall {
    /// What the answer refers to.
    pub id: RequestId,
    /// The plugin.
    pub plugin: &'static str,
    /// The pod.
    pub pod: ObjectKey,
    /// Its uid.
    pub uid: String,
    /// The node.
    pub node: String,
    /// How long the answer is waited for.
    pub timeout: Duration,
}

impl From<ClientEvent> for Event {
    fn from(event: ClientEvent) -> Self {
        Self::Client(event)
    }
}

/// What the machine wants done.
#[derive(Clone, Debug, PartialEq)]
#[non_exhaustive]
pub enum Effect {
    /// A request to the API server.
    Client(ClientEffect),
    /// A call of an extender: answered with [`Event::Extender`].
    AskExtender(ExtenderCall),
    /// A pod is to be bound: answered with [`Event::Bound`].
    Bind(BindCall),
    /// Leadership was gained, or lost if there is no term; for logs.
    Led(Option<Term>),
    /// What was counted, in Prometheus' text format.
    Metrics(String),
    /// Lines of a history, to be appended to its file; of a [`Recorder`](crate::record::Recorder) alone.
    Recorded(String),
}

impl From<ClientEffect> for Effect {
    fn from(effect: ClientEffect) -> Self {
        Self::Client(effect)
    }
}

impl TryFrom<Effect> for ClientEffect {
    type Error = Effect;

    /// The request, or the effect itself if it is none.
    fn try_from(effect: Effect) -> Result<Self, Effect> {
        match effect {
            Effect::Client(effect) => Ok(effect),
            other @ (Effect::AskExtender(_)
            | Effect::Bind(_)
            | Effect::Led(_)
            | Effect::Metrics(_)
            | Effect::Recorded(_)) => Err(other),
        }
    }
}
