//! Extenders that filter, give points and bind, in virtual time.

use alloc::boxed::Box;
use alloc::format;
use alloc::string::{String, ToString};
use alloc::sync::Arc;
use alloc::vec::Vec;
use std::sync::Mutex;

use icp_core::api::resources;
use icp_core::base::{Duration, Rng};
use serde_json::{Value, json};

use super::SECOND;
use super::api::{Faults, World};
use crate::config::{KIND, Registry, SchedulerConfiguration, VERSION};
use crate::extender::ExtenderAnswer;
use crate::machine::SchedulerMachine;

/// What was asked: the address and the document.
type Log = Arc<Mutex<Vec<(String, Value)>>>;

/// A cluster of three nodes with these extenders, all of which `serve` speaks for.
fn world(
    extenders: Value,
    mut serve: impl FnMut(&str, &Value) -> Option<Result<Value, String>> + 'static,
) -> (World, Log) {
    let file = json!({"apiVersion": VERSION, "kind": KIND, "leaderElection": {"leaderElect": false},
        "extenders": extenders});
    let config = SchedulerConfiguration::from_value(&file, &Registry::default()).unwrap();
    let builder = config.scheduler(&Registry::default()).unwrap();
    let machine = SchedulerMachine::with_scheduler(config.machine("test", "test"), builder, Rng::new(1));
    let mut w = World::new(1, Faults { delay_ms: 3, ..Faults::default() }, Vec::from([machine]));
    let log = Log::default();
    let asked = Arc::clone(&log);
    w.extender = Some(Box::new(move |call| {
        let body: Value = serde_json::from_slice(&call.body).unwrap();
        let answer = serve(&call.url, &body);
        asked.lock().unwrap().push((call.url.clone(), body));
        Some(answer?.map(|v| ExtenderAnswer { code: 200, body: v.to_string().into_bytes() }))
    }));
    for n in ["n0", "n1", "n2"] {
        w.node(n, "4");
    }
    w.run_for(SECOND);
    (w, log)
}

fn urls(log: &Log) -> Vec<String> {
    log.lock().unwrap().iter().map(|(url, _)| url.clone()).collect()
}

fn message(w: &World, pod: &str) -> (String, String) {
    let pod = w.get(&resources::PODS, pod).unwrap();
    let text = |field: &str| pod.str_at(&format!("/status/conditions/0/{field}")).to_string();
    (text("reason"), text("message"))
}

/// All names but some.
fn without(body: &Value, out: &[&str]) -> Value {
    let names = body["NodeNames"].as_array().unwrap().iter();
    json!({"NodeNames": names.filter(|n| !out.contains(&n.as_str().unwrap())).collect::<Vec<_>>()})
}

#[test]
fn each_filters_what_the_one_before_left_and_points_are_added() {
    let extenders = json!([
        {"urlPrefix": "http://a/", "filterVerb": "filter", "nodeCacheCapable": true},
        {"urlPrefix": "http://b", "filterVerb": "f", "prioritizeVerb": "p", "weight": 2},
    ]);
    let (mut w, log) = world(extenders, |url, body| {
        Some(Ok(match url {
            "http://a/filter" => without(body, &["n0"]),
            "http://b/f" => json!({"Nodes": body["Nodes"]}),
            _ => {
                json!([{"Host": "n2", "Score": 10}, {"Host": "n0", "Score": 10}, {"Host": "none", "Score": 1}])
            }
        }))
    });
    w.pod("p", "1");
    w.run_for(SECOND);
    assert_eq!(w.node_of("p"), "n2");
    assert_eq!(urls(&log), ["http://a/filter", "http://b/f", "http://b/p"]);
    let log = log.lock().unwrap();
    assert_eq!(log[0].1["NodeNames"], json!(["n0", "n1", "n2"]));
    assert_eq!(log[0].1["Pod"]["spec"]["containers"][0]["name"], "c");
    for (_, body) in &log[1..] {
        let items = body["Nodes"]["items"].as_array().unwrap();
        let names: Vec<_> = items.iter().map(|n| n["metadata"]["name"].as_str().unwrap()).collect();
        assert_eq!(names, ["n1", "n2"]);
        assert_eq!(items[0]["status"]["allocatable"]["cpu"], "4");
    }
}

