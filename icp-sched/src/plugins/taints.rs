//! TaintToleration: nodes that repel pods.

use alloc::boxed::Box;
use alloc::format;
use alloc::vec::Vec;

use crate::cache::NodeId;
use crate::framework::{Cycle, FilterPlan, Kept, Part, Plugin, Rejected, normalize};
use crate::model::{Effect, Node, Pod, PodSpec, Taint};
use crate::plugins::hints;
use crate::queue::Happened;

/// Rejects nodes with a NoSchedule or NoExecute taint that the pod does not tolerate; prefers those with fewer
/// PreferNoSchedule taints of that kind.
#[derive(Clone, Copy, Debug, Default)]
pub struct TaintToleration;

/// The first taint that keeps the pod off (`FindMatchingUntoleratedTaint`).
pub(crate) fn repelling<'n>(pod: &PodSpec, node: &'n Node) -> Option<&'n Taint> {
    node.taints
        .iter()
        .filter(|t| matches!(t.effect, Effect::NoSchedule | Effect::NoExecute))
        .find(|t| !pod.tolerations.iter().any(|x| x.tolerates(t)))
}

/// What the plugin says of a node with such a taint.
pub(crate) fn rejection(taint: &Taint) -> Rejected {
    Rejected::unresolvable(format!("node(s) had untolerated taint {{{}: {}}}", taint.key, taint.value))
}

/// PreferNoSchedule taints that the pod does not tolerate.
pub(crate) fn dislikes(pod: &PodSpec, node: &Node) -> i64 {
    let soft = |e: &Option<Effect>| matches!(e, None | Some(Effect::PreferNoSchedule));
    let count = node
        .taints
        .iter()
        .filter(|t| t.effect == Effect::PreferNoSchedule)
        .filter(|t| !pod.tolerations.iter().filter(|x| soft(&x.effect)).any(|x| x.tolerates(t)))
        .count();
    i64::try_from(count).unwrap_or(i64::MAX)
}

impl Plugin for TaintToleration {
    fn name(&self) -> &'static str {
        "TaintToleration"
    }

    fn kept(&self) -> Option<Kept> {
        Some(Kept(Part::Usual))
    }

    fn hint(&self, pod: &Pod, happened: &Happened<'_>) -> bool {
        hints::taint_toleration(pod, happened)
    }

    fn filter<'a>(&'a self, cycle: Cycle<'a>) -> FilterPlan<'a> {
        FilterPlan::Each(Box::new(move |id: NodeId| {
            let taint = repelling(cycle.pod, cycle.cluster.node(id)?)?;
            Some(rejection(taint))
        }))
    }

    fn score(&self, cycle: &Cycle<'_>, feasible: &[NodeId]) -> Option<Vec<i64>> {
        let points = |id: &NodeId| cycle.cluster.node(*id).map_or(0, |n| dislikes(cycle.pod, n));
        let mut points: Vec<i64> = feasible.iter().map(points).collect();
        normalize(&mut points, true);
        Some(points)
    }
}
