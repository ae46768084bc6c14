//! From Nodes to the routes of one machine, without overlay: Calico's `vxlanMode: Never, ipipMode: Never` with routes
//! programmed by Felix (`ProgramClusterRoutes`).
//!
//! [`RouteMachine`] follows Nodes and wants, on its machine: a route to each other node's `spec.podCIDRs` by that node's
//! `InternalIP`, which must be on a link of this machine; a blackhole for the node's own part of the pod network, so
//! that packets to addresses that no pod has go nowhere; packets forwarded; and traffic from pods to elsewhere
//! masqueraded. It tells its own routes by their protocol number and sweeps those that are stale; what others made it
//! leaves alone.
//!
//! ```
//! use icp_core::base::{Machine, Time};
//! use icp_net::calico::route::{Config, Effect, RouteMachine};
//! let mut routes = RouteMachine::new(Config::new("worker-1"));
//! let mut out = Vec::new();
//! routes.wake(Time::ZERO, &mut out); // starts itself
//! assert!(out.iter().all(|e| matches!(e, Effect::Client(_)))); // lists first, writes nothing yet
//! ```

mod config;
mod effect;
mod event;
mod machine;
mod plan;
#[cfg(feature = "shell")]
pub mod shell;
#[cfg(test)]
mod tests;

pub use config::Config;
pub use effect::{Changes, Effect};
pub use event::{BackendError, Event, Failure, Observed};
pub use machine::RouteMachine;
pub use plan::{NodeFacts, RouteEntry, Via, Wanted, masquerade, route_changes, wanted};
