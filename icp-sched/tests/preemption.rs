//! Preemption chooses what a full dry run of every node chooses.
//!
//! The reference builds a new scheduler for every question it asks, takes all less important pods off a node, puts them
//! back one by one, and compares the nodes by upstream's list of rules, one rule after the other.
#![allow(clippy::unwrap_used, clippy::indexing_slicing, reason = "a test")]

mod common;

use std::collections::BTreeMap;
use std::sync::Arc;

use common::{NAMESPACES, chance, namespace_labels, node, pick, selector, spec};
use icp_core::base::{Rng, Time};
use icp_core::client::ObjectKey;
use icp_sched::framework::{Code, Verdict};
use icp_sched::model::{Node, Pod, PodSpec};
use icp_sched::{DisruptionBudget, Scheduler};
use proptest::prelude::*;

/// Everything as plain lists.
#[derive(Clone, Debug, Default)]
struct World {
    namespaces: BTreeMap<String, BTreeMap<String, String>>,
    nodes: Vec<Node>,
    pods: BTreeMap<ObjectKey, Pod>,
    budgets: BTreeMap<ObjectKey, DisruptionBudget>,
    nominated: BTreeMap<ObjectKey, (Pod, String)>,
}

#[derive(Debug, PartialEq, Eq)]
struct Room {
    node: String,
    victims: Vec<ObjectKey>,
    violations: usize,
}

impl World {
    /// A scheduler that asks every plugin about every node.
    fn scheduler(&self) -> Scheduler {
        let mut s = Scheduler::builder().exhaustive().build();
        for (name, labels) in &self.namespaces {
            s.cluster_mut().set_namespace(name, labels.clone());
        }
        for node in &self.nodes {
            s.cluster_mut().set_node(node.clone());
        }
        for pod in self.pods.values() {
            s.cluster_mut().set_pod(pod.clone());
        }
        for (pod, node) in self.nominated.values() {
            s.nominate(pod.clone(), node);
        }
        s
    }

    /// Why the node will not do; `None` if it will.
    fn rejects(&self, pod: &Pod, node: &str) -> Option<Code> {
        let explanation = self.scheduler().explain(pod);
        if let Some(rejection) = explanation.prefilter {
            return Some(rejection.code);
        }
        let report = explanation.nodes.into_iter().find(|r| r.node == node).unwrap();
        match report.verdict {
            Verdict::Rejected(rejection) => Some(rejection.code),
            Verdict::Feasible { .. } => None,
        }
    }

    fn on(&self, node: &str) -> impl Iterator<Item = &Pod> {
        self.pods.values().filter(move |p| p.node.as_deref() == Some(node))
    }

    /// Whose eviction breaks a budget, when all go in this order.
    fn breaks(&self, pods: &[Pod]) -> Vec<bool> {
        let mut used: BTreeMap<&ObjectKey, i64> = BTreeMap::new();
        let mut breaks = Vec::new();
        for pod in pods {
            let mut broken = false;
            for (key, budget) in &self.budgets {
                let protects = key.namespace == pod.key.namespace
                    && !pod.spec.labels.is_empty()
                    && !budget.selector.is_everything()
                    && budget.selector.matches(&pod.spec.labels)
                    && !budget.disrupted.contains(&pod.key.name);
                if protects {
                    *used.entry(key).or_default() += 1;
                    broken |= used[key] > budget.allowed;
                }
            }
            breaks.push(broken);
        }
        breaks
    }

    /// Victims on one node and how many budgets that breaks; `None` if evicting all does not help.
    fn dry_run(&self, pod: &Pod, node: &str) -> Option<(Vec<Pod>, usize)> {
        if self.rejects(pod, node) != Some(Code::Unschedulable) {
            return None;
        }
        let mut lower: Vec<Pod> =
            self.on(node).filter(|p| p.spec.priority < pod.spec.priority).cloned().collect();
        lower.sort_by_key(|p| {
            (-i64::from(p.spec.priority), p.started.map_or(i64::MAX, Time::as_micros), p.key.clone())
        });
        let mut world = self.clone();
        for victim in &lower {
            world.pods.remove(&victim.key);
        }
        if lower.is_empty() || world.rejects(pod, node).is_some() {
            return None;
        }
        let breaks = self.breaks(&lower);
        let (mut victims, mut violations) = (Vec::new(), 0);
        for broken in [true, false] {
            for (at, victim) in lower.iter().enumerate().filter(|(at, _)| breaks[*at] == broken) {
                world.pods.insert(victim.key.clone(), victim.clone());
                if world.rejects(pod, node).is_some() {
                    world.pods.remove(&victim.key);
                    victims.push((at, victim.clone()));
                    violations += usize::from(broken);
                }
            }
        }
        victims.sort_by_key(|(at, _)| *at);
        Some((victims.into_iter().map(|(_, v)| v).collect(), violations))
    }

