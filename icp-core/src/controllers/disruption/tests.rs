//! The controllers around a naive API server, with lost, late and repeated messages.

use alloc::boxed::Box;
use alloc::format;
use alloc::string::String;
use alloc::vec;
use alloc::vec::Vec;

use serde_json::{Value, json};

use super::{DisruptionBudgets, StaleDisruptions};
use crate::api::{Object, resources};
use crate::base::{Duration, Rng};
use crate::client::{ApiRequest, DeleteOptions, Operation};
use crate::controllers::manager::harness::{Faults, World};
use crate::controllers::support::is_ready;
use crate::controllers::{Manager, ManagerConfig, deployment, replicaset};

const LIMIT: Duration = Duration::from_secs(600);
const QUIET: Duration = Duration::from_secs(20);

fn manager(epoch: u64) -> Manager {
    let budgets = DisruptionBudgets::new(ManagerConfig::builtin_resources());
    Manager::with_controllers(
        ManagerConfig::default(),
        Rng::new(41).child(&format!("{epoch}")),
        vec![
            Box::new(deployment::Deployments),
            Box::new(replicaset::ReplicaSets::new()),
            Box::new(budgets),
            Box::new(StaleDisruptions),
        ],
    )
}

fn deployment(replicas: i64) -> Value {
    json!({"apiVersion": "apps/v1", "kind": "Deployment", "metadata": {"name": "web", "namespace": "default"},
        "spec": {"replicas": replicas, "selector": {"matchLabels": {"app": "web"}},
            "template": {"metadata": {"labels": {"app": "web"}}, "spec": {"containers": [{"name": "c", "image": "v1"}]}}}})
}

fn budget(limit: &Value) -> Value {
    let mut spec = json!({"selector": {"matchLabels": {"app": "web"}}});
    spec.as_object_mut().unwrap().extend(limit.as_object().unwrap().clone());
    json!({"apiVersion": "policy/v1", "kind": "PodDisruptionBudget", "metadata": {"name": "web", "namespace": "default"},
        "spec": spec})
}

fn status(world: &World) -> Value {
    let budget = world.get(&resources::POD_DISRUPTION_BUDGETS, "default", "web").unwrap();
    budget.at("/status").cloned().unwrap_or_default()
}

/// Current, desired, expected and allowed.
fn figures(world: &World) -> [i64; 4] {
    let status = status(world);
    ["currentHealthy", "desiredHealthy", "expectedPods", "disruptionsAllowed"]
        .map(|f| status[f].as_i64().unwrap_or(-1))
}

fn healthy(world: &World) -> usize {
    world.all(&resources::PODS).iter().filter(|p| is_ready(p) && !p.is_terminating()).count()
}

/// What the budget of [`story`] asks for.
const DESIRED: usize = 3;

/// Once there were enough healthy pods, evictions never leave too few of them.
fn enough(world: &World) {
    let mut memory = world.memory.borrow_mut();
    let healthy = healthy(world);
    let up = memory.entry("up".into()).or_default();
    *up = (*up).max(usize::from(healthy >= DESIRED));
    assert!(*up == 0 || healthy >= DESIRED, "{healthy} are healthy at {}", world.now);
}

/// Does what the eviction subresource does before it deletes the pod.
fn charge(world: &mut World, pod: &str) -> bool {
    let budget = world.get(&resources::POD_DISRUPTION_BUDGETS, "default", "web").unwrap().clone();
    let number = |p: &str| budget.at(p).and_then(Value::as_i64).unwrap_or(0);
    let allowed = number("/status/disruptionsAllowed");
    if allowed <= 0 || number("/status/observedGeneration") < budget.metadata.generation {
        return false;
    }
    let now = world.now.to_rfc3339();
    let body = json!({"status": {"disruptionsAllowed": allowed - 1, "disruptedPods": {pod: now}}});
    world.patch_status(&resources::POD_DISRUPTION_BUDGETS, "default", "web", body);
    true
}

fn delete(world: &mut World, pod: &str) {
    let op = Operation::Delete(DeleteOptions::default());
    world.user(&ApiRequest::object(&resources::PODS, "default", pod, op));
}

