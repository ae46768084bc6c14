//! Decisions of the scheduler: the scenarios of upstream's `scheduler_perf`, by name, nodes and pods, every node scored.
//!
//! Before criterion runs, a table shows each scenario's rate beside the gate that upstream's own CI holds kube-scheduler
//! to (`test/integration/scheduler_perf/*/performance-config.yaml`, average pods/s). Upstream's figures are end to end,
//! with API server and etcd, and score a tenth of 5,000 nodes; these are decisions alone, in CPU time of one thread. On
//! one machine, kube-scheduler 1.34.1 spent 25 to 27 ms of CPU on the decision for a basic pod with every node scored.
#![allow(missing_docs, clippy::unwrap_used, clippy::disallowed_methods, reason = "a bench")]

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use criterion::{BenchmarkId, Criterion, Throughput, criterion_group, criterion_main};
use icp_core::api::labels::{Op, Requirement, Selector};
use icp_core::base::Rng;
use icp_sched::model::{AffinityTerm, Node, NodeTerm, Pod, PodSpec, SpreadConstraint, WeightedAffinityTerm};
use icp_sched::{Scheduler, TieBreak};
use rustix::time::{ClockId, clock_gettime};

const HOSTNAME: &str = "kubernetes.io/hostname";
const ZONE: &str = "topology.kubernetes.io/zone";

/// CPU time of this thread, so that a busy machine does not count.
fn cpu() -> Duration {
    let t = clock_gettime(ClockId::ThreadCPUTime);
    Duration::new(t.tv_sec as u64, t.tv_nsec as u32)
}

fn is(key: &str, value: &str) -> Selector {
    let mut s = Selector::default();
    s.requirements.push(Requirement::new(key, Op::In, vec![value.into()]).unwrap());
    s
}

fn pod(namespace: &str, color: &str) -> PodSpec {
    let mut spec = PodSpec::asking(100, 500 << 20);
    spec.namespace = namespace.into();
    if !color.is_empty() {
        spec.labels.insert("color".into(), color.into());
    }
    spec
}

fn near(color: &str, topology_key: &str) -> AffinityTerm {
    AffinityTerm {
        selector: is("color", color),
        namespaces: vec!["sched-0".into(), "sched-1".into()],
        namespace_selector: None,
        topology_key: topology_key.into(),
    }
}

fn in_teams(color: &str) -> AffinityTerm {
    AffinityTerm {
        namespaces: vec![],
        namespace_selector: Some(is("team", "devops")),
        ..near(color, HOSTNAME)
    }
}

fn weighted(term: AffinityTerm) -> Vec<WeightedAffinityTerm> {
    vec![WeightedAffinityTerm { weight: 1, term }]
}

fn spread() -> Vec<SpreadConstraint> {
    vec![SpreadConstraint {
        max_skew: 5,
        topology_key: ZONE.into(),
        selector: is("color", "blue"),
        min_domains: 1,
        honor_affinity: true,
        honor_taints: false,
    }]
}

type Make = fn(usize) -> PodSpec;

struct Scenario {
    name: &'static str,
    nodes: usize,
    zones: &'static [&'static str],
    before: Vec<(usize, Make)>,
    measured: (usize, Make),
    /// Average pods/s that upstream's CI demands.
    gate: Option<u32>,
    /// A Service selects the measured pods.
    service: bool,
}

const NONE: &[&str] = &[];
const ONE: &[&str] = &["zone1"];
const MOONS: &[&str] = &["moon-1", "moon-2", "moon-3"];

