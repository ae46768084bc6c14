//! The constraints of pods that have none of their own.

use alloc::string::String;
use alloc::vec::Vec;

use icp_core::api::labels::Selector;

use super::HOSTNAME;
use crate::cache::Cluster;
use crate::model::{PodSpec, SpreadConstraint};

/// The topology key of zones.
pub(crate) const ZONE: &str = "topology.kubernetes.io/zone";

/// Softly over nodes and zones, if anything selects the pod (`systemDefaultConstraints`).
pub(crate) fn defaults(cluster: &Cluster, pod: &PodSpec) -> Vec<SpreadConstraint> {
    let selector: Selector = cluster.selectors().of(pod);
    if selector.is_everything() {
        return Vec::new();
    }
    [(HOSTNAME, 3), (ZONE, 5)]
        .into_iter()
        .map(|(key, max_skew)| SpreadConstraint {
            max_skew,
            topology_key: key.into(),
            selector: selector.clone(),
            min_domains: 1,
            honor_affinity: true,
            honor_taints: false,
        })
        .collect()
}

/// A constraint for pods that have none of their own.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DefaultConstraint {
    /// How far domains may differ.
    pub max_skew: i64,
    /// What a domain is.
    pub topology_key: String,
    /// Nodes that break it are rejected (`DoNotSchedule`), rather than not preferred.
    pub hard: bool,
    /// Fewer domains than this count as one that is empty.
    pub min_domains: i64,
    /// Nodes that the pod's node affinity excludes do not count.
    pub honor_affinity: bool,
    /// Nodes with taints that the pod does not tolerate do not count.
    pub honor_taints: bool,
}

impl DefaultConstraint {
    /// A constraint as a pod would have it that says no more than this.
    #[must_use]
    pub fn new(topology_key: &str, max_skew: i64, hard: bool) -> Self {
        Self {
            max_skew,
            topology_key: topology_key.into(),
            hard,
            min_domains: 1,
            honor_affinity: true,
            honor_taints: false,
        }
    }
}

/// The pod with constraints from the list, if anything selects it (`buildDefaultConstraints`).
pub(super) fn with_list(cluster: &Cluster, pod: &PodSpec, list: &[DefaultConstraint]) -> PodSpec {
    let selector: Selector = cluster.selectors().of(pod);
    let mut pod = pod.clone();
    if selector.is_everything() {
        return pod;
    }
    for c in list {
        let constraint = SpreadConstraint {
            max_skew: c.max_skew,
            topology_key: c.topology_key.clone(),
            selector: selector.clone(),
            min_domains: c.min_domains,
            honor_affinity: c.honor_affinity,
            honor_taints: c.honor_taints,
        };
        if c.hard { &mut pod.spread_hard } else { &mut pod.spread_soft }.push(constraint);
    }
    pod
}
