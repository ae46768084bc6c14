//! Soft constraints.

use alloc::vec::Vec;

use super::HOSTNAME;
use crate::cache::{Cluster, NO_DOMAIN};
use crate::framework::SCORE_MAX;
use crate::model::{PodSpec, SpreadConstraint};

/// One constraint, counted.
#[derive(Clone, Debug, PartialEq)]
struct Counted {
    column: Option<usize>,
    /// The domain is the node itself: pods are counted by row, whatever nodes count.
    per_node: bool,
    /// Pods that count, by domain or by row.
    pods: Vec<i64>,
    max_skew: i64,
}

/// The soft constraints of a pod, counted over the cluster.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Soft {
    list: Vec<SpreadConstraint>,
    constraints: Vec<Counted>,
    /// Nodes without all topology labels get no points (not so for default constraints).
    need_labels: bool,
}

impl Soft {
    /// Counts nothing yet; `None` if the pod has no soft constraints.
    pub(crate) fn build(cluster: &Cluster, pod: &PodSpec) -> Option<Self> {
        let need_labels = !pod.spread_soft.is_empty() || !pod.spread_hard.is_empty();
        let list = if need_labels { pod.spread_soft.clone() } else { super::defaults(cluster, pod) };
        if list.is_empty() {
            return None;
        }
        let columns = super::columns(cluster, &list);
        let counted = |(column, c): (Option<usize>, &SpreadConstraint)| Counted {
            column,
            per_node: c.topology_key == HOSTNAME,
            pods: Vec::new(),
            max_skew: c.max_skew,
        };
        let constraints = columns.into_iter().zip(&list).map(counted).collect();
        Some(Self { list, constraints, need_labels })
    }

    /// Counts all pods.
    pub(crate) fn with_pods(mut self, cluster: &Cluster, pod: &PodSpec) -> Self {
        for (id, _) in cluster.nodes() {
            for (existing, count) in cluster.classes_on(id.row()) {
                let mask = super::matching(pod, &self.list, existing);
                self.pods(cluster, pod, mask, id.row(), i64::from(count));
            }
        }
        self
    }

    /// The constraints.
    pub(crate) fn list(&self) -> &[SpreadConstraint] {
        &self.list
    }

    /// Whether nodes without all topology labels get no points.
    pub(crate) const fn needs_labels(&self) -> bool {
        self.need_labels
    }

    /// Whether the domain of a constraint is the node itself.
    pub(crate) fn per_node(&self, at: usize) -> bool {
        self.constraints.get(at).is_some_and(|c| c.per_node)
    }

    /// The pods that count for a constraint, by domain or by row.
    pub(crate) fn count(&self, at: usize, domain_or_row: usize) -> i64 {
        self.constraints.get(at).and_then(|c| c.pods.get(domain_or_row)).copied().unwrap_or(0)
    }

    fn labelled(&self, cluster: &Cluster, row: usize) -> bool {
        self.constraints.iter().all(|c| super::domain(cluster, c.column, row) != NO_DOMAIN)
    }

    /// So many pods that count for the constraints in `mask` came to a node, or went if `times` is negative.
    pub(crate) fn pods(&mut self, cluster: &Cluster, pod: &PodSpec, mask: u64, row: usize, times: i64) {
        if mask == 0 {
            return;
        }
        let Some(node) = cluster.columns().nodes.get(row).and_then(Option::as_ref) else { return };
        let labelled = !self.need_labels || self.labelled(cluster, row);
        for at in 0..self.constraints.len() {
            let (Some(counted), Some(c)) = (self.constraints.get(at), self.list.get(at)) else { continue };
            if !super::is_in(mask, at) {
                continue;
            }
            if counted.per_node {
                self.pods_in(at, row, times);
            } else if labelled && super::includes(pod, c, node) {
                match super::domain(cluster, counted.column, row) {
                    NO_DOMAIN => {}
                    domain => self.pods_in(at, domain as usize, times),
                }
            }
        }
    }

    /// So many pods that count for a constraint came to a domain or row, or went if `times` is negative.
    pub(crate) fn pods_in(&mut self, at: usize, domain_or_row: usize, times: i64) {
        let Some(counted) = self.constraints.get_mut(at) else { return };
        if counted.pods.len() <= domain_or_row {
            counted.pods.resize(domain_or_row + 1, 0);
        }
        if let Some(n) = counted.pods.get_mut(domain_or_row) {
            *n += times;
        }
    }

    /// Points of the feasible nodes, normalised.
    pub(crate) fn points(&self, cluster: &Cluster, feasible: &[usize]) -> Vec<i64> {
        let counts = |row: &usize| !self.need_labels || self.labelled(cluster, *row);
        let candidates: Vec<bool> = feasible.iter().map(counts).collect();
        let candidate_count = candidates.iter().filter(|c| **c).count();
        // The more domains there are, the fewer pods are in each, and the more one pod weighs.
        let weights: Vec<f64> = self
            .constraints
            .iter()
            .map(|c| {
                let size = if c.per_node {
                    candidate_count
                } else {
                    let mut seen = Vec::new();
                    for (row, _) in feasible.iter().zip(&candidates).filter(|(_, c)| **c) {
                        let domain = super::domain(cluster, c.column, *row);
                        // Nodes without the label are one domain here, as upstream's empty value.
                        let at = if domain == NO_DOMAIN { 0 } else { domain as usize + 1 };
                        if seen.len() <= at {
                            seen.resize(at + 1, false);
                        }
                        if let Some(s) = seen.get_mut(at) {
                            *s = true;
                        }
                    }
                    seen.iter().filter(|s| **s).count()
                };
                weight(size)
            })
            .collect();
        let raw = |row: usize| {
            let mut score = 0.0;
            for (c, weight) in self.constraints.iter().zip(&weights) {
                let domain = super::domain(cluster, c.column, row);
                if domain != NO_DOMAIN {
                    let at = if c.per_node { row } else { domain as usize };
                    let pods = c.pods.get(at).copied().unwrap_or(0);
                    score += pods as f64 * weight + c.max_skew.saturating_sub(1) as f64;
                }
            }
            libm::round(score) as i64
        };
        let scores: Vec<Option<i64>> =
            feasible.iter().zip(&candidates).map(|(row, c)| c.then(|| raw(*row))).collect();
        let least = scores.iter().flatten().min().copied().unwrap_or(0);
        let most = scores.iter().flatten().max().copied().unwrap_or(0);
        scores.into_iter().map(|s| s.map_or(0, |s| normalized(s, least, most))).collect()
    }
}

/// How much one pod weighs among so many domains (`topologyNormalizingWeight`).
pub(crate) fn weight(domains: usize) -> f64 {
    libm::log((domains + 2) as f64)
}

/// Points for a score between the least and the most, turned round (`NormalizeScore`).
pub(crate) const fn normalized(score: i64, least: i64, most: i64) -> i64 {
    if most == 0 { SCORE_MAX } else { SCORE_MAX * (most + least - score) / most }
}