fn basic(_: usize) -> PodSpec {
    pod("sched-1", "")
}
fn anti(_: usize) -> PodSpec {
    PodSpec { anti_affinity: vec![near("green", HOSTNAME)], ..pod("sched-1", "green") }
}
fn anti_label(_: usize) -> PodSpec {
    pod("sched-1", "green")
}
fn affinity(_: usize) -> PodSpec {
    PodSpec { affinity: vec![near("blue", ZONE)], ..pod("sched-1", "blue") }
}
fn preferred(_: usize) -> PodSpec {
    PodSpec { affinity_preferences: weighted(near("red", HOSTNAME)), ..pod("sched-1", "red") }
}
fn preferred_anti(_: usize) -> PodSpec {
    PodSpec { anti_affinity_preferences: weighted(near("yellow", HOSTNAME)), ..pod("sched-1", "yellow") }
}
fn node_affinity(_: usize) -> PodSpec {
    let zones = Requirement::new(ZONE, Op::In, vec!["zone1".into(), "zone2".into()]).unwrap();
    PodSpec { node_terms: Some(vec![NodeTerm { labels: vec![zones], names: vec![] }]), ..pod("sched-1", "") }
}
fn hard_spread(_: usize) -> PodSpec {
    PodSpec { spread_hard: spread(), ..pod("sched-1", "blue") }
}
fn soft_spread(_: usize) -> PodSpec {
    PodSpec { spread_soft: spread(), ..pod("sched-1", "blue") }
}
fn blue(_: usize) -> PodSpec {
    pod("sched-1", "blue")
}
fn large(_: usize) -> PodSpec {
    PodSpec { non_zero_cpu: 9000, ..PodSpec::asking(9000, 500 << 20) }
}
fn low(_: usize) -> PodSpec {
    PodSpec { priority: -1, ..PodSpec::asking(900, 500 << 20) }
}
fn high(_: usize) -> PodSpec {
    PodSpec { priority: 10, ..PodSpec::asking(3000, 500 << 20) }
}
fn daemon(n: usize) -> PodSpec {
    let name = Requirement::new("metadata.name", Op::In, vec![format!("node-{}", n % 15_000)]).unwrap();
    PodSpec {
        node_terms: Some(vec![NodeTerm { labels: vec![], names: vec![name] }]),
        ..PodSpec::asking(10, 10 << 20)
    }
}
fn team_anti(n: usize) -> PodSpec {
    PodSpec { anti_affinity: vec![in_teams("green")], ..pod(&format!("init-ns-{}", n % 100), "green") }
}
fn team_anti_measured(_: usize) -> PodSpec {
    PodSpec { namespace: "measure-ns-0".into(), ..team_anti(0) }
}
fn team_preferred_anti_measured(_: usize) -> PodSpec {
    PodSpec { namespace: "measure-ns-0".into(), ..team_preferred_anti(0) }
}
fn team_preferred_anti(n: usize) -> PodSpec {
    PodSpec {
        anti_affinity_preferences: weighted(in_teams("green")),
        ..pod(&format!("init-ns-{}", n % 100), "green")
    }
}
fn many(n: usize) -> PodSpec {
    PodSpec::asking(10 + (n as i64 * 7919) % 1000, 10 << 20)
}

#[rustfmt::skip]
fn scenarios() -> Vec<Scenario> {
    let s = |name, nodes, zones, before, measured, gate| Scenario { name, nodes, zones, before, measured, gate, service: false };
    let mixed: Vec<(usize, Make)> = vec![(2000, basic), (2000, affinity), (2000, anti), (2000, preferred), (2000, preferred_anti)];
    vec![
        s("SchedulingBasic/5000Nodes_10000Pods", 5000, NONE, vec![(1000, basic)], (10_000, basic), Some(680)),
        s("SchedulingBasic/5000Nodes_50000Pods", 5000, NONE, vec![(5000, basic)], (50_000, basic), Some(810)),
        s("SchedulingDaemonset/15000Nodes", 15_000, NONE, vec![], (30_000, daemon), Some(1100)),
        s("SchedulingNodeAffinity/5000Nodes_10000Pods", 5000, ONE, vec![(5000, node_affinity)], (10_000, node_affinity), Some(220)),
        s("TopologySpreading/5000Nodes_5000Pods", 5000, MOONS, vec![(5000, basic)], (5000, hard_spread), Some(460)),
        s("PreferredTopologySpreading/5000Nodes_5000Pods", 5000, MOONS, vec![(5000, basic)], (5000, soft_spread), Some(340)),
        Scenario { service: true, ..s("DefaultTopologySpreading/5000Nodes_50000Pods", 5000, MOONS, vec![(5000, blue)], (50_000, blue), Some(160)) },
        s("SchedulingPodAntiAffinity/5000Nodes_2000Pods", 5000, NONE, vec![(1000, anti)], (2000, anti), Some(60)),
        s("SchedulingPodMatchingAntiAffinity/5000Nodes_5000Pods", 5000, NONE, vec![(1000, anti)], (5000, anti_label), Some(595)),
        s("SchedulingPodAffinity/5000Nodes_5000Pods", 5000, ONE, vec![(5000, affinity)], (5000, affinity), Some(35)),
        s("SchedulingPreferredPodAffinity/5000Nodes_5000Pods", 5000, NONE, vec![(5000, preferred)], (5000, preferred), Some(90)),
        s("SchedulingPreferredPodAntiAffinity/5000Nodes_5000Pods", 5000, NONE, vec![(5000, preferred_anti)], (5000, preferred_anti), Some(90)),
        s("MixedSchedulingBasePod/5000Nodes_5000Pods", 5000, ONE, mixed, (5000, basic), Some(140)),
        s("SchedulingRequiredPodAntiAffinityWithNSSelector/5000Nodes_2000Pods", 6000, NONE, vec![(4000, team_anti)], (2000, team_anti_measured), Some(24)),
        s("SchedulingPreferredAntiAffinityWithNSSelector/5000Nodes_2000Pods", 5000, NONE, vec![(4000, team_preferred_anti)], (2000, team_preferred_anti_measured), Some(55)),
        s("Unschedulable/5000Nodes_10000Pods", 5000, NONE, vec![(100, large)], (10_000, basic), Some(590)),
        s("PreemptionAsync/5000Nodes", 5000, NONE, vec![(20_000, low)], (5000, high), Some(570)),
        // Worst cases of our own.
        s("OnlyUnschedulable/5000Nodes_10000Pods", 5000, NONE, vec![], (10_000, large), None),
        s("ThousandClasses/5000Nodes_20000Pods", 5000, NONE, vec![], (20_000, many), None),
        s("SchedulingBasic/100000Nodes_100000Pods", 100_000, NONE, vec![], (100_000, basic), None),
    ]
}

