//! Following changes gives the decisions that asking every plugin about every node gives.
#![allow(clippy::unwrap_used, clippy::indexing_slicing, reason = "a test")]

mod common;

use std::collections::BTreeMap;
use std::sync::Arc;

use common::{NAMESPACES, chance, namespace_labels, node, selector, spec};
use icp_core::base::Rng;
use icp_core::client::ObjectKey;
use icp_sched::cache::NodeId;
use icp_sched::framework::{Cycle, FilterPlan, Plugin, Rejected};
use icp_sched::model::{Claim, Effect, Pod, PodSpec, StorageClass, Taint, Volume, VolumeSource};
use icp_sched::plugins::{self, BalancedAllocation, ResourceWeight, ResourcesFit, ScoringStrategy, Shape};
use icp_sched::{DisruptionBudget, Placement, Scheduler, SchedulerBuilder, TieBreak, Unschedulable};
use proptest::prelude::*;

struct Pair {
    fast: Scheduler,
    slow: Scheduler,
}

impl Pair {
    fn both(&mut self, change: impl Fn(&mut Scheduler)) {
        change(&mut self.fast);
        change(&mut self.slow);
    }
}

/// A plugin of one's own: it rejects every fourth row for some pods, and gives points by the row.
struct Rows {
    filters: bool,
}

impl Plugin for Rows {
    fn name(&self) -> &'static str {
        "Rows"
    }

    fn filter<'a>(&'a self, cycle: Cycle<'a>) -> FilterPlan<'a> {
        if !self.filters || cycle.pod.priority == 0 {
            return FilterPlan::Skip;
        }
        FilterPlan::Each(Box::new(|id| {
            (id.row() % 4 == 3).then(|| Rejected::unschedulable("node(s) were fourth"))
        }))
    }

    fn score(&self, _: &Cycle<'_>, feasible: &[NodeId]) -> Option<Vec<i64>> {
        Some(feasible.iter().map(|id| (id.row() as i64 * 37) % 101).collect())
    }
}

/// Schedulers of all kinds that the fast way serves.
fn builder(kind: u64) -> SchedulerBuilder {
    let builder = Scheduler::builder();
    let gpu = |weight| ResourceWeight::new("example.com/gpu", weight);
    let weights = || [ResourceWeight::defaults(), vec![gpu(3)]].concat();
    match kind % 14 {
        0 => builder.weight("NodeResourcesFit", 5).weight("TaintToleration", 0).without("ImageLocality"),
        1 => builder
            .weight("NodeResourcesBalancedAllocation", 7)
            .weight("NodeAffinity", 1)
            .weight("PodTopologySpread", 9)
            .weight("InterPodAffinity", 3),
        2 => builder.plugin(Rows { filters: true }, 3),
        3 => builder.plugin(Rows { filters: false }, 1).weight("NodeResourcesFit", 2),
        4 => builder.replace(ResourcesFit::new(ScoringStrategy::MostAllocated(weights()))),
        5 => {
            let shape = Shape::new(&[(0, 2), (40, 10), (100, 0)]);
            let ratio = ScoringStrategy::RequestedToCapacityRatio(weights(), shape);
            builder.replace(ResourcesFit::new(ratio)).weight("NodeResourcesFit", 2)
        }
        6 => builder
            .replace(ResourcesFit::new(ScoringStrategy::LeastAllocated(vec![gpu(1)])))
            .replace(BalancedAllocation::of(&["cpu", "memory", "example.com/gpu"].map(String::from))),
        8 => builder.replace(BalancedAllocation::default().by_improvement()),
        9 => builder.replace(
            BalancedAllocation::of(&["memory", "example.com/gpu", "cpu"].map(String::from)).by_improvement(),
        ),
        7 => builder.only(
            plugins::defaults().into_iter().filter(|(p, _)| p.name() != "VolumeRestrictions").collect(),
        ),
        _ => builder,
    }
}

/// Claims of which some can be used, somewhere or everywhere.
fn store(s: &mut Scheduler) {
    let zone = |zone: &str| BTreeMap::from([("topology.kubernetes.io/zone".into(), zone.into())]);
    let storage = s.cluster_mut().storage_mut();
    storage.classes.insert(
        "waits".into(),
        StorageClass { waits: true, provisioner: "csi".into(), ..Default::default() },
    );
    storage.volumes.insert(
        "pv".into(),
        Volume { labels: zone("z0"), csi: Some(("csi".into(), "h".into())), ..Default::default() },
    );
    for namespace in NAMESPACES {
        let key = |name| ObjectKey::new(namespace, name);
        storage.claims.insert(key("bound"), Claim { volume: "pv".into(), bound: true, ..Default::default() });
        storage.claims.insert(key("waiting"), Claim { class: "waits".into(), ..Default::default() });
        storage.claims.insert(key("unbound"), Claim::default());
    }
    for n in 0..8 {
        storage.limits.insert((format!("n{n}"), "csi".into()), n % 3);
    }
}

