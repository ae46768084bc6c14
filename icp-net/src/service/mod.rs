//! kube-proxy: Services and EndpointSlices to packet filter rules.
//!
//! [`ProxyMachine`] is the whole component; a shell feeds it API events, reads and writes tables
//! ([`crate::backend`]), and reports what came of it.
//!
//! A service costs no chain, no anonymous map and no verdict element, so that adding one takes the kernel the same
//! time whether there are ten or fifty thousand.
//!
//! ```
//! use icp_core::base::{Machine, Time};
//! use icp_net::service::{Config, Effect, ProxyMachine};
//! let mut proxy = ProxyMachine::new(Config::new("worker-1"));
//! let mut out = Vec::new();
//! proxy.start(Time::ZERO, &mut out);
//! assert!(out.iter().all(|e| matches!(e, Effect::Client(_)))); // lists first, writes nothing yet
//! ```

mod compile;
mod config;
mod effect;
mod endpoints;
mod event;
mod layout;
mod machine;
mod model;
#[cfg(feature = "shell")]
pub mod shell;
mod state;
#[cfg(test)]
mod tests;

pub use config::Config;
pub use effect::Effect;
pub use endpoints::Endpoint;
pub use event::{BackendError, Event};
pub use machine::ProxyMachine;
pub use model::{Protocol, SERVICE_NAME_LABEL};
pub use state::StaleFlows;
