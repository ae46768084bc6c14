//! A plugin that says that something does not matter to a pod takes no node after it that it did not take before.
#![allow(clippy::unwrap_used, clippy::indexing_slicing, reason = "a test")]

mod common;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use common::{NAMESPACES, namespace_labels, node, pick, spec};
use icp_core::base::Rng;
use icp_core::client::ObjectKey;
use icp_sched::cache::Cluster;
use icp_sched::framework::{Explanation, Plugin, Verdict};
use icp_sched::model::{Node, Pod};
use icp_sched::queue::{Changed, ClusterEvent, Happened};
use icp_sched::{Scheduler, plugins};

/// Something that happens to a cluster.
#[derive(Clone, Debug)]
enum Step {
    Node(String, Option<Node>),
    Pod(ObjectKey, Option<Pod>),
}

/// A cluster, and something that happens to it then.
struct Story {
    namespaces: BTreeMap<String, BTreeMap<String, String>>,
    nodes: BTreeMap<String, Node>,
    pods: BTreeMap<ObjectKey, Pod>,
    target: Pod,
    step: Step,
}

fn placed(rng: &mut Rng, name: &str, nodes: &BTreeMap<String, Node>) -> Pod {
    let names: Vec<&str> = nodes.keys().map(String::as_str).collect();
    let mut placed = Pod::new(name, spec(rng));
    placed.key = ObjectKey::new(&placed.spec.namespace, name);
    placed.node = Some(pick(rng, &names).into());
    placed
}

fn changed_node(rng: &mut Rng, old: &Node) -> Node {
    let other = node(rng, &old.name);
    let mut new = old.clone();
    match rng.below(6) {
        0 => new.labels = other.labels,
        1 => new.taints = other.taints,
        2 => new.unschedulable = !old.unschedulable,
        3 => new.allocatable = other.allocatable,
        4 => new.pods_max = other.pods_max + 2,
        _ => new = other,
    }
    new
}

fn changed_pod(rng: &mut Rng, old: &Pod) -> Pod {
    let mut new = old.clone();
    let other = common::spec(rng);
    let spec = Arc::make_mut(&mut new.spec);
    match rng.below(3) {
        0 => spec.labels.clone_from(&other.labels),
        1 => spec.requests.clone_from(&other.requests),
        _ => spec.terminating = true,
    }
    new
}

fn story(seed: u64) -> Story {
    let rng = &mut Rng::new(seed);
    let namespaces = NAMESPACES.iter().map(|n| (String::from(*n), namespace_labels(rng))).collect();
    let nodes: BTreeMap<String, Node> =
        (0..2 + rng.below(4)).map(|n| format!("n{n}")).map(|n| (n.clone(), node(rng, &n))).collect();
    let pods: BTreeMap<ObjectKey, Pod> = (0..rng.below(9))
        .map(|p| placed(rng, &format!("p{p}"), &nodes))
        .map(|p| (p.key.clone(), p))
        .collect();
    let mut target = Pod::new("target", spec(rng));
    target.key = ObjectKey::new(&target.spec.namespace, "target");
    let old_pod = pods.values().nth(rng.below(pods.len().max(1) as u64) as usize).cloned();
    let old_node = nodes.values().nth(rng.below(nodes.len() as u64) as usize).cloned().unwrap();
    let step = match (rng.below(6), old_pod) {
        (0, _) => Step::Node("new".into(), Some(node(rng, "new"))),
        (1, _) => Step::Node(old_node.name, None),
        (2, _) | (3.., None) => {
            let new = changed_node(rng, &old_node);
            Step::Node(old_node.name, Some(new))
        }
        (3, Some(old)) => Step::Pod(old.key, None),
        (4, Some(old)) => {
            let new = changed_pod(rng, &old);
            Step::Pod(old.key, Some(new))
        }
        (_, Some(_)) => {
            let new = placed(rng, "new", &nodes);
            Step::Pod(new.key.clone(), Some(new))
        }
    };
    Story { namespaces, nodes, pods, target, step }
}

fn taken(explanation: &Explanation) -> BTreeSet<String> {
    let feasible = explanation.nodes.iter().filter(|n| matches!(n.verdict, Verdict::Feasible { .. }));
    feasible.map(|n| n.node.clone()).collect()
}

