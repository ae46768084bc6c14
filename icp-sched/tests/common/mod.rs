//! Random clusters with all features mixed.
#![allow(dead_code, reason = "each test uses a part")]

use std::collections::BTreeMap;
use std::sync::Arc;

use icp_core::api::labels::{Op, Requirement, Selector};
use icp_core::base::Rng;
use icp_sched::model::{
    AffinityTerm, Effect, HostPort, Image, Node, NodeTerm, PodSpec, PreferredNodeTerm, SpreadConstraint,
    Taint, Toleration, TolerationOp, WeightedAffinityTerm,
};

pub(crate) const NAMESPACES: [&str; 3] = ["alpha", "beta", "gamma"];
const KEYS: [&str; 4] = ["kubernetes.io/hostname", "topology.kubernetes.io/zone", "disk", "rack"];
const APPS: [&str; 3] = ["web", "db", "cache"];
const COLORS: [&str; 2] = ["red", "blue"];

pub(crate) fn pick<'a, T: ?Sized>(rng: &mut Rng, list: &[&'a T]) -> &'a T {
    list[rng.below(list.len() as u64) as usize]
}

pub(crate) fn chance(rng: &mut Rng, percent: u32) -> bool {
    rng.chance(percent * 10_000)
}

pub(crate) fn namespace_labels(rng: &mut Rng) -> BTreeMap<String, String> {
    BTreeMap::from([("team".into(), pick(rng, &COLORS).into())])
}

pub(crate) fn node(rng: &mut Rng, name: &str) -> Node {
    let cpu = [1000, 2000, 3963, 8000][rng.below(4) as usize];
    let memory = [1 << 30, 2 << 30, 7_812_345_678][rng.below(3) as usize];
    let mut n = Node::new(name, cpu, memory, 2 + rng.below(8) as i64);
    n.allocatable.ephemeral = 10 << 30;
    if chance(rng, 5) {
        n.labels.clear();
    }
    for (key, values) in
        [(KEYS[1], ["z0", "z1", "z2"]), (KEYS[2], ["ssd", "hdd", "ssd"]), (KEYS[3], ["a", "b", "c"])]
    {
        if chance(rng, 85) {
            n.labels.insert(key.into(), pick(rng, &values).into());
        }
    }
    if chance(rng, 20) {
        n.allocatable.scalars.insert("example.com/gpu".into(), 1 + rng.below(3) as i64);
    }
    if chance(rng, 20) {
        let effect = [Effect::NoSchedule, Effect::PreferNoSchedule, Effect::NoExecute][rng.below(3) as usize];
        n.taints.push(Taint {
            key: pick(rng, &["spot", "dedicated"]).into(),
            value: pick(rng, &["a", ""]).into(),
            effect,
        });
    }
    n.unschedulable = chance(rng, 5);
    for image in ["reg/a:1", "reg/b:2"] {
        if chance(rng, 30) {
            n.images.push(Image { names: vec![image.into()], bytes: (30 + rng.below(900) as i64) << 20 });
        }
    }
    n
}

fn requirement(key: &str, op: Op, values: &[&str]) -> Requirement {
    Requirement { key: key.into(), op, values: values.iter().map(|v| (*v).into()).collect() }
}

pub(crate) fn selector(rng: &mut Rng) -> Selector {
    let mut s = Selector::default();
    match rng.below(5) {
        0 => s.requirements.push(requirement("app", Op::In, &[pick(rng, &APPS)])),
        1 => s.requirements.push(requirement("color", Op::NotIn, &[pick(rng, &COLORS)])),
        2 => s.requirements.push(requirement("app", Op::Exists, &[])),
        3 => {
            s.requirements.push(requirement("app", Op::In, &[pick(rng, &APPS)]));
            s.requirements.push(requirement("color", Op::In, &[pick(rng, &COLORS)]));
        }
        _ if chance(rng, 50) => s = Selector::nothing(),
        _ => {}
    }
    s
}

fn term(rng: &mut Rng, namespace: &str) -> AffinityTerm {
    let mut t = AffinityTerm {
        selector: selector(rng),
        namespaces: vec![namespace.into()],
        namespace_selector: None,
        topology_key: pick(rng, &KEYS).into(),
    };
    match rng.below(5) {
        0 => t.namespaces = vec![pick(rng, &NAMESPACES).into()],
        1 => {
            t.namespaces.clear();
            let mut s = Selector::default();
            if chance(rng, 70) {
                s.requirements.push(requirement("team", Op::In, &[pick(rng, &COLORS)]));
            }
            t.namespace_selector = Some(s);
        }
        _ => {}
    }
    t
}