#[test]
fn points_outweigh_plugins_by_ten_and_the_weight() {
    // The full node gets fewer points of the plugins, less than 200 in all, than an extender gives.
    for (weight, want) in [(1, "n1"), (20, "n0")] {
        let extenders = json!([{"urlPrefix": "http://a", "prioritizeVerb": "p", "weight": weight}]);
        let (mut w, _) = world(extenders, |_, _| Some(Ok(json!([{"Host": "n0", "Score": 1}]))));
        w.delete(&resources::NODES, "n2");
        w.create(
            &resources::PODS,
            json!({"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "load", "namespace": "default"},
                "spec": {"nodeName": "n0", "containers": [{"name": "c", "resources": {"requests": {"cpu": "3"}}}]}}),
        );
        w.run_for(SECOND);
        w.pod("p", "500m");
        w.run_for(SECOND);
        assert_eq!(w.node_of("p"), want, "{weight}");
    }
}

#[test]
fn pods_that_ask_for_nothing_managed_are_decided_on_without_them() {
    let extenders = json!([{"urlPrefix": "http://a", "filterVerb": "f", "bindVerb": "b", "nodeCacheCapable": true,
        "managedResources": [{"name": "example.com/foo", "ignoredByScheduler": true}]}]);
    let (mut w, log) = world(extenders, |url, body| {
        Some(Ok(if url.ends_with("/f") { without(body, &["n0", "n1"]) } else { json!({"Error": "later"}) }))
    });
    w.pod("plain", "1");
    w.run_for(SECOND);
    assert_ne!(w.node_of("plain"), "");
    assert!(urls(&log).is_empty());
    w.create(
        &resources::PODS,
        json!({"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "foo", "namespace": "default"},
            "spec": {"schedulerName": "default-scheduler", "containers": [{"name": "c", "resources":
                {"requests": {"example.com/foo": "1"}, "limits": {"example.com/foo": "1"}}}]}}),
    );
    w.run_for(Duration::from_millis(100));
    assert_eq!(urls(&log), ["http://a/f", "http://a/b"]);
    assert_eq!(message(&w, "foo"), ("SchedulerError".into(), "later".into()));
    assert_eq!(w.bindings.len(), 1);
    w.run_for(SECOND * 2);
    assert_eq!(urls(&log).len(), 4, "it tries again after its pause");
    let log = log.lock().unwrap();
    let uid = &w.get(&resources::PODS, "foo").unwrap().metadata.uid;
    let want = json!({"PodName": "foo", "PodNamespace": "default", "PodUID": uid, "Node": "n2"});
    assert_eq!(log[1].1, want);
}

#[test]
fn an_extender_that_bound_is_believed_and_the_api_server_is_not_asked() {
    let extenders = json!([{"urlPrefix": "http://a", "bindVerb": "b"}]);
    let (mut w, log) = world(extenders, |_, _| Some(Ok(json!({}))));
    w.pod("p", "1");
    w.run_for(SECOND);
    assert_eq!(urls(&log), ["http://a/b"]);
    assert!(w.bindings.is_empty());
    let node = log.lock().unwrap()[0].1["Node"].as_str().unwrap().to_string();
    assert_eq!(w.events(), [format!("Scheduled Successfully assigned default/p to {node}")]);
}

