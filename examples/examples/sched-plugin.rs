//! A scheduler plugin: pods with the label `quiet` keep away from crowded nodes.
//!
//! `cargo run --example sched-plugin` prints where pods go, and why not elsewhere. Nothing but `icp-sched` is needed.

use std::sync::Arc;

use icp_sched::Scheduler;
use icp_sched::cache::NodeId;
use icp_sched::framework::{Cycle, FilterPlan, Plugin, Rejected};
use icp_sched::model::{Node, Pod, PodSpec};

/// Keeps quiet pods off nodes with more than two pods, and prefers empty nodes for all.
struct Quiet;

impl Plugin for Quiet {
    fn name(&self) -> &'static str {
        "Quiet"
    }

    fn filter<'a>(&'a self, cycle: Cycle<'a>) -> FilterPlan<'a> {
        if !cycle.pod.labels.contains_key("quiet") {
            return FilterPlan::Skip;
        }
        FilterPlan::Each(Box::new(move |node| {
            let loud = cycle.cluster.pods_on(node).count() > 2;
            loud.then(|| Rejected::unschedulable("node(s) were too loud"))
        }))
    }

    fn score(&self, cycle: &Cycle<'_>, feasible: &[NodeId]) -> Option<Vec<i64>> {
        let points =
            |node: &NodeId| 100 - i64::try_from(cycle.cluster.pods_on(*node).count()).unwrap_or(100).min(100);
        Some(feasible.iter().map(points).collect())
    }
}

fn main() {
    let mut scheduler = Scheduler::builder().plugin(Quiet, 10).build();
    for name in ["a", "b"] {
        scheduler.cluster_mut().set_node(Node::new(name, 4_000, 16 << 30, 110));
    }
    for n in 0..8 {
        let mut spec = PodSpec::asking(100, 64 << 20);
        if n > 5 {
            spec.labels.insert("quiet".into(), "please".into());
        }
        let pod = Pod::new(&format!("p{n}"), Arc::new(spec));
        match scheduler.schedule(&pod) {
            Ok(placement) => {
                println!("{} goes to {}", pod.key, placement.name);
                scheduler.assume(pod, placement.node);
            }
            Err(why) => println!("{} goes nowhere: {why}", pod.key),
        }
    }
}
