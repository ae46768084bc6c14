//! Pods that somebody wanted to disrupt, and did not.

use alloc::vec;
use alloc::vec::Vec;

use serde_json::json;

use crate::api::{Gvr, Object, reason, resources};
use crate::base::{Duration, Rng, Time};
use crate::client::{Delta, ObjectKey};
use crate::controllers::support::{Condition, PodPhase, PodView, condition, set, set_condition};
use crate::controllers::{Action, Cache, Controller, Plan};

/// How long a pod with the condition DisruptionTarget may live on before the condition is taken back
/// (`stalePodDisruptionTimeout` upstream).
pub const STALE_TIMEOUT: Duration = Duration::from_secs(120);

const TARGET: &str = "DisruptionTarget";

/// When the condition DisruptionTarget of a pod is stale, if it has one that can be. What the kubelet says is never
/// stale, because it may take any time to end a pod; what a finished pod says is kept.
fn stale_at(pod: &Object) -> Option<Time> {
    if pod.is_terminating() || PodPhase::of(pod).is_finished() {
        return None;
    }
    let view = PodView::of(pod);
    let target = condition(&view.conditions, TARGET).filter(|c| c.is_true())?;
    if target.reason == "TerminationByKubelet" {
        return None;
    }
    Some(target.last_transition_time.map_or(Time::ZERO, |since| since + STALE_TIMEOUT))
}

/// Takes back the condition DisruptionTarget once it is stale.
#[must_use]
pub fn plan(pod: &Object, now: Time) -> Plan {
    let mut plan = Plan::none();
    let Some(due) = stale_at(pod) else { return plan };
    if now < due {
        plan.again(due);
        return plan;
    }
    let mut view = PodView::of(pod);
    set_condition(&mut view.conditions, Condition::new(now, TARGET, false, "", ""));
    let mut next = pod.clone();
    set(&mut next, "status", "conditions", json!(view.conditions));
    plan.one(Action::update_status(&resources::PODS, next).tolerating(&[reason::NOT_FOUND]));
    plan
}

/// Takes back the condition DisruptionTarget of pods that are not deleted.
#[derive(Clone, Copy, Debug, Default)]
pub struct StaleDisruptions;

impl Controller for StaleDisruptions {
    fn name(&self) -> &'static str {
        "stale-pod-disruption"
    }

    fn watches(&self) -> Vec<Gvr> {
        vec![resources::PODS]
    }

    fn concerns(&mut self, _now: Time, _cache: &Cache, _gvr: &Gvr, delta: &Delta, keys: &mut Vec<ObjectKey>) {
        let pod = delta.object();
        if !matches!(delta, Delta::Deleted(_)) && stale_at(pod).is_some() {
            keys.push(ObjectKey::of(pod));
        }
    }

    fn plan(&mut self, now: Time, cache: &Cache, key: &ObjectKey, _rng: &mut Rng) -> Plan {
        cache.store(&resources::PODS).get_key(key).map_or_else(Plan::none, |pod| plan(pod, now))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::client::Operation;

    fn pod(reason: &str, phase: &str) -> Object {
        let mut o = Object::new("v1", "Pod", "default", "web-0");
        o.rest.insert(
            "status".into(),
            json!({"phase": phase, "conditions": [
                {"type": "Ready", "status": "True"},
                {"type": TARGET, "status": "True", "reason": reason, "message": "why",
                 "lastTransitionTime": Time::from_secs(1_000).to_rfc3339()}]}),
        );
        o
    }

    #[test]
    fn what_was_not_disrupted_in_time_is_no_target() {
        let pod = pod("EvictionByEvictionAPI", "Running");
        assert_eq!(plan(&pod, Time::from_secs(1_119)).again_at, Some(Time::from_secs(1_120)));
        assert!(plan(&pod, Time::from_secs(1_119)).is_empty());
        let plan = plan(&pod, Time::from_secs(1_120));
        let Operation::Update(next) = &plan.steps[0][0].request.op else { panic!() };
        assert_eq!(plan.steps[0][0].request.subresource, Some("status"));
        let since = Time::from_secs(1_120).to_rfc3339();
        assert_eq!(
            next.at("/status/conditions").unwrap(),
            &json!([{"type": "Ready", "status": "True"},
                {"type": TARGET, "status": "False", "lastTransitionTime": since}])
        );
        assert!(super::plan(next, Time::from_secs(2_000)) == Plan::none());
    }

    #[test]
    fn what_the_kubelet_ends_and_what_has_ended_stays() {
        let late = Time::from_secs(9_000);
        assert!(plan(&pod("TerminationByKubelet", "Running"), late) == Plan::none());
        assert!(plan(&pod("PreemptionByScheduler", "Failed"), late) == Plan::none());
        let mut going = pod("PreemptionByScheduler", "Running");
        assert!(!plan(&going, late).is_empty());
        going.metadata.deletion_timestamp = Some(late);
        assert!(plan(&going, late) == Plan::none());
        going.metadata.deletion_timestamp = None;
        going.rest.remove("status");
        assert!(plan(&going, late) == Plan::none());
    }
}
