//! Plugins of one's own at every point but filter and score.

use alloc::boxed::Box;
use alloc::format;
use alloc::string::{String, ToString};
use alloc::sync::Arc;
use alloc::vec::Vec;
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, Ordering::SeqCst};

use icp_core::api::resources;
use icp_core::base::{Duration, Machine, Rng};
use icp_core::client::{ApiRequest, ObjectKey, Operation, PatchKind};
use serde_json::json;

use super::SECOND;
use super::api::{Faults, World};
use crate::framework::{Bind, Cycle, Permit, Plugin, Reason, Rejected, WaitingPods};
use crate::machine::{Event, SchedulerConfig, SchedulerMachine};
use crate::model::Pod;
use crate::queue::{ClusterEvent, Happened};
use crate::{Scheduler, Unschedulable};

fn world(plugin: impl Plugin + 'static, faults: Faults) -> World {
    let builder = Scheduler::builder().plugin(plugin, 0);
    let machine = SchedulerMachine::with_scheduler(SchedulerConfig::default(), builder, Rng::new(1));
    World::new(1, faults, Vec::from([machine]))
}

fn message(w: &World, pod: &str) -> String {
    w.get(&resources::PODS, pod).unwrap().str_at("/status/conditions/0/message").into()
}

type Log = Arc<Mutex<Vec<String>>>;

/// Holds pods back until it is open.
struct Door(Arc<AtomicBool>);
impl Plugin for Door {
    fn name(&self) -> &'static str {
        "Door"
    }
    fn pre_enqueue(&self, _: &Pod) -> Option<Reason> {
        (!self.0.load(SeqCst)).then(|| "the door is shut".into())
    }
    fn hint(&self, _: &Pod, happened: &Happened<'_>) -> bool {
        happened.event == ClusterEvent::NodeLabels
    }
}

#[test]
fn pods_are_held_back_until_a_hint_says_that_it_matters() {
    let open = Arc::new(AtomicBool::new(false));
    let mut w = world(Door(Arc::clone(&open)), Faults::default());
    w.node("w1", "4");
    w.pod("a", "1");
    w.run_for(SECOND);
    assert_eq!(w.machines[0].queue_sizes().gated, 1);
    open.store(true, SeqCst);
    w.node("w2", "4"); // is of no interest
    w.run_for(SECOND);
    assert_eq!(w.node_of("a"), "");
    w.change(&resources::NODES, "w1", |n| {
        n.metadata.labels.insert("a".into(), "b".into());
    });
    w.run_for(SECOND);
    assert_ne!(w.node_of("a"), "");
}

/// The last in the alphabet first.
struct Backwards;
impl Plugin for Backwards {
    fn name(&self) -> &'static str {
        "Backwards"
    }
    fn rank(&self, pod: &Pod) -> Option<i64> {
        Some(-i64::from(pod.key.name.bytes().next()?))
    }
}

#[test]
fn the_queue_is_sorted_by_the_plugin() {
    let mut w = world(Backwards, Faults::default());
    for pod in ["a", "c", "b"] {
        w.pod(pod, "600m");
    }
    w.run_for(SECOND * 2); // their pauses are over
    w.node("w1", "1");
    w.run_for(SECOND * 10);
    assert_eq!((w.node_of("c"), w.node_of("a")), ("w1".into(), "".into()));
}

/// Makes room on a node of its own.
struct Landlord;
impl Plugin for Landlord {
    fn name(&self) -> &'static str {
        "Landlord"
    }
    fn post_filter(&self, cycle: &Cycle<'_>, none: &Unschedulable) -> Option<String> {
        (none.preemptable == 0 && cycle.cluster.node_count() == 1).then(|| "w1".to_string())
    }
}

