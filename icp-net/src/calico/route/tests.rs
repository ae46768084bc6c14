//! Tables of Nodes, and the machine against a kernel in memory.

use alloc::collections::{BTreeMap, BTreeSet};
use alloc::format;
use alloc::string::{String, ToString};
use alloc::sync::Arc;
use alloc::vec::Vec;

use icp_core::api::Object;
use icp_core::base::{Machine as _, Time};
use icp_core::client::{ClientEffect, ClientEvent, Operation, Reply, WatchEvent, WatchKind};
use proptest::prelude::*;
use serde_json::{Value as Json, json};

use super::*;
use crate::rules::{Family, Ruleset, Snapshot};

fn node(name: &str, cidrs: &[&str], ips: &[&str]) -> Json {
    let addresses: Vec<Json> = ips.iter().map(|ip| json!({"type": "InternalIP", "address": ip})).collect();
    json!({"apiVersion": "v1", "kind": "Node", "metadata": {"name": name},
        "spec": {"podCIDRs": cidrs}, "status": {"addresses": addresses}})
}

fn facts(nodes: &[Json]) -> BTreeMap<String, NodeFacts> {
    let one = |n: &Json| {
        let object: Object = serde_json::from_value(n.clone()).unwrap();
        (object.metadata.name.clone(), NodeFacts::of(&object))
    };
    nodes.iter().map(one).collect()
}

fn lines(wanted: &Wanted) -> Vec<String> {
    wanted.routes.iter().map(|r| format!("{} {:?}", r.destination, r.via)).collect()
}

#[test]
fn nodes_come_to_routes() {
    let nodes = [
        node("a", &["10.244.1.0/24", "fd00:1::/64"], &["192.0.2.1", "2001:db8::1"]),
        node("b", &["10.244.2.7/24"], &["not one", "192.0.2.2", "192.0.2.22"]),
        node("c", &["10.244.3.0/24", "fd00:3::/64"], &["192.0.2.3"]),
        node("d", &["10.244.1.128/25", "nonsense"], &["192.0.2.4"]),
        node("e", &[], &["192.0.2.5"]),
    ];
    let found = wanted("a", &facts(&nodes));
    assert_eq!(
        lines(&found),
        [
            "10.244.1.0/24 Blackhole",
            "10.244.2.0/24 Gateway(192.0.2.2)",
            "10.244.3.0/24 Gateway(192.0.2.3)",
            "fd00:1::/64 Blackhole"
        ]
    );
    assert_eq!(
        found.problems,
        [
            "node c: no InternalIP of its own to reach podCIDR fd00:3::/64 by",
            "node d: podCIDR 10.244.1.128/25 is node a's",
        ]
    );
    // A machine without a Node reaches all, and what is doubtful goes to the first.
    let found = wanted("master", &facts(&nodes));
    assert_eq!(found.routes.len(), 4);
    assert_eq!(found.pod_networks, []);
    let single = json!({"metadata": {"name": "x"}, "spec": {"podCIDR": "10.244.8.0/24"}});
    assert_eq!(facts(&[single])["x"].pod_networks.len(), 1);
}

/// A kernel in memory, and an API server with Nodes.
struct World {
    machine: RouteMachine,
    now: Time,
    rules: Ruleset,
    routes: BTreeSet<RouteEntry>,
    forwarding: BTreeSet<Family>,
    /// Destinations that cannot be reached.
    refused: BTreeSet<String>,
    nodes: BTreeMap<String, Arc<Object>>,
    watch: Option<u64>,
    version: u64,
    applied: Vec<Changes>,
    networks: Vec<Vec<ipnet::IpNet>>,
}

impl World {
    fn new() -> Self {
        let config = Config { pod_networks: ["10.244.0.0/16".parse().unwrap()].to_vec(), ..Config::new("a") };
        Self {
            machine: RouteMachine::new(config),
            now: Time::from_secs(1),
            rules: Ruleset::default(),
            routes: BTreeSet::new(),
            forwarding: BTreeSet::new(),
            refused: BTreeSet::new(),
            nodes: BTreeMap::new(),
            watch: None,
            version: 1,
            applied: Vec::new(),
            networks: Vec::new(),
        }
    }

