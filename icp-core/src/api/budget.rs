//! The condition `DisruptionAllowed` of PodDisruptionBudgets, which the controller and the eviction subresource keep
//! (`component-helpers/apps/poddisruptionbudget`).

use alloc::string::String;
use alloc::vec::Vec;

use serde_json::{Map, Value, json};

use crate::base::Time;

const CONDITION: &str = "DisruptionAllowed";

fn is_it(condition: &Value) -> bool {
    condition.get("type").is_some_and(|t| t == CONDITION)
}

/// What the condition has to say about a number of allowed disruptions.
fn verdict(status: &Map<String, Value>) -> (bool, &'static str) {
    let allowed = status.get("disruptionsAllowed").and_then(Value::as_i64).unwrap_or(0) > 0;
    (allowed, if allowed { "SufficientPods" } else { "InsufficientPods" })
}

/// Makes the condition agree with `disruptionsAllowed` of the same `status`.
pub(crate) fn tell_allowed(status: &mut Map<String, Value>, now: Time) {
    let (allowed, reason) = verdict(status);
    tell(status, now, allowed, reason, "");
}

/// Makes the condition say that the figures could not be computed.
pub(crate) fn tell_failure(status: &mut Map<String, Value>, now: Time, why: &str) {
    tell(status, now, false, "SyncFailed", why);
}

/// Whether the condition agrees with `disruptionsAllowed` of the same `status`.
pub(crate) fn is_told(status: &Map<String, Value>) -> bool {
    let (allowed, reason) = verdict(status);
    let conditions = status.get("conditions").and_then(Value::as_array);
    conditions.into_iter().flatten().find(|c| is_it(c)).is_some_and(|c| {
        c.get("status").is_some_and(|s| s == word(allowed)) && c.get("reason").is_some_and(|r| r == reason)
    })
}

const fn word(allowed: bool) -> &'static str {
    if allowed { "True" } else { "False" }
}

/// Replaces the condition; the time of its transition stays if the answer is the same (`meta.SetStatusCondition`).
fn tell(status: &mut Map<String, Value>, now: Time, allowed: bool, reason: &str, message: &str) {
    let mut conditions: Vec<Value> =
        status.get("conditions").and_then(Value::as_array).cloned().unwrap_or_default();
    let old = conditions.iter().find(|c| is_it(c));
    let since = old
        .filter(|c| c.get("status").is_some_and(|s| s == word(allowed)))
        .and_then(|c| c.get("lastTransitionTime").cloned())
        .unwrap_or_else(|| now.to_rfc3339().into());
    let mut new = json!({
        "type": CONDITION, "status": word(allowed), "reason": reason, "message": message,
        "lastTransitionTime": since,
    });
    if let (Some(map), Some(generation)) = (new.as_object_mut(), status.get("observedGeneration")) {
        map.insert("observedGeneration".into(), generation.clone());
    }
    match conditions.iter_mut().find(|c| is_it(c)) {
        Some(old) => *old = new,
        None => conditions.push(new),
    }
    status.insert("conditions".into(), conditions.into());
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_condition_follows_the_figure() {
        let at = |secs| Time::from_secs(secs);
        let mut status = Map::new();
        status.insert("conditions".into(), json!([{"type": "Other", "status": "True"}]));
        status.insert("observedGeneration".into(), 2.into());
        assert!(!is_told(&status));
        tell_allowed(&mut status, at(0));
        assert!(is_told(&status));
        let none = json!({"type": "DisruptionAllowed", "status": "False", "reason": "InsufficientPods",
            "message": "", "lastTransitionTime": "1970-01-01T00:00:00Z", "observedGeneration": 2});
        assert_eq!(status["conditions"], json!([{"type": "Other", "status": "True"}, none]));
        // The answer is the same, and so is the time; the words are not.
        tell_failure(&mut status, at(60), "no scale");
        assert!(!is_told(&status));
        assert_eq!(status["conditions"][1]["reason"], "SyncFailed");
        assert_eq!(status["conditions"][1]["message"], "no scale");
        assert_eq!(status["conditions"][1]["lastTransitionTime"], "1970-01-01T00:00:00Z");
        status.insert("disruptionsAllowed".into(), 1.into());
        assert!(!is_told(&status));
        tell_allowed(&mut status, at(60));
        assert!(is_told(&status));
        assert_eq!(status["conditions"][1]["lastTransitionTime"], "1970-01-01T00:01:00Z");
        assert_eq!(status["conditions"].as_array().unwrap().len(), 2);
    }
}
