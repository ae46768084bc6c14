//! NodeResourcesFit: room for what a pod asks for; prefers nodes by how much of them is used.

use alloc::boxed::Box;
use alloc::collections::BTreeSet;
use alloc::format;
use alloc::string::String;
use alloc::vec::Vec;

use crate::cache::{Capacity, Chunks, Columns, Load, NodeId};
use crate::framework::{Code, Cycle, FilterPlan, Kept, Part, Plugin, Reasons, Rejected, SCORE_MAX};
use crate::model::{Pod, PodSpec};
use crate::plugins::hints;
use crate::plugins::resources::{self, ResourceWeight, Shape, Take};
use crate::queue::Happened;

/// Which nodes NodeResourcesFit prefers.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ScoringStrategy {
    /// Those of which least is used.
    LeastAllocated(Vec<ResourceWeight>),
    /// Those of which most is used.
    MostAllocated(Vec<ResourceWeight>),
    /// By a function of how much is used.
    RequestedToCapacityRatio(Vec<ResourceWeight>, Shape),
}

impl Default for ScoringStrategy {
    /// LeastAllocated over CPU and memory, weight 1 each.
    fn default() -> Self {
        Self::LeastAllocated(ResourceWeight::defaults())
    }
}

impl ScoringStrategy {
    pub(crate) fn points(&self, columns: &Columns, pod: &PodSpec, row: usize) -> i64 {
        let (list, points): (&[ResourceWeight], &dyn Fn(i64, i64) -> i64) = match self {
            Self::LeastAllocated(list) => (list, &least_requested),
            Self::MostAllocated(list) => (list, &most_requested),
            Self::RequestedToCapacityRatio(list, shape) => {
                (list, &|requested, capacity| shape.of_use(requested, capacity))
            }
        };
        let ratio = matches!(self, Self::RequestedToCapacityRatio(..));
        let (mut sum, mut weights) = (0_i64, 0_i64);
        for resource in list {
            let (requested, capacity) = resources::used(columns, pod, row, &resource.name, Take::Filled);
            if capacity == 0 {
                continue;
            }
            let points = points(requested, capacity);
            // A resource for which the shape gives nothing does not weigh.
            if ratio && points <= 0 {
                continue;
            }
            sum = sum.saturating_add(points.saturating_mul(resource.weight));
            weights = weights.saturating_add(resource.weight);
        }
        match (weights, ratio) {
            (0, _) => 0,
            (_, true) => libm::round(sum as f64 / weights as f64) as i64,
            (_, false) => sum / weights,
        }
    }
}

/// Rejects nodes without room for the pod, and prefers nodes by a [`ScoringStrategy`].
///
/// ```
/// use icp_sched::Scheduler;
/// use icp_sched::plugins::{ResourceWeight, ResourcesFit, ScoringStrategy};
/// let packing = ScoringStrategy::MostAllocated(vec![ResourceWeight::new("example.com/gpu", 5)]);
/// let scheduler = Scheduler::builder().replace(ResourcesFit::new(packing)).build();
/// ```
#[derive(Clone, Debug, Default)]
pub struct ResourcesFit {
    strategy: ScoringStrategy,
    ignored: Ignored,
}

impl ResourcesFit {
    /// One with this strategy.
    #[must_use]
    pub fn new(strategy: ScoringStrategy) -> Self {
        Self { strategy, ignored: Ignored::default() }
    }

    /// Does not look at these extended resources, and at none of these groups (what stands before the slash), when it
    /// rejects nodes (`ignoredResources`, `ignoredResourceGroups`).
    #[must_use]
    pub fn ignoring(mut self, names: &[String], groups: &[String]) -> Self {
        self.ignored.names.extend(names.iter().cloned());
        self.ignored.groups.extend(groups.iter().cloned());
        self
    }
}

/// Extended resources that are somebody else's concern.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
struct Ignored {
    names: BTreeSet<String>,
    groups: BTreeSet<String>,
}

impl Ignored {
    fn is_empty(&self) -> bool {
        self.names.is_empty() && self.groups.is_empty()
    }

    fn contains(&self, name: &str) -> bool {
        let group = name.split_once('/').map(|(group, _)| group);
        let extended = group.is_some_and(|g| g != "kubernetes.io" && !g.ends_with(".kubernetes.io"));
        extended && (self.names.contains(name) || group.is_some_and(|g| self.groups.contains(g)))
    }

    /// The pod without what is ignored.
    fn strip(&self, pod: &PodSpec) -> Option<PodSpec> {
        if self.is_empty() || !pod.requests.scalars.keys().any(|name| self.contains(name)) {
            return None;
        }
        let mut pod = pod.clone();
        pod.requests.scalars.retain(|name, _| !self.contains(name));
        Some(pod)
    }
}

