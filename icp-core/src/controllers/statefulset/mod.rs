//! StatefulSets: pods with names and claims of their own, made in order (upstream `pkg/controller/statefulset`).
//!
//! Not read: `persistentVolumeClaimRetentionPolicy` (claims stay) and `rollingUpdate.maxUnavailable` (it is 1). Pods
//! that nobody controls are not adopted.

mod plan;
mod pod;

pub use plan::{Observed, StatefulSets, plan};
