//! What the failure of a pod means: `spec.podFailurePolicy`, and the pause before the next pod.

use alloc::string::String;
use alloc::vec::Vec;

use serde::Deserialize;
use serde_json::Value;

use crate::api::Object;
use crate::base::{Duration, Time};

/// Pause after the first failure (`DefaultJobPodFailureBackOff`), doubled with each.
const BACKOFF: Duration = Duration::from_secs(10);
/// Longest pause (`MaxJobPodFailureBackOff`).
const BACKOFF_MAX: Duration = Duration::from_secs(600);

/// What a failed pod does to its Job.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Effect {
    /// It counts towards the backoff limit.
    Count,
    /// It is replaced and does not count.
    Ignore,
    /// The Job fails.
    FailJob,
}

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub(super) struct Policy {
    rules: Vec<Rule>,
}

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
struct Rule {
    action: String,
    on_exit_codes: Option<ExitCodes>,
    on_pod_conditions: Vec<PodCondition>,
}

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
struct ExitCodes {
    container_name: Option<String>,
    operator: String,
    values: Vec<i64>,
}

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
struct PodCondition {
    #[serde(rename = "type")]
    kind: String,
    status: String,
}

fn statuses(pod: &Object) -> impl Iterator<Item = &Value> {
    ["/status/initContainerStatuses", "/status/containerStatuses"]
        .into_iter()
        .filter_map(|pointer| pod.at(pointer).and_then(Value::as_array))
        .flatten()
}

impl Rule {
    fn matches(&self, pod: &Object) -> bool {
        if let Some(codes) = &self.on_exit_codes {
            return statuses(pod).any(|status| {
                let name = status.get("name").and_then(Value::as_str);
                let code = status.pointer("/state/terminated/exitCode").and_then(Value::as_i64);
                codes.container_name.as_deref().is_none_or(|n| name == Some(n))
                    && code.is_some_and(|code| {
                        code != 0 && codes.values.contains(&code) == (codes.operator == "In")
                    })
            });
        }
        let conditions = pod.at("/status/conditions").and_then(Value::as_array);
        self.on_pod_conditions.iter().any(|want| {
            let text = |c: &Value, key: &str| {
                c.get(key).and_then(Value::as_str)
                    == Some(match key {
                        "type" => want.kind.as_str(),
                        _ if want.status.is_empty() => "True",
                        _ => want.status.as_str(),
                    })
            };
            conditions.into_iter().flatten().any(|c| text(c, "type") && text(c, "status"))
        })
    }
}

impl Policy {
    /// What this failed pod does: the first rule that it matches decides.
    pub(super) fn effect(&self, pod: &Object) -> Effect {
        match self.rules.iter().find(|rule| rule.matches(pod)).map(|rule| rule.action.as_str()) {
            Some("FailJob") => Effect::FailJob,
            Some("Ignore") => Effect::Ignore,
            _ => Effect::Count,
        }
    }
}

/// When a pod ended: its last container, else its deletion.
pub(super) fn ended(pod: &Object) -> Option<Time> {
    let at =
        |s: &Value| s.pointer("/state/terminated/finishedAt").and_then(Value::as_str)?.parse::<Time>().ok();
    statuses(pod).filter_map(at).max().or(pod.metadata.deletion_timestamp).or(pod.metadata.creation_timestamp)
}

/// When the next pod may be made: failures since the last success double the pause after the last of them.
pub(super) fn next_try<'p>(
    failed: impl Iterator<Item = &'p Object>,
    succeeded: impl Iterator<Item = &'p Object>,
) -> Option<Time> {
    let success = succeeded.filter_map(ended).max();
    let times: Vec<Time> = failed.filter_map(ended).filter(|t| success.is_none_or(|s| *t > s)).collect();
    let last = times.iter().max()?;
    let doublings = u32::try_from(times.len().saturating_sub(1)).unwrap_or(u32::MAX).min(10);
    Some(*last + BACKOFF.saturating_mul(1 << doublings).min(BACKOFF_MAX))
}

#[cfg(test)]
mod tests {
    use alloc::vec;

    use serde_json::json;

    use super::*;

    fn failed(code: i64, at: i64) -> Object {
        let mut pod = Object::new("v1", "Pod", "ns", "p");
        let end = Time::from_secs(at).to_rfc3339();
        pod.rest.insert(
            "status".into(),
            json!({"phase": "Failed", "conditions": [{"type": "DisruptionTarget", "status": "True"}],
                "containerStatuses": [{"name": "c", "state": {"terminated": {"exitCode": code, "finishedAt": end}}}]}),
        );
        pod
    }

    #[test]
    fn the_first_rule_decides() {
        let policy = |rules: Value| Policy::deserialize(json!({ "rules": rules })).unwrap();
        let codes = |op: &str, action: &str| json!({"action": action, "onExitCodes": {"containerName": "c", "operator": op, "values": [42]}});
        let pod = failed(42, 1);
        assert_eq!(Policy::default().effect(&pod), Effect::Count);
        assert_eq!(policy(json!([codes("In", "FailJob")])).effect(&pod), Effect::FailJob);
        assert_eq!(policy(json!([codes("NotIn", "FailJob")])).effect(&pod), Effect::Count);
        assert_eq!(policy(json!([codes("NotIn", "FailJob")])).effect(&failed(1, 1)), Effect::FailJob);
        let disrupted = json!({"action": "Ignore", "onPodConditions": [{"type": "DisruptionTarget"}]});
        assert_eq!(policy(json!([disrupted, codes("In", "FailJob")])).effect(&pod), Effect::Ignore);
    }

    #[test]
    fn pauses_double_and_end() {
        let due = |times: &[i64], success: &[i64]| {
            let pods = |times: &[i64]| times.iter().map(|t| failed(1, *t)).collect::<Vec<_>>();
            let (bad, good) = (pods(times), pods(success));
            next_try(bad.iter(), good.iter()).map(Time::as_secs)
        };
        assert_eq!(due(&[], &[]), None);
        assert_eq!(due(&[100], &[]), Some(110));
        assert_eq!(due(&[100, 110], &[]), Some(130));
        assert_eq!(due(&[100, 110], &[105]), Some(120));
        assert_eq!(due(&vec![100; 50], &[]), Some(700));
    }
}
