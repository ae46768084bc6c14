//! The sockets, asked by the real `dig`.
#![expect(clippy::disallowed_methods, reason = "a server runs beside the test")]

use std::boxed::Box;
use std::net::{Ipv4Addr, SocketAddr, UdpSocket as StdUdpSocket};
use std::process::Command;
use std::string::String;
use std::sync::Arc;
use std::thread::JoinHandle;
use std::vec::Vec;
use std::{eprintln, format};

use icp_core::base::{Duration, Rng, SeededEntropy};
use serde_json::json;
use tokio::net::{TcpListener, UdpSocket};
use tokio::sync::oneshot;

use super::{DnsServer, SnapshotCell, serve};
use crate::dns::tests::fixture::{World, cluster, config, namespace, service, slice};
use crate::dns::{DnsConfig, ForwardConfig, Hosts, Metrics, Policy};

/// A server in a thread, which ends with the value.
struct Running {
    address: SocketAddr,
    zone: Arc<SnapshotCell>,
    metrics: Arc<Metrics>,
    stop: Option<oneshot::Sender<()>>,
    thread: Option<JoinHandle<()>>,
}

impl Drop for Running {
    fn drop(&mut self) {
        drop(self.stop.take());
        if let Some(thread) = self.thread.take() {
            thread.join().unwrap();
        }
    }
}

fn run(world: &World, forward: ForwardConfig) -> Running {
    let zone = SnapshotCell::new((*world.snapshot()).clone());
    let server = DnsServer::new(Arc::clone(&zone), forward);
    let metrics = Arc::clone(&server.metrics);
    let (stop, stopped) = oneshot::channel::<()>();
    let (tell, told) = std::sync::mpsc::channel();
    let thread = std::thread::spawn(move || {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(async {
            let udp = UdpSocket::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
            let address = udp.local_addr().unwrap();
            let tcp = TcpListener::bind(address).await.unwrap();
            tell.send(address).unwrap();
            let entropy = Box::new(SeededEntropy::new(Rng::new(address.port().into())));
            tokio::select! {
                ended = serve(server, entropy, Vec::from([udp]), Vec::from([tcp])) => ended.unwrap(),
                _ = stopped => {}
            }
        });
    });
    Running { address: told.recv().unwrap(), zone, metrics, stop: Some(stop), thread: Some(thread) }
}

/// Whether there is a `dig`; without it, the test checks nothing unless peers are required.
fn has_dig() -> bool {
    let found = Command::new("dig").arg("-v").output().is_ok();
    if !found {
        assert!(std::env::var_os("ICP_PEERS").is_none_or(|v| v != "required"), "needs dig");
        eprintln!("skipped: needs dig");
    }
    found
}

impl Running {
    fn dig(&self, args: &str) -> String {
        let server = format!("@{}", self.address.ip());
        let port = format!("-p{}", self.address.port());
        let out = Command::new("dig")
            .args([&server, &port, "+time=5", "+tries=2", "+norecurse"])
            .args(args.split_ascii_whitespace())
            .output()
            .unwrap();
        let text = String::from_utf8(out.stdout).unwrap();
        assert!(out.status.success(), "dig {args}: {text}");
        assert!(!text.contains("Warning") && !text.contains("malformed"), "dig {args}: {text}");
        text
    }

    fn short(&self, args: &str) -> Vec<String> {
        let mut lines: Vec<String> = self.dig(&format!("+short {args}")).lines().map(String::from).collect();
        lines.sort();
        lines
    }
}

fn status(text: &str) -> &str {
    text.split("status: ").nth(1).and_then(|t| t.split(',').next()).unwrap_or("none")
}

/// A cluster with a service of 500 endpoints, so that its answers fit no datagram.
fn wide() -> World {
    let mut world = cluster();
    let port = json!([{"name": "http", "protocol": "TCP", "port": 80}]);
    world.put(service("testns", "wide", json!({"clusterIP": "None", "ports": port})));
    for n in 0..5 {
        let endpoints: Vec<_> = (0..100)
            .map(|k| json!({"addresses": [format!("10.9.{n}.{k}")], "hostname": format!("w-{n}-{k}")}))
            .collect();
        world.put(slice("testns", "wide", &format!("wide-{n}"), port.clone(), json!(endpoints)));
    }
    world
}

