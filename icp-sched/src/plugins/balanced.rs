//! NodeResourcesBalancedAllocation: nodes on which CPU and memory are used alike.

use alloc::vec::Vec;

use crate::cache::{Columns, NodeId};
use crate::framework::{Cycle, Plugin, SCORE_MAX};
use crate::model::PodSpec;

/// Prefers nodes on which, with the pod, the used fractions of CPU and memory are close together. Does not care for
/// pods that ask for neither.
#[derive(Clone, Copy, Debug, Default)]
pub struct BalancedAllocation;

/// Whether the plugin cares for the pod.
pub(crate) const fn cares(pod: &PodSpec) -> bool {
    pod.requests.cpu != 0 || pod.requests.memory != 0
}

/// The points of a node (`balancedResourceScorer`): one less half the difference of the two fractions, in percent.
pub(crate) fn points(columns: &Columns, pod: &PodSpec, row: usize) -> i64 {
    let (Some(have), Some(load)) = (columns.capacity.get(row), columns.load.get(row)) else { return 0 };
    let fraction = |used: i64, asked: i64, have: i64| {
        let f = used.saturating_add(asked) as f64 / have as f64;
        if f > 1.0 { 1.0 } else { f }
    };
    let deviation = if have.cpu != 0 && have.memory != 0 {
        let cpu = fraction(load.cpu, pod.requests.cpu, have.cpu);
        let memory = fraction(load.memory, pod.requests.memory, have.memory);
        libm::fabs((cpu - memory) / 2.0)
    } else {
        0.0
    };
    ((1.0 - deviation) * SCORE_MAX as f64) as i64
}

impl Plugin for BalancedAllocation {
    fn name(&self) -> &'static str {
        "NodeResourcesBalancedAllocation"
    }

    fn score(&self, cycle: &Cycle<'_>, feasible: &[NodeId]) -> Option<Vec<i64>> {
        let columns = cycle.cluster.columns();
        cares(cycle.pod).then(|| feasible.iter().map(|id| points(columns, cycle.pod, id.row())).collect())
    }
}