#[test]
fn a_plugin_makes_room_before_anybody_is_evicted() {
    let mut w = world(Landlord, Faults::default());
    w.node("w1", "1");
    w.pod("big", "8");
    w.run_for(SECOND);
    let big = w.get(&resources::PODS, "big").unwrap();
    assert_eq!(big.str_at("/status/nominatedNodeName"), "w1");
    assert_eq!(message(&w, "big"), "0/1 nodes are available: 1 Insufficient cpu.");
}

/// Has one seat on each node; writes down what it is told, and lets pods go when there are as many as it wants.
struct Seats {
    log: Log,
    wants: usize,
}
impl Plugin for Seats {
    fn name(&self) -> &'static str {
        "Seats"
    }
    fn reserve(&self, pod: &Pod, node: &str) -> Result<(), Rejected> {
        let name = &pod.key.name;
        self.log.lock().unwrap().push(format!("reserve {name} {node}"));
        if name == "banned" { Err(Rejected::unschedulable("no seat for you")) } else { Ok(()) }
    }
    fn unreserve(&self, pod: &Pod, node: &str) {
        self.log.lock().unwrap().push(format!("unreserve {} {node}", pod.key.name));
    }
    fn permit(&self, pod: &Pod, _: &str, waiting: &mut WaitingPods<'_>) -> Permit {
        let others: Vec<ObjectKey> = waiting.iter().map(|(p, _)| p.key.clone()).collect();
        if others.len() + 1 < self.wants {
            return Permit::Wait(Duration::from_secs(10));
        }
        others.iter().for_each(|key| waiting.allow(key));
        if pod.key.name == "last" {
            Permit::Reject(Rejected::unschedulable("too late"))
        } else {
            Permit::Allow
        }
    }
    fn pre_bind(&self, pod: &Pod, node: &str) -> Result<Vec<ApiRequest>, Rejected> {
        if pod.key.name == "lost" {
            return Err(Rejected::unschedulable("nothing to be done"));
        }
        let body = json!({"metadata": {"annotations": {"seat": node}}});
        let op = Operation::Patch { kind: PatchKind::Merge, body, field_manager: None, force: false };
        Ok(Vec::from([ApiRequest::object(&resources::PODS, &pod.key.namespace, &pod.key.name, op)]))
    }
    fn post_bind(&self, pod: &Pod, node: &str) {
        self.log.lock().unwrap().push(format!("bound {} {node}", pod.key.name));
    }
}

fn seats(wants: usize, faults: Faults) -> (World, Log) {
    let log = Log::default();
    let mut w = world(Seats { log: Arc::clone(&log), wants }, faults);
    w.node("w1", "64");
    (w, log)
}

#[test]
fn a_pod_is_reserved_prepared_and_bound() {
    let (mut w, log) = seats(1, Faults::default());
    w.pod("a", "1");
    w.run_for(SECOND);
    assert_eq!(w.node_of("a"), "w1");
    assert_eq!(w.get(&resources::PODS, "a").unwrap().metadata.annotations["seat"], "w1");
    assert_eq!(*log.lock().unwrap(), ["reserve a w1", "bound a w1"]);
}

#[test]
fn a_plugin_takes_a_node_back_at_each_point() {
    let (mut w, log) = seats(1, Faults::default());
    for (name, why) in [("banned", "no seat for you"), ("last", "too late"), ("lost", "nothing to be done")] {
        w.pod(name, "1");
        w.run_for(SECOND);
        assert_eq!(w.node_of(name), "");
        assert_eq!(message(&w, name), format!("0/1 nodes are available: 1 {why}."));
        assert!(log.lock().unwrap().contains(&format!("unreserve {name} w1")), "{name}: {log:?}");
        assert!(w.machines[0].scheduler().cluster().pod(&ObjectKey::new("default", name)).is_none());
    }
    assert!(w.machines[0].idle(w.now));
}

