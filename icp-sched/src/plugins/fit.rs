//! NodeResourcesFit: room for what a pod asks for; prefers the least allocated nodes.

use alloc::boxed::Box;
use alloc::format;
use alloc::vec::Vec;

use crate::cache::{Capacity, Columns, Load, NodeId};
use crate::framework::{Code, Cycle, FilterPlan, Plugin, Reasons, Rejected, SCORE_MAX};
use crate::model::PodSpec;

/// Rejects nodes without room for the pod; prefers nodes with much room left (strategy LeastAllocated over CPU and
/// memory, weight 1 each).
#[derive(Clone, Copy, Debug, Default)]
pub struct ResourcesFit;

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

fn scalar(columns: &Columns, name: &str, row: usize) -> (i64, i64) {
    let column = columns.scalars.iter().find(|s| s.name == name);
    let at = |list: &Vec<i64>| list.get(row).copied().unwrap_or(0);
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

/// The same for a load that need not be the present one, without extended resources.
pub(crate) fn lacking_load(have: &Capacity, load: &Load, pod: &PodSpec) -> Option<Rejected> {
    lacking_of(have, load, pod, core::iter::empty())
}

fn lacking_of<'a>(
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
pub(crate) fn least_allocated(columns: &Columns, pod: &PodSpec, row: usize) -> i64 {
    let (Some(have), Some(load)) = (columns.capacity.get(row), columns.load.get(row)) else { return 0 };
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

impl Plugin for ResourcesFit {
    fn name(&self) -> &'static str {
        "NodeResourcesFit"
    }

    fn filter<'a>(&'a self, cycle: Cycle<'a>) -> FilterPlan<'a> {
        let columns = cycle.cluster.columns();
        FilterPlan::Each(Box::new(move |id: NodeId| {
            if fits(columns, cycle.pod, id.row()) { None } else { lacking(columns, cycle.pod, id.row()) }
        }))
    }

    fn score(&self, cycle: &Cycle<'_>, feasible: &[NodeId]) -> Option<Vec<i64>> {
        let columns = cycle.cluster.columns();
        Some(feasible.iter().map(|id| least_allocated(columns, cycle.pod, id.row())).collect())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn extremes_do_not_overflow() {
        assert_eq!(least_requested(0, i64::MAX), 100);
        assert_eq!(least_requested(i64::MAX, i64::MAX), 0);
        assert_eq!(least_requested(-5, 10), 150);
        assert_eq!(least_requested(1, 0), 0);
    }
}