/// The spec with volumes.
fn with_volumes(rng: &mut Rng, spec: &PodSpec) -> Arc<PodSpec> {
    let volume = match rng.below(6) {
        0 => VolumeSource::Exclusive { id: "gce/a".into(), read_only: chance(rng, 50), shares_reads: true },
        1 => VolumeSource::Csi { driver: "csi".into() },
        2 | 3 => VolumeSource::Claim { name: "bound".into(), ephemeral: false },
        4 => VolumeSource::Claim { name: "waiting".into(), ephemeral: false },
        _ => {
            VolumeSource::Claim { name: common::pick(rng, &["unbound", "missing"]).into(), ephemeral: false }
        }
    };
    Arc::new(PodSpec { volumes: vec![volume], ..spec.clone() })
}

/// Runs a random history of one seed; returns how many decisions were compared.
fn history(seed: u64, steps: usize) -> usize {
    let mut rng = Rng::new(seed);
    let ties = || TieBreak::Seeded(Rng::new(seed));
    let kind = rng.below(21);
    let mut pair = Pair {
        fast: builder(kind).ties(ties()).build(),
        slow: builder(kind).ties(ties()).exhaustive().build(),
    };
    pair.both(store);
    let (mut placed, mut decisions): (BTreeMap<ObjectKey, Arc<PodSpec>>, usize) = (BTreeMap::new(), 0);
    for name in NAMESPACES {
        let labels = namespace_labels(&mut rng);
        pair.both(|s| s.cluster_mut().set_namespace(name, labels.clone()));
    }
    // Some clusters are of more nodes than are scored together.
    let size = if chance(&mut rng, 10) { 60 + rng.below(80) } else { 3 + rng.below(12) };
    for n in 0..size {
        let node = node(&mut rng, &format!("n{n}"));
        pair.both(|s| {
            s.cluster_mut().set_node(node.clone());
        });
    }
    if chance(&mut rng, 50) {
        let selector = selector(&mut rng);
        let budget =
            DisruptionBudget { selector, allowed: rng.below(2) as i64, ..DisruptionBudget::default() };
        pair.both(|s| s.set_budget(ObjectKey::new(NAMESPACES[0], "pdb"), Some(budget.clone())));
    }
    let make = |rng: &mut Rng| {
        let spec = spec(rng);
        if chance(rng, 12) { with_volumes(rng, &spec) } else { spec }
    };
    let kinds: Vec<Arc<PodSpec>> = (0..2 + rng.below(6)).map(|_| make(&mut rng)).collect();
    for step in 0..steps {
        match rng.below(20) {
            0 => {
                let name = format!("n{}", rng.below(16));
                let node = node(&mut rng, &name);
                pair.both(|s| {
                    s.cluster_mut().set_node(node.clone());
                });
            }
            1 if chance(&mut rng, 40) => {
                let name = format!("n{}", rng.below(16));
                pair.both(|s| {
                    s.cluster_mut().remove_node(&name);
                });
            }
            2 if chance(&mut rng, 30) => {
                let (name, labels) = (common::pick(&mut rng, &NAMESPACES), namespace_labels(&mut rng));
                pair.both(|s| s.cluster_mut().set_namespace(name, labels.clone()));
            }
            3 if chance(&mut rng, 30) => {
                let (name, selector) = (common::pick(&mut rng, &NAMESPACES), selector(&mut rng));
                pair.both(|s| {
                    let labels = BTreeMap::from([("color".into(), "red".into())]);
                    s.cluster_mut().set_service(name, "svc", Some(labels));
                    s.cluster_mut().set_controller(name, "ReplicaSet", "rs", Some(selector.clone()));
                });
            }
            4..=6 => {
                let at = rng.below(placed.len().max(1) as u64) as usize;
                if let Some(key) = placed.keys().nth(at).cloned() {
                    placed.remove(&key);
                    pair.both(|s| {
                        s.cluster_mut().remove_pod(&key);
                    });
                }
            }
            7 => {
                let spec = kinds[rng.below(kinds.len() as u64) as usize].clone();
                let pod = Pod::new(&format!("vip{step}"), spec);
                let node = format!("n{}", rng.below(10));
                pair.both(|s| s.nominate(pod.clone(), &node));
                if chance(&mut rng, 70) {
                    decide(&mut pair, &Pod::new("x", kinds[0].clone()), seed, step);
                    pair.both(|s| s.clear_nomination(&pod.key));
                }
            }
            8 => {
                // A node flaps: its taint, or whether it takes pods.
                let name = format!("n{}", rng.below(12));
                let Some(id) = pair.slow.cluster().node_id(&name) else { continue };
                let mut node = pair.slow.node(id).unwrap().clone();
                match rng.below(3) {
                    0 => node.unschedulable = !node.unschedulable,
                    1 if node.taints.is_empty() => {
                        let effect =
                            if chance(&mut rng, 50) { Effect::NoExecute } else { Effect::PreferNoSchedule };
                        node.taints.push(Taint { key: "spot".into(), value: String::new(), effect });
                    }
                    _ => node.taints.clear(),
                }
                pair.both(|s| {
                    s.cluster_mut().set_node(node.clone());
                });
            }
            9 => {
                let mut pods = Vec::new();
                for n in 0..rng.below(8) {
                    let spec = kinds[rng.below(2) as usize % kinds.len()].clone();
                    let spec = if chance(&mut rng, 20) { Arc::new(PodSpec::clone(&spec)) } else { spec };
                    pods.push(Pod::new(&format!("b{step}-{n}"), spec));
                }
                decisions += pods.len();
                for pod in batch(&mut pair, pods, seed, step) {
                    placed.insert(pod.key, pod.spec);
                }
            }
            _ => {
                let spec = if chance(&mut rng, 10) {
                    make(&mut rng)
                } else {
                    kinds[rng.below(kinds.len() as u64) as usize].clone()
                };
                let pod = Pod::new(&format!("p{step}"), spec.clone());
                decisions += 1;
                if let Some(node) = decide(&mut pair, &pod, seed, step) {
                    pair.both(|s| {
                        let id = s.cluster().node_id(&node).unwrap();
                        s.assume(pod.clone(), id);
                    });
                    placed.insert(pod.key, spec);
                }
            }
        }
    }
    decisions
}

