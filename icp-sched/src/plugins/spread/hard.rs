//! Hard constraints.

use alloc::vec::Vec;

use crate::cache::{Cluster, NO_DOMAIN};
use crate::framework::Rejected;
use crate::model::PodSpec;

const REASON: &str = "node(s) didn't match pod topology spread constraints";
const REASON_LABEL: &str = "node(s) didn't match pod topology spread constraints (missing required label)";

/// One constraint, counted.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Counted {
    column: Option<usize>,
    /// Nodes that count, by domain. A domain without any does not exist.
    nodes: Vec<u32>,
    /// Pods that count, by domain.
    pods: Vec<i64>,
    /// The pod itself will count.
    own: i64,
}

/// The hard constraints of a pod, counted over the cluster.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Hard {
    constraints: Vec<Counted>,
}

impl Hard {
    /// Counts all nodes and pods.
    pub(crate) fn build(cluster: &Cluster, pod: &PodSpec) -> Self {
        let columns = super::columns(cluster, &pod.spread_hard);
        let mut hard = Self {
            constraints: columns
                .into_iter()
                .zip(&pod.spread_hard)
                .map(|(column, c)| Counted {
                    column,
                    nodes: Vec::new(),
                    pods: Vec::new(),
                    own: i64::from(c.selector.matches(&pod.labels)),
                })
                .collect(),
        };
        for (id, _) in cluster.nodes() {
            hard.node(cluster, pod, id.row());
            for (existing, count) in cluster.classes_on(id.row()) {
                hard.pods(cluster, pod, existing, id.row(), i64::from(count));
            }
        }
        hard
    }

    /// Whether the node has all topology labels, which it needs to count for any constraint.
    fn labelled(&self, cluster: &Cluster, row: usize) -> bool {
        self.constraints.iter().all(|c| super::domain(cluster, c.column, row) != NO_DOMAIN)
    }

    fn node(&mut self, cluster: &Cluster, pod: &PodSpec, row: usize) {
        let Some(node) = cluster.columns().nodes.get(row).and_then(Option::as_ref) else { return };
        if !self.labelled(cluster, row) {
            return;
        }
        for (counted, c) in self.constraints.iter_mut().zip(&pod.spread_hard) {
            if super::includes(pod, c, node) {
                let domain = super::domain(cluster, counted.column, row) as usize;
                if counted.nodes.len() <= domain {
                    counted.nodes.resize(domain + 1, 0);
                    counted.pods.resize(domain + 1, 0);
                }
                if let Some(n) = counted.nodes.get_mut(domain) {
                    *n += 1;
                }
            }
        }
    }

    /// So many pods of a class came to a node that was counted, or went if `times` is negative. Says whether that
    /// changed anything.
    pub(crate) fn pods(
        &mut self,
        cluster: &Cluster,
        pod: &PodSpec,
        existing: &PodSpec,
        row: usize,
        times: i64,
    ) -> bool {
        let Some(node) = cluster.columns().nodes.get(row).and_then(Option::as_ref) else { return false };
        if !self.labelled(cluster, row) {
            return false;
        }
        let mut changed = false;
        for (counted, c) in self.constraints.iter_mut().zip(&pod.spread_hard) {
            if super::counts(pod, c, existing) && super::includes(pod, c, node) {
                let domain = super::domain(cluster, counted.column, row) as usize;
                if let Some(n) = counted.pods.get_mut(domain) {
                    *n += times;
                    changed = true;
                }
            }
        }
        changed
    }

    /// The least number of pods in a domain, for each constraint.
    pub(crate) fn least(&self) -> Vec<(i64, i64)> {
        let of = |c: &Counted| {
            let there = c.nodes.iter().zip(&c.pods).filter(|(nodes, _)| **nodes > 0);
            let domains = i64::try_from(there.clone().count()).unwrap_or(i64::MAX);
            (there.map(|(_, pods)| *pods).min().unwrap_or(0), domains)
        };
        self.constraints.iter().map(of).collect()
    }

    /// Why a node will not do; `least` is of [`Hard::least`].
    pub(crate) fn check(
        &self,
        cluster: &Cluster,
        pod: &PodSpec,
        least: &[(i64, i64)],
        row: usize,
    ) -> Option<Rejected> {
        for ((counted, c), (least, domains)) in self.constraints.iter().zip(&pod.spread_hard).zip(least) {
            let domain = super::domain(cluster, counted.column, row);
            if domain == NO_DOMAIN {
                return Some(Rejected::unresolvable(REASON_LABEL));
            }
            let least = if *domains < c.min_domains { 0 } else { *least };
            let there = counted.pods.get(domain as usize).copied().unwrap_or(0);
            if there + counted.own - least > c.max_skew {
                return Some(Rejected::unschedulable(REASON));
            }
        }
        None
    }
}
