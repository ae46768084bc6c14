//! Whether something that happened may give a pod another chance that one of the default plugins rejected
//! (`QueueingHintFn`). A plugin says no only if it takes no node now that it did not take before; where upstream's function
//! says no to something that helps after all, it is not followed.

use crate::model::{AffinityTerm, Node, Pod, PodSpec, VolumeSource};
use crate::plugins::{node_affinity, spread, taints};
use crate::queue::{Changed, ClusterEvent, Happened};

/// A node that came or changed: as it was, if it was there, and as it is.
const fn node<'a>(happened: &Happened<'a>) -> Option<(Option<&'a Node>, &'a Node)> {
    match happened.what {
        Changed::Node { old, new: Some(new) } => Some((old, new)),
        _ => None,
    }
}

/// A pod that a node lost: as it was. One that still leaves is there.
const fn gone<'a>(happened: &Happened<'a>) -> Option<Option<&'a Pod>> {
    match (happened.event, happened.what) {
        (ClusterEvent::PodRemoved, Changed::Pod { old: Some(old), new: None }) => Some(Some(old)),
        (ClusterEvent::PodRemoved, Changed::Pod { new: Some(_), .. }) => Some(None),
        _ => None,
    }
}

/// Whether the node is one that was in the way, and is not any more.
fn unlocked(happened: &Happened<'_>, lets: impl Fn(&Node) -> bool) -> bool {
    node(happened).is_none_or(|(old, new)| lets(new) && !old.is_some_and(lets))
}

pub(super) fn unschedulable(happened: &Happened<'_>) -> bool {
    unlocked(happened, |node| !node.unschedulable)
}

pub(super) fn taint_toleration(pod: &Pod, happened: &Happened<'_>) -> bool {
    unlocked(happened, |node| taints::repelling(&pod.spec, node).is_none())
}

pub(super) fn node_affinity(pod: &Pod, happened: &Happened<'_>, enforces: impl Fn(&Node) -> bool) -> bool {
    unlocked(happened, |node| enforces(node) && node_affinity::allows(&pod.spec, node))
}

pub(super) fn ports(pod: &Pod, happened: &Happened<'_>) -> bool {
    let shared = |old: &Pod| {
        old.spec.host_ports.iter().any(|used| pod.spec.host_ports.iter().any(|p| p.conflicts(used)))
    };
    gone(happened).is_none_or(|old| old.is_some_and(shared))
}

/// `spec` is what the pod asks for, without what is not looked at.
pub(super) fn fit(spec: &PodSpec, happened: &Happened<'_>) -> bool {
    let asks = &spec.requests;
    if let Some((old, new)) = node(happened) {
        let have = &new.allocatable;
        let amounts =
            |name: &str, list: &crate::model::Resources| list.scalars.get(name).copied().unwrap_or(0);
        let holds = |asked: i64, have: i64| asked <= 0 || asked <= have;
        let scalars = || asks.scalars.iter().filter(|(_, asked)| **asked > 0);
        let fits = new.pods_max > 0
            && holds(asks.cpu, have.cpu)
            && holds(asks.memory, have.memory)
            && holds(asks.ephemeral, have.ephemeral)
            && scalars().all(|(name, asked)| *asked <= amounts(name, have));
        let Some(old) = old else { return fits };
        let had = &old.allocatable;
        let more = |asked: i64, had: i64, have: i64| asked > 0 && have > had;
        let grew = new.pods_max > old.pods_max
            || more(asks.cpu, had.cpu, have.cpu)
            || more(asks.memory, had.memory, have.memory)
            || more(asks.ephemeral, had.ephemeral, have.ephemeral)
            || scalars().any(|(name, _)| amounts(name, have) > amounts(name, had));
        return fits && grew;
    }
    match (happened.event, happened.what) {
        (ClusterEvent::PodRemoved, _) => gone(happened).is_none_or(|old| old.is_some()),
        (ClusterEvent::PodChanged, Changed::Pod { old: Some(old), new: Some(new) }) => {
            let (before, after) = (&old.spec.requests, &new.spec.requests);
            let less = |asked: i64, before: i64, after: i64| asked > 0 && after < before;
            let amount =
                |name: &str, list: &crate::model::Resources| list.scalars.get(name).copied().unwrap_or(0);
            less(asks.cpu, before.cpu, after.cpu)
                || less(asks.memory, before.memory, after.memory)
                || less(asks.ephemeral, before.ephemeral, after.ephemeral)
                || asks
                    .scalars
                    .iter()
                    .any(|(name, asked)| less(*asked, amount(name, before), amount(name, after)))
        }
        _ => true,
    }
}

