//! ReplicaSets and ReplicationControllers: so many pods of a template (upstream `pkg/controller/replicaset`).

mod plan;

pub use plan::{Failure, Observed, ReplicaSets, plan};
