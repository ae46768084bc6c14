//! The machine under random histories of objects, against a model that reads all objects anew for each question, as
//! CoreDNS' `plugin/kubernetes/kubernetes.go` does.

use alloc::collections::{BTreeMap, BTreeSet};
use alloc::format;
use alloc::string::{String, ToString};
use alloc::vec::Vec;
use core::net::IpAddr;

use proptest::prelude::*;
use serde_json::{Value as Json, json};

use super::fixture::{World, ask, config, namespace, service, show_record, slice};
use crate::dns::Outcome;
use crate::dns::wire::rtype::{A, AAAA, CNAME, PTR, SRV, TXT};
use crate::dns::wire::{Message, Section};

/// Objects by resource, namespace and name.
type Objects = BTreeMap<(&'static str, String, String), Json>;

#[derive(Clone, Debug)]
enum Step {
    Put(&'static str, String, String, Json),
    Delete(&'static str, String, String),
    /// Time passes.
    Tick,
}

fn names() -> impl Strategy<Value = String> {
    prop_oneof![Just("web".to_string()), Just("db".to_string()), Just("x1".to_string())]
}

fn namespaces() -> impl Strategy<Value = String> {
    prop_oneof![Just("default".to_string()), Just("kube-system".to_string())]
}

fn ports() -> impl Strategy<Value = Json> {
    let port = prop_oneof![
        Just(json!({"name": "http", "port": 80, "protocol": "TCP"})),
        Just(json!({"name": "http", "port": 81, "protocol": "UDP"})),
        Just(json!({"name": "Dns", "port": 53})),
        Just(json!({"port": 7})),
    ];
    proptest::collection::vec(port, 0..4).prop_map(Json::from)
}

fn specs() -> impl Strategy<Value = Json> {
    let ip = prop_oneof![Just("10.0.0.1"), Just("10.0.0.2"), Just("fd00::1")];
    prop_oneof![
        3 => (proptest::collection::btree_set(ip, 0..3), ports())
            .prop_map(|(ips, ports)| json!({"clusterIPs": ips, "ports": ports})),
        3 => (any::<bool>(), ports())
            .prop_map(|(all, ports)| json!({"clusterIP": "None", "publishNotReadyAddresses": all, "ports": ports})),
        1 => prop_oneof![
            Just("web.default.svc.cluster.local"), Just("x1.kube-system.svc.cluster.local"),
            Just("example.test"), Just("10.1.1.1"), Just("a..b"),
        ].prop_map(|name| json!({"type": "ExternalName", "externalName": name})),
    ]
}

fn endpoints() -> impl Strategy<Value = Json> {
    let ip = prop_oneof![Just("172.16.0.1"), Just("172.16.0.2"), Just("10.0.0.1"), Just("fd00::2")];
    let host = prop_oneof![2 => Just(Json::Null), 1 => Just(json!("a-0")), 1 => Just(json!("A-1"))];
    let ready = prop_oneof![Just(Json::Null), Just(json!(true)), Just(json!(false))];
    let endpoint = (proptest::collection::btree_set(ip, 1..3), host, ready).prop_map(
        |(ips, host, ready)| json!({"addresses": ips, "hostname": host, "conditions": {"ready": ready}}),
    );
    proptest::collection::vec(endpoint, 0..4).prop_map(Json::from)
}

fn steps() -> impl Strategy<Value = Step> {
    prop_oneof![
        4 => (namespaces(), names(), specs())
            .prop_map(|(ns, name, spec)| Step::Put("services", ns.clone(), name.clone(), service(&ns, &name, spec))),
        4 => (namespaces(), names(), 0..3_u8, ports(), endpoints()).prop_map(|(ns, svc, n, ports, endpoints)| {
            // A slice may come to belong to another service.
            let name = format!("slice-{n}");
            Step::Put("endpointslices", ns.clone(), name.clone(), slice(&ns, &svc, &name, ports, endpoints))
        }),
        1 => namespaces().prop_map(|ns| Step::Put("namespaces", String::new(), ns.clone(), namespace(&ns))),
        1 => (namespaces(), names()).prop_map(|(ns, name)| Step::Delete("services", ns, name)),
        1 => (namespaces(), 0..3_u8).prop_map(|(ns, n)| Step::Delete("endpointslices", ns, format!("slice-{n}"))),
        1 => namespaces().prop_map(|ns| Step::Delete("namespaces", String::new(), ns)),
        1 => Just(Step::Tick),
    ]
}

fn text<'a>(object: &'a Json, path: &str) -> &'a str {
    object.pointer(path).and_then(Json::as_str).unwrap_or("")
}

fn list<'a>(object: &'a Json, path: &str) -> impl Iterator<Item = &'a Json> {
    object.pointer(path).and_then(Json::as_array).into_iter().flatten()
}

