//! The plan.

use alloc::boxed::Box;
use alloc::collections::BTreeMap;
use alloc::string::String;
use alloc::sync::Arc;
use alloc::vec::Vec;

use serde_json::json;

use super::graph::{Graph, Node};
use crate::api::{Gvr, Object, OwnerReference, reason, resources};
use crate::base::{Duration, Rng, Time};
use crate::client::{ApiError, ApiRequest, Delta, ObjectKey, Operation, Propagation, Reply};
use crate::controllers::support::owner_resource;
use crate::controllers::{Action, Cache, Controller, Plan, ResourceKind};

const FOREGROUND: &str = "foregroundDeletion";
const ORPHAN: &str = "orphan";
/// Owners whose absence or presence is remembered (`NewReferenceCache(500)` upstream).
const VERIFIED_MAX: usize = 500;
/// How long an owner that the server knows, but no watch showed, counts as present.
const PRESENT_FOR: Duration = Duration::from_secs(30);
/// How long to wait for what is not listed yet.
const SETTLE: Duration = Duration::from_secs(1);

/// What the server said about an owner that no watch shows.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Verified {
    Absent,
    PresentUntil(Time),
}

/// The garbage collector. Its keys are uids.
///
/// An object whose owners are all gone is deleted, in the background or as its finalizers say; that an owner is gone is
/// asked of the server itself, never concluded from a cache. An owner with the finalizer `foregroundDeletion` waits
/// until those dependents are gone that block it; with `orphan`, its dependents forget it first.
#[derive(Debug)]
pub struct GarbageCollector {
    resources: Vec<ResourceKind>,
    graph: Graph,
    verified: BTreeMap<String, Verified>,
}

/// How an owner stands.
enum Owner {
    /// It is there, and stays.
    Solid,
    /// It is gone.
    Absent,
    /// It waits for its dependents to go.
    Waiting,
    /// The server must be asked.
    Unknown(Box<Action>),
    /// Its kind is not known, so that nothing can be concluded.
    NoKind,
}

impl GarbageCollector {
    /// Watches `resources` and custom resources.
    #[must_use]
    pub fn new(resources: Vec<ResourceKind>) -> Self {
        Self { resources, graph: Graph::default(), verified: BTreeMap::new() }
    }

    fn standing(&self, now: Time, cache: &Cache, item: &Node, owner: &OwnerReference) -> Owner {
        if let Some(node) = self.graph.node(&owner.uid) {
            let waits = node.object.is_terminating() && has(&node.object, FOREGROUND);
            return if waits { Owner::Waiting } else { Owner::Solid };
        }
        match self.verified.get(&owner.uid) {
            Some(Verified::Absent) => return Owner::Absent,
            Some(Verified::PresentUntil(until)) if now < *until => return Owner::Solid,
            _ => {}
        }
        let Some(kind) = owner_resource(&self.resources, cache, owner) else { return Owner::NoKind };
        let namespace = if kind.namespaced { item.object.metadata.namespace.as_str() } else { "" };
        if kind.namespaced && namespace.is_empty() {
            return Owner::NoKind;
        }
        let ask =
            Action::get(&kind.gvr, &ObjectKey::new(namespace, &owner.name)).tolerating(&[reason::NOT_FOUND]);
        Owner::Unknown(Box::new(ask))
    }

    fn plan_owned(&self, now: Time, cache: &Cache, item: &Node) -> Plan {
        let mut plan = Plan::none();
        let (mut solid, mut waiting, mut questions) = (Vec::new(), Vec::new(), Vec::new());
        for owner in &item.object.metadata.owner_references {
            match self.standing(now, cache, item, owner) {
                Owner::Solid => {
                    // What was asked once may be known from a watch since: then there is nothing to ask again.
                    if let Some(Verified::PresentUntil(until)) = self.verified.get(&owner.uid)
                        && now < *until
                    {
                        plan.again(*until);
                    }
                    solid.push(owner.clone());
                }
                Owner::Absent => {}
                Owner::Waiting => waiting.push(owner.clone()),
                Owner::Unknown(ask) => questions.push(*ask),
                Owner::NoKind => return plan,
            }
        }
        if !questions.is_empty() {
            plan.all(questions);
            return plan;
        }
        let references = &item.object.metadata.owner_references;
        if solid.len() == references.len() {
            return plan;
        }
        if !solid.is_empty() {
            plan.one(set_owners(item, &solid));
            return plan;
        }
        let has_dependents = self.graph.dependents(&item.object.metadata.uid).next().is_some();
        let propagation = if !waiting.is_empty() && has_dependents || has(&item.object, FOREGROUND) {
            Propagation::Foreground
        } else if has(&item.object, ORPHAN) {
            Propagation::Orphan
        } else {
            Propagation::Background
        };
        plan.one(delete(item, propagation));
        plan
    }

    fn plan_foreground(&self, item: &Node) -> Plan {
        let mut plan = Plan::none();
        let uid = &item.object.metadata.uid;
        let blocking: Vec<&Node> = self.graph.dependents(uid).filter(|d| blocks(&d.object, uid)).collect();
        if blocking.is_empty() {
            plan.one(drop_finalizer(item, FOREGROUND));
        }
        // Dependents that go are planned by their own keys.
        plan
    }

    fn plan_orphan(&self, item: &Node) -> Plan {
        let mut plan = Plan::none();
        let uid = &item.object.metadata.uid;
        let forget = |d: &Node| {
            let left: Vec<OwnerReference> =
                d.object.metadata.owner_references.iter().filter(|r| r.uid != *uid).cloned().collect();
            set_owners(d, &left)
        };
        plan.all(self.graph.dependents(uid).map(forget).collect());
        plan.one(drop_finalizer(item, ORPHAN));
        plan
    }
}

