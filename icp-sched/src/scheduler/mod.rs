//! Decisions, as plain calls: which node a pod goes to, and why.

mod batch;
mod builder;
mod contest;
mod decide;
mod extend;
mod extras;
mod fast;
mod nominated;
mod preempt;
mod profile;
mod ties;
mod timing;
mod whatif;

pub use builder::SchedulerBuilder;
pub(crate) use contest::Contest;
pub use decide::{Placement, Scheduler, Unschedulable};
pub use preempt::{DisruptionBudget, Preemption};
pub use profile::DEFAULT_SCHEDULER;
pub use ties::TieBreak;
pub use whatif::{Outlook, Unplaced, WhatIf};
