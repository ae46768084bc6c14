//! ImageLocality: nodes that hold the pod's images.

use alloc::vec::Vec;

use crate::cache::{Cluster, NodeId};
use crate::framework::{Cycle, Kept, Part, Plugin, SCORE_MAX};
use crate::model::PodSpec;

/// Below so many bytes of images a node gets no points.
const MIN_BYTES: i64 = 23 << 20;
/// So many bytes for each container give all points.
const MAX_BYTES_PER_CONTAINER: i64 = 1000 << 20;

/// Prefers nodes that hold much of the pod's images, counting an image less if few nodes hold it, so that pods do
/// not crowd on one node.
#[derive(Clone, Copy, Debug, Default)]
pub struct ImageLocality;

/// The points of a node.
pub(crate) fn points(cluster: &Cluster, pod: &PodSpec, id: NodeId) -> i64 {
    let nodes = cluster.node_count() as f64;
    let scaled = |name| {
        let (bytes, holders) = cluster.images().on(id, name)?;
        Some((bytes as f64 * (holders as f64 / nodes)) as i64)
    };
    let sum = pod.images.iter().filter_map(|i| scaled(i)).fold(0, i64::saturating_add);
    let containers = i64::try_from(pod.images.len()).unwrap_or(i64::MAX);
    let max = MAX_BYTES_PER_CONTAINER.saturating_mul(containers);
    let sum = if sum < MIN_BYTES { MIN_BYTES } else { sum.min(max) };
    let range = max - MIN_BYTES;
    if range <= 0 { 0 } else { SCORE_MAX.saturating_mul(sum - MIN_BYTES) / range }
}

impl Plugin for ImageLocality {
    fn name(&self) -> &'static str {
        "ImageLocality"
    }

    fn kept(&self) -> Option<Kept> {
        Some(Kept(Part::Usual))
    }

    fn score(&self, cycle: &Cycle<'_>, feasible: &[NodeId]) -> Option<Vec<i64>> {
        Some(feasible.iter().map(|id| points(cycle.cluster, cycle.pod, *id)).collect())
    }
}
