//! VolumeBinding: claims with volumes that the node reaches, or that can be found or made for it.

use alloc::boxed::Box;
use alloc::collections::BTreeSet;
use alloc::format;
use alloc::string::String;
use alloc::vec::Vec;

use icp_core::client::ObjectKey;

use super::claims;
use crate::cache::{Cluster, NodeId};
use crate::framework::{Cycle, FilterPlan, Plugin, Rejected};
use crate::model::{Claim, Node, NodeTerm, PodSpec, Volume, VolumeSource};

const REASON_CONFLICT: &str = "node(s) had volume node affinity conflict";
const REASON_NONE: &str = "node(s) didn't find available persistent volumes to bind";
const REASON_MISSING: &str = "node(s) unavailable due to one or more pvc(s) bound to non-existent pv(s)";
const REASON_IMMEDIATE: &str = "pod has unbound immediate PersistentVolumeClaims";
/// The provisioner of classes whose volumes are made by hand.
const NO_PROVISIONER: &str = "kubernetes.io/no-provisioner";

/// Rejects nodes that do not reach the pod's volumes, or for which no volume can be found or made; and all nodes while a
/// claim is missing, going, or waits for somebody else to bind it.
#[derive(Clone, Copy, Debug, Default)]
pub struct VolumeBinding;

/// What must be done before the pod is bound.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Preparation {
    /// The volume is kept for the claim.
    Keep {
        /// The volume.
        volume: String,
        /// The claim.
        claim: ObjectKey,
    },
    /// A volume is made for the claim, where the node reaches it.
    Provision {
        /// The claim.
        claim: ObjectKey,
    },
}

fn reaches(terms: Option<&Vec<NodeTerm>>, node: &Node) -> bool {
    terms.is_none_or(|terms| terms.iter().any(|t| t.matches(&node.name, &node.labels)))
}

fn serves(volume: &Volume, claim: &Claim, key: &ObjectKey, node: &Node) -> bool {
    volume.claim.as_ref().is_none_or(|kept| kept == key)
        && volume.available
        && volume.class == claim.class
        && volume.volume_mode == claim.volume_mode
        && volume.bytes >= claim.bytes
        && claim.modes.is_subset(&volume.modes)
        && claim.selector.as_ref().is_none_or(|s| s.matches(&volume.labels))
        && reaches(volume.nodes.as_ref(), node)
}

/// What must be done so that the pod's claims are bound on a node; why not, if nothing helps.
///
/// # Errors
/// If the node does not reach a volume, or none can be found or made.
pub fn preparations(cluster: &Cluster, pod: &PodSpec, node: &Node) -> Result<Vec<Preparation>, Rejected> {
    let storage = cluster.storage();
    let (mut todo, mut taken): (Vec<Preparation>, BTreeSet<&String>) = (Vec::new(), BTreeSet::new());
    let mut waiting: Vec<(ObjectKey, &Claim)> = Vec::new();
    for key in claims(pod) {
        let Some(claim) = storage.claims.get(&key) else { continue };
        if !claim.is_bound() {
            waiting.push((key, claim));
            continue;
        }
        match storage.volumes.get(&claim.volume) {
            None => return Err(Rejected::unresolvable(REASON_MISSING)),
            Some(v) if !reaches(v.nodes.as_ref(), node) => {
                return Err(Rejected::unresolvable(REASON_CONFLICT));
            }
            Some(_) => {}
        }
    }
    // The smallest claim chooses first, and takes the smallest volume that serves it.
    waiting.sort_by_key(|(_, claim)| claim.bytes);
    for (key, claim) in waiting {
        let free = storage.volumes.iter().filter(|(name, _)| !taken.contains(name));
        let mut fit: Vec<(&String, &Volume)> = free.filter(|(_, v)| serves(v, claim, &key, node)).collect();
        fit.sort_by_key(|(name, v)| (v.claim.is_none(), v.bytes, *name));
        let class = storage.classes.get(&claim.class);
        if let Some((name, _)) = fit.first() {
            taken.insert(name);
            todo.push(Preparation::Keep { volume: (*name).clone(), claim: key });
        } else if class.is_some_and(|c| {
            !c.provisioner.is_empty()
                && c.provisioner != NO_PROVISIONER
                && reaches(c.topologies.as_ref(), node)
        }) && (claim.selected_node.is_empty() || claim.selected_node == node.name)
        {
            todo.push(Preparation::Provision { claim: key });
        } else {
            return Err(Rejected::unschedulable(REASON_NONE));
        }
    }
    Ok(todo)
}

/// Why no node will do (PreFilter).
fn outright(cluster: &Cluster, pod: &PodSpec) -> Option<Rejected> {
    let storage = cluster.storage();
    for volume in &pod.volumes {
        let VolumeSource::Claim { name, ephemeral } = volume else { continue };
        let Some(claim) = storage.claims.get(&ObjectKey::new(&pod.namespace, name)) else {
            let reason = match ephemeral {
                true => format!(
                    "waiting for ephemeral volume controller to create the persistentvolumeclaim \"{name}\""
                ),
                false => format!("persistentvolumeclaim \"{name}\" not found"),
            };
            return Some(Rejected::unresolvable(reason));
        };
        if claim.lost {
            let volume = &claim.volume;
            let reason = format!(
                "persistentvolumeclaim \"{name}\" bound to non-existent persistentvolume \"{volume}\""
            );
            return Some(Rejected::unresolvable(reason));
        }
        if claim.terminating {
            return Some(Rejected::unresolvable(format!(
                "persistentvolumeclaim \"{name}\" is being deleted"
            )));
        }
        let waits = storage.classes.get(&claim.class).is_some_and(|c| c.waits);
        if !claim.is_bound() && (!waits || !claim.volume.is_empty()) {
            return Some(Rejected::unresolvable(REASON_IMMEDIATE));
        }
    }
    None
}

impl Plugin for VolumeBinding {
    fn name(&self) -> &'static str {
        "VolumeBinding"
    }

    fn filter<'a>(&'a self, cycle: Cycle<'a>) -> FilterPlan<'a> {
        if claims(cycle.pod).next().is_none() {
            return FilterPlan::Skip;
        }
        if let Some(rejected) = outright(cycle.cluster, cycle.pod) {
            return FilterPlan::Reject(rejected);
        }
        FilterPlan::Each(Box::new(move |id: NodeId| {
            preparations(cycle.cluster, cycle.pod, cycle.cluster.node(id)?).err()
        }))
    }
}
