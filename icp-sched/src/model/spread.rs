//! Topology spread constraints.

use alloc::string::String;

use icp_core::api::labels::Selector;

/// A topology spread constraint of a pod.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct SpreadConstraint {
    /// How far domains may differ.
    pub max_skew: i64,
    /// What a domain is.
    pub topology_key: String,
    /// Which pods are counted; with `matchLabelKeys` merged in.
    pub selector: Selector,
    /// Fewer domains than this count as one that is empty.
    pub min_domains: i64,
    /// Nodes that the pod's node affinity excludes do not count.
    pub honor_affinity: bool,
    /// Nodes with taints that the pod does not tolerate do not count.
    pub honor_taints: bool,
}
