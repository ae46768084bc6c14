use alloc::vec;

use proptest::prelude::*;
use serde_json::json;

use super::*;
use crate::api::OwnerReference;
use crate::client::Operation;

const NOW: Time = Time::from_secs(10_000);

fn ago(secs: i64) -> String {
    Time::from_secs(10_000 - secs).to_rfc3339()
}

fn budget(spec: &Value, status: &Value) -> Arc<Object> {
    let mut o = Object::new("policy/v1", "PodDisruptionBudget", "default", "web");
    o.metadata.generation = 3;
    let mut spec = spec.clone();
    if spec.get("selector").is_none() {
        spec["selector"] = json!({"matchLabels": {"app": "web"}});
    }
    o.rest.insert("spec".into(), spec);
    if !status.is_null() {
        o.rest.insert("status".into(), status.clone());
    }
    Arc::new(o)
}

fn pod(name: &str, owner: Option<&str>, ready: bool) -> Object {
    let mut o = Object::new("v1", "Pod", "default", name);
    o.metadata.labels.insert("app".into(), "web".into());
    o.metadata.owner_references.extend(owner.map(|uid| OwnerReference {
        uid: uid.into(),
        controller: Some(true),
        ..OwnerReference::default()
    }));
    let ready = if ready { "True" } else { "False" };
    o.rest.insert("status".into(), json!({"conditions": [{"type": "Ready", "status": ready}]}));
    o
}

fn terminating(mut pod: Object) -> Object {
    pod.metadata.deletion_timestamp = Some(NOW);
    pod
}

fn observed(budget: Arc<Object>, pods: Vec<Object>, owners: &[(&str, &str, i64)]) -> Observed {
    let scaled = |(by, uid, replicas): &(&str, &str, i64)| {
        (String::from(*by), Owner::Scaled(Scale { uid: (*uid).into(), replicas: *replicas }))
    };
    Observed {
        budget,
        pods: pods.into_iter().map(Arc::new).collect(),
        owners: owners.iter().map(scaled).collect(),
    }
}

/// The status that a plan writes, without its condition; nothing if it writes none.
fn written(plan: &Plan) -> Option<Value> {
    let action = plan.actions().next()?;
    assert_eq!(action.request.subresource, Some("status"));
    let Operation::Update(object) = &action.request.op else { panic!("{action:?}") };
    object.at("/status").cloned()
}

/// Current, desired, expected and allowed.
fn figures_of(plan: &Plan) -> [i64; 4] {
    let status = written(plan).unwrap();
    ["currentHealthy", "desiredHealthy", "expectedPods", "disruptionsAllowed"]
        .map(|f| status[f].as_i64().unwrap())
}

fn condition(plan: &Plan) -> (String, String, String) {
    let condition = &written(plan).unwrap()["conditions"][0];
    let text = |field: &str| String::from(condition[field].as_str().unwrap());
    (text("status"), text("reason"), text("message"))
}

fn reasons(plan: &Plan) -> Vec<&str> {
    plan.notes.iter().map(|n| n.note.reason).collect()
}

fn ready(n: usize) -> Vec<Object> {
    (0..n).map(|i| pod(&format!("web-{i}"), Some("rs"), true)).collect()
}

