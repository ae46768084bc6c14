//! The scenarios: those of upstream's `scheduler_perf` by name and counts, and worst cases of our own.

use std::collections::BTreeMap;
use std::sync::Arc;

use icp_core::api::labels::{Op, Requirement, Selector};
use icp_core::base::Rng;
use icp_core::client::ObjectKey;
use icp_sched::cache::NodeId;
use icp_sched::framework::{Cycle, FilterPlan, Plugin, Rejected};
use icp_sched::model::{
    AffinityTerm, Claim, Effect, HostPort, Node, NodeTerm, Pod, PodSpec, SpreadConstraint, Taint, Volume,
    VolumeSource, WeightedAffinityTerm,
};
use icp_sched::plugins::{ResourceWeight, ResourcesFit, ScoringStrategy};
use icp_sched::{Scheduler, SchedulerBuilder, TieBreak};

const HOSTNAME: &str = "kubernetes.io/hostname";
const ZONE: &str = "topology.kubernetes.io/zone";
const GPU: &str = "example.com/gpu";

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

fn spread(max_skew: i64, topology_key: &str, honor_taints: bool) -> Vec<SpreadConstraint> {
    vec![SpreadConstraint {
        max_skew,
        topology_key: topology_key.into(),
        selector: is("color", "blue"),
        min_domains: 1,
        honor_affinity: true,
        honor_taints,
    }]
}

type Make = fn(usize) -> PodSpec;

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
    PodSpec { spread_hard: spread(5, ZONE, false), ..pod("sched-1", "blue") }
}
fn soft_spread(_: usize) -> PodSpec {
    PodSpec { spread_soft: spread(5, ZONE, false), ..pod("sched-1", "blue") }
}
fn inclusion(_: usize) -> PodSpec {
    PodSpec { spread_hard: spread(1, HOSTNAME, true), ..pod("sched-1", "blue") }
}
fn blue(_: usize) -> PodSpec {
    pod("sched-1", "blue")
}
fn leaving(_: usize) -> PodSpec {
    PodSpec { terminating: true, ..pod("sched-1", "") }
}
fn large(_: usize) -> PodSpec {
    PodSpec::asking(9000, 500 << 20)
}
fn low(_: usize) -> PodSpec {
    PodSpec { priority: -1, ..PodSpec::asking(900, 500 << 20) }
}
fn high(_: usize) -> PodSpec {
    PodSpec { priority: 10, ..PodSpec::asking(3000, 500 << 20) }
}
fn high_many(n: usize) -> PodSpec {
    PodSpec { priority: 10, ..PodSpec::asking(2000 + (n as i64 * 7919) % 1000, 500 << 20) }
}
fn high_apart(_: usize) -> PodSpec {
    PodSpec { priority: 10, ..with_cpu(3000, anti(0)) }
}
fn with_cpu(cpu: i64, mut spec: PodSpec) -> PodSpec {
    spec.requests.cpu = cpu;
    spec.non_zero_cpu = cpu;
    spec
}
fn gpu(_: usize) -> PodSpec {
    let mut spec = pod("sched-1", "");
    spec.requests.scalars.insert(GPU.into(), 1);
    spec
}
fn port(_: usize) -> PodSpec {
    let host_ports = vec![HostPort { ip: "0.0.0.0".into(), protocol: "TCP".into(), port: 8080 }];
    PodSpec { host_ports, ..pod("sched-1", "") }
}
fn whole(_: usize) -> PodSpec {
    PodSpec::asking(3900, 500 << 20)
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
fn ten(n: usize) -> PodSpec {
    let n = (n % 10) as i64;
    PodSpec::asking(50 + 10 * n, (100 + 20 * (n * 7 % 10)) << 20)
}
fn apart(n: usize) -> PodSpec {
    let app = format!("app-{}", n % 500);
    let mut spec = PodSpec::asking(100 + (n as i64 % 500), 100 << 20);
    spec.labels.insert("color".into(), app.clone());
    spec.anti_affinity = vec![AffinityTerm { namespaces: vec!["default".into()], ..near(&app, HOSTNAME) }];
    spec
}
fn claimed(n: usize) -> PodSpec {
    let claim = VolumeSource::Claim { name: format!("claim-{n}"), ephemeral: false };
    PodSpec { volumes: vec![claim], ..pod("sched-1", "") }
}

/// What happens between decisions.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Churn {
    Nothing,
    /// Every hundredth decision a node, a Service and a pod that finds no node come, and go at the next.
    Mixed,
    /// Before each decision a pod is deleted and a node told anew.
    Deletes,
    /// Before each decision a node gets or loses a taint; every tenth, one goes and another comes back.
    Flaps,
}

