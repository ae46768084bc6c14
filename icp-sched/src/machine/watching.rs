//! What is followed, and what is seen of it.

use alloc::collections::BTreeMap;
use alloc::string::{String, ToString};
use alloc::sync::Arc;
use alloc::vec::Vec;

use icp_core::api::labels::Selector;
use icp_core::api::{Gvr, Object, resources};
use icp_core::base::Time;
use icp_core::client::{Delta, EventType, Informer, ListOptions, ObjectKey};
use serde::Deserialize as _;
use serde_json::Value;

use super::driver::SchedulerMachine;
use super::{Effect, requests};
use crate::model::{Claim, Node, Pod, StorageCapacity, StorageClass, Volume};
use crate::queue::{Changed, ClusterEvent};

/// What must be listed before the first decision.
const NEEDS: [Gvr; 3] = [resources::NODES, resources::PODS, resources::NAMESPACES];
/// What is followed as well: things that select pods, for default spreading.
const SELECTORS: [(Gvr, &str); 4] = [
    (resources::SERVICES, "Service"),
    (resources::REPLICATION_CONTROLLERS, "ReplicationController"),
    (resources::REPLICA_SETS, "ReplicaSet"),
    (resources::STATEFUL_SETS, "StatefulSet"),
];
/// And storage.
const STORAGE: [Gvr; 6] = [
    resources::PERSISTENT_VOLUME_CLAIMS,
    resources::PERSISTENT_VOLUMES,
    resources::STORAGE_CLASSES,
    Gvr::new("storage.k8s.io", "v1", "csinodes"),
    Gvr::new("storage.k8s.io", "v1", "csidrivers"),
    Gvr::new("storage.k8s.io", "v1", "csistoragecapacities"),
];

impl SchedulerMachine {
    /// Whether what decisions need was listed completely.
    #[must_use]
    pub fn synced(&self) -> bool {
        // All are followed or none.
        let known = |(gvr, i): (&Gvr, &Informer)| i.synced() || (i.missing() && !NEEDS.contains(gvr));
        !self.informers.is_empty() && self.informers.iter().all(known)
    }

    pub(super) fn follow_all(&mut self, now: Time, out: &mut Vec<Effect>) {
        for gvr in NEEDS
            .into_iter()
            .chain(SELECTORS.map(|(gvr, _)| gvr))
            .chain([resources::POD_DISRUPTION_BUDGETS, resources::POD_GROUPS])
            .chain(STORAGE)
        {
            let rng = self.rng.child("informers").child(&gvr.path(None));
            let mut informer = Informer::new(gvr.clone(), ListOptions::default()).with_rng(rng);
            informer.start(now, &mut self.ids, out);
            self.informer_of.insert(informer.block(), gvr.clone());
            self.informers.insert(gvr, informer);
        }
    }

    pub(super) fn on_delta(&mut self, now: Time, gvr: &Gvr, delta: &Delta, out: &mut Vec<Effect>) {
        match gvr.resource.as_ref() {
            "pods" => self.on_pod(now, delta, out),
            "nodes" => self.on_node(now, delta),
            "namespaces" => {
                let meta = &delta.object().metadata;
                let cluster = self.scheduler.cluster_mut();
                if matches!(delta, Delta::Deleted(_)) {
                    cluster.remove_namespace(&meta.name);
                } else if cluster.namespace(&meta.name) != Some(&meta.labels) {
                    cluster.set_namespace(&meta.name, meta.labels.clone());
                    self.happened(now, ClusterEvent::NamespaceChanged);
                }
            }
            "poddisruptionbudgets" => {
                let object = delta.object();
                let budget =
                    (!matches!(delta, Delta::Deleted(_))).then(|| requests::budget(object)).flatten();
                self.scheduler.set_budget(ObjectKey::of(object), budget);
            }
            "podgroups" => self.on_group(now, delta, out),
            "persistentvolumeclaims"
            | "persistentvolumes"
            | "storageclasses"
            | "csinodes"
            | "csidrivers"
            | "csistoragecapacities" => self.on_storage(now, gvr, delta, out),
            _ => self.on_selector(now, gvr, delta),
        }
    }

