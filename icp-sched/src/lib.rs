//! kube-scheduler as a library: every node scored, the decisions of upstream, columns instead of maps.
#![no_std]
extern crate alloc;
#[cfg(feature = "std")]
extern crate std;

pub mod cache;
pub mod framework;
pub mod model;
pub mod plugins;
mod scheduler;

pub use scheduler::{Placement, Scheduler, SchedulerBuilder, TieBreak, Unschedulable};
