//! kube-scheduler as a machine: it follows pods and nodes, decides, and asks for bindings.
//!
//! ```
//! use icp_core::base::{Machine, Rng, Time};
//! use icp_sched::machine::{Effect, Event, SchedulerConfig, SchedulerMachine};
//! let mut scheduler = SchedulerMachine::new(SchedulerConfig::default(), Rng::new(1));
//! let mut out = Vec::new();
//! scheduler.on(Time::ZERO, Event::Start, &mut out);
//! assert!(out.iter().all(|effect| matches!(effect, Effect::Client(_)))); // lists pods, nodes, ...
//! ```

mod asking;
mod bargaining;
mod binding;
mod config;
mod deciding;
mod decision;
mod driver;
mod event;
mod gangs;
mod metrics;
mod noting;
mod placing;
mod requests;
#[cfg(test)]
pub(crate) mod tests;
mod watching;

pub use config::SchedulerConfig;
pub use decision::{Decision, NoNode};
pub use driver::SchedulerMachine;
pub use event::{BindCall, Effect, Event};
