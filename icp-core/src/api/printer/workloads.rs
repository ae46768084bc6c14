//! The rows of controllers of pods.

use alloc::format;
use alloc::string::{String, ToString};
use alloc::vec::Vec;

use serde_json::Value;

use super::format::{NONE, View, human_duration, title};

fn with_template(v: &View<'_>, mut cells: Vec<Value>, pod_spec: &str) -> Vec<Value> {
    cells.extend(v.containers(pod_spec));
    cells
}

const TEMPLATE: &str = "spec.template.spec";

/// ReplicaSets and ReplicationControllers.
pub(super) fn replicas(v: &View<'_>) -> Vec<Value> {
    let cells = alloc::vec![
        v.name().into(),
        v.int("spec.replicas").into(),
        v.int("status.replicas").into(),
        v.int("status.readyReplicas").into(),
        v.age().into(),
    ];
    let mut cells = with_template(v, cells, TEMPLATE);
    let plain = v
        .at("spec.selector")
        .is_some_and(|s| s.get("matchLabels").is_none() && s.get("matchExpressions").is_none());
    cells.push(if plain { v.pairs("spec.selector") } else { v.selector("spec.selector") }.into());
    cells
}

pub(super) fn daemon_set(v: &View<'_>) -> Vec<Value> {
    let cells = alloc::vec![
        v.name().into(),
        v.int("status.desiredNumberScheduled").into(),
        v.int("status.currentNumberScheduled").into(),
        v.int("status.numberReady").into(),
        v.int("status.updatedNumberScheduled").into(),
        v.int("status.numberAvailable").into(),
        v.pairs("spec.template.spec.nodeSelector").into(),
        v.age().into(),
    ];
    let mut cells = with_template(v, cells, TEMPLATE);
    cells.push(v.selector("spec.selector").into());
    cells
}

pub(super) fn stateful_set(v: &View<'_>) -> Vec<Value> {
    let ready = format!("{}/{}", v.int("status.readyReplicas"), v.int("spec.replicas"));
    with_template(v, alloc::vec![v.name().into(), ready.into(), v.age().into()], TEMPLATE)
}

pub(super) fn deployment(v: &View<'_>) -> Vec<Value> {
    let ready = format!("{}/{}", v.int("status.readyReplicas"), v.int("spec.replicas"));
    let cells = alloc::vec![
        v.name().into(),
        ready.into(),
        v.int("status.updatedReplicas").into(),
        v.int("status.availableReplicas").into(),
        v.age().into(),
    ];
    let mut cells = with_template(v, cells, TEMPLATE);
    cells.push(v.selector("spec.selector").into());
    cells
}

pub(super) fn job(v: &View<'_>) -> Vec<Value> {
    let is = |kind: &str| v.condition(kind).is_some_and(|c| c.text("status") == "True");
    let status = match () {
        () if is("Complete") => "Complete",
        () if is("Failed") => "Failed",
        () if v.has("metadata.deletionTimestamp") => "Terminating",
        () if is("Suspended") => "Suspended",
        () if is("FailureTarget") => "FailureTarget",
        () if is("SuccessCriteriaMet") => "SuccessCriteriaMet",
        () => "Running",
    };
    let (done, parallel) = (v.int("status.succeeded"), v.int("spec.parallelism"));
    let completions = match v.at("spec.completions").and_then(Value::as_i64) {
        Some(all) => format!("{done}/{all}"),
        None if parallel > 1 => format!("{done}/1 of {parallel}"),
        None => format!("{done}/1"),
    };
    let seconds = |path: &str| v.seconds_since(v.text(path));
    let duration: String = match (seconds("status.startTime"), seconds("status.completionTime")) {
        (None, _) => String::new(),
        (Some(start), None) => human_duration(start),
        (Some(start), Some(end)) => human_duration(start - end),
    };
    let cells =
        alloc::vec![v.name().into(), status.into(), completions.into(), duration.into(), v.age().into()];
    let mut cells = with_template(v, cells, TEMPLATE);
    cells.push(v.selector("spec.selector").into());
    cells
}

pub(super) fn cron_job(v: &View<'_>) -> Vec<Value> {
    let last = v.text("status.lastScheduleTime");
    let last = if last.is_empty() { NONE.to_string() } else { v.age_of(last) };
    let cells = alloc::vec![
        v.name().into(),
        v.text("spec.schedule").into(),
        v.text_or("spec.timeZone", NONE).into(),
        title(v.flag("spec.suspend")).into(),
        v.len("status.active").into(),
        last.into(),
        v.age().into(),
    ];
    let mut cells = with_template(v, cells, "spec.jobTemplate.spec.template.spec");
    cells.push(v.selector("spec.jobTemplate.spec.selector").into());
    cells
}

/// What an autoscaler aims at: `cpu: 10%/80%`.
fn targets(v: &View<'_>) -> String {
    const UNKNOWN: &str = "<unknown>";
    let number = |v: &View<'_>, percent: bool| {
        let used = v.at("averageUtilization").and_then(Value::as_i64);
        match used.filter(|_| percent) {
            Some(n) => Some(format!("{n}%")),
            None => [("averageValue"), ("value")]
                .iter()
                .find_map(|f| v.at(f).map(|_| v.scalar(f, "")))
                .map(|t| if v.has("averageValue") { format!("{t} (avg)") } else { t }),
        }
    };
    let mut all = Vec::new();
    for (i, metric) in v.list("spec.metrics").enumerate() {
        let (field, label) = match metric.text("type") {
            "Resource" => ("resource", metric.text("resource.name").to_string() + ": "),
            "ContainerResource" => {
                ("containerResource", metric.text("containerResource.name").to_string() + ": ")
            }
            "Pods" => ("pods", String::new()),
            "Object" => ("object", String::new()),
            "External" => ("external", String::new()),
            _ => ("", String::new()),
        };
        let target = metric.part(field).part("target");
        let percent = target.has("averageUtilization");
        let current = v.list("status.currentMetrics").nth(i).map(|m| m.part(field).part("current"));
        let current = current.and_then(|c| number(&c, percent)).map(|c| c.replace(" (avg)", ""));
        let target = number(&target, percent).unwrap_or_else(|| "<auto>".into());
        all.push(format!("{label}{}/{target}", current.unwrap_or_else(|| UNKNOWN.into())));
    }
    if all.is_empty() {
        // autoscaling/v1 has the one metric in a field of its own.
        return match v.at("spec.targetCPUUtilizationPercentage").and_then(Value::as_i64) {
            Some(goal) => {
                let now = v.at("status.currentCPUUtilizationPercentage").and_then(Value::as_i64);
                format!("cpu: {}/{goal}%", now.map_or_else(|| UNKNOWN.into(), |n| format!("{n}%")))
            }
            None => NONE.into(),
        };
    }
    let more = all.len().saturating_sub(2);
    all.truncate(2);
    let text = all.join(", ");
    if more > 0 { format!("{text} + {more} more...") } else { text }
}

pub(super) fn autoscaler(v: &View<'_>) -> Vec<Value> {
    let reference = format!("{}/{}", v.text("spec.scaleTargetRef.kind"), v.text("spec.scaleTargetRef.name"));
    alloc::vec![
        v.name().into(),
        reference.into(),
        targets(v).into(),
        v.scalar("spec.minReplicas", "<unset>").into(),
        v.int("spec.maxReplicas").into(),
        v.int("status.currentReplicas").into(),
        v.age().into(),
    ]
}
