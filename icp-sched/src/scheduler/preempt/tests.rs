use alloc::string::ToString;
use alloc::sync::Arc;

use icp_core::api::labels::Selector;
use icp_core::base::Time;

use super::*;
use crate::model::{AffinityTerm, Node, PodSpec};

fn pod(name: &str, cpu: i64, priority: i32) -> Pod {
    let mut spec = PodSpec { priority, ..PodSpec::asking(cpu, 1 << 20) };
    spec.labels.insert("app".into(), name.chars().take(1).collect());
    Pod::new(name, Arc::new(spec))
}

fn on(mut pod: Pod, node: &str, started: i64) -> Pod {
    pod.node = Some(node.into());
    pod.started = Some(Time::from_secs(started));
    pod
}

fn scheduler(nodes: &[&str], pods: &[Pod]) -> Scheduler {
    let mut s = Scheduler::default();
    for name in nodes {
        s.cluster_mut().set_node(Node::new(name, 1000, 1 << 30, 10));
    }
    for p in pods {
        s.cluster_mut().set_pod(p.clone());
    }
    s
}

fn preempt(s: &mut Scheduler, pod: &Pod) -> Result<Preemption, String> {
    let none = s.schedule(pod).unwrap_err();
    let before = alloc::format!("{:?}", s.cluster().columns().load);
    let result = s.preempt(pod, &none);
    assert_eq!(alloc::format!("{:?}", s.cluster().columns().load), before, "a look changes nothing");
    result
}

fn names(p: &Preemption) -> (String, Vec<&str>) {
    (p.name.clone(), p.victims.iter().map(|v| v.key.name.as_str()).collect())
}

#[test]
fn the_least_important_go_and_as_few_as_possible() {
    let pods = [
        on(pod("a1", 400, 1), "n0", 1),
        on(pod("a2", 300, 2), "n0", 1),
        on(pod("a3", 300, 3), "n0", 1),
        on(pod("b1", 1000, 3), "n1", 1),
    ];
    let mut s = scheduler(&["n0", "n1"], &pods);
    assert_eq!(names(&preempt(&mut s, &pod("x", 400, 9)).unwrap()), ("n0".into(), alloc::vec!["a1"]));
    assert_eq!(names(&preempt(&mut s, &pod("x", 600, 9)).unwrap()), ("n0".into(), alloc::vec!["a2", "a1"]));
    assert_eq!(names(&preempt(&mut s, &pod("x", 600, 3)).unwrap()), ("n0".into(), alloc::vec!["a2", "a1"]));
    assert_eq!(
        preempt(&mut s, &pod("x", 600, 1)).unwrap_err(),
        "preemption: 0/2 nodes are available: 2 No preemption victims found for incoming pod."
    );
    assert_eq!(
        preempt(&mut s, &pod("x", 6000, 9)).unwrap_err(),
        "preemption: 0/2 nodes are available: 2 Preemption is not helpful for scheduling."
    );
    let mut shy = pod("x", 600, 9);
    Arc::make_mut(&mut shy.spec).never_preempts = true;
    assert_eq!(preempt(&mut s, &shy).unwrap_err(), "preemption: not eligible due to preemptionPolicy=Never.");
}

#[test]
fn budgets_come_first_and_then_who_started_last() {
    let pods = [on(pod("a", 900, 1), "n0", 5), on(pod("b", 900, 1), "n1", 9), on(pod("c", 900, 1), "n2", 7)];
    let mut s = scheduler(&["n0", "n1", "n2"], &pods);
    let x = pod("x", 500, 9);
    assert_eq!(preempt(&mut s, &x).unwrap().name, "n1");
    let protect = |app: &str, allowed| {
        let selector = Selector::parse(&alloc::format!("app={app}")).unwrap();
        Some(DisruptionBudget { selector, allowed, ..DisruptionBudget::default() })
    };
    let key = |name: &str| ObjectKey::new("default", name);
    s.set_budget(key("b"), protect("b", 0));
    assert_eq!(preempt(&mut s, &x).unwrap().name, "n2");
    s.set_budget(key("c"), protect("c", 1));
    assert_eq!(preempt(&mut s, &x).unwrap().name, "n2");
    for app in ["a", "c"] {
        s.set_budget(key(app), protect(app, 0));
    }
    let all = preempt(&mut s, &x).unwrap();
    assert_eq!((all.name.as_str(), all.violations), ("n1", 1));
    s.set_budget(key("a"), None);
    assert_eq!(preempt(&mut s, &x).unwrap().violations, 0);
}

#[test]
fn anti_affinity_is_lifted_with_its_pods() {
    let mut hater = PodSpec { priority: 1, ..PodSpec::asking(1, 1) };
    hater.anti_affinity.push(AffinityTerm {
        selector: Selector::parse("app=x").unwrap(),
        namespaces: alloc::vec!["default".into()],
        namespace_selector: None,
        topology_key: "kubernetes.io/hostname".into(),
    });
    let pods = [on(Pod::new("hater", Arc::new(hater)), "n0", 1), on(pod("calm", 1, 1), "n0", 1)];
    let mut s = scheduler(&["n0"], &pods);
    let x = pod("x", 1, 5);
    let none = s.schedule(&x).unwrap_err();
    assert!(none.to_string().contains("existing pods anti-affinity"), "{none}");
    assert_eq!(names(&preempt(&mut s, &x).unwrap()), ("n0".into(), alloc::vec!["hater"]));
}

#[test]
fn who_leaves_a_zone_lets_in_all_its_nodes() {
    let zone = "topology.kubernetes.io/zone";
    let mut s = scheduler(&[], &[]);
    for name in ["n0", "n1"] {
        s.cluster_mut().set_node(Node::new(name, 1000, 1 << 30, 10).with_label(zone, "z"));
    }
    for p in [on(pod("a", 900, 3), "n0", 1), on(pod("b", 900, 1), "n1", 1)] {
        s.cluster_mut().set_pod(p);
    }
    let hater = on(pod("h", 50, 9), "n0", 1);
    let mut x = pod("x", 500, 5);
    Arc::make_mut(&mut x.spec).anti_affinity.push(AffinityTerm {
        selector: Selector::parse("app=h").unwrap(),
        namespaces: alloc::vec!["default".into()],
        namespace_selector: None,
        topology_key: zone.into(),
    });
    for _ in 0..2 {
        assert_eq!(names(&preempt(&mut s, &x).unwrap()), ("n1".into(), alloc::vec!["b"]));
        s.cluster_mut().set_pod(hater.clone());
        assert_eq!(
            preempt(&mut s, &x).unwrap_err(),
            "preemption: 0/2 nodes are available: 2 node(s) didn't match pod anti-affinity rules."
        );
        s.cluster_mut().remove_pod(&hater.key);
    }
}

#[test]
fn no_second_try_while_victims_leave() {
    let mut leaving = on(pod("a", 900, 1), "n0", 1);
    Arc::make_mut(&mut leaving.spec).terminating = true;
    let mut s = scheduler(&["n0"], &[leaving]);
    let x = pod("x", 500, 9);
    s.nominate(x.clone(), "n0");
    assert!(preempt(&mut s, &x).unwrap_err().contains("terminating pod on the nominated node"));
    assert_eq!(s.outranked(&pod("y", 1, 10), "n0"), core::slice::from_ref(&x.key));
    assert!(s.outranked(&pod("y", 1, 9), "n0").is_empty());
}
