//! The plan.

use alloc::collections::BTreeMap;
use alloc::format;
use alloc::string::String;
use alloc::sync::Arc;
use alloc::vec;
use alloc::vec::Vec;

use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::pod::{REVISION, create, create_claims, delete, ordinal_of};
use crate::api::{Gvr, Object, resources};
use crate::base::{Rng, Time};
use crate::client::{Delta, IndexFn, ObjectKey, index};
use crate::controllers::support::{self, Availability, PodPhase, Revision, availability, history, is_ready};
use crate::controllers::{Action, Cache, Controller, Plan};

/// What the plan is made from.
#[derive(Clone, Debug)]
pub struct Observed {
    /// The StatefulSet.
    pub set: Arc<Object>,
    /// The pods that it controls.
    pub pods: Vec<Arc<Object>>,
    /// The ControllerRevisions that it controls.
    pub revisions: Vec<Arc<Object>>,
    /// The names of the PersistentVolumeClaims of its namespace.
    pub claims: Vec<String>,
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde calls it with a reference")]
fn is_zero(n: &i64) -> bool {
    *n == 0
}

#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
struct Status {
    available_replicas: i64,
    collision_count: i64,
    #[serde(skip_serializing_if = "is_zero")]
    current_replicas: i64,
    current_revision: String,
    observed_generation: i64,
    #[serde(skip_serializing_if = "is_zero")]
    ready_replicas: i64,
    replicas: i64,
    update_revision: String,
    #[serde(skip_serializing_if = "is_zero")]
    updated_replicas: i64,
}

/// Makes, deletes and replaces pods, one after the other unless they are managed in parallel, and writes the status.
#[must_use]
pub fn plan(observed: &Observed, now: Time) -> Plan {
    let Observed { set, pods, revisions, claims } = observed;
    let mut plan = Plan::none();
    if set.is_terminating() {
        return plan;
    }
    let old: Status = set.view("status").unwrap_or_default();
    let used = |name: &str| name == old.current_revision || pods.iter().any(|p| revision_of(p) == name);
    let (update, actions) = history(set, revisions, used);
    plan.all(actions);
    let current = match revisions.iter().find(|r| r.metadata.name == old.current_revision) {
        Some(revision) => revision.metadata.name.clone(),
        None => update.name.clone(),
    };
    let number = |pointer: &str| support::int_at(set, pointer);
    let start = number("/spec/ordinals/start").unwrap_or(0);
    let round = Round {
        set,
        revisions,
        claims,
        update,
        current,
        start,
        end: start + number("/spec/replicas").unwrap_or(1).max(0),
        partition: number("/spec/updateStrategy/rollingUpdate/partition").unwrap_or(0),
        rolling: set.str_at("/spec/updateStrategy/type") != "OnDelete",
        ordered: set.str_at("/spec/podManagementPolicy") != "Parallel",
        pods: pods.iter().filter_map(|p| Some((ordinal_of(set, p)?, p))).collect(),
        now,
    };
    round.status(&old, &mut plan);
    for step in round.steps() {
        plan.all(step);
    }
    plan
}

fn revision_of(pod: &Object) -> &str {
    pod.metadata.labels.get(REVISION).map_or("", String::as_str)
}

struct Round<'a> {
    set: &'a Arc<Object>,
    revisions: &'a [Arc<Object>],
    claims: &'a [String],
    update: Revision,
    current: String,
    /// The first ordinal.
    start: i64,
    /// One more than the last ordinal.
    end: i64,
    /// Ordinals below keep the current revision.
    partition: i64,
    rolling: bool,
    ordered: bool,
    pods: BTreeMap<i64, &'a Arc<Object>>,
    now: Time,
}

impl<'a> Round<'a> {
    fn availability(&self, pod: &Object) -> Availability {
        availability(pod, support::int_at(self.set, "/spec/minReadySeconds").unwrap_or(0), self.now)
    }

    /// Runs, is ready long enough, and stays.
    fn is_healthy(&self, pod: &Object) -> bool {
        !pod.is_terminating() && self.availability(pod) == Availability::Available
    }

    /// Makes the pod of an ordinal: claims first.
    fn create(&self, ordinal: i64) -> Vec<Vec<Action>> {
        let keeps = self.rolling && ordinal < self.partition;
        let revision = if keeps { &self.current } else { &self.update.name };
        let stored = self.revisions.iter().find(|r| keeps && r.metadata.name == *revision);
        let template = stored.and_then(|r| r.at("/data/spec/template")).or(self.set.at("/spec/template"));
        let name = format!("{}-{ordinal}", self.set.metadata.name);
        let claims = create_claims(self.set, &name, |claim| self.claims.iter().any(|c| c == claim));
        vec![claims, vec![create(self.set, ordinal, template, revision)]]
    }

