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

impl Counted {
    /// A domain has not so many pods any more.
    fn leave(&mut self, pods: i64) {
        if let Some(domains) = self.histogram.get_mut(&pods) {
            *domains -= 1;
            if *domains == 0 {
                self.histogram.remove(&pods);
            }
        }
    }
}

/// The hard constraints of a pod, counted over the cluster.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Hard {
    constraints: Vec<Counted>,
}

impl Hard {
    /// Counts nothing yet.
    pub(crate) fn empty(cluster: &Cluster, pod: &PodSpec) -> Self {
        let columns = super::columns(cluster, &pod.spread_hard);
        Self {
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
        }
    }

    /// Counts all nodes.
    pub(crate) fn build(cluster: &Cluster, pod: &PodSpec) -> Self {
        let mut hard = Self::empty(cluster, pod);
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
        for (at, c) in pod.spread_hard.iter().enumerate() {
            if super::includes(pod, c, node) {
                let column = self.constraints.get(at).and_then(|c| c.column);
                self.node_in(at, super::domain(cluster, column, row), true);
            }
        }
    }

    /// A node that counts for a constraint came to a domain, or went. Its pods go before it.
    pub(crate) fn node_in(&mut self, at: usize, domain: u32, came: bool) {
        let Some(counted) = self.constraints.get_mut(at) else { return };
        let domain = domain as usize;
        if counted.nodes.len() <= domain {
            counted.nodes.resize(domain + 1, 0);
            counted.pods.resize(domain + 1, 0);
        }
        let (Some(nodes), Some(pods)) = (counted.nodes.get_mut(domain), counted.pods.get(domain)) else {
            return;
        };
        *nodes = if came { *nodes + 1 } else { nodes.saturating_sub(1) };
        match (*nodes, came) {
            (1, true) => {
                counted.domains += 1;
                *counted.histogram.entry(*pods).or_default() += 1;
            }
            (0, false) => {
                counted.domains -= 1;
                counted.leave(*pods);
            }
            _ => {}
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
        for (at, c) in pod.spread_hard.iter().enumerate() {
            if super::is_in(mask, at) && super::includes(pod, c, node) {
                let column = self.constraints.get(at).and_then(|c| c.column);
                self.pods_in(at, super::domain(cluster, column, row), times);
            }
        }
    }

    /// So many pods that count for a constraint came to a domain that exists, or went if `times` is negative.
    pub(crate) fn pods_in(&mut self, at: usize, domain: u32, times: i64) {
        let Some(counted) = self.constraints.get_mut(at) else { return };
        let Some(pods) = counted.pods.get_mut(domain as usize) else { return };
        let before = core::mem::replace(pods, *pods + times);
        let now = *pods;
        counted.leave(before);
        *counted.histogram.entry(now).or_default() += 1;
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
