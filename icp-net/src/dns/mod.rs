//! Cluster DNS: Services and EndpointSlices to answers (CoreDNS and its plugins kubernetes, hosts, forward, cache).
//!
//! [`DnsMachine`] follows the cluster and publishes [`Snapshot`]s; [`answer`] turns a packet and a snapshot into the
//! answer. Names of others are [`Outcome::Forward`]ed to
//! [`forward`]. Names and records follow the specification of Kubernetes
//! DNS-Based Service Discovery 1.1.0.
//!
//! ```
//! use icp_core::base::{Machine, Time};
//! use icp_net::dns::{DnsConfig, DnsEffect, DnsMachine};
//! let mut dns = DnsMachine::new(DnsConfig::new("cluster.local".parse()?));
//! let mut out = Vec::new();
//! dns.wake(Time::ZERO, &mut out);
//! assert!(out.iter().all(|e| matches!(e, DnsEffect::Client(_)))); // lists first, publishes nothing yet
//! assert!(!dns.snapshot().synced());
//! # Ok::<(), icp_net::dns::wire::NameError>(())
//! ```

mod config;
mod effect;
mod event;
pub mod forward;
mod hosts;
mod machine;
mod metrics;
mod model;
mod resolv;
#[cfg(test)]
pub(crate) mod tests;
pub mod wire;
mod zone;

pub use config::{CacheConfig, DnsConfig, ForwardConfig, PodMode, Policy};
pub use effect::DnsEffect;
pub use event::DnsEvent;
pub use hosts::Hosts;
pub use machine::DnsMachine;
pub use metrics::{Metrics, Sample};
pub use resolv::{PORT, ResolvConf};
pub use zone::{Forwarded, Note, Outcome, Snapshot, Source, Transport, answer};