#[test]
fn a_binding_of_unknown_outcome_is_read_unless_it_does_not_matter() {
    for ignorable in [false, true] {
        let extenders =
            json!([{"urlPrefix": "http://a", "bindVerb": "b", "ignorable": ignorable, "httpTimeout": "2s"}]);
        let mut calls = 0;
        let (mut w, log) = world(extenders, move |_, _| {
            calls += 1;
            (calls > 1).then(|| Ok(json!({})))
        });
        w.pod("p", "1");
        w.run_for(SECOND);
        assert_eq!(w.node_of("p"), "");
        w.run_for(SECOND * 5);
        // The pod was not bound: either the extender is told again, or the API server binds.
        assert_eq!(urls(&log).len(), if ignorable { 1 } else { 2 });
        assert_eq!(w.bindings.len(), usize::from(ignorable));
    }
}

#[test]
fn reasons_are_told_and_anything_that_happens_gives_another_chance() {
    let extenders = json!([{"urlPrefix": "http://a", "filterVerb": "f", "nodeCacheCapable": true}]);
    let open = Arc::new(Mutex::new(false));
    let opened = Arc::clone(&open);
    let (mut w, _) = world(extenders, move |_, body| {
        Some(Ok(if *opened.lock().unwrap() {
            without(body, &[])
        } else {
            json!({"NodeNames": null, "FailedNodes": {"n0": "no foo", "n1": "no foo"},
                "FailedAndUnresolvableNodes": {"n1": "never"}})
        }))
    });
    w.create(
        &resources::PODS,
        json!({"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "low", "namespace": "default"},
            "spec": {"nodeName": "n0", "priority": -1, "containers": [{"name": "c"}]}}),
    );
    w.pod("p", "1");
    w.run_for(SECOND);
    let why = "0/3 nodes are available: 1 never, 1 no foo, 1 node(s) were left out by an extender. preemption: 0/3 \
               nodes are available: 3 Preemption is not helpful for scheduling.";
    assert_eq!(message(&w, "p"), ("Unschedulable".into(), why.into()));
    assert!(w.get(&resources::PODS, "low").is_some(), "nobody is evicted for room that there is");
    *open.lock().unwrap() = true;
    w.run_for(SECOND * 20);
    assert_eq!(w.node_of("p"), "");
    w.change(&resources::NODES, "n0", |n| {
        n.metadata.labels.insert("a".into(), "b".into());
    });
    w.run_for(SECOND);
    assert_ne!(w.node_of("p"), "");
}

#[test]
fn failures_matter_unless_the_extender_is_ignorable() {
    type Reply = fn() -> Option<Result<Value, String>>;
    let kinds: [(&str, Reply); 4] = [
        ("broken", || Some(Ok(json!({"Error": "broken"})))),
        ("connection refused", || Some(Err("connection refused".into()))),
        ("no answer in time", || None),
        (
            "extender \"http://a/f\" claims a filtered node \"x\" which is not found in the input node list",
            || Some(Ok(json!({"NodeNames": ["x"]}))),
        ),
    ];
    for (want, reply) in kinds {
        for ignorable in [false, true] {
            let extenders = json!([{"urlPrefix": "http://a", "filterVerb": "f", "nodeCacheCapable": true,
                "httpTimeout": "500ms", "ignorable": ignorable}]);
            let (mut w, log) = world(extenders, move |_, _| reply());
            w.pod("p", "1");
            w.run_for(Duration::from_millis(900));
            assert_eq!(urls(&log).len(), 1, "{want}");
            assert_eq!(w.node_of("p").is_empty(), !ignorable, "{want}");
            if !ignorable {
                assert_eq!(message(&w, "p"), ("SchedulerError".into(), want.into()));
                w.run_for(SECOND);
                assert_eq!(urls(&log).len(), 2, "it tries again after its pause: {want}");
            }
        }
    }
}

#[test]
fn without_the_points_of_one_those_of_others_decide() {
    let extenders = json!([
        {"urlPrefix": "http://a", "prioritizeVerb": "p", "weight": 100},
        {"urlPrefix": "http://b", "prioritizeVerb": "p", "weight": 100, "httpTimeout": "1s"},
    ]);
    let (mut w, log) = world(extenders, |url, _| {
        url.starts_with("http://a").then(|| Ok(json!([{"Host": "n1", "Score": 10}])))
    });
    w.pod("p", "1");
    w.run_for(Duration::from_millis(500));
    // Both were asked at once, and the second is waited for.
    assert_eq!((urls(&log).len(), w.node_of("p").as_str()), (2, ""));
    w.run_for(SECOND);
    assert_eq!(w.node_of("p"), "n1");
}