/// Evicts again and again, as far as the budget allows, with a while between the decision and the deletion.
fn story(seed: u64, faults: Faults) -> World {
    let mut world = World::new(seed, faults, manager);
    world.check = enough;
    let mut rng = Rng::new(seed).child("evictor");
    world.create(&resources::DEPLOYMENTS, deployment(5));
    world.create(&resources::POD_DISRUPTION_BUDGETS, budget(&json!({"maxUnavailable": 2})));
    world.settle(LIMIT, QUIET);
    let (mut evicted, mut kept) = (0, false);
    for _ in 0..30 {
        let pods: Vec<String> = world
            .all(&resources::PODS)
            .iter()
            .filter(|p| is_ready(p) && !p.is_terminating())
            .map(|p| p.metadata.name.clone())
            .collect();
        let pod = pods[rng.below(pods.len() as u64) as usize].clone();
        if charge(&mut world, &pod) {
            world.run_for(Duration::from_millis(rng.below(3_000)));
            // Now and then who evicts goes away in between.
            if !kept && rng.chance(200_000) {
                kept = true;
            } else {
                delete(&mut world, &pod);
                evicted += 1;
            }
        }
        world.run_for(Duration::from_millis(rng.below(6_000)));
    }
    assert!(evicted > 3, "{evicted} of 30 evictions");
    world.faults = Faults { delay_ms: world.faults.delay_ms, ..Faults::default() };
    // An eviction that deleted nothing counts for two minutes.
    world.run_for(Duration::from_secs(200));
    world.settle(LIMIT, QUIET);
    assert_eq!(figures(&world), [5, 3, 5, 2], "{seed} {:#?}", status(&world));
    assert!(status(&world).get("disruptedPods").is_none());
    let writes = world.writes;
    world.run_for(Duration::from_secs(1_000));
    assert_eq!(world.writes, writes, "a fixed point: {:#?}", world.trace);
    world
}

#[test]
fn evictions_leave_enough_pods_whatever_is_lost_or_late() {
    for seed in 0..16 {
        story(seed, Faults::lossy(seed));
    }
}

#[test]
fn a_crash_after_any_write_is_harmless() {
    let writes = story(1, Faults { delay_ms: 50, ..Faults::default() }).writes;
    for k in (1..writes).step_by(5) {
        story(1, Faults::crash_after(k));
    }
}

/// A ReplicaSet that nothing acts on, with two of its pods.
fn alone(seed: u64) -> World {
    fn budgets(epoch: u64) -> Manager {
        let budgets = DisruptionBudgets::new(ManagerConfig::builtin_resources());
        let rng = Rng::new(42).child(&format!("{epoch}"));
        Manager::with_controllers(ManagerConfig::default(), rng, vec![Box::new(budgets)])
    }
    let mut world = World::new(seed, Faults { delay_ms: 20, ..Faults::default() }, budgets);
    world.create(&resources::POD_DISRUPTION_BUDGETS, budget(&json!({"minAvailable": "50%"})));
    world.settle(LIMIT, QUIET);
    assert_eq!(figures(&world), [0, 0, 0, 0]);
    world.create(
        &resources::REPLICA_SETS,
        json!({"apiVersion": "apps/v1", "kind": "ReplicaSet", "metadata": {"name": "web", "namespace": "default"},
            "spec": {"replicas": 2}}),
    );
    let set = world.get(&resources::REPLICA_SETS, "default", "web").unwrap().clone();
    for name in ["a", "b"] {
        world.create(&resources::PODS, owned(name, "apps/v1", "ReplicaSet", &set));
    }
    world.settle(LIMIT, QUIET);
    assert_eq!(figures(&world), [2, 1, 2, 1]);
    world
}

#[test]
fn the_status_follows_the_replicas_even_if_no_pod_changes() {
    let mut world = alone(3);
    world.patch(&resources::REPLICA_SETS, "default", "web", json!({"spec": {"replicas": 4}}));
    world.settle(LIMIT, QUIET);
    assert_eq!(figures(&world), [2, 2, 4, 0]);
    // The ReplicaSet is taken over by a Deployment, whose replicas count from then on.
    world.create(&resources::DEPLOYMENTS, deployment(1));
    let uid = world.get(&resources::DEPLOYMENTS, "default", "web").unwrap().metadata.uid.clone();
    let owners = json!([{"apiVersion": "apps/v1", "kind": "Deployment", "name": "web", "uid": uid, "controller": true}]);
    world.patch(&resources::REPLICA_SETS, "default", "web", json!({"metadata": {"ownerReferences": owners}}));
    world.settle(LIMIT, QUIET);
    assert_eq!(figures(&world), [2, 1, 1, 1]);
    // Without its Deployment it counts for itself again; without it nothing is known.
    let gone = |gvr: crate::api::Gvr| {
        ApiRequest::object(&gvr, "default", "web", Operation::Delete(DeleteOptions::default()))
    };
    world.user(&gone(resources::DEPLOYMENTS));
    world.settle(LIMIT, QUIET);
    assert_eq!(figures(&world), [2, 2, 4, 0]);
    world.user(&gone(resources::REPLICA_SETS));
    world.settle(LIMIT, QUIET);
    assert_eq!(status(&world)["conditions"][0]["message"], "found no controllers for pod \"a\"");
}