#[test]
fn dig_reads_every_kind_of_answer() {
    if !has_dig() {
        return;
    }
    let server = run(&wide(), ForwardConfig::new(Vec::new()));
    for transport in ["+notcp", "+tcp"] {
        let ask = |args: &str| server.short(&format!("{transport} {args}"));
        assert_eq!(ask("svc1.testns.svc.cluster.local A"), ["10.0.0.1"]);
        assert_eq!(ask("SvC1.testns.svc.CLUSTER.local A"), ["10.0.0.1"]);
        assert_eq!(ask("svc6.testns.svc.cluster.local AAAA"), ["1234:abcd::1"]);
        let srv = "0 100 80 svc1.testns.svc.cluster.local.";
        assert_eq!(ask("_http._tcp.svc1.testns.svc.cluster.local SRV"), [srv]);
        assert_eq!(ask("-x 10.0.0.1"), ["svc1.testns.svc.cluster.local."]);
        assert_eq!(ask("-x 5678:abcd::2"), ["5678-abcd--2.hdls1.testns.svc.cluster.local."]);
        assert_eq!(ask("dns-version.cluster.local TXT"), ["\"1.1.0\""]);
        assert_eq!(ask("cluster.local NS"), ["ns.dns.cluster.local."]);
        assert_eq!(ask("1-2-3-4.testns.pod.cluster.local A"), ["1.2.3.4"]);
        assert_eq!(ask("alias.testns.svc.cluster.local A"), ["10.0.0.1", "svc1.testns.svc.cluster.local."]);
        assert_eq!(ask("external.testns.svc.cluster.local CNAME"), ["ext.interwebs.test."]);
        assert_eq!(ask("svc1.testns.svc.cluster.local ANY"), ["\"RFC8482\" \"\""]);
        let text = server.dig(&format!("{transport} nobody.testns.svc.cluster.local A"));
        assert_eq!(status(&text), "NXDOMAIN");
        assert!(text.contains("qr aa") && text.contains("SOA\tns.dns.cluster.local. hostmaster"), "{text}");
        let text = server.dig(&format!("{transport} svc1.testns.svc.cluster.local MX"));
        assert_eq!(status(&text), "NOERROR");
        assert!(text.contains("ANSWER: 0, AUTHORITY: 1"), "{text}");
        assert_eq!(status(&server.dig(&format!("{transport} cluster.local AXFR +edns"))), "none");
        assert_eq!(status(&server.dig(&format!("{transport} version.bind CH TXT"))), "REFUSED");
        let text = server.dig(&format!("{transport} +edns=1 +noednsnegotiation cluster.local SOA"));
        assert_eq!(status(&text), "BADVERS");
        // Nobody to ask.
        let text = server.dig(&format!("{transport} example.test A"));
        assert_eq!(status(&text), "SERVFAIL");
        assert!(text.contains("EDE: 20"), "{text}");
    }
}

#[test]
fn a_large_answer_is_truncated_and_had_over_tcp() {
    if !has_dig() {
        return;
    }
    let server = run(&wide(), ForwardConfig::new(Vec::new()));
    let name = "wide.testns.svc.cluster.local";
    // A client without EDNS, one with a small buffer and one with a large.
    for (options, most) in [("+noedns", 512), ("+bufsize=800", 800), ("+bufsize=4096", 1232)] {
        let text = server.dig(&format!("+ignore {options} {name} A"));
        let size =
            text.split("MSG SIZE  rcvd: ").nth(1).and_then(|t| t.trim().parse::<usize>().ok()).unwrap();
        assert!(text.contains("qr aa tc"), "{text}");
        assert!(size <= most && size > most - 60, "{options}: {size}");
    }
    // dig goes on over TCP by itself.
    assert_eq!(server.short(&format!("{name} A")).len(), 500);
    assert_eq!(server.short(&format!("_http._tcp.{name} SRV")).len(), 500);
    // Several queries on one connection.
    let text = server.dig(&format!("+tcp +keepopen {name} A {name} A svc1.testns.svc.cluster.local A"));
    assert_eq!(text.matches("status: NOERROR").count(), 3, "{text}");
    let counted = server.metrics.text();
    assert!(counted.contains("proto=\"tcp\",family=\"1\",type=\"A\"} 4"), "{counted}");
}