    fn wake(&mut self) {
        self.now = self.now.max(self.machine.deadline().unwrap_or(self.now));
        let mut out = Vec::new();
        self.machine.wake(self.now, &mut out);
        self.work(out);
    }

    fn tell(&mut self, event: Event) {
        let mut out = Vec::new();
        self.machine.on(self.now, event, &mut out);
        self.work(out);
    }

    fn stamp(&mut self, mut object: Object) -> Arc<Object> {
        self.version += 1;
        object.metadata.resource_version = self.version.to_string();
        Arc::new(object)
    }

    fn report(&mut self, kind: WatchKind, object: Arc<Object>) {
        if let Some(id) = self.watch {
            self.tell(ClientEvent::Watch { id, event: WatchEvent { kind, object } }.into());
        }
    }

    fn put(&mut self, object: &Json) {
        let object = self.stamp(serde_json::from_value(object.clone()).unwrap());
        let old = self.nodes.insert(object.metadata.name.clone(), Arc::clone(&object));
        self.report(if old.is_some() { WatchKind::Modified } else { WatchKind::Added }, object);
    }

    fn delete(&mut self, name: &str) {
        if let Some(object) = self.nodes.remove(name) {
            let object = self.stamp((*object).clone());
            self.report(WatchKind::Deleted, object);
        }
    }

    fn work(&mut self, effects: Vec<Effect>) {
        for effect in effects {
            match effect {
                Effect::Client(ClientEffect::Request { id, request }) => match request.op {
                    Operation::List(_) => {
                        let reply = Reply::List {
                            items: self.nodes.values().cloned().collect(),
                            resource_version: self.version.to_string(),
                            continue_token: None,
                        };
                        self.tell(ClientEvent::Reply { id, result: Ok(reply) }.into());
                    }
                    Operation::Patch { body, .. } => {
                        assert_eq!(request.subresource, Some("status"));
                        let mut node = (*self.nodes[request.name.as_deref().unwrap()]).clone();
                        node.rest["status"]["conditions"] = body["status"]["conditions"].clone();
                        let node = self.stamp(node);
                        self.nodes.insert(node.metadata.name.clone(), Arc::clone(&node));
                        self.tell(
                            ClientEvent::Reply { id, result: Ok(Reply::Object(Arc::clone(&node))) }.into(),
                        );
                        self.report(WatchKind::Modified, node);
                    }
                    op => panic!("{op:?}"),
                },
                Effect::Client(ClientEffect::Watch { id, .. }) => self.watch = Some(id),
                Effect::Client(other) => panic!("{other:?}"),
                Effect::Observe { generation, tables } => {
                    let of = |id: &crate::rules::TableId| self.rules.tables.get(id).map(Snapshot::from);
                    let found = Observed {
                        routes: self.routes.clone(),
                        tables: tables.iter().map(|id| (id.clone(), of(id))).collect(),
                        forwarding: self.forwarding.clone(),
                    };
                    self.tell(Event::Observed { generation, result: Ok(found) });
                }
                Effect::Apply { generation, changes } => {
                    assert!(!changes.is_empty());
                    self.rules.apply(&changes.batch).unwrap();
                    self.forwarding.extend(&changes.forward);
                    for gone in &changes.delete {
                        assert!(self.routes.remove(gone));
                    }
                    let mut failures = Vec::new();
                    for new in &changes.add {
                        if self.refused.contains(&new.destination.to_string()) {
                            failures
                                .push(Failure { route: Some(*new), why: format!("{}: no", new.destination) });
                        } else {
                            self.routes.retain(|r| r.destination != new.destination);
                            self.routes.insert(*new);
                        }
                    }
                    self.applied.push(changes);
                    self.tell(Event::Applied { generation, failures });
                }
                Effect::PodNetworks(nets) => self.networks.push(nets),
            }
        }
    }

    fn condition(&self) -> (String, String) {
        let c = &self.nodes["a"].rest["status"]["conditions"][0];
        let text = |field: &str| c[field].as_str().unwrap_or_default().to_string();
        (text("status"), text("message"))
    }
}