pub(crate) struct Scenario {
    pub(crate) name: &'static str,
    pub(crate) nodes: usize,
    zones: &'static [&'static str],
    before: Vec<(usize, Make)>,
    measured: (usize, Make),
    /// Average pods/s that upstream's CI demands.
    pub(crate) gate: Option<u32>,
    /// What kube-scheduler 1.34.1 spent of CPU on a decision of this kind, in ms: with its default sample of nodes, at 500
    /// or 5,000 nodes as here.
    pub(crate) kube: Option<f64>,
    /// A Service selects the measured pods.
    service: bool,
    churn: Churn,
    /// Every fifth node has a taint.
    tainted: bool,
    /// Pods in one call.
    batch: usize,
    builder: fn() -> SchedulerBuilder,
}

impl Scenario {
    pub(crate) fn count(&self) -> usize {
        self.measured.0
    }

    /// Pods that are decided on at a time.
    pub(crate) fn at_a_time(&self) -> usize {
        self.batch
    }
}

/// What decides on a class that was not seen before, at so many nodes: with spread constraints or without.
pub(crate) fn new_class(nodes: usize, spread: bool) -> (Run, Pod) {
    let mut run = Run::new(&Scenario {
        name: "",
        nodes,
        zones: MOONS,
        before: vec![],
        measured: (1, basic),
        gate: None,
        kube: None,
        service: false,
        churn: Churn::Nothing,
        tainted: false,
        batch: 1,
        builder: Scheduler::builder,
    });
    let seen = run.pod(basic);
    let _ = run.scheduler.schedule(&seen);
    let new = run.pod(if spread { hard_spread } else { low });
    (run, new)
}

/// A cluster of so many nodes with a pod of ten classes on each, and a maker of more of them.
pub(crate) fn filled(nodes: usize) -> (Run, impl FnMut(&mut Run) -> Pod) {
    let (mut run, _) = new_class(nodes, false);
    for _ in 0..nodes {
        let pod = run.pod(ten);
        run.place(pod);
    }
    (run, |run| run.pod(ten))
}

/// A plugin of one's own that prefers some nodes.
struct Racks;

impl Plugin for Racks {
    fn name(&self) -> &'static str {
        "Racks"
    }

    fn filter<'a>(&'a self, _: Cycle<'a>) -> FilterPlan<'a> {
        FilterPlan::Each(Box::new(|id| {
            (id.row().is_multiple_of(10))
                .then(|| Rejected::unschedulable("node(s) were at the end of the rack"))
        }))
    }

    fn score(&self, _: &Cycle<'_>, feasible: &[NodeId]) -> Option<Vec<i64>> {
        Some(feasible.iter().map(|id| (id.row() as i64 / 40) % 100).collect())
    }
}

fn packing() -> SchedulerBuilder {
    let strategy = ScoringStrategy::MostAllocated(ResourceWeight::defaults());
    Scheduler::builder().replace(ResourcesFit::new(strategy))
}

const NONE: &[&str] = &[];
const ONE: &[&str] = &["zone1"];
const MOONS: &[&str] = &["moon-1", "moon-2", "moon-3"];