#[test]
fn answers_follow_the_zone() {
    if !has_dig() {
        return;
    }
    let mut world = cluster();
    let server = run(&world, ForwardConfig::new(Vec::new()));
    assert_eq!(server.short("new.testns.svc.cluster.local A"), Vec::<String>::new());
    world.put(service("testns", "new", json!({"clusterIPs": ["10.0.0.77"], "ports": [{"port": 80}]})));
    server.zone.store(world.snapshot());
    assert_eq!(server.short("new.testns.svc.cluster.local A"), ["10.0.0.77"]);
}

#[test]
fn other_names_come_from_upstream_servers() {
    if !has_dig() {
        return;
    }
    // The upstream server is one of ours with another zone.
    let mut world = World::new(DnsConfig {
        hosts: Hosts::parse("192.0.2.53 ext.interwebs.test www.example.test", 60),
        ..DnsConfig::new("upstream.test".parse().unwrap())
    });
    world.put(namespace("n"));
    let many = json!([{"name": "p", "port": 1}]);
    world.put(service("n", "wide", json!({"clusterIP": "None", "ports": many})));
    let endpoints: Vec<_> = (0..200).map(|k| json!({"addresses": [format!("10.8.0.{k}")]})).collect();
    world.put(slice("n", "wide", "wide-0", many, json!(endpoints)));
    world.start();
    let upstream = run(&world, ForwardConfig::new(Vec::new()));
    // One that nobody listens at and one that says nothing stand before it.
    let closed = StdUdpSocket::bind((Ipv4Addr::LOCALHOST, 0)).unwrap().local_addr().unwrap();
    let silent = StdUdpSocket::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
    let mut forward = ForwardConfig::new(Vec::from([closed, silent.local_addr().unwrap(), upstream.address]));
    forward.policy = Policy::Sequential;
    forward.attempt = Duration::from_millis(300);
    let server = run(&cluster(), forward);

    assert_eq!(server.short("+recurse www.example.test A"), ["192.0.2.53"]);
    // Again, from memory.
    let text = server.dig("+recurse WWW.example.test A");
    assert!(text.contains("WWW.example.test.\t"), "{text}");
    assert!(
        server
            .metrics
            .text()
            .contains("coredns_cache_hits_total{server=\"dns://\",type=\"success\",zones=\".\"} 1")
    );
    assert_eq!(
        server.short("+recurse external.testns.svc.cluster.local A"),
        ["192.0.2.53", "ext.interwebs.test."]
    );
    // Too large for a datagram between the servers: the server goes on over TCP, and so does dig.
    assert_eq!(server.short("+recurse wide.n.svc.upstream.test A").len(), 200);
    let text = server.dig("+recurse nobody.n.svc.upstream.test A");
    assert_eq!(status(&text), "NXDOMAIN");
    assert!(text.contains("upstream.test.\t\t5\tIN\tSOA"), "{text}");
    assert_eq!(server.short("+recurse -x 192.0.2.53"), ["ext.interwebs.test.", "www.example.test."]);
}

#[test]
fn a_server_that_asks_itself_is_found_out() {
    if !has_dig() {
        return;
    }
    // Two servers that forward to each other: the second is told of the first's address only after both have one.
    let relay = StdUdpSocket::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
    relay.set_read_timeout(Some(Duration::from_millis(100))).unwrap();
    let mut forward = ForwardConfig::new(Vec::from([relay.local_addr().unwrap()]));
    forward.attempt = Duration::from_millis(500);
    let server = run(&cluster(), forward);
    // The relay sends what the server asks back to the server.
    let target = server.address;
    let (stop, stopped) = std::sync::mpsc::channel::<()>();
    let thread = std::thread::spawn(move || {
        let out = StdUdpSocket::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
        let mut packet = [0; 2048];
        while stopped.try_recv() == Err(std::sync::mpsc::TryRecvError::Empty) {
            if let Ok((length, _)) = relay.recv_from(&mut packet) {
                out.send_to(&packet[..length], target).unwrap();
            }
        }
    });
    let mut last = String::new();
    for _ in 0..20 {
        last = server.dig("+recurse www.example.test A");
        if last.contains("EDE: 23") {
            break;
        }
    }
    drop(stop);
    thread.join().unwrap();
    assert_eq!(status(&last), "SERVFAIL");
    assert!(last.contains("EDE: 23"), "{last}");
    assert_eq!(config().ttl_secs, 5);
}