    /// The choice, one rule of `pickOneNodeForPreemption` after the other.
    fn preempt(&self, pod: &Pod) -> Option<Room> {
        let mut left: Vec<(&str, Vec<Pod>, usize)> = Vec::new();
        for node in &self.nodes {
            if let Some((victims, violations)) = self.dry_run(pod, &node.name).filter(|(v, _)| !v.is_empty())
            {
                left.push((&node.name, victims, violations));
            }
        }
        let top = |v: &[Pod]| v.iter().map(|p| p.spec.priority).max().unwrap();
        let earliest = |v: &[Pod]| {
            let highest = v.iter().filter(|p| p.spec.priority == top(v));
            highest.map(|p| p.started.map_or(i64::MAX, Time::as_micros)).min().unwrap()
        };
        let sum = |v: &[Pod]| v.iter().map(|p| i64::from(p.spec.priority) + (1 << 31)).sum();
        let rules: [Rule<'_>; 5] = [
            &|_, violations| violations as i64,
            &|v, _| i64::from(top(v)),
            &|v, _| sum(v),
            &|v, _| v.len() as i64,
            &|v, _| -earliest(v),
        ];
        for rule in rules {
            let least = left.iter().map(|(_, v, n)| rule(v, *n)).min();
            left.retain(|(_, v, n)| Some(rule(v, *n)) == least);
        }
        let (node, victims, violations) = left.into_iter().next()?;
        Some(Room { node: node.into(), victims: victims.into_iter().map(|v| v.key).collect(), violations })
    }
}

/// What victims and broken budgets cost by one rule.
type Rule<'r> = &'r dyn Fn(&[Pod], usize) -> i64;

/// A spec that asks for much, so that nodes fill up; so many percent care for no other pods.
fn random_spec(rng: &mut Rng, plain: u32) -> Arc<PodSpec> {
    let priority = rng.below(5) as i32 - 2;
    let large = [400, 700, 1500][rng.below(3) as usize];
    if chance(rng, plain) {
        let mut plain = PodSpec { priority, ..PodSpec::asking(large, 64 << 20) };
        plain.namespace = pick(rng, &NAMESPACES).into();
        plain.labels.insert("app".into(), pick(rng, &["web", "db", "cache"]).into());
        return Arc::new(plain);
    }
    let mut mixed = PodSpec::clone(&spec(rng));
    mixed.priority = priority;
    if chance(rng, plain) {
        mixed.requests.cpu += large;
    }
    Arc::new(mixed)
}

