//! Pods that nobody will clean up (upstream `pkg/controller/podgc`).

mod plan;

pub use plan::{Observed, PodGc, plan};
