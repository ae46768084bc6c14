use alloc::string::ToString;

use serde_json::json;

use super::*;
use crate::api::set_at;
use crate::client::Operation;

fn observed(spec: Value) -> Observed {
    let mut set = Object::new("apps/v1", "StatefulSet", "ns", "s");
    set.metadata.uid = "s".into();
    let mut spec = spec;
    set_at(&mut spec, &["serviceName"], "svc");
    set.rest.insert("spec".into(), spec);
    let mut o = Observed { set: Arc::new(set), pods: vec![], revisions: vec![], claims: vec![] };
    change(&mut o, &["template", "spec"], json!({"containers": [{"name": "c", "image": "one"}]}));
    o
}

fn change(o: &mut Observed, path: &[&str], value: impl Into<Value>) {
    let mut set = Object::clone(&o.set);
    set_at(set.rest.get_mut("spec").unwrap(), path, value);
    o.set = Arc::new(set);
}

fn roll(o: &mut Observed, image: &str) {
    change(o, &["template", "spec"], json!({"containers": [{"name": "c", "image": image}]}));
}

/// Plans and applies what is planned; new pods are not ready yet.
fn step(o: &mut Observed) -> Vec<String> {
    let plan = plan(o, Time::from_secs(100));
    let mut done = Vec::new();
    for action in plan.actions() {
        let name = action.request.name.clone().unwrap_or_default();
        match &action.request.op {
            Operation::Create(object) => match object.kind.as_str() {
                "Pod" => {
                    done.push(format!("create {}", object.metadata.name));
                    o.pods.push(Arc::clone(object));
                }
                "PersistentVolumeClaim" => o.claims.push(object.metadata.name.clone()),
                _ => o.revisions.push(Arc::clone(object)),
            },
            Operation::Delete(_) => {
                done.push(format!("delete {name}"));
                o.pods.retain(|p| p.metadata.name != name);
            }
            Operation::Update(set) => o.set = Arc::clone(set),
            Operation::Patch { body, .. } => {
                let of = o.revisions.iter_mut().find(|r| r.metadata.name == name).unwrap();
                let mut next = Object::clone(of);
                next.rest.insert("revision".into(), body["revision"].clone());
                *of = Arc::new(next);
            }
            other => panic!("{other:?}"),
        }
    }
    done
}

fn make_ready(o: &mut Observed) {
    for pod in &mut o.pods {
        let mut next = Object::clone(pod);
        let ready = json!({"phase": "Running", "conditions": [{"type": "Ready", "status": "True"}]});
        next.rest.insert("status".into(), ready);
        *pod = Arc::new(next);
    }
}

/// Steps, with all pods ready before each, until nothing is done.
fn settle(o: &mut Observed) -> Vec<String> {
    let mut all = Vec::new();
    for _ in 0..20 {
        make_ready(o);
        let done = step(o);
        if done.is_empty() {
            step(o);
            return all;
        }
        all.extend(done);
    }
    panic!("it does not settle: {all:?}");
}

fn at<'o>(o: &'o Observed, field: &str) -> &'o Value {
    o.set.at(&format!("/status/{field}")).unwrap_or(&Value::Null)
}

#[test]
fn pods_come_in_order_and_go_in_reverse() {
    let mut o = observed(json!({"replicas": 3}));
    assert_eq!(step(&mut o), ["create s-0"]);
    assert!(step(&mut o).is_empty(), "the first is not ready");
    make_ready(&mut o);
    assert_eq!(step(&mut o), ["create s-1"]);
    assert_eq!(settle(&mut o), ["create s-2"]);
    assert_eq!((at(&o, "readyReplicas"), at(&o, "currentReplicas")), (&json!(3), &json!(3)));
    let pod = &o.pods[1];
    assert_eq!((pod.str_at("/spec/hostname"), pod.str_at("/spec/subdomain")), ("s-1", "svc"));
    assert_eq!(pod.metadata.labels["apps.kubernetes.io/pod-index"], "1");
    assert!(pod.metadata.generate_name.is_empty());
    change(&mut o, &["replicas"], 1);
    assert_eq!(settle(&mut o), ["delete s-2", "delete s-1"]);
    // A pod that failed is made anew.
    let mut failed = Object::clone(&o.pods[0]);
    failed.rest.insert("status".into(), json!({"phase": "Failed"}));
    o.pods[0] = Arc::new(failed);
    assert_eq!(step(&mut o), ["delete s-0"]);
    assert_eq!(step(&mut o), ["create s-0"]);
}