/// Whether there is room, without reasons.
pub(crate) fn fits(columns: &Columns, pod: &PodSpec, row: usize) -> bool {
    let (Some(have), Some(load)) = (columns.capacity.get(row), columns.load.get(row)) else { return false };
    fits_load(have, load, pod)
        && pod.requests.scalars.iter().all(|(name, asked)| {
            let (have, used) = scalar(columns, name, row);
            *asked == 0 || *asked <= have.saturating_sub(used)
        })
}

/// The same for a load that need not be the present one, without extended resources.
pub(crate) fn fits_load(have: &Capacity, load: &Load, pod: &PodSpec) -> bool {
    let r = &pod.requests;
    let room = |asked: i64, have: i64, used: i64| asked <= 0 || asked <= have.saturating_sub(used);
    load.pods < have.pods
        && room(r.cpu, have.cpu, load.cpu)
        && room(r.memory, have.memory, load.memory)
        && room(r.ephemeral, have.ephemeral, load.ephemeral)
}

/// Whether something lacks of which there is less than is asked for: no eviction helps. Without extended resources.
pub(crate) fn is_hopeless(have: &Capacity, load: &Load, pod: &PodSpec) -> bool {
    let r = &pod.requests;
    let lacks =
        |asked: i64, have: i64, used: i64| asked > 0 && asked > have.saturating_sub(used) && asked > have;
    lacks(r.cpu, have.cpu, load.cpu)
        || lacks(r.memory, have.memory, load.memory)
        || lacks(r.ephemeral, have.ephemeral, load.ephemeral)
}

pub(crate) fn scalar(columns: &Columns, name: &str, row: usize) -> (i64, i64) {
    let column = columns.scalars.iter().find(|s| s.name == name);
    let at = |list: &Chunks<i64>| list.get(row).copied().unwrap_or(0);
    column.map_or((0, 0), |s| (at(&s.allocatable), at(&s.used)))
}

/// Every resource that lacks (`fitsRequest`). What no eviction can free is unresolvable.
pub(crate) fn lacking(columns: &Columns, pod: &PodSpec, row: usize) -> Option<Rejected> {
    let (have, load) = (columns.capacity.get(row)?, columns.load.get(row)?);
    let scalars = pod.requests.scalars.iter().filter(|(_, asked)| **asked != 0).map(|(name, asked)| {
        let (have, used) = scalar(columns, name, row);
        (name.as_str(), *asked, have, used)
    });
    lacking_of(have, load, pod, scalars)
}

/// The same for amounts that need not be the present ones; `scalars` are name, amount, what there is and what is taken.
pub(crate) fn lacking_of<'a>(
    have: &Capacity,
    load: &Load,
    pod: &PodSpec,
    scalars: impl Iterator<Item = (&'a str, i64, i64, i64)>,
) -> Option<Rejected> {
    let (mut reasons, mut code) = (Reasons::new(), Code::Unschedulable);
    if load.pods >= have.pods {
        reasons.push("Too many pods".into());
    }
    let r = &pod.requests;
    let mut look = |name: &str, asked: i64, have: i64, used: i64| {
        if asked > have.saturating_sub(used) {
            reasons.push(format!("Insufficient {name}").into());
            if asked > have {
                code = Code::UnschedulableAndUnresolvable;
            }
        }
    };
    for (name, asked, have, used) in [
        ("cpu", r.cpu, have.cpu, load.cpu),
        ("memory", r.memory, have.memory, load.memory),
        ("ephemeral-storage", r.ephemeral, have.ephemeral, load.ephemeral),
    ] {
        if asked > 0 {
            look(name, asked, have, used);
        }
    }
    for (name, asked, have, used) in scalars {
        look(name, asked, have, used);
    }
    (!reasons.is_empty()).then_some(Rejected { code, reasons })
}

/// `leastRequestedScore`: the free part in percent, rounded down.
pub(crate) fn least_requested(requested: i64, capacity: i64) -> i64 {
    if capacity == 0 || requested > capacity {
        return 0;
    }
    let free = capacity.saturating_sub(requested);
    match free.checked_mul(SCORE_MAX) {
        Some(scaled) => scaled / capacity,
        None => i64::try_from(i128::from(free) * i128::from(SCORE_MAX) / i128::from(capacity)).unwrap_or(0),
    }
}

/// The points of a node: the mean over CPU and memory, of those that the node has.
pub(crate) fn least_allocated(have: &Capacity, load: &Load, pod: &PodSpec) -> i64 {
    let (mut sum, mut weights) = (0, 0);
    for (have, used, asked) in [
        (have.cpu, load.filled_cpu, pod.non_zero_cpu),
        (have.memory, load.filled_memory, pod.non_zero_memory),
    ] {
        if have != 0 {
            sum += least_requested(used.saturating_add(asked), have);
            weights += 1;
        }
    }
    if weights == 0 { 0 } else { sum / weights }
}

/// The used part in percent, rounded down; all of it if more is asked for than there is.
fn most_requested(requested: i64, capacity: i64) -> i64 {
    resources::percent(requested.min(capacity), capacity)
}

