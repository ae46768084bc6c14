//! What controllers see in a pod.

use alloc::string::String;
use alloc::sync::Arc;
use alloc::vec::Vec;
use core::cmp::Ordering;

use serde::Deserialize;
use serde_json::{Map, Value};

use super::conditions::{Condition, condition, set_condition};
use crate::api::{Object, ObjectMeta, OwnerReference, reason, resources};
use crate::base::{Duration, Rng, Time};
use crate::client::Operation;
use crate::controllers::Action;

/// `status.phase`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum PodPhase {
    Pending,
    Running,
    Succeeded,
    Failed,
    Unknown,
}

/// The status fields that controllers read.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub(crate) struct PodView {
    pub(crate) phase: String,
    pub(crate) conditions: Vec<Condition>,
    pub(crate) container_statuses: Vec<ContainerStatus>,
}

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub(crate) struct ContainerStatus {
    pub(crate) restart_count: i64,
}

impl PodView {
    pub(crate) fn of(pod: &Object) -> Self {
        pod.view("status").unwrap_or_default()
    }

    pub(crate) fn ready(&self) -> Option<&Condition> {
        condition(&self.conditions, "Ready").filter(|c| c.is_true())
    }
}

impl PodPhase {
    pub(crate) fn of(pod: &Object) -> Self {
        match pod.str_at("/status/phase") {
            "" | "Pending" => Self::Pending,
            "Running" => Self::Running,
            "Succeeded" => Self::Succeeded,
            "Failed" => Self::Failed,
            _ => Self::Unknown,
        }
    }

    pub(crate) const fn is_finished(self) -> bool {
        matches!(self, Self::Succeeded | Self::Failed)
    }
}

/// Whether the pod is neither finished nor being deleted (`controller.IsPodActive`).
pub(crate) fn is_active(pod: &Object) -> bool {
    !PodPhase::of(pod).is_finished() && !pod.is_terminating()
}

/// Whether the condition Ready is true.
pub(crate) fn is_ready(pod: &Object) -> bool {
    PodView::of(pod).ready().is_some()
}

/// Whether a pod was ready for long enough.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Availability {
    /// It is not ready.
    Unready,
    /// It is ready, and will be available then.
    At(Time),
    /// It is available.
    Available,
}

/// Whether the pod is ready since `min_ready_seconds` (`podutil.IsPodAvailable`).
pub(crate) fn availability(pod: &Object, min_ready_seconds: i64, now: Time) -> Availability {
    let view = PodView::of(pod);
    let Some(ready) = view.ready() else { return Availability::Unready };
    if min_ready_seconds <= 0 {
        return Availability::Available;
    }
    let Some(since) = ready.last_transition_time else { return Availability::Unready };
    let due = since + Duration::from_secs(u64::try_from(min_ready_seconds).unwrap_or(0));
    if due <= now { Availability::Available } else { Availability::At(due) }
}

/// Which of two pods goes first when there are too many (`controller.ActivePodsWithRanks`): unassigned before assigned,
/// pending before unknown before running, not ready before ready, lower deletion cost first, more pods of the same
/// owner family on the node first, ready for a shorter time first, more restarts first, younger first.
/// `rank` counts the pods of the family on the same node. Ages are compared on a logarithmic scale
/// (LogarithmicScaleDown), ties by uid.
pub(crate) fn deletion_order(a: (&Object, usize), b: (&Object, usize), now: Time) -> Ordering {
    let ((a, rank_a), (b, rank_b)) = (a, b);
    let (view_a, view_b) = (PodView::of(a), PodView::of(b));
    let assigned = |p: &Object| !p.str_at("/spec/nodeName").is_empty();
    let phase = |p: &Object| match PodPhase::of(p) {
        PodPhase::Pending => 0,
        PodPhase::Unknown => 1,
        _ => 2,
    };
    let cost = |p: &Object| {
        let text = p.metadata.annotations.get("controller.kubernetes.io/pod-deletion-cost");
        text.and_then(|t| t.parse::<i32>().ok()).unwrap_or(0)
    };
    let restarts = |v: &PodView| v.container_statuses.iter().map(|c| c.restart_count).max().unwrap_or(0);
    // A shorter time goes first; one that is not known goes before all.
    let age =
        |since: Option<Time>| since.map(|t| now.since(t).as_secs().checked_ilog2().map_or(0, |n| n + 1));
    let ready_age = |v: &PodView| age(v.ready().and_then(|c| c.last_transition_time));
    assigned(a)
        .cmp(&assigned(b))
        .then_with(|| phase(a).cmp(&phase(b)))
        .then_with(|| view_a.ready().is_some().cmp(&view_b.ready().is_some()))
        .then_with(|| cost(a).cmp(&cost(b)))
        .then_with(|| rank_b.cmp(&rank_a))
        .then_with(|| ready_age(&view_a).cmp(&ready_age(&view_b)))
        .then_with(|| restarts(&view_b).cmp(&restarts(&view_a)))
        .then_with(|| age(a.metadata.creation_timestamp).cmp(&age(b.metadata.creation_timestamp)))
        .then_with(|| a.metadata.uid.cmp(&b.metadata.uid))
}

/// The metadata and spec of `template` as a pod of `owner`, named by `prefix` and a random suffix.
pub(crate) fn pod_from_template(
    owner: &Object,
    reference: OwnerReference,
    template: Option<&Value>,
    prefix: &str,
    rng: &mut Rng,
) -> Object {
    let meta: ObjectMeta = template
        .and_then(|t| t.get("metadata"))
        .and_then(|m| ObjectMeta::deserialize(m).ok())
        .unwrap_or_default();
    let mut pod = Object::new("v1", "Pod", &owner.metadata.namespace, "");
    pod.metadata.labels = meta.labels;
    pod.metadata.annotations = meta.annotations;
    pod.metadata.finalizers = meta.finalizers;
    pod.metadata.owner_references = alloc::vec![reference];
    super::name_generated(&mut pod, prefix, rng);
    let spec = template.and_then(|t| t.get("spec")).cloned().unwrap_or_else(|| Value::Object(Map::new()));
    pod.rest.insert("spec".into(), spec);
    pod
}

/// How many active pods of `family` run on the node of each of `pods`.
pub(crate) fn node_ranks(pods: &[Arc<Object>], family: &[Arc<Object>]) -> Vec<usize> {
    pods.iter()
        .map(|pod| {
            let node = pod.str_at("/spec/nodeName");
            if node.is_empty() {
                return 0;
            }
            family.iter().filter(|p| is_active(p) && p.str_at("/spec/nodeName") == node).count()
        })
        .collect()
}

/// The pod's status with phase Failed and the condition DisruptionTarget (KEP-3329).
pub(crate) fn fail_pod(pod: &Object, now: Time, why: &str, message: &str) -> Action {
    let mut action = disruption_target(pod, now, why, message);
    if let Operation::Update(object) = &mut action.request.op {
        let mut next = Object::clone(object);
        super::set(&mut next, "status", "phase", Value::from("Failed"));
        *object = Arc::new(next);
    }
    action
}

/// The pod's status with the condition DisruptionTarget: why it is about to be deleted.
pub(crate) fn disruption_target(pod: &Object, now: Time, why: &str, message: &str) -> Action {
    let mut view = PodView::of(pod);
    set_condition(&mut view.conditions, Condition::new(now, "DisruptionTarget", true, why, message));
    let mut next = pod.clone();
    super::set(&mut next, "status", "conditions", serde_json::json!(view.conditions));
    Action::update_status(&resources::PODS, next).tolerating(&[reason::NOT_FOUND])
}
