use alloc::boxed::Box;
use alloc::vec;
use alloc::vec::Vec;

use serde_json::json;

use super::Manager;
use super::harness::{Faults, World};
use crate::api::resources;
use crate::base::{Duration, Rng};
use alloc::string::String;

use crate::client::{ApiRequest, DeleteOptions, LeaderElectorConfig, Operation, Propagation};
use crate::controllers::support::{is_active, is_ready};
use crate::controllers::{ManagerConfig, deployment, node, replicaset};

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
        story(seed, Faults::lossy(seed));
    }
}

#[test]
fn a_crash_after_any_write_is_harmless() {
    let writes = story(1, Faults { delay_ms: 50, ..Faults::default() }).writes;
    for k in 1..writes {
        story(1, Faults::crash_after(k));
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

fn everything(epoch: u64) -> Manager {
    let config = ManagerConfig {
        root_ca: "PEM".into(),
        cluster_cidrs: vec![node::CidrAllocator::new("10.244.0.0/16".parse().unwrap(), 24).unwrap()],
        ..ManagerConfig::default()
    };
    Manager::new(config, Rng::new(7).child(&alloc::format!("{epoch}")))
}

/// Two nodes, a namespace with a Deployment and a Service.
fn cluster(seed: u64, faults: Faults) -> World {
    let mut world = World::new(seed, faults, everything);
    world.alive = vec!["w1".into(), "w2".into()];
    world.add_node("w1");
    world.add_node("w2");
    world.create(
        &resources::NAMESPACES,
        json!({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": "default"},
        "spec": {"finalizers": ["kubernetes"]}, "status": {"phase": "Active"}}),
    );
    world.create(&resources::DEPLOYMENTS, deployment(4, "v1"));
    world.create(&resources::SERVICES, json!({"apiVersion": "v1", "kind": "Service",
        "metadata": {"name": "web", "namespace": "default", "labels": {"a": "b"}},
        "spec": {"selector": {"app": "web"}, "clusterIP": "10.1.0.1", "ports": [{"name": "http", "port": 80, "targetPort": 8080}]}}));
    world.run_for(Duration::from_secs(30));
    world
}

fn ready_addresses(world: &World) -> Vec<String> {
    let slices = world.all(&resources::ENDPOINT_SLICES);
    let endpoints = slices.iter().flat_map(|s| s.rest["endpoints"].as_array().unwrap().clone());
    let mut all: Vec<String> = endpoints
        .filter(|e| e["conditions"]["ready"] == true)
        .map(|e| e["addresses"][0].as_str().unwrap().into())
        .collect();
    all.sort();
    all
}

fn pod_addresses(world: &World) -> Vec<String> {
    let pods = world.all(&resources::PODS);
    let mut all: Vec<String> = pods
        .iter()
        .filter(|p| is_active(p) && is_ready(p))
        .map(|p| p.str_at("/status/podIP").into())
        .collect();
    all.sort();
    all
}

#[test]
fn a_cluster_comes_up() {
    for seed in 0..8 {
        let world =
            cluster(seed, Faults { delay_ms: 1 + 100 * seed, lost_per_million: 20_000, ..Faults::default() });
        assert_eq!(pod_addresses(&world).len(), 4);
        assert_eq!(ready_addresses(&world), pod_addresses(&world));
        let endpoints = world.get(&resources::ENDPOINTS, "default", "web").unwrap();
        assert_eq!(endpoints.rest["subsets"][0]["addresses"].as_array().unwrap().len(), 4);
        assert_eq!(endpoints.rest["subsets"][0]["ports"][0]["port"], 8080);
        assert!(world.get(&resources::SERVICE_ACCOUNTS, "default", "default").is_some());
        assert_eq!(
            world.get(&resources::CONFIG_MAPS, "default", "kube-root-ca.crt").unwrap().rest["data"]["ca.crt"],
            "PEM"
        );
        let mut cidrs: Vec<String> =
            world.all(&resources::NODES).iter().map(|n| n.str_at("/spec/podCIDR").into()).collect();
        cidrs.sort();
        assert_eq!(cidrs, ["10.244.0.0/24", "10.244.1.0/24"]);
    }
}

#[test]
fn pods_of_a_silent_node_run_elsewhere_and_the_node_comes_back() {
    let mut world = cluster(3, Faults { delay_ms: 20, ..Faults::default() });
    let on = |world: &World, node: &str| {
        let pods = world.all(&resources::PODS);
        pods.iter().filter(|p| is_active(p) && p.str_at("/spec/nodeName") == node).count()
    };
    assert!(on(&world, "w1") > 0 && on(&world, "w2") > 0);
    world.alive = vec!["w2".into()];
    world.run_for(Duration::from_secs(70));
    let node = world.get(&resources::NODES, "", "w1").unwrap().clone();
    assert!(!is_ready(&node));
    let taints: Vec<_> = node
        .at("/spec/taints")
        .unwrap()
        .as_array()
        .unwrap()
        .iter()
        .map(|t| (t["key"].clone(), t["effect"].clone()))
        .collect();
    assert_eq!(
        taints,
        [
            (json!("node.kubernetes.io/unreachable"), json!("NoSchedule")),
            (json!("node.kubernetes.io/unreachable"), json!("NoExecute"))
        ]
    );
    // Pods without tolerations leave at once; those that replace them are in the Service.
    assert_eq!((on(&world, "w1"), on(&world, "w2")), (0, 4));
    assert_eq!(ready_addresses(&world), pod_addresses(&world));
    world.alive = vec!["w1".into(), "w2".into()];
    world.run_for(Duration::from_secs(60));
    let node = world.get(&resources::NODES, "", "w1").unwrap();
    assert!(is_ready(node) && node.at("/spec/taints").unwrap().as_array().unwrap().is_empty());
    // The node object goes: what was left on it goes with it.
    assert_eq!(on(&world, "w2"), 4);
}

#[test]
fn deleting_a_deployment_takes_everything_below_it() {
    for propagation in [Propagation::Background, Propagation::Foreground] {
        for seed in 0..6 {
            let mut world = cluster(
                seed,
                Faults { delay_ms: 1 + 200 * seed, watch_breaks_per_million: 10_000, ..Faults::default() },
            );
            let options = DeleteOptions { propagation: Some(propagation), ..DeleteOptions::default() };
            world.user(&ApiRequest::object(
                &resources::DEPLOYMENTS,
                "default",
                "web",
                Operation::Delete(options),
            ));
            world.run_for(Duration::from_secs(90));
            for gvr in [resources::DEPLOYMENTS, resources::REPLICA_SETS, resources::PODS] {
                assert!(world.all(&gvr).is_empty(), "{gvr} {propagation:?} {seed} {:#?}", world.trace);
            }
            assert!(ready_addresses(&world).is_empty());
        }
    }
}

#[test]
fn orphans_stay() {
    let mut world = cluster(1, Faults { delay_ms: 20, ..Faults::default() });
    let options = DeleteOptions { propagation: Some(Propagation::Orphan), ..DeleteOptions::default() };
    world.user(&ApiRequest::object(&resources::DEPLOYMENTS, "default", "web", Operation::Delete(options)));
    world.run_for(Duration::from_secs(60));
    assert!(world.all(&resources::DEPLOYMENTS).is_empty());
    let sets = world.all(&resources::REPLICA_SETS);
    assert_eq!((sets.len(), world.all(&resources::PODS).len()), (1, 4));
    assert!(sets[0].metadata.owner_references.is_empty());
    // A Deployment of the same selector adopts what was left, and makes nothing new.
    let created = world.pods_created;
    world.create(&resources::DEPLOYMENTS, deployment(4, "v1"));
    world.run_for(Duration::from_secs(30));
    assert_eq!(world.pods_created, created);
    assert_eq!(world.all(&resources::REPLICA_SETS).len(), 1);
    assert!(world.all(&resources::REPLICA_SETS)[0].controller().is_some());
}

#[test]
fn a_namespace_goes_with_all_it_holds() {
    for seed in 0..6 {
        let mut world =
            cluster(seed, Faults { delay_ms: 1 + 100 * seed, lost_per_million: 20_000, ..Faults::default() });
        world.user(&ApiRequest::object(
            &resources::NAMESPACES,
            "",
            "default",
            Operation::Delete(DeleteOptions::default()),
        ));
        world.run_for(Duration::from_secs(120));
        assert!(world.get(&resources::NAMESPACES, "", "default").is_none(), "{:#?}", world.trace);
        let left: Vec<_> = world
            .objects
            .keys()
            .filter(|(gvr, k)| k.namespace == "default" && gvr.resource != "events")
            .collect();
        assert!(left.is_empty(), "{left:?}");
        let order = |what: &str| world.trace.iter().position(|t| t.starts_with(what)).unwrap();
        assert!(order("delete pods/ default") < order("delete networkpolicies/ default"));
    }
}

#[test]
fn two_managers_one_leader() {
    fn elected(epoch: u64) -> Manager {
        let identity = alloc::format!("m{epoch}");
        let config = ManagerConfig {
            leader_election: Some(LeaderElectorConfig::new(
                "kube-system",
                "kube-controller-manager",
                &identity,
            )),
            ..ManagerConfig::default()
        };
        Manager::new(config, Rng::new(1).child(&identity))
    }
    let mut world =
        World::new(1, Faults { delay_ms: 20, crash_after_write: Some(6), ..Faults::default() }, elected);
    world.add_node("w1");
    world.create(&resources::DEPLOYMENTS, deployment(3, "v1"));
    world.run_for(Duration::from_secs(60));
    // The second incarnation waited for the Lease of the first, and finished its work.
    let lease = world.get(&resources::LEASES, "kube-system", "kube-controller-manager").unwrap();
    assert_eq!(lease.at("/spec/leaseTransitions").unwrap(), 1);
    assert_eq!(world.pods_created, 3);
    assert!(world.manager.as_ref().unwrap().leading(world.now).is_some());
}
