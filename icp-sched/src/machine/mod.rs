//! kube-scheduler as a machine: it follows pods and nodes, decides, and asks for bindings.
//!
//! ```
//! use icp_core::base::{Machine, Rng, Time};
//! use icp_sched::machine::{Effect, Event, SchedulerConfig, SchedulerMachine};
//! let mut scheduler = SchedulerMachine::new(SchedulerConfig::default(), Rng::new(1));
//! let mut out = Vec::new();
//! scheduler.on(Time::ZERO, Event::Start, &mut out);
//! assert!(out.iter().all(|effect| matches!(effect, Effect::Client(_)))); // lists pods, nodes, ...
//! ```
//!
//! # Gangs
//!
//! Pods that name a PodGroup (KEP-4671) wait, as the PreEnqueue of upstream's GangScheduling has it, until the group is known
//! and, with the policy `gang`, until `minCount` of its pods are there: pods that wait and pods that have a node count alike. Then
//! the first of them whose turn it is takes all others of its group along, wherever they stand in the queue, and they are
//! decided on in one step ([`Gangs::decide`](crate::gang::Gangs::decide)): either at least `minCount` have a node afterwards, or
//! nothing has changed and all of them wait, with one back-off for all, until something happens that matters to a plugin that
//! rejected one of them, or another pod of the group comes. An undecided gang holds no room, so that two gangs never wait for
//! each other, and a gang that cannot run keeps nobody else waiting.
//!
//! The invariant: whenever no binding is under way, the number of bound pods of a gang is 0 or at least `minCount`, unless
//! pods were deleted (one may be before its deletion is seen here), or `minCount` grew, after they were decided on, or a binding
//! failed. All-or-nothing holds up to the permission to bind: with Reserve and Permit of plugins of one's own, nobody of a gang
//! is bound before all have leave, and all give their nodes back if too few get it. From then on pods go their own ways, as
//! upstream: if PreBind or the binding of one fails, the others stay, and it tries again by itself. Its room is not kept for
//! it meanwhile; another pod may take it.
//!
//! Pods that ended count as little as pods that were deleted: if one of a gang is made anew when fewer than `minCount` are
//! left, it waits for others, as upstream, until `minCount` is lowered.
//!
//! Pods of one group should ask for one scheduler: those that ask for another count once they are bound. Nobody is evicted
//! for a pod of a gang, and pods of a gang are evicted one by one. A gang about whose nodes an HTTP extender has a say is
//! refused, because an extender is asked about one pod at a time; extenders that only bind do. With the policy `basic`, pods
//! go one by one as others do. When the PodGroup is deleted, pods that wait go on waiting. A new leader begins anew from what
//! is bound.

mod asking;
mod bargaining;
mod binding;
mod config;
mod deciding;
mod decision;
mod driver;
mod event;
mod gangs;
mod metrics;
mod noting;
mod placing;
mod requests;
#[cfg(test)]
pub(crate) mod tests;
mod watching;
mod whereabouts;

pub use config::SchedulerConfig;
pub use decision::{Decision, NoNode};
pub use driver::SchedulerMachine;
pub use event::{BindCall, Effect, Event};
