pub(crate) mod api;
mod extend;
mod extenders;
mod gangs;
mod timing;

use alloc::collections::{BTreeMap, BTreeSet};
use alloc::format;

use icp_core::api::resources;
use icp_core::base::{Duration, Machine as _, Rng};
use icp_core::client::LeaderElectorConfig;
use proptest::prelude::*;
use serde_json::json;

use super::{Effect, Event, SchedulerConfig, SchedulerMachine};
use api::{Faults, World};

fn world(seed: u64, faults: Faults) -> World {
    World::new(seed, faults, alloc::vec![SchedulerMachine::new(SchedulerConfig::default(), Rng::new(seed))])
}

const SECOND: Duration = Duration::from_secs(1);

#[test]
fn pods_are_bound_and_told_of() {
    let mut w = world(1, Faults::default());
    w.node("w1", "1");
    w.pod("a", "600m");
    w.pod("b", "600m");
    w.run_for(SECOND);
    assert_eq!(w.node_of("a"), "w1");
    assert_eq!(w.node_of("b"), "");
    let b = w.get(&resources::PODS, "b").unwrap();
    let condition = b.at("/status/conditions/0").unwrap();
    assert_eq!(condition["type"], "PodScheduled");
    assert_eq!(condition["reason"], "Unschedulable");
    let why = "0/1 nodes are available: 1 Insufficient cpu. preemption: 0/1 nodes are available: 1 No preemption \
               victims found for incoming pod.";
    assert_eq!(condition["message"], why);
    let mut events = w.events();
    events.sort();
    assert_eq!(
        events,
        [format!("FailedScheduling {why}").as_str(), "Scheduled Successfully assigned default/a to w1"]
    );
    // Nothing is tried, and nothing written, until something happens.
    let before = w.objects.values().map(|o| o.metadata.resource_version.clone()).max();
    w.run_for(SECOND * 200);
    assert_eq!(w.objects.values().map(|o| o.metadata.resource_version.clone()).max(), before);
    w.delete(&resources::PODS, "a");
    w.run_for(SECOND * 2);
    assert_eq!(w.node_of("b"), "w1");
}

#[test]
fn every_pod_is_told_of_however_many_are_bound_at_once() {
    let mut w = world(1, Faults { delay_ms: 40, ..Faults::default() });
    for n in 0..4 {
        w.node(&format!("w{n}"), "4");
    }
    for n in 0..400 {
        w.pod(&format!("p{n}"), "10m");
    }
    w.run_for(SECOND * 10);
    assert_eq!((w.bindings.len(), w.events().len()), (400, 400));
}

#[test]
fn gates_taints_cordons_and_other_schedulers() {
    let mut w = world(1, Faults::default());
    w.node("w1", "4");
    w.change(&resources::NODES, "w1", |n| {
        n.rest.insert("spec".into(), json!({"unschedulable": true}));
    });
    let pod = |name: &str, more: serde_json::Value| {
        let mut spec = json!({"schedulerName": "default-scheduler", "containers": []});
        for (k, v) in more.as_object().unwrap() {
            spec[k] = v.clone();
        }
        json!({"apiVersion": "v1", "kind": "Pod", "metadata": {"name": name, "namespace": "default"}, "spec": spec})
    };
    w.create(&resources::PODS, pod("other", json!({"schedulerName": "mine"})));
    w.create(&resources::PODS, pod("gated", json!({"schedulingGates": [{"name": "g"}]})));
    w.create(&resources::PODS, pod("plain", json!({})));
    w.create(&resources::PODS, pod("bad", json!({"affinity": {"podAffinity":
        {"requiredDuringSchedulingIgnoredDuringExecution": [{"labelSelector": {"matchLabels": {"-": "x"}}}]}}})));
    w.run_for(SECOND);
    assert!(w.bindings.is_empty());
    w.change(&resources::NODES, "w1", |n| {
        n.rest.insert("spec".into(), json!({}));
    });
    w.run_for(SECOND * 2);
    assert_eq!(w.node_of("plain"), "w1");
    assert_eq!((w.node_of("gated"), w.node_of("other"), w.node_of("bad")), Default::default());
    let bad = w.get(&resources::PODS, "bad").unwrap();
    assert!(bad.str_at("/status/conditions/0/message").contains("spec.affinity.podAffinity"));
    w.change(&resources::PODS, "gated", |p| {
        p.rest.insert("spec".into(), json!({"schedulerName": "default-scheduler", "containers": []}));
    });
    w.run_for(SECOND);
    assert_eq!(w.node_of("gated"), "w1");
}

