//! The plan of heartbeats: conditions, taints, pods that are not ready.

use alloc::collections::BTreeMap;
use alloc::format;
use alloc::string::String;
use alloc::sync::Arc;
use alloc::vec;
use alloc::vec::Vec;

use serde::Deserialize;
use serde_json::json;

use super::{Taint, taints_of};
use crate::api::{Gvr, Object, reason, resources};
use crate::base::{Duration, Rng, Time};
use crate::client::{Delta, IndexFn, ObjectKey, index};
use crate::controllers::support::{self, Condition, PodView, condition, is_ready};
use crate::controllers::{Action, Cache, Controller, Note, Plan};

const LEASE_NAMESPACE: &str = "kube-node-lease";
const NOT_READY: &str = "node.kubernetes.io/not-ready";
const UNREACHABLE: &str = "node.kubernetes.io/unreachable";
/// Taints that say what a condition says: (condition, status, taint).
const CONDITION_TAINTS: [(&str, &str, &str); 4] = [
    ("MemoryPressure", "True", "node.kubernetes.io/memory-pressure"),
    ("DiskPressure", "True", "node.kubernetes.io/disk-pressure"),
    ("PIDPressure", "True", "node.kubernetes.io/pid-pressure"),
    ("NetworkUnavailable", "True", "node.kubernetes.io/network-unavailable"),
];
const UNSCHEDULABLE: &str = "node.kubernetes.io/unschedulable";

/// How long silence is borne.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct NodeLifecycleConfig {
    /// After its last heartbeat a node counts as alive for so long (`--node-monitor-grace-period`).
    pub grace: Duration,
    /// The same for a node that was never ready (`--node-startup-grace-period`).
    pub startup_grace: Duration,
}

impl Default for NodeLifecycleConfig {
    /// 40 s and 60 s.
    fn default() -> Self {
        Self { grace: Duration::from_secs(40), startup_grace: Duration::from_secs(60) }
    }
}

/// What the plan is made from.
#[derive(Clone, Debug)]
pub struct Observed {
    /// The node.
    pub node: Arc<Object>,
    /// Its pods.
    pub pods: Vec<Arc<Object>>,
    /// When its Lease or its conditions were last seen to change, by the clock of whoever watches.
    pub heartbeat: Time,
    /// Whether another node is ready. If none is, nothing is evicted: more likely it is the watcher that is cut off.
    pub others_ready: bool,
}

/// Tells of a node that is silent: its conditions become Unknown, it is tainted, and its pods are not ready. Taints
/// follow the conditions at all times.
#[must_use]
pub fn plan(observed: &Observed, config: &NodeLifecycleConfig, now: Time) -> Plan {
    let Observed { node, pods, heartbeat, others_ready } = observed;
    let mut plan = Plan::none();
    if node.is_terminating() {
        return plan;
    }
    let old: Vec<Condition> =
        node.at("/status/conditions").and_then(|c| Vec::deserialize(c).ok()).unwrap_or_default();
    let grace = if condition(&old, "Ready").is_some() { config.grace } else { config.startup_grace };
    let mut conditions = old.clone();
    if *heartbeat + grace <= now {
        silence(&mut conditions, now);
    } else {
        plan.again(*heartbeat + grace);
    }
    let ready = condition(&conditions, "Ready").map_or("", |c| c.status.as_str());
    let evict = ready != "True" && !ready.is_empty() && (*others_ready || has_taint_noexecute(node));
    let taints = wanted_taints(node, &conditions, ready, evict, now);
    if taints != taints_of(node) {
        let body = json!({"metadata": {"uid": node.metadata.uid, "resourceVersion": node.metadata.resource_version},
            "spec": {"taints": taints}});
        plan.one(Action::merge(&resources::NODES, &ObjectKey::of(node), body));
        // The conditions are written over the version that this makes.
        return plan;
    }
    if ready != "True" && condition(&old, "Ready").is_some() {
        plan.all(pods.iter().filter(|p| is_ready(p)).map(|p| not_ready(p, now)).collect());
    }
    if conditions != old {
        let mut next = Object::clone(node);
        support::set(&mut next, "status", "conditions", json!(conditions));
        let told = Note::normal(
            node,
            "NodeNotReady",
            format!("Node {} status is now: NodeNotReady", node.metadata.name),
        );
        let action = Action::update_status(&resources::NODES, next);
        let was_ready = condition(&old, "Ready").is_some_and(Condition::is_true);
        plan.one(if was_ready { action.told(told) } else { action });
    }
    plan
}

