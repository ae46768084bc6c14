//! The plan.

use alloc::collections::{BTreeMap, BTreeSet};
use alloc::string::String;
use alloc::sync::Arc;
use alloc::vec;
use alloc::vec::Vec;

use crate::api::{Gvr, Object, reason, resources};
use crate::base::{Duration, Rng, Time};
use crate::client::{ApiError, ApiRequest, Delta, ObjectKey, Operation, Reply};
use crate::controllers::support::{PodPhase, fail_pod, is_ready};
use crate::controllers::{Action, Cache, Controller, Plan};

/// How often pods are looked through.
const PERIOD: Duration = Duration::from_secs(20);
/// How long a node is gone before its pods are taken for orphans.
const QUARANTINE: Duration = Duration::from_secs(40);
const OUT_OF_SERVICE: &str = "node.kubernetes.io/out-of-service";

/// What the plan is made from.
#[derive(Clone, Debug, Default)]
pub struct Observed {
    /// All pods.
    pub pods: Vec<Arc<Object>>,
    /// All nodes.
    pub nodes: Vec<Arc<Object>>,
    /// Names of nodes of which the server said that they are gone.
    pub gone: BTreeSet<String>,
    /// Pods that ended and are kept at most (`--terminated-pod-gc-threshold`); 0 keeps all.
    pub finished_max: usize,
}

/// Deletes pods that ended beyond the threshold, the oldest first; pods of nodes that are gone; pods that are being deleted
/// and never had a node; pods that are being deleted on a node marked out of service.
#[must_use]
pub fn plan(observed: &Observed, now: Time) -> Plan {
    let mut plan = Plan::none();
    let mut finished: Vec<&Arc<Object>> =
        observed.pods.iter().filter(|p| PodPhase::of(p).is_finished()).collect();
    let excess =
        if observed.finished_max == 0 { 0 } else { finished.len().saturating_sub(observed.finished_max) };
    finished.sort_by_key(|p| (p.metadata.creation_timestamp, &p.metadata.name));
    let mut deletions: Vec<Action> =
        finished.iter().take(excess).map(|p| Action::delete_at_once(&resources::PODS, p)).collect();
    let out_of_service: BTreeSet<&str> = observed
        .nodes
        .iter()
        .filter(|n| !is_ready(n) && has_taint(n, OUT_OF_SERVICE))
        .map(|n| n.metadata.name.as_str())
        .collect();
    let mut marks = Vec::new();
    for pod in &observed.pods {
        let node = pod.str_at("/spec/nodeName");
        let orphaned = observed.gone.contains(node);
        let stuck = pod.is_terminating() && (node.is_empty() || out_of_service.contains(node));
        if orphaned || stuck {
            if orphaned && !PodPhase::of(pod).is_finished() {
                marks.push(fail_pod(pod, now, "DeletionByPodGC", "PodGC: node no longer exists"));
            }
            deletions.push(Action::delete_at_once(&resources::PODS, pod));
        }
    }
    plan.all(marks);
    plan.all(deletions);
    plan
}

fn has_taint(node: &Object, key: &str) -> bool {
    let taints = node.at("/spec/taints").and_then(serde_json::Value::as_array);
    taints.into_iter().flatten().any(|t| t.get("key").is_some_and(|k| k == key))
}

/// The pod garbage collector. It has one key.
#[derive(Clone, Debug)]
pub struct PodGc {
    finished_max: usize,
    /// Nodes that pods name and that are not there, since when.
    missing: BTreeMap<String, Time>,
    gone: BTreeSet<String>,
}

impl PodGc {
    /// Keeps at most `finished_max` pods that ended; 0 keeps all.
    #[must_use]
    pub const fn new(finished_max: usize) -> Self {
        Self { finished_max, missing: BTreeMap::new(), gone: BTreeSet::new() }
    }
}

