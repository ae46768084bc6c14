//! Every plugin against a naive reference written from its documented formula, over random clusters.
#![allow(clippy::unwrap_used, clippy::indexing_slicing, reason = "a test")]

#[path = "../common/mod.rs"]
mod common;
mod naive;

use std::collections::BTreeMap;

use common::{NAMESPACES, namespace_labels, node, spec};
use icp_core::base::Rng;
use icp_sched::Scheduler;
use icp_sched::framework::Verdict;
use icp_sched::model::Pod;
use naive::World;
use proptest::prelude::*;

/// A cluster of one seed, filled by the scheduler's own decisions and some pods put anywhere.
fn cluster(seed: u64) {
    let mut rng = Rng::new(seed);
    let mut scheduler = Scheduler::default();
    let mut world = World::default();
    for name in NAMESPACES {
        let labels = namespace_labels(&mut rng);
        scheduler.cluster_mut().set_namespace(name, labels.clone());
        world.namespaces.insert(name.into(), labels);
    }
    for n in 0..2 + rng.below(10) {
        let node = node(&mut rng, &format!("n{n}"));
        scheduler.cluster_mut().set_node(node.clone());
        world.nodes.push(node);
    }
    for p in 0..rng.below(30) {
        let mut pod = Pod::new(&format!("old{p}"), spec(&mut rng));
        let node = world.nodes[rng.below(world.nodes.len() as u64) as usize].name.clone();
        pod.node = Some(node.clone());
        scheduler.cluster_mut().set_pod(pod.clone());
        world.pods.push((pod.spec, node));
    }
    for p in 0..8 {
        let pod = Pod::new(&format!("new{p}"), spec(&mut rng));
        compare(&mut scheduler, &world, &pod, seed);
        if let Ok(placement) = scheduler.schedule(&pod) {
            scheduler.assume(pod.clone(), placement.node);
            world.pods.push((pod.spec, placement.name));
        }
    }
}

fn compare(scheduler: &mut Scheduler, world: &World, pod: &Pod, seed: u64) {
    let explanation = scheduler.explain(pod);
    let context = || format!("seed {seed}: {pod:#?}\n{world:#?}");
    let outright = world.rejects_outright(&pod.spec);
    assert_eq!(explanation.prefilter.is_some(), outright, "{}", context());
    if outright {
        assert!(scheduler.schedule(pod).is_err());
        return;
    }
    let mut feasible = Vec::new();
    for node in &world.nodes {
        let ours = explanation.nodes.iter().find(|r| r.node == node.name).unwrap();
        match (world.rejection(&pod.spec, node), &ours.verdict) {
            (Some((plugin, resolvable)), Verdict::Rejected(r)) => {
                let by = if r.plugin.is_empty() { "NodeAffinity" } else { r.plugin };
                let code = if resolvable { "Unschedulable" } else { "UnschedulableAndUnresolvable" };
                assert_eq!((by, r.code.as_str()), (plugin, code), "{} {}", node.name, context());
            }
            (None, Verdict::Feasible { .. }) => feasible.push(node),
            (want, got) => panic!("{}: {want:?} is not {got:?} {}", node.name, context()),
        }
    }
    let mut by_plugin: BTreeMap<&str, Vec<i64>> = BTreeMap::new();
    for (name, points) in world.scores(&pod.spec, &feasible) {
        by_plugin.insert(name, points);
    }
    let mut best = i64::MIN;
    let mut totals = Vec::new();
    for (at, node) in feasible.iter().enumerate() {
        let want: BTreeMap<&str, i64> = by_plugin.iter().map(|(name, points)| (*name, points[at])).collect();
        let ours = explanation.nodes.iter().find(|r| r.node == node.name).unwrap();
        let Verdict::Feasible { total, scores } = &ours.verdict else { unreachable!() };
        let got: BTreeMap<&str, i64> = scores.iter().copied().collect();
        assert_eq!(got, want, "{} {}", node.name, context());
        assert_eq!(*total, want.values().sum::<i64>());
        best = best.max(*total);
        totals.push(*total);
    }
    match scheduler.schedule(pod) {
        Ok(placement) => {
            let at = feasible.iter().position(|n| n.name == placement.name).unwrap();
            assert_eq!(totals[at], best, "{}", context());
        }
        Err(_) => assert!(feasible.is_empty(), "{}", context()),
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(400))]
    #[test]
    fn every_plugin_does_as_documented(seed in any::<u64>()) {
        cluster(seed);
    }
}

/// Ten thousand clusters of eight decisions each; over a million decisions with `ICP_DEEP`, which wants `--release`.
#[test]
fn ten_thousand_clusters() {
    let deep = std::env::var_os("ICP_DEEP").is_some();
    let clusters = if deep { 130_000 } else { 10_000 };
    let halves = [0..clusters / 2, clusters / 2..clusters];
    std::thread::scope(|scope| {
        for half in halves {
            scope.spawn(|| half.for_each(cluster));
        }
    });
}