    fn on_storage(&mut self, now: Time, gvr: &Gvr, delta: &Delta, out: &mut Vec<Effect>) {
        let object = delta.object();
        let gone = matches!(delta, Delta::Deleted(_));
        let name = object.metadata.name.clone();
        let storage = self.scheduler.cluster_mut().storage_mut();
        match gvr.resource.as_ref() {
            "persistentvolumeclaims" => {
                let claim = Claim::from_object(object);
                let key = ObjectKey::of(object);
                if gone {
                    storage.claims.remove(&key)
                } else {
                    storage.claims.insert(key, claim)
                };
            }
            "persistentvolumes" => {
                let volume = Volume::from_object(object);
                if gone {
                    storage.volumes.remove(&name)
                } else {
                    storage.volumes.insert(name, volume)
                };
            }
            "storageclasses" => {
                let class = StorageClass::from_object(object);
                if gone {
                    storage.classes.remove(&name)
                } else {
                    storage.classes.insert(name, class)
                };
            }
            "csidrivers" => {
                let counts = object.at("/spec/storageCapacity").and_then(Value::as_bool) == Some(true);
                if counts && !gone {
                    storage.capacity_drivers.insert(name);
                } else {
                    storage.capacity_drivers.remove(&name);
                }
            }
            "csistoragecapacities" => {
                let key = ObjectKey::of(object);
                if gone {
                    storage.capacities.remove(&key);
                } else {
                    storage.capacities.insert(key, StorageCapacity::from_object(object));
                }
            }
            _ => {
                storage.limits.retain(|(node, _), _| *node != name);
                if !gone {
                    storage.limits.extend(requests::limits(object));
                }
            }
        }
        self.bind_prepared(now, out);
        let key = ObjectKey::of(object);
        let (event, what) = match gvr.resource.as_ref() {
            // What goes helps nobody, but limits.
            "csinodes" => (ClusterEvent::CsiNodeChanged, Changed::Unknown),
            "csidrivers" => (ClusterEvent::CsiDriverChanged, Changed::Unknown),
            _ if gone => return,
            "persistentvolumeclaims" => (ClusterEvent::ClaimChanged, Changed::Claim(&key)),
            "persistentvolumes" => (ClusterEvent::VolumeChanged, Changed::Unknown),
            "storageclasses" => (ClusterEvent::StorageClassChanged, Changed::Unknown),
            _ => (ClusterEvent::CapacityChanged, Changed::Unknown),
        };
        self.happened_to(now, event, what);
    }

    fn on_selector(&mut self, now: Time, gvr: &Gvr, delta: &Delta) {
        let Some((_, kind)) = SELECTORS.into_iter().find(|(g, _)| g == gvr) else { return };
        let object = delta.object();
        let meta = &object.metadata;
        let raw = object.at("/spec/selector").filter(|_| !matches!(delta, Delta::Deleted(_)));
        let pairs = raw.and_then(|v| BTreeMap::<String, String>::deserialize(v).ok());
        let cluster = self.scheduler.cluster_mut();
        let changed = match kind {
            "Service" => cluster.set_service(&meta.namespace, &meta.name, pairs),
            "ReplicationController" => {
                let selector = pairs.and_then(|p| Selector::from_map(&p).ok());
                cluster.set_controller(&meta.namespace, kind, &meta.name, selector)
            }
            _ => {
                let selector = raw.and_then(|v| Selector::from_label_selector(v).ok());
                cluster.set_controller(&meta.namespace, kind, &meta.name, selector)
            }
        };
        if changed {
            self.happened(now, ClusterEvent::SelectorChanged);
        }
    }

