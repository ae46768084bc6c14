//! The plan.

use alloc::collections::BTreeMap;
use alloc::format;
use alloc::string::{String, ToString};
use alloc::sync::Arc;
use alloc::vec;
use alloc::vec::Vec;

use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use crate::api::{Gvr, Object, OwnerReference, labels::Selector, reason, resources};
use crate::base::{Rng, Time};
use crate::client::{ApiError, ApiRequest, Delta, IndexFn, ObjectKey, Operation, Reply, index};
use crate::controllers::plan::BURST_MAX;
use crate::controllers::support::{
    self, Availability, Condition, PodPhase, availability, deletion_order, is_active, is_ready,
    pod_from_template, set_condition,
};
use crate::controllers::{Action, Cache, Controller, Note, Plan};

/// What the plan is made from.
#[derive(Clone, Debug)]
pub struct Observed {
    /// The ReplicaSet or ReplicationController.
    pub owner: Arc<Object>,
    /// Its resource.
    pub gvr: Gvr,
    /// The pods of its namespace that it controls, or that nobody controls and its selector matches.
    pub pods: Vec<Arc<Object>>,
    /// The pods of owners of the same family (the ReplicaSets of one Deployment), itself included, to see where they
    /// crowd a node.
    pub family: Vec<Arc<Object>>,
    /// Why the last plan failed to create or delete a pod, if it did.
    pub failure: Option<Failure>,
}

/// Why pods could not be created or deleted: the condition ReplicaFailure.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Failure {
    /// `FailedCreate` or `FailedDelete`.
    pub reason: &'static str,
    /// The error.
    pub message: String,
}

