use alloc::format;

use super::super::rollout::Sets;
use super::*;
use crate::client::Operation;

fn deployment(spec: Value) -> Arc<Object> {
    let mut o = Object::new("apps/v1", "Deployment", "default", "web");
    o.metadata.uid = "d".into();
    o.metadata.generation = 1;
    let mut full = json!({"selector": {"matchLabels": {"app": "web"}}, "template": template("v2")});
    full.as_object_mut().unwrap().extend(spec.as_object().unwrap().clone());
    o.rest.insert("spec".into(), full);
    Arc::new(o)
}

fn template(image: &str) -> Value {
    json!({"metadata": {"labels": {"app": "web"}}, "spec": {"containers": [{"image": image}]}})
}

fn replica_set(
    name: &str,
    created: i64,
    image: &str,
    replicas: i64,
    available: i64,
    size: Option<i64>,
) -> Arc<Object> {
    let mut o = Object::new("apps/v1", "ReplicaSet", "default", name);
    o.metadata.uid = name.into();
    o.metadata.labels.insert("app".into(), "web".into());
    o.metadata.creation_timestamp = Some(Time::from_secs(created));
    o.metadata.owner_references =
        vec![OwnerReference { uid: "d".into(), controller: Some(true), ..OwnerReference::default() }];
    o.metadata.annotations.insert(REVISION.into(), format!("{created}"));
    for key in ["desired-replicas", "max-replicas"] {
        let value = size.map(|n| (format!("deployment.kubernetes.io/{key}"), format!("{n}")));
        o.metadata.annotations.extend(value);
    }
    o.rest.insert("spec".into(), json!({"replicas": replicas, "template": template(image)}));
    o.rest.insert(
        "status".into(),
        json!({"replicas": replicas, "readyReplicas": available, "availableReplicas": available}),
    );
    Arc::new(o)
}

fn sizes(sets: &Sets) -> (i64, Vec<i64>) {
    (sets.new.as_ref().map_or(-1, |r| r.replicas), sets.old.iter().map(|r| r.replicas).collect())
}

fn sets(d: &Arc<Object>, replica_sets: Vec<Arc<Object>>) -> (Spec, Sets) {
    let observed = Observed { deployment: Arc::clone(d), replica_sets, pods: vec![], name_taken: false };
    let (mut sets, _) = claim(&observed);
    let spec = Spec::of(d);
    find_new(d, &spec, &mut sets, false, (Time::ZERO, &mut Status::default()));
    (spec, sets)
}

/// The cases of upstream's `TestScale` (`pkg/controller/deployment/sync_test.go`), without surge: the new set and the
/// old ones, from the older to the newer, before and after.
#[test]
fn scaling_in_a_rollout_keeps_the_proportions() {
    for (from, to, new, old, want_new, want_old) in [
        (5, 10, 2, vec![3], 4, vec![6]),
        (5, 3, 2, vec![3], 1, vec![2]),
        (9, 4, 8, vec![1], 4, vec![0]),
        (7, 10, 2, vec![2, 3], 3, vec![3, 4]),
        (13, 8, 2, vec![3, 8], 1, vec![2, 5]),
        (3, 4, 1, vec![1, 1], 2, vec![1, 1]),
        (3, 5, 1, vec![1, 1], 2, vec![1, 2]),
        (5, 0, 3, vec![2], 0, vec![0]),
    ] {
        let d = deployment(json!({"replicas": to, "strategy": {"type": "RollingUpdate",
            "rollingUpdate": {"maxSurge": 0, "maxUnavailable": 1}}}));
        let mut all: Vec<_> = old
            .iter()
            .enumerate()
            .map(|(i, n)| replica_set(&format!("old{i}"), i as i64 + 1, "v1", *n, 0, Some(from)))
            .collect();
        all.push(replica_set("new", 9, "v2", new, 0, Some(from)));
        let (spec, mut sets) = sets(&d, all);
        assert!(sets.is_scaling(&spec));
        proportional(&spec, &mut sets);
        assert_eq!(sizes(&sets), (want_new, want_old), "{from} -> {to}");
    }
}