fn three() -> [Json; 3] {
    [
        node("a", &["10.244.1.0/24"], &["192.0.2.1"]),
        node("b", &["10.244.2.0/24"], &["192.0.2.2"]),
        node("c", &["10.244.3.0/24"], &["192.0.2.3"]),
    ]
}

#[test]
fn the_machine_settles_reports_and_then_writes_nothing() {
    let mut w = World::new();
    three().iter().for_each(|n| w.put(n));
    w.wake();
    assert!(w.machine.in_sync());
    assert_eq!((w.routes.len(), w.applied.len(), w.networks.len()), (3, 1, 1));
    assert_eq!(w.forwarding, BTreeSet::from([Family::Ip]));
    assert_eq!(w.rules.tables.len(), 1);
    assert_eq!(w.condition(), ("False".into(), "Calico is running on this node".into()));
    // A heartbeat changes nothing; what somebody deletes comes back at the next look.
    let beat = w.nodes["b"].clone();
    w.put(&serde_json::to_value(&*beat).unwrap());
    assert_eq!(w.applied.len(), 1);
    w.routes.clear();
    w.rules.tables.clear();
    for _ in 0..3 {
        w.wake();
    }
    assert_eq!((w.routes.len(), w.rules.tables.len(), w.applied.len()), (3, 1, 2));
    w.delete("c");
    assert_eq!((w.routes.len(), w.applied.len()), (2, 3));
    w.delete("a");
    assert_eq!(w.networks.len(), 2);
    assert!(w.routes.iter().all(|r| r.via != Via::Blackhole));
}

#[test]
fn one_node_out_of_reach_is_told_and_tried_again() {
    let mut w = World::new();
    three().iter().for_each(|n| w.put(n));
    w.refused.insert("10.244.2.0/24".into());
    w.wake();
    assert_eq!(w.routes.len(), 2);
    assert!(!w.machine.in_sync());
    let (status, message) = w.condition();
    assert_eq!((&*status, &*message), ("False", "Calico is running on this node; 10.244.2.0/24: no"));
    w.refused.clear();
    for _ in 0..4 {
        w.wake();
    }
    assert!(w.machine.in_sync());
    assert_eq!(w.condition().1, "Calico is running on this node");

    // Without what its own pods need, the node says that its network is unavailable.
    w.refused.insert("10.244.1.0/24".into());
    w.routes.clear();
    w.tell(Event::Disturbed);
    for _ in 0..8 {
        w.wake();
    }
    assert_eq!(w.condition(), ("True".into(), "10.244.1.0/24: no".into()));
}

proptest! {
    #[test]
    fn changes_make_what_is_wanted(
        wanted in prop::collection::btree_map(0u8..6, prop::option::of(0u8..3), 0..6),
        observed in prop::collection::btree_map(0u8..6, prop::option::of(0u8..3), 0..6),
        ipv6: bool,
    ) {
        let make = |of: &BTreeMap<u8, Option<u8>>| -> BTreeSet<RouteEntry> {
            let one = |(n, via): (&u8, &Option<u8>)| {
                let (net, host) = if ipv6 {
                    (format!("fd00:{n}::/64"), format!("2001:db8::{}", via.unwrap_or(0)))
                } else {
                    (format!("10.{n}.0.0/16"), format!("192.0.2.{}", via.unwrap_or(0)))
                };
                let via = via.map_or(Via::Blackhole, |_| Via::Gateway(host.parse().unwrap()));
                RouteEntry { destination: net.parse().unwrap(), via }
            };
            of.iter().map(one).collect()
        };
        let (wanted, mut state) = (make(&wanted), make(&observed));
        let (delete, add) = route_changes(&wanted, &state);
        for gone in &delete {
            prop_assert!(state.remove(gone));
        }
        for new in &add {
            if !ipv6 {
                state.retain(|r| r.destination != new.destination);
            }
            prop_assert!(state.insert(*new));
        }
        prop_assert_eq!(&state, &wanted);
        prop_assert_eq!(route_changes(&wanted, &wanted), (Vec::new(), Vec::new()));
    }
}