#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
struct Status {
    replicas: i64,
    #[serde(skip_serializing_if = "is_zero")]
    fully_labeled_replicas: i64,
    #[serde(skip_serializing_if = "is_zero")]
    ready_replicas: i64,
    #[serde(skip_serializing_if = "is_zero")]
    available_replicas: i64,
    #[serde(skip_serializing_if = "Option::is_none")]
    terminating_replicas: Option<i64>,
    #[serde(skip_serializing_if = "is_zero")]
    observed_generation: i64,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    conditions: Vec<Condition>,
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde calls it with a reference")]
fn is_zero(n: &i64) -> bool {
    *n == 0
}

fn selector_of(owner: &Object) -> Selector {
    if owner.kind == "ReplicationController" {
        support::map_selector(owner)
    } else {
        support::selector(owner)
    }
}

/// Brings the number of pods to `spec.replicas`: adopts pods that the selector matches, releases those it does not,
/// creates in a slow start (1, 2, 4, ...), deletes in upstream's order, and writes the status.
#[must_use]
pub fn plan(observed: &Observed, now: Time, rng: &mut Rng) -> Plan {
    let Observed { owner, gvr, pods, family, failure } = observed;
    let selector = selector_of(owner);
    let mut plan = Plan::none();
    let mut mine = Vec::new();
    let mut claims = Vec::new();
    for pod in pods.iter() {
        let matches = selector.matches(&pod.metadata.labels);
        match pod.controller() {
            Some(c) if c.uid == owner.metadata.uid => {
                if matches {
                    mine.push(Arc::clone(pod));
                } else if !owner.is_terminating() {
                    claims.push(release(owner, pod));
                }
            }
            None if matches && is_active(pod) && !owner.is_terminating() => {
                claims.push(adopt(owner, pod));
                mine.push(Arc::clone(pod));
            }
            _ => {}
        }
    }
    plan.all(claims);
    let terminating = mine.iter().filter(|p| p.is_terminating() && !PodPhase::of(p).is_finished()).count();
    let active: Vec<Arc<Object>> = mine.into_iter().filter(|p| is_active(p)).collect();
    let want = usize::try_from(support::int_at(owner, "/spec/replicas").unwrap_or(1)).unwrap_or(0);
    let mut creates = Vec::new();
    if !owner.is_terminating() {
        if active.len() < want {
            creates = (0..(want - active.len()).min(BURST_MAX)).map(|_| create_pod(owner, rng)).collect();
        } else {
            plan.all(deletions(owner, &active, family, want, now));
        }
    }
    status(&mut plan, gvr, owner, (&active, terminating), failure.as_ref(), now);
    plan.slow_start(creates);
    plan
}

fn reference(owner: &Object) -> OwnerReference {
    owner.controller_reference()
}

fn adopt(owner: &Object, pod: &Arc<Object>) -> Action {
    // The uid is a precondition: a pod of the same name made meanwhile is another one.
    let mut references = pod.metadata.owner_references.clone();
    references.push(reference(owner));
    claim(pod, &references)
}

fn release(owner: &Object, pod: &Arc<Object>) -> Action {
    let references: Vec<OwnerReference> =
        pod.metadata.owner_references.iter().filter(|r| r.uid != owner.metadata.uid).cloned().collect();
    claim(pod, &references)
}

fn claim(pod: &Arc<Object>, references: &[OwnerReference]) -> Action {
    let body = json!({"metadata": {
        "uid": pod.metadata.uid,
        "resourceVersion": pod.metadata.resource_version,
        "ownerReferences": references,
    }});
    Action::merge(&resources::PODS, &ObjectKey::of(pod), body).tolerating(&[reason::NOT_FOUND])
}

fn create_pod(owner: &Arc<Object>, rng: &mut Rng) -> Action {
    let prefix = format!("{}-", owner.metadata.name);
    let pod = pod_from_template(owner, reference(owner), owner.at("/spec/template"), &prefix, rng);
    let told = Note::normal(owner, "SuccessfulCreate", format!("Created pod: {}", pod.metadata.name));
    Action::create(&resources::PODS, pod).told(told).told_failure(Note::warning(
        owner,
        "FailedCreate",
        "Error creating: ",
    ))
}

fn deletions(
    owner: &Arc<Object>,
    active: &[Arc<Object>],
    family: &[Arc<Object>],
    want: usize,
    now: Time,
) -> Vec<Action> {
    let mut ranked: Vec<(usize, &Arc<Object>)> =
        support::node_ranks(active, family).into_iter().zip(active).collect();
    ranked.sort_by(|(ra, a), (rb, b)| deletion_order((a, *ra), (b, *rb), now));
    let excess = active.len().saturating_sub(want).min(BURST_MAX);
    ranked
        .into_iter()
        .take(excess)
        .map(|(_, pod)| {
            let told = Note::normal(owner, "SuccessfulDelete", format!("Deleted pod: {}", pod.metadata.name));
            Action::delete(&resources::PODS, pod, None).told(told).told_failure(Note::warning(
                owner,
                "FailedDelete",
                "Error deleting: ",
            ))
        })
        .collect()
}

fn status(
    plan: &mut Plan,
    gvr: &Gvr,
    owner: &Object,
    (active, terminating): (&[Arc<Object>], usize),
    failure: Option<&Failure>,
    now: Time,
) {
    let old: Status = owner.view("status").unwrap_or_default();
    let min_ready = support::int_at(owner, "/spec/minReadySeconds").unwrap_or(0);
    let template: Object =
        owner.at("/spec/template").and_then(|t| Object::deserialize(t).ok()).unwrap_or_default();
    let labeled =
        |pod: &Object| template.metadata.labels.iter().all(|(k, v)| pod.metadata.labels.get(k) == Some(v));
    let count = |n: usize| i64::try_from(n).unwrap_or(i64::MAX);
    let mut available = 0;
    for pod in active {
        match availability(pod, min_ready, now) {
            Availability::Available => available += 1,
            Availability::At(due) => plan.again(due),
            Availability::Unready => {}
        }
    }
    let mut new = Status {
        replicas: count(active.len()),
        fully_labeled_replicas: count(active.iter().filter(|p| labeled(p)).count()),
        ready_replicas: count(active.iter().filter(|p| is_ready(p)).count()),
        available_replicas: available,
        terminating_replicas: (gvr.group == "apps").then(|| count(terminating)),
        observed_generation: owner.metadata.generation,
        conditions: old.conditions.clone(),
    };
    match failure {
        Some(Failure { reason, message }) => {
            set_condition(
                &mut new.conditions,
                Condition::new(now, "ReplicaFailure", true, reason, message.clone()),
            );
        }
        None => new.conditions.retain(|c| c.kind != "ReplicaFailure"),
    }
    if new != old || owner.rest.get("status").is_none() {
        let mut next = Object::clone(owner);
        next.rest.insert("status".into(), serde_json::to_value(&new).unwrap_or(Value::Null));
        plan.one(Action::update_status(gvr, next));
    }
}

/// The controller of ReplicaSets, or of ReplicationControllers.
#[derive(Clone, Debug)]
pub struct ReplicaSets {
    name: &'static str,
    gvr: Gvr,
    group: &'static str,
    kind: &'static str,
    failures: BTreeMap<ObjectKey, Failure>,
}

impl ReplicaSets {
    /// The controller of ReplicaSets.
    #[must_use]
    pub fn new() -> Self {
        Self {
            name: "replicaset-controller",
            gvr: resources::REPLICA_SETS,
            group: "apps",
            kind: "ReplicaSet",
            failures: BTreeMap::new(),
        }
    }

