use core::cmp::Ordering;

use super::*;
use crate::controllers::support::template_hash;

fn owner(replicas: i64) -> Arc<Object> {
    let mut o = Object::new("apps/v1", "ReplicaSet", "default", "web");
    o.metadata.uid = "rs".into();
    o.metadata.generation = 2;
    o.rest.insert(
        "spec".into(),
        json!({"replicas": replicas, "selector": {"matchLabels": {"app": "web"}},
        "template": {"metadata": {"labels": {"app": "web"}}, "spec": {"containers": [{"name": "c"}]}}}),
    );
    Arc::new(o)
}

fn pod(name: &str, app: &str, owner: Option<&str>) -> Object {
    let mut o = Object::new("v1", "Pod", "default", name);
    o.metadata.uid = name.into();
    o.metadata.labels.insert("app".into(), app.into());
    o.metadata.owner_references.extend(owner.map(|uid| OwnerReference {
        kind: "ReplicaSet".into(),
        uid: uid.into(),
        controller: Some(true),
        ..OwnerReference::default()
    }));
    o
}

fn ready(mut pod: Object, since: i64) -> Object {
    let since = Time::from_secs(since).to_rfc3339();
    pod.rest.insert("spec".into(), json!({"nodeName": "w1"}));
    pod.rest.insert(
        "status".into(),
        json!({"phase": "Running", "conditions": [
        {"type": "Ready", "status": "True", "lastTransitionTime": since}]}),
    );
    pod
}

fn observed(owner: Arc<Object>, pods: Vec<Object>) -> Observed {
    let pods: Vec<_> = pods.into_iter().map(Arc::new).collect();
    Observed { owner, gvr: resources::REPLICA_SETS, family: pods.clone(), pods, failure: None }
}

fn planned(observed: &Observed) -> Plan {
    plan(observed, Time::from_secs(100), &mut Rng::new(1))
}

fn names(plan: &Plan, deletions: bool) -> Vec<&str> {
    plan.actions()
        .filter(|a| matches!(a.request.op, Operation::Delete(_)) == deletions)
        .filter_map(|a| a.request.name.as_deref())
        .collect()
}

#[test]
fn pods_are_made_in_a_slow_start() {
    let plan = planned(&observed(owner(8), vec![]));
    let creates: Vec<usize> = plan
        .steps
        .iter()
        .map(|s| s.iter().filter(|a| matches!(a.request.op, Operation::Create(_))).count())
        .filter(|n| *n > 0)
        .collect();
    assert_eq!(creates, [1, 2, 4, 1]);
    let Operation::Create(pod) = &plan.steps.last().unwrap()[0].request.op else { panic!() };
    assert!(pod.metadata.name.starts_with("web-") && pod.metadata.generate_name == "web-");
    assert_eq!(pod.metadata.labels["app"], "web");
    assert_eq!(pod.controller().unwrap().uid, "rs");
    assert_eq!(pod.at("/spec/containers/0/name").unwrap(), "c");
}

#[test]
fn pods_are_adopted_and_released_by_the_selector() {
    let plan = planned(&observed(
        owner(2),
        vec![
            pod("mine", "web", Some("rs")),
            pod("stray", "web", None),
            pod("foreign", "web", Some("other")),
            pod("relabelled", "db", Some("rs")),
        ],
    ));
    let patches: Vec<(&str, usize)> = plan
        .actions()
        .filter_map(|a| match &a.request.op {
            Operation::Patch { body, .. } => {
                Some((a.request.name.as_deref()?, body["metadata"]["ownerReferences"].as_array()?.len()))
            }
            _ => None,
        })
        .collect();
    assert_eq!(patches, [("stray", 1), ("relabelled", 0)]);
    assert!(names(&plan, true).is_empty());
}

