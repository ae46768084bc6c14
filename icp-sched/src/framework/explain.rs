//! Why a pod goes where it goes.

use alloc::collections::BTreeMap;
use alloc::format;
use alloc::string::String;
use alloc::vec::Vec;

use super::{Cycle, Point, Rejection, Slot, Survey};

/// What became of a node.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// It will not do.
    Rejected(Rejection),
    /// It will do, this well.
    Feasible {
        /// The sum.
        total: i64,
        /// The weighted points of each plugin that cared for the pod, in order of the plugins.
        scores: Vec<(&'static str, i64)>,
    },
}

/// A node and what became of it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NodeReport {
    /// The node.
    pub node: String,
    /// What became of it.
    pub verdict: Verdict,
}

/// What every plugin said about a pod and every node.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Explanation {
    /// A plugin was against all nodes, without looking at any.
    pub prefilter: Option<Rejection>,
    /// The nodes; empty if no node was looked at.
    pub nodes: Vec<NodeReport>,
    /// How many nodes there are.
    pub node_count: usize,
}

impl Explanation {
    pub(crate) fn new(slots: &[Slot], cycle: Cycle<'_>, survey: Survey) -> Self {
        let name = |id| cycle.cluster.node(id).map(|n| n.name.clone()).unwrap_or_default();
        let mut by_plugin = Vec::new();
        for slot in slots.iter().filter(|s| s.at(Point::Score)) {
            if let Some(points) = slot.plugin.score(&cycle, &survey.feasible) {
                by_plugin.push((slot.plugin.name(), slot.weight, points));
            }
        }
        let mut nodes: BTreeMap<_, NodeReport> = BTreeMap::new();
        for (at, id) in survey.feasible.iter().enumerate() {
            let scores: Vec<(&'static str, i64)> = by_plugin
                .iter()
                .map(|(plugin, weight, points)| {
                    (*plugin, points.get(at).copied().unwrap_or(0).saturating_mul(*weight))
                })
                .collect();
            let total = scores.iter().map(|(_, s)| s).sum();
            nodes.insert(*id, NodeReport { node: name(*id), verdict: Verdict::Feasible { total, scores } });
        }
        for (id, rejection) in survey.rejected {
            nodes.insert(id, NodeReport { node: name(id), verdict: Verdict::Rejected(rejection) });
        }
        Self {
            prefilter: survey.prefilter,
            nodes: nodes.into_values().collect(),
            node_count: cycle.cluster.node_count(),
        }
    }

    /// The nodes with the most points.
    #[must_use]
    pub fn best(&self) -> Vec<&str> {
        let total = |r: &NodeReport| match r.verdict {
            Verdict::Feasible { total, .. } => Some(total),
            Verdict::Rejected(_) => None,
        };
        let max = self.nodes.iter().filter_map(total).max();
        self.nodes.iter().filter(|r| max.is_some() && total(r) == max).map(|r| r.node.as_str()).collect()
    }
}

/// `0/N nodes are available: ...`, as `framework.FitError` says it; with how many nodes each rejection keeps off.
pub(crate) fn fit_error(node_count: usize, rejections: &[(Rejection, usize)]) -> String {
    if node_count == 0 {
        return "no nodes available to schedule pods".into();
    }
    let mut counts: BTreeMap<&str, usize> = BTreeMap::new();
    for (rejection, n) in rejections {
        for reason in &rejection.reasons {
            *counts.entry(reason).or_default() += n;
        }
    }
    let mut lines: Vec<String> = counts.iter().map(|(reason, n)| format!("{n} {reason}")).collect();
    lines.sort();
    format!("0/{node_count} nodes are available: {}.", lines.join(", "))
}
