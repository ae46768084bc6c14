//! Names of others: asks upstream servers and keeps what they say (the plugins forward, cache and loop of CoreDNS).
//!
//! [`ForwardMachine`] decides whom to ask, by which transport, how long to wait, whom to ask next, and what to answer
//! from memory. A shell carries packets to servers and clients.
//!
//! ```
//! use icp_core::base::{Machine, Rng, SeededEntropy, Time};
//! use icp_net::dns::forward::{ForwardEffect, ForwardMachine};
//! use icp_net::dns::{ForwardConfig, Metrics};
//! let config = ForwardConfig::new(vec!["192.0.2.1:53".parse().unwrap()]);
//! let entropy = Box::new(SeededEntropy::new(Rng::new(7)));
//! let mut forward = ForwardMachine::<u32>::new(config, entropy, Metrics::new(".").into());
//! let mut out = Vec::new();
//! // It first asks each server a question that only comes back to itself if there is a loop.
//! forward.wake(Time::ZERO, &mut out);
//! assert!(matches!(&out[..], [ForwardEffect::Exchange { .. }]));
//! ```

mod cache;
mod machine;
mod reply;
#[cfg(test)]
mod tests;
mod upstream;

pub(crate) use cache::Kind;
pub use machine::{ExchangeId, ForwardEffect, ForwardEvent, ForwardMachine};
pub use reply::refuse;
