//! VolumeRestrictions, NodeVolumeLimits, VolumeBinding and VolumeZone: where the volumes of a pod can be.

mod binding;
mod limits;
mod restrictions;
mod zone;

use icp_core::client::ObjectKey;

pub use binding::{Preparation, VolumeBinding, preparations};
pub use limits::NodeVolumeLimits;
pub use restrictions::VolumeRestrictions;
pub use zone::VolumeZone;

use crate::model::{PodSpec, VolumeSource};

/// The claims that a pod uses.
fn claims(pod: &PodSpec) -> impl Iterator<Item = ObjectKey> {
    pod.volumes.iter().filter_map(|v| match v {
        VolumeSource::Claim { name, .. } => Some(ObjectKey::new(&pod.namespace, name)),
        _ => None,
    })
}

#[cfg(test)]
mod tests;