    fn on_node(&mut self, now: Time, delta: &Delta) {
        let object = delta.object();
        let name = &object.metadata.name;
        let old = self.scheduler.cluster().node_id(name).and_then(|id| self.scheduler.node(id)).cloned();
        // A node that cannot be read has no room for anything.
        let new = if matches!(delta, Delta::Deleted(_)) { None } else { Node::from_object(object).ok() };
        match (old, new) {
            (None, Some(node)) => {
                self.scheduler.cluster_mut().set_node(node.clone());
                let what = Changed::Node { old: None, new: Some(&node) };
                self.happened_to(now, ClusterEvent::NodeAdded, what);
            }
            (Some(old), Some(new)) if old != new => {
                let changed = [
                    (old.labels != new.labels, ClusterEvent::NodeLabels),
                    (
                        old.taints != new.taints || old.unschedulable != new.unschedulable,
                        ClusterEvent::NodeTaints,
                    ),
                    (
                        old.allocatable != new.allocatable || old.pods_max != new.pods_max,
                        ClusterEvent::NodeAllocatable,
                    ),
                    (old.features != new.features, ClusterEvent::NodeFeatures),
                ];
                self.scheduler.cluster_mut().set_node(new.clone());
                let what = Changed::Node { old: Some(&old), new: Some(&new) };
                for (_, event) in changed.into_iter().filter(|(is, _)| *is) {
                    self.happened_to(now, event, what);
                }
            }
            (Some(old), None) => {
                self.scheduler.cluster_mut().remove_node(name);
                self.happened_to(
                    now,
                    ClusterEvent::NodeRemoved,
                    Changed::Node { old: Some(&old), new: None },
                );
            }
            _ => {}
        }
    }

    fn on_pod(&mut self, now: Time, delta: &Delta, out: &mut Vec<Effect>) {
        let object = delta.object();
        let key = ObjectKey::of(object);
        let (pod, fault) = match self.confirmed(&key, delta).map_or_else(|| Pod::from_object(object), Ok) {
            Ok(pod) => (pod, None),
            Err(e) => (Pod::opaque(object), Some(e.to_string())),
        };
        if pod.node.is_none() && self.scheduler.cluster().is_assumed(&key) {
            self.outdated.insert(key.clone());
        } else if !self.outdated.is_empty() {
            self.outdated.remove(&key);
        }
        if matches!(delta, Delta::Deleted(_)) || pod.ended {
            self.queue.remove(&key);
            self.release(&key, &pod.uid);
            self.leave_group(now, &pod);
            let seat = self.scheduler.nominated_node(&key).is_some();
            self.scheduler.clear_nomination(&key);
            let old = self.scheduler.cluster_mut().remove_pod(&key);
            if old.is_some() || seat {
                let what =
                    old.as_ref().map_or(Changed::Unknown, |old| Changed::Pod { old: Some(old), new: None });
                self.happened_to(now, ClusterEvent::PodRemoved, what);
            }
        } else if pod.node.is_some() {
            self.placed(now, &pod);
            self.queue.remove(&key);
            self.scheduler.clear_nomination(&key);
            self.group_bound(now, &pod, out);
            self.on_bound(now, pod);
        } else if self.scheduler.profile(&pod.scheduler_name).is_some() {
            self.on_pending(now, pod, fault, object, out);
        }
    }

    /// The pod that is known by the key, if the change is the binding that it was assumed to get and nothing else that
    /// matters: it is not read once more.
    fn confirmed(&self, key: &ObjectKey, delta: &Delta) -> Option<Pod> {
        let Delta::Updated { old, new } = delta else { return None };
        let cluster = self.scheduler.cluster();
        let known = cluster.pod(key).filter(|p| p.uid == new.metadata.uid && cluster.is_assumed(key))?;
        let (was, is) = (&old.metadata, &new.metadata);
        let same = was.labels == is.labels
            && was.owner_references == is.owner_references
            && was.deletion_timestamp.is_none()
            && is.deletion_timestamp.is_none()
            && !self.outdated.contains(key);
        let node = bound_to(old.text("spec")?, new.text("spec")?).filter(|_| same)?;
        known.bound(new, node)
    }

