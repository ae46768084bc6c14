//! VolumeBinding: claims with volumes that the node reaches, or that can be found or made for it.

use alloc::boxed::Box;
use alloc::collections::{BTreeMap, BTreeSet};
use alloc::format;
use alloc::string::String;
use alloc::vec::Vec;

use icp_core::client::ObjectKey;

use super::claims;
use crate::cache::{Cluster, NodeId, Storage};
use crate::framework::{Cycle, FilterPlan, Kept, Part, Plugin, Rejected};
use crate::model::{
    Claim, Node, NodeTerm, Pod, PodSpec, StorageCapacity, StorageClass, Volume, VolumeSource,
};
use crate::plugins::Shape;
use crate::plugins::hints;
use crate::queue::Happened;

const REASON_CONFLICT: &str = "node(s) had volume node affinity conflict";
const REASON_NONE: &str = "node(s) didn't find available persistent volumes to bind";
const REASON_MISSING: &str = "node(s) unavailable due to one or more pvc(s) bound to non-existent pv(s)";
const REASON_SPACE: &str = "node(s) did not have enough free storage";
const REASON_IMMEDIATE: &str = "pod has unbound immediate PersistentVolumeClaims";
/// The provisioner of classes whose volumes are made by hand.
const NO_PROVISIONER: &str = "kubernetes.io/no-provisioner";

/// Rejects nodes that do not reach the pod's volumes, or for which no volume can be found or made; and all nodes while a
/// claim is missing, going, or waits for somebody else to bind it. A driver that publishes how much storage it has
/// (CSIStorageCapacity) rejects nodes that reach none with enough room.
#[derive(Clone, Debug, Default)]
pub struct VolumeBinding {
    shape: Option<Shape>,
}

impl VolumeBinding {
    /// One that prefers nodes by a function of how much of their storage the pod's claims would use
    /// (`StorageCapacityScoring`).
    #[must_use]
    pub fn scoring(shape: Shape) -> Self {
        Self { shape: Some(shape) }
    }
}

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

/// The storage of a class that a node reaches and that has room for a claim. `Ok(None)` if nobody keeps count of the
/// class's storage.
fn capacity<'s>(
    storage: &'s Storage,
    claim: &Claim,
    class: &StorageClass,
    node: &Node,
) -> Result<Option<&'s StorageCapacity>, Rejected> {
    if claim.bytes <= 0 || !storage.capacity_drivers.contains(&class.provisioner) {
        return Ok(None);
    }
    let enough = |c: &&StorageCapacity| {
        c.class == claim.class
            && c.largest().is_some_and(|bytes| bytes >= claim.bytes)
            && c.nodes.as_ref().is_some_and(|s| s.matches(&node.labels))
    };
    match storage.capacities.values().find(enough) {
        Some(c) => Ok(Some(c)),
        None => Err(Rejected::unschedulable(REASON_SPACE)),
    }
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
        if let Some((name, _)) = fit.first() {
            taken.insert(name);
            todo.push(Preparation::Keep { volume: (*name).clone(), claim: key });
            continue;
        }
        let makes = |c: &&StorageClass| {
            !c.provisioner.is_empty()
                && c.provisioner != NO_PROVISIONER
                && reaches(c.topologies.as_ref(), node)
                && (claim.selected_node.is_empty() || claim.selected_node == node.name)
        };
        let Some(class) = storage.classes.get(&claim.class).filter(makes) else {
            return Err(Rejected::unschedulable(REASON_NONE));
        };
        capacity(storage, claim, class, node)?;
        todo.push(Preparation::Provision { claim: key });
    }
    Ok(todo)
}

