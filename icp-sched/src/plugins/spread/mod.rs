//! PodTopologySpread: pods of one kind spread over domains.

mod defaults;
mod hard;
mod soft;

use alloc::borrow::Cow;
use alloc::boxed::Box;
use alloc::string::String;
use alloc::vec::Vec;

use crate::cache::{Cluster, NO_DOMAIN, NodeId};
use crate::framework::{Cycle, FilterPlan, Kept, Part, Plugin};
use crate::model::{Node, Pod, PodSpec, SpreadConstraint};
use crate::plugins::hints;
use crate::plugins::{node_affinity, taints};
use crate::queue::Happened;

pub use defaults::DefaultConstraint;
pub(crate) use defaults::defaults;
pub(crate) use hard::{Hard, REASON, REASON_LABEL};
pub(crate) use soft::{Soft, normalized, weight};

/// Constraints beyond this many of a pod count nothing; keys are distinct within a pod, so that nobody has so many.
pub(crate) const CONSTRAINTS_MAX: usize = 64;

/// The topology key of single nodes.
pub(crate) const HOSTNAME: &str = "kubernetes.io/hostname";

/// Rejects nodes where the pod would make a hard constraint's skew too large; prefers nodes in domains with few pods of
/// soft constraints. Pods without constraints of their own are spread softly over nodes (skew 3) and zones (skew 5), or
/// as a list says, counted by the Services and controllers that select them.
#[derive(Clone, Debug, Default)]
pub struct PodTopologySpread {
    list: Option<Vec<DefaultConstraint>>,
}

impl PodTopologySpread {
    /// One that spreads pods without constraints of their own by this list (`defaultingType: List`).
    #[must_use]
    pub fn defaulting(list: Vec<DefaultConstraint>) -> Self {
        Self { list: Some(list) }
    }

    /// The pod with the constraints that it is held to.
    fn constrained<'a>(&self, cluster: &Cluster, pod: &'a PodSpec) -> Cow<'a, PodSpec> {
        match &self.list {
            Some(list) if pod.spread_hard.is_empty() && pod.spread_soft.is_empty() => {
                Cow::Owned(defaults::with_list(cluster, pod, list))
            }
            _ => Cow::Borrowed(pod),
        }
    }
}

/// Whether a pod counts for a constraint of `pod` (`countPodsMatchSelector`). An empty selector counts nothing.
pub(crate) fn counts(pod: &PodSpec, c: &SpreadConstraint, existing: &PodSpec) -> bool {
    !c.selector.is_everything()
        && !existing.terminating
        && existing.namespace == pod.namespace
        && c.selector.matches(&existing.labels)
}

/// The constraints for which a pod counts, as bits. A pod has at most [`CONSTRAINTS_MAX`] constraints of a kind.
pub(crate) fn matching(pod: &PodSpec, constraints: &[SpreadConstraint], existing: &PodSpec) -> u64 {
    let bits = constraints.iter().take(CONSTRAINTS_MAX).enumerate();
    bits.filter(|(_, c)| counts(pod, c, existing)).fold(0, |mask, (at, _)| mask | 1 << at)
}

/// Whether a constraint is one of those in `mask`.
pub(crate) const fn is_in(mask: u64, at: usize) -> bool {
    at < CONSTRAINTS_MAX && mask & (1 << at) != 0
}

/// Whether pods on a node count (`matchNodeInclusionPolicies`).
pub(crate) fn includes(pod: &PodSpec, c: &SpreadConstraint, node: &Node) -> bool {
    (!c.honor_affinity || node_affinity::allows(pod, node))
        && (!c.honor_taints || taints::repelling(pod, node).is_none())
}

/// The topology column of each constraint.
pub(crate) fn columns(cluster: &Cluster, constraints: &[SpreadConstraint]) -> Vec<Option<usize>> {
    constraints.iter().map(|c| cluster.columns().topology.find(&c.topology_key)).collect()
}

/// The domain of a node in a column that may not exist.
pub(crate) fn domain(cluster: &Cluster, column: Option<usize>, row: usize) -> u32 {
    column.map_or(NO_DOMAIN, |c| cluster.columns().topology.domain(c, row))
}

impl Plugin for PodTopologySpread {
    fn name(&self) -> &'static str {
        "PodTopologySpread"
    }

    fn kept(&self) -> Option<Kept> {
        self.list.is_none().then_some(Kept(Part::Usual))
    }

    fn topology_keys(&self) -> Vec<String> {
        self.list.iter().flatten().map(|c| c.topology_key.clone()).collect()
    }

    fn hint(&self, pod: &Pod, happened: &Happened<'_>) -> bool {
        hints::topology_spread(&self.constrained(happened.cluster, &pod.spec), happened)
    }

    fn filter<'a>(&'a self, cycle: Cycle<'a>) -> FilterPlan<'a> {
        let pod = self.constrained(cycle.cluster, cycle.pod);
        if pod.spread_hard.is_empty() {
            return FilterPlan::Skip;
        }
        let hard = Hard::build(cycle.cluster, &pod).with_pods(cycle.cluster, &pod);
        FilterPlan::Each(Box::new(move |id: NodeId| hard.check(cycle.cluster, &pod, id.row())))
    }

    fn score(&self, cycle: &Cycle<'_>, feasible: &[NodeId]) -> Option<Vec<i64>> {
        let pod = self.constrained(cycle.cluster, cycle.pod);
        if self.list.is_some() && pod.spread_soft.is_empty() {
            return None;
        }
        let soft = Soft::build(cycle.cluster, &pod)?.with_pods(cycle.cluster, &pod);
        let rows: Vec<usize> = feasible.iter().map(|id| id.row()).collect();
        Some(soft.points(cycle.cluster, &rows))
    }
}