#[rustfmt::skip]
pub(crate) fn all() -> Vec<Scenario> {
    let s = |name, nodes, zones, before, measured, gate| Scenario {
        name, nodes, zones, before, measured, gate,
        kube: None, service: false, churn: Churn::Nothing, tainted: false, batch: 1, builder: Scheduler::builder,
    };
    let k = |kube: f64, s: Scenario| Scenario { kube: Some(kube), ..s };
    let churn = |churn, s: Scenario| Scenario { churn, ..s };
    let mixed: Vec<(usize, Make)> = vec![(2000, basic), (2000, affinity), (2000, anti), (2000, preferred), (2000, preferred_anti)];
    vec![
        k(0.94, s("SchedulingBasic/500Nodes", 500, NONE, vec![(500, basic)], (1000, basic), None)),
        k(2.98, s("SchedulingBasic/5000Nodes_10000Pods", 5000, NONE, vec![(1000, basic)], (10_000, basic), Some(680))),
        k(2.98, s("SchedulingBasic/5000Nodes_50000Pods", 5000, NONE, vec![(5000, basic)], (50_000, basic), Some(810))),
        Scenario { batch: 1000, ..s("SchedulingBasic/5000Nodes_50000Pods, in batches", 5000, NONE, vec![(5000, basic)], (50_000, basic), None) },
        s("SchedulingDaemonset/15000Nodes", 15_000, NONE, vec![], (30_000, daemon), Some(1100)),
        k(5.0, s("SchedulingNodeAffinity/5000Nodes_10000Pods", 5000, ONE, vec![(5000, node_affinity)], (10_000, node_affinity), Some(220))),
        k(9.7, s("TopologySpreading/5000Nodes_5000Pods", 5000, MOONS, vec![(5000, basic)], (5000, hard_spread), Some(460))),
        k(7.1, s("PreferredTopologySpreading/5000Nodes_5000Pods", 5000, MOONS, vec![(5000, basic)], (5000, soft_spread), Some(340))),
        Scenario { service: true, ..s("DefaultTopologySpreading/5000Nodes_50000Pods", 5000, MOONS, vec![(5000, blue)], (50_000, blue), Some(160)) },
        Scenario { tainted: true, ..s("SchedulingWithNodeInclusionPolicy/5000Nodes", 5000, NONE, vec![], (4000, inclusion), Some(270)) },
        churn(Churn::Mixed, s("SchedulingWithMixedChurn/5000Nodes_10000Pods", 5000, NONE, vec![], (10_000, basic), Some(710))),
        k(12.0, s("SchedulingPodAntiAffinity/5000Nodes_2000Pods", 5000, NONE, vec![(1000, anti)], (2000, anti), Some(60))),
        s("SchedulingPodMatchingAntiAffinity/5000Nodes_5000Pods", 5000, NONE, vec![(1000, anti)], (5000, anti_label), Some(595)),
        s("SchedulingPodAffinity/5000Nodes_5000Pods", 5000, ONE, vec![(5000, affinity)], (5000, affinity), Some(35)),
        k(13.5, s("SchedulingPreferredPodAffinity/5000Nodes_5000Pods", 5000, NONE, vec![(5000, preferred)], (5000, preferred), Some(90))),
        k(25.4, s("SchedulingPreferredPodAntiAffinity/5000Nodes_5000Pods", 5000, NONE, vec![(5000, preferred_anti)], (5000, preferred_anti), Some(90))),
        s("MixedSchedulingBasePod/5000Nodes_5000Pods", 5000, ONE, mixed, (5000, basic), Some(140)),
        s("SchedulingRequiredPodAntiAffinityWithNSSelector/6000Nodes_2000Pods", 6000, NONE, vec![(4000, team_anti)], (2000, team_anti_measured), Some(24)),
        s("SchedulingPreferredAntiAffinityWithNSSelector/5000Nodes_2000Pods", 5000, NONE, vec![(4000, team_preferred_anti)], (2000, team_preferred_anti_measured), Some(55)),
        s("Unschedulable/5000Nodes_100Init_10000Pods", 5000, NONE, vec![(100, large)], (10_000, basic), Some(590)),
        s("Unschedulable/5000Nodes_20000Init_10000Pods", 5000, NONE, vec![(20_000, large)], (10_000, basic), Some(600)),
        s("PreemptionBasic/500Nodes", 500, NONE, vec![(2000, low)], (500, high), Some(18)),
        s("PreemptionAsync/5000Nodes", 5000, NONE, vec![(20_000, low)], (5000, high), Some(570)),
        s("PreemptionManyClasses/5000Nodes, 1000 classes", 5000, NONE, vec![(20_000, low)], (5000, high_many), None),
        s("PreemptionApart/5000Nodes, with anti-affinity", 5000, NONE, vec![(20_000, low)], (5000, high_apart), None),
        s("SchedulingSecrets/5000Nodes_10000Pods", 5000, NONE, vec![(1000, basic)], (10_000, basic), Some(790)),
        s("SchedulingInTreePVs/5000Nodes_2000Pods", 5000, NONE, vec![(1000, claimed)], (2000, claimed), Some(290)),
        s("SchedulingCSIPVs/5000Nodes_5000Pods", 5000, NONE, vec![(5000, claimed)], (5000, claimed), Some(100)),
        s("SchedulingDeletedPodsWithFinalizers/5000Nodes_5000Pods", 5000, NONE, vec![(5000, leaving)], (5000, basic), Some(830)),
        s("SchedulingWithExtendedResource/5000Nodes_5000Pods", 5000, NONE, vec![], (5000, gpu), Some(180)),
        s("BatchingHostPortConflict/20000Nodes_20000Pods", 20_000, NONE, vec![], (20_000, port), None),
        s("BatchingResourceSaturation/20000Nodes_20000Pods", 20_000, NONE, vec![], (20_000, whole), None),
        // Worst cases of our own.
        s("OnlyUnschedulable/5000Nodes_10000Pods", 5000, NONE, vec![], (10_000, large), None),
        Scenario { batch: 1000, ..s("OnlyUnschedulable/5000Nodes_10000Pods, in batches", 5000, NONE, vec![], (10_000, large), None) },
        s("ThousandClasses/5000Nodes_20000Pods", 5000, NONE, vec![], (20_000, many), None),
        s("ThousandClasses/100000Nodes_5000Pods", 100_000, NONE, vec![], (5000, many), None),
        s("AllApart/5000Nodes_10000Pods, 500 classes with anti-affinity", 5000, NONE, vec![], (10_000, apart), None),
        churn(Churn::Deletes, s("Deletes/5000Nodes_10000Pods, 10 classes", 5000, MOONS, vec![(10_000, ten)], (10_000, ten), None)),
        churn(Churn::Flaps, s("Flaps/5000Nodes_5000Pods", 5000, MOONS, vec![(5000, basic)], (5000, basic), None)),
        churn(Churn::Flaps, s("Flaps/5000Nodes_5000Pods, spread", 5000, MOONS, vec![(5000, basic)], (5000, hard_spread), None)),
        churn(Churn::Flaps, s("Flaps/5000Nodes_5000Pods, apart", 5000, NONE, vec![(1000, anti)], (2000, anti), None)),
        Scenario { builder: || Scheduler::builder().weight("NodeResourcesFit", 5).without("ImageLocality"), ..s("OtherWeights/5000Nodes_10000Pods", 5000, NONE, vec![(1000, basic)], (10_000, basic), None) },
        Scenario { builder: packing, ..s("Packing/5000Nodes_10000Pods, MostAllocated", 5000, NONE, vec![(1000, basic)], (10_000, basic), None) },
        Scenario { builder: || Scheduler::builder().plugin(Racks, 1), ..s("OwnPlugin/5000Nodes_1000Pods", 5000, NONE, vec![(100, basic)], (1000, basic), None) },
        s("SchedulingBasic/100000Nodes_100000Pods", 100_000, NONE, vec![], (100_000, basic), None),
        s("TenClasses/100000Nodes_100000Pods", 100_000, NONE, vec![], (100_000, ten), None),
        s("TenClasses/1000000Nodes_200000Pods", 1_000_000, NONE, vec![], (200_000, ten), None),
    ]
}

