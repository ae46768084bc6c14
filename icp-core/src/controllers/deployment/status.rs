//! The status: counts and conditions.

use alloc::format;
use alloc::vec::Vec;

use serde::{Deserialize, Serialize};

use super::plan::Spec;
use super::replica_sets::Rs;
use crate::api::Object;
use crate::base::{Duration, Time};
use crate::controllers::Plan;
use crate::controllers::support::{Condition, condition, set_condition};

#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub(super) struct Status {
    #[serde(skip_serializing_if = "is_zero")]
    pub(super) observed_generation: i64,
    #[serde(skip_serializing_if = "is_zero")]
    pub(super) replicas: i64,
    #[serde(skip_serializing_if = "is_zero")]
    pub(super) updated_replicas: i64,
    #[serde(skip_serializing_if = "is_zero")]
    pub(super) ready_replicas: i64,
    #[serde(skip_serializing_if = "is_zero")]
    pub(super) available_replicas: i64,
    #[serde(skip_serializing_if = "is_zero")]
    pub(super) unavailable_replicas: i64,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) collision_count: Option<i64>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub(super) conditions: Vec<Condition>,
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde calls it with a reference")]
fn is_zero(n: &i64) -> bool {
    *n == 0
}

fn updated(now: Time, mut c: Condition) -> Condition {
    c.last_update_time = Some(now);
    c
}

/// Counts, and the condition Available (`calculateStatus`).
pub(super) fn counts(
    now: Time,
    d: &Object,
    spec: &Spec,
    new: Option<&Rs>,
    all: &[&Rs],
    old: &Status,
) -> Status {
    let available: i64 = all.iter().map(|r| r.available).sum();
    let total: i64 = all.iter().map(|r| r.replicas).sum();
    let mut status = Status {
        observed_generation: d.metadata.generation,
        replicas: all.iter().map(|r| r.status_replicas).sum(),
        updated_replicas: new.map_or(0, |r| r.status_replicas),
        ready_replicas: all.iter().map(|r| r.ready).sum(),
        available_replicas: available,
        unavailable_replicas: (total - available).max(0),
        collision_count: old.collision_count,
        conditions: old.conditions.clone(),
    };
    let enough = available >= spec.replicas - spec.max_unavailable();
    let condition = if enough {
        Condition::new(
            now,
            "Available",
            true,
            "MinimumReplicasAvailable",
            "Deployment has minimum availability.",
        )
    } else {
        let message = "Deployment does not have minimum availability.";
        Condition::new(now, "Available", false, "MinimumReplicasUnavailable", message)
    };
    set_condition(&mut status.conditions, updated(now, condition));
    status
}

impl Status {
    /// Every pod is of the new template and available (`DeploymentComplete`).
    pub(super) fn complete(&self, d: &Object, spec: &Spec) -> bool {
        self.updated_replicas == spec.replicas
            && self.replicas == spec.replicas
            && self.available_replicas == spec.replicas
            && self.observed_generation >= d.metadata.generation
    }

    fn progressed_from(&self, old: &Self) -> bool {
        self.updated_replicas > old.updated_replicas
            || self.replicas - self.updated_replicas < old.replicas - old.updated_replicas
            || self.ready_replicas > old.ready_replicas
            || self.available_replicas > old.available_replicas
    }
}

fn deadline_of(progressing: &Condition, seconds: u64) -> Option<Time> {
    progressing
        .last_update_time
        .or(progressing.last_transition_time)
        .map(|t| t + Duration::from_secs(seconds))
}