#[test]
fn in_parallel_all_come_at_once() {
    let mut o = observed(json!({"replicas": 3, "podManagementPolicy": "Parallel", "ordinals": {"start": 5}}));
    assert_eq!(step(&mut o), ["create s-5", "create s-6", "create s-7"]);
    change(&mut o, &["replicas"], 1);
    assert_eq!(step(&mut o), ["delete s-7", "delete s-6"]);
}

#[test]
fn a_new_template_goes_from_the_last_to_the_partition() {
    let mut o = observed(json!({"replicas": 3}));
    settle(&mut o);
    let first = at(&o, "currentRevision").clone();
    change(&mut o, &["updateStrategy"], json!({"type": "RollingUpdate", "rollingUpdate": {"partition": 1}}));
    roll(&mut o, "two");
    assert_eq!(settle(&mut o), ["delete s-2", "create s-2", "delete s-1", "create s-1"]);
    assert_eq!((at(&o, "updatedReplicas"), at(&o, "currentRevision")), (&json!(2), &first));
    assert_ne!(at(&o, "updateRevision"), &first);
    // What is lost below the partition comes back as it was.
    o.pods.retain(|p| p.metadata.name != "s-0");
    assert_eq!(settle(&mut o), ["create s-0"]);
    let image = |o: &Observed| {
        o.pods
            .iter()
            .find(|p| p.metadata.name == "s-0")
            .unwrap()
            .str_at("/spec/containers/0/image")
            .to_string()
    };
    assert_eq!(image(&o), "one");
    change(&mut o, &["updateStrategy", "rollingUpdate", "partition"], 0);
    assert_eq!(settle(&mut o), ["delete s-0", "create s-0"]);
    assert_eq!((image(&o).as_str(), at(&o, "currentRevision")), ("two", at(&o, "updateRevision")));
    // Back again: the old revision is the newest now.
    roll(&mut o, "one");
    assert_eq!(settle(&mut o).len(), 6);
    assert_eq!((at(&o, "currentRevision"), o.revisions.len()), (&first, 2));
}

#[test]
fn on_delete_waits_for_the_user() {
    let mut o = observed(json!({"replicas": 2, "updateStrategy": {"type": "OnDelete"}}));
    settle(&mut o);
    roll(&mut o, "two");
    assert!(settle(&mut o).is_empty());
    o.pods.retain(|p| p.metadata.name != "s-1");
    assert_eq!(settle(&mut o), ["create s-1"]);
    assert_eq!(at(&o, "updatedReplicas"), &json!(1));
}

#[test]
fn claims_are_made_before_their_pod_and_stay() {
    let claim = json!({"metadata": {"name": "data"}, "spec": {"accessModes": ["ReadWriteOnce"]}});
    let mut o = observed(json!({"replicas": 1, "volumeClaimTemplates": [claim]}));
    settle(&mut o);
    assert_eq!(o.claims, ["data-s-0"]);
    assert_eq!(o.pods[0].str_at("/spec/volumes/0/persistentVolumeClaim/claimName"), "data-s-0");
    change(&mut o, &["replicas"], 0);
    settle(&mut o);
    change(&mut o, &["replicas"], 1);
    assert_eq!((settle(&mut o).len(), o.claims.len()), (1, 1));
}
