//! The trait.

use alloc::boxed::Box;
use alloc::string::String;
use alloc::vec::Vec;

use super::Rejected;
use crate::cache::{Cluster, NodeId};
use crate::model::PodSpec;

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
pub trait Plugin: Send + Sync {
    /// The name, as messages and score lists give it.
    fn name(&self) -> &'static str;

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
