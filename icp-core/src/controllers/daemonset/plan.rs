//! The plan.

use alloc::collections::BTreeMap;
use alloc::format;
use alloc::sync::Arc;
use alloc::vec;
use alloc::vec::Vec;

use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::fit::{Fit, fit, node_of, pin, tolerate};
use crate::api::{Gvr, Object, reason, resources};
use crate::base::{Rng, Time};
use crate::client::{Delta, IndexFn, ObjectKey, index};
use crate::controllers::support::{
    self, Availability, IntOrPercent, PodPhase, Revision, availability, history, is_ready, pod_from_template,
};
use crate::controllers::{Action, Cache, Controller, Note, Plan};

/// The label of a pod that names the revision it is of.
const REVISION: &str = "controller-revision-hash";

/// What the plan is made from.
#[derive(Clone, Debug)]
pub struct Observed {
    /// The DaemonSet.
    pub set: Arc<Object>,
    /// The pods that it controls.
    pub pods: Vec<Arc<Object>>,
    /// The ControllerRevisions that it controls.
    pub revisions: Vec<Arc<Object>>,
    /// All nodes.
    pub nodes: Vec<Arc<Object>>,
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde calls it with a reference")]
fn is_zero(n: &i64) -> bool {
    *n == 0
}

#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
struct Status {
    current_number_scheduled: i64,
    desired_number_scheduled: i64,
    #[serde(skip_serializing_if = "is_zero")]
    number_available: i64,
    number_misscheduled: i64,
    number_ready: i64,
    #[serde(skip_serializing_if = "is_zero")]
    number_unavailable: i64,
    #[serde(skip_serializing_if = "is_zero")]
    observed_generation: i64,
    #[serde(skip_serializing_if = "is_zero")]
    updated_number_scheduled: i64,
}

/// Brings one pod to each node that fits, takes the others away, replaces those of old templates, and writes the status.
#[must_use]
pub fn plan(observed: &Observed, now: Time, rng: &mut Rng) -> Plan {
    let Observed { set, pods, revisions, nodes } = observed;
    let mut plan = Plan::none();
    if set.is_terminating() {
        return plan;
    }
    let used = |name: &str| {
        pods.iter().any(|p| {
            let hash = p.metadata.labels.get(REVISION);
            hash.is_some_and(|hash| name.strip_suffix(hash.as_str()).is_some_and(|n| n.ends_with('-')))
        })
    };
    let (revision, actions) = history(set, revisions, used);
    plan.all(actions);
    let spec = set.at("/spec/template/spec").cloned().unwrap_or(Value::Null);
    let mut on: BTreeMap<&str, Vec<&Arc<Object>>> = BTreeMap::new();
    for pod in pods {
        on.entry(node_of(pod)).or_default().push(pod);
    }
    let places: Vec<Place<'_>> = nodes
        .iter()
        .map(|node| Place {
            node: &node.metadata.name,
            fit: fit(&spec, node),
            pods: on.remove(node.metadata.name.as_str()).unwrap_or_default(),
        })
        .collect();
    // What waits for a node that is gone will never be bound.
    let lost =
        on.into_values().flatten().filter(|p| p.str_at("/spec/nodeName").is_empty() && !p.is_terminating());
    let mut deletes: Vec<&Arc<Object>> = lost.collect();
    let mut creates = Vec::new();
    for place in &places {
        let live = || place.pods.iter().copied().filter(|p| !p.is_terminating());
        if !place.fit.stay {
            deletes.extend(live());
            continue;
        }
        let (ended, mut running): (Vec<_>, Vec<_>) = live().partition(|p| PodPhase::of(p).is_finished());
        for pod in &ended {
            let text =
                format!("Found failed daemon pod {} on node {}, will try to kill it", pod.key(), place.node);
            plan.notes.push(Note::warning(set, "FailedDaemonPod", text));
        }
        deletes.extend(ended);
        running.sort_by_key(|p| (p.metadata.creation_timestamp, p.metadata.name.clone()));
        deletes.extend(running.iter().skip(1).copied());
        if place.fit.run && place.pods.is_empty() {
            creates.push(create(set, &revision, place.node, rng));
        }
    }
    let status = status(set, &places, &revision, now, &mut plan);
    if set.str_at("/spec/updateStrategy/type") != "OnDelete" {
        deletes.extend(outdated(set, &places, &revision, &status, &deletes, now));
    }
    let old: Option<Status> = set.view("status").ok();
    if old.as_ref() != Some(&status) {
        let mut next = Object::clone(set);
        next.rest.insert("status".into(), serde_json::to_value(&status).unwrap_or(Value::Null));
        plan.one(Action::update_status(&resources::DAEMON_SETS, next));
    }
    plan.all(deletes.into_iter().map(|pod| delete(set, pod)).collect());
    plan.slow_start(creates);
    plan
}

/// A node and the set's pods on it.
struct Place<'a> {
    node: &'a str,
    fit: Fit,
    pods: Vec<&'a Arc<Object>>,
}

fn min_ready(set: &Object) -> i64 {
    support::int_at(set, "/spec/minReadySeconds").unwrap_or(0)
}

fn is_available(set: &Object, pod: &Object, now: Time) -> bool {
    !pod.is_terminating() && availability(pod, min_ready(set), now) == Availability::Available
}

fn is_updated(pod: &Object, revision: &Revision) -> bool {
    pod.metadata.labels.get(REVISION) == Some(&revision.hash)
}