fn has(object: &Object, finalizer: &str) -> bool {
    object.metadata.finalizers.iter().any(|f| f == finalizer)
}

fn blocks(dependent: &Object, owner_uid: &str) -> bool {
    dependent
        .metadata
        .owner_references
        .iter()
        .any(|r| r.uid == owner_uid && r.block_owner_deletion == Some(true))
}

fn set_owners(item: &Node, owners: &[OwnerReference]) -> Action {
    let meta = &item.object.metadata;
    let body = json!({"metadata": {
        "uid": meta.uid,
        "resourceVersion": meta.resource_version,
        "ownerReferences": owners,
    }});
    Action::merge(&item.gvr, &ObjectKey::of(&item.object), body).tolerating(&[reason::NOT_FOUND])
}

fn drop_finalizer(item: &Node, finalizer: &str) -> Action {
    let meta = &item.object.metadata;
    let left: Vec<&String> = meta.finalizers.iter().filter(|f| *f != finalizer).collect();
    let body = json!({"metadata": {
        "uid": meta.uid,
        "resourceVersion": meta.resource_version,
        "finalizers": left,
    }});
    Action::merge(&item.gvr, &ObjectKey::of(&item.object), body).tolerating(&[reason::NOT_FOUND])
}

fn delete(item: &Node, propagation: Propagation) -> Action {
    let mut action = Action::delete(&item.gvr, &item.object, Some(propagation));
    if let Operation::Delete(options) = &mut action.request.op {
        // An owner that was added meanwhile saves it.
        options.resource_version = Some(item.object.metadata.resource_version.clone());
    }
    action
}

impl Controller for GarbageCollector {
    fn name(&self) -> &'static str {
        "garbage-collector-controller"
    }

    fn watches(&self) -> Vec<Gvr> {
        Vec::new()
    }

    fn watches_optionally(&self) -> Vec<Gvr> {
        let mut watches: Vec<Gvr> = self.resources.iter().map(|r| r.gvr.clone()).collect();
        watches.push(resources::CUSTOM_RESOURCE_DEFINITIONS);
        watches
    }

    fn reset(&mut self) {
        self.graph = Graph::default();
        self.verified.clear();
    }

    fn concerns(&mut self, _now: Time, _cache: &Cache, gvr: &Gvr, delta: &Delta, keys: &mut Vec<ObjectKey>) {
        let object = delta.object();
        let uid = &object.metadata.uid;
        let key = |uid: &str| ObjectKey::new("", uid);
        match delta {
            Delta::Added(object) | Delta::Updated { new: object, .. } => {
                let concerned = match delta {
                    Delta::Updated { old, new } => {
                        let (old, new) = (&old.metadata, &new.metadata);
                        old.owner_references != new.owner_references
                            || old.finalizers != new.finalizers
                            || old.deletion_timestamp != new.deletion_timestamp
                    }
                    _ => true,
                };
                self.graph.put(gvr, object);
                self.verified.remove(uid);
                if !concerned {
                    return;
                }
                if !object.metadata.owner_references.is_empty() || object.is_terminating() {
                    keys.push(key(uid));
                }
                // Dependents of an owner that goes in the foreground go with it.
                if object.is_terminating() && has(object, FOREGROUND) {
                    keys.extend(self.graph.dependent_uids(uid).iter().map(|u| key(u)));
                }
            }
            Delta::Deleted(object) => {
                self.graph.remove(object);
                keys.extend(self.graph.dependent_uids(uid).iter().map(|u| key(u)));
            }
        }
        // An owner that waits for this object may go on.
        let old = match delta {
            Delta::Updated { old, .. } => Some(old),
            _ => None,
        };
        let owners = [Some(object), old].into_iter().flatten().flat_map(|o| &o.metadata.owner_references);
        keys.extend(
            owners
                .filter(|o| self.graph.node(&o.uid).is_some_and(|n| n.object.is_terminating()))
                .map(|o| key(&o.uid)),
        );
    }

    fn plan(&mut self, now: Time, cache: &Cache, key: &ObjectKey, _rng: &mut Rng) -> Plan {
        let Some(item) = self.graph.node(&key.name) else { return Plan::none() };
        if item.object.is_terminating() {
            if !has(&item.object, FOREGROUND) && !has(&item.object, ORPHAN) {
                return Plan::none();
            }
            // A kind that is not listed yet may hold dependents.
            if !cache.settled() {
                return Plan { again_at: Some(now + SETTLE), ..Plan::none() };
            }
            return if has(&item.object, ORPHAN) {
                self.plan_orphan(item)
            } else {
                self.plan_foreground(item)
            };
        }
        self.plan_owned(now, cache, item)
    }

    fn answered(
        &mut self,
        now: Time,
        key: &ObjectKey,
        request: &ApiRequest,
        answer: &Result<Reply, ApiError>,
    ) {
        let (Operation::Get, Some(name)) = (&request.op, &request.name) else { return };
        let Some(item) = self.graph.node(&key.name).map(|n| Arc::clone(&n.object)) else { return };
        if self.verified.len() >= VERIFIED_MAX {
            self.verified.clear();
        }
        for owner in item.metadata.owner_references.iter().filter(|o| o.name == *name) {
            let verdict = match answer {
                Ok(Reply::Object(found)) if found.kind == owner.kind || found.kind.is_empty() => {
                    if found.metadata.uid == owner.uid {
                        Verified::PresentUntil(now + PRESENT_FOR)
                    } else {
                        Verified::Absent
                    }
                }
                Err(e) if e.is(reason::NOT_FOUND) => Verified::Absent,
                _ => continue,
            };
            self.verified.insert(owner.uid.clone(), verdict);
        }
    }
}

#[cfg(test)]
mod tests;
