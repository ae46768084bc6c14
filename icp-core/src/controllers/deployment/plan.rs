//! The plan.

use alloc::collections::BTreeMap;
use alloc::string::String;
use alloc::sync::Arc;
use alloc::vec;
use alloc::vec::Vec;

use serde::Deserialize;
use serde_json::{Value, json};

use super::replica_sets::{PodsOf, REVISION, Rs, has_template, hash_of};
use super::rollout::{Sets, new_size, old_pods_running, proportional, rolling, scale_old_to_zero};
use super::status::{self, Status};
use crate::api::{Gvr, Object, OwnerReference, reason, resources};
use crate::base::{Rng, Time};
use crate::client::{Delta, IndexFn, ObjectKey, index};
use crate::controllers::support::{self, IntOrPercent, resolve_fenceposts};
use crate::controllers::{Action, Cache, Controller, Note, Plan};

/// What the plan is made from.
#[derive(Clone, Debug)]
pub struct Observed {
    /// The Deployment.
    pub deployment: Arc<Object>,
    /// The ReplicaSets of its namespace that it controls, or that nobody controls and its selector matches.
    pub replica_sets: Vec<Arc<Object>>,
    /// The pods of those ReplicaSets.
    pub pods: Vec<Arc<Object>>,
    /// Whether an object that is not among `replica_sets` has the name of the next ReplicaSet.
    pub name_taken: bool,
}

#[derive(Debug)]
pub(super) enum Strategy {
    Recreate,
    RollingUpdate { surge: i64, unavailable: i64 },
}

#[derive(Debug)]
pub(super) struct Spec {
    pub(super) replicas: i64,
    pub(super) strategy: Strategy,
    pub(super) paused: bool,
    history_limit: usize,
    deadline_seconds: i64,
}

#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
struct RawSpec {
    replicas: Option<i64>,
    paused: bool,
    strategy: RawStrategy,
    revision_history_limit: Option<usize>,
    progress_deadline_seconds: Option<i64>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
struct RawStrategy {
    #[serde(rename = "type")]
    kind: String,
    rolling_update: Option<RawRolling>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
struct RawRolling {
    max_surge: Option<IntOrPercent>,
    max_unavailable: Option<IntOrPercent>,
}

impl Spec {
    fn of(deployment: &Object) -> Self {
        let raw: RawSpec = deployment.view("spec").unwrap_or_default();
        let replicas = raw.replicas.unwrap_or(1).max(0);
        let strategy = if raw.strategy.kind == "Recreate" {
            Strategy::Recreate
        } else {
            let r = raw.strategy.rolling_update.unwrap_or_default();
            let (surge, unavailable) =
                resolve_fenceposts(r.max_surge.as_ref(), r.max_unavailable.as_ref(), replicas);
            Strategy::RollingUpdate { surge, unavailable }
        };
        Self {
            replicas,
            strategy,
            paused: raw.paused,
            history_limit: raw.revision_history_limit.unwrap_or(10),
            deadline_seconds: raw.progress_deadline_seconds.unwrap_or(600),
        }
    }

    pub(super) const fn max_surge(&self) -> i64 {
        match self.strategy {
            Strategy::Recreate => 0,
            Strategy::RollingUpdate { surge, .. } => surge,
        }
    }

    pub(super) fn max_unavailable(&self) -> i64 {
        match self.strategy {
            Strategy::RollingUpdate { unavailable, .. } if self.replicas > 0 => {
                unavailable.min(self.replicas)
            }
            _ => 0,
        }
    }