/// One round of a rolling update: (replicas, surge, unavailable), new (size, available), old (size, available), and the
/// sizes after it.
#[test]
fn rolling_rounds() {
    for ((replicas, surge, unavailable), new, old, want) in [
        ((10, 2, 0), (0, 0), (10, 10), (2, 10)),
        ((10, 2, 2), (2, 2), (10, 10), (2, 6)),
        ((10, 0, 2), (0, 0), (10, 10), (0, 8)),
        ((10, 0, 2), (0, 0), (8, 8), (2, 8)),
        // The new pods are not available yet: nothing may go.
        ((10, 2, 0), (2, 0), (10, 10), (2, 10)),
        // Old pods that are not available go at once.
        ((10, 2, 0), (2, 0), (10, 8), (2, 10)),
        ((10, 2, 2), (2, 0), (10, 8), (2, 8)),
        ((10, 2, 2), (10, 10), (2, 2), (10, 0)),
        ((4, 1, 1), (7, 7), (0, 0), (4, 0)),
    ] {
        let d = deployment(json!({"replicas": replicas, "strategy": {"type": "RollingUpdate",
            "rollingUpdate": {"maxSurge": surge, "maxUnavailable": unavailable}}}));
        let all = vec![
            replica_set("old", 1, "v1", old.0, old.1, Some(replicas)),
            replica_set("new", 2, "v2", new.0, new.1, Some(replicas)),
        ];
        let (spec, mut sets) = sets(&d, all);
        rolling(&spec, &mut sets);
        let case = ((replicas, surge, unavailable), new, old);
        assert_eq!(sizes(&sets), (want.0, vec![want.1]), "{case:?}");
    }
}

fn written_status(plan: &Plan) -> Value {
    let status = plan.actions().find(|a| a.request.subresource == Some("status")).unwrap();
    let Operation::Update(object) = &status.request.op else { panic!() };
    object.rest["status"].clone()
}

fn reason_of(status: &Value, kind: &str) -> String {
    let conditions = status["conditions"].as_array().unwrap();
    let found = conditions.iter().find(|c| c["type"] == kind);
    found.map_or_else(String::new, |c| {
        format!("{} {}", c["status"].as_str().unwrap(), c["reason"].as_str().unwrap())
    })
}

fn with_revision(d: &Arc<Object>, revision: &str) -> Arc<Object> {
    let mut d = Object::clone(d);
    d.metadata.annotations.insert(REVISION.into(), revision.into());
    Arc::new(d)
}

fn with_status(d: &Arc<Object>, status: Value) -> Arc<Object> {
    let mut d = Object::clone(d);
    d.rest.insert("status".into(), status);
    Arc::new(d)
}

#[test]
fn progress_is_told_and_times_out() {
    let d = with_revision(&deployment(json!({"replicas": 2, "progressDeadlineSeconds": 60})), "1");
    let observe = |d: &Arc<Object>, available| Observed {
        deployment: Arc::clone(d),
        replica_sets: vec![replica_set("new", 1, "v2", 2, available, Some(2))],
        pods: vec![],
        name_taken: false,
    };
    let t = Time::from_secs;
    // The set stands already: found, then its pods count as progress.
    let first = plan(&observe(&d, 0), t(0));
    let status = written_status(&first);
    assert_eq!(reason_of(&status, "Progressing"), "True ReplicaSetUpdated");
    assert_eq!(reason_of(&status, "Available"), "False MinimumReplicasUnavailable");
    let d1 = with_status(&d, status);
    let quiet = plan(&observe(&d1, 0), t(30));
    assert_eq!((quiet.actions().count(), quiet.again_at), (0, Some(t(61))), "{quiet:?}");
    let late = written_status(&plan(&observe(&d1, 0), t(61)));
    assert_eq!(reason_of(&late, "Progressing"), "False ProgressDeadlineExceeded");
    let done = written_status(&plan(&observe(&with_status(&d, late), 2), t(90)));
    assert_eq!(reason_of(&done, "Progressing"), "True NewReplicaSetAvailable");
    assert_eq!(reason_of(&done, "Available"), "True MinimumReplicasAvailable");
    let end = plan(&observe(&with_status(&d, done), 2), t(9999));
    assert!(end.actions().all(|a| a.request.gvr == resources::REPLICA_SETS), "{end:?}");
    assert_eq!(end.again_at, None);
}