fn node_term(rng: &mut Rng) -> NodeTerm {
    let mut t = NodeTerm::default();
    match rng.below(4) {
        0 => t.labels.push(requirement("disk", Op::In, &["ssd"])),
        1 => t.labels.push(requirement(KEYS[1], Op::NotIn, &[pick(rng, &["z0", "z1"])])),
        2 => t.labels.push(requirement("rack", Op::Exists, &[])),
        _ => t.names.push(requirement("metadata.name", Op::In, &["n1", "n2", "n77"])),
    }
    t
}

fn some<T>(rng: &mut Rng, percent: u32, make: impl Fn(&mut Rng) -> T) -> Vec<T> {
    let mut list = Vec::new();
    while list.len() < 2 && chance(rng, percent) {
        list.push(make(rng));
    }
    list
}

pub(crate) fn constraint(rng: &mut Rng) -> SpreadConstraint {
    SpreadConstraint {
        max_skew: 1 + rng.below(3) as i64,
        topology_key: pick(rng, &KEYS).into(),
        selector: selector(rng),
        min_domains: if chance(rng, 20) { 3 } else { 1 },
        honor_affinity: chance(rng, 80),
        honor_taints: chance(rng, 30),
    }
}

fn constraints(rng: &mut Rng, percent: u32) -> Vec<SpreadConstraint> {
    let mut list = some(rng, percent, constraint);
    // Keys are distinct within a kind.
    list.dedup_by(|a, b| a.topology_key == b.topology_key);
    list
}

pub(crate) fn spec(rng: &mut Rng) -> Arc<PodSpec> {
    let mut s = PodSpec::asking(100 * rng.below(8) as i64, (rng.below(6) as i64) << 27);
    if s.non_zero_cpu == 0 {
        s.non_zero_cpu = 100;
    }
    if s.non_zero_memory == 0 {
        s.non_zero_memory = 200 << 20;
    }
    s.namespace = pick(rng, &NAMESPACES).into();
    s.labels.insert("app".into(), pick(rng, &APPS).into());
    s.labels.insert("color".into(), pick(rng, &COLORS).into());
    s.terminating = chance(rng, 3);
    s.priority = rng.below(3) as i32;
    let namespace = s.namespace.clone();
    if chance(rng, 15) {
        s.requests.scalars.insert("example.com/gpu".into(), 1);
    }
    if chance(rng, 10) {
        s.host_ports.push(HostPort { ip: "0.0.0.0".into(), protocol: "TCP".into(), port: 80 });
    }
    if chance(rng, 30) {
        s.tolerations.push(Toleration {
            key: pick(rng, &["spot", ""]).into(),
            op: TolerationOp::Exists,
            value: String::new(),
            effect: if chance(rng, 50) { None } else { Some(Effect::PreferNoSchedule) },
        });
    }
    if chance(rng, 10) {
        s.node_selector = Some(BTreeMap::from([("disk".into(), "ssd".into())]));
    }
    if chance(rng, 15) {
        s.node_terms = Some(some(rng, 80, node_term));
    }
    if chance(rng, 20) {
        let make =
            |rng: &mut Rng| PreferredNodeTerm { weight: 1 + rng.below(100) as i64, term: node_term(rng) };
        s.node_preferences = Some(some(rng, 70, make));
    }
    s.spread_hard = constraints(rng, 25);
    s.spread_soft = constraints(rng, 25);
    s.affinity = some(rng, 12, |rng| term(rng, &namespace));
    s.anti_affinity = some(rng, 15, |rng| term(rng, &namespace));
    let weighted = |rng: &mut Rng| WeightedAffinityTerm {
        weight: 1 + rng.below(100) as i64,
        term: term(rng, &namespace),
    };
    s.affinity_preferences = some(rng, 20, weighted);
    s.anti_affinity_preferences = some(rng, 20, weighted);
    s.images = some(rng, 50, |rng| pick(rng, &["reg/a:1", "reg/b:2", "reg/c:3"]).to_string());
    Arc::new(s)
}
