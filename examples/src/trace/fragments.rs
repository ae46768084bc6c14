//! How much of the free GPUs is of no use (Weng et al., ATC '23, section 3).

use std::collections::{BTreeMap, BTreeSet};

use icp_sched::cache::NodeId;
use icp_sched::framework::{Cycle, Plugin, SCORE_MAX};

use super::PodRow;
use super::devices::{Ask, Free, SharedFleet, lock};

/// Most kinds of pods that are typical; the others are rarer.
const KINDS_MAX: usize = 64;

/// The typical pods of a trace: kinds of pods that ask for GPUs, with how often they come.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Typical {
    kinds: Vec<(Ask, f64)>,
    /// The part of the trace's pods with GPUs that are of these kinds.
    pub covers: f64,
}

impl Typical {
    /// The most frequent kinds of pods that ask for GPUs, 64 at most.
    #[must_use]
    pub fn of(pods: &[PodRow]) -> Self {
        let mut counts: BTreeMap<Ask, usize> = BTreeMap::new();
        for pod in pods.iter().filter(|p| p.gpus > 0) {
            *counts.entry(Ask::of(pod)).or_default() += 1;
        }
        let all: usize = counts.values().sum();
        let mut kinds: Vec<(Ask, usize)> = counts.into_iter().collect();
        kinds.sort_by_key(|(ask, n)| (std::cmp::Reverse(*n), *ask));
        kinds.truncate(KINDS_MAX);
        let kept: usize = kinds.iter().map(|(_, n)| n).sum();
        let part = |n: usize, of: usize| n as f64 / of.max(1) as f64;
        Self {
            kinds: kinds.into_iter().map(|(ask, n)| (ask, part(n, kept))).collect(),
            covers: part(kept, all),
        }
    }

    /// Thousandths of the node's free GPUs that the typical pod could not use: all of them where it has no room, else
    /// those of devices with too little room for its share; the mean over the kinds of pods.
    #[must_use]
    pub fn fragments(&self, free: &Free) -> f64 {
        let all = free.gpu_milli();
        let of = |ask: &Ask| {
            if free.fits(ask) { free.gpus.iter().filter(|g| **g < ask.gpu_milli).sum() } else { all }
        };
        self.kinds.iter().map(|(ask, part)| part * of(ask) as f64).sum()
    }
}

/// 100 points for the smallest value, 99 for the next larger one, and so on: the best are told apart however far away the
/// worst are.
fn ranks(values: &[f64]) -> Vec<i64> {
    // What differs by less than a thousandth of a GPU is equal: sums in another order differ by less.
    let rounded = || values.iter().map(|v| v.clamp(-1e9, 1e9).round() as i64);
    let distinct: BTreeSet<i64> = rounded().collect();
    let points: BTreeMap<i64, i64> = distinct.into_iter().zip((0..=SCORE_MAX).rev()).collect();
    rounded().map(|v| points.get(&v).copied().unwrap_or(0)).collect()
}

/// Prefers the node on which a pod makes the fewest new fragments (fragmentation gradient descent).
#[derive(Clone, Debug)]
pub struct GpuFragments {
    /// What is free.
    pub fleet: SharedFleet,
    /// The pods that fragments are measured by.
    pub typical: Typical,
}

impl Plugin for GpuFragments {
    fn name(&self) -> &'static str {
        "GpuFragments"
    }

    fn score(&self, cycle: &Cycle<'_>, feasible: &[NodeId]) -> Option<Vec<i64>> {
        let ask = Ask::of_spec(cycle.pod);
        let fleet = lock(&self.fleet);
        // Most nodes are in the state of another one.
        let mut known: BTreeMap<&Free, f64> = BTreeMap::new();
        let mut more = |free| {
            *known.entry(free).or_insert_with(|| {
                let mut after = Free::clone(free);
                if let Some(devices) = free.devices(&ask) {
                    after.take(&ask, &devices, 1);
                }
                self.typical.fragments(&after) - self.typical.fragments(free)
            })
        };
        let growth: Vec<f64> = feasible.iter().map(|id| fleet.get(*id).map_or(f64::MAX, &mut more)).collect();
        Some(ranks(&growth))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pod(gpus: usize, gpu_milli: i64, cpu_milli: i64) -> PodRow {
        PodRow {
            name: "p".into(),
            cpu_milli,
            memory_mib: 0,
            gpus,
            gpu_milli,
            models: vec![],
            arrives: 0,
            departs: 1,
        }
    }

    #[test]
    fn the_best_are_told_apart() {
        assert_eq!(ranks(&[3.0, -1.0, f64::MAX, 3.2, 4.0]), [99, 100, 97, 99, 98]);
        let many: Vec<f64> = (0..300).map(f64::from).collect();
        assert_eq!(ranks(&many)[98..102], [2, 1, 0, 0]);
    }

    #[test]
    fn fragments_are_what_the_typical_pod_cannot_use() {
        // Three of four want half a GPU, one wants a whole one and much CPU; pods without GPUs do not count.
        let mut pods = vec![pod(1, 500, 1_000); 3];
        pods.extend([pod(1, 1_000, 8_000), pod(0, 0, 1)]);
        let typical = Typical::of(&pods);
        assert_eq!((typical.kinds.len(), typical.covers), (2, 1.0));
        let free = |cpu_milli, gpus: &[i64]| Free { cpu_milli, memory_mib: 0, gpus: gpus.to_vec() };
        assert_eq!(typical.fragments(&free(8_000, &[1_000, 1_000])), 0.0);
        assert_eq!(
            typical.fragments(&free(7_999, &[1_000, 1_000])),
            0.25 * 2_000.0,
            "the large pod has no CPU"
        );
        assert_eq!(typical.fragments(&free(8_000, &[1_000, 400])), 400.0, "nobody can use the 400");
        assert_eq!(typical.fragments(&free(8_000, &[600, 400])), 0.75 * 400.0 + 0.25 * 1_000.0);
        assert_eq!(typical.fragments(&free(0, &[600, 400])), 1_000.0);
    }
}
