//! The controllers of kube-controller-manager, and the machine that runs them.
//!
//! A [`Controller`] is a pure function from the observed state to a [`Plan`]; [`Manager`] keeps the observed state
//! with shared informers, executes plans as [`ClientEffect`](crate::client::ClientEffect)s, and plans again when
//! something changed. The folder of each controller holds its `plan.rs` with tests beside it.
//!
//! ```
//! use icp_core::base::{Machine, Rng, Time};
//! use icp_core::controllers::{Effect, Event, Manager, ManagerConfig};
//! let mut manager = Manager::new(ManagerConfig::default(), Rng::new(7));
//! let mut out = Vec::new();
//! manager.on(Time::ZERO, Event::Start, &mut out);
//! assert!(out.iter().any(|e| matches!(e, Effect::Client(_)))); // lists what the controllers watch
//! ```

mod config;
mod controller;
mod manager;
mod plan;

pub mod cronjob;
pub mod daemonset;
pub mod deployment;
pub mod disruption;
pub mod endpointslice;
pub mod gc;
pub mod job;
pub mod namespace;
pub mod node;
pub mod podgc;
pub mod replicaset;
pub mod serviceaccount;
pub mod statefulset;
pub(crate) mod support;

pub use config::{ManagerConfig, ResourceKind};
pub use controller::{Cache, Controller};
pub use manager::{Effect, Event, Manager};
pub use plan::{Action, Note, Plan};
