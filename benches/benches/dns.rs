//! Cluster DNS: from packet to packet, without sockets, in a cluster of 10,000 services and 150,000 endpoints; and from a
//! changed slice to the snapshot that shows it.
//!
//! Figures to hold beside: CoreDNS answers 33,669 queries/s of names inside the cluster on two virtual CPUs
//! (`coredns/deployment`, `kubernetes/Scaling_CoreDNS.md`), sockets included.
#![allow(missing_docs, clippy::unwrap_used, clippy::indexing_slicing, reason = "a bench")]

use std::hint::black_box;
use std::sync::Arc;
use std::time::Duration;

use criterion::{Criterion, Throughput, criterion_group, criterion_main};
use icp_core::api::Object;
use icp_core::base::{Machine, Time};
use icp_core::client::{ClientEffect, ClientEvent, Reply, RequestId, WatchEvent, WatchKind};
use icp_net::dns::wire::{CLASS_IN, Header, Message, Question, rtype};
use icp_net::dns::{DnsConfig, DnsEffect, DnsMachine, Outcome, Snapshot, Transport, answer};
use serde_json::{Value as Json, json};

const SERVICES: usize = 10_000;
const ENDPOINTS: usize = 15;

fn object(json: Json) -> Arc<Object> {
    Arc::new(serde_json::from_value(json).unwrap())
}

fn slice(n: usize, version: usize) -> Arc<Object> {
    let endpoints: Vec<Json> = (0..ENDPOINTS)
        .map(|k| {
            let ip = (n * ENDPOINTS + k) as u32 + (version as u32 % 2);
            json!({"addresses": [std::net::Ipv4Addr::from(0x0a80_0000 + ip).to_string()], "conditions": {"ready": true}})
        })
        .collect();
    object(json!({
        "apiVersion": "discovery.k8s.io/v1", "kind": "EndpointSlice", "addressType": "IPv4",
        "metadata": {"namespace": format!("ns-{}", n % 100), "name": format!("svc-{n}-x"), "uid": format!("s{n}"),
            "resourceVersion": version.to_string(), "labels": {"kubernetes.io/service-name": format!("svc-{n}")}},
        "ports": [{"name": "http", "port": 8080, "protocol": "TCP"}], "endpoints": endpoints,
    }))
}