#[test]
fn the_status_follows_the_spec_and_the_labels() {
    let mut world = alone(4);
    let spec = json!({"spec": {"minAvailable": 0}});
    world.patch(&resources::POD_DISRUPTION_BUDGETS, "default", "web", spec);
    world.settle(LIMIT, QUIET);
    assert_eq!(figures(&world), [2, 0, 2, 2]);
    assert_eq!(status(&world)["observedGeneration"], 2);
    world.patch(&resources::PODS, "default", "a", json!({"metadata": {"labels": {"app": "other"}}}));
    world.settle(LIMIT, QUIET);
    assert_eq!(figures(&world), [1, 0, 1, 1]);
    world.patch(&resources::PODS, "default", "a", json!({"metadata": {"labels": {"app": "web"}}}));
    world.settle(LIMIT, QUIET);
    assert_eq!(figures(&world), [2, 0, 2, 2]);
}

fn told(world: &World) -> Vec<(String, i64)> {
    let events = world.all(&resources::EVENTS);
    let about = events.iter().filter(|e| e.rest["regarding"]["kind"] == "PodDisruptionBudget");
    let count = |e: &Object| e.at("/series/count").and_then(Value::as_i64).unwrap_or(1);
    about.map(|e| (e.rest["reason"].as_str().unwrap().into(), count(e))).collect()
}

#[test]
fn what_holds_on_is_told_once() {
    let mut world = World::new(4, Faults { delay_ms: 20, ..Faults::default() }, manager);
    world.create(&resources::POD_DISRUPTION_BUDGETS, budget(&json!({"maxUnavailable": 1})));
    world.run_for(Duration::from_secs(60));
    assert_eq!(told(&world), [("NoPods".into(), 1)]);
    for name in ["a", "b"] {
        world.create(
            &resources::PODS,
            json!({"apiVersion": "v1", "kind": "Pod", "metadata": {"name": name, "namespace": "default",
                "labels": {"app": "web"}}, "spec": {"containers": [{"name": "c"}]}}),
        );
        world.run_for(Duration::from_secs(60));
    }
    let mut events = told(&world);
    events.sort();
    assert_eq!(events, [("NoPods".into(), 1), ("UnmanagedPods".into(), 1)]);
    assert_eq!(figures(&world), [2, 0, 0, 0]);
}

fn owned(name: &str, api_version: &str, kind: &str, owner: &Object) -> Value {
    json!({"apiVersion": "v1", "kind": "Pod", "metadata": {"name": name, "namespace": "default",
        "labels": {"app": "web"}, "ownerReferences": [{"apiVersion": api_version, "kind": kind,
            "name": owner.metadata.name, "uid": owner.metadata.uid, "controller": true}]},
        "spec": {"containers": [{"name": "c"}]}})
}