/// An address of a service: host name below it, address, port with its name and protocol.
struct Row {
    host: Option<String>,
    ip: IpAddr,
    port: Option<(String, String, u64)>,
}

fn with_ports(object: &Json, path: &str, host: Option<String>, ip: IpAddr, rows: &mut Vec<Row>) {
    let mut any = false;
    for port in list(object, path) {
        any = true;
        let protocol = if text(port, "/protocol").is_empty() { "tcp" } else { text(port, "/protocol") };
        let port =
            (text(port, "/name").to_lowercase(), protocol.to_lowercase(), port["port"].as_u64().unwrap());
        rows.push(Row { host: host.clone(), ip, port: Some(port) });
    }
    if !any {
        rows.push(Row { host, ip, port: None });
    }
}

/// The rows of a service's endpoints.
fn endpoint_rows(objects: &Objects, ns: &str, name: &str) -> Vec<Row> {
    let spec = &objects[&("services", ns.to_string(), name.to_string())]["spec"];
    let all = spec["publishNotReadyAddresses"] == json!(true);
    let mut rows = Vec::new();
    for ((resource, slice_ns, _), slice) in objects {
        let label = slice.pointer("/metadata/labels/kubernetes.io~1service-name").and_then(Json::as_str);
        if *resource != "endpointslices" || slice_ns != ns || label != Some(name) {
            continue;
        }
        for endpoint in list(slice, "/endpoints") {
            if endpoint["conditions"]["ready"] == json!(false) && !all {
                continue;
            }
            for ip in list(endpoint, "/addresses").map(|ip| ip.as_str().unwrap()) {
                let host = text(endpoint, "/hostname").to_lowercase();
                let host = if host.is_empty() { ip.replace(['.', ':'], "-") } else { host };
                with_ports(slice, "/ports", Some(host), ip.parse().unwrap(), &mut rows);
            }
        }
    }
    rows
}

/// What a question has for an answer: code, answers, additional records; each as a set of lines.
#[derive(Debug, PartialEq)]
struct Expected {
    code: u16,
    answers: BTreeSet<String>,
    additional: BTreeSet<String>,
}

fn nothing(code: u16) -> Expected {
    Expected { code, answers: BTreeSet::new(), additional: BTreeSet::new() }
}