impl Plugin for ResourcesFit {
    fn name(&self) -> &'static str {
        "NodeResourcesFit"
    }

    fn kept(&self) -> Option<Kept> {
        self.ignored.is_empty().then(|| Kept(Part::Fit(self.strategy.clone())))
    }

    fn hint(&self, pod: &Pod, happened: &Happened<'_>) -> bool {
        let stripped = self.ignored.strip(&pod.spec);
        hints::fit(stripped.as_ref().unwrap_or(&pod.spec), happened)
    }

    fn filter<'a>(&'a self, cycle: Cycle<'a>) -> FilterPlan<'a> {
        let columns = cycle.cluster.columns();
        let stripped = self.ignored.strip(cycle.pod);
        FilterPlan::Each(Box::new(move |id: NodeId| {
            let pod = stripped.as_ref().unwrap_or(cycle.pod);
            if fits(columns, pod, id.row()) { None } else { lacking(columns, pod, id.row()) }
        }))
    }

    fn score(&self, cycle: &Cycle<'_>, feasible: &[NodeId]) -> Option<Vec<i64>> {
        let columns = cycle.cluster.columns();
        Some(feasible.iter().map(|id| self.strategy.points(columns, cycle.pod, id.row())).collect())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Points of two nodes: one with a GPU in use, one without GPUs.
    fn points(strategy: &ScoringStrategy, pod: &PodSpec) -> [i64; 2] {
        let mut cluster = crate::cache::Cluster::default();
        let mut gpu = crate::model::Node::new("gpu", 4000, 1000, 10);
        gpu.allocatable.scalars.insert("example.com/gpu".into(), 4);
        let gpu = cluster.set_node(gpu);
        let plain = cluster.set_node(crate::model::Node::new("plain", 2000, 1000, 10));
        let mut there = PodSpec::asking(1000, 100);
        there.requests.scalars.insert("example.com/gpu".into(), 1);
        cluster.assume(crate::model::Pod::new("there", alloc::sync::Arc::new(there)), gpu);
        [gpu, plain].map(|id| strategy.points(cluster.columns(), pod, id.row()))
    }

    #[test]
    fn strategies_by_hand() {
        let mut pod = PodSpec::asking(1000, 300);
        let weights = |cpu, memory, gpu| {
            alloc::vec![
                ResourceWeight::new("cpu", cpu),
                ResourceWeight::new("memory", memory),
                ResourceWeight::new("example.com/gpu", gpu)
            ]
        };
        let least = ScoringStrategy::LeastAllocated(weights(1, 3, 1));
        let most = ScoringStrategy::MostAllocated(weights(1, 3, 1));
        // Nobody asks for the GPU, so that it does not count: (50 + 3 * 60) / 4 and (50 + 3 * 70) / 4.
        assert_eq!(points(&least, &pod), [57, 65]);
        assert_eq!(points(&most, &pod), [42, 35]);
        pod.requests.scalars.insert("example.com/gpu".into(), 1);
        // (50 + 3 * 60 + 50) / 5 where there are GPUs.
        assert_eq!(points(&least, &pod), [56, 65]);
        assert_eq!(points(&most, &pod), [44, 35]);
        let shape = Shape::new(&[(0, 0), (100, 10)]);
        let ratio = ScoringStrategy::RequestedToCapacityRatio(weights(1, 3, 1), shape);
        assert_eq!(points(&ratio, &pod), [44, 35]);
        // What gets no points does not weigh either: (50 + 50) / 2, without memory.
        let shape = Shape::new(&[(45, 0), (50, 5)]);
        let ratio = ScoringStrategy::RequestedToCapacityRatio(weights(1, 3, 1), shape);
        assert_eq!(points(&ratio, &pod), [50, 50]);
        assert_eq!(points(&ScoringStrategy::default(), &pod), [55, 60]);
    }

    #[test]
    fn ignored_resources_reject_nothing() {
        let fit =
            ResourcesFit::default().ignoring(&["a.com/x".into()], &["b.com".into(), "kubernetes.io".into()]);
        for (name, want) in
            [("a.com/x", true), ("a.com/y", false), ("b.com/z", true), ("kubernetes.io/x", false)]
        {
            let mut pod = PodSpec::asking(1, 1);
            pod.requests.scalars.insert(name.into(), 1);
            assert_eq!(fit.ignored.strip(&pod).is_some(), want, "{name}");
        }
    }

    #[test]
    fn extremes_do_not_overflow() {
        assert_eq!(most_requested(i64::MAX, i64::MAX), 100);
        assert_eq!(most_requested(i64::MIN, 1), i64::MIN);
        assert_eq!(least_requested(0, i64::MAX), 100);
        assert_eq!(least_requested(i64::MAX, i64::MAX), 0);
        assert_eq!(least_requested(-5, 10), 150);
        assert_eq!(least_requested(1, 0), 0);
    }
}