#[test]
fn a_paused_deployment_says_so_and_rolls_nothing() {
    let d = with_revision(&deployment(json!({"replicas": 2, "paused": true})), "1");
    let observed = Observed {
        deployment: Arc::clone(&d),
        replica_sets: vec![replica_set("old", 1, "v1", 2, 2, Some(2))],
        pods: vec![],
        name_taken: false,
    };
    let plan = plan(&observed, Time::ZERO);
    assert_eq!(reason_of(&written_status(&plan), "Progressing"), "Unknown DeploymentPaused");
    assert!(plan.actions().all(|a| a.request.subresource.is_some()), "{plan:?}");
}

#[test]
fn recreate_waits_for_the_last_pod() {
    let d = deployment(json!({"replicas": 2, "strategy": {"type": "Recreate"}}));
    let mut pod = Object::new("v1", "Pod", "default", "p");
    pod.metadata.owner_references =
        vec![OwnerReference { uid: "old".into(), controller: Some(true), ..OwnerReference::default() }];
    pod.metadata.deletion_timestamp = Some(Time::ZERO);
    let mut observed = Observed {
        deployment: d,
        replica_sets: vec![replica_set("old", 1, "v1", 0, 0, Some(2))],
        pods: vec![Arc::new(pod)],
        name_taken: false,
    };
    let creates = |o: &Observed| {
        plan(o, Time::ZERO).actions().filter(|a| matches!(a.request.op, Operation::Create(_))).count()
    };
    assert_eq!(creates(&observed), 0);
    observed.pods.clear();
    assert_eq!(creates(&observed), 1);
}

#[test]
fn a_rollback_finds_the_old_set_and_gives_it_the_next_revision() {
    let d = with_revision(&deployment(json!({"replicas": 1})), "2");
    let observed = Observed {
        deployment: d,
        replica_sets: vec![
            replica_set("a", 1, "v2", 0, 0, Some(1)),
            replica_set("b", 2, "v1", 1, 1, Some(1)),
        ],
        pods: vec![],
        name_taken: false,
    };
    let plan = plan(&observed, Time::ZERO);
    let Operation::Update(rs) = &plan.steps[0][0].request.op else { panic!() };
    assert_eq!((rs.metadata.name.as_str(), rs.metadata.annotations[REVISION].as_str()), ("a", "3"));
    assert_eq!(rs.metadata.annotations["deployment.kubernetes.io/revision-history"], "1");
    let Operation::Patch { body, .. } = &plan.steps.last().unwrap()[0].request.op else { panic!() };
    assert_eq!(body["metadata"]["annotations"][REVISION], "3");
}

#[test]
fn history_beyond_the_limit_goes_when_the_rollout_is_complete() {
    let d = with_revision(&deployment(json!({"replicas": 1, "revisionHistoryLimit": 1})), "4");
    let observed = Observed {
        deployment: with_status(&d, json!({"observedGeneration": 1})),
        replica_sets: vec![
            replica_set("a", 1, "v0", 0, 0, Some(1)),
            replica_set("b", 2, "v1", 0, 0, Some(1)),
            replica_set("c", 4, "v2", 1, 1, Some(1)),
        ],
        pods: vec![],
        name_taken: false,
    };
    let plan = plan(&observed, Time::ZERO);
    let gone: Vec<_> = plan
        .actions()
        .filter(|a| matches!(a.request.op, Operation::Delete(_)))
        .map(|a| a.request.name.as_deref().unwrap())
        .collect();
    assert_eq!(gone, ["a"]);
}

#[test]
fn a_taken_name_counts_as_a_collision() {
    let observed = Observed {
        deployment: deployment(json!({"replicas": 1})),
        replica_sets: vec![],
        pods: vec![],
        name_taken: true,
    };
    assert_eq!(written_status(&plan(&observed, Time::ZERO))["collisionCount"], 1);
}
