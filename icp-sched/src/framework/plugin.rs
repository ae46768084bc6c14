//! The trait.

use alloc::boxed::Box;
use alloc::string::String;
use alloc::vec::Vec;

use icp_core::client::ApiRequest;

use super::{Bind, Kept, Permit, Reason, Rejected, WaitingPods};
use crate::Unschedulable;
use crate::cache::{Cluster, NodeId};
use crate::model::{Pod, PodSpec};
use crate::queue::Happened;

/// The most points a plugin gives (`fwk.MaxNodeScore`).
pub const SCORE_MAX: i64 = 100;

/// A pod that is looked at, and the cluster as it is.
#[derive(Clone, Copy, Debug)]
pub struct Cycle<'a> {
    /// The pod.
    pub pod: &'a PodSpec,
    /// The cluster. A pod that runs already is in it.
    pub cluster: &'a Cluster,
    /// The node that the pod names itself (`spec.nodeName`).
    pub node_name: Option<&'a str>,
}

/// Says of a node why it will not do, or nothing.
pub type Check<'a> = Box<dyn Fn(NodeId) -> Option<Rejected> + 'a>;

/// What a plugin makes of a pod before it sees single nodes.
pub enum FilterPlan<'a> {
    /// It has nothing against any node.
    Skip,
    /// It is against all of them.
    Reject(Rejected),
    /// It looks at each.
    Each(Check<'a>),
    /// It is against all nodes but these, and looks at each of them.
    Only(Vec<NodeId>, Check<'a>),
}

impl core::fmt::Debug for FilterPlan<'_> {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        match self {
            Self::Skip => f.write_str("Skip"),
            Self::Reject(r) => f.debug_tuple("Reject").field(r).finish(),
            Self::Each(_) => f.write_str("Each"),
            Self::Only(nodes, _) => f.debug_tuple("Only").field(nodes).finish_non_exhaustive(),
        }
    }
}

/// One consideration in placing pods.
///
/// Every method but the name has a default that changes nothing. [`Plugin::filter`] and [`Plugin::score`] work wherever a
/// [`Scheduler`](crate::Scheduler) decides; the others are asked by the
/// [`SchedulerMachine`](crate::machine::SchedulerMachine), which knows of queues and bindings. A plugin that keeps state
/// keeps it behind a lock of its own.
pub trait Plugin: Send + Sync {
    /// The name, as messages and score lists give it.
    fn name(&self) -> &'static str;

    /// Says that this is a plugin of this crate, whose outcome the engine can keep instead of asking; others cannot.
    #[doc(hidden)]
    fn kept(&self) -> Option<Kept> {
        None
    }

    /// Labels of nodes by which the plugin asks for domains, beyond those that pods name.
    fn topology_keys(&self) -> Vec<String> {
        Vec::new()
    }

    /// Looks at the pod and plans how to filter nodes (PreFilter and Filter upstream).
    fn filter<'a>(&'a self, _cycle: Cycle<'a>) -> FilterPlan<'a> {
        FilterPlan::Skip
    }

    /// Points for each feasible node, 0 to [`SCORE_MAX`], in their order; `None` if the plugin does not care for the
    /// pod (PreScore, Score and NormalizeScore upstream).
    fn score(&self, _cycle: &Cycle<'_>, _feasible: &[NodeId]) -> Option<Vec<i64>> {
        None
    }

    /// Why a pod may not be tried yet, if so (PreEnqueue). It is asked again when the pod changes, and when something
    /// happens that [`Plugin::hint`] says matters.
    fn pre_enqueue(&self, _pod: &Pod) -> Option<Reason> {
        None
    }

    /// Whether something that happened may give a pod another chance that this plugin rejected or held back
    /// (QueueingHintFn).
    fn hint(&self, _pod: &Pod, _happened: &Happened<'_>) -> bool {
        true
    }

    /// The rank of a pod among those that are ready, the lowest first; among equals, the one that waits longest
    /// (QueueSort). `None` leaves it to the priority.
    fn rank(&self, _pod: &Pod) -> Option<i64> {
        None
    }

    /// No node will do (PostFilter): the name of a node on which the plugin makes room for the pod. If no plugin names
    /// one, less important pods are evicted.
    fn post_filter(&self, _cycle: &Cycle<'_>, _none: &Unschedulable) -> Option<String> {
        None
    }

    /// A pod has a node (Reserve).
    ///
    /// # Errors
    /// If it cannot have it: every plugin is asked to take its reservation back.
    fn reserve(&self, _pod: &Pod, _node: &str) -> Result<(), Rejected> {
        Ok(())
    }

    /// The pod does not get the node (Unreserve). Called also if [`Plugin::reserve`] of this plugin was not.
    fn unreserve(&self, _pod: &Pod, _node: &str) {}

    /// Whether a pod is bound to its node now, never, or when this plugin lets it go (Permit).
    fn permit(&self, _pod: &Pod, _node: &str, _waiting: &mut WaitingPods<'_>) -> Permit {
        Permit::Allow
    }

    /// Requests that must succeed before the pod is bound (PreBind). None say that there is nothing to do
    /// (PreBindPreFlight upstream).
    ///
    /// # Errors
    /// If it cannot be bound there.
    fn pre_bind(&self, _pod: &Pod, _node: &str) -> Result<Vec<ApiRequest>, Rejected> {
        Ok(Vec::new())
    }

    /// How the pod is bound to its node (Bind). Plugins are asked in their order until one takes the binding over; if
    /// none does, the machine creates the pod's `binding` (DefaultBinder). Extenders that bind come before all of them.
    ///
    /// # Errors
    /// If it cannot be bound there.
    fn bind(&self, _pod: &Pod, _node: &str) -> Result<Bind, Rejected> {
        Ok(Bind::Skip)
    }

    /// The pod is bound (PostBind).
    fn post_bind(&self, _pod: &Pod, _node: &str) {}
}

/// Scales points so that the largest is [`SCORE_MAX`]; reversed, the largest becomes 0
/// (`helper.DefaultNormalizeScore`).
pub fn normalize(points: &mut [i64], reverse: bool) {
    let max = points.iter().copied().max().unwrap_or(0).max(0);
    for p in points {
        let scaled = if max == 0 { *p } else { p.saturating_mul(SCORE_MAX) / max };
        *p = match (max, reverse) {
            (0, true) => SCORE_MAX,
            (0, false) => *p,
            (_, true) => SCORE_MAX - scaled,
            (_, false) => scaled,
        };
    }
}
