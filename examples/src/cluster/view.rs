//! The live table of a cluster: on a terminal in place, else a line for each change.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::time::Duration;

use icp_core::api::{Object, resources};

use super::api::Api;
use super::report::Report;

/// Rows of pods on a terminal.
const POD_ROWS_MAX: usize = 20;
/// Between two looks.
const REFRESH: Duration = Duration::from_millis(500);
/// Lines of changes at one look, when not on a terminal.
const CHANGE_LINES_MAX: usize = 40;

/// Whether the condition `kind` of an object is true.
#[must_use]
pub fn condition(object: &Object, kind: &str) -> bool {
    let conditions = object.at("/status/conditions").and_then(|c| c.as_array());
    conditions.is_some_and(|list| {
        list.iter().any(|c| {
            c.get("type").and_then(|t| t.as_str()) == Some(kind)
                && c.get("status").and_then(|s| s.as_str()) == Some("True")
        })
    })
}

/// What `kubectl get pods` says of a pod, nearly.
#[must_use]
pub fn pod_state(pod: &Object) -> String {
    if pod.is_terminating() {
        return "Terminating".into();
    }
    let statuses = ["initContainerStatuses", "containerStatuses"];
    let waiting = statuses
        .iter()
        .filter_map(|field| pod.at(&format!("/status/{field}")).and_then(|s| s.as_array()))
        .flatten()
        .find_map(|s| s.pointer("/state/waiting/reason").and_then(|r| r.as_str()));
    let phase = pod.str_at("/status/phase");
    match waiting {
        Some(reason) if !matches!(reason, "PodInitializing") => reason.into(),
        _ if phase == "Running" && !condition(pod, "Ready") => "Running, not ready".into(),
        _ => phase.into(),
    }
}

#[derive(Default)]
struct Seen {
    nodes: BTreeMap<String, String>,
    pods: BTreeMap<String, String>,
}

impl Seen {
    async fn look(api: &Api) -> Option<Self> {
        let mut seen = Self::default();
        for node in api.list(&resources::NODES, "", "").await.ok()? {
            let state = if condition(&node, "Ready") { "Ready" } else { "NotReady" };
            seen.nodes.insert(node.metadata.name.clone(), state.into());
        }
        for pod in api.list(&resources::PODS, "", "").await.ok()? {
            let name = format!("{}/{}", pod.metadata.namespace, pod.metadata.name);
            let node = pod.str_at("/spec/nodeName");
            let on = if node.is_empty() { String::new() } else { format!(" on {node}") };
            let ip = pod.str_at("/status/podIP");
            let ip = if ip.is_empty() { String::new() } else { format!(" {ip}") };
            seen.pods.insert(name, format!("{}{on}{ip}", pod_state(&pod)));
        }
        Some(seen)
    }

    fn rows(&self) -> Vec<String> {
        let ready = self.nodes.values().filter(|s| *s == "Ready").count();
        let mut head = format!("-- nodes {ready}/{} ready", self.nodes.len());
        if self.nodes.len() <= 12 {
            for (name, state) in &self.nodes {
                let _ = write!(head, "  {name}:{state}");
            }
        }
        let running = self.pods.values().filter(|s| s.starts_with("Running on")).count();
        let mut rows = vec![head, format!("-- pods {running}/{} running and ready", self.pods.len())];
        rows.extend(
            self.pods.iter().take(POD_ROWS_MAX).map(|(name, state)| format!("   {name:<56} {state}")),
        );
        if self.pods.len() > POD_ROWS_MAX {
            rows.push(format!("   ... and {} more", self.pods.len() - POD_ROWS_MAX));
        }
        rows.push("   Ctrl-C ends the cluster and leaves nothing behind".into());
        rows
    }
}

fn changes(
    kind: &str,
    old: &BTreeMap<String, String>,
    new: &BTreeMap<String, String>,
    out: &mut Vec<String>,
) {
    for (name, state) in new {
        if old.get(name) != Some(state) {
            out.push(format!("{kind} {name}: {state}"));
        }
    }
    out.extend(old.keys().filter(|name| !new.contains_key(*name)).map(|name| format!("{kind} {name}: gone")));
}

/// Shows the cluster for ever; the API server being away for a while is shown as it is.
pub async fn show(api: &Api, report: &Report) {
    let mut last = Seen::default();
    loop {
        if let Some(seen) = Seen::look(api).await {
            if report.is_live() {
                report.table(&seen.rows());
            } else {
                let mut lines = Vec::new();
                changes("node", &last.nodes, &seen.nodes, &mut lines);
                changes("pod", &last.pods, &seen.pods, &mut lines);
                let hidden = lines.len().saturating_sub(CHANGE_LINES_MAX);
                lines.truncate(CHANGE_LINES_MAX);
                for line in &lines {
                    report.line("state", line);
                }
                if hidden > 0 {
                    report.line("state", &format!("and {hidden} more changes"));
                }
            }
            last = seen;
        } else if report.is_live() {
            report.table(&["-- the API server does not answer".into()]);
        }
        tokio::time::sleep(REFRESH).await;
    }
}
