//! VolumeZone: volumes that are in a zone.

use alloc::boxed::Box;
use alloc::vec::Vec;

use super::claims;
use crate::cache::NodeId;
use crate::framework::{Cycle, FilterPlan, Kept, Part, Plugin, Rejected};
use crate::model::Pod;
use crate::plugins::hints;
use crate::queue::Happened;

const REASON: &str = "node(s) had no available volume zone";
/// The labels of zones and regions, with their names of before.
const LABELS: [(&str, &str); 4] = [
    ("topology.kubernetes.io/zone", "failure-domain.beta.kubernetes.io/zone"),
    ("topology.kubernetes.io/region", "failure-domain.beta.kubernetes.io/region"),
    ("failure-domain.beta.kubernetes.io/zone", "topology.kubernetes.io/zone"),
    ("failure-domain.beta.kubernetes.io/region", "topology.kubernetes.io/region"),
];

/// Rejects nodes that are not in the zone and region of the pod's volumes. A node without such labels is in all.
#[derive(Clone, Copy, Debug, Default)]
pub struct VolumeZone;

impl Plugin for VolumeZone {
    fn name(&self) -> &'static str {
        "VolumeZone"
    }

    fn kept(&self) -> Option<Kept> {
        Some(Kept(Part::OnTop))
    }

    fn hint(&self, pod: &Pod, happened: &Happened<'_>) -> bool {
        hints::own_claim(pod, happened)
    }

    fn filter<'a>(&'a self, cycle: Cycle<'a>) -> FilterPlan<'a> {
        let storage = cycle.cluster.storage();
        let mut wanted: Vec<(&str, &str, &str)> = Vec::new();
        for claim in claims(cycle.pod).filter_map(|key| storage.claims.get(&key)) {
            let Some(volume) = storage.volumes.get(&claim.volume) else { continue };
            for (label, other) in LABELS {
                wanted.extend(volume.labels.get(label).map(|zones| (label, other, zones.as_str())));
            }
        }
        if wanted.is_empty() {
            return FilterPlan::Skip;
        }
        FilterPlan::Each(Box::new(move |id: NodeId| {
            let labels = &cycle.cluster.node(id)?.labels;
            if !LABELS.iter().any(|(label, _)| labels.contains_key(*label)) {
                return None;
            }
            // A volume in several zones names them with two underscores between.
            let there = |(label, other, zones): &(&str, &str, &str)| {
                let own = labels.get(*label).or_else(|| labels.get(*other));
                own.is_some_and(|own| zones.split("__").any(|z| z == own))
            };
            (!wanted.iter().all(there)).then(|| Rejected::unresolvable(REASON))
        }))
    }
}
