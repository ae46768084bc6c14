//! VolumeRestrictions: disks that one node, and claims that one pod, may use.

use alloc::boxed::Box;
use alloc::vec::Vec;

use icp_core::client::ObjectKey;

use super::claims;
use crate::cache::NodeId;
use crate::framework::{Cycle, FilterPlan, Kept, Part, Plugin, Rejected};
use crate::model::{Pod, VolumeSource};
use crate::plugins::hints;
use crate::queue::Happened;

const REASON_DISK: &str = "node(s) had no available disk";
const REASON_SINGLE_POD: &str =
    "node has pod using PersistentVolumeClaim with the same name and ReadWriteOncePod access mode";

/// Rejects nodes on which another pod writes a disk that the pod wants, and all nodes while another pod uses a
/// ReadWriteOncePod claim of the pod.
#[derive(Clone, Copy, Debug, Default)]
pub struct VolumeRestrictions;

/// Whether two uses of disks exclude each other on one node.
fn excludes(a: &VolumeSource, b: &VolumeSource) -> bool {
    match (a, b) {
        (
            VolumeSource::Exclusive { id, read_only, shares_reads },
            VolumeSource::Exclusive { id: other, read_only: other_reads, .. },
        ) => id == other && !(*shares_reads && *read_only && *other_reads),
        _ => false,
    }
}

impl Plugin for VolumeRestrictions {
    fn name(&self) -> &'static str {
        "VolumeRestrictions"
    }

    fn kept(&self) -> Option<Kept> {
        Some(Kept(Part::OnTop))
    }

    fn hint(&self, pod: &Pod, happened: &Happened<'_>) -> bool {
        hints::restrictions(pod, happened, excludes)
    }

    fn filter<'a>(&'a self, cycle: Cycle<'a>) -> FilterPlan<'a> {
        let cluster = cycle.cluster;
        let single = |key: &ObjectKey| {
            cluster.storage().claims.get(key).is_some_and(|c| c.modes.contains("ReadWriteOncePod"))
        };
        let single: Vec<ObjectKey> = claims(cycle.pod).filter(single).collect();
        let disks = cycle.pod.volumes.iter().any(|v| matches!(v, VolumeSource::Exclusive { .. }));
        if single.is_empty() && !disks {
            return FilterPlan::Skip;
        }
        let in_use = cluster.nodes().any(|(id, _)| {
            cluster.classes_on(id.row()).any(|(p, _)| claims(p).any(|key| single.contains(&key)))
        });
        FilterPlan::Each(Box::new(move |id: NodeId| {
            let wanted = &cycle.pod.volumes;
            let taken = cluster
                .classes_on(id.row())
                .any(|(p, _)| p.volumes.iter().any(|v| wanted.iter().any(|w| excludes(w, v))));
            if taken {
                return Some(Rejected::unschedulable(REASON_DISK));
            }
            in_use.then(|| Rejected::unschedulable(REASON_SINGLE_POD))
        }))
    }
}
