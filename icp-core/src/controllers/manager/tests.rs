use alloc::boxed::Box;
use alloc::vec;
use alloc::vec::Vec;

use serde_json::json;

use super::Manager;
use super::harness::{Faults, World};
use crate::api::resources;
use crate::base::{Duration, Rng};
use crate::client::{ApiRequest, DeleteOptions, Operation};
use crate::controllers::support::is_active;
use crate::controllers::{ManagerConfig, deployment, replicaset};

fn workloads(epoch: u64) -> Manager {
    Manager::with_controllers(
        ManagerConfig::default(),
        Rng::new(99).child(&alloc::format!("{epoch}")),
        vec![Box::new(deployment::Deployments), Box::new(replicaset::ReplicaSets::new())],
    )
}

fn deployment(replicas: i64, image: &str) -> serde_json::Value {
    json!({"apiVersion": "apps/v1", "kind": "Deployment", "metadata": {"name": "web", "namespace": "default"},
        "spec": {"replicas": replicas, "selector": {"matchLabels": {"app": "web"}}, "revisionHistoryLimit": 2,
            "strategy": {"type": "RollingUpdate", "rollingUpdate": {"maxSurge": 2, "maxUnavailable": 1}},
            "template": {"metadata": {"labels": {"app": "web"}}, "spec": {"containers": [{"name": "c", "image": image}]}}}})
}

/// The desired state, and that nothing more is done about it.
fn assert_done(world: &mut World, replicas: i64, image: &str) {
    let d = world.get(&resources::DEPLOYMENTS, "default", "web").unwrap().clone();
    let pods = world.all(&resources::PODS);
    let good: Vec<_> =
        pods.iter().filter(|p| is_active(p) && p.at("/spec/containers/0/image").unwrap() == image).collect();
    assert_eq!((good.len() as i64, pods.len()), (replicas, good.len()), "{:#?}", world.trace);
    assert_eq!(d.at("/status/updatedReplicas").and_then(serde_json::Value::as_i64), Some(replicas));
    assert_eq!(d.at("/status/availableReplicas").and_then(serde_json::Value::as_i64), Some(replicas));
    assert_eq!(d.at("/status/observedGeneration").unwrap(), d.metadata.generation);
    let progressing = d.at("/status/conditions").unwrap().as_array().unwrap();
    assert!(progressing.iter().any(|c| c["reason"] == "NewReplicaSetAvailable"), "{progressing:?}");
    let writes = world.writes;
    world.run_for(Duration::from_secs(1300));
    assert_eq!(world.writes, writes, "a fixed point: {:#?}", world.trace);
}

/// The ReplicaSets together never ask for more than replicas and surge, and none of them ever has more pods than it
/// once asked for.
fn no_excess(world: &World) {
    let mut most = world.memory.borrow_mut();
    let sets = world.all(&resources::REPLICA_SETS);
    let wants = |rs: &crate::api::Object| rs.at("/spec/replicas").unwrap().as_u64().unwrap() as usize;
    let limit = world
        .get(&resources::DEPLOYMENTS, "default", "web")
        .map_or(0, |d| d.at("/spec/replicas").unwrap().as_u64().unwrap() as usize);
    // What was asked for may exceed a limit that was just lowered, but nothing is added to it.
    let total: usize = sets.iter().map(|rs| wants(rs)).sum();
    let before = most.insert("total".into(), total).unwrap_or(0);
    assert!(total <= (limit + 2).max(before), "{total} asked for, {limit} wanted");
    let pods = world.all(&resources::PODS);
    for rs in sets {
        let entry = most.entry(rs.metadata.uid.clone()).or_default();
        *entry = (*entry).max(wants(&rs));
        let uid = &rs.metadata.uid;
        let active =
            pods.iter().filter(|p| is_active(p) && p.controller().is_some_and(|c| c.uid == *uid)).count();
        assert!(active <= *entry, "{active} pods of {}, which asked for {entry}", rs.metadata.name);
    }
}

/// Create, roll, scale up in the middle of a rollout, scale down: the end state is reached and stays.
fn story(seed: u64, faults: Faults) -> World {
    let mut world = World::new(seed, faults, workloads);
    world.check = no_excess;
    let (limit, quiet) = (Duration::from_secs(600), Duration::from_secs(20));
    world.create(&resources::DEPLOYMENTS, deployment(4, "v1"));
    world.settle(limit, quiet);
    world.patch(
        &resources::DEPLOYMENTS,
        "default",
        "web",
        json!({"spec": {"template": deployment(4, "v2")["spec"]["template"]}}),
    );
    world.run_for(Duration::from_secs(2));
    world.patch(&resources::DEPLOYMENTS, "default", "web", json!({"spec": {"replicas": 7}}));
    world.settle(limit, quiet);
    world.patch(&resources::DEPLOYMENTS, "default", "web", json!({"spec": {"replicas": 3}}));
    world.faults = Faults { delay_ms: world.faults.delay_ms, ..Faults::default() };
    world.settle(limit, Duration::from_secs(65));
    assert_done(&mut world, 3, "v2");
    world
}

#[test]
fn a_deployment_is_created_rolled_and_scaled() {
    let world = story(1, Faults { delay_ms: 5, ..Faults::default() });
    // 4 of the first template, 7 of the second and at most a few for the surge in between.
    assert!((11..=15).contains(&world.pods_created), "{}", world.pods_created);
    let sets = world.all(&resources::REPLICA_SETS);
    assert_eq!(sets.len(), 2);
    let revision = |i: usize| sets[i].metadata.annotations["deployment.kubernetes.io/revision"].clone();
    let mut revisions = [revision(0), revision(1)];
    revisions.sort();
    assert_eq!(revisions, ["1", "2"]);
}

#[test]
fn late_watches_and_lost_answers_never_make_a_pod_too_many() {
    for seed in 0..40 {
        story(
            seed,
            Faults {
                delay_ms: 1 + 400 * (seed % 4),
                lost_per_million: 100_000,
                watch_breaks_per_million: 20_000,
                crash_after_write: None,
            },
        );
    }
}

#[test]
fn a_crash_after_any_write_is_harmless() {
    let writes = story(1, Faults { delay_ms: 50, ..Faults::default() }).writes;
    for k in 1..writes {
        story(1, Faults { delay_ms: 50, crash_after_write: Some(k), ..Faults::default() });
    }
}

#[test]
fn a_pod_that_goes_is_replaced_once() {
    let mut world = World::new(5, Faults { delay_ms: 300, ..Faults::default() }, workloads);
    world.create(&resources::DEPLOYMENTS, deployment(3, "v1"));
    world.settle(Duration::from_secs(600), Duration::from_secs(20));
    assert_eq!(world.pods_created, 3);
    let name = world.all(&resources::PODS)[0].metadata.name.clone();
    world.user(&ApiRequest::object(
        &resources::PODS,
        "default",
        &name,
        Operation::Delete(DeleteOptions::default()),
    ));
    world.settle(Duration::from_secs(600), Duration::from_secs(20));
    assert_eq!(world.pods_created, 4);
    assert_done(&mut world, 3, "v1");
}