/// Many at once, against one after the other; gives the pods that were placed.
fn batch(pair: &mut Pair, pods: Vec<Pod>, seed: u64, step: usize) -> Vec<Pod> {
    let answers = pair.fast.schedule_batch(pods.clone());
    let mut placed = Vec::new();
    for (pod, fast) in pods.into_iter().zip(answers) {
        let slow = pair.slow.schedule(&pod);
        let seen = |answer: &Result<Placement, Unschedulable>| match answer {
            Ok(placement) => Ok((placement.name.clone(), placement.feasible)),
            Err(none) => Err((none.message.clone(), none.preemptable)),
        };
        assert_eq!(seen(&fast), seen(&slow), "seed {seed} step {step}: {pod:#?}");
        if let Ok(placement) = slow {
            pair.slow.assume(pod.clone(), placement.node);
            placed.push(pod);
        }
    }
    placed
}

fn decide(pair: &mut Pair, pod: &Pod, seed: u64, step: usize) -> Option<String> {
    let fast = pair.fast.schedule(pod);
    let slow = pair.slow.schedule(pod);
    let context = || format!("seed {seed} step {step}: {pod:#?}\n{:#?}", pair.slow.cluster());
    match (fast, slow) {
        (Ok(fast), Ok(slow)) => {
            assert_eq!((&fast.name, fast.feasible), (&slow.name, slow.feasible), "{}", context());
            Some(slow.name)
        }
        (Err(fast), Err(slow)) => {
            assert_eq!(fast.message, slow.message, "{}", context());
            assert_eq!(fast.preemptable, slow.preemptable, "{}", context());
            let room = (pair.fast.preempt(pod, &fast), pair.slow.preempt(pod, &slow));
            assert_eq!(room.0, room.1, "seed {seed} step {step}: {pod:#?}\n{:#?}", pair.slow.cluster());
            None
        }
        (fast, slow) => panic!("{fast:?} is not {slow:?}: {}", context()),
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(256))]
    #[test]
    fn the_same_decisions(seed in any::<u64>()) {
        history(seed, 80);
    }
}

/// Histories that told decisions apart once.
#[test]
fn the_same_decisions_where_they_differed() {
    for seed in [113, 378] {
        history(seed, 150);
    }
}

/// More than a million decisions, which take minutes: `ICP_DEEP=1 cargo test -p icp-sched --release --test lockstep`.
#[test]
fn the_same_decisions_for_long() {
    if std::env::var_os("ICP_DEEP").is_none() {
        println!("skipped: a deep run; set ICP_DEEP=1");
        return;
    }
    let (mut decisions, mut seed) = (0, 0);
    while decisions < 1_000_000 {
        decisions += history(seed, 150);
        seed += 1;
    }
    println!("{decisions} decisions in {seed} clusters");
}
