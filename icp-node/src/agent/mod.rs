//! The node agent: it follows the pods of its node, runs a [`PodMachine`](crate::pod::PodMachine) for each, keeps
//! the node's object and Lease fresh, and writes statuses.
//!
//! [`Kubelet`] is one machine; a shell gives it what the API server and the runtime answer, and performs its
//! effects. It starts by itself at its first deadline.
//!
//! ```
//! use icp_core::base::{Machine, Time};
//! use icp_node::agent::{Kubelet, KubeletConfig, KubeletEffect};
//! let mut kubelet = Kubelet::new(KubeletConfig::new("n1", "192.168.0.1".parse().unwrap()));
//! let mut out = Vec::new();
//! kubelet.wake(kubelet.deadline().unwrap(), &mut out);
//! assert!(out.iter().any(|e| matches!(e, KubeletEffect::Runtime(_))), "it asks what runs");
//! ```

mod admission;
mod config;
mod entry;
mod event;
mod machine;
mod node;
mod sources;
#[cfg(test)]
mod tests;

pub use config::{KubeletConfig, NodeCondition, NodeInfo};
pub use event::{KubeletEffect, KubeletEvent};
pub use machine::Kubelet;