#[test]
fn limits_round_up() {
    // spec, replicas of the controller, pods that are ready: current, desired, expected, allowed.
    for (spec, replicas, ready_pods, want) in [
        (json!({"minAvailable": 2}), 5, 3, [3, 2, 3, 1]),
        (json!({"minAvailable": 3}), 5, 3, [3, 3, 3, 0]),
        (json!({"minAvailable": 9}), 5, 3, [3, 9, 3, 0]),
        (json!({"minAvailable": 0}), 5, 3, [3, 0, 3, 3]),
        (json!({"minAvailable": "50%"}), 5, 5, [5, 3, 5, 2]),
        (json!({"minAvailable": "0%"}), 5, 5, [5, 0, 5, 5]),
        (json!({"minAvailable": "100%"}), 5, 5, [5, 5, 5, 0]),
        (json!({"maxUnavailable": 1}), 5, 5, [5, 4, 5, 1]),
        (json!({"maxUnavailable": 1}), 5, 4, [4, 4, 5, 0]),
        (json!({"maxUnavailable": 9}), 5, 5, [5, 0, 5, 5]),
        (json!({"maxUnavailable": "1%"}), 5, 5, [5, 4, 5, 1]),
        (json!({"maxUnavailable": "50%"}), 5, 5, [5, 2, 5, 3]),
        (json!({"maxUnavailable": "100%"}), 5, 5, [5, 0, 5, 5]),
        // No replicas are expected: the pods that are there are on their way out.
        (json!({"maxUnavailable": "50%"}), 0, 2, [2, 0, 0, 0]),
        // Neither limit says nothing, and allows nothing.
        (json!({}), 5, 5, [5, 0, 0, 0]),
    ] {
        let plan =
            plan(&observed(budget(&spec, &Value::Null), ready(ready_pods), &[("rs", "web", replicas)]), NOW);
        assert_eq!(figures_of(&plan), want, "{spec}");
        let (status, reason, _) = condition(&plan);
        let allowed = want[3] > 0;
        let expected = if allowed { ("True", "SufficientPods") } else { ("False", "InsufficientPods") };
        assert_eq!((status.as_str(), reason.as_str()), expected);
        assert!(plan.notes.is_empty() && plan.again_at.is_none(), "{plan:?}");
    }
}

#[test]
fn each_controller_counts_once() {
    // Two ReplicaSets of one Deployment, and a StatefulSet.
    let pods = vec![
        pod("a", Some("old"), true),
        pod("b", Some("new"), true),
        pod("c", Some("new"), true),
        pod("d", Some("db"), true),
    ];
    let owners = [("old", "web", 4), ("new", "web", 4), ("db", "db", 2)];
    let plan = plan(&observed(budget(&json!({"maxUnavailable": 2}), &Value::Null), pods, &owners), NOW);
    assert_eq!(figures_of(&plan), [4, 4, 6, 0]);
}

#[test]
fn only_pods_that_are_ready_and_stay_are_healthy() {
    let status = json!({"disruptedPods": {
        "evicted": ago(30), "on-the-edge": ago(120), "overdue": ago(121), "going": ago(1), "gone": ago(1)}});
    let pods = vec![
        pod("ready", None, true),
        pod("unready", None, false),
        pod("evicted", None, true),
        pod("on-the-edge", None, true),
        pod("overdue", None, true),
        terminating(pod("going", None, true)),
    ];
    let plan = plan(&observed(budget(&json!({"minAvailable": 1}), &status), pods, &[]), NOW);
    // On the very edge a pod counts again, and its eviction is still noted.
    assert_eq!(figures_of(&plan), [3, 1, 6, 2]);
    let status = written(&plan).unwrap();
    assert_eq!(status["disruptedPods"], json!({"evicted": ago(30), "on-the-edge": ago(120)}));
    assert_eq!(plan.again_at, Some(NOW));
    assert_eq!(reasons(&plan), ["NotDeleted"]);
    assert_eq!(plan.notes[0].about.metadata.name, "overdue");
    assert_eq!(plan.notes[0].note.note, "Pod was expected by PDB default/web to be deleted but it wasn't");
}

#[test]
fn a_status_that_is_right_is_not_written() {
    let spec = json!({"minAvailable": 2});
    let first = plan(&observed(budget(&spec, &Value::Null), ready(3), &[]), NOW);
    let status = written(&first).unwrap();
    assert_eq!(status["observedGeneration"], 3);
    assert!(status.get("disruptedPods").is_none());
    let again = |status: &Value, pods: usize| {
        plan(&observed(budget(&spec, status), ready(pods), &[]), NOW + Duration::from_secs(9))
    };
    assert_eq!(again(&status, 3), Plan::none());
    assert_eq!(figures_of(&again(&status, 4)), [4, 2, 4, 2]);
    // What this plan does not know is kept; the condition is made right alone.
    let mut other = status.clone();
    other["future"] = json!(1);
    assert_eq!(again(&other, 3), Plan::none());
    other["conditions"][0]["reason"] = json!("SyncFailed");
    let plan = again(&other, 3);
    assert_eq!(condition(&plan).1, "SufficientPods");
    let mut want = status;
    want["future"] = json!(1);
    assert_eq!(written(&plan).unwrap(), want);
}

