//! What a simulated container does.

use alloc::collections::{BTreeMap, BTreeSet};
use alloc::format;
use alloc::string::String;

use icp_core::base::Duration;

use super::script::{End, Run};
use crate::runtime::{ContainerKind, ContainerSpec};

/// How a simulated runtime behaves.
#[derive(Clone, Debug, PartialEq)]
pub struct SimRules {
    /// From a call that makes a sandbox to its answer.
    pub sandbox_latency: Duration,
    /// From a call that pulls an image to its answer.
    pub pull_latency: Duration,
    /// From a call that starts a container to its answer.
    pub start_latency: Duration,
    /// From the stop signal to the end of a container.
    pub stop_latency: Duration,
    /// Images that no registry has.
    pub absent_images: BTreeSet<String>,
    /// What containers of an image do, unless their pod says otherwise.
    pub images: BTreeMap<String, Behaviour>,
}

impl Default for SimRules {
    fn default() -> Self {
        Self {
            sandbox_latency: Duration::from_millis(20),
            pull_latency: Duration::from_millis(50),
            start_latency: Duration::from_millis(20),
            stop_latency: Duration::from_millis(20),
            absent_images: BTreeSet::new(),
            images: BTreeMap::new(),
        }
    }
}

/// What a simulated container does.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Behaviour {
    /// Until it ends by itself; `None` is for ever.
    pub run_for: Option<Duration>,
    /// The code it ends with.
    pub exit_code: i32,
    /// Whether it ends for want of memory.
    pub oom: bool,
    /// Whether commands in it fail.
    pub fail_exec: bool,
    /// Whether HTTP probes of its pod fail.
    pub fail_http: bool,
    /// Whether TCP probes of its pod fail.
    pub fail_tcp: bool,
    /// Whether gRPC probes of its pod fail.
    pub fail_grpc: bool,
    /// Whether it cannot be started.
    pub fail_start: bool,
    /// What is in its log; without it, what its command writes.
    pub log: Option<String>,
}

impl Behaviour {
    /// What a container does: its pod's annotations over its command over the rule of its image.
    #[must_use]
    pub(super) fn of(
        rules: &SimRules,
        annotations: &BTreeMap<String, String>,
        name: &str,
        spec: &ContainerSpec,
        run: &Run,
    ) -> Self {
        let mut it = rules.images.get(&spec.image).cloned().unwrap_or_default();
        let command: alloc::vec::Vec<&str> =
            spec.command.iter().chain(&spec.args).map(String::as_str).collect();
        if let End::Exit(at, code) = run.end {
            it.run_for = Some(at);
            it.exit_code = code;
        } else if matches!(run.end, End::Loops { .. } | End::Never) {
            it.run_for = None;
        } else if let Some((seconds, code)) = understood(&command) {
            it.run_for = Some(Duration::from_secs(seconds));
            it.exit_code = code;
        } else if spec.kind == ContainerKind::Init && it.run_for.is_none() {
            it.run_for = Some(Duration::ZERO);
        }
        let get = |what: &str| {
            annotations
                .get(&format!("sim.icp/{name}.{what}"))
                .or_else(|| annotations.get(&format!("sim.icp/{what}")))
                .map(String::as_str)
        };
        if let Some(seconds) = get("run-for").and_then(|t| t.parse().ok()) {
            it.run_for = Some(Duration::from_secs(seconds));
        }
        if let Some(code) = get("exit-code").and_then(|t| t.parse().ok()) {
            it.exit_code = code;
        }
        it.oom |= get("oom") == Some("true");
        if let Some(text) = get("log") {
            it.log = Some(text.into());
        }
        for what in get("fail").unwrap_or_default().split(',') {
            match what.trim() {
                "exec" => it.fail_exec = true,
                "http" => it.fail_http = true,
                "tcp" => it.fail_tcp = true,
                "grpc" => it.fail_grpc = true,
                "start" => it.fail_start = true,
                _ => {}
            }
        }
        it
    }
}

/// How long a command runs, in seconds, and its exit code, where a script is not understood as a whole but says when
/// it ends.
fn understood(command: &[&str]) -> Option<(u64, i32)> {
    let program = command.first()?.rsplit('/').next()?;
    let argument = command.get(1).copied().unwrap_or_default();
    match program {
        "true" => Some((0, 0)),
        "false" => Some((0, 1)),
        "sleep" => argument.parse().ok().map(|n| (n, 0)),
        "sh" | "bash" | "ash" if argument == "-c" => {
            let mut found = None;
            for part in command.get(2)?.split([';', '&', '\n']) {
                let mut words = part.split_whitespace();
                let (word, number) = (words.next(), words.next());
                let (seconds, _) = found.unwrap_or((0, 0));
                match (word, number) {
                    (Some("sleep"), Some(n)) => {
                        found = Some((n.parse::<u64>().ok()?.saturating_add(seconds), 0))
                    }
                    (Some("exit"), n) => return Some((seconds, n.unwrap_or("0").parse().ok()?)),
                    (Some("while" | "for" | "until" | "exec" | "trap"), _) => return None,
                    _ => {}
                }
            }
            found
        }
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn commands() {
        assert_eq!(understood(&["sleep", "5"]), Some((5, 0)));
        assert_eq!(understood(&["/bin/sh", "-c", "echo hi; sleep 2; exit 3"]), Some((2, 3)));
        assert_eq!(understood(&["sh", "-c", "while true; do sleep 1; done"]), None);
        assert_eq!(understood(&["nginx"]), None);
        assert_eq!(understood(&[]), None);
    }
}