    /// Seconds without progress after which the rollout counts as failed; the greatest 32-bit number means never.
    pub(super) fn progress_deadline(&self) -> Option<u64> {
        if self.deadline_seconds >= i64::from(i32::MAX) {
            None
        } else {
            u64::try_from(self.deadline_seconds).ok()
        }
    }
}

/// Moves the Deployment one step towards its spec: claims ReplicaSets, makes the one of the present template, scales
/// them by the strategy, removes old ones beyond the history limit, writes revision and status.
#[must_use]
pub fn plan(observed: &Observed, now: Time) -> Plan {
    let d = &observed.deployment;
    let mut plan = Plan::none();
    if d.at("/spec/selector").is_none_or(|s| s.as_object().is_none_or(serde_json::Map::is_empty)) {
        plan.notes.push(Note::warning(
            d,
            "SelectingAll",
            "This deployment is selecting all pods. A non-empty selector is required.",
        ));
        return plan;
    }
    let spec = Spec::of(d);
    let old_status: Status = d.view("status").unwrap_or_default();
    let (mut sets, claims) = claim(observed);
    plan.all(claims);
    let pods = pods_of(&observed.pods);

    let mut conditions = Status { conditions: old_status.conditions.clone(), ..Status::default() };
    let mut rollout = false;
    if !d.is_terminating() {
        status::pause_condition(now, &spec, &mut conditions);
        if spec.paused || sets.is_scaling(&spec) {
            find_new(d, &spec, &mut sets, false, (now, &mut conditions));
            proportional(&spec, &mut sets);
        } else if let Strategy::Recreate = spec.strategy {
            rollout = true;
            find_new(d, &spec, &mut sets, false, (now, &mut conditions));
            if !scale_old_to_zero(&spec, &mut sets) && !old_pods_running(&sets, &pods) {
                if sets.new.is_none() && observed.name_taken {
                    return collide(plan, d, &old_status);
                }
                find_new(d, &spec, &mut sets, true, (now, &mut conditions));
                if let Some(new) = sets.new.as_mut().filter(|r| r.replicas != spec.replicas) {
                    new.scale(spec.replicas, spec.replicas, spec.replicas);
                }
            }
        } else {
            rollout = true;
            find_new(d, &spec, &mut sets, false, (now, &mut conditions));
            if sets.new.is_none() {
                if observed.name_taken {
                    return collide(plan, d, &old_status);
                }
                find_new(d, &spec, &mut sets, true, (now, &mut conditions));
            } else {
                rolling(&spec, &mut sets);
            }
        }
    }

    let all = sets.all();
    let mut new_status = status::counts(
        now,
        d,
        &spec,
        sets.new.as_ref().filter(|r| !r.is_new()),
        &all,
        &Status { conditions: conditions.conditions, ..old_status.clone() },
    );
    if rollout {
        status::progress(now, d, &spec, sets.new.as_ref(), (&mut new_status, &old_status), &mut plan);
        status::replica_failure(now, &all, &mut new_status);
    }
    if !d.is_terminating() {
        plan.all(all.iter().filter_map(|rs| rs.action(d)).collect());
        if spec.paused || new_status.complete(d, &spec) {
            plan.all(history(&sets, spec.history_limit));
        }
        let revision = sets.new.as_ref().and_then(Rs::next_revision);
        if let Some(revision) = revision.filter(|r| d.metadata.annotations.get(REVISION) != Some(*r)) {
            // The status is written once the cache shows this version.
            let body = json!({"metadata": {
                "resourceVersion": d.metadata.resource_version,
                "annotations": {REVISION: revision},
            }});
            plan.one(Action::merge(&resources::DEPLOYMENTS, &ObjectKey::of(d), body));
            return plan;
        }
    }
    if new_status != old_status || d.rest.get("status").is_none() {
        write_status(&mut plan, d, &new_status);
    }
    plan
}

fn write_status(plan: &mut Plan, d: &Object, status: &Status) {
    let mut next = Object::clone(d);
    next.rest.insert("status".into(), serde_json::to_value(status).unwrap_or(Value::Null));
    plan.one(Action::update_status(&resources::DEPLOYMENTS, next));
}

/// Another ReplicaSet has the name: the next hash includes the count of collisions.
fn collide(mut plan: Plan, d: &Object, old: &Status) -> Plan {
    let status = Status { collision_count: Some(old.collision_count.unwrap_or(0) + 1), ..old.clone() };
    write_status(&mut plan, d, &status);
    plan
}

fn claim(observed: &Observed) -> (Sets, Vec<Action>) {
    let d = &observed.deployment;
    let selector = support::selector(d);
    let mut claims = Vec::new();
    let mut old = Vec::new();
    for rs in &observed.replica_sets {
        let matches = selector.matches(&rs.metadata.labels);
        let mut references = rs.metadata.owner_references.clone();
        match rs.controller() {
            Some(c) if c.uid == d.metadata.uid && matches => {
                old.push(Rs::observed(rs));
                continue;
            }
            Some(c) if c.uid == d.metadata.uid => references.retain(|r| r.uid != d.metadata.uid),
            None if matches && !rs.is_terminating() => references.push(d.controller_reference()),
            _ => continue,
        }
        if !d.is_terminating() {
            claims.push(claim_action(rs, &references));
        }
    }
    old.sort_by(|a, b| a.created().cmp(&b.created()));
    (Sets { new: None, old }, claims)
}

fn claim_action(rs: &Object, references: &[OwnerReference]) -> Action {
    let body = json!({"metadata": {
        "uid": rs.metadata.uid,
        "resourceVersion": rs.metadata.resource_version,
        "ownerReferences": references,
    }});
    Action::merge(&resources::REPLICA_SETS, &ObjectKey::of(rs), body).tolerating(&[reason::NOT_FOUND])
}

fn pods_of(pods: &[Arc<Object>]) -> PodsOf {
    let mut of = PodsOf::new();
    for pod in pods {
        if let Some(owner) = pod.controller() {
            of.entry(owner.uid.clone()).or_default().push(Arc::clone(pod));
        }
    }
    of
}

/// Moves the ReplicaSet of the present template to `sets.new`, or makes it if `create`
/// (`getAllReplicaSetsAndSyncRevision`).
fn find_new(d: &Object, spec: &Spec, sets: &mut Sets, create: bool, (now, conditions): (Time, &mut Status)) {
    if sets.new.is_none() {
        if let Some(at) = sets.old.iter().position(|r| has_template(&r.object, d)) {
            sets.new = Some(sets.old.remove(at));
        } else if create {
            let mut new = Rs::of_template(d, 0);
            let all: i64 = sets.old.iter().map(|r| r.replicas).sum();
            new.scale(new_size(spec, all, 0), spec.replicas, spec.replicas + spec.max_surge());
            sets.new = Some(new);
        }
    }
    let revision = sets.old.iter().map(Rs::revision).max().unwrap_or(0) + 1;
    if let Some(new) = &mut sets.new {
        new.inherit(d, revision);
        status::found_condition(now, spec, new, conditions);
    }
}

/// Old ReplicaSets beyond the limit, oldest first, that are empty for sure (`cleanupDeployment`).
fn history(sets: &Sets, limit: usize) -> Vec<Action> {
    let mut old: Vec<&Rs> = sets.old.iter().filter(|r| !r.object.is_terminating()).collect();
    old.sort_by(|a, b| (a.revision(), a.created()).cmp(&(b.revision(), b.created())));
    let excess = old.len().saturating_sub(limit);
    old.into_iter()
        .take(excess)
        .filter(|r| {
            let seen = support::int_at(&r.object, "/status/observedGeneration").unwrap_or(0);
            r.status_replicas == 0 && r.replicas == 0 && seen >= r.object.metadata.generation
        })
        .map(|r| Action::delete(&resources::REPLICA_SETS, &r.object, None))
        .collect()
}

/// The controller of Deployments.
#[derive(Clone, Copy, Debug, Default)]
pub struct Deployments;

impl Deployments {
    fn observe(cache: &Cache, key: &ObjectKey) -> Option<Observed> {
        let deployment = cache.store(&resources::DEPLOYMENTS).get_key(key)?;
        let sets = cache.store(&resources::REPLICA_SETS);
        let selector = support::selector(deployment);
        let replica_sets: BTreeMap<String, Arc<Object>> = sets
            .by(index::CONTROLLER_UID, &deployment.metadata.uid)
            .chain(
                sets.by(support::ORPHANS, &key.namespace).filter(|rs| selector.matches(&rs.metadata.labels)),
            )
            .map(|rs| (rs.metadata.name.clone(), Arc::clone(rs)))
            .collect();
        let pods = cache.store(&resources::PODS);
        let pods = replica_sets
            .values()
            .flat_map(|rs| pods.by(index::CONTROLLER_UID, &rs.metadata.uid))
            .cloned()
            .collect();
        let name = alloc::format!("{}-{}", key.name, hash_of(deployment));
        let name_taken = sets.get(&key.namespace, &name).is_some();
        let replica_sets = replica_sets.into_values().collect();
        Some(Observed { deployment: Arc::clone(deployment), replica_sets, pods, name_taken })
    }
}

impl Controller for Deployments {
    fn name(&self) -> &'static str {
        "deployment-controller"
    }