#[test]
fn finished_and_terminating_pods_do_not_count() {
    let mut failed = pod("failed", "web", Some("rs"));
    failed.rest.insert("status".into(), json!({"phase": "Failed"}));
    let mut going = pod("going", "web", Some("rs"));
    going.metadata.deletion_timestamp = Some(Time::ZERO);
    let plan = planned(&observed(owner(1), vec![failed, going]));
    assert_eq!(plan.actions().filter(|a| matches!(a.request.op, Operation::Create(_))).count(), 1);
    let mut ending = Object::clone(&owner(5));
    ending.metadata.deletion_timestamp = Some(Time::ZERO);
    let plan = planned(&observed(Arc::new(ending), vec![]));
    assert!(plan.actions().all(|a| a.request.subresource == Some("status")));
}

#[test]
fn the_least_useful_pods_go_first() {
    let with = |mut p: Object, f: fn(&mut Object)| {
        f(&mut p);
        p
    };
    // From the first to go to the last.
    let order = [
        pod("unassigned", "web", Some("rs")),
        with(ready(pod("pending", "web", Some("rs")), 10), |p| {
            p.rest.insert("status".into(), json!({"phase": "Pending"}));
        }),
        with(ready(pod("unready", "web", Some("rs")), 10), |p| {
            p.rest.insert("status".into(), json!({"phase": "Running"}));
        }),
        with(ready(pod("cheap", "web", Some("rs")), 10), |p| {
            p.metadata.annotations.insert("controller.kubernetes.io/pod-deletion-cost".into(), "-1".into());
        }),
        ready(pod("fresh", "web", Some("rs")), 99),
        with(ready(pod("restarted", "web", Some("rs")), 10), |p| {
            support::set(p, "status", "containerStatuses", json!([{"restartCount": 3}]));
        }),
        with(ready(pod("young", "web", Some("rs")), 10), |p| {
            p.metadata.creation_timestamp = Some(Time::from_secs(98))
        }),
        with(ready(pod("old", "web", Some("rs")), 10), |p| {
            p.metadata.creation_timestamp = Some(Time::from_secs(1))
        }),
    ];
    let now = Time::from_secs(100);
    for (i, a) in order.iter().enumerate() {
        for (j, b) in order.iter().enumerate() {
            assert_eq!(
                deletion_order((a, 0), (b, 0), now),
                i.cmp(&j),
                "{} {}",
                a.metadata.name,
                b.metadata.name
            );
        }
    }
    // Where more of the family run on the node, it goes first.
    assert_eq!(deletion_order((&order[7], 2), (&order[4], 1), now), Ordering::Less);
    let plan = planned(&observed(owner(5), order.to_vec()));
    assert_eq!(names(&plan, true), ["unassigned", "pending", "unready"]);
}

#[test]
fn status_counts_and_waits_for_min_ready_seconds() {
    let mut rs = Object::clone(&owner(2));
    support::set(&mut rs, "spec", "minReadySeconds", json!(10));
    let pods = vec![ready(pod("a", "web", Some("rs")), 50), ready(pod("b", "web", Some("rs")), 95)];
    let plan = planned(&observed(Arc::new(rs), pods));
    assert_eq!(plan.again_at, Some(Time::from_secs(105)));
    let Operation::Update(written) = &plan.steps[0][0].request.op else { panic!() };
    let want = json!({"replicas": 2, "fullyLabeledReplicas": 2, "readyReplicas": 2, "availableReplicas": 1,
        "terminatingReplicas": 0, "observedGeneration": 2});
    assert_eq!(written.rest["status"], want);
}

#[test]
fn a_failure_is_told_and_taken_back() {
    let mut o = observed(owner(1), vec![]);
    o.failure = Some(Failure { reason: "FailedCreate", message: "quota".into() });
    let Operation::Update(written) = &planned(&o).steps[0][0].request.op.clone() else { panic!() };
    assert_eq!(written.at("/status/conditions/0/type").unwrap(), "ReplicaFailure");
    o.owner = Arc::clone(written);
    o.failure = None;
    let Operation::Update(written) = &planned(&o).steps[0][0].request.op.clone() else { panic!() };
    assert!(written.at("/status/conditions").is_none());
}

#[test]
fn hashes_are_stable() {
    let template = json!({"metadata": {"labels": {"app": "web"}}, "spec": {"containers": [{"name": "c", "image": "nginx"}]}});
    assert_eq!(template_hash(&template, None), template_hash(&template.clone(), None));
}