#[test]
fn others_wait_meanwhile_and_what_changed_counts() {
    let extenders = json!([{"urlPrefix": "http://a", "filterVerb": "f", "nodeCacheCapable": true, "httpTimeout": "2s",
        "ignorable": true}]);
    let (mut w, log) = world(extenders, |_, body| {
        let name = body["Pod"]["metadata"]["name"].as_str().unwrap();
        (!name.starts_with("silent")).then(|| Ok(without(body, &[])))
    });
    w.pod("silent", "1");
    w.run_for(SECOND);
    w.pod("next", "1");
    for node in ["n0", "n1"] {
        w.delete(&resources::NODES, node);
    }
    w.run_for(Duration::from_millis(500));
    assert_eq!((urls(&log).len(), w.bindings.len()), (1, 0));
    w.run_for(SECOND);
    assert_eq!((w.node_of("silent").as_str(), w.node_of("next").as_str()), ("n2", "n2"));
    // A pod that goes while it is asked about keeps nobody from being placed, and is not placed.
    w.pod("silent2", "1");
    w.run_for(Duration::from_millis(100));
    w.delete(&resources::PODS, "silent2");
    w.pod("last", "1");
    w.run_for(SECOND * 3);
    assert_eq!(w.node_of("last"), "n2");
    assert_eq!(w.bindings.len(), 3);
}

/// Fills the three nodes with a pod each, the less important the later, and asks for one of them.
fn full(w: &mut World) -> [String; 3] {
    let pod = |name: &str, node: Option<&str>, priority: i32| {
        json!({"apiVersion": "v1", "kind": "Pod", "metadata": {"name": name, "namespace": "default"},
            "spec": {"nodeName": node, "priority": priority,
                "containers": [{"name": "c", "resources": {"requests": {"cpu": "4"}}}]}})
    };
    for (n, priority) in [(0, 3), (1, 2), (2, 1)] {
        w.create(&resources::PODS, pod(&format!("v{n}"), Some(&format!("n{n}")), priority));
    }
    w.run_for(SECOND);
    w.create(&resources::PODS, pod("p", None, 100));
    ["v0", "v1", "v2"].map(|v| w.get(&resources::PODS, v).unwrap().metadata.uid.clone())
}

#[test]
fn extenders_leave_out_nodes_on_which_pods_would_be_evicted() {
    let extenders = json!([
        {"urlPrefix": "http://a", "preemptVerb": "v", "nodeCacheCapable": true},
        {"urlPrefix": "http://b", "preemptVerb": "v"},
        {"urlPrefix": "http://c", "preemptVerb": "v", "managedResources": [{"name": "example.com/foo"}]},
    ]);
    let (mut w, log) = world(extenders, |url, body| {
        if url == "http://a/v" {
            let mut left = body["NodeNameToMetaVictims"].clone();
            left.as_object_mut().unwrap().remove("n2");
            return Some(Ok(json!({"NodeNameToMetaVictims": left})));
        }
        let uid = |n: &str| body["NodeNameToVictims"][n]["Pods"][0]["metadata"]["uid"].clone();
        Some(Ok(json!({"nodeNameToMetaVictims": {
            "n0": {"pods": [{"uid": uid("n0")}], "numPDBViolations": 0},
            "n1": {"pods": [{"uid": uid("n1")}], "numPDBViolations": 1},
        }})))
    });
    let uids = full(&mut w);
    w.run_for(SECOND * 5);
    // n2 would be the cheapest; n1 is the next, but breaks a budget as the second extender says.
    assert_eq!(w.node_of("p"), "n0");
    assert!(w.get(&resources::PODS, "v0").is_none() && w.get(&resources::PODS, "v1").is_some());
    assert_eq!(urls(&log), ["http://a/v", "http://b/v"]);
    let log = log.lock().unwrap();
    let (first, second) = (&log[0].1, &log[1].1);
    assert_eq!(first["Pod"]["metadata"]["name"], "p");
    assert_eq!(first["NodeNameToVictims"], Value::Null);
    let want = json!({"Pods": [{"UID": uids[2]}], "NumPDBViolations": 0});
    assert_eq!(first["NodeNameToMetaVictims"]["n2"], want);
    assert_eq!(second["NodeNameToMetaVictims"], Value::Null);
    let nodes: Vec<_> = second["NodeNameToVictims"].as_object().unwrap().keys().collect();
    assert_eq!(nodes, ["n0", "n1"]);
    assert_eq!(second["NodeNameToVictims"]["n1"]["Pods"][0]["spec"]["nodeName"], "n1");
}

