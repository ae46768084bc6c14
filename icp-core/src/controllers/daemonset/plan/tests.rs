use serde_json::json;

use super::*;
use crate::client::Operation;

fn node(name: &str, taints: Value) -> Arc<Object> {
    let mut node = Object::new("v1", "Node", "", name);
    node.rest.insert("spec".into(), json!({ "taints": taints }));
    Arc::new(node)
}

fn observed(image: &str, nodes: &[&str]) -> Observed {
    let mut set = Object::new("apps/v1", "DaemonSet", "ns", "d");
    set.metadata.uid = "d".into();
    set.metadata.generation = 1;
    set.rest.insert(
        "spec".into(),
        json!({"selector": {"matchLabels": {"a": "b"}}, "updateStrategy": {"type": "RollingUpdate"},
            "template": {"metadata": {"labels": {"a": "b"}}, "spec": {"containers": [{"name": "c", "image": image}]}}}),
    );
    let nodes = nodes.iter().map(|n| node(n, json!([]))).collect();
    Observed { set: Arc::new(set), pods: Vec::new(), revisions: Vec::new(), nodes }
}

/// Plans, applies what is planned, and makes new pods run; what was done as `verb name-of-node`.
fn step(o: &mut Observed) -> Vec<alloc::string::String> {
    let plan = plan(o, Time::from_secs(100), &mut Rng::new(1));
    let mut done = Vec::new();
    for action in plan.actions() {
        match &action.request.op {
            Operation::Create(object) if object.kind == "Pod" => {
                let mut pod = Object::clone(object);
                pod.metadata.uid = pod.metadata.name.clone();
                let ready = json!({"phase": "Running", "conditions": [{"type": "Ready", "status": "True"}]});
                pod.rest.insert("status".into(), ready);
                done.push(format!("create {}", node_of(&pod)));
                o.pods.push(Arc::new(pod));
            }
            Operation::Create(object) => o.revisions.push(Arc::clone(object)),
            Operation::Delete(_) => {
                let name = action.request.name.as_deref().unwrap();
                let gone = o.pods.iter().position(|p| p.metadata.name == name).unwrap();
                done.push(format!("delete {}", node_of(&o.pods.remove(gone))));
            }
            Operation::Update(set) => o.set = Arc::clone(set),
            other => panic!("{other:?}"),
        }
    }
    done
}

fn number(o: &Observed, field: &str) -> i64 {
    o.set.at(&format!("/status/{field}")).and_then(Value::as_i64).unwrap_or(0)
}

#[test]
fn each_node_that_fits_has_one_pod() {
    let mut o = observed("one", &["w1", "w2"]);
    o.nodes.push(node("m1", json!([{"key": "master", "effect": "NoSchedule"}])));
    assert_eq!(step(&mut o), ["create w1", "create w2"]);
    assert!(step(&mut o).is_empty());
    assert_eq!((number(&o, "desiredNumberScheduled"), number(&o, "numberAvailable")), (2, 2));
    assert_eq!(o.revisions.len(), 1);
    let pod = &o.pods[0];
    assert_eq!(pod.metadata.labels["controller-revision-hash"], o.revisions[0].metadata.name[2..]);
    assert!(pod.at("/spec/tolerations").unwrap().as_array().unwrap().len() == 6);
    // A node comes, one may not be used any more, and one loses its pod's right to stay.
    o.nodes.push(node("w3", json!([])));
    o.nodes[0] = node("w1", json!([{"key": "x", "effect": "NoSchedule"}]));
    o.nodes[1] = node("w2", json!([{"key": "x", "effect": "NoExecute"}]));
    assert_eq!(step(&mut o), ["delete w2", "create w3"]);
    step(&mut o);
    assert_eq!((number(&o, "numberMisscheduled"), number(&o, "desiredNumberScheduled")), (1, 1));
}

#[test]
fn failed_and_superfluous_pods_go() {
    let mut o = observed("one", &["w1"]);
    step(&mut o);
    let mut twin = Object::clone(&o.pods[0]);
    twin.metadata.name = "z".into();
    twin.metadata.uid = "z".into();
    o.pods.push(Arc::new(twin));
    assert_eq!(step(&mut o), ["delete w1"]);
    assert_ne!(o.pods[0].metadata.name, "z");
    let mut failed = Object::clone(&o.pods[0]);
    failed.rest.insert("status".into(), json!({"phase": "Failed"}));
    o.pods = vec![Arc::new(failed)];
    assert_eq!(step(&mut o), ["delete w1"]);
    assert_eq!(step(&mut o), ["create w1"]);
    // A pod whose node is gone before it was bound waits for nothing.
    o.nodes.clear();
    assert_eq!(step(&mut o), ["delete w1"]);
}

#[test]
fn a_new_template_rolls_over_the_nodes_one_by_one() {
    let mut o = observed("one", &["w1", "w2", "w3"]);
    step(&mut o);
    step(&mut o);
    let new = observed("two", &[]).set;
    let mut set = Object::clone(&o.set);
    set.rest.insert("spec".into(), new.rest["spec"].clone());
    o.set = Arc::new(set);
    let mut all = Vec::new();
    for _ in 0..6 {
        all.extend(step(&mut o));
        assert!(o.pods.len() >= 2, "more than one node is without a pod");
    }
    step(&mut o);
    assert_eq!(all, ["delete w1", "create w1", "delete w2", "create w2", "delete w3", "create w3"]);
    assert_eq!((number(&o, "updatedNumberScheduled"), o.revisions.len()), (3, 2));
}
