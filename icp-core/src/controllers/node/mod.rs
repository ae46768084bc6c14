//! Nodes: heartbeats, taints, eviction, addresses (upstream `pkg/controller/{nodelifecycle,tainteviction,nodeipam}`).

mod eviction;
mod ipam;
mod lifecycle;

pub(crate) use eviction::Toleration;
pub use eviction::{TaintEviction, plan as plan_eviction};
pub use ipam::{AllocateError, CidrAllocator, NodeIpam};
pub use lifecycle::{NodeLifecycle, NodeLifecycleConfig, Observed, plan as plan_lifecycle};

use alloc::string::String;
use alloc::vec::Vec;

use serde::{Deserialize, Serialize};

use crate::api::Object;
use crate::base::Time;

/// `v1.Taint`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Taint {
    key: String,
    #[serde(default, skip_serializing_if = "String::is_empty")]
    value: String,
    pub(crate) effect: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    time_added: Option<Time>,
}

pub(crate) fn taints_of(node: &Object) -> Vec<Taint> {
    node.at("/spec/taints").and_then(|t| Vec::deserialize(t).ok()).unwrap_or_default()
}