fn has_taint_noexecute(node: &Object) -> bool {
    taints_of(node).iter().any(|t| t.effect == "NoExecute" && (t.key == NOT_READY || t.key == UNREACHABLE))
}

/// What a kubelet would report becomes Unknown (`tryUpdateNodeHealth`).
fn silence(conditions: &mut Vec<Condition>, now: Time) {
    for kind in ["Ready", "MemoryPressure", "DiskPressure", "PIDPressure"] {
        match conditions.iter_mut().find(|c| c.kind == kind) {
            Some(c) if c.status == "Unknown" => {}
            Some(c) => {
                c.status = "Unknown".into();
                c.reason = "NodeStatusUnknown".into();
                c.message = "Kubelet stopped posting node status.".into();
                c.last_transition_time = Some(now);
            }
            None => {
                let message = "Kubelet never posted node status.";
                let mut c = Condition::new(now, kind, false, "NodeStatusNeverUpdated", message);
                c.status = "Unknown".into();
                conditions.push(c);
            }
        }
    }
}

/// The taints of the node, of which those of this controller say what the conditions say.
fn wanted_taints(node: &Object, conditions: &[Condition], ready: &str, evict: bool, now: Time) -> Vec<Taint> {
    let old = taints_of(node);
    let mut want: Vec<(&str, &str)> = match ready {
        "True" => vec![],
        // It never reported: admission upstream taints it so when it is created.
        "" => vec![(NOT_READY, "NoSchedule")],
        "False" => vec![(NOT_READY, "NoSchedule"), (NOT_READY, "NoExecute")],
        _ => vec![(UNREACHABLE, "NoSchedule"), (UNREACHABLE, "NoExecute")],
    };
    want.retain(|(_, effect)| evict || *effect != "NoExecute");
    for (kind, status, key) in CONDITION_TAINTS {
        if condition(conditions, kind).is_some_and(|c| c.status == status) {
            want.push((key, "NoSchedule"));
        }
    }
    if node.at("/spec/unschedulable") == Some(&json!(true)) {
        want.push((UNSCHEDULABLE, "NoSchedule"));
    }
    let ours = |t: &Taint| {
        let key = t.key.as_str();
        match t.effect.as_str() {
            "NoExecute" => key == NOT_READY || key == UNREACHABLE,
            "NoSchedule" => {
                [NOT_READY, UNREACHABLE, UNSCHEDULABLE].contains(&key)
                    || CONDITION_TAINTS.iter().any(|(_, _, taint)| *taint == key)
            }
            _ => false,
        }
    };
    let is = |t: &Taint, (key, effect): (&str, &str)| t.key == key && t.effect == effect;
    let mut taints: Vec<Taint> =
        old.iter().filter(|t| !ours(t) || want.iter().any(|w| is(t, *w))).cloned().collect();
    for (key, effect) in want {
        if !taints.iter().any(|t| is(t, (key, effect))) {
            taints.push(Taint {
                key: key.into(),
                value: String::new(),
                effect: effect.into(),
                time_added: Some(Time::from_secs(now.as_secs())),
            });
        }
    }
    taints
}

/// A pod on a node that is not heard from is not ready (`MarkPodsNotReady`).
fn not_ready(pod: &Arc<Object>, now: Time) -> Action {
    let mut conditions = PodView::of(pod).conditions;
    for c in conditions.iter_mut().filter(|c| c.kind == "Ready") {
        c.status = "False".into();
        c.last_transition_time = Some(now);
    }
    let mut next = Object::clone(pod);
    support::set(&mut next, "status", "conditions", json!(conditions));
    Action::update_status(&resources::PODS, next).tolerating(&[reason::NOT_FOUND]).told(Note::warning(
        pod,
        "NodeNotReady",
        "Node is not ready",
    ))
}

