//! The machine against tables in memory.

use alloc::vec;
use alloc::vec::Vec;

use serde_json::json;

use super::fixture::{World, config, endpoint, service, slice};
use crate::rules::{Ruleset, Snapshot};
use crate::service::Event;

fn settled(world: &World<Ruleset>) {
    assert!(world.machine.in_sync(), "{:?}", world.machine.last_error());
    let expected: Vec<_> = world.machine.tables();
    for table in expected {
        assert_eq!(world.kernel.tables.get(&table.id), Some(&table));
    }
}

fn some_services() -> World<Ruleset> {
    let mut w = World::new(config(), Ruleset::default());
    w.put(&service("web", "10.96.0.1", json!({})));
    w.put(&slice("web", vec![endpoint("10.244.0.5", "here", true), endpoint("10.244.1.5", "there", true)]));
    w.put(&service(
        "np",
        "10.96.0.2",
        json!({"type": "NodePort", "externalTrafficPolicy": "Local", "sessionAffinity": "ClientIP",
            "ports": [{"name": "http", "port": 80, "nodePort": 30080}], "externalIPs": ["192.0.2.1"]}),
    ));
    w.put(&slice("np", vec![endpoint("10.244.0.6", "here", true), endpoint("10.244.1.6", "there", true)]));
    w.put(&service("empty", "10.96.0.3", json!({})));
    w.put(&service("headless", "None", json!({})));
    w
}

#[test]
fn tables_follow_the_objects_by_differences() {
    let mut w = some_services();
    w.start();
    settled(&w);
    assert_eq!(w.batches.len(), 1);

    // One more endpoint of one service: a handful of writes, whatever else there is.
    w.put(&slice(
        "web",
        vec![
            endpoint("10.244.0.5", "here", true),
            endpoint("10.244.1.5", "there", true),
            endpoint("10.244.2.5", "there", true),
        ],
    ));
    settled(&w);
    w.put(&service("more", "10.96.0.4", json!({})));
    let before = w.batches.len();
    w.put(&slice("more", vec![endpoint("10.244.1.9", "there", true), endpoint("10.244.1.8", "there", true)]));
    w.put(&service("same", "10.96.0.5", json!({})));
    w.put(&slice("same", vec![endpoint("10.244.1.9", "there", true), endpoint("10.244.1.8", "there", true)]));
    settled(&w);
    let last = w.batches.last().unwrap();
    assert_eq!(last.writes(), 4, "class, two slots, not rejected any more: {last:?}");
    assert!(w.batches.len() > before);

    for name in ["web", "np", "empty", "more", "same"] {
        w.delete("services", name);
        settled(&w);
    }
    let table = &w.machine.tables()[0];
    assert!(table.sets.values().all(|s| s.elements.is_empty()), "{table:?}");
}

#[test]
fn a_restart_with_unchanged_state_writes_nothing() {
    let mut w = some_services();
    w.start();
    // Slots that only history explains.
    w.put(&slice("np", vec![endpoint("10.244.1.6", "there", true), endpoint("10.244.0.1", "here", true)]));
    w.put(&slice("web", vec![endpoint("10.244.1.5", "there", true), endpoint("10.244.0.1", "here", true)]));
    settled(&w);
    let mut second = World::new(config(), w.kernel.clone());
    second.objects = w.objects.clone();
    second.start();
    settled(&second);
    assert_eq!(second.batches, []);
    assert_eq!(second.kernel, w.kernel);
}

#[test]
fn what_others_broke_is_mended_and_nothing_else_written() {
    let mut w = some_services();
    w.start();
    let id = w.machine.tables()[0].id.clone();
    let map = w.kernel.tables.get_mut(&id).unwrap().sets.get_mut("services").unwrap();
    map.elements.pop_first();
    w.batches.clear();
    w.tell(Event::Disturbed);
    settled(&w);
    assert_eq!(w.batches.len(), 1);
    assert_eq!(w.batches[0].writes(), 1);

    w.kernel.tables.clear();
    w.batches.clear();
    w.wake();
    settled(&w);
    assert_eq!(w.batches.len(), 1);
}

#[test]
fn a_failed_batch_is_followed_by_a_look_at_the_tables() {
    let mut w = some_services();
    w.start();
    let id = w.machine.tables()[0].id.clone();
    w.kernel.tables.remove(&id);
    w.put(&service("late", "10.96.0.9", json!({})));
    assert!(!w.machine.in_sync() && w.machine.last_error().is_some());
    w.wake();
    settled(&w);
}

#[test]
fn two_services_that_claim_one_address_do_not_mix() {
    let mut w = some_services();
    w.start();
    w.put(&service("a", "10.96.0.7", json!({"externalIPs": ["192.0.2.9"]})));
    w.put(&service("b", "10.96.0.8", json!({"externalIPs": ["192.0.2.9"]})));
    w.put(&slice("a", vec![endpoint("10.244.1.1", "there", true)]));
    w.put(&slice("b", vec![endpoint("10.244.1.2", "there", true)]));
    settled(&w);
    w.delete("services", "a");
    settled(&w);
    let only_b = Snapshot::from(&w.machine.tables()[0]);
    w.put(&service("a", "10.96.0.7", json!({"externalIPs": ["192.0.2.9"]})));
    settled(&w);
    w.delete("services", "a");
    settled(&w);
    assert_eq!(Snapshot::from(&w.machine.tables()[0]), only_b);
}

#[test]
fn an_endpoint_that_goes_leaves_udp_flows_to_forget() {
    let mut w = some_services();
    let udp = json!({"ports": [{"name": "http", "port": 53, "protocol": "UDP"}]});
    w.put(&service("dns", "10.96.0.10", udp));
    let with = |endpoints| {
        let mut s = slice("dns", endpoints);
        s["ports"][0]["protocol"] = json!("UDP");
        s
    };
    w.put(&with(vec![endpoint("10.244.0.5", "here", true), endpoint("10.244.1.5", "there", true)]));
    w.start();
    w.forgotten.clear();
    w.put(&with(vec![endpoint("10.244.1.5", "there", true)]));
    assert_eq!(w.forgotten.len(), 1);
    assert_eq!((w.forgotten[0].port, w.forgotten[0].endpoints.len()), (53, 1));
    w.delete("services", "dns");
    assert_eq!(w.forgotten.last().unwrap().endpoints, []);
}