/// Where the volumes can be reached that are not reached everywhere, if all claims are bound to volumes that are there:
/// then [`preparations`] needs no other look at them.
fn all_bound<'s>(cluster: &'s Cluster, pod: &PodSpec) -> Option<Vec<&'s Vec<NodeTerm>>> {
    let storage = cluster.storage();
    let mut places = Vec::new();
    for claim in claims(pod).filter_map(|key| storage.claims.get(&key)) {
        if !claim.is_bound() {
            return None;
        }
        places.extend(storage.volumes.get(&claim.volume)?.nodes.as_ref());
    }
    Some(places)
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

    fn kept(&self) -> Option<Kept> {
        Some(Kept(Part::OnTop))
    }

    fn hint(&self, pod: &Pod, happened: &Happened<'_>) -> bool {
        hints::own_claim(pod, happened)
    }

    fn filter<'a>(&'a self, cycle: Cycle<'a>) -> FilterPlan<'a> {
        if claims(cycle.pod).next().is_none() {
            return FilterPlan::Skip;
        }
        if let Some(rejected) = outright(cycle.cluster, cycle.pod) {
            return FilterPlan::Reject(rejected);
        }
        if let Some(bound) = all_bound(cycle.cluster, cycle.pod) {
            if bound.is_empty() {
                return FilterPlan::Skip;
            }
            return FilterPlan::Each(Box::new(move |id: NodeId| {
                let node = cycle.cluster.node(id)?;
                let reached = bound.iter().all(|terms| reaches(Some(terms), node));
                (!reached).then(|| Rejected::unresolvable(REASON_CONFLICT))
            }));
        }
        FilterPlan::Each(Box::new(move |id: NodeId| {
            preparations(cycle.cluster, cycle.pod, cycle.cluster.node(id)?).err()
        }))
    }

    fn score(&self, cycle: &Cycle<'_>, feasible: &[NodeId]) -> Option<Vec<i64>> {
        let shape = self.shape.as_ref()?;
        let storage = cycle.cluster.storage();
        let mut unbound = claims(cycle.pod).filter_map(|key| storage.claims.get(&key));
        if unbound.all(Claim::is_bound) {
            return None;
        }
        let points = |id: &NodeId| {
            let node = cycle.cluster.node(*id)?;
            let todo = preparations(cycle.cluster, cycle.pod, node).ok()?;
            Some(usage_points(storage, &todo, node, shape))
        };
        Some(feasible.iter().map(|id| points(id).unwrap_or(0)).collect())
    }
}

/// The mean over storage classes of a shape of how much is used: of the volumes that are kept, or else of the storage in
/// which volumes are made.
fn usage_points(storage: &Storage, todo: &[Preparation], node: &Node, shape: &Shape) -> i64 {
    let mut kept: BTreeMap<&str, (i64, i64)> = BTreeMap::new();
    let mut made: BTreeMap<&str, (i64, i64)> = BTreeMap::new();
    for preparation in todo {
        let (Preparation::Keep { claim, .. } | Preparation::Provision { claim }) = preparation;
        let Some(claim) = storage.claims.get(claim) else { continue };
        match preparation {
            Preparation::Keep { volume, .. } => {
                let has = storage.volumes.get(volume).map_or(0, |v| v.bytes);
                let (asked, all) = kept.entry(&claim.class).or_default();
                *asked = asked.saturating_add(claim.bytes);
                *all = all.saturating_add(has);
            }
            Preparation::Provision { .. } => {
                let Some(class) = storage.classes.get(&claim.class) else { continue };
                let Ok(Some(room)) = capacity(storage, claim, class, node) else { continue };
                let (asked, all) = made.entry(&claim.class).or_default();
                *asked = asked.saturating_add(claim.bytes);
                // Claims of one class share its storage.
                *all = room.bytes.unwrap_or(0);
            }
        }
    }
    let counted = if kept.is_empty() { made } else { kept };
    let points: Vec<i64> = counted.values().map(|(asked, all)| shape.of_use(*asked, *all)).collect();
    if points.is_empty() {
        return 0;
    }
    libm::round(points.iter().sum::<i64>() as f64 / points.len() as f64) as i64
}
