//! The row of a pod.

use alloc::format;
use alloc::string::{String, ToString};
use alloc::vec::Vec;

use serde_json::{Value, json};

use super::format::{NONE, View};

/// A container that ended, in words.
fn terminated(state: &View<'_>, prefix: &str) -> Option<String> {
    let ended = state.part("terminated");
    if !state.has("terminated") {
        return None;
    }
    let reason = ended.text("reason");
    Some(if !reason.is_empty() {
        format!("{prefix}{reason}")
    } else if ended.int("signal") != 0 {
        format!("{prefix}Signal:{}", ended.int("signal"))
    } else {
        format!("{prefix}ExitCode:{}", ended.int("exitCode"))
    })
}

#[derive(Default)]
struct Restarts<'v> {
    count: i64,
    last: &'v str,
}

impl<'v> Restarts<'v> {
    fn add(&mut self, status: &View<'v>) {
        self.count += status.int("restartCount");
        // RFC 3339 in UTC sorts as text.
        self.last = self.last.max(status.text("lastState.terminated.finishedAt"));
    }
}

pub(super) fn cells(pod: &View<'_>) -> Vec<Value> {
    let phase = pod.text("status.phase");
    let mut reason = pod.text_or("status.reason", phase).to_string();
    if pod.condition("PodScheduled").is_some_and(|c| c.text("reason") == "SchedulingGated") {
        reason = "SchedulingGated".into();
    }
    let sidecar = |name: &str| {
        let mut all = pod.list("spec.initContainers");
        all.any(|c| c.text("name") == name && c.text("restartPolicy") == "Always")
    };
    let sidecars = pod.list("spec.initContainers").filter(|c| c.text("restartPolicy") == "Always").count();
    let total = pod.len("spec.containers") + sidecars;
    let (mut ready, mut initializing) = (0, false);
    let (mut restarts, mut sidecar_restarts) = (Restarts::default(), Restarts::default());

    for (i, status) in pod.list("status.initContainerStatuses").enumerate() {
        restarts.add(&status);
        let is_sidecar = sidecar(status.text("name"));
        if is_sidecar {
            sidecar_restarts.add(&status);
        }
        let state = status.part("state");
        if state.has("terminated") && state.int("terminated.exitCode") == 0 {
            continue;
        }
        if is_sidecar && status.flag("started") {
            ready += usize::from(status.flag("ready"));
            continue;
        }
        let waiting = state.text("waiting.reason");
        reason = match terminated(&state, "Init:") {
            Some(text) => text,
            None if !waiting.is_empty() && waiting != "PodInitializing" => format!("Init:{waiting}"),
            None => format!("Init:{i}/{}", pod.len("spec.initContainers")),
        };
        initializing = true;
        break;
    }

    if !initializing || pod.condition("Initialized").is_some_and(|c| c.text("status") == "True") {
        restarts = sidecar_restarts;
        let mut running = false;
        for status in pod.list("status.containerStatuses").rev() {
            restarts.add(&status);
            let state = status.part("state");
            let waiting = state.text("waiting.reason");
            if !waiting.is_empty() {
                reason = waiting.into();
            } else if let Some(text) = terminated(&state, "") {
                reason = text;
            } else if status.flag("ready") && state.has("running") {
                running = true;
                ready += 1;
            }
        }
        if reason == "Completed" && running {
            let is_ready = pod.condition("Ready").is_some_and(|c| c.text("status") == "True");
            reason = if is_ready { "Running" } else { "NotReady" }.into();
        }
    }

    if pod.has("metadata.deletionTimestamp") {
        if pod.text("status.reason") == "NodeLost" {
            reason = "Unknown".into();
        } else if !matches!(phase, "Succeeded" | "Failed") {
            reason = "Terminating".into();
        }
    }
    let restarts_text = if restarts.count != 0 && !restarts.last.is_empty() {
        format!("{} ({} ago)", restarts.count, pod.age_of(restarts.last))
    } else {
        restarts.count.to_string()
    };
    let gates: Vec<&str> = pod.list("spec.readinessGates").map(|g| g.text("conditionType")).collect();
    let open = gates.iter().filter(|g| pod.condition(g).is_some_and(|c| c.text("status") == "True")).count();
    let first_ip = pod.list("status.podIPs").next().map_or("", |ip| ip.text("ip"));
    let ip = if first_ip.is_empty() { pod.text_or("status.podIP", NONE) } else { first_ip };
    alloc::vec![
        pod.name().into(),
        format!("{ready}/{total}").into(),
        reason.into(),
        restarts_text.into(),
        pod.age().into(),
        ip.into(),
        pod.text_or("spec.nodeName", NONE).into(),
        pod.text_or("status.nominatedNodeName", NONE).into(),
        if gates.is_empty() { NONE.into() } else { format!("{open}/{}", gates.len()).into() },
    ]
}

/// The condition of the row of a pod that ended.
pub(super) fn completed(pod: &View<'_>) -> Option<Value> {
    let (reason, message) = match pod.text("status.phase") {
        "Succeeded" => ("Succeeded", "The pod has completed successfully."),
        "Failed" => ("Failed", "The pod failed."),
        _ => return None,
    };
    Some(json!({ "type": "Completed", "status": "True", "reason": reason, "message": message }))
}