/// `None` if others must be asked.
fn expected(objects: &Objects, name: &str, rtype: u16, depth: usize) -> Option<Expected> {
    let exists = |ns: &str| {
        objects.contains_key(&("namespaces", String::new(), ns.into()))
            || objects.iter().any(|((resource, service_ns, _), object)| {
                *resource == "services" && service_ns == ns && has_name(object)
            })
    };
    let inner = name.strip_suffix(".svc.cluster.local.")?;
    let labels: Vec<&str> = inner.split('.').collect();
    let (ns, rest) = labels.split_last().unwrap();
    let Some((svc, below)) = rest.split_last() else { return Some(nothing(if exists(ns) { 0 } else { 3 })) };
    let Some(object) = objects.get(&("services", ns.to_string(), svc.to_string())) else {
        return Some(nothing(3));
    };
    if !has_name(object) {
        return Some(nothing(3));
    }
    let spec = &object["spec"];
    if text(spec, "/type") == "ExternalName" {
        if !below.is_empty() {
            return Some(nothing(3));
        }
        let target = format!("{}.", text(spec, "/externalName"));
        let mut answers = BTreeSet::from([format!("{name} 5 CNAME {target}")]);
        if rtype == CNAME || depth > 8 {
            return Some(Expected { code: 0, answers, additional: BTreeSet::new() });
        }
        let rest = expected(objects, &target, rtype, depth + 1)?;
        answers.extend(rest.answers);
        return Some(Expected { code: rest.code, answers, additional: rest.additional });
    }
    let endpoints = endpoint_rows(objects, ns, svc);
    let mut own = Vec::new();
    let headless = text(spec, "/clusterIP") == "None";
    for ip in list(spec, "/clusterIPs") {
        with_ports(spec, "/ports", None, ip.as_str().unwrap().parse().unwrap(), &mut own);
    }
    let main = if headless { &endpoints } else { &own };
    let rows: Vec<&Row> = match below {
        [] if headless && main.is_empty() => return Some(nothing(3)),
        [] => main.iter().collect(),
        [host] => {
            let rows: Vec<&Row> = endpoints.iter().filter(|r| r.host.as_deref() == Some(*host)).collect();
            let has_protocol = |r: &&Row| {
                r.port
                    .as_ref()
                    .is_some_and(|(name, protocol, _)| !name.is_empty() && format!("_{protocol}") == *host)
            };
            if rows.is_empty() {
                return Some(nothing(if main.iter().any(|r| has_protocol(&r)) { 0 } else { 3 }));
            }
            rows
        }
        [port, protocol] => {
            let wanted = |r: &&Row| {
                let is = |(name, p, _): &(String, String, u64)| {
                    !name.is_empty() && format!("_{name}") == *port && format!("_{p}") == *protocol
                };
                r.port.as_ref().is_some_and(is)
            };
            let rows: Vec<&Row> = main.iter().filter(wanted).collect();
            if rows.is_empty() {
                return Some(nothing(3));
            }
            rows
        }
        _ => return Some(nothing(3)),
    };
    let weight = (100 / rows.len().max(1)).max(1);
    let service = format!("{svc}.{ns}.svc.cluster.local.");
    let target = |r: &Row| r.host.as_ref().map_or(service.clone(), |host| format!("{host}.{service}"));
    let address = |ip: IpAddr| if ip.is_ipv4() { format!("A {ip}") } else { format!("AAAA {ip}") };
    let mut found = nothing(0);
    for row in rows {
        match (rtype, row.ip, &row.port) {
            (A, IpAddr::V4(ip), _) => drop(found.answers.insert(format!("{name} 5 A {ip}"))),
            (AAAA, IpAddr::V6(ip), _) => drop(found.answers.insert(format!("{name} 5 AAAA {ip}"))),
            (SRV, ip, Some((_, _, port))) => {
                found.answers.insert(format!("{name} 5 SRV 0 {weight} {port} {}", target(row)));
                found.additional.insert(format!("{} 5 {}", target(row), address(ip)));
            }
            _ => {}
        }
    }
    Some(found)
}

/// Whether a service has a name at all.
fn has_name(service: &Json) -> bool {
    let name = text(service, "/spec/externalName");
    text(service, "/spec/type") != "ExternalName" || !matches!(name, "10.1.1.1" | "a..b")
}

fn expected_pointers(objects: &Objects, ip: &str) -> Option<BTreeSet<String>> {
    let ip: IpAddr = ip.parse().unwrap();
    let services =
        objects.iter().filter(|((resource, ..), object)| *resource == "services" && has_name(object));
    let mut endpoints = BTreeSet::new();
    for ((_, ns, name), object) in services {
        let service = format!("{name}.{ns}.svc.cluster.local.");
        if list(&object["spec"], "/clusterIPs").any(|own| own.as_str().unwrap().parse() == Ok(ip)) {
            // The first of them, if there are several.
            return Some(BTreeSet::from([service]));
        }
        if text(object, "/spec/type") != "ExternalName" {
            let rows = endpoint_rows(objects, ns, name);
            endpoints.extend(
                rows.iter().filter(|r| r.ip == ip).map(|r| format!("{}.{service}", r.host.as_ref().unwrap())),
            );
        }
    }
    (!endpoints.is_empty()).then_some(endpoints)
}

fn lines(message: &Message, section: Section) -> BTreeSet<String> {
    let lines: Vec<String> = message.section(section).map(show_record).collect();
    let set: BTreeSet<String> = lines.iter().cloned().collect();
    assert_eq!(set.len(), lines.len(), "a record stands twice: {lines:?}");
    set
}