/// How many templates a maker has; pods of one template share a spec, as they do in the scheduler's queue.
fn templates(make: Make) -> usize {
    let several: [(Make, usize); 8] = [
        (claimed, usize::MAX),
        (daemon, 15_000),
        (many, 1000),
        (high_many, 1000),
        (apart, 500),
        (ten, 10),
        (team_anti, 100),
        (team_preferred_anti, 100),
    ];
    several.iter().find(|(m, _)| same(*m, make)).map_or(1, |(_, n)| *n)
}

fn same(a: Make, b: Make) -> bool {
    std::ptr::fn_addr_eq(a, b)
}

/// A scenario under way.
pub(crate) struct Run {
    pub(crate) scheduler: Scheduler,
    specs: BTreeMap<(usize, usize), Arc<PodSpec>>,
    makers: Vec<Make>,
    n: usize,
    pub(crate) placed: usize,
    rng: Rng,
    live: Vec<ObjectKey>,
    gone: Option<Node>,
}

impl Run {
    /// The cluster without pods.
    pub(crate) fn new(s: &Scenario) -> Self {
        let mut scheduler = (s.builder)().ties(TieBreak::Seeded(Rng::new(1))).build();
        let cluster = scheduler.cluster_mut();
        for namespace in ["sched-0", "sched-1", "default"] {
            cluster.set_namespace(namespace, BTreeMap::new());
        }
        for namespace in (0..100).map(|n| format!("init-ns-{n}")).chain(["measure-ns-0".into()]) {
            cluster.set_namespace(&namespace, BTreeMap::from([("team".into(), "devops".into())]));
        }
        for n in 0..s.nodes {
            cluster.set_node(node(s, n));
        }
        if s.service {
            cluster.set_service("sched-1", "svc", Some(BTreeMap::from([("color".into(), "blue".into())])));
        }
        let claims = s.before.iter().copied().chain([s.measured]).filter(|(_, m)| same(*m, claimed));
        let storage = cluster.storage_mut();
        for n in 0..claims.map(|(count, _)| count).sum::<usize>() + 1 {
            let volume = format!("pv-{n}");
            storage.volumes.insert(
                volume.clone(),
                Volume { csi: Some(("csi".into(), volume.clone())), ..Default::default() },
            );
            let claim = Claim { volume, bound: true, ..Default::default() };
            storage.claims.insert(ObjectKey::new("sched-1", &format!("claim-{n}")), claim);
        }
        Self {
            scheduler,
            specs: BTreeMap::new(),
            makers: Vec::new(),
            n: 0,
            placed: 0,
            rng: Rng::new(2),
            live: Vec::new(),
            gone: None,
        }
    }

