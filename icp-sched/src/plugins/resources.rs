//! What scoring by resources has in common: weights, shapes, and how much of a resource a node has and gives.

use alloc::string::String;
use alloc::vec::Vec;

use crate::cache::{Chunks, Columns};
use crate::framework::SCORE_MAX;
use crate::model::PodSpec;

/// The highest score of a shape's point (`MaxCustomPriorityScore`).
pub(crate) const SHAPE_SCORE_MAX: i64 = 10;

/// A resource and how much it counts.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ResourceWeight {
    /// `cpu`, `memory`, `ephemeral-storage`, or the name of an extended resource.
    pub name: String,
    /// How much it counts, 1 to 100.
    pub weight: i64,
}

impl ResourceWeight {
    /// A resource with its weight.
    #[must_use]
    pub fn new(name: &str, weight: i64) -> Self {
        Self { name: name.into(), weight }
    }

    /// CPU and memory alike, which is what upstream looks at unless told otherwise.
    #[must_use]
    pub fn defaults() -> Vec<Self> {
        alloc::vec![Self::new("cpu", 1), Self::new("memory", 1)]
    }
}

/// A function of utilisation that is linear between points (`UtilizationShapePoint`).
///
/// ```
/// use icp_sched::plugins::Shape;
/// let packing = Shape::new(&[(0, 0), (100, 10)]);
/// assert_eq!(packing.score(50), 50);
/// assert_eq!(packing.score(200), 100);
/// ```
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Shape {
    /// Utilisation in percent, ascending, and points 0 to 100.
    points: Vec<(i64, i64)>,
}

impl Shape {
    /// Points of utilisation (percent, ascending) and score (0 to 10).
    #[must_use]
    pub fn new(points: &[(i64, i64)]) -> Self {
        let scale = SCORE_MAX / SHAPE_SCORE_MAX;
        Self { points: points.iter().map(|(at, score)| (*at, score.saturating_mul(scale))).collect() }
    }

    /// The value at a utilisation in percent, in whole numbers rounded towards zero (`BuildBrokenLinearFunction`).
    /// Without points it is 0.
    #[must_use]
    pub fn score(&self, utilization: i64) -> i64 {
        let mut before: Option<(i64, i64)> = None;
        for (at, score) in self.points.iter().copied() {
            if utilization <= at {
                let Some((from, base)) = before.filter(|(from, _)| *from < at) else { return score };
                let part = i128::from(score - base) * i128::from(utilization - from) / i128::from(at - from);
                return base + i64::try_from(part).unwrap_or(0);
            }
            before = Some((at, score));
        }
        before.map_or(0, |(_, score)| score)
    }

    /// The value for so much asked of a capacity; all of it is used if more is asked for or nothing is there.
    #[must_use]
    pub fn of_use(&self, requested: i64, capacity: i64) -> i64 {
        if capacity == 0 || requested > capacity {
            return self.score(SCORE_MAX);
        }
        self.score(percent(requested.max(0), capacity))
    }
}

/// `part * 100 / whole` without overflow, rounded towards zero.
pub(crate) fn percent(part: i64, whole: i64) -> i64 {
    if whole == 0 {
        return 0;
    }
    let exact = i128::from(part) * i128::from(SCORE_MAX) / i128::from(whole);
    i64::try_from(exact).unwrap_or(if exact < 0 { i64::MIN } else { i64::MAX })
}

/// How amounts of pods that ask for nothing are taken.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Take {
    /// As the assumed amounts (100m CPU, 200 MiB) for each container.
    Filled,
    /// As they stand.
    Exact,
}

/// What the pod asks for of a resource.
pub(crate) fn asked(pod: &PodSpec, name: &str, take: Take) -> i64 {
    match (name, take) {
        ("cpu", Take::Filled) => pod.non_zero_cpu,
        ("memory", Take::Filled) => pod.non_zero_memory,
        ("cpu", Take::Exact) => pod.requests.cpu,
        ("memory", Take::Exact) => pod.requests.memory,
        ("ephemeral-storage", _) => pod.requests.ephemeral,
        (name, _) => pod.requests.scalars.get(name).copied().unwrap_or(0),
    }
}

/// What is used of a resource with the pod, and what the node has of it (`calculateResourceAllocatableRequest`). Both are 0
/// where the resource does not count: the node has none, or it is an extended resource that the pod does not ask for.
pub(crate) fn used(columns: &Columns, pod: &PodSpec, row: usize, name: &str, take: Take) -> (i64, i64) {
    let (Some(have), Some(load)) = (columns.capacity.get(row), columns.load.get(row)) else { return (0, 0) };
    let own = asked(pod, name, take);
    let (there, capacity) = match (name, take) {
        ("cpu", Take::Filled) => (load.filled_cpu, have.cpu),
        ("memory", Take::Filled) => (load.filled_memory, have.memory),
        ("cpu", Take::Exact) => (load.cpu, have.cpu),
        ("memory", Take::Exact) => (load.memory, have.memory),
        ("ephemeral-storage", _) => (load.ephemeral, have.ephemeral),
        _ if own == 0 => return (0, 0),
        (name, _) => match columns.scalars.iter().find(|s| s.name == name) {
            Some(s) => {
                let at = |list: &Chunks<i64>| list.get(row).copied().unwrap_or(0);
                (at(&s.used), at(&s.allocatable))
            }
            None => return (0, 0),
        },
    };
    (there.saturating_add(own), capacity)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn shapes_bend_at_their_points() {
        let shape = Shape::new(&[(10, 1), (40, 10), (90, 0)]);
        for (at, want) in
            [(0, 10), (10, 10), (20, 40), (25, 55), (40, 100), (65, 50), (66, 48), (90, 0), (99, 0)]
        {
            assert_eq!(shape.score(at), want, "{at}");
        }
        assert_eq!(Shape::default().score(5), 0);
        // What is asked for beyond the capacity counts as all of it.
        let packing = Shape::new(&[(0, 0), (100, 10)]);
        assert_eq!((packing.of_use(3, 0), packing.of_use(9, 3), packing.of_use(-4, 3)), (100, 100, 0));
    }

    proptest! {
        /// A shape never leaves the range of its points, whatever it is asked.
        #[test]
        fn shapes_stay_in_range(points in prop::collection::btree_map(0..=100_i64, 0..=10_i64, 1..6), at in any::<i64>(), have in any::<i64>()) {
            let points: Vec<_> = points.into_iter().collect();
            let shape = Shape::new(&points);
            let scores = points.iter().map(|(_, s)| s * 10);
            let (low, high) = (scores.clone().min().unwrap(), scores.max().unwrap());
            prop_assert!((low..=high).contains(&shape.score(at)));
            prop_assert!((low..=high).contains(&shape.of_use(at, have)));
        }
    }
}
