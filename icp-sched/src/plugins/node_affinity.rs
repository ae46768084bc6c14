//! NodeAffinity: labels and names of nodes that a pod asks for, or prefers.

use alloc::boxed::Box;
use alloc::collections::BTreeSet;
use alloc::vec::Vec;

use crate::cache::NodeId;
use crate::framework::{Cycle, FilterPlan, Kept, Part, Plugin, Rejected, normalize};
use crate::model::{Node, NodeTerm, Pod, PodSpec, PreferredNodeTerm};
use crate::plugins::hints;
use crate::queue::Happened;

const REASON: &str = "node(s) didn't match Pod's node affinity/selector";
const REASON_ENFORCED: &str = "node(s) didn't match scheduler-enforced node affinity";
const REASON_CONFLICT: &str = "pod affinity terms conflict";

/// Rejects nodes that do not match `nodeSelector` and the required node affinity; prefers those that match
/// preferences. Terms can be added that hold for every pod.
#[derive(Clone, Debug, Default)]
pub struct NodeAffinity {
    required: Option<Vec<NodeTerm>>,
    preferred: Vec<PreferredNodeTerm>,
}

impl NodeAffinity {
    /// One whose terms hold for every pod, beside the pod's own (`addedAffinity`).
    #[must_use]
    pub fn adding(required: Option<Vec<NodeTerm>>, preferred: Vec<PreferredNodeTerm>) -> Self {
        Self { required, preferred }
    }

    fn enforces(&self, node: &Node) -> bool {
        self.required.as_ref().is_none_or(|terms| terms.iter().any(|t| t.matches(&node.name, &node.labels)))
    }
}

/// Whether a node is one that the pod may run on (`nodeaffinity.RequiredNodeAffinity.Match`).
pub(crate) fn allows(pod: &PodSpec, node: &Node) -> bool {
    let selected = pod.node_selector.iter().flatten().all(|(k, v)| node.labels.get(k) == Some(v));
    selected
        && pod
            .node_terms
            .as_ref()
            .is_none_or(|terms| terms.iter().any(|t| t.matches(&node.name, &node.labels)))
}

/// The weights of the preferences that a node meets.
pub(crate) fn preference(pod: &PodSpec, node: &Node) -> i64 {
    met(pod.node_preferences.iter().flatten(), node)
}

fn met<'t>(terms: impl Iterator<Item = &'t PreferredNodeTerm>, node: &Node) -> i64 {
    terms.filter(|p| p.term.matches(&node.name, &node.labels)).map(|p| p.weight).fold(0, i64::saturating_add)
}

/// The names that a pod may run on, if every term names nodes.
pub(crate) fn named(pod: &PodSpec) -> Option<BTreeSet<&str>> {
    let terms = pod.node_terms.as_ref().filter(|t| !t.is_empty())?;
    let mut names = BTreeSet::new();
    for term in terms {
        names.extend(term.named()?);
    }
    Some(names)
}

/// What the plugin says of a node that will not do.
pub(crate) fn rejection() -> Rejected {
    Rejected::unresolvable(REASON)
}

impl Plugin for NodeAffinity {
    fn name(&self) -> &'static str {
        "NodeAffinity"
    }

    fn kept(&self) -> Option<Kept> {
        (self.required.is_none() && self.preferred.is_empty()).then_some(Kept(Part::Usual))
    }

    fn hint(&self, pod: &Pod, happened: &Happened<'_>) -> bool {
        hints::node_affinity(pod, happened, |node| self.enforces(node))
    }

    fn filter<'a>(&'a self, cycle: Cycle<'a>) -> FilterPlan<'a> {
        if self.required.is_none() && cycle.pod.node_selector.is_none() && cycle.pod.node_terms.is_none() {
            return FilterPlan::Skip;
        }
        let check = Box::new(move |id: NodeId| {
            let node = cycle.cluster.node(id)?;
            if !self.enforces(node) {
                return Some(Rejected::unresolvable(REASON_ENFORCED));
            }
            (!allows(cycle.pod, node)).then(rejection)
        });
        match named(cycle.pod) {
            None => FilterPlan::Each(check),
            Some(names) if names.is_empty() => FilterPlan::Reject(Rejected::unresolvable(REASON_CONFLICT)),
            Some(names) => {
                FilterPlan::Only(names.iter().filter_map(|n| cycle.cluster.node_id(n)).collect(), check)
            }
        }
    }

    fn score(&self, cycle: &Cycle<'_>, feasible: &[NodeId]) -> Option<Vec<i64>> {
        if self.preferred.is_empty() && cycle.pod.node_preferences.is_none() {
            return None;
        }
        let of = |n: &Node| preference(cycle.pod, n).saturating_add(met(self.preferred.iter(), n));
        let points = |id: &NodeId| cycle.cluster.node(*id).map_or(0, |n| of(n));
        let mut points: Vec<i64> = feasible.iter().map(points).collect();
        normalize(&mut points, false);
        Some(points)
    }
}