    fn watches(&self) -> Vec<Gvr> {
        vec![resources::DEPLOYMENTS, resources::REPLICA_SETS, resources::PODS]
    }

    fn indices(&self) -> Vec<(Gvr, &'static str, IndexFn)> {
        vec![
            (resources::REPLICA_SETS, index::CONTROLLER_UID, index::controller_uid()),
            (resources::REPLICA_SETS, support::ORPHANS, support::orphans()),
            (resources::PODS, index::CONTROLLER_UID, index::controller_uid()),
        ]
    }

    fn concerns(&mut self, _now: Time, cache: &Cache, gvr: &Gvr, delta: &Delta, keys: &mut Vec<ObjectKey>) {
        let object = delta.object();
        let namespace = &object.metadata.namespace;
        let owner_of = |rs: &Object| {
            let owner = rs.controller().filter(|c| support::is_kind(c, "apps", "Deployment"));
            owner.map(|c| ObjectKey::new(namespace, &c.name))
        };
        if *gvr == resources::DEPLOYMENTS {
            keys.push(ObjectKey::of(object));
        } else if *gvr == resources::REPLICA_SETS {
            keys.extend(owner_of(object));
            if let Delta::Updated { old, .. } = delta {
                keys.extend(owner_of(old));
            }
            if object.controller().is_none() {
                let deployments = cache.store(&resources::DEPLOYMENTS).list(namespace);
                keys.extend(
                    deployments
                        .filter(|d| support::selector(d).matches(&object.metadata.labels))
                        .map(|d| ObjectKey::of(d)),
                );
            }
        } else if matches!(delta, Delta::Deleted(_)) {
            // A Recreate rollout waits for the last old pod to go.
            let set = object.controller().filter(|c| support::is_kind(c, "apps", "ReplicaSet"));
            let set = set.and_then(|c| cache.store(&resources::REPLICA_SETS).get(namespace, &c.name));
            keys.extend(set.and_then(|rs| owner_of(rs)));
        }
    }

    fn plan(&mut self, now: Time, cache: &Cache, key: &ObjectKey, _rng: &mut Rng) -> Plan {
        Self::observe(cache, key).map_or_else(Plan::none, |observed| plan(&observed, now))
    }
}

#[cfg(test)]
mod tests;