fn reverse_name(ip: IpAddr) -> String {
    match ip {
        IpAddr::V4(ip) => {
            let [a, b, c, d] = ip.octets();
            format!("{d}.{c}.{b}.{a}.in-addr.arpa.")
        }
        IpAddr::V6(ip) => {
            let digits = format!("{:032x}", ip.to_bits());
            digits.chars().rev().map(|c| format!("{c}.")).collect::<String>() + "ip6.arpa."
        }
    }
}

fn check(world: &World, objects: &Objects) -> Result<(), TestCaseError> {
    let snapshot = world.machine.snapshot();
    let mut inner: Vec<String> = Vec::new();
    for ns in ["default", "kube-system", "gone"] {
        inner.push(ns.into());
        for svc in ["web", "db", "x1"] {
            for below in [
                "",
                "a-0.",
                "a-1.",
                "172-16-0-1.",
                "fd00--2.",
                "no.",
                "_tcp.",
                "_http._tcp.",
                "_http._udp.",
                "_dns._tcp.",
                "_._tcp.",
            ] {
                inner.push(format!("{below}{svc}.{ns}"));
            }
        }
    }
    for name in inner {
        // An empty label is none.
        let name = format!("{name}.svc.cluster.local.");
        for rtype in [A, AAAA, SRV, CNAME, TXT] {
            let mut out = Vec::new();
            let query = super::fixture::query(&name, rtype, 3, None);
            let outcome = crate::dns::answer(snapshot, &query, crate::dns::Transport::Tcp, &mut out);
            let Some(expected) = expected(objects, &name, rtype, 0) else {
                prop_assert!(matches!(outcome, Outcome::Forward(_)), "{} {}", name, rtype);
                continue;
            };
            let message = Message::decode(&out).unwrap();
            let got = Expected {
                code: message.header.rcode,
                answers: lines(&message, Section::Answer),
                additional: lines(&message, Section::Additional),
            };
            prop_assert_eq!(&got, &expected, "{} {}", name, rtype);
            // Who gets no record of the type is told how long that holds.
            let soa = message.section(Section::Authority).count() == 1;
            let circle = got.answers.iter().any(|l| l.contains("CNAME")) && !soa;
            let answered = got.answers.iter().any(|l| !l.contains("CNAME")) || rtype == CNAME;
            prop_assert!(soa != answered || circle || got.answers.is_empty(), "{} {}", name, rtype);
        }
    }
    for ip in ["10.0.0.1", "10.0.0.2", "fd00::1", "172.16.0.1", "172.16.0.2", "fd00::2"] {
        let name = reverse_name(ip.parse().unwrap());
        match expected_pointers(objects, ip) {
            None => {
                let mut out = Vec::new();
                let query = super::fixture::query(&name, PTR, 3, None);
                let outcome = crate::dns::answer(snapshot, &query, crate::dns::Transport::Tcp, &mut out);
                prop_assert!(matches!(outcome, Outcome::Forward(_)), "{}", name);
            }
            Some(names) => {
                let message = ask(snapshot, &name, PTR, 3);
                let expected: BTreeSet<String> = names.iter().map(|n| format!("{name} 5 PTR {n}")).collect();
                prop_assert_eq!(lines(&message, Section::Answer), expected);
            }
        }
    }
    Ok(())
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(48))]

    #[test]
    fn the_machine_agrees_with_a_model_that_reads_everything(
        before in proptest::collection::vec(steps(), 0..12),
        after in proptest::collection::vec(steps(), 1..25),
    ) {
        let mut world = World::new(config());
        let mut objects = Objects::new();
        let listed = before.len();
        for (n, step) in before.into_iter().chain(after).enumerate() {
            if n == listed {
                world.start();
            }
            match step {
                Step::Put(resource, ns, name, object) => {
                    world.put(object.clone());
                    objects.insert((resource, ns, name), object);
                }
                Step::Delete(resource, ns, name) => {
                    world.delete(resource, &ns, &name);
                    objects.remove(&(resource, ns, name));
                }
                Step::Tick => world.now = world.now + icp_core::base::Duration::from_secs(7),
            }
            // What was published is what the machine holds.
            if n >= listed {
                let (held, published) = (world.machine.snapshot(), world.published.last().unwrap());
                prop_assert_eq!((held.serial(), held.services()), (published.serial(), published.services()));
            }
        }
        check(&world, &objects)?;
    }
}
