//! Jobs: pods that run to their end, so many times (upstream `pkg/controller/job` and `pkg/controller/ttlafterfinished`).
//!
//! Each pod carries the finalizer `batch.kubernetes.io/job-tracking` until its end is counted, so that none is counted
//! twice or lost: its uid is first written into `status.uncountedTerminatedPods`, then the finalizer goes, then the uid
//! becomes part of a number. Of the API these are not read: `backoffLimitPerIndex`, `successPolicy`, `managedBy`, and
//! `podReplacementPolicy: Failed`.

mod failure;
mod indexes;
mod plan;
mod status;

pub use plan::{Jobs, Observed, plan};