/// Specs are shared by pods of one template, as they are in the scheduler's queue.
struct Templates(BTreeMap<usize, Arc<PodSpec>>);

impl Templates {
    fn pod(&mut self, n: usize, make: Make) -> Pod {
        let per_pod = [
            daemon as Make as usize,
            many as Make as usize,
            team_anti as Make as usize,
            team_preferred_anti as Make as usize,
        ];
        let key =
            if per_pod.contains(&(make as usize)) { make as usize + (n % 15_000) } else { make as usize };
        let spec = self.0.entry(key).or_insert_with(|| Arc::new(make(n)));
        Pod::new(&format!("pod-{n}"), Arc::clone(spec))
    }
}

/// Runs a scenario once: CPU time of the measured pods, and how many found a node.
fn run(scenario: &Scenario) -> (Duration, usize) {
    let mut scheduler = Scheduler::builder().ties(TieBreak::Seeded(Rng::new(1))).build();
    let cluster = scheduler.cluster_mut();
    for namespace in ["sched-0", "sched-1", "default"] {
        cluster.set_namespace(namespace, BTreeMap::new());
    }
    for namespace in (0..100).map(|n| format!("init-ns-{n}")).chain(["measure-ns-0".into()]) {
        cluster.set_namespace(&namespace, BTreeMap::from([("team".into(), "devops".into())]));
    }
    for n in 0..scenario.nodes {
        let mut node = Node::new(&format!("node-{n}"), 4000, 32 << 30, 110);
        if let Some(zone) = scenario.zones.get(n % scenario.zones.len().max(1)) {
            node = node.with_label(ZONE, zone);
        }
        cluster.set_node(node);
    }
    if scenario.service {
        cluster.set_service("sched-1", "svc", Some(BTreeMap::from([("color".into(), "blue".into())])));
    }
    let mut templates = Templates(BTreeMap::new());
    let mut n = 0;
    for (count, make) in &scenario.before {
        for _ in 0..*count {
            n += 1;
            let pod = templates.pod(n, *make);
            if let Ok(placement) = scheduler.schedule(&pod) {
                scheduler.assume(pod, placement.node);
            }
        }
    }
    let (count, make) = scenario.measured;
    let pods: Vec<Pod> = (n..n + count).map(|n| templates.pod(n + 1, make)).collect();
    let start = cpu();
    let mut placed = 0;
    for pod in pods {
        match scheduler.schedule(&pod) {
            Ok(placement) => {
                placed += 1;
                scheduler.assume(pod, placement.node);
            }
            // What an API server would do of the eviction takes no time here.
            Err(none) if pod.spec.priority > 0 => {
                let Ok(room) = scheduler.preempt(&pod, &none) else { continue };
                for victim in &room.victims {
                    scheduler.cluster_mut().remove_pod(&victim.key);
                }
                scheduler.nominate(pod.clone(), &room.name);
                if let Ok(placement) = scheduler.schedule(&pod) {
                    placed += 1;
                    scheduler.assume(pod, placement.node);
                }
            }
            Err(_) => {}
        }
    }
    (cpu() - start, placed)
}

fn table() {
    println!(
        "{:<70} {:>8} {:>12} {:>10} {:>8} {:>8}",
        "scenario", "pods", "pods/s (CPU)", "us/pod", "gate", "times"
    );
    for s in scenarios() {
        let (time, placed) = run(&s);
        let rate = s.measured.0 as f64 / time.as_secs_f64();
        let gate = s.gate.map_or_else(|| "-".into(), |g| g.to_string());
        let times = s.gate.map_or_else(|| "-".into(), |g| format!("{:.0}", rate / f64::from(g)));
        let micros = 1e6 / rate;
        println!("{:<70} {placed:>8} {rate:>12.0} {micros:>10.2} {gate:>8} {times:>8}", s.name);
    }
}

fn decisions(c: &mut Criterion) {
    table();
    let mut group = c.benchmark_group("scheduler/decision");
    group.sample_size(10).measurement_time(Duration::from_secs(1)).warm_up_time(Duration::from_millis(200));
    for s in scenarios().into_iter().filter(|s| s.nodes <= 6000) {
        group.throughput(Throughput::Elements(s.measured.0 as u64));
        group.bench_function(BenchmarkId::from_parameter(s.name), |b| {
            b.iter_custom(|iterations| (0..iterations).map(|_| run(&s).0).sum());
        });
    }
    group.finish();
}

criterion_group!(benches, decisions);
criterion_main!(benches);