impl Controller for PodGc {
    fn name(&self) -> &'static str {
        "pod-garbage-collector-controller"
    }

    fn watches(&self) -> Vec<Gvr> {
        vec![resources::PODS, resources::NODES]
    }

    fn first_keys(&self) -> Vec<ObjectKey> {
        vec![ObjectKey::default()]
    }

    fn reset(&mut self) {
        self.missing.clear();
        self.gone.clear();
    }

    fn concerns(&mut self, _now: Time, _cache: &Cache, gvr: &Gvr, delta: &Delta, keys: &mut Vec<ObjectKey>) {
        let pod = delta.object();
        let unplaced = || pod.is_terminating() && pod.str_at("/spec/nodeName").is_empty();
        if *gvr == resources::PODS && !matches!(delta, Delta::Deleted(_)) && unplaced() {
            keys.push(ObjectKey::default());
        }
    }

    fn plan(&mut self, now: Time, cache: &Cache, _key: &ObjectKey, _rng: &mut Rng) -> Plan {
        let (pods, nodes) = (cache.store(&resources::PODS), cache.store(&resources::NODES));
        let named: BTreeSet<&str> = pods
            .iter()
            .map(|p| p.str_at("/spec/nodeName"))
            .filter(|n| !n.is_empty() && nodes.get("", n).is_none())
            .collect();
        self.missing.retain(|n, _| named.contains(n.as_str()));
        self.gone.retain(|n| named.contains(n.as_str()));
        for node in named {
            self.missing.entry(node.into()).or_insert(now);
        }
        // The cache may be behind: the server itself says that a node is gone.
        let questions = self
            .missing
            .iter()
            .filter(|(n, since)| **since + QUARANTINE <= now && !self.gone.contains(*n))
            .map(|(n, _)| {
                Action::get(&resources::NODES, &ObjectKey::new("", n)).tolerating(&[reason::NOT_FOUND])
            })
            .collect();
        let observed = Observed {
            pods: pods.iter().cloned().collect(),
            nodes: nodes.iter().cloned().collect(),
            gone: self.gone.clone(),
            finished_max: self.finished_max,
        };
        let mut plan = plan(&observed, now);
        plan.all(questions);
        plan.again(now + PERIOD);
        plan
    }

    fn answered(
        &mut self,
        now: Time,
        _key: &ObjectKey,
        request: &ApiRequest,
        answer: &Result<Reply, ApiError>,
    ) {
        let (Operation::Get, Some(name)) = (&request.op, &request.name) else { return };
        match answer {
            Err(e) if e.is(reason::NOT_FOUND) => {
                self.gone.insert(name.clone());
            }
            _ => {
                self.missing.insert(name.clone(), now);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use alloc::format;

    use serde_json::json;

    use super::*;

    fn pod(name: &str, node: &str, phase: &str, created: i64) -> Arc<Object> {
        let mut o = Object::new("v1", "Pod", "default", name);
        o.metadata.uid = format!("uid-{name}");
        o.metadata.creation_timestamp = Some(Time::from_secs(created));
        o.rest.insert("spec".into(), json!({"nodeName": node}));
        o.rest.insert("status".into(), json!({"phase": phase}));
        Arc::new(o)
    }

    fn terminating(pod: &Arc<Object>) -> Arc<Object> {
        let mut o = Object::clone(pod);
        o.metadata.deletion_timestamp = Some(Time::ZERO);
        Arc::new(o)
    }

    fn deleted(plan: &Plan) -> Vec<&str> {
        let deletions = plan
            .actions()
            .filter(|a| matches!(&a.request.op, Operation::Delete(o) if o.grace_period_seconds == Some(0)));
        deletions.map(|a| a.request.name.as_deref().unwrap()).collect()
    }

    #[test]
    fn who_goes() {
        let tainted = {
            let mut n = Object::new("v1", "Node", "", "w2");
            n.rest.insert("spec".into(), json!({"taints": [{"key": OUT_OF_SERVICE, "effect": "NoExecute"}]}));
            Arc::new(n)
        };
        let observed = Observed {
            pods: vec![
                pod("done-old", "w1", "Succeeded", 1),
                pod("done-new", "w1", "Failed", 2),
                pod("runs", "w1", "Running", 3),
                pod("orphan", "lost", "Running", 4),
                terminating(&pod("unplaced", "", "Pending", 5)),
                terminating(&pod("graceful", "w1", "Running", 6)),
                terminating(&pod("stuck", "w2", "Running", 7)),
                pod("beside", "w2", "Running", 8),
            ],
            nodes: vec![tainted],
            gone: BTreeSet::from([String::from("lost")]),
            finished_max: 1,
        };
        let plan = plan(&observed, Time::ZERO);
        assert_eq!(deleted(&plan), ["done-old", "orphan", "unplaced", "stuck"]);
        let marks: Vec<_> = plan.actions().filter(|a| a.request.subresource == Some("status")).collect();
        assert_eq!(marks.len(), 1);
        assert_eq!(marks[0].request.name.as_deref(), Some("orphan"));
    }
}
