//! NodeResourcesBalancedAllocation: nodes on which CPU and memory, or other resources, are used alike.

use alloc::string::String;
use alloc::vec::Vec;

use crate::cache::{Capacity, Columns, Load, NodeId};
use crate::framework::{Cycle, Kept, Part, Plugin, SCORE_MAX};
use crate::model::PodSpec;
use crate::plugins::resources::{self, Take};

/// Prefers nodes on which, with the pod, the used fractions of CPU and memory, or of other resources, are close together:
/// one less their standard deviation, in percent, as kube-scheduler does to v1.34. Does not care for pods that ask for
/// none of them.
#[derive(Clone, Debug, Default)]
pub struct BalancedAllocation {
    /// Other resources than CPU and memory.
    resources: Option<Vec<String>>,
    improvement: bool,
}

impl BalancedAllocation {
    /// One that looks at these resources.
    #[must_use]
    pub fn of(resources: &[String]) -> Self {
        let usual = matches!(resources, [cpu, memory] if cpu == "cpu" && memory == "memory");
        Self { resources: (!usual).then(|| resources.into()), improvement: false }
    }

    /// Gives points for what the pod does to the balance, as kube-scheduler v1.37 does: 75 where it changes nothing, up to
    /// 100 where it evens out, and down to 50 where it unbalances a node (kubernetes/kubernetes#135573).
    ///
    /// ```
    /// use icp_sched::{Scheduler, plugins::BalancedAllocation};
    /// let scheduler = Scheduler::builder().replace(BalancedAllocation::default().by_improvement()).build();
    /// ```
    #[must_use]
    pub fn by_improvement(mut self) -> Self {
        self.improvement = true;
        self
    }
}

/// Points for the balance with the pod and without it.
pub(crate) const fn improvement(with: i64, without: i64) -> i64 {
    SCORE_MAX / 2 + (SCORE_MAX / 2 + with - without) / 2
}

/// [`points`] for any resources: one less the standard deviation of the fractions, without the pod or with it.
pub(crate) fn points_of(columns: &Columns, pod: &PodSpec, row: usize, names: &[String], with: bool) -> i64 {
    let mut fractions: Vec<f64> = Vec::new();
    for name in names {
        let (used, have) = resources::used(columns, pod, row, name, Take::Exact);
        let used = if with { used } else { used.saturating_sub(resources::asked(pod, name, Take::Exact)) };
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

/// The points of a node (`balancedResourceScore`) with so much more taken: one less half the difference of the two
/// fractions, in percent.
pub(crate) fn points(have: &Capacity, load: &Load, cpu: i64, memory: i64) -> i64 {
    let fraction = |used: i64, asked: i64, have: i64| {
        let f = used.saturating_add(asked) as f64 / have as f64;
        if f > 1.0 { 1.0 } else { f }
    };
    let deviation = if have.cpu != 0 && have.memory != 0 {
        let cpu = fraction(load.cpu, cpu, have.cpu);
        let memory = fraction(load.memory, memory, have.memory);
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
        Some(Kept(Part::Balance { of: self.resources.clone(), improvement: self.improvement }))
    }

    fn score(&self, cycle: &Cycle<'_>, feasible: &[NodeId]) -> Option<Vec<i64>> {
        let (columns, pod) = (cycle.cluster.columns(), cycle.pod);
        let improved = |with: i64, without: &dyn Fn() -> i64| {
            if self.improvement { improvement(with, without()) } else { with }
        };
        let Some(names) = &self.resources else {
            let r = &pod.requests;
            let of = |id: &NodeId| match (columns.capacity.get(id.row()), columns.load.get(id.row())) {
                (Some(have), Some(load)) => {
                    improved(points(have, load, r.cpu, r.memory), &|| points(have, load, 0, 0))
                }
                _ => 0,
            };
            return cares(pod).then(|| feasible.iter().map(of).collect());
        };
        let of = |id: &NodeId| {
            let points = |with| points_of(columns, pod, id.row(), names, with);
            improved(points(true), &|| points(false))
        };
        cares_of(pod, names).then(|| feasible.iter().map(of).collect())
    }
}

#[cfg(test)]
mod tests {
    use icp_core::client::ObjectKey;

    use super::*;
    use crate::model::{Node, Pod};

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

    #[test]
    fn improvement_by_hand() {
        let mut cluster = crate::cache::Cluster::default();
        let ids = ["even", "cpu", "memory"].map(|n| cluster.set_node(Node::new(n, 1000, 1000, 10)));
        let there =
            |cpu, memory| crate::model::Pod::new("p", alloc::sync::Arc::new(PodSpec::asking(cpu, memory)));
        cluster.assume(Pod { key: ObjectKey::new("default", "a"), ..there(500, 0) }, ids[1]);
        cluster.assume(Pod { key: ObjectKey::new("default", "b"), ..there(0, 333) }, ids[2]);
        let pod = PodSpec::asking(400, 0);
        let cycle = Cycle { pod: &pod, cluster: &cluster, node_name: None };
        // With the pod 80, 55 and 96 (0.4 against 0.333), without it 100, 75 and 83.
        let want = Some(alloc::vec![50 + 30 / 2, 50 + 30 / 2, 50 + 63 / 2]);
        assert_eq!(BalancedAllocation::default().by_improvement().score(&cycle, &ids), want);
        let names: Vec<String> = ["cpu", "memory", "example.com/gpu"].map(String::from).into();
        assert_eq!(BalancedAllocation::of(&names).by_improvement().score(&cycle, &ids), want);
        assert_eq!(BalancedAllocation::default().score(&cycle, &ids), Some(alloc::vec![80, 55, 96]));
    }
}
