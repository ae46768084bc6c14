//! An API server in memory, just enough to drive the machine, and a client that asks it.

use alloc::collections::BTreeMap;
use alloc::format;
use alloc::string::{String, ToString};
use alloc::sync::Arc;
use alloc::vec::Vec;
use core::fmt::Write as _;

use icp_core::api::Object;
use icp_core::base::{Machine, Time};
use icp_core::client::{ClientEffect, ClientEvent, Reply, RequestId, WatchEvent, WatchKind};
use serde_json::{Value as Json, json};

use crate::dns::wire::{CLASS_IN, Edns, Header, Message, Name, Question, Record, Section, rtype};
use crate::dns::{DnsConfig, DnsEffect, DnsEvent, DnsMachine, Outcome, Snapshot, Transport, answer};

pub(crate) struct World {
    pub(crate) machine: DnsMachine,
    pub(crate) now: Time,
    pub(crate) published: Vec<Arc<Snapshot>>,
    objects: BTreeMap<(String, String), Arc<Object>>,
    watches: BTreeMap<String, RequestId>,
    version: u64,
}

fn resource_of(object: &Object) -> String {
    match object.kind.as_str() {
        "Service" => "services".into(),
        "EndpointSlice" => "endpointslices".into(),
        "Namespace" => "namespaces".into(),
        _ => "pods".into(),
    }
}

fn key_of(object: &Object) -> (String, String) {
    (resource_of(object), format!("{}/{}", object.metadata.namespace, object.metadata.name))
}

impl World {
    pub(crate) fn new(config: DnsConfig) -> Self {
        Self {
            machine: DnsMachine::new(config),
            now: Time::from_secs(1_499_347_823),
            published: Vec::new(),
            objects: BTreeMap::new(),
            watches: BTreeMap::new(),
            version: 1,
        }
    }

    pub(crate) fn start(&mut self) {
        let mut out = Vec::new();
        self.machine.wake(self.now, &mut out);
        self.perform(out);
    }

    fn perform(&mut self, effects: Vec<DnsEffect>) {
        let mut queue: alloc::collections::VecDeque<DnsEffect> = effects.into();
        while let Some(effect) = queue.pop_front() {
            match effect {
                DnsEffect::Client(ClientEffect::Request { id, request }) => {
                    let items = self.objects.iter().filter(|((r, _), _)| *r == request.gvr.resource);
                    let reply = Reply::List {
                        items: items.map(|(_, o)| Arc::clone(o)).collect(),
                        resource_version: self.version.to_string(),
                        continue_token: None,
                    };
                    let mut out = Vec::new();
                    let event = ClientEvent::Reply { id, result: Ok(reply) };
                    self.machine.on(self.now, event.into(), &mut out);
                    queue.extend(out);
                }
                DnsEffect::Client(ClientEffect::Watch { id, request }) => {
                    self.watches.insert(request.gvr.resource.to_string(), id);
                }
                DnsEffect::Client(_) => {}
                DnsEffect::Publish(snapshot) => self.published.push(snapshot),
            }
        }
    }

    pub(crate) fn tell(&mut self, event: DnsEvent) {
        let mut out = Vec::new();
        self.machine.on(self.now, event, &mut out);
        self.perform(out);
    }

    fn watch(&mut self, kind: WatchKind, object: Arc<Object>) {
        if let Some(id) = self.watches.get(&resource_of(&object)).copied() {
            self.tell(ClientEvent::Watch { id, event: WatchEvent { kind, object } }.into());
        }
    }

    /// Creates or changes an object.
    pub(crate) fn put(&mut self, object: Json) {
        let mut object: Object = serde_json::from_value(object).unwrap();
        self.version += 1;
        object.metadata.resource_version = self.version.to_string();
        let key = key_of(&object);
        // The same object with changes, or a new one.
        let old = self.objects.get(&key);
        object.metadata.uid = old.map_or_else(|| format!("uid-{}", self.version), |o| o.metadata.uid.clone());
        let kind = if old.is_some() { WatchKind::Modified } else { WatchKind::Added };
        let object = Arc::new(object);
        self.objects.insert(key, Arc::clone(&object));
        self.watch(kind, object);
    }