#[test]
fn a_refused_binding_gives_the_reservation_back() {
    let (mut w, log) = seats(1, Faults { refused_per_million: 1_000_000, ..Faults::default() });
    w.pod("a", "1");
    w.run_for(SECOND / 2);
    assert_eq!(*log.lock().unwrap(), ["reserve a w1", "unreserve a w1"]);
    w.faults = Faults::default();
    w.run_for(SECOND * 5);
    assert_eq!(log.lock().unwrap().last().unwrap(), "bound a w1");
}

#[test]
fn pods_wait_for_each_other_and_no_longer_than_they_may() {
    let (mut w, log) = seats(3, Faults::default());
    w.pod("a", "1");
    w.pod("b", "1");
    w.run_for(SECOND * 9);
    assert!(w.bindings.is_empty());
    w.run_for(SECOND * 2);
    let why = "0/1 nodes are available: 1 rejected due to timeout after waiting 10s at plugin Seats.";
    assert_eq!((message(&w, "a").as_str(), message(&w, "b").as_str()), (why, why));
    assert!(log.lock().unwrap().contains(&"unreserve a w1".to_string()));
    // One tries again because the other's room came free, and waits; two more complete a group.
    w.pod("c", "1");
    w.pod("d", "1");
    w.run_for(SECOND);
    assert_eq!(w.bindings.len(), 3, "{log:?}");
}

#[test]
fn the_shell_lets_pods_go_too_and_deleted_ones_are_released() {
    let (mut w, log) = seats(9, Faults::default());
    for pod in ["a", "b", "c"] {
        w.pod(pod, "1");
    }
    w.run_for(SECOND);
    let plugin = || String::from("Seats");
    let mut out = Vec::new();
    let key = |name: &str| ObjectKey::new("default", name);
    w.machines[0].on(w.now, Event::Allow { pod: key("a"), plugin: plugin() }, &mut out);
    let event = Event::Reject { pod: key("b"), plugin: plugin(), reason: "changed my mind".into() };
    w.machines[0].on(w.now, event, &mut out);
    w.perform(0, out);
    w.delete(&resources::PODS, "c");
    w.run_for(SECOND / 2);
    assert_eq!(w.node_of("a"), "w1");
    assert_eq!(message(&w, "b"), "0/1 nodes are available: 1 changed my mind.");
    assert!(log.lock().unwrap().contains(&"unreserve c w1".to_string()));
}

/// Binds pods whose names begin so by a request of its own, by the shell, or not at all.
struct Binder;
impl Plugin for Binder {
    fn name(&self) -> &'static str {
        "Binder"
    }
    fn bind(&self, pod: &Pod, node: &str) -> Result<Bind, Rejected> {
        Ok(match pod.key.name.split('-').next() {
            Some("own") => {
                let binding = serde_json::from_value(json!({"apiVersion": "v1", "kind": "Binding",
                    "metadata": {"name": pod.key.name, "namespace": pod.key.namespace, "uid": pod.uid},
                    "target": {"kind": "Node", "name": node}}));
                let op = Operation::Create(Arc::new(binding.unwrap()));
                let request = ApiRequest::object(&resources::PODS, &pod.key.namespace, &pod.key.name, op)
                    .sub("binding");
                Bind::Request(request)
            }
            Some("elsewhere") => {
                let op = Operation::Get;
                Bind::Request(ApiRequest::object(&resources::PERSISTENT_VOLUMES, "", "none", op))
            }
            Some("shell") => Bind::Shell(Duration::from_secs(5)),
            Some("never") => return Err(Rejected::unschedulable("not today")),
            _ => Bind::Skip,
        })
    }
}

