//! NodeName: a pod that names its node. Such a pod counts as bound when the API server shows it; a scheduler is asked
//! about one only by [`Scheduler::schedule`](crate::Scheduler::schedule) and its kin.

use alloc::boxed::Box;

use crate::cache::NodeId;
use crate::framework::{Cycle, FilterPlan, Kept, Part, Plugin, Rejected};

const REASON: &str = "node(s) didn't match the requested node name";

/// Rejects all nodes but the one that the pod names, if it names one.
#[derive(Clone, Copy, Debug, Default)]
pub struct NodeName;

impl Plugin for NodeName {
    fn name(&self) -> &'static str {
        "NodeName"
    }

    fn kept(&self) -> Option<Kept> {
        Some(Kept(Part::Usual))
    }

    fn filter<'a>(&'a self, cycle: Cycle<'a>) -> FilterPlan<'a> {
        let Some(name) = cycle.node_name else { return FilterPlan::Skip };
        FilterPlan::Each(Box::new(move |id: NodeId| {
            cycle.cluster.node(id).is_some_and(|n| n.name != name).then(|| Rejected::unresolvable(REASON))
        }))
    }
}