    pub(crate) fn delete(&mut self, resource: &str, namespace: &str, name: &str) {
        if let Some(object) = self.objects.remove(&(resource.into(), format!("{namespace}/{name}"))) {
            self.version += 1;
            self.watch(WatchKind::Deleted, object);
        }
    }

    pub(crate) fn snapshot(&self) -> Arc<Snapshot> {
        self.published.last().map_or_else(|| Arc::new(self.machine.snapshot().clone()), Arc::clone)
    }

    /// Asks over TCP and shows the answer as `dig` would.
    pub(crate) fn dig(&self, name: &str, rtype: u16) -> String {
        show(&ask(&self.snapshot(), name, rtype, 0))
    }
}

pub(crate) fn query(name: &str, rtype: u16, id: u16, edns: Option<Edns>) -> Vec<u8> {
    let message = Message {
        header: Header { id, flags: Header::RECURSION_DESIRED, rcode: 0 },
        question: Question { name: name.parse().unwrap(), rtype, class: CLASS_IN },
        records: Vec::new(),
        edns,
        extended_errors: Vec::new(),
    };
    let mut out = Vec::new();
    message.encode(usize::MAX, None, &mut out);
    out
}

pub(crate) fn ask(snapshot: &Snapshot, name: &str, rtype: u16, id: u16) -> Message {
    let mut out = Vec::new();
    match answer(snapshot, &query(name, rtype, id, None), Transport::Tcp, &mut out) {
        Outcome::Reply(note) => {
            let message = Message::decode(&out).unwrap();
            assert_eq!(note.rcode, message.header.rcode);
            message
        }
        other => panic!("{name}: {other:?}"),
    }
}

pub(crate) fn show(message: &Message) -> String {
    let mut text = String::new();
    let code = match message.header.rcode {
        0 => "NOERROR".into(),
        2 => "SERVFAIL".into(),
        3 => "NXDOMAIN".into(),
        n => format!("RCODE{n}"),
    };
    let flag = |bit, text| if message.header.has(bit) { text } else { "" };
    writeln!(text, "{code}{}{}", flag(Header::AUTHORITATIVE, " aa"), flag(Header::TRUNCATED, " tc")).unwrap();
    for (section, record) in &message.records {
        let section = match section {
            Section::Answer => "an",
            Section::Authority => "ns",
            Section::Additional => "ex",
        };
        writeln!(text, "{section} {}", show_record(record)).unwrap();
    }
    text
}

fn name_at(data: &[u8]) -> (Name, &[u8]) {
    let mut end = 0;
    while data[end] != 0 {
        end += usize::from(data[end]) + 1;
    }
    let labels: Vec<&[u8]> = {
        let (mut at, mut labels) = (0, Vec::new());
        while data[at] != 0 {
            labels.push(&data[at + 1..at + 1 + usize::from(data[at])]);
            at += usize::from(data[at]) + 1;
        }
        labels
    };
    (Name::from_labels(labels).unwrap(), &data[end + 1..])
}

pub(crate) fn show_record(record: &Record) -> String {
    let data = &record.data;
    let u16_at = |n: usize| u16::from_be_bytes([data[n], data[n + 1]]);
    let shown = match record.rtype {
        rtype::A => format!("A {}", core::net::Ipv4Addr::from(<[u8; 4]>::try_from(&data[..]).unwrap())),
        rtype::AAAA => {
            format!("AAAA {}", core::net::Ipv6Addr::from(<[u8; 16]>::try_from(&data[..]).unwrap()))
        }
        rtype::CNAME => format!("CNAME {}", name_at(data).0),
        rtype::NS => format!("NS {}", name_at(data).0),
        rtype::PTR => format!("PTR {}", name_at(data).0),
        rtype::SRV => format!("SRV {} {} {} {}", u16_at(0), u16_at(2), u16_at(4), name_at(&data[6..]).0),
        rtype::TXT => format!("TXT {:?}", core::str::from_utf8(&data[1..]).unwrap()),
        rtype::SOA => {
            let (server, rest) = name_at(data);
            let (mail, rest) = name_at(rest);
            let numbers = rest.chunks(4).map(|c| u32::from_be_bytes(c.try_into().unwrap()).to_string());
            format!("SOA {server} {mail} {}", numbers.collect::<Vec<_>>().join(" "))
        }
        n => format!("TYPE{n} {data:?}"),
    };
    format!("{} {} {shown}", record.name, record.ttl_secs)
}