/// The condition Progressing of a rollout (`syncRolloutStatus`), and when to look at it again.
pub(super) fn progress(
    now: Time,
    d: &Object,
    spec: &Spec,
    new: Option<&Rs>,
    (status, old): (&mut Status, &Status),
    plan: &mut Plan,
) {
    let Some(seconds) = spec.progress_deadline() else {
        status.conditions.retain(|c| c.kind != "Progressing");
        return;
    };
    let subject = match new {
        Some(rs) => format!("ReplicaSet \"{}\"", rs.name()),
        None => format!("Deployment \"{}\"", d.metadata.name),
    };
    let current = condition(&status.conditions, "Progressing").cloned();
    let current = current.as_ref();
    let was_complete = status.replicas == status.updated_replicas
        && current.is_some_and(|c| c.reason == "NewReplicaSetAvailable");
    if !was_complete {
        let timed_out = current.is_some_and(|c| {
            c.reason == "ProgressDeadlineExceeded"
                || c.reason != "NewReplicaSetAvailable"
                    && deadline_of(c, seconds).is_some_and(|due| due < now)
        });
        if status.complete(d, spec) {
            let message = format!("{subject} has successfully progressed.");
            let c = Condition::new(now, "Progressing", true, "NewReplicaSetAvailable", message);
            set_condition(&mut status.conditions, updated(now, c));
        } else if status.progressed_from(old) {
            let mut c = Condition::new(
                now,
                "Progressing",
                true,
                "ReplicaSetUpdated",
                format!("{subject} is progressing."),
            );
            if let Some(current) = current.filter(|c| c.is_true()) {
                c.last_transition_time = current.last_transition_time;
            }
            // The time of the update matters to the deadline, even if nothing else changed.
            status.conditions.retain(|c| c.kind != "Progressing");
            status.conditions.push(updated(now, c));
        } else if timed_out && !spec.paused {
            let message = format!("{subject} has timed out progressing.");
            let c = Condition::new(now, "Progressing", false, "ProgressDeadlineExceeded", message);
            set_condition(&mut status.conditions, updated(now, c));
        }
    }
    let waits = condition(&status.conditions, "Progressing").filter(|c| {
        c.reason != "ProgressDeadlineExceeded" && c.reason != "NewReplicaSetAvailable" && !spec.paused
    });
    if let Some(due) = waits.and_then(|c| deadline_of(c, seconds)) {
        plan.again(due.max(now) + Duration::from_secs(1));
    }
}

/// The condition ReplicaFailure, taken over from the ReplicaSets.
pub(super) fn replica_failure(now: Time, all: &[&Rs], status: &mut Status) {
    let failure = all.iter().rev().find_map(|rs| {
        let conditions: Vec<Condition> = Vec::deserialize(rs.object.at("/status/conditions")?).ok()?;
        conditions.into_iter().find(|c| c.kind == "ReplicaFailure" && c.is_true())
    });
    match failure {
        Some(c) => {
            let c = Condition::new(now, "ReplicaFailure", true, &c.reason, c.message);
            set_condition(&mut status.conditions, updated(now, c));
        }
        None => status.conditions.retain(|c| c.kind != "ReplicaFailure"),
    }
}

/// Progressing says that the Deployment was paused or resumed (`checkPausedConditions`).
pub(super) fn pause_condition(now: Time, spec: &Spec, status: &mut Status) {
    if spec.progress_deadline().is_none() {
        return;
    }
    let reason = condition(&status.conditions, "Progressing").map_or("", |c| c.reason.as_str());
    if reason == "ProgressDeadlineExceeded" {
        return;
    }
    let (reason, message) = match (spec.paused, reason == "DeploymentPaused") {
        (true, false) => ("DeploymentPaused", "Deployment is paused"),
        (false, true) => ("DeploymentResumed", "Deployment is resumed"),
        _ => return,
    };
    let mut c = Condition::new(now, "Progressing", true, reason, message);
    c.status = "Unknown".into();
    set_condition(&mut status.conditions, updated(now, c));
}

/// Progressing says that the ReplicaSet of the template was made or found.
pub(super) fn found_condition(now: Time, spec: &Spec, new: &Rs, status: &mut Status) {
    if spec.progress_deadline().is_none() {
        return;
    }
    let c = if new.is_new() {
        let message = format!("Created new replica set \"{}\"", new.name());
        Condition::new(now, "Progressing", true, "NewReplicaSetCreated", message)
    } else if condition(&status.conditions, "Progressing").is_none() {
        let message = format!("Found new replica set \"{}\"", new.name());
        Condition::new(now, "Progressing", true, "FoundNewReplicaSet", message)
    } else {
        return;
    };
    set_condition(&mut status.conditions, updated(now, c));
}
