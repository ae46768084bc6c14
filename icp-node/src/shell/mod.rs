//! What touches the world on a node's side: loops that run an agent, and simulated nodes behind the async ports.
//!
//! | item | what |
//! |---|---|
//! | [`Agent`], [`run_agent`] | one node agent over any [`Runtime`](crate::runtime::Runtime) |
//! | [`SimRuntime`] | a [`MemoryRuntime`](crate::backend::memory::MemoryRuntime) as such a runtime |
//! | `SimNodes` (feature `api`) | a [`Fleet`](crate::backend::memory::Fleet) that `kubectl logs` and `exec` reach |
//! | [`Asked`], [`Handle`] | questions to a machine that a host runs |
#![expect(clippy::disallowed_methods, reason = "shells own the clock, the runtime and its tasks")]

mod agent;
mod ask;
#[cfg(feature = "api")]
mod sim_nodes;
mod sim_runtime;
mod sim_streams;

pub use agent::{Agent, AgentHandle, run_agent};
pub use ask::{AskEvent, Asked, Handle};
#[cfg(feature = "api")]
pub use sim_nodes::SimNodes;
pub use sim_runtime::SimRuntime;