fn create(set: &Arc<Object>, revision: &Revision, node: &str, rng: &mut Rng) -> Action {
    let prefix = format!("{}-", set.metadata.name);
    let mut pod = pod_from_template(set, set.controller_reference(), set.at("/spec/template"), &prefix, rng);
    pod.metadata.labels.insert(REVISION.into(), revision.hash.clone());
    if let Some(spec) = pod.rest.get_mut("spec") {
        tolerate(spec);
        pin(spec, node);
    }
    let told = Note::normal(set, "SuccessfulCreate", format!("Created pod: {}", pod.metadata.name));
    let failure = Note::warning(set, "FailedCreate", "Error creating: ");
    Action::create(&resources::PODS, pod).told(told).told_failure(failure)
}

fn delete(set: &Arc<Object>, pod: &Arc<Object>) -> Action {
    let told = Note::normal(set, "SuccessfulDelete", format!("Deleted pod: {}", pod.metadata.name));
    Action::delete(&resources::PODS, pod, None).told(told).tolerating(&[reason::NOT_FOUND])
}

fn status(set: &Object, places: &[Place<'_>], revision: &Revision, now: Time, plan: &mut Plan) -> Status {
    let mut status = Status { observed_generation: set.metadata.generation, ..Status::default() };
    for place in places {
        if !place.fit.run {
            status.number_misscheduled += i64::from(!place.pods.is_empty());
            continue;
        }
        status.desired_number_scheduled += 1;
        // The oldest stands for the node, as upstream.
        let oldest = place.pods.iter().min_by_key(|p| (p.metadata.creation_timestamp, &p.metadata.name));
        let Some(pod) = oldest else { continue };
        status.current_number_scheduled += 1;
        if is_ready(pod) {
            status.number_ready += 1;
            match availability(pod, min_ready(set), now) {
                Availability::Available => status.number_available += 1,
                Availability::At(due) => plan.again(due),
                Availability::Unready => {}
            }
        }
        status.updated_number_scheduled += i64::from(is_updated(pod, revision));
    }
    status.number_unavailable = status.desired_number_scheduled - status.number_available;
    status
}

/// Pods of old templates that may go now (`rollingUpdate`): those that serve nobody, and of the others so many that no
/// more than `maxUnavailable` nodes are without an available pod.
fn outdated<'a>(
    set: &Object,
    places: &[Place<'a>],
    revision: &Revision,
    status: &Status,
    going: &[&Arc<Object>],
    now: Time,
) -> Vec<&'a Arc<Object>> {
    let limit = |field: &str| {
        let value = set.at(&format!("/spec/updateStrategy/rollingUpdate/{field}"))?;
        let scaled = IntOrPercent::deserialize(value).ok()?.scaled(status.desired_number_scheduled, true);
        Some(scaled).filter(|n| *n > 0)
    };
    let limit = limit("maxUnavailable").or_else(|| limit("maxSurge")).unwrap_or(1);
    let is_going = |pod: &Object| going.iter().any(|g| g.metadata.uid == pod.metadata.uid);
    let mut unavailable = 0;
    let (mut broken, mut working) = (Vec::new(), Vec::new());
    for place in places.iter().filter(|p| p.fit.run) {
        let serves = |pod: &Object| is_available(set, pod, now) && !is_going(pod);
        unavailable += i64::from(!place.pods.iter().any(|p| serves(p)));
        for pod in place
            .pods
            .iter()
            .copied()
            .filter(|p| !p.is_terminating() && !is_going(p) && !is_updated(p, revision))
        {
            if serves(pod) { working.push(pod) } else { broken.push(pod) }
        }
    }
    let budget = usize::try_from(limit - unavailable).unwrap_or(0);
    broken.into_iter().chain(working.into_iter().take(budget)).collect()
}

/// The controller of DaemonSets.
#[derive(Clone, Copy, Debug, Default)]
pub struct DaemonSets;

impl Controller for DaemonSets {
    fn name(&self) -> &'static str {
        "daemonset-controller"
    }

    fn watches(&self) -> Vec<Gvr> {
        vec![resources::DAEMON_SETS, resources::PODS, resources::NODES, resources::CONTROLLER_REVISIONS]
    }

    fn indices(&self) -> Vec<(Gvr, &'static str, IndexFn)> {
        vec![
            (resources::PODS, index::CONTROLLER_UID, index::controller_uid()),
            (resources::CONTROLLER_REVISIONS, index::CONTROLLER_UID, index::controller_uid()),
        ]
    }

    fn concerns(&mut self, _now: Time, cache: &Cache, gvr: &Gvr, delta: &Delta, keys: &mut Vec<ObjectKey>) {
        let object = delta.object();
        if *gvr == resources::DAEMON_SETS {
            keys.push(ObjectKey::of(object));
        } else if *gvr == resources::NODES {
            // Heartbeats change nothing that matters here.
            if let Delta::Updated { old, new } = delta
                && old.metadata.labels == new.metadata.labels
                && old.at("/spec/taints") == new.at("/spec/taints")
            {
                return;
            }
            keys.extend(cache.store(&resources::DAEMON_SETS).iter().map(|set| ObjectKey::of(set)));
        } else if let Some(c) = object.controller().filter(|c| support::is_kind(c, "apps", "DaemonSet")) {
            keys.push(ObjectKey::new(&object.metadata.namespace, &c.name));
        }
    }

    fn plan(&mut self, now: Time, cache: &Cache, key: &ObjectKey, rng: &mut Rng) -> Plan {
        let Some(set) = cache.store(&resources::DAEMON_SETS).get_key(key) else { return Plan::none() };
        let mine =
            |gvr: &Gvr| cache.store(gvr).by(index::CONTROLLER_UID, &set.metadata.uid).cloned().collect();
        let observed = Observed {
            set: Arc::clone(set),
            pods: mine(&resources::PODS),
            revisions: mine(&resources::CONTROLLER_REVISIONS),
            nodes: cache.store(&resources::NODES).iter().cloned().collect(),
        };
        plan(&observed, now, rng)
    }
}

#[cfg(test)]
mod tests;
