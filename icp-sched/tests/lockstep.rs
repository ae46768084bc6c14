//! Following changes gives the decisions that asking every plugin about every node gives.
#![allow(clippy::unwrap_used, clippy::indexing_slicing, reason = "a test")]

mod common;

use std::collections::BTreeMap;
use std::sync::Arc;

use common::{NAMESPACES, chance, namespace_labels, node, selector, spec};
use icp_core::base::Rng;
use icp_core::client::ObjectKey;
use icp_sched::model::{Pod, PodSpec};
use icp_sched::{DisruptionBudget, Scheduler, TieBreak};
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

/// Runs a random history of one seed; returns how many decisions were compared.
fn history(seed: u64, steps: usize) -> usize {
    let mut rng = Rng::new(seed);
    let ties = || TieBreak::Seeded(Rng::new(seed));
    let mut pair = Pair {
        fast: Scheduler::builder().ties(ties()).build(),
        slow: Scheduler::builder().ties(ties()).exhaustive().build(),
    };
    let (mut placed, mut decisions): (BTreeMap<ObjectKey, Arc<PodSpec>>, usize) = (BTreeMap::new(), 0);
    for name in NAMESPACES {
        let labels = namespace_labels(&mut rng);
        pair.both(|s| s.cluster_mut().set_namespace(name, labels.clone()));
    }
    for n in 0..3 + rng.below(12) {
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
    let kinds: Vec<Arc<PodSpec>> = (0..2 + rng.below(6)).map(|_| spec(&mut rng)).collect();
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
            _ => {
                let spec = if chance(&mut rng, 10) {
                    spec(&mut rng)
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