/// The machine of a large cluster, and the watch of its slices.
fn cluster() -> (DnsMachine, RequestId) {
    let mut machine = DnsMachine::new(DnsConfig::new("cluster.local".parse().unwrap()));
    let mut out = Vec::new();
    machine.wake(Time::ZERO, &mut out);
    let mut slices = None;
    while let Some(effect) = out.pop() {
        match effect {
            DnsEffect::Client(ClientEffect::Request { id, request }) => {
                let items = match &*request.gvr.resource {
                    "namespaces" => (0..100)
                        .map(|n| object(json!({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": format!("ns-{n}")}})))
                        .collect(),
                    "services" => (0..SERVICES)
                        .map(|n| {
                            // One in ten is headless.
                            let ip = std::net::Ipv4Addr::from(0x0a60_0000 + n as u32).to_string();
                            let ip = if n % 10 == 0 { "None".into() } else { ip };
                            object(json!({
                                "apiVersion": "v1", "kind": "Service",
                                "metadata": {"namespace": format!("ns-{}", n % 100), "name": format!("svc-{n}")},
                                "spec": {"clusterIP": ip, "ports": [{"name": "http", "port": 80, "protocol": "TCP"}]},
                            }))
                        })
                        .collect(),
                    _ => (0..SERVICES).map(|n| slice(n, 1)).collect(),
                };
                let reply = Reply::List { items, resource_version: "1".into(), continue_token: None };
                machine.on(Time::ZERO, ClientEvent::Reply { id, result: Ok(reply) }.into(), &mut out);
            }
            DnsEffect::Client(ClientEffect::Watch { id, request })
                if &*request.gvr.resource == "endpointslices" =>
            {
                slices = Some(id);
            }
            _ => {}
        }
    }
    (machine, slices.unwrap())
}

fn query(name: &str, rtype: u16, id: u16) -> Vec<u8> {
    let message = Message {
        header: Header { id, flags: Header::RECURSION_DESIRED, rcode: 0 },
        question: Question { name: name.parse().unwrap(), rtype, class: CLASS_IN },
        records: Vec::new(),
        edns: None,
        extended_errors: Vec::new(),
    };
    let mut out = Vec::new();
    message.encode(512, None, &mut out);
    out
}

fn answers(c: &mut Criterion) {
    let (machine, _) = cluster();
    let snapshot: &Snapshot = machine.snapshot();
    let mut group = c.benchmark_group("dns/answer");
    group.throughput(Throughput::Elements(1)).sample_size(30).measurement_time(Duration::from_secs(2));
    let mut bench = |title: &str, rtype: u16, rcode: u16, name: &dyn Fn(usize) -> String| {
        let queries: Vec<Vec<u8>> =
            (0..SERVICES).map(|n| query(&name(n * 7919 % SERVICES), rtype, n as u16)).collect();
        let (mut n, mut out) = (0, Vec::new());
        group.bench_function(title, |b| {
            b.iter(|| {
                n = (n + 1) % queries.len();
                match answer(snapshot, black_box(&queries[n]), Transport::Udp, &mut out) {
                    Outcome::Reply(note) => assert_eq!(note.rcode, rcode),
                    other => panic!("{other:?}"),
                }
            });
        });
    };
    // No multiple of ten.
    let cluster = |n: usize| n / 10 * 10 + 1 + n % 9;
    bench("A of a ClusterIP service", rtype::A, 0, &|n| {
        let n = cluster(n);
        format!("svc-{n}.ns-{}.svc.cluster.local", n % 100)
    });
    bench("AAAA that is not there", rtype::AAAA, 0, &|n| {
        let n = cluster(n);
        format!("svc-{n}.ns-{}.svc.cluster.local", n % 100)
    });
    bench("A of a headless service with 15 endpoints", rtype::A, 0, &|n| {
        let n = n / 10 * 10;
        format!("svc-{n}.ns-{}.svc.cluster.local", n % 100)
    });
    bench("SRV of a port of a ClusterIP service", rtype::SRV, 0, &|n| {
        let n = cluster(n);
        format!("_http._tcp.svc-{n}.ns-{}.svc.cluster.local", n % 100)
    });
    bench("name of the search path that is none", rtype::A, 3, &|n| {
        format!("www.example{n}.com.ns-1.svc.cluster.local")
    });
    bench("PTR of an endpoint", rtype::PTR, 0, &|n| {
        let [a, b, c, d] = (0x0a80_0001_u32 + n as u32 * 15).to_be_bytes();
        format!("{d}.{c}.{b}.{a}.in-addr.arpa")
    });
    group.finish();
}

fn changes(c: &mut Criterion) {
    let (mut machine, watch) = cluster();
    let mut group = c.benchmark_group("dns/change");
    group.throughput(Throughput::Elements(1)).sample_size(20).measurement_time(Duration::from_secs(2));
    let versions: Vec<[Arc<Object>; 2]> = (0..1000).map(|n| [slice(n * 10, 2), slice(n * 10, 3)]).collect();
    let (mut n, mut out, mut published) = (0, Vec::new(), None);
    group.bench_function("a slice of 15 endpoints to the next snapshot of 150,000", |b| {
        b.iter(|| {
            n += 1;
            let object = Arc::clone(&versions[n % 1000][n / 1000 % 2]);
            let event = WatchEvent { kind: WatchKind::Modified, object };
            machine.on(Time::from_secs(1), ClientEvent::Watch { id: watch, event }.into(), &mut out);
            // A reader holds the last one.
            published = out.pop().or(published.take());
        });
    });
    group.finish();
}

criterion_group!(benches, answers, changes);
criterion_main!(benches);