#[test]
fn the_scale_of_custom_resources_is_asked_for() {
    let sets = crate::api::Gvr::new("example.com", "v1", "gamesets");
    let definition = |scale: bool| {
        let subresources = if scale {
            json!({"scale": {"specReplicasPath": ".spec.replicas", "statusReplicasPath": ".status.replicas"}})
        } else {
            json!({})
        };
        json!({"apiVersion": "apiextensions.k8s.io/v1", "kind": "CustomResourceDefinition",
            "metadata": {"name": "gamesets.example.com"},
            "spec": {"group": "example.com", "scope": "Namespaced", "names": {"plural": "gamesets", "kind": "GameSet"},
                "versions": [{"name": "v1", "served": true, "storage": true, "subresources": subresources}]}})
    };
    for seed in 0..8 {
        let faults = Faults { delay_ms: 1 + 100 * seed, lost_per_million: 50_000, ..Faults::default() };
        let mut world = World::new(seed, faults, manager);
        world.create(
            &sets,
            json!({"apiVersion": "example.com/v1", "kind": "GameSet", "metadata": {"name": "game", "namespace": "default"},
                "spec": {"replicas": 4}}),
        );
        let set = world.get(&sets, "default", "game").unwrap().clone();
        for name in ["a", "b"] {
            world.create(&resources::PODS, owned(name, "example.com/v1", "GameSet", &set));
        }
        world.create(&resources::POD_DISRUPTION_BUDGETS, budget(&json!({"maxUnavailable": 3})));
        world.settle(LIMIT, QUIET);
        let why = |world: &World| String::from(status(world)["conditions"][0]["message"].as_str().unwrap());
        assert_eq!(why(&world), "no matches for kind \"GameSet\" in version \"example.com/v1\"");
        world.create(&resources::CUSTOM_RESOURCE_DEFINITIONS, definition(false));
        world.settle(LIMIT, QUIET);
        assert_eq!(why(&world), "gamesets.example.com does not implement the scale subresource");
        let spec = json!({"spec": definition(true)["spec"]});
        world.patch(&resources::CUSTOM_RESOURCE_DEFINITIONS, "", "gamesets.example.com", spec);
        world.settle(LIMIT, QUIET);
        assert_eq!((figures(&world), why(&world)), ([2, 1, 4, 1], String::new()), "{:#?}", world.trace);
        world.patch(&sets, "default", "game", json!({"spec": {"replicas": 2}}));
        world.settle(LIMIT, QUIET);
        assert_eq!(figures(&world), [2, 0, 2, 2]);
        // Another object of the same name is not the controller of these pods.
        world.user(&ApiRequest::object(
            &sets,
            "default",
            "game",
            Operation::Delete(DeleteOptions::default()),
        ));
        world.create(
            &sets,
            json!({"apiVersion": "example.com/v1", "kind": "GameSet", "metadata": {"name": "game", "namespace": "default"},
                "spec": {"replicas": 2}}),
        );
        world.settle(LIMIT, QUIET);
        assert_eq!(why(&world), "found no controllers for pod \"a\"");
        assert_eq!(figures(&world)[3], 0);
    }
}

#[test]
fn a_job_has_no_scale() {
    let mut world = World::new(5, Faults { delay_ms: 20, ..Faults::default() }, manager);
    let job = json!({"apiVersion": "batch/v1", "kind": "Job", "metadata": {"name": "once", "namespace": "default"}});
    world.create(&resources::JOBS, job);
    let job = world.get(&resources::JOBS, "default", "once").unwrap().clone();
    world.create(&resources::PODS, owned("a", "batch/v1", "Job", &job));
    world.create(&resources::POD_DISRUPTION_BUDGETS, budget(&json!({"maxUnavailable": 1})));
    world.settle(LIMIT, QUIET);
    let condition = status(&world)["conditions"][0].clone();
    assert_eq!((&condition["status"], &condition["reason"]), (&json!("False"), &json!("SyncFailed")));
    assert_eq!(condition["message"], "jobs.batch does not implement the scale subresource");
    let writes = world.writes;
    world.run_for(LIMIT);
    assert_eq!(world.writes, writes);
}

#[test]
fn a_target_that_is_not_deleted_is_none_any_more() {
    let mut world =
        World::new(6, Faults { delay_ms: 300, lost_per_million: 100_000, ..Faults::default() }, manager);
    world.create(
        &resources::PODS,
        json!({"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "a", "namespace": "default"}, "spec": {}}),
    );
    world.settle(LIMIT, QUIET);
    let since = world.now.to_rfc3339();
    let target = json!([{"type": "DisruptionTarget", "status": "True", "reason": "EvictionByEvictionAPI",
        "lastTransitionTime": since}]);
    world.patch_status(&resources::PODS, "default", "a", json!({"status": {"conditions": target}}));
    world.run_for(Duration::from_secs(110));
    let status = |world: &World| {
        world.get(&resources::PODS, "default", "a").unwrap().at("/status/conditions/0/status").cloned()
    };
    assert_eq!(status(&world), Some(json!("True")));
    world.run_for(Duration::from_secs(60));
    assert_eq!(status(&world), Some(json!("False")));
}
