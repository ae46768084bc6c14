//! Hard constraints.

use alloc::collections::BTreeMap;
use alloc::vec::Vec;

use crate::cache::{Cluster, NO_DOMAIN};
use crate::framework::Rejected;
use crate::model::{PodSpec, SpreadConstraint};

pub(crate) const REASON: &str = "node(s) didn't match pod topology spread constraints";
pub(crate) const REASON_LABEL: &str =
    "node(s) didn't match pod topology spread constraints (missing required label)";

/// One constraint, counted.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Counted {
    column: Option<usize>,
    /// Nodes that count, by domain. A domain without any does not exist.
    nodes: Vec<u32>,
    /// Pods that count, by domain.
    pods: Vec<i64>,
    /// How many domains have so many pods.
    histogram: BTreeMap<i64, u32>,
    /// How many domains there are.
    domains: i64,
    /// The pod itself will count.
    own: i64,
}

/// The hard constraints of a pod, counted over the cluster.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Hard {
    constraints: Vec<Counted>,
}

impl Hard {
    /// Counts all nodes.
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
                    histogram: BTreeMap::new(),
                    domains: 0,
                    own: i64::from(c.selector.matches(&pod.labels)),
                })
                .collect(),
        };
        for (id, _) in cluster.nodes() {
            hard.node(cluster, pod, id.row());
        }
        hard
    }

    /// Counts all pods as well.
    pub(crate) fn with_pods(mut self, cluster: &Cluster, pod: &PodSpec) -> Self {
        for (id, _) in cluster.nodes() {
            for (existing, count) in cluster.classes_on(id.row()) {
                let mask = super::matching(pod, &pod.spread_hard, existing);
                self.pods(cluster, pod, mask, id.row(), i64::from(count));
            }
        }
        self
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
                    if *n == 1 {
                        counted.domains += 1;
                        *counted.histogram.entry(0).or_default() += 1;
                    }
                }
            }
        }
    }

    /// So many pods that count for the constraints in `mask` came to a node that was counted, or went if `times` is
    /// negative.
    pub(crate) fn pods(&mut self, cluster: &Cluster, pod: &PodSpec, mask: u64, row: usize, times: i64) {
        if mask == 0 {
            return;
        }
        let Some(node) = cluster.columns().nodes.get(row).and_then(Option::as_ref) else { return };
        if !self.labelled(cluster, row) {
            return;
        }
        for (at, (counted, c)) in self.constraints.iter_mut().zip(&pod.spread_hard).enumerate() {
            if super::is_in(mask, at) && super::includes(pod, c, node) {
                let domain = super::domain(cluster, counted.column, row) as usize;
                let Some(n) = counted.pods.get_mut(domain) else { continue };
                if let Some(domains) = counted.histogram.get_mut(n) {
                    *domains -= 1;
                    if *domains == 0 {
                        counted.histogram.remove(n);
                    }
                }
                *n += times;
                *counted.histogram.entry(*n).or_default() += 1;
            }
        }
    }

    /// The pods in a domain that count for a constraint.
    pub(crate) fn count(&self, at: usize, domain: u32) -> i64 {
        self.constraints.get(at).and_then(|c| c.pods.get(domain as usize)).copied().unwrap_or(0)
    }

    /// Whether one more pod in a domain with so many is within the skew.
    pub(crate) fn allows(&self, at: usize, c: &SpreadConstraint, there: i64) -> bool {
        let Some(counted) = self.constraints.get(at) else { return true };
        let least = if counted.domains < c.min_domains {
            0
        } else {
            counted.histogram.first_key_value().map_or(0, |(pods, _)| *pods)
        };
        there + counted.own - least <= c.max_skew
    }

    /// Why a node will not do.
    pub(crate) fn check(&self, cluster: &Cluster, pod: &PodSpec, row: usize) -> Option<Rejected> {
        for (at, (counted, c)) in self.constraints.iter().zip(&pod.spread_hard).enumerate() {
            match super::domain(cluster, counted.column, row) {
                NO_DOMAIN => return Some(Rejected::unresolvable(REASON_LABEL)),
                domain if !self.allows(at, c, self.count(at, domain)) => {
                    return Some(Rejected::unschedulable(REASON));
                }
                _ => {}
            }
        }
        None
    }
}