pub(super) fn features(happened: &Happened<'_>) -> bool {
    unlocked_or_changed(happened, |old, new| old.features != new.features)
}

fn unlocked_or_changed(happened: &Happened<'_>, changed: impl Fn(&Node, &Node) -> bool) -> bool {
    node(happened).is_none_or(|(old, new)| old.is_none_or(|old| changed(old, new)))
}

/// Whether a claim is one of the pod's.
pub(super) fn own_claim(pod: &Pod, happened: &Happened<'_>) -> bool {
    match happened.what {
        Changed::Claim(key) => {
            let named = |v: &VolumeSource| matches!(v, VolumeSource::Claim { name, .. } if *name == key.name);
            key.namespace == pod.key.namespace && pod.spec.volumes.iter().any(named)
        }
        _ => true,
    }
}

pub(super) fn restrictions(
    pod: &Pod,
    happened: &Happened<'_>,
    excludes: impl Fn(&VolumeSource, &VolumeSource) -> bool,
) -> bool {
    let in_the_way = |old: &Pod| {
        let same = old.key.namespace == pod.key.namespace;
        old.spec.volumes.iter().any(|used| {
            pod.spec.volumes.iter().any(|wanted| {
                let claim = |v: &VolumeSource| match v {
                    VolumeSource::Claim { name, .. } => Some(name.clone()),
                    _ => None,
                };
                excludes(wanted, used)
                    || (same && claim(wanted).is_some_and(|name| claim(used) == Some(name)))
            })
        })
    };
    gone(happened).is_none_or(|old| old.is_some_and(in_the_way)) && own_claim(pod, happened)
}

pub(super) fn volume_limits(pod: &Pod, happened: &Happened<'_>) -> bool {
    gone(happened).is_none_or(|old| old.is_some_and(|old| !old.spec.volumes.is_empty()))
        && own_claim(pod, happened)
}

/// `spec` has the constraints that the pod is held to.
pub(super) fn topology_spread(spec: &PodSpec, happened: &Happened<'_>) -> bool {
    let constraints = &spec.spread_hard;
    let counted = |other: &PodSpec| constraints.iter().any(|c| spread::counts(spec, c, other));
    match happened.what {
        Changed::Node { old, new } => {
            let keys = |node: &Node| constraints.iter().all(|c| node.labels.contains_key(&c.topology_key));
            match (old.filter(|n| keys(n)), new.filter(|n| keys(n))) {
                (None, None) => false,
                (Some(old), Some(new)) => {
                    let included = |c, node| spread::includes(spec, c, node);
                    constraints.iter().any(|c| {
                        old.labels.get(&c.topology_key) != new.labels.get(&c.topology_key)
                            || included(c, old) != included(c, new)
                    })
                }
                _ => true,
            }
        }
        Changed::Pod { old: Some(old), new: Some(new) } if happened.event != ClusterEvent::PodBound => {
            let (old, new) = (&old.spec, &new.spec);
            constraints.iter().any(|c| spread::counts(spec, c, old) != spread::counts(spec, c, new))
        }
        Changed::Pod { new: Some(other), .. } | Changed::Pod { old: Some(other), new: None } => {
            counted(&other.spec)
        }
        _ => true,
    }
}

pub(super) fn inter_pod_affinity(pod: &Pod, happened: &Happened<'_>) -> bool {
    let cluster = happened.cluster;
    let meets = |term: &AffinityTerm, of: &PodSpec| {
        term.matches(&of.namespace, cluster.namespace(&of.namespace), &of.labels)
    };
    let wanted =
        |other: &PodSpec| !pod.spec.affinity.is_empty() && pod.spec.affinity.iter().all(|t| meets(t, other));
    let repelled = |other: &PodSpec| {
        pod.spec.anti_affinity.iter().any(|t| meets(t, other))
            || other.anti_affinity.iter().any(|t| meets(t, &pod.spec))
    };
    match happened.what {
        // A node without the places that the pod asks for will not do; whom others repel may go to any other.
        Changed::Node { old: None, new: Some(new) } => {
            pod.spec.affinity.iter().all(|t| new.labels.contains_key(&t.topology_key))
        }
        Changed::Pod { old: None, new: Some(new) } => wanted(&new.spec),
        // The last one of a group gone, the pod may be the first.
        Changed::Pod { old: Some(old), new: None } => repelled(&old.spec) || wanted(&old.spec),
        Changed::Pod { old: Some(old), new: Some(new) } => {
            let (old, new) = (&old.spec, &new.spec);
            let kept = happened.event == ClusterEvent::PodBound;
            (kept && wanted(new)) || wanted(old) != wanted(new) || (repelled(old) && old != new)
        }
        _ => true,
    }
}