#[test]
fn one_leader_at_a_time_binds() {
    let make = |who: &str, seed| {
        let election = LeaderElectorConfig::new("kube-system", "kube-scheduler", who);
        let config = SchedulerConfig { leader_election: Some(election), ..SchedulerConfig::default() };
        SchedulerMachine::new(config, Rng::new(seed))
    };
    let mut w =
        World::new(3, Faults { delay_ms: 20, ..Faults::default() }, alloc::vec![make("a", 1), make("b", 2)]);
    w.node("w1", "100");
    w.pod("p0", "1");
    w.run_for(SECOND * 20);
    assert_eq!(w.node_of("p0"), "w1");
    let leader = w.machines.iter().position(|m| m.leading(w.now).is_some()).unwrap();
    w.cut_off.push(leader);
    w.pod("p1", "1");
    w.run_for(SECOND * 60);
    assert_eq!(w.node_of("p1"), "w1");
    assert!(w.machines[leader].leading(w.now).is_none());
    w.cut_off.clear();
    let before = w.sent_bindings.len();
    w.pod("p2", "1");
    w.run_for(SECOND * 90);
    assert_eq!(w.node_of("p2"), "w1");
    assert!(w.sent_bindings[before..].iter().all(|(_, machine)| *machine == 1 - leader));
}

#[test]
fn the_important_make_room() {
    let mut w = world(5, Faults { delay_ms: 5, ..Faults::default() });
    w.node("w1", "1");
    w.pod("low", "800m");
    w.run_for(SECOND);
    assert_eq!(w.node_of("low"), "w1");
    w.create(
        &resources::PODS,
        json!({"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "high", "namespace": "default"},
        "spec": {"schedulerName": "default-scheduler", "priority": 100, "containers": [{"name": "c", "resources": {"requests": {"cpu": "500m"}}}]}}),
    );
    w.run_for(SECOND * 5);
    assert_eq!(w.node_of("high"), "w1");
    assert!(w.get(&resources::PODS, "low").is_none());
    let high = w.get(&resources::PODS, "high").unwrap();
    assert_eq!(high.str_at("/status/nominatedNodeName"), "w1");
    let uid = high.metadata.uid.clone();
    assert!(w.events().contains(&format!("Preempted Preempted by pod {uid} on node w1")));
}

#[test]
fn a_pod_waits_for_the_volume_that_was_asked_for() {
    let mut w = world(7, Faults { delay_ms: 5, ..Faults::default() });
    w.node("w1", "4");
    w.create(
        &resources::STORAGE_CLASSES,
        json!({"metadata": {"name": "made"}, "provisioner": "x.example.com", "volumeBindingMode": "WaitForFirstConsumer"}),
    );
    w.create(
        &resources::PERSISTENT_VOLUME_CLAIMS,
        json!({"metadata": {"name": "c", "namespace": "default"}, "spec": {"storageClassName": "made"}}),
    );
    w.create(
        &resources::PODS,
        json!({"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "p", "namespace": "default"},
        "spec": {"schedulerName": "default-scheduler", "containers": [],
        "volumes": [{"name": "v", "persistentVolumeClaim": {"claimName": "c"}}]}}),
    );
    w.run_for(SECOND);
    let claim = w.get(&resources::PERSISTENT_VOLUME_CLAIMS, "c").unwrap();
    assert_eq!(claim.metadata.annotations["volume.kubernetes.io/selected-node"], "w1");
    assert_eq!(w.node_of("p"), "");
    w.change(&resources::PERSISTENT_VOLUME_CLAIMS, "c", |c| {
        c.metadata.annotations.insert("pv.kubernetes.io/bind-completed".into(), "yes".into());
        c.rest.insert("spec".into(), json!({"storageClassName": "made", "volumeName": "pv"}));
    });
    w.run_for(SECOND);
    assert_eq!(w.node_of("p"), "w1");
}

