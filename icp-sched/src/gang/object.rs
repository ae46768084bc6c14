//! What API objects say of gangs.

use icp_core::api::Object;
use icp_core::client::ObjectKey;

/// The PodGroup that a pod belongs to (`spec.schedulingGroup.podGroupName`).
#[must_use]
pub fn group_of(pod: &Object) -> Option<ObjectKey> {
    let name = pod.str_at("/spec/schedulingGroup/podGroupName");
    (!name.is_empty()).then(|| ObjectKey::new(&pod.metadata.namespace, name))
}

/// How many pods of a PodGroup have to be placed at once (`spec.schedulingPolicy.gang.minCount`); `None` if the group
/// has another policy, or a number that is not positive.
#[must_use]
pub fn min_count(group: &Object) -> Option<usize> {
    let count = group.at("/spec/schedulingPolicy/gang/minCount")?.as_u64()?;
    usize::try_from(count).ok().filter(|n| *n > 0)
}