    fn pod(&mut self, make: Make) -> Pod {
        self.n += 1;
        let n = self.n;
        let maker = self.makers.iter().position(|m| same(*m, make)).unwrap_or_else(|| {
            self.makers.push(make);
            self.makers.len() - 1
        });
        let key = (maker, n % templates(make));
        let spec = self.specs.entry(key).or_insert_with(|| Arc::new(make(n)));
        Pod::new(&format!("pod-{n}"), Arc::clone(spec))
    }

    /// Places the pods that are there before.
    pub(crate) fn before(&mut self, s: &Scenario) {
        for (count, make) in &s.before {
            for _ in 0..*count {
                let pod = self.pod(*make);
                if let Ok(placement) = self.scheduler.schedule(&pod) {
                    self.live.push(pod.key.clone());
                    self.scheduler.assume(pod, placement.node);
                }
            }
        }
    }

    /// The pods that are measured.
    pub(crate) fn pods(&mut self, s: &Scenario, most: usize) -> Vec<Pod> {
        let (count, make) = s.measured;
        (0..count.min(most)).map(|_| self.pod(make)).collect()
    }

    /// Places them; `step` wraps each decision with what it leads to, or each batch.
    pub(crate) fn measured(&mut self, s: &Scenario, pods: Vec<Pod>, mut step: impl FnMut(&mut dyn FnMut())) {
        let mut pods = pods.into_iter().enumerate().peekable();
        while let Some((n, _)) = pods.peek() {
            let n = *n;
            self.churn(s, n);
            if s.batch > 1 {
                let some: Vec<Pod> = pods.by_ref().take(s.batch).map(|(_, pod)| pod).collect();
                let mut some = Some(some);
                step(&mut || {
                    let answers = self.scheduler.schedule_batch(some.take().into_iter().flatten());
                    self.placed += answers.iter().filter(|a| a.is_ok()).count();
                });
            } else if let Some((_, pod)) = pods.next() {
                if s.churn == Churn::Deletes {
                    self.live.push(pod.key.clone());
                }
                let mut pod = Some(pod);
                step(&mut || {
                    if let Some(pod) = pod.take() {
                        self.place(pod);
                    }
                });
            }
        }
    }

