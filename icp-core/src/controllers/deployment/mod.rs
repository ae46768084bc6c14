//! Deployments: ReplicaSets that replace one another (upstream `pkg/controller/deployment`).

mod plan;
mod replica_sets;
mod rollout;
mod status;

pub use plan::{Deployments, Observed, plan};
