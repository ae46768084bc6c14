use alloc::format;
use alloc::string::ToString;
use alloc::sync::Arc;
use alloc::vec::Vec;

use icp_core::base::Rng;

use super::*;
use crate::framework::{FilterPlan, Plugin, Rejected, Verdict};
use crate::model::{Effect, PodSpec, Taint};

fn pod(name: &str, cpu: i64) -> Pod {
    Pod::new(name, Arc::new(PodSpec::asking(cpu, 1 << 20)))
}

fn scheduler(nodes: usize) -> Scheduler {
    let mut s = Scheduler::default();
    for n in 0..nodes {
        s.cluster_mut().set_node(Node::new(&format!("n{n}"), 1000, 1 << 30, 3));
    }
    s
}

#[test]
fn reasons_are_counted_and_sorted() {
    let mut s = scheduler(3);
    let mut tainted = Node::new("t", 10_000, 1 << 30, 3);
    tainted.taints.push(Taint { key: "a".into(), value: "b".into(), effect: Effect::NoSchedule });
    s.cluster_mut().set_node(tainted);
    let mut cordoned = Node::new("u", 10_000, 1 << 30, 3);
    cordoned.unschedulable = true;
    s.cluster_mut().set_node(cordoned);
    let error = s.schedule(&pod("p", 2000)).unwrap_err();
    assert_eq!(
        error.to_string(),
        "0/5 nodes are available: 1 node(s) had untolerated taint {a: b}, 1 node(s) were unschedulable, \
         3 Insufficient cpu."
    );
    assert_eq!(error.preemptable, 0);
    let none = Scheduler::default().schedule(&pod("p", 1)).unwrap_err();
    assert_eq!(none.to_string(), "no nodes available to schedule pods");
}

#[test]
fn ties_are_spread_by_seed_and_repeat() {
    let run = |seed| {
        let mut s = Scheduler::builder().ties(TieBreak::Seeded(Rng::new(seed))).build();
        for n in 0..20 {
            s.cluster_mut().set_node(Node::new(&format!("n{n}"), 1000, 1 << 30, 3));
        }
        (0..20).map(|i| s.schedule(&pod(&format!("p{i}"), 1)).unwrap().name).collect::<Vec<_>>()
    };
    assert_eq!(run(1), run(1));
    assert!(run(1).iter().collect::<BTreeSet<_>>().len() > 5);
    assert_eq!(scheduler(4).schedule(&pod("p", 1)).unwrap().name, "n0");
}

#[test]
fn room_is_kept_for_the_nominated() {
    let mut s = scheduler(1);
    let mut vip = pod("vip", 800);
    Arc::make_mut(&mut vip.spec).priority = 10;
    s.nominate(vip.clone(), "n0");
    let error = s.schedule(&pod("p", 300)).unwrap_err();
    assert_eq!(error.to_string(), "0/1 nodes are available: 1 Insufficient cpu.");
    let mut boss = pod("boss", 300);
    Arc::make_mut(&mut boss.spec).priority = 11;
    assert!(s.schedule(&boss).is_ok());
    assert!(s.schedule(&vip).is_ok());
    assert_eq!(s.cluster().pod_count(), 0);
    s.clear_nomination(&vip.key);
    assert!(s.schedule(&pod("p", 300)).is_ok());
}

#[test]
fn a_plugin_of_ones_own() {
    struct Odd;
    impl Plugin for Odd {
        fn name(&self) -> &'static str {
            "Odd"
        }
        fn filter<'a>(&'a self, cycle: Cycle<'a>) -> FilterPlan<'a> {
            FilterPlan::Each(alloc::boxed::Box::new(move |id| {
                let odd = cycle.cluster.node(id)?.name.ends_with(['1', '3']);
                (!odd).then(|| Rejected::unresolvable("node(s) were even"))
            }))
        }
        fn score(&self, _: &Cycle<'_>, feasible: &[NodeId]) -> Option<Vec<i64>> {
            Some(feasible.iter().map(|id| id.row() as i64).collect())
        }
    }
    let mut s = Scheduler::builder().without("ImageLocality").plugin(Odd, 50).build();
    for n in 0..4 {
        s.cluster_mut().set_node(Node::new(&format!("n{n}"), 1000, 1 << 30, 3));
    }
    assert_eq!(s.schedule(&pod("p", 1)).unwrap().name, "n3");
    let explanation = s.explain(&pod("p", 1));
    assert_eq!(explanation.best(), ["n3"]);
    let Verdict::Rejected(r) = &explanation.nodes[0].verdict else { panic!() };
    assert_eq!(r.to_string(), "Odd/UnschedulableAndUnresolvable: node(s) were even");
    let Verdict::Feasible { scores, .. } = &explanation.nodes[1].verdict else { panic!() };
    assert_eq!(scores.last(), Some(&("Odd", 50)));
}

#[test]
fn a_pod_that_names_its_node() {
    let mut s = scheduler(2);
    let mut p = pod("p", 1);
    p.node = Some("n1".into());
    assert_eq!(s.schedule(&p).unwrap().name, "n1");
    p.node = Some("n9".into());
    assert_eq!(
        s.schedule(&p).unwrap_err().to_string(),
        "0/2 nodes are available: 2 node(s) didn't match the requested node name."
    );
}
