use alloc::collections::BTreeMap;
use alloc::sync::Arc;
use alloc::vec::Vec;

use icp_core::api::Object;
use icp_core::base::{Duration, Rng, Time};
use icp_core::client::ObjectKey;
use proptest::prelude::*;
use serde_json::json;

use super::*;
use crate::model::{Node, Pod, PodSpec};
use crate::{Scheduler, TieBreak};

fn pod(name: &str, cpu: i64) -> Pod {
    Pod::new(name, Arc::new(PodSpec::asking(cpu, 1)))
}

/// Everything that a later decision could see.
fn seen(s: &Scheduler) -> alloc::string::String {
    let nodes = s.cluster().nodes().map(|(id, n)| {
        let mut pods: Vec<_> = s.cluster().pods_on(id).map(|p| &p.key).collect();
        pods.sort();
        (&n.name, pods, s.cluster().columns().load.get(id.row()))
    });
    alloc::format!("{:?}", nodes.collect::<Vec<_>>())
}

#[test]
fn objects_are_read() {
    let mut o = Object::new("v1", "Pod", "ns", "p");
    assert_eq!(group_of(&o), None);
    o.rest.insert("spec".into(), json!({"schedulingGroup": {"podGroupName": "g"}}));
    assert_eq!(group_of(&o), Some(ObjectKey::new("ns", "g")));
    for (policy, want) in [
        (json!({"gang": {"minCount": 3}}), Some(3)),
        (json!({"gang": {"minCount": 0}}), None),
        (json!({"basic": {}}), None),
    ] {
        o.rest.insert("spec".into(), json!({"schedulingPolicy": policy}));
        assert_eq!(min_count(&o), want);
    }
}

#[test]
fn a_refused_gang_leaves_kept_room_and_draws_as_they_were() {
    let mut s = Scheduler::builder().ties(TieBreak::Seeded(Rng::new(5))).build();
    for n in 0..4 {
        s.cluster_mut().set_node(Node::new(&alloc::format!("n{n}"), 100, 1 << 20, 10));
    }
    let mut twin = s.snapshot();
    let vip = pod("vip", 60);
    s.nominate(vip.clone(), "n2");
    twin.nominate(vip.clone(), "n2");
    let gang = [vip.clone(), pod("a", 60), pod("b", 500)];
    let error = s.schedule_gang(gang.clone(), 3).unwrap_err();
    assert!(
        matches!(&error, GangError::TooFew { placed: 2, min: 3, unplaced } if unplaced[0].pod.name == "b")
    );
    assert_eq!(s.nominated_node(&vip.key), Some("n2"));
    let twice = s.schedule_gang([pod("a", 1), pod("a", 1)], 1);
    assert_eq!(twice, Err(GangError::Placed(ObjectKey::new("default", "a"))));
    for n in 0..8 {
        let next = pod(&alloc::format!("p{n}"), 10);
        let (placement, other) = (s.schedule(&next).unwrap(), twin.schedule(&next).unwrap());
        assert_eq!(placement, other);
        s.assume(next.clone(), placement.node);
        twin.assume(next, other.node);
    }
    let placed = s.schedule_gang(gang, 2).unwrap();
    assert_eq!(placed.seats.len(), 2);
    assert_eq!(placed.unplaced[0].pod.name, "b");
}

#[test]
fn who_waits_too_long_is_told() {
    let (group, at) = (ObjectKey::new("default", "g"), Time::from_secs);
    let mut gangs = Gangs::new(Duration::from_secs(10));
    gangs.set_group(&group, Some(2));
    assert_eq!(gangs.deadline(), None);
    gangs.arrive(at(5), &group, pod("a", 1));
    assert_eq!(gangs.deadline(), Some(at(15)));
    assert!(gangs.overdue(at(14)).is_empty());
    let told = gangs.overdue(at(15));
    assert_eq!(told, [(group.clone(), [ObjectKey::new("default", "a")].into())]);
    assert_eq!(gangs.deadline(), Some(at(25)));
    gangs.leave(&group, &ObjectKey::new("default", "a"));
    assert_eq!(gangs.deadline(), None);
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(96))]
    /// After every decision a gang has at least its minimum placed, or what it had before; refused ones leave no trace.
    #[test]
    fn all_or_nothing(
        capacity in prop::collection::vec(1..6_i64, 1..4),
        ops in prop::collection::vec((0..8_u8, 0..3_u8, 0..8_u8, 1..4_i64), 0..60),
    ) {
        let mut s = Scheduler::default();
        for (n, cpu) in capacity.iter().enumerate() {
            s.cluster_mut().set_node(Node::new(&alloc::format!("n{n}"), *cpu, 1 << 20, 10));
        }
        let mut gangs = Gangs::new(Duration::from_secs(10));
        let mut placed: BTreeMap<(u8, u8), ()> = BTreeMap::new();
        for (op, g, name, size) in ops {
            let group = ObjectKey::new("default", &alloc::format!("g{g}"));
            let member = pod(&alloc::format!("g{g}-p{name}"), size);
            match op {
                0 => gangs.set_group(&group, Some(size as usize + 1)),
                1 => {
                    gangs.leave(&group, &member.key);
                    s.cluster_mut().remove_pod(&member.key);
                    placed.remove(&(g, name));
                }
                2 | 3 => {
                    let (waiting, had) = gangs.counts(&group);
                    let min = gangs.ready().contains(&group);
                    let before = seen(&s);
                    match gangs.decide(Time::ZERO, &group, &mut s) {
                        Ok(Seats { seats, .. }) => {
                            prop_assert!(min);
                            for seat in &seats {
                                let number = seat.pod.key.name.trim_start_matches(&alloc::format!("g{g}-p")).parse().unwrap();
                                placed.insert((g, number), ());
                            }
                            let now = placed.keys().filter(|(of, _)| *of == g).count();
                            prop_assert_eq!(now, had + seats.len());
                            prop_assert!(now >= gangs.minimum(&group).unwrap());
                        }
                        Err(_) => {
                            prop_assert_eq!(seen(&s), before);
                            prop_assert_eq!(gangs.counts(&group), (waiting, had));
                        }
                    }
                }
                _ if !placed.contains_key(&(g, name)) => gangs.arrive(Time::ZERO, &group, member),
                _ => {}
            }
            prop_assert_eq!(s.cluster().pod_count(), placed.len());
        }
    }
}