#[test]
fn what_happens_is_counted() {
    let mut w = world(9, Faults { delay_ms: 5, ..Faults::default() });
    w.node("w1", "1");
    for (pod, cpu) in [("a", "600m"), ("b", "600m"), ("c", "300m")] {
        w.pod(pod, cpu);
        w.run_for(SECOND);
    }
    let text = w.machines[0].metrics();
    let has = |text: &str, line: &str| assert!(text.lines().any(|l| l == line), "{line} is not in\n{text}");
    for line in [
        "scheduler_schedule_attempts_total{profile=\"default-scheduler\",result=\"scheduled\"} 2",
        "scheduler_schedule_attempts_total{profile=\"default-scheduler\",result=\"unschedulable\"} 1",
        "scheduler_pod_scheduling_attempts_count 2",
        "scheduler_queue_incoming_pods_total{event=\"UnscheduledPodAdd\",queue=\"active\"} 3",
        "scheduler_queue_incoming_pods_total{event=\"ScheduleAttemptFailure\",queue=\"unschedulable\"} 1",
        "scheduler_pending_pods{queue=\"unschedulable\"} 1",
        "scheduler_unschedulable_pods{plugin=\"NodeResourcesFit\",profile=\"default-scheduler\"} 1",
        "scheduler_cache_size{type=\"nodes\"} 1",
        "scheduler_cache_size{type=\"pods\"} 2",
        "scheduler_preemption_attempts_total 1",
        "scheduler_pod_scheduling_sli_duration_seconds_count{attempts=\"1\"} 2",
        "# TYPE scheduler_scheduling_attempt_duration_seconds histogram",
    ] {
        has(&text, line);
    }
    w.delete(&resources::PODS, "a");
    w.run_for(SECOND * 3);
    let text = w.machines[0].metrics();
    has(&text, "scheduler_queue_incoming_pods_total{event=\"AssignedPodDelete\",queue=\"active\"} 1");
    has(&text, "scheduler_pod_scheduling_sli_duration_seconds_count{attempts=\"2\"} 1");
    has(&text, "scheduler_pending_pods{queue=\"unschedulable\"} 0");
    let mut out = alloc::vec::Vec::new();
    w.machines[0].on(w.now, Event::Scrape, &mut out);
    assert_eq!(out, [Effect::Metrics(text.clone())]);
    let names = text.lines().filter_map(|l| l.strip_prefix("# TYPE ")).filter_map(|l| l.split(' ').next());
    let distinct: BTreeSet<&str> = names.clone().collect();
    assert_eq!(distinct.len(), names.count());
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]
    /// Whatever is lost, refused or late: no pod is bound twice, no node is overcommitted, and in the end every pod
    /// that can run does.
    #[test]
    fn faults_delay_but_do_not_break(seed in any::<u64>(), lost in 0..200_000_u32, refused in 0..300_000_u32) {
        let faults = Faults { delay_ms: 50, lost_per_million: lost, refused_per_million: refused, watch_breaks_per_million: 20_000 };
        let mut w = world(seed, faults);
        for n in 0..4 {
            w.node(&format!("w{n}"), "2");
        }
        for p in 0..12 {
            w.pod(&format!("p{p}"), "700m"); // two on each node
            w.run_for(Duration::from_millis(30));
        }
        w.run_for(SECOND * 30);
        w.delete(&resources::NODES, "w3");
        w.faults = Faults { delay_ms: 50, ..Faults::default() };
        w.node("w4", "2");
        w.node("w5", "2");
        w.node("w6", "2");
        w.run_for(SECOND * 120);
        let uids: BTreeSet<_> = w.bindings.iter().map(|(uid, _)| uid.clone()).collect();
        prop_assert_eq!(uids.len(), w.bindings.len());
        let mut on: BTreeMap<_, usize> = BTreeMap::new();
        for p in 0..12 {
            let node = w.node_of(&format!("p{p}"));
            prop_assert!(!node.is_empty(), "p{p} waits: {:?}", w.machines[0]);
            *on.entry(node).or_default() += 1;
        }
        prop_assert!(on.values().all(|n| *n <= 2), "{on:?}");
        prop_assert!(w.machines[0].idle(w.now));
    }
}
