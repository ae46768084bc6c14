//! NodeVolumeLimits: how many volumes of a driver a node takes.

use alloc::boxed::Box;
use alloc::collections::{BTreeMap, BTreeSet};
use alloc::format;
use alloc::string::String;

use super::claims;
use crate::cache::{Cluster, NodeId};
use crate::framework::{Cycle, FilterPlan, Kept, Part, Plugin, Rejected};
use crate::model::{Pod, PodSpec, VolumeSource};
use crate::plugins::hints;
use crate::queue::Happened;

const REASON: &str = "node(s) exceed max volume count";

/// Rejects nodes on which a driver would have more volumes than its CSINode allows.
#[derive(Clone, Copy, Debug, Default)]
pub struct NodeVolumeLimits;

/// The volumes of a class of pods by driver; one that is shared counts once.
fn volumes(cluster: &Cluster, pod: &PodSpec, found: &mut BTreeMap<String, BTreeSet<String>>) {
    let storage = cluster.storage();
    for key in claims(pod) {
        let Some(claim) = storage.claims.get(&key) else { continue };
        let (driver, handle) = match storage.volumes.get(&claim.volume).and_then(|v| v.csi.clone()) {
            Some(csi) => csi,
            None => match storage.classes.get(&claim.class) {
                // What is not made yet will be a volume of its own.
                Some(class) => (class.provisioner.clone(), format!("{key}")),
                None => continue,
            },
        };
        found.entry(driver).or_default().insert(handle);
    }
}

/// Inline volumes are each pod's own.
fn inline(pod: &PodSpec, driver: &str) -> usize {
    pod.volumes.iter().filter(|v| matches!(v, VolumeSource::Csi { driver: d } if d == driver)).count()
}

impl Plugin for NodeVolumeLimits {
    fn name(&self) -> &'static str {
        "NodeVolumeLimits"
    }

    fn kept(&self) -> Option<Kept> {
        Some(Kept(Part::OnTop))
    }

    fn hint(&self, pod: &Pod, happened: &Happened<'_>) -> bool {
        hints::volume_limits(pod, happened)
    }

    fn filter<'a>(&'a self, cycle: Cycle<'a>) -> FilterPlan<'a> {
        let cluster = cycle.cluster;
        if cycle.pod.volumes.is_empty() || cluster.storage().limits.is_empty() {
            return FilterPlan::Skip;
        }
        let mut wanted = BTreeMap::new();
        volumes(cluster, cycle.pod, &mut wanted);
        for v in &cycle.pod.volumes {
            if let VolumeSource::Csi { driver } = v {
                wanted.entry(driver.clone()).or_default();
            }
        }
        FilterPlan::Each(Box::new(move |id: NodeId| {
            let node = &cluster.node(id)?.name;
            let mut there: BTreeMap<String, BTreeSet<String>> = BTreeMap::new();
            for (pod, _) in cluster.classes_on(id.row()) {
                volumes(cluster, pod, &mut there);
            }
            let exceeds = wanted.iter().any(|(driver, handles)| {
                let Some(limit) = cluster.storage().limits.get(&(node.clone(), driver.clone())) else {
                    return false;
                };
                let used = there.get(driver);
                let own: usize =
                    cluster.classes_on(id.row()).map(|(p, n)| inline(p, driver) * n as usize).sum();
                let new = handles.iter().filter(|h| used.is_none_or(|u| !u.contains(*h))).count()
                    + inline(cycle.pod, driver);
                let all = used.map_or(0, BTreeSet::len) + own + new;
                new > 0 && i64::try_from(all).unwrap_or(i64::MAX) > *limit
            });
            exceeds.then(|| Rejected::unschedulable(REASON))
        }))
    }
}
