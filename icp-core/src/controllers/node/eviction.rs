//! The plan of eviction: pods leave nodes whose taints they do not tolerate.

use alloc::format;
use alloc::string::String;
use alloc::sync::Arc;
use alloc::vec;
use alloc::vec::Vec;

use serde::Deserialize;

use super::{Taint, taints_of};
use crate::api::{Gvr, Object, reason, resources};
use crate::base::{Duration, Rng, Time};
use crate::client::{Delta, IndexFn, ObjectKey, index};
use crate::controllers::support::disruption_target;
use crate::controllers::{Action, Cache, Controller, Note, Plan};

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub(crate) struct Toleration {
    key: String,
    operator: String,
    value: String,
    effect: String,
    toleration_seconds: Option<i64>,
}

impl Toleration {
    pub(crate) fn tolerates(&self, taint: &Taint) -> bool {
        (self.effect.is_empty() || self.effect == taint.effect)
            && (self.key.is_empty() && self.operator == "Exists" || self.key == taint.key)
            && match self.operator.as_str() {
                "Exists" => true,
                "" | "Equal" => self.value == taint.value,
                _ => false,
            }
    }
}

/// Deletes a pod from a node with a NoExecute taint: at once if it does not tolerate the taint, or when the shortest
/// `tolerationSeconds` are over since the taint was added (and since the pod was bound, which its start tells).
#[must_use]
pub fn plan(pod: &Arc<Object>, node: &Object, now: Time) -> Plan {
    let mut plan = Plan::none();
    let taints: Vec<Taint> = taints_of(node).into_iter().filter(|t| t.effect == "NoExecute").collect();
    if pod.is_terminating() || taints.is_empty() {
        return plan;
    }
    let tolerations: Vec<Toleration> =
        pod.at("/spec/tolerations").and_then(|t| Vec::deserialize(t).ok()).unwrap_or_default();
    let started = pod.str_at("/status/startTime").parse::<Time>().ok().or(pod.metadata.creation_timestamp);
    let mut due: Option<Time> = None;
    for taint in &taints {
        let matching: Vec<&Toleration> = tolerations.iter().filter(|t| t.tolerates(taint)).collect();
        if matching.is_empty() {
            due = Some(now);
            break;
        }
        let Some(seconds) = matching.iter().filter_map(|t| t.toleration_seconds).min() else { continue };
        let since = taint.time_added.max(started).unwrap_or(now);
        let end = since + Duration::from_secs(u64::try_from(seconds).unwrap_or(0));
        due = Some(due.map_or(end, |d| d.min(end)));
    }
    match due {
        Some(due) if due <= now => {
            let message = "Taint manager: deleting due to NoExecute taint";
            plan.one(disruption_target(pod, now, "DeletionByTaintManager", message));
            let key = ObjectKey::of(pod);
            let told = Note::normal(pod, "TaintManagerEviction", format!("Marking for deletion Pod {key}"));
            let delete = Action::delete(&resources::PODS, pod, None).tolerating(&[reason::NOT_FOUND]);
            plan.one(delete.told(told));
        }
        Some(due) => plan.again(due),
        None => {}
    }
    plan
}

/// The controller of eviction by taints.
#[derive(Clone, Copy, Debug, Default)]
pub struct TaintEviction;

impl Controller for TaintEviction {
    fn name(&self) -> &'static str {
        "taint-eviction-controller"
    }

    fn watches(&self) -> Vec<Gvr> {
        vec![resources::NODES, resources::PODS]
    }

    fn indices(&self) -> Vec<(Gvr, &'static str, IndexFn)> {
        vec![(resources::PODS, index::NODE_NAME, index::node_name())]
    }

    fn concerns(&mut self, _now: Time, cache: &Cache, gvr: &Gvr, delta: &Delta, keys: &mut Vec<ObjectKey>) {
        let object = delta.object();
        if *gvr == resources::PODS {
            let node = cache.store(&resources::NODES).get("", object.str_at("/spec/nodeName"));
            let tainted = node.is_some_and(|n| taints_of(n).iter().any(|t| t.effect == "NoExecute"));
            keys.extend(tainted.then(|| ObjectKey::of(object)));
            return;
        }
        let evicting =
            |o: &Object| taints_of(o).into_iter().filter(|t| t.effect == "NoExecute").collect::<Vec<_>>();
        let changed = match delta {
            Delta::Updated { old, new } => evicting(old) != evicting(new),
            Delta::Added(node) => !evicting(node).is_empty(),
            Delta::Deleted(_) => false,
        };
        if changed {
            let pods = cache.store(&resources::PODS).by(index::NODE_NAME, &object.metadata.name);
            keys.extend(pods.map(|p| ObjectKey::of(p)));
        }
    }

    fn plan(&mut self, now: Time, cache: &Cache, key: &ObjectKey, _rng: &mut Rng) -> Plan {
        let Some(pod) = cache.store(&resources::PODS).get_key(key) else { return Plan::none() };
        let node = cache.store(&resources::NODES).get("", pod.str_at("/spec/nodeName"));
        node.map_or_else(Plan::none, |node| plan(pod, node, now))
    }
}