#[test]
fn a_plugin_binds_by_a_request_by_the_shell_or_leaves_it_to_others() {
    let mut w = world(Binder, Faults::default());
    let calls: Log = Log::default();
    let log = Arc::clone(&calls);
    w.binder = Some(Box::new(move |call| {
        log.lock().unwrap().push(format!("{} {} {} {}", call.plugin, call.pod.name, call.uid, call.node));
        match call.pod.name.as_str() {
            "shell-a" => Some(Ok(())),
            "shell-b" => Some(Err("the shell is busy".into())),
            _ => None,
        }
    }));
    w.node("w1", "8");
    for pod in ["own-a", "shell-a", "shell-b", "shell-c", "never-a", "usual-a", "elsewhere-a"] {
        w.pod(pod, "1");
    }
    w.run_for(SECOND / 2);
    assert_eq!(["own-a", "usual-a"].map(|p| w.node_of(p)), ["w1", "w1"]);
    let mut told: Vec<String> = calls.lock().unwrap().clone();
    told.sort();
    let uid = |pod: &str| w.get(&resources::PODS, pod).unwrap().metadata.uid.clone();
    let want: Vec<String> =
        ["shell-a", "shell-b", "shell-c"].iter().map(|p| format!("Binder {p} {} w1", uid(p))).collect();
    assert_eq!(told, want);
    // The shell says that it bound the one; the other is told why it was not.
    assert!(w.machines[0].metrics().contains("result=\"scheduled\"} 3"), "{}", w.machines[0].metrics());
    assert_eq!(message(&w, "shell-b"), "running Bind plugin \"Binder\": the shell is busy");
    assert_eq!(message(&w, "never-a"), "running Bind plugin \"Binder\": not today");
    // Nobody says what became of the third: it is read, is not bound, and tries again. So does the one whose request
    // names something that is not there.
    w.run_for(SECOND * 8);
    assert!(calls.lock().unwrap().iter().filter(|c| c.contains("shell-c")).count() > 1);
    assert!(w.machines[0].metrics().contains("profile=\"default-scheduler\",result=\"error\""));
    assert!(w.get(&resources::PODS, "elsewhere-a").is_some());
    assert_eq!(w.machines[0].queue_sizes().gated, 0);
}

#[test]
fn without_a_binder_pods_try_again() {
    let builder = Scheduler::builder().plugin(Binder, 0).without_binder();
    let machine = SchedulerMachine::with_scheduler(SchedulerConfig::default(), builder, Rng::new(1));
    let mut w = World::new(1, Faults::default(), Vec::from([machine]));
    w.node("w1", "8");
    w.pod("usual-a", "1");
    w.pod("own-a", "1");
    w.run_for(SECOND / 2);
    assert_eq!(["own-a", "usual-a"].map(|p| w.node_of(p)), ["w1", ""]);
    assert_eq!(message(&w, "usual-a"), "every Bind plugin skipped the pod");
}

/// Nothing of the default ones.
struct Idle;
impl Plugin for Idle {
    fn name(&self) -> &'static str {
        "Idle"
    }
}

#[test]
fn profiles_bind_their_pods_and_leave_others_alone() {
    let builder =
        Scheduler::builder().named("one").profile(Scheduler::builder().named("two").plugin(Idle, 0));
    let machine = SchedulerMachine::with_scheduler(SchedulerConfig::default(), builder, Rng::new(1));
    let mut w = World::new(1, Faults::default(), Vec::from([machine]));
    w.node("w1", "4");
    for name in ["one", "two", "three", ""] {
        w.create(
            &resources::PODS,
            json!({"metadata": {"name": format!("p{name}"), "namespace": "default"},
                "spec": {"schedulerName": name, "containers": []}}),
        );
    }
    w.run_for(SECOND);
    let nodes = ["pone", "ptwo", "pthree", "p"].map(|p| w.node_of(p));
    assert_eq!(nodes, ["w1", "w1", "", ""]);
    let boxed: Box<dyn Plugin> = Box::new(Idle);
    assert_eq!(boxed.name(), "Idle");
    let text = w.machines[0].metrics();
    for line in [
        "scheduler_schedule_attempts_total{profile=\"one\",result=\"scheduled\"} 1",
        "scheduler_schedule_attempts_total{profile=\"two\",result=\"scheduled\"} 1",
    ] {
        assert!(text.contains(line), "{text}");
    }
}
