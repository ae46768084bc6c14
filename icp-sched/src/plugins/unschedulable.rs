//! NodeUnschedulable: cordoned nodes.

use alloc::boxed::Box;

use crate::cache::NodeId;
use crate::framework::{Cycle, FilterPlan, Kept, Part, Plugin, Rejected};
use crate::model::{Effect, Pod, PodSpec, Taint};
use crate::plugins::hints;
use crate::queue::Happened;

const REASON: &str = "node(s) were unschedulable";

/// Rejects nodes with `spec.unschedulable`, unless the pod tolerates `node.kubernetes.io/unschedulable`.
#[derive(Clone, Copy, Debug, Default)]
pub struct NodeUnschedulable;

pub(crate) fn tolerated(pod: &PodSpec) -> bool {
    let taint = Taint {
        key: "node.kubernetes.io/unschedulable".into(),
        value: "".into(),
        effect: Effect::NoSchedule,
    };
    pod.tolerations.iter().any(|t| t.tolerates(&taint))
}

/// What the plugin says of a node that will not do.
pub(crate) fn rejection() -> Rejected {
    Rejected::unresolvable(REASON)
}

impl Plugin for NodeUnschedulable {
    fn name(&self) -> &'static str {
        "NodeUnschedulable"
    }

    fn kept(&self) -> Option<Kept> {
        Some(Kept(Part::Usual))
    }

    fn hint(&self, _: &Pod, happened: &Happened<'_>) -> bool {
        hints::unschedulable(happened)
    }

    fn filter<'a>(&'a self, cycle: Cycle<'a>) -> FilterPlan<'a> {
        if tolerated(cycle.pod) {
            return FilterPlan::Skip;
        }
        FilterPlan::Each(Box::new(move |id: NodeId| {
            cycle.cluster.node(id).is_some_and(|n| n.unschedulable).then(rejection)
        }))
    }
}
