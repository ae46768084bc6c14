//! Gangs: pods that run together or not at all.
//!
//! A PodGroup of `scheduling.k8s.io` with the policy `gang` names how many of its pods have to be placed at once
//! (`minCount`); pods name their group in `spec.schedulingGroup.podGroupName` (KEP-4671). [`Scheduler::schedule_gang`]
//! is the decision as a plain call; [`Gangs`] knows who waits for whom, and for how long.
//!
//! ```
//! use std::sync::Arc;
//! use icp_core::base::{Duration, Time};
//! use icp_core::client::ObjectKey;
//! use icp_sched::Scheduler;
//! use icp_sched::gang::Gangs;
//! use icp_sched::model::{Node, Pod, PodSpec};
//!
//! let mut scheduler = Scheduler::default();
//! scheduler.cluster_mut().set_node(Node::new("n0", 1_000, 1 << 30, 110));
//! let (group, spec) = (ObjectKey::new("default", "workers"), Arc::new(PodSpec::asking(400, 1 << 20)));
//! let mut gangs = Gangs::new(Duration::from_secs(300));
//! gangs.set_group(&group, Some(2));
//! gangs.arrive(Time::ZERO, &group, Pod::new("a", Arc::clone(&spec)));
//! assert!(gangs.ready().is_empty()); // one is missing
//! gangs.arrive(Time::ZERO, &group, Pod::new("b", spec));
//! assert_eq!(gangs.ready(), [group.clone()]);
//! let placed = gangs.decide(Time::ZERO, &group, &mut scheduler).unwrap();
//! assert_eq!(placed.seats.len(), 2);
//! ```
//!
//! [`Scheduler::schedule_gang`]: crate::Scheduler::schedule_gang

mod decide;
mod object;
#[cfg(test)]
mod tests;
mod waiting;

pub use decide::{GangError, Seat, Seats};
pub use object::{group_of, min_count};
pub use waiting::Gangs;
