//! A what-if never changes what it was asked of, and answers as a scheduler that is built from its objects.
#![allow(clippy::unwrap_used, clippy::indexing_slicing, reason = "a test")]

mod common;

use std::collections::BTreeMap;
use std::sync::Arc;

use common::{NAMESPACES, namespace_labels, node, spec};
use icp_core::base::Rng;
use icp_core::client::ObjectKey;
use icp_sched::Scheduler;
use icp_sched::framework::Explanation;
use icp_sched::model::{Node, Pod, PodSpec};
use proptest::prelude::*;

#[derive(Clone, Default)]
struct Objects {
    namespaces: BTreeMap<String, BTreeMap<String, String>>,
    nodes: BTreeMap<String, Node>,
    pods: BTreeMap<ObjectKey, Pod>,
}

impl Objects {
    fn scheduler(&self) -> Scheduler {
        let mut s = Scheduler::default();
        for (name, labels) in &self.namespaces {
            s.cluster_mut().set_namespace(name, labels.clone());
        }
        for node in self.nodes.values() {
            s.cluster_mut().set_node(node.clone());
        }
        for pod in self.pods.values() {
            s.cluster_mut().set_pod(pod.clone());
        }
        s
    }
}

/// What every plugin says of every node for these pods; nodes by name, for rows may differ.
fn explained(s: &mut Scheduler, specs: &[Arc<PodSpec>]) -> Vec<Explanation> {
    let explain = |spec: &Arc<PodSpec>| {
        let mut e = s.explain(&Pod::new("probe", spec.clone()));
        e.nodes.sort_by(|a, b| a.node.cmp(&b.node));
        e
    };
    specs.iter().map(explain).collect()
}

fn history(seed: u64, steps: usize) {
    let mut rng = Rng::new(seed);
    let mut objects = Objects::default();
    for name in NAMESPACES {
        objects.namespaces.insert(name.into(), namespace_labels(&mut rng));
    }
    for n in 0..6 {
        // Images are left out: the size of one is what the first node said, and rows may differ.
        let node = Node { images: Vec::new(), ..node(&mut rng, &format!("n{n}")) };
        objects.nodes.insert(node.name.clone(), node);
    }
    let specs: Vec<Arc<PodSpec>> = (0..6).map(|_| spec(&mut rng)).collect();
    let mut original = objects.scheduler();
    for n in 0..12 {
        let mut pod = Pod::new(&format!("p{n}"), specs[rng.below(6) as usize].clone());
        if let Ok(placement) = original.schedule(&pod) {
            pod.node = Some(placement.name);
            original.cluster_mut().set_pod(pod.clone());
            objects.pods.insert(pod.key.clone(), pod);
        }
    }
    let before = explained(&mut original, &specs);
    let mut what_if = original.what_if();
    assert_eq!(explained(what_if.scheduler(), &specs), before, "seed {seed}: it begins as the original");
    for step in 0..steps {
        let name = format!("n{}", rng.below(9));
        match rng.below(6) {
            0 => {
                let node = Node { images: Vec::new(), ..node(&mut rng, &name) };
                what_if.add_node(node.clone());
                objects.nodes.insert(name, node);
            }
            1 => {
                let gone = what_if.remove_node(&name);
                assert_eq!(gone.is_some(), objects.nodes.remove(&name).is_some(), "seed {seed}");
                for pod in gone.into_iter().flatten() {
                    assert!(objects.pods.remove(&pod.key).is_some(), "seed {seed}");
                }
            }
            2 => {
                let outlook = what_if.empty_node(&name);
                assert_eq!(outlook.is_some(), objects.nodes.contains_key(&name), "seed {seed}");
                let Some(outlook) = outlook else { continue };
                objects.nodes.get_mut(&name).unwrap().unschedulable = true;
                for unplaced in &outlook.unplaced {
                    assert!(objects.pods.remove(&unplaced.pod).is_some(), "seed {seed}");
                }
                for (key, to) in outlook.placed {
                    objects.pods.get_mut(&key).unwrap().node = Some(to);
                }
            }
            3 => {
                if let Some(key) = objects.pods.keys().next().cloned() {
                    assert!(what_if.remove_pod(&key).is_some(), "seed {seed}");
                    objects.pods.remove(&key);
                }
            }
            _ => {
                let pod = Pod::new(&format!("w{step}"), specs[rng.below(6) as usize].clone());
                for (_, node) in what_if.schedule_all([pod.clone()]).placed {
                    objects.pods.insert(pod.key.clone(), Pod { node: Some(node), ..pod.clone() });
                }
            }
        }
        let fresh = explained(&mut objects.scheduler(), &specs);
        assert_eq!(explained(what_if.scheduler(), &specs), fresh, "seed {seed} step {step}");
    }
    assert_eq!(explained(&mut original, &specs), before, "seed {seed}: the original is as it was");
    drop(what_if);
    let pod = Pod::new("last", specs[0].clone());
    let (kept, fresh) = (original.schedule(&pod), original.snapshot().schedule(&pod));
    assert_eq!(kept, fresh, "seed {seed}");
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(48))]
    #[test]
    fn a_what_if_is_apart(seed in any::<u64>()) {
        history(seed, 12);
    }
}
