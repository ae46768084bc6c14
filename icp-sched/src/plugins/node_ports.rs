//! NodePorts: ports of the host.

use alloc::boxed::Box;

use crate::cache::NodeId;
use crate::framework::{Cycle, FilterPlan, Kept, Part, Plugin, Rejected};
use crate::model::Pod;
use crate::plugins::hints;
use crate::queue::Happened;

const REASON: &str = "node(s) didn't have free ports for the requested pod ports";

/// Rejects nodes on which another pod has a host port that the pod wants.
#[derive(Clone, Copy, Debug, Default)]
pub struct NodePorts;

/// Whether a port that the pod wants is taken.
pub(crate) fn taken(cycle: &Cycle<'_>, row: usize) -> bool {
    let used = cycle.cluster.columns().ports.get(row);
    used.is_some_and(|used| used.iter().any(|u| cycle.pod.host_ports.iter().any(|p| p.conflicts(u))))
}

/// What the plugin says of a node that will not do.
pub(crate) fn rejection() -> Rejected {
    Rejected::unschedulable(REASON)
}

impl Plugin for NodePorts {
    fn name(&self) -> &'static str {
        "NodePorts"
    }

    fn kept(&self) -> Option<Kept> {
        Some(Kept(Part::Usual))
    }

    fn hint(&self, pod: &Pod, happened: &Happened<'_>) -> bool {
        hints::ports(pod, happened)
    }

    fn filter<'a>(&'a self, cycle: Cycle<'a>) -> FilterPlan<'a> {
        if cycle.pod.host_ports.is_empty() {
            return FilterPlan::Skip;
        }
        FilterPlan::Each(Box::new(move |id: NodeId| taken(&cycle, id.row()).then(rejection)))
    }
}