    /// The controller of ReplicationControllers.
    #[must_use]
    pub fn replication_controllers() -> Self {
        Self {
            name: "replication-controller",
            gvr: resources::REPLICATION_CONTROLLERS,
            group: "",
            kind: "ReplicationController",
            failures: BTreeMap::new(),
        }
    }

    /// What the plan of `key` is made from.
    fn observe(&self, cache: &Cache, key: &ObjectKey) -> Option<Observed> {
        let owner = cache.store(&self.gvr).get_key(key)?;
        let pods = cache.store(&resources::PODS);
        let selector = selector_of(owner);
        let orphans =
            pods.by(support::ORPHANS, &key.namespace).filter(|p| selector.matches(&p.metadata.labels));
        let family = match owner.controller() {
            Some(parent) => cache
                .store(&self.gvr)
                .by(index::CONTROLLER_UID, &parent.uid)
                .flat_map(|sibling| pods.by(index::CONTROLLER_UID, &sibling.metadata.uid))
                .cloned()
                .collect(),
            None => pods.by(index::CONTROLLER_UID, &owner.metadata.uid).cloned().collect(),
        };
        Some(Observed {
            owner: Arc::clone(owner),
            gvr: self.gvr.clone(),
            pods: pods.by(index::CONTROLLER_UID, &owner.metadata.uid).chain(orphans).cloned().collect(),
            family,
            failure: self.failures.get(key).cloned(),
        })
    }
}

impl Default for ReplicaSets {
    fn default() -> Self {
        Self::new()
    }
}

impl Controller for ReplicaSets {
    fn name(&self) -> &'static str {
        self.name
    }

    fn watches(&self) -> Vec<Gvr> {
        vec![self.gvr.clone(), resources::PODS]
    }

    fn indices(&self) -> Vec<(Gvr, &'static str, IndexFn)> {
        vec![
            (resources::PODS, index::CONTROLLER_UID, index::controller_uid()),
            (resources::PODS, support::ORPHANS, support::orphans()),
            (self.gvr.clone(), index::CONTROLLER_UID, index::controller_uid()),
        ]
    }

    fn reset(&mut self) {
        self.failures.clear();
    }

    fn concerns(&mut self, _now: Time, cache: &Cache, gvr: &Gvr, delta: &Delta, keys: &mut Vec<ObjectKey>) {
        if *gvr == self.gvr {
            if matches!(delta, Delta::Deleted(_)) {
                self.failures.remove(&ObjectKey::of(delta.object()));
            }
            keys.push(ObjectKey::of(delta.object()));
            return;
        }
        let states = match delta {
            Delta::Added(pod) | Delta::Deleted(pod) => [Some(pod), None],
            Delta::Updated { old, new } => {
                [Some(new), Some(old).filter(|old| old.controller() != new.controller())]
            }
        };
        for pod in states.into_iter().flatten() {
            match pod.controller() {
                Some(c) if support::is_kind(c, self.group, self.kind) => {
                    keys.push(ObjectKey::new(&pod.metadata.namespace, &c.name));
                }
                Some(_) => {}
                None => keys.extend(
                    cache
                        .store(&self.gvr)
                        .list(&pod.metadata.namespace)
                        .filter(|owner| selector_of(owner).matches(&pod.metadata.labels))
                        .map(|owner| ObjectKey::of(owner)),
                ),
            }
        }
    }

    fn plan(&mut self, now: Time, cache: &Cache, key: &ObjectKey, rng: &mut Rng) -> Plan {
        self.observe(cache, key).map_or_else(Plan::none, |observed| plan(&observed, now, rng))
    }

    fn answered(
        &mut self,
        _now: Time,
        key: &ObjectKey,
        request: &ApiRequest,
        answer: &Result<Reply, ApiError>,
    ) {
        let reason = match request.op {
            Operation::Create(_) => "FailedCreate",
            Operation::Delete(_) => "FailedDelete",
            _ => return,
        };
        match answer {
            Ok(_) => self.failures.remove(key),
            // Gone already, or there already: the cache will tell.
            Err(e) if e.is(reason::NOT_FOUND) || e.is(reason::CONFLICT) || e.is(reason::ALREADY_EXISTS) => {
                None
            }
            Err(e) => self.failures.insert(key.clone(), Failure { reason, message: e.to_string() }),
        };
    }
}

#[cfg(test)]
mod tests;