#[test]
fn answers_about_victims_are_checked() {
    type Reply = fn(&Value) -> Option<Result<Value, String>>;
    let head = "0/3 nodes are available: 3 Insufficient cpu. preemption: ";
    let kinds: [(&str, Reply, bool); 7] = [
        ("connection refused", |_| Some(Err("connection refused".into())), true),
        ("no answer in time", |_| None, true),
        (
            "nodeinfo not found for node name \"n9\"",
            |_| Some(Ok(json!({"NodeNameToMetaVictims": {"n9": {"Pods": [{"UID": "x"}]}}}))),
            true,
        ),
        (
            "extender: http://a claims to preempt pod (UID: x) on node: n1, but the pod is not found on that node",
            |_| Some(Ok(json!({"NodeNameToMetaVictims": {"n1": {"Pods": [{"UID": "x"}]}}}))),
            true,
        ),
        (
            "answer of extender at URL http://a/v: NodeNameToMetaVictims: expected an object",
            |_| Some(Ok(json!({"NodeNameToMetaVictims": []}))),
            true,
        ),
        (
            "expected at least one victim pod on node \"n1\"",
            |_| Some(Ok(json!({"NodeNameToMetaVictims": {"n1": {}}}))),
            false,
        ),
        ("no candidate node for preemption", |_| Some(Ok(json!({}))), false),
    ];
    for (want, reply, goes_on) in kinds {
        for ignorable in [false, true] {
            let extenders = json!([{"urlPrefix": "http://a", "preemptVerb": "v", "nodeCacheCapable": true,
                "httpTimeout": "500ms", "ignorable": ignorable}]);
            let (mut w, log) = world(extenders, move |_, body| reply(body));
            full(&mut w);
            w.run_for(Duration::from_millis(900));
            assert_eq!(urls(&log).len(), 1, "{want}");
            let (_, why) = message(&w, "p");
            if ignorable && goes_on {
                assert!(w.get(&resources::PODS, "v2").is_none(), "the cheapest goes: {want}");
            } else {
                assert!(w.get(&resources::PODS, "v2").is_some(), "{want}");
                let want = if ignorable { "no candidate node for preemption" } else { want };
                assert_eq!(why, format!("{head}{want}"));
            }
        }
    }
}

#[test]
fn a_pod_that_goes_while_extenders_think_evicts_nobody() {
    let extenders = json!([{"urlPrefix": "http://a", "preemptVerb": "v", "nodeCacheCapable": true, "httpTimeout": "2s",
        "ignorable": true}]);
    let (mut w, log) = world(extenders, |_, _| None);
    full(&mut w);
    w.run_for(SECOND);
    w.delete(&resources::PODS, "p");
    w.pod("small", "4");
    w.delete(&resources::PODS, "v1");
    w.run_for(SECOND * 3);
    assert_eq!(urls(&log).len(), 1);
    assert_eq!(w.node_of("small"), "n1");
    assert!(w.get(&resources::PODS, "v2").is_some());
}