    /// What is done now, in order.
    fn steps(&self) -> Vec<Vec<Action>> {
        let mut steps: Vec<Vec<Action>> = Vec::new();
        let mut waits = false;
        for ordinal in self.start..self.end {
            let healthy = match self.pods.get(&ordinal) {
                None => {
                    steps.extend(self.create(ordinal));
                    false
                }
                Some(pod) if PodPhase::of(pod).is_finished() && !pod.is_terminating() => {
                    steps.push(vec![delete(self.set, pod)]);
                    false
                }
                Some(pod) => self.is_healthy(pod),
            };
            waits |= !healthy;
            // What is done to a pod, or awaited of it, comes before the next.
            if self.ordered && !healthy {
                return steps;
            }
        }
        let condemned = || self.pods.iter().rev().filter(|(o, _)| !(self.start..self.end).contains(*o));
        if self.ordered {
            if let Some((_, last)) = condemned().next() {
                if !last.is_terminating() {
                    steps.push(vec![delete(self.set, last)]);
                }
                return steps;
            }
        } else {
            let live = condemned().filter(|(_, pod)| !pod.is_terminating());
            steps.push(live.map(|(_, pod)| delete(self.set, pod)).collect());
        }
        if self.rolling && !(waits && self.ordered) {
            steps.extend(self.outdated().map(|pod| vec![delete(self.set, pod)]));
        }
        steps
    }

    /// The pod that is replaced next: the last of an old revision, once all behind it are healthy.
    fn outdated(&self) -> Option<&'a Arc<Object>> {
        for (_, pod) in self.pods.range(self.start.max(self.partition)..self.end.max(self.partition)).rev() {
            if revision_of(pod) != self.update.name && !pod.is_terminating() {
                return Some(pod);
            }
            if !self.is_healthy(pod) {
                return None;
            }
        }
        None
    }

    fn status(&self, old: &Status, plan: &mut Plan) {
        let count = |wanted: &dyn Fn(&Object) -> bool| {
            let n = self.pods.values().filter(|p| wanted(p)).count();
            i64::try_from(n).unwrap_or(i64::MAX)
        };
        for pod in self.pods.values() {
            if let Availability::At(due) = self.availability(pod) {
                plan.again(due);
            }
        }
        let of = |revision: &str| count(&|p| !p.is_terminating() && revision_of(p) == revision);
        let mut new = Status {
            available_replicas: count(&|p| self.availability(p) == Availability::Available),
            collision_count: 0,
            current_replicas: of(&self.current),
            current_revision: self.current.clone(),
            observed_generation: self.set.metadata.generation,
            ready_replicas: count(&is_ready),
            replicas: count(&|_| true),
            update_revision: self.update.name.clone(),
            updated_replicas: of(&self.update.name),
        };
        let all = self.end - self.start;
        if self.rolling && [new.updated_replicas, new.ready_replicas, new.replicas] == [all; 3] {
            new.current_revision.clone_from(&new.update_revision);
            new.current_replicas = new.updated_replicas;
        }
        if new != *old {
            let mut next = Object::clone(self.set);
            next.rest.insert("status".into(), serde_json::to_value(&new).unwrap_or(Value::Null));
            plan.one(Action::update_status(&resources::STATEFUL_SETS, next));
        }
    }
}

/// The controller of StatefulSets.
#[derive(Clone, Copy, Debug, Default)]
pub struct StatefulSets;

impl Controller for StatefulSets {
    fn name(&self) -> &'static str {
        "statefulset-controller"
    }

    fn watches(&self) -> Vec<Gvr> {
        vec![
            resources::STATEFUL_SETS,
            resources::PODS,
            resources::CONTROLLER_REVISIONS,
            resources::PERSISTENT_VOLUME_CLAIMS,
        ]
    }

    fn indices(&self) -> Vec<(Gvr, &'static str, IndexFn)> {
        vec![
            (resources::PODS, index::CONTROLLER_UID, index::controller_uid()),
            (resources::CONTROLLER_REVISIONS, index::CONTROLLER_UID, index::controller_uid()),
        ]
    }

    fn concerns(&mut self, _now: Time, _cache: &Cache, gvr: &Gvr, delta: &Delta, keys: &mut Vec<ObjectKey>) {
        let object = delta.object();
        if *gvr == resources::STATEFUL_SETS {
            keys.push(ObjectKey::of(object));
        } else if let Some(c) = object.controller().filter(|c| support::is_kind(c, "apps", "StatefulSet")) {
            keys.push(ObjectKey::new(&object.metadata.namespace, &c.name));
        }
    }

    fn plan(&mut self, now: Time, cache: &Cache, key: &ObjectKey, _rng: &mut Rng) -> Plan {
        let Some(set) = cache.store(&resources::STATEFUL_SETS).get_key(key) else { return Plan::none() };
        let mine =
            |gvr: &Gvr| cache.store(gvr).by(index::CONTROLLER_UID, &set.metadata.uid).cloned().collect();
        let claims = cache.store(&resources::PERSISTENT_VOLUME_CLAIMS).list(&key.namespace);
        let observed = Observed {
            set: Arc::clone(set),
            pods: mine(&resources::PODS),
            revisions: mine(&resources::CONTROLLER_REVISIONS),
            claims: claims.map(|c| c.metadata.name.clone()).collect(),
        };
        plan(&observed, now)
    }
}

#[cfg(test)]
mod tests;
