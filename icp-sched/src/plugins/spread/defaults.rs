//! The constraints of pods that have none of their own.

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