/// The controller of heartbeats.
#[derive(Clone, Debug)]
pub struct NodeLifecycle {
    config: NodeLifecycleConfig,
    heartbeats: BTreeMap<String, Time>,
}

impl NodeLifecycle {
    /// Bears silence as `config` says.
    #[must_use]
    pub const fn new(config: NodeLifecycleConfig) -> Self {
        Self { config, heartbeats: BTreeMap::new() }
    }
}

impl Controller for NodeLifecycle {
    fn name(&self) -> &'static str {
        "node-controller"
    }

    fn watches(&self) -> Vec<Gvr> {
        vec![resources::NODES, resources::LEASES, resources::PODS]
    }

    fn indices(&self) -> Vec<(Gvr, &'static str, IndexFn)> {
        vec![(resources::PODS, index::NODE_NAME, index::node_name())]
    }

    fn reset(&mut self) {
        self.heartbeats.clear();
    }

    fn concerns(&mut self, now: Time, cache: &Cache, gvr: &Gvr, delta: &Delta, keys: &mut Vec<ObjectKey>) {
        let meta = &delta.object().metadata;
        if *gvr == resources::LEASES {
            let renewed = match delta {
                Delta::Added(_) => true,
                Delta::Updated { old, new } => old.at("/spec/renewTime") != new.at("/spec/renewTime"),
                Delta::Deleted(_) => false,
            };
            if meta.namespace == LEASE_NAMESPACE && renewed {
                // The node's own timer sees the new time; a plan is wanted only if the node was given up.
                self.heartbeats.insert(meta.name.clone(), now);
                let node = cache.store(&resources::NODES).get("", &meta.name);
                keys.extend(node.filter(|n| !is_ready(n)).map(|n| ObjectKey::of(n)));
            }
        } else if *gvr == resources::NODES {
            let ready = |o: &Object| is_ready(o);
            let beat = match delta {
                Delta::Added(_) => true,
                Delta::Updated { old, new } => heartbeat_of(old) != heartbeat_of(new),
                Delta::Deleted(_) => {
                    self.heartbeats.remove(&meta.name);
                    return;
                }
            };
            if beat {
                self.heartbeats.insert(meta.name.clone(), now);
            }
            keys.push(ObjectKey::new("", &meta.name));
            // Whether others are ready decides about eviction.
            if matches!(delta, Delta::Updated { old, new } if ready(old) != ready(new)) {
                keys.extend(
                    cache.store(&resources::NODES).iter().filter(|n| !is_ready(n)).map(|n| ObjectKey::of(n)),
                );
            }
        } else if !matches!(delta, Delta::Deleted(_)) && is_ready(delta.object()) {
            let node = cache.store(&resources::NODES).get("", delta.object().str_at("/spec/nodeName"));
            keys.extend(node.filter(|n| !is_ready(n)).map(|n| ObjectKey::of(n)));
        }
    }

    fn plan(&mut self, now: Time, cache: &Cache, key: &ObjectKey, _rng: &mut Rng) -> Plan {
        let nodes = cache.store(&resources::NODES);
        let Some(node) = nodes.get_key(key) else { return Plan::none() };
        let observed = Observed {
            node: Arc::clone(node),
            pods: cache.store(&resources::PODS).by(index::NODE_NAME, &key.name).cloned().collect(),
            heartbeat: *self.heartbeats.entry(key.name.clone()).or_insert(now),
            others_ready: nodes.iter().any(|n| n.metadata.name != key.name && is_ready(n)),
        };
        plan(&observed, &self.config, now)
    }
}

/// What a kubelet changes when it reports: the times of its conditions, unless it was this controller that wrote.
fn heartbeat_of(node: &Object) -> Vec<String> {
    let conditions: Vec<Condition> =
        node.at("/status/conditions").and_then(|c| Vec::deserialize(c).ok()).unwrap_or_default();
    conditions
        .into_iter()
        .filter_map(|c| Some(String::from(c.rest.get("lastHeartbeatTime")?.as_str()?)))
        .collect()
}

#[cfg(test)]
mod tests;