#[test]
fn no_pods_and_unmanaged_pods_are_told() {
    let plan_of = |spec: Value, pods| plan(&observed(budget(&spec, &Value::Null), pods, &[]), NOW);
    let plan = plan_of(json!({"maxUnavailable": 1}), vec![]);
    assert_eq!((figures_of(&plan), reasons(&plan)), ([0, 0, 0, 0], vec!["NoPods"]));
    assert_eq!(plan.notes[0].note.note, "No matching pods found");
    let bare = || vec![pod("bare", None, true)];
    for spec in [json!({"maxUnavailable": 1}), json!({"minAvailable": "50%"})] {
        let plan = plan_of(spec, bare());
        assert_eq!((figures_of(&plan), reasons(&plan)), ([1, 0, 0, 0], vec!["UnmanagedPods"]));
        assert!(plan.notes[0].note.note.contains("(selector: app=web)"), "{:?}", plan.notes);
    }
    let plan = plan_of(json!({"minAvailable": 1}), bare());
    assert_eq!((figures_of(&plan), reasons(&plan)), ([1, 1, 1, 0], vec![]));
}

#[test]
fn what_cannot_be_computed_allows_nothing_and_says_why() {
    let before = json!({"currentHealthy": 3, "desiredHealthy": 2, "expectedPods": 3, "disruptionsAllowed": 1,
        "observedGeneration": 2, "disruptedPods": {"x": ago(1)}});
    let spec = json!({"maxUnavailable": 1});
    let mut unknown = observed(budget(&spec, &before), ready(3), &[]);
    unknown
        .owners
        .insert("rs".into(), Owner::Unknown("jobs.batch does not implement the scale subresource".into()));
    let mut missing = unknown.clone();
    missing.owners.insert("rs".into(), Owner::Missing);
    let nonsense =
        observed(budget(&json!({"maxUnavailable": "many"}), &before), ready(3), &[("rs", "web", 3)]);
    let odd = observed(budget(&json!({"minAvailable": [1]}), &before), ready(3), &[]);
    for (observed, why) in [
        (&unknown, "jobs.batch does not implement the scale subresource"),
        (&missing, "found no controllers for pod \"web-0\""),
        (&nonsense, "invalid value for IntOrString: invalid type: string is not a percentage"),
        (&odd, "invalid value for IntOrString: invalid type: neither int nor percentage"),
    ] {
        let plan = plan(observed, NOW);
        assert_eq!(condition(&plan), ("False".into(), "SyncFailed".into(), why.into()));
        assert_eq!(reasons(&plan), ["CalculateExpectedPodCountFailed"]);
        assert_eq!(
            plan.notes[0].note.note,
            format!("Failed to calculate the number of expected pods: {why}")
        );
        // The rest stays as it was; the generation is not observed.
        let mut status = written(&plan).unwrap();
        status.as_object_mut().unwrap().remove("conditions");
        let mut want = before.clone();
        want["disruptionsAllowed"] = json!(0);
        assert_eq!(status, want);
        // The same failure is not written again.
        let mut next = observed.clone();
        next.budget = budget(observed.budget.at("/spec").unwrap(), &written(&plan).unwrap());
        assert!(written(&super::plan(&next, NOW + Duration::from_secs(1))).is_none());
    }
    let selector =
        json!({"minAvailable": 1, "selector": {"matchExpressions": [{"key": "a", "operator": "Odd"}]}});
    let plan = plan(&observed(budget(&selector, &Value::Null), vec![], &[]), NOW);
    assert_eq!((condition(&plan).1.as_str(), reasons(&plan)), ("SyncFailed", vec!["NoPods"]));
    assert!(plan.notes[0].note.note.starts_with("Failed to get pods: "), "{:?}", plan.notes);
}

#[test]
fn an_empty_selector_is_about_all_pods_and_a_missing_one_about_none() {
    let of = |spec: Value| {
        let mut o = Object::new("policy/v1", "PodDisruptionBudget", "default", "web");
        o.rest.insert("spec".into(), spec);
        selector(&o).unwrap()
    };
    let labels = pod("a", None, true).metadata.labels;
    assert!(of(json!({"selector": {}})).matches(&labels));
    assert!(!of(json!({})).matches(&labels));
    assert!(!of(json!({"selector": null})).matches(&labels));
}