/// What the machine would tell of, and what that is.
fn events(old: (Option<&Node>, Option<&Node>), pods: (Option<&Pod>, Option<&Pod>)) -> Vec<ClusterEvent> {
    use ClusterEvent as E;
    match (old, pods) {
        ((None, Some(_)), _) => vec![E::NodeAdded],
        ((Some(_), None), _) => vec![E::NodeRemoved],
        ((Some(old), Some(new)), _) => [
            (old.labels != new.labels, E::NodeLabels),
            (old.taints != new.taints || old.unschedulable != new.unschedulable, E::NodeTaints),
            (old.allocatable != new.allocatable || old.pods_max != new.pods_max, E::NodeAllocatable),
            (old.features != new.features, E::NodeFeatures),
        ]
        .into_iter()
        .filter(|(is, _)| *is)
        .map(|(_, e)| e)
        .collect(),
        (_, (None, Some(_))) => vec![E::PodBound],
        (_, (Some(_), None)) => vec![E::PodRemoved],
        (_, (Some(old), Some(new))) if !old.spec.terminating && new.spec.terminating => vec![E::PodRemoved],
        (_, (Some(old), Some(new))) if old.spec != new.spec => vec![E::PodChanged],
        _ => Vec::new(),
    }
}

/// `ICP_DEEP=N` tries N stories.
#[expect(clippy::disallowed_methods, reason = "a test that is asked for by a variable")]
fn stories() -> u64 {
    std::env::var("ICP_DEEP").ok().and_then(|v| v.parse().ok()).unwrap_or(2000)
}

#[test]
fn nobody_is_left_alone_who_has_another_chance() {
    let mut counts: BTreeMap<&str, (u64, u64)> = BTreeMap::new();
    for seed in 0..stories() {
        let story = story(seed);
        for (at, (plugin, _)) in plugins::defaults().into_iter().enumerate() {
            let name = plugin.name();
            let own: Box<dyn Plugin> = plugins::defaults().swap_remove(at).0;
            let mut s = Scheduler::builder().only(vec![(plugin, 0)]).build();
            for (namespace, labels) in &story.namespaces {
                s.cluster_mut().set_namespace(namespace, labels.clone());
            }
            for node in story.nodes.values() {
                s.cluster_mut().set_node(node.clone());
            }
            for pod in story.pods.values() {
                s.cluster_mut().set_pod(pod.clone());
            }
            let before = taken(&s.explain(&story.target));
            if before.len() == story.nodes.len() {
                // It is not why the pod waits.
                continue;
            }

            let (what, kinds) = match &story.step {
                Step::Node(key, new) => {
                    let old = story.nodes.get(key);
                    match new {
                        Some(node) => drop(s.cluster_mut().set_node(node.clone())),
                        None => drop(s.cluster_mut().remove_node(key)),
                    }
                    (Changed::Node { old, new: new.as_ref() }, events((old, new.as_ref()), (None, None)))
                }
                Step::Pod(key, new) => {
                    let old = story.pods.get(key);
                    match new {
                        Some(pod) => s.cluster_mut().set_pod(pod.clone()),
                        None => drop(s.cluster_mut().remove_pod(key)),
                    }
                    (Changed::Pod { old, new: new.as_ref() }, events((None, None), (old, new.as_ref())))
                }
            };
            let after = taken(&s.explain(&story.target));
            let cluster: &Cluster = s.cluster();
            let matters = kinds.iter().any(|event| {
                event.matters_to(name) && own.hint(&story.target, &Happened { event: *event, what, cluster })
            });
            let count = counts.entry(name).or_default();
            if matters {
                count.0 += 1;
            } else {
                count.1 += 1;
                assert!(
                    after.is_subset(&before),
                    "seed {seed}: {name} took {before:?} and takes {after:?} after {:?}\nnodes {:#?}\npods {:#?}\npod {:#?}",
                    story.step,
                    story.nodes,
                    story.pods,
                    story.target
                );
            }
        }
    }
    // Those that look at nodes or pods say yes at times and no at times.
    for name in [
        "NodeUnschedulable",
        "TaintToleration",
        "NodeAffinity",
        "NodePorts",
        "NodeResourcesFit",
        "PodTopologySpread",
        "InterPodAffinity",
    ] {
        let (yes, no) = counts[name];
        assert!(yes > 0 && no > yes / 4, "{name}: {yes} times yes, {no} times no");
    }
}
