//! DaemonSets: one pod on each node that fits (upstream `pkg/controller/daemon`).
//!
//! The scheduler binds the pods: each names its node by an affinity to the field `metadata.name`. A rolling update
//! deletes old pods within `maxUnavailable`; `maxSurge` is read as a `maxUnavailable`, so the old pod of a node goes
//! before the new one comes.

mod fit;
mod plan;

pub use plan::{DaemonSets, Observed, plan};
