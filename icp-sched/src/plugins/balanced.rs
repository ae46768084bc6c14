//! NodeResourcesBalancedAllocation: nodes on which CPU and memory, or other resources, are used alike.

use alloc::string::String;
use alloc::vec::Vec;

use crate::cache::{Capacity, Columns, Load, NodeId};
use crate::framework::{Cycle, Kept, Part, Plugin, SCORE_MAX};
use crate::model::PodSpec;
use crate::plugins::resources::{self, Take};

/// Prefers nodes on which, with the pod, the used fractions of CPU and memory, or of other resources, are close together.
/// Does not care for pods that ask for none of them.
#[derive(Clone, Debug, Default)]
pub struct BalancedAllocation {
    /// Other resources than CPU and memory.
    resources: Option<Vec<String>>,
}

impl BalancedAllocation {
    /// One that looks at these resources.
    #[must_use]
    pub fn of(resources: &[String]) -> Self {
        let usual = matches!(resources, [cpu, memory] if cpu == "cpu" && memory == "memory");
        Self { resources: (!usual).then(|| resources.into()) }
    }
}

/// [`points`] for any resources: one less the standard deviation of the fractions.
pub(crate) fn points_of(columns: &Columns, pod: &PodSpec, row: usize, names: &[String]) -> i64 {
    let mut fractions: Vec<f64> = Vec::new();
    for name in names {
        let (used, have) = resources::used(columns, pod, row, name, Take::Exact);
        if have != 0 {
            let f = used as f64 / have as f64;
            fractions.push(if f > 1.0 { 1.0 } else { f });
        }
    }
    let deviation = match fractions.as_slice() {
        [] | [_] => 0.0,
        [a, b] => libm::fabs((a - b) / 2.0),
        all => {
            let mean = all.iter().sum::<f64>() / all.len() as f64;
            libm::sqrt(all.iter().map(|f| (f - mean) * (f - mean)).sum::<f64>() / all.len() as f64)
        }
    };
    ((1.0 - deviation) * SCORE_MAX as f64) as i64
}

/// Whether the plugin cares for the pod, if it looks at these resources.
pub(crate) fn cares_of(pod: &PodSpec, names: &[String]) -> bool {
    names.iter().any(|name| resources::asked(pod, name, Take::Exact) != 0)
}

/// Whether the plugin cares for the pod.
pub(crate) const fn cares(pod: &PodSpec) -> bool {
    pod.requests.cpu != 0 || pod.requests.memory != 0
}

/// The points of a node (`balancedResourceScorer`): one less half the difference of the two fractions, in percent.
pub(crate) fn points(have: &Capacity, load: &Load, pod: &PodSpec) -> i64 {
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

    fn kept(&self) -> Option<Kept> {
        Some(Kept(Part::Balance(self.resources.clone())))
    }

    fn score(&self, cycle: &Cycle<'_>, feasible: &[NodeId]) -> Option<Vec<i64>> {
        let (columns, pod) = (cycle.cluster.columns(), cycle.pod);
        let Some(names) = &self.resources else {
            let of = |id: &NodeId| match (columns.capacity.get(id.row()), columns.load.get(id.row())) {
                (Some(have), Some(load)) => points(have, load, pod),
                _ => 0,
            };
            return cares(pod).then(|| feasible.iter().map(of).collect());
        };
        cares_of(pod, names)
            .then(|| feasible.iter().map(|id| points_of(columns, pod, id.row(), names)).collect())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::Node;

    #[test]
    fn three_resources_by_their_deviation() {
        let mut cluster = crate::cache::Cluster::default();
        let mut node = Node::new("n", 1000, 1000, 10);
        node.allocatable.scalars.insert("example.com/gpu".into(), 4);
        let id = cluster.set_node(node);
        let mut pod = PodSpec::asking(100, 700);
        let names: Vec<String> = ["cpu", "memory", "example.com/gpu"].map(String::from).into();
        let plugin = BalancedAllocation::of(&names);
        let score = |pod: &PodSpec| plugin.score(&Cycle { pod, cluster: &cluster, node_name: None }, &[id]);
        // The pod asks for no GPU, so that two fractions remain: 1 - (0.7 - 0.1) / 2.
        assert_eq!(score(&pod), Some(alloc::vec![70]));
        pod.requests.scalars.insert("example.com/gpu".into(), 4);
        // Fractions 0.1, 0.7 and 1: mean 0.6, deviation 0.374.
        assert_eq!(score(&pod), Some(alloc::vec![62]));
        assert_eq!(score(&PodSpec::default()), None);
    }
}
