//! What a plugin is, and the cycle that asks the plugins about a pod.
//!
//! A plugin answers about nodes in two steps: [`Plugin::filter`] looks at the pod once and gives a check of single nodes;
//! [`Plugin::score`] gives all feasible nodes their points at once, already normalised to 0 to 100. Nothing is kept
//! between cycles, and a check borrows the cluster, so that a plugin cannot change it.
//!
//! ```
//! use icp_sched::cache::NodeId;
//! use icp_sched::framework::{Cycle, Plugin};
//!
//! /// Prefers nodes whose name ends in an even digit.
//! struct Even;
//! impl Plugin for Even {
//!     fn name(&self) -> &'static str { "Even" }
//!     fn score(&self, cycle: &Cycle<'_>, feasible: &[NodeId]) -> Option<Vec<i64>> {
//!         let even = |id: &NodeId| cycle.cluster.node(*id).is_some_and(|n| n.name.ends_with(['0', '2', '4', '6', '8']));
//!         Some(feasible.iter().map(|id| if even(id) { 100 } else { 0 }).collect())
//!     }
//! }
//! ```

mod cycle;
mod explain;
mod kept;
mod permit;
mod plugin;
mod points;
mod status;
mod timing;

pub(crate) use explain::fit_error;
pub use explain::{Explanation, NodeReport, Verdict};
#[doc(hidden)]
pub use kept::Kept;
pub(crate) use kept::Part;
pub(crate) use permit::Waiter;
pub use permit::{Bind, Permit, WaitingPods};
pub use plugin::{Check, Cycle, FilterPlan, Plugin, SCORE_MAX, normalize};
pub use points::{Point, Points};
pub use status::{Code, Reason, Reasons, Rejected, Rejection};
pub use timing::Stopwatch;
pub(crate) use timing::{Ended, FACTOR, FIRST, PluginTimes, Timed, Timings};

pub(crate) use cycle::{Checks, Slot, Survey, survey, survey_some};