    fn place(&mut self, pod: Pod) {
        match self.scheduler.schedule(&pod) {
            Ok(placement) => {
                self.placed += 1;
                self.scheduler.assume(pod, placement.node);
            }
            // What an API server would do of the eviction takes no time here.
            Err(none) if pod.spec.priority > 0 => {
                let Ok(room) = self.scheduler.preempt(&pod, &none) else { return };
                for victim in &room.victims {
                    self.scheduler.cluster_mut().remove_pod(&victim.key);
                }
                self.scheduler.nominate(pod.clone(), &room.name);
                if let Ok(placement) = self.scheduler.schedule(&pod) {
                    self.placed += 1;
                    self.scheduler.assume(pod, placement.node);
                }
            }
            Err(_) => {}
        }
    }

    fn churn(&mut self, s: &Scenario, n: usize) {
        let at = self.rng.below(s.nodes as u64) as usize;
        match s.churn {
            Churn::Nothing => {}
            Churn::Mixed if n.is_multiple_of(100) => {
                let cluster = self.scheduler.cluster_mut();
                if n.is_multiple_of(200) {
                    cluster.set_node(Node::new("churn", 4000, 32 << 30, 110));
                    cluster.set_service(
                        "sched-0",
                        "churn",
                        Some(BTreeMap::from([("app".into(), "x".into())])),
                    );
                    let pod = self.pod(large);
                    let _ = self.scheduler.schedule(&pod);
                } else {
                    cluster.remove_node("churn");
                    cluster.set_service("sched-0", "churn", None);
                }
            }
            Churn::Mixed => {}
            Churn::Deletes => {
                if !self.live.is_empty() {
                    let pick = self.rng.below(self.live.len() as u64) as usize;
                    let key = self.live.swap_remove(pick);
                    self.scheduler.cluster_mut().remove_pod(&key);
                }
                self.scheduler.cluster_mut().set_node(node(s, at));
            }
            Churn::Flaps => {
                let cluster = self.scheduler.cluster_mut();
                let mut flapping = node(s, at);
                if n.is_multiple_of(2) {
                    let taint = Taint { key: "flap".into(), value: String::new(), effect: Effect::NoExecute };
                    flapping.taints.push(taint);
                }
                if cluster.node_id(&flapping.name).is_some() {
                    cluster.set_node(flapping);
                }
                if n.is_multiple_of(10) {
                    if let Some(back) = self.gone.take() {
                        cluster.set_node(back);
                    }
                    let goes = node(s, self.rng.below(s.nodes as u64) as usize);
                    if cluster.remove_node(&goes.name) {
                        self.gone = Some(goes);
                    }
                }
            }
        }
    }
}

fn node(s: &Scenario, n: usize) -> Node {
    let mut node = Node::new(&format!("node-{n}"), 4000, 32 << 30, 110);
    if let Some(zone) = s.zones.get(n % s.zones.len().max(1)) {
        node = node.with_label(ZONE, zone);
    }
    if s.tainted && n.is_multiple_of(5) {
        node.taints.push(Taint { key: "foo".into(), value: String::new(), effect: Effect::NoSchedule });
    }
    if same(s.measured.1, gpu) {
        node.allocatable.scalars.insert(GPU.into(), 4);
    }
    node
}