/// Runs a random history and compares every preemption; says how many found room.
fn history(seed: u64, steps: usize) -> usize {
    let mut rng = Rng::new(seed);
    let mut world = World::default();
    let mut subject = Scheduler::default();
    for name in NAMESPACES {
        let labels = namespace_labels(&mut rng);
        subject.cluster_mut().set_namespace(name, labels.clone());
        world.namespaces.insert(name.into(), labels);
    }
    for n in 0..2 + rng.below(5) {
        let node = node(&mut rng, &format!("n{n}"));
        subject.cluster_mut().set_node(node.clone());
        world.nodes.push(node);
    }
    // Pods that matter to each other by much else than what they take, and more classes of them, are tried as well.
    let (classes, plain) = [(4, 80), (4, 20), (12, 60)][rng.below(3) as usize];
    let kinds: Vec<Arc<PodSpec>> = (0..classes).map(|_| random_spec(&mut rng, plain)).collect();
    let mut found = 0;
    for step in 0..steps {
        let any = |rng: &mut Rng, world: &World| {
            let at = rng.below(world.pods.len().max(1) as u64) as usize;
            world.pods.values().nth(at).cloned()
        };
        match rng.below(20) {
            0 => {
                let at = rng.below(world.nodes.len() as u64) as usize;
                let changed = node(&mut rng, &world.nodes[at].name.clone());
                subject.cluster_mut().set_node(changed.clone());
                world.nodes[at] = changed;
            }
            1 | 2 => {
                let key = ObjectKey::new(pick(&mut rng, &NAMESPACES), pick(&mut rng, &["a", "b"]));
                let budget = DisruptionBudget {
                    selector: selector(&mut rng),
                    allowed: rng.below(4) as i64 - 1,
                    disrupted: any(&mut rng, &world).into_iter().map(|p| p.key.name).collect(),
                };
                if chance(&mut rng, 20) {
                    world.budgets.remove(&key);
                    subject.set_budget(key, None);
                } else {
                    world.budgets.insert(key.clone(), budget.clone());
                    subject.set_budget(key, Some(budget));
                }
            }
            3 | 4 => {
                // A pod starts, or is seen to have started earlier.
                if let Some(mut pod) = any(&mut rng, &world) {
                    pod.started = Some(Time::from_secs(rng.below(4) as i64));
                    subject.cluster_mut().set_pod(pod.clone());
                    world.pods.insert(pod.key.clone(), pod);
                }
            }
            5 => {
                if let Some(pod) = any(&mut rng, &world) {
                    subject.cluster_mut().remove_pod(&pod.key);
                    world.pods.remove(&pod.key);
                }
            }
            6..=8 => {
                let mut pod = Pod::new(&format!("v{step}"), kinds[rng.below(classes) as usize].clone());
                Arc::make_mut(&mut pod.spec).priority = 1 + rng.below(2) as i32;
                let node = format!("n{}", rng.below(6));
                subject.nominate(pod.clone(), &node);
                world.nominated.insert(pod.key.clone(), (pod, node));
            }
            9..=11 => {
                if let Some((key, (mut pod, node))) = world.nominated.clone().into_iter().next() {
                    // It is given up, or shows up somewhere while room is kept for it.
                    if chance(&mut rng, 50) || !world.nodes.iter().any(|n| n.name == node) {
                        subject.clear_nomination(&key);
                        world.nominated.remove(&key);
                    } else {
                        pod.node = Some(world.nodes[0].name.clone());
                        subject.cluster_mut().set_pod(pod.clone());
                        world.pods.insert(key, pod);
                    }
                }
            }
            _ => {
                // Of those that room is kept for, or a new one.
                let kept = world.nominated.values().next().cloned().filter(|_| chance(&mut rng, 15));
                let mut pod = match kept {
                    Some((pod, _)) if !world.pods.contains_key(&pod.key) => pod,
                    _ => Pod::new(&format!("p{step}"), kinds[rng.below(classes) as usize].clone()),
                };
                match subject.schedule(&pod) {
                    Ok(placement) => {
                        subject.assume(pod.clone(), placement.node);
                        world.nominated.remove(&pod.key);
                        pod.node = Some(placement.name);
                        world.pods.insert(pod.key.clone(), pod);
                    }
                    Err(none) => {
                        let room = subject.preempt(&pod, &none);
                        let terminating = |e: &String| e.contains("not eligible");
                        if room.as_ref().is_err_and(terminating) {
                            continue;
                        }
                        let got = room.ok().map(|r| Room {
                            node: r.name,
                            victims: r.victims.into_iter().map(|v| v.key).collect(),
                            violations: r.violations,
                        });
                        let want = world.preempt(&pod);
                        assert_eq!(got, want, "seed {seed} step {step}: {pod:#?}\n{world:#?}");
                        found += usize::from(got.is_some());
                    }
                }
            }
        }
    }
    found
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(128))]
    #[test]
    fn the_choice_is_that_of_a_dry_run_of_every_node(seed in any::<u64>()) {
        history(seed, 60);
    }
}

#[test]
fn histories_find_room() {
    let found: usize = (0..20).map(|seed| history(seed, 60)).sum();
    assert!(found > 20, "only {found} preemptions found room");
}