    fn on_bound(&mut self, now: Time, pod: Pod) {
        let cluster = self.scheduler.cluster_mut();
        let old = cluster.pod(&pod.key).filter(|p| p.node == pod.node).cloned();
        let confirmed = cluster.is_assumed(&pod.key);
        cluster.set_pod(pod.clone());
        let event = match old.as_ref().map(|old| &old.spec) {
            Some(old) if *old == pod.spec && !confirmed => return,
            Some(old) if !old.terminating && pod.spec.terminating => ClusterEvent::PodRemoved,
            Some(old) if *old != pod.spec => ClusterEvent::PodChanged,
            _ => ClusterEvent::PodBound,
        };
        self.happened_to(now, event, Changed::Pod { old: old.as_ref(), new: Some(&pod) });
    }

    fn on_pending(
        &mut self,
        now: Time,
        mut pod: Pod,
        fault: Option<String>,
        object: &Arc<Object>,
        out: &mut Vec<Effect>,
    ) {
        let assumed = self.scheduler.cluster().pod(&pod.key);
        let known = assumed.or_else(|| self.queue.get(&pod.key));
        if let Some(old) = known.filter(|p| p.uid != pod.uid).cloned() {
            // Another pod of that name: the one before is gone.
            self.queue.remove(&pod.key);
            self.leave_group(now, &old);
            self.release(&pod.key, "");
            self.scheduler.clear_nomination(&pod.key);
            if let Some(old) = self.scheduler.cluster_mut().remove_pod(&pod.key) {
                let what = Changed::Pod { old: Some(&old), new: None };
                self.happened_to(now, ClusterEvent::PodRemoved, what);
            }
        }
        if pod.spec.terminating {
            self.queue.remove(&pod.key);
            self.leave_group(now, &pod);
            self.scheduler.clear_nomination(&pod.key);
            return;
        }
        if self.scheduler.cluster().is_assumed(&pod.key) && self.queue.get(&pod.key).is_none() {
            // It is bound; what is seen here is older.
            return;
        }
        if let Some(message) = fault {
            self.queue.remove(&pod.key);
            self.leave_group(now, &pod);
            self.tell(
                now,
                object,
                EventType::Warning,
                "FailedScheduling",
                "Scheduling",
                message.clone(),
                out,
            );
            self.note(now, requests::not_scheduled(now, object, "SchedulerError", &message, None), out);
            return;
        }
        if let Some(node) = &pod.nominated_node
            && !self.scheduler.cluster().is_assumed(&pod.key)
        {
            self.scheduler.nominate(pod.clone(), node);
        }
        let profile = self.scheduler.profile(&pod.scheduler_name);
        if profile.is_some_and(|p| !self.scheduler.minds_gates(p)) {
            pod.gates.clear();
        }
        if let Some(spec) = self.scheduler.cluster().canonical(&pod.spec) {
            pod.spec = Arc::clone(spec);
        }
        self.enqueue(now, pod);
    }
}

/// The node, if the text of a spec differs from the one before it in the node that was put first: so the API server writes
/// a binding.
fn bound_to<'a>(old: &[u8], new: &'a [u8]) -> Option<&'a str> {
    let rest = new.strip_prefix(b"{\"nodeName\":\"")?;
    let end = rest.iter().position(|b| matches!(b, b'"' | b'\\'))?;
    let (node, rest) = rest.split_at_checked(end)?;
    let same = rest.strip_prefix(b"\",")? == old.strip_prefix(b"{")?;
    core::str::from_utf8(node).ok().filter(|node| same && !node.is_empty())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_binding_is_told_from_other_changes() {
        let old = br#"{"containers":[],"priority":0}"#;
        let node = |new: &'static str| bound_to(old, new.as_bytes());
        assert_eq!(node(r#"{"nodeName":"n1","containers":[],"priority":0}"#), Some("n1"));
        for other in [
            r#"{"nodeName":"n1","containers":[],"priority":1}"#,
            r#"{"nodeName":"n\"1","containers":[],"priority":0}"#,
            r#"{"nodeName":"","containers":[],"priority":0}"#,
            r#"{"nodeName":"n1"}"#,
            r#"{"containers":[],"priority":0}"#,
            "null",
        ] {
            assert_eq!(node(other), None, "{other}");
        }
    }
}
