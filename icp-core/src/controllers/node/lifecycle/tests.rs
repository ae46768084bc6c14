use alloc::format;

use super::*;
use crate::client::Operation;

fn node(ready: &str, taints: serde_json::Value) -> Arc<Object> {
    let mut o = Object::new("v1", "Node", "", "w1");
    o.rest.insert("spec".into(), json!({"taints": taints}));
    o.rest.insert(
        "status".into(),
        json!({"conditions": [{"type": "Ready", "status": ready, "reason": "KubeletReady"}]}),
    );
    Arc::new(o)
}

fn observed(node: Arc<Object>, others_ready: bool) -> Observed {
    Observed { node, pods: vec![], heartbeat: Time::from_secs(100), others_ready }
}

fn taints(plan: &Plan) -> Option<Vec<String>> {
    plan.actions().find_map(|a| match &a.request.op {
        Operation::Patch { body, .. } => {
            let taints = body["spec"]["taints"].as_array()?;
            Some(
                taints
                    .iter()
                    .map(|t| format!("{}:{}", t["key"].as_str().unwrap(), t["effect"].as_str().unwrap()))
                    .collect(),
            )
        }
        _ => None,
    })
}

fn at(observed: &Observed, secs: i64) -> Plan {
    plan(observed, &NodeLifecycleConfig::default(), Time::from_secs(secs))
}

#[test]
fn silence_is_borne_for_the_grace_period() {
    let quiet = at(&observed(node("True", json!([])), true), 139);
    assert!(quiet.is_empty());
    assert_eq!(quiet.again_at, Some(Time::from_secs(140)));
    let silent = at(&observed(node("True", json!([])), true), 140);
    let unreachable =
        ["node.kubernetes.io/unreachable:NoSchedule", "node.kubernetes.io/unreachable:NoExecute"];
    assert_eq!(taints(&silent).unwrap(), unreachable);
    // The taints stand: now the conditions, and its pods.
    let tainted = json!([{"key": "node.kubernetes.io/unreachable", "effect": "NoSchedule"},
        {"key": "node.kubernetes.io/unreachable", "effect": "NoExecute"}]);
    let mut o = observed(node("True", tainted), true);
    let mut pod = Object::new("v1", "Pod", "default", "p");
    pod.rest.insert("status".into(), json!({"conditions": [{"type": "Ready", "status": "True"}]}));
    o.pods.push(Arc::new(pod));
    let told = at(&o, 150);
    let writes: Vec<_> =
        told.actions().map(|a| format!("{} {}", a.request.gvr, a.request.name.as_deref().unwrap())).collect();
    assert_eq!(writes, ["pods p", "nodes w1"]);
    let Operation::Update(node) = &told.steps[1][0].request.op else { panic!() };
    let conditions = node.at("/status/conditions").unwrap().as_array().unwrap();
    assert!(conditions.iter().all(|c| c["status"] == "Unknown"));
    let reasons: Vec<_> = conditions.iter().map(|c| c["reason"].as_str().unwrap()).collect();
    assert_eq!(reasons[0], "NodeStatusUnknown");
    assert_eq!(reasons[1..], ["NodeStatusNeverUpdated"; 3]);
}

#[test]
fn nothing_is_evicted_when_no_other_node_is_ready() {
    let plan = at(&observed(node("False", json!([])), false), 110);
    assert_eq!(taints(&plan).unwrap(), ["node.kubernetes.io/not-ready:NoSchedule"]);
}

#[test]
fn taints_follow_conditions_and_leave_others_alone() {
    let mut o = Object::clone(&node(
        "True",
        json!([{"key": "dedicated", "value": "db", "effect": "NoSchedule"},
        {"key": "node.kubernetes.io/unreachable", "effect": "NoExecute"}]),
    ));
    support::set(&mut o, "spec", "unschedulable", json!(true));
    let conditions = json!([{"type": "Ready", "status": "True"}, {"type": "DiskPressure", "status": "True"}]);
    support::set(&mut o, "status", "conditions", conditions);
    let plan = at(&observed(Arc::new(o), true), 110);
    let want = [
        "dedicated:NoSchedule",
        "node.kubernetes.io/disk-pressure:NoSchedule",
        "node.kubernetes.io/unschedulable:NoSchedule",
    ];
    assert_eq!(taints(&plan).unwrap(), want);
}

#[test]
fn tolerations_delay_eviction() {
    let added = Time::from_secs(100).to_rfc3339();
    let node = node(
        "Unknown",
        json!([{"key": "node.kubernetes.io/unreachable", "effect": "NoExecute", "timeAdded": added}]),
    );
    let pod = |tolerations: serde_json::Value| {
        let mut o = Object::new("v1", "Pod", "default", "p");
        o.rest.insert("spec".into(), json!({"nodeName": "w1", "tolerations": tolerations}));
        Arc::new(o)
    };
    let exists = |seconds: serde_json::Value| {
        json!([{"key": "node.kubernetes.io/unreachable", "operator": "Exists",
        "effect": "NoExecute", "tolerationSeconds": seconds}])
    };
    let evicted = |p: &Arc<Object>, secs| {
        let plan = crate::controllers::node::plan_eviction(p, &node, Time::from_secs(secs));
        (plan.actions().any(|a| matches!(a.request.op, Operation::Delete(_))), plan.again_at)
    };
    assert_eq!(evicted(&pod(json!([])), 101), (true, None));
    assert_eq!(evicted(&pod(exists(json!(300))), 101), (false, Some(Time::from_secs(400))));
    assert_eq!(evicted(&pod(exists(json!(300))), 400), (true, None));
    assert_eq!(evicted(&pod(exists(json!(null))), 9999), (false, None));
    assert_eq!(evicted(&pod(json!([{"operator": "Exists"}])), 9999), (false, None));
    assert_eq!(evicted(&pod(json!([{"key": "other", "operator": "Exists"}])), 101), (true, None));
}