pub(crate) fn namespace(name: &str) -> Json {
    json!({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": name}})
}

pub(crate) fn service(namespace: &str, name: &str, spec: Json) -> Json {
    json!({"apiVersion": "v1", "kind": "Service", "metadata": {"namespace": namespace, "name": name}, "spec": spec})
}

pub(crate) fn slice(namespace: &str, service: &str, name: &str, ports: Json, endpoints: Json) -> Json {
    json!({
        "apiVersion": "discovery.k8s.io/v1", "kind": "EndpointSlice", "addressType": "IPv4",
        "metadata": {"namespace": namespace, "name": name, "labels": {"kubernetes.io/service-name": service}},
        "ports": ports, "endpoints": endpoints,
    })
}

pub(crate) fn config() -> DnsConfig {
    DnsConfig::new("cluster.local".parse().unwrap())
}

/// A cluster with a service of each kind.
pub(crate) fn cluster() -> World {
    let mut world =
        World::new(DnsConfig { nameservers: Vec::from(["10.96.0.10".parse().unwrap()]), ..config() });
    let http = json!([{"name": "http", "protocol": "TCP", "port": 80}]);
    world.put(namespace("testns"));
    world.put(namespace("empty"));
    world.put(service(
        "testns",
        "svc1",
        json!({"clusterIP": "10.0.0.1", "clusterIPs": ["10.0.0.1"], "ports": http}),
    ));
    world.put(service("testns", "svc6", json!({"clusterIPs": ["1234:abcd::1"], "ports": http})));
    world.put(service("testns", "dual", json!({"clusterIPs": ["10.0.0.3", "10::3"], "ports": http})));
    world.put(service(
        "testns",
        "unnamed",
        json!({"clusterIPs": ["10.0.0.4"], "ports": [{"port": 8080, "protocol": "UDP"}]}),
    ));
    world.put(service("testns", "hdls1", json!({"clusterIP": "None", "ports": http})));
    world.put(slice("testns", "hdls1", "hdls1-a", http.clone(), json!([
        {"addresses": ["172.0.0.2"]}, {"addresses": ["172.0.0.3"], "conditions": {"ready": true}},
        {"addresses": ["172.0.0.4"], "hostname": "dup-name"}, {"addresses": ["172.0.0.5"], "hostname": "dup-name"},
        {"addresses": ["172.0.0.9"], "conditions": {"ready": false}},
    ])));
    world.put(slice(
        "testns",
        "hdls1",
        "hdls1-b",
        http.clone(),
        json!([
            {"addresses": ["5678:abcd::1"]}, {"addresses": ["5678:abcd::2"]},
        ]),
    ));
    world.put(service("testns", "portless", json!({"clusterIP": "None"})));
    world.put(slice("testns", "portless", "portless-a", json!([]), json!([{"addresses": ["172.0.0.20"]}])));
    world.put(service("testns", "down", json!({"clusterIP": "None", "ports": http})));
    world.put(slice(
        "testns",
        "down",
        "down-a",
        http.clone(),
        json!([
            {"addresses": ["172.0.0.30"], "conditions": {"ready": false}},
        ]),
    ));
    world.put(service(
        "testns",
        "early",
        json!({"clusterIP": "None", "publishNotReadyAddresses": true, "ports": http}),
    ));
    world.put(slice(
        "testns",
        "early",
        "early-a",
        http.clone(),
        json!([
            {"addresses": ["172.0.0.40"], "hostname": "early-0", "conditions": {"ready": false}},
        ]),
    ));
    world.put(service(
        "testns",
        "external",
        json!({"type": "ExternalName", "externalName": "ext.interwebs.test"}),
    ));
    world.put(service(
        "testns",
        "alias",
        json!({"type": "ExternalName", "externalName": "svc1.testns.svc.cluster.local"}),
    ));
    world.put(service(
        "testns",
        "dangling",
        json!({"type": "ExternalName", "externalName": "gone.testns.svc.cluster.local"}),
    ));
    world.put(service(
        "testns",
        "circle",
        json!({"type": "ExternalName", "externalName": "circle.testns.svc.cluster.local"}),
    ));
    world.put(service("testns", "address", json!({"type": "ExternalName", "externalName": "10.1.2.3"})));
    world.start();
    world
}
