//! What touches the world on a node's side: loops that run an agent, and simulated nodes behind the async ports.
//!
//! | item | what |
//! |---|---|
//! | [`Agent`], [`run_agent`] | one node agent over any [`Runtime`](crate::runtime::Runtime) |
//! | [`Asked`], [`Handle`] | questions to a machine that a host runs |
#![expect(clippy::disallowed_methods, reason = "shells own the clock, the runtime and its tasks")]

mod agent;
mod ask;

pub use agent::{Agent, AgentHandle, run_agent};
pub use ask::{AskEvent, Asked, Handle};