#[test]
fn hostile_numbers_do_not_overflow() {
    let huge = i64::MAX;
    for spec in [
        json!({"minAvailable": huge}),
        json!({"minAvailable": i64::MIN}),
        json!({"maxUnavailable": i64::MIN}),
        json!({"maxUnavailable": format!("{huge}%")}),
        json!({"minAvailable": format!("{huge}%")}),
        json!({"minAvailable": "99999999999999999999999%"}),
    ] {
        let pods = vec![pod("a", Some("x"), true), pod("b", Some("y"), true)];
        let plan =
            plan(&observed(budget(&spec, &Value::Null), pods, &[("x", "x", huge), ("y", "y", huge)]), NOW);
        assert!(written(&plan).is_some(), "{spec}");
    }
}

/// Upstream's arithmetic in its own types: 32 bit, and rounding by floating point.
fn naive(percent: bool, value: i32, total: i32) -> i32 {
    if percent { (f64::from(value) * f64::from(total) / 100.0).ceil() as i32 } else { value }
}

#[derive(Clone, Debug)]
struct Drawn {
    ready: bool,
    terminating: bool,
    /// Seconds since its eviction.
    evicted: Option<i64>,
    owner: usize,
}

fn drawn() -> impl Strategy<Value = Drawn> {
    (any::<bool>(), prop::bool::weighted(0.2), prop::option::of(0_i64..300), 0_usize..4)
        .prop_map(|(ready, terminating, evicted, owner)| Drawn { ready, terminating, evicted, owner })
}

proptest! {
    #[test]
    fn percentages_are_those_of_upstream(value in 0_i32..=200, total in 0_i32..20_000) {
        let limit = IntOrPercent::Percent(format!("{value}%"));
        prop_assert_eq!(limit.checked(total.into(), true), Some(naive(true, value, total).into()));
    }

    #[test]
    fn the_figures_are_those_of_a_naive_count(
        pods in prop::collection::vec(drawn(), 0..12),
        scales in prop::array::uniform4(0_i32..8),
        max in any::<bool>(), percent in any::<bool>(), value in 0_i32..=100,
    ) {
        let value = if percent { value } else { value % 12 };
        let limit = if percent { json!(format!("{value}%")) } else { json!(value) };
        let mut spec = json!({});
        spec[if max { "maxUnavailable" } else { "minAvailable" }] = limit;
        let mut before = json!({"disruptedPods": {}});
        let mut objects = Vec::new();
        for (i, d) in pods.iter().enumerate() {
            let name = format!("p{i}");
            let object = pod(&name, Some(&format!("{}", d.owner)), d.ready);
            objects.push(if d.terminating { terminating(object) } else { object });
            if let Some(secs) = d.evicted {
                before["disruptedPods"][&name] = json!(ago(secs));
            }
        }
        let uids: Vec<String> = (0..4).map(|i| format!("{i}")).collect();
        let owners: Vec<(&str, &str, i64)> =
            uids.iter().zip(scales).map(|(u, n)| (u.as_str(), u.as_str(), n.into())).collect();
        let plan = plan(&observed(budget(&spec, &before), objects, &owners), NOW);

        let mut healthy = 0;
        for d in &pods {
            let evicted = matches!(d.evicted, Some(secs) if secs < 120);
            if d.ready && !d.terminating && !evicted {
                healthy += 1;
            }
        }
        let by_scale = max || percent;
        let mut expected = 0;
        for (owner, scale) in scales.iter().enumerate() {
            if pods.iter().any(|d| d.owner == owner) {
                expected += scale;
            }
        }
        if !by_scale {
            expected = pods.len() as i32;
        }
        let desired = if max {
            (expected - naive(percent, value, expected)).max(0)
        } else {
            naive(percent, value, expected)
        };
        let allowed = if expected > 0 && healthy > desired { healthy - desired } else { 0 };
        prop_assert_eq!(figures_of(&plan), [healthy, desired, expected, allowed].map(i64::from));
        // What was written is a fixed point.
        let status = written(&plan).unwrap();
        let mut next = observed(budget(&spec, &status), vec![], &owners);
        next.pods = pods.iter().enumerate().map(|(i, d)| {
            let object = pod(&format!("p{i}"), Some(&format!("{}", d.owner)), d.ready);
            Arc::new(if d.terminating { terminating(object) } else { object })
        }).collect();
        prop_assert!(written(&super::plan(&next, NOW)).is_none());
    }
}
