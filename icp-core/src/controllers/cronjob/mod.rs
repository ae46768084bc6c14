//! CronJobs: Jobs by the clock (upstream `pkg/controller/cronjob`).
//!
//! A Job is named after the minute that it is for, so that none is made twice, whoever makes it.

mod plan;
mod times;

pub use plan::{CronJobs, Observed, plan};
