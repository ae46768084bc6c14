//! What names are answered with. The cases follow CoreDNS' own (`plugin/kubernetes/handler_test.go`).

use alloc::format;
use alloc::string::String;

use expect_test::{Expect, expect};
use serde_json::json;

use super::fixture::{World, ask, cluster, config, namespace, service, show};
use crate::dns::wire::rtype::{A, AAAA, ANY, CNAME, NS, PTR, SOA, SRV, TXT};
use crate::dns::{DnsConfig, PodMode};

fn check(world: &World, queries: &[(&str, u16)], expect: &Expect) {
    let shown: String = queries
        .iter()
        .map(|(name, rtype)| format!("; {name} {rtype}\n{}", world.dig(name, *rtype)))
        .collect();
    expect.assert_eq(&shown);
}

#[test]
fn cluster_services() {
    let queries = [
        ("svc1.testns.svc.cluster.local", A),
        ("svc1.testns.svc.cluster.local", AAAA),
        ("SVC1.TestNS.svc.cluster.LOCAL", A),
        ("svc6.testns.svc.cluster.local", AAAA),
        ("svc1.testns.svc.cluster.local", SRV),
        ("_http._tcp.svc1.testns.svc.cluster.local", SRV),
        ("_http._TCP.svc1.testns.svc.cluster.local", A),
        ("_http._udp.svc1.testns.svc.cluster.local", SRV),
        ("_tcp.svc1.testns.svc.cluster.local", SRV),
        ("dual.testns.svc.cluster.local", SRV),
        ("unnamed.testns.svc.cluster.local", SRV),
        ("svc1.testns.svc.cluster.local", ANY),
    ];
    check(
        &cluster(),
        &queries,
        &expect![[r#"
        ; svc1.testns.svc.cluster.local 1
        NOERROR aa
        an svc1.testns.svc.cluster.local. 5 A 10.0.0.1
        ; svc1.testns.svc.cluster.local 28
        NOERROR aa
        ns cluster.local. 5 SOA ns.dns.cluster.local. hostmaster.cluster.local. 1499347823 7200 1800 86400 5
        ; SVC1.TestNS.svc.cluster.LOCAL 1
        NOERROR aa
        an SVC1.TestNS.svc.cluster.LOCAL. 5 A 10.0.0.1
        ; svc6.testns.svc.cluster.local 28
        NOERROR aa
        an svc6.testns.svc.cluster.local. 5 AAAA 1234:abcd::1
        ; svc1.testns.svc.cluster.local 33
        NOERROR aa
        an svc1.testns.svc.cluster.local. 5 SRV 0 100 80 svc1.testns.svc.cluster.local.
        ex svc1.testns.svc.cluster.local. 5 A 10.0.0.1
        ; _http._tcp.svc1.testns.svc.cluster.local 33
        NOERROR aa
        an _http._tcp.svc1.testns.svc.cluster.local. 5 SRV 0 100 80 svc1.testns.svc.cluster.local.
        ex svc1.testns.svc.cluster.local. 5 A 10.0.0.1
        ; _http._TCP.svc1.testns.svc.cluster.local 1
        NOERROR aa
        an _http._TCP.svc1.testns.svc.cluster.local. 5 A 10.0.0.1
        ; _http._udp.svc1.testns.svc.cluster.local 33
        NXDOMAIN aa
        ns cluster.local. 5 SOA ns.dns.cluster.local. hostmaster.cluster.local. 1499347823 7200 1800 86400 5
        ; _tcp.svc1.testns.svc.cluster.local 33
        NOERROR aa
        ns cluster.local. 5 SOA ns.dns.cluster.local. hostmaster.cluster.local. 1499347823 7200 1800 86400 5
        ; dual.testns.svc.cluster.local 33
        NOERROR aa
        an dual.testns.svc.cluster.local. 5 SRV 0 50 80 dual.testns.svc.cluster.local.
        ex dual.testns.svc.cluster.local. 5 A 10.0.0.3
        ex dual.testns.svc.cluster.local. 5 AAAA 10::3
        ; unnamed.testns.svc.cluster.local 33
        NOERROR aa
        an unnamed.testns.svc.cluster.local. 5 SRV 0 100 8080 unnamed.testns.svc.cluster.local.
        ex unnamed.testns.svc.cluster.local. 5 A 10.0.0.4
        ; svc1.testns.svc.cluster.local 255
        NOERROR aa
        an svc1.testns.svc.cluster.local. 5 TYPE13 [7, 82, 70, 67, 56, 52, 56, 50, 0]
    "#]],
    );
}

#[test]
fn headless_services() {
    let queries = [
        ("hdls1.testns.svc.cluster.local", A),
        ("hdls1.testns.svc.cluster.local", AAAA),
        ("dup-name.hdls1.testns.svc.cluster.local", A),
        ("172-0-0-2.hdls1.testns.svc.cluster.local", A),
        ("5678-abcd--2.hdls1.testns.svc.cluster.local", AAAA),
        ("172-0-0-9.hdls1.testns.svc.cluster.local", A),
        ("bogus.hdls1.testns.svc.cluster.local", A),
        ("_http._tcp.hdls1.testns.svc.cluster.local", SRV),
        ("portless.testns.svc.cluster.local", A),
        ("portless.testns.svc.cluster.local", SRV),
        ("172-0-0-20.portless.testns.svc.cluster.local", A),
        ("down.testns.svc.cluster.local", A),
        ("early.testns.svc.cluster.local", A),
        ("early-0.early.testns.svc.cluster.local", SRV),
    ];
    check(
        &cluster(),
        &queries,
        &expect![[r#"
        ; hdls1.testns.svc.cluster.local 1
        NOERROR aa
        an hdls1.testns.svc.cluster.local. 5 A 172.0.0.2
        an hdls1.testns.svc.cluster.local. 5 A 172.0.0.3
        an hdls1.testns.svc.cluster.local. 5 A 172.0.0.4
        an hdls1.testns.svc.cluster.local. 5 A 172.0.0.5
        ; hdls1.testns.svc.cluster.local 28
        NOERROR aa
        an hdls1.testns.svc.cluster.local. 5 AAAA 5678:abcd::1
        an hdls1.testns.svc.cluster.local. 5 AAAA 5678:abcd::2
        ; dup-name.hdls1.testns.svc.cluster.local 1
        NOERROR aa
        an dup-name.hdls1.testns.svc.cluster.local. 5 A 172.0.0.4
        an dup-name.hdls1.testns.svc.cluster.local. 5 A 172.0.0.5
        ; 172-0-0-2.hdls1.testns.svc.cluster.local 1
        NOERROR aa
        an 172-0-0-2.hdls1.testns.svc.cluster.local. 5 A 172.0.0.2
        ; 5678-abcd--2.hdls1.testns.svc.cluster.local 28
        NOERROR aa
        an 5678-abcd--2.hdls1.testns.svc.cluster.local. 5 AAAA 5678:abcd::2
        ; 172-0-0-9.hdls1.testns.svc.cluster.local 1
        NXDOMAIN aa
        ns cluster.local. 5 SOA ns.dns.cluster.local. hostmaster.cluster.local. 1499347823 7200 1800 86400 5
        ; bogus.hdls1.testns.svc.cluster.local 1
        NXDOMAIN aa
        ns cluster.local. 5 SOA ns.dns.cluster.local. hostmaster.cluster.local. 1499347823 7200 1800 86400 5
        ; _http._tcp.hdls1.testns.svc.cluster.local 33
        NOERROR aa
        an _http._tcp.hdls1.testns.svc.cluster.local. 5 SRV 0 16 80 172-0-0-2.hdls1.testns.svc.cluster.local.
        an _http._tcp.hdls1.testns.svc.cluster.local. 5 SRV 0 16 80 172-0-0-3.hdls1.testns.svc.cluster.local.
        an _http._tcp.hdls1.testns.svc.cluster.local. 5 SRV 0 16 80 dup-name.hdls1.testns.svc.cluster.local.
        an _http._tcp.hdls1.testns.svc.cluster.local. 5 SRV 0 16 80 5678-abcd--1.hdls1.testns.svc.cluster.local.
        an _http._tcp.hdls1.testns.svc.cluster.local. 5 SRV 0 16 80 5678-abcd--2.hdls1.testns.svc.cluster.local.
        ex 172-0-0-2.hdls1.testns.svc.cluster.local. 5 A 172.0.0.2
        ex 172-0-0-3.hdls1.testns.svc.cluster.local. 5 A 172.0.0.3
        ex dup-name.hdls1.testns.svc.cluster.local. 5 A 172.0.0.4
        ex dup-name.hdls1.testns.svc.cluster.local. 5 A 172.0.0.5
        ex 5678-abcd--1.hdls1.testns.svc.cluster.local. 5 AAAA 5678:abcd::1
        ex 5678-abcd--2.hdls1.testns.svc.cluster.local. 5 AAAA 5678:abcd::2
        ; portless.testns.svc.cluster.local 1
        NOERROR aa
        an portless.testns.svc.cluster.local. 5 A 172.0.0.20
        ; portless.testns.svc.cluster.local 33
        NOERROR aa
        ns cluster.local. 5 SOA ns.dns.cluster.local. hostmaster.cluster.local. 1499347823 7200 1800 86400 5
        ; 172-0-0-20.portless.testns.svc.cluster.local 1
        NOERROR aa
        an 172-0-0-20.portless.testns.svc.cluster.local. 5 A 172.0.0.20
        ; down.testns.svc.cluster.local 1
        NXDOMAIN aa
        ns cluster.local. 5 SOA ns.dns.cluster.local. hostmaster.cluster.local. 1499347823 7200 1800 86400 5
        ; early.testns.svc.cluster.local 1
        NOERROR aa
        an early.testns.svc.cluster.local. 5 A 172.0.0.40
        ; early-0.early.testns.svc.cluster.local 33
        NOERROR aa
        an early-0.early.testns.svc.cluster.local. 5 SRV 0 100 80 early-0.early.testns.svc.cluster.local.
        ex early-0.early.testns.svc.cluster.local. 5 A 172.0.0.40
    "#]],
    );
}

#[test]
fn aliases() {
    let queries = [
        ("external.testns.svc.cluster.local", CNAME),
        ("alias.testns.svc.cluster.local", A),
        ("alias.testns.svc.cluster.local", AAAA),
        ("dangling.testns.svc.cluster.local", A),
        ("circle.testns.svc.cluster.local", A),
        ("address.testns.svc.cluster.local", A),
        ("endpoint.external.testns.svc.cluster.local", CNAME),
    ];
    check(
        &cluster(),
        &queries,
        &expect![[r#"
            ; external.testns.svc.cluster.local 5
            NOERROR aa
            an external.testns.svc.cluster.local. 5 CNAME ext.interwebs.test.
            ; alias.testns.svc.cluster.local 1
            NOERROR aa
            an alias.testns.svc.cluster.local. 5 CNAME svc1.testns.svc.cluster.local.
            an svc1.testns.svc.cluster.local. 5 A 10.0.0.1
            ; alias.testns.svc.cluster.local 28
            NOERROR aa
            an alias.testns.svc.cluster.local. 5 CNAME svc1.testns.svc.cluster.local.
            ns cluster.local. 5 SOA ns.dns.cluster.local. hostmaster.cluster.local. 1499347823 7200 1800 86400 5
            ; dangling.testns.svc.cluster.local 1
            NXDOMAIN aa
            an dangling.testns.svc.cluster.local. 5 CNAME gone.testns.svc.cluster.local.
            ns cluster.local. 5 SOA ns.dns.cluster.local. hostmaster.cluster.local. 1499347823 7200 1800 86400 5
            ; circle.testns.svc.cluster.local 1
            NOERROR aa
            an circle.testns.svc.cluster.local. 5 CNAME circle.testns.svc.cluster.local.
            ; address.testns.svc.cluster.local 1
            NXDOMAIN aa
            ns cluster.local. 5 SOA ns.dns.cluster.local. hostmaster.cluster.local. 1499347823 7200 1800 86400 5
            ; endpoint.external.testns.svc.cluster.local 5
            NXDOMAIN aa
            ns cluster.local. 5 SOA ns.dns.cluster.local. hostmaster.cluster.local. 1499347823 7200 1800 86400 5
        "#]],
    );
}

#[test]
fn the_zone_itself_and_names_without_records() {
    let queries = [
        ("cluster.local", SOA),
        ("cluster.local", NS),
        ("cluster.local", A),
        ("ns.dns.cluster.local", A),
        ("dns.cluster.local", A),
        ("dns-version.cluster.local", TXT),
        ("dns-version.cluster.local", A),
        ("svc.cluster.local", A),
        ("pod.cluster.local", A),
        ("empty.svc.cluster.local", NS),
        ("nons.svc.cluster.local", A),
        ("svc0.testns.svc.cluster.local", A),
        ("svc1.nons.svc.cluster.local", A),
        ("foo.cluster.local", NS),
        ("a.b.c.svc1.testns.svc.cluster.local", A),
        ("svc1.testns.svc.cluster.local", SOA),
    ];
    check(
        &cluster(),
        &queries,
        &expect![[r#"
        ; cluster.local 6
        NOERROR aa
        an cluster.local. 5 SOA ns.dns.cluster.local. hostmaster.cluster.local. 1499347823 7200 1800 86400 5
        ; cluster.local 2
        NOERROR aa
        an cluster.local. 5 NS ns.dns.cluster.local.
        ex ns.dns.cluster.local. 5 A 10.96.0.10
        ; cluster.local 1
        NOERROR aa
        ns cluster.local. 5 SOA ns.dns.cluster.local. hostmaster.cluster.local. 1499347823 7200 1800 86400 5
        ; ns.dns.cluster.local 1
        NOERROR aa
        an ns.dns.cluster.local. 5 A 10.96.0.10
        ; dns.cluster.local 1
        NOERROR aa
        ns cluster.local. 5 SOA ns.dns.cluster.local. hostmaster.cluster.local. 1499347823 7200 1800 86400 5
        ; dns-version.cluster.local 16
        NOERROR aa
        an dns-version.cluster.local. 28800 TXT "1.1.0"
        ; dns-version.cluster.local 1
        NOERROR aa
        ns cluster.local. 5 SOA ns.dns.cluster.local. hostmaster.cluster.local. 1499347823 7200 1800 86400 5
        ; svc.cluster.local 1
        NOERROR aa
        ns cluster.local. 5 SOA ns.dns.cluster.local. hostmaster.cluster.local. 1499347823 7200 1800 86400 5
        ; pod.cluster.local 1
        NOERROR aa
        ns cluster.local. 5 SOA ns.dns.cluster.local. hostmaster.cluster.local. 1499347823 7200 1800 86400 5
        ; empty.svc.cluster.local 2
        NOERROR aa
        ns cluster.local. 5 SOA ns.dns.cluster.local. hostmaster.cluster.local. 1499347823 7200 1800 86400 5
        ; nons.svc.cluster.local 1
        NXDOMAIN aa
        ns cluster.local. 5 SOA ns.dns.cluster.local. hostmaster.cluster.local. 1499347823 7200 1800 86400 5
        ; svc0.testns.svc.cluster.local 1
        NXDOMAIN aa
        ns cluster.local. 5 SOA ns.dns.cluster.local. hostmaster.cluster.local. 1499347823 7200 1800 86400 5
        ; svc1.nons.svc.cluster.local 1
        NXDOMAIN aa
        ns cluster.local. 5 SOA ns.dns.cluster.local. hostmaster.cluster.local. 1499347823 7200 1800 86400 5
        ; foo.cluster.local 2
        NXDOMAIN aa
        ns cluster.local. 5 SOA ns.dns.cluster.local. hostmaster.cluster.local. 1499347823 7200 1800 86400 5
        ; a.b.c.svc1.testns.svc.cluster.local 1
        NXDOMAIN aa
        ns cluster.local. 5 SOA ns.dns.cluster.local. hostmaster.cluster.local. 1499347823 7200 1800 86400 5
        ; svc1.testns.svc.cluster.local 6
        NOERROR aa
        ns cluster.local. 5 SOA ns.dns.cluster.local. hostmaster.cluster.local. 1499347823 7200 1800 86400 5
    "#]],
    );
}

#[test]
fn addresses_lead_back_to_names() {
    let v6 = "1.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.d.c.b.a.8.7.6.5.ip6.arpa";
    let queries = [
        ("1.0.0.10.in-addr.arpa", PTR),
        ("2.0.0.172.in-addr.arpa", PTR),
        ("4.0.0.172.in-addr.arpa", PTR),
        (v6, PTR),
        ("1.0.0.10.in-addr.arpa", A),
    ];
    check(
        &cluster(),
        &queries,
        &expect![[r#"
        ; 1.0.0.10.in-addr.arpa 12
        NOERROR aa
        an 1.0.0.10.in-addr.arpa. 5 PTR svc1.testns.svc.cluster.local.
        ; 2.0.0.172.in-addr.arpa 12
        NOERROR aa
        an 2.0.0.172.in-addr.arpa. 5 PTR 172-0-0-2.hdls1.testns.svc.cluster.local.
        ; 4.0.0.172.in-addr.arpa 12
        NOERROR aa
        an 4.0.0.172.in-addr.arpa. 5 PTR dup-name.hdls1.testns.svc.cluster.local.
        ; 1.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.d.c.b.a.8.7.6.5.ip6.arpa 12
        NOERROR aa
        an 1.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.d.c.b.a.8.7.6.5.ip6.arpa. 5 PTR 5678-abcd--1.hdls1.testns.svc.cluster.local.
        ; 1.0.0.10.in-addr.arpa 1
        NOERROR aa
    "#]],
    );
}

#[test]
fn names_of_pods() {
    let queries = [
        ("10-20-0-101.testns.pod.cluster.local", A),
        ("10-20-0-101.testns.pod.cluster.local", AAAA),
        ("1234-abcd--1.testns.pod.cluster.local", AAAA),
        ("10-20-0-101.nons.pod.cluster.local", A),
        ("10-20-0-256.testns.pod.cluster.local", A),
        ("nonsense.testns.pod.cluster.local", A),
        ("testns.pod.cluster.local", A),
        ("x.10-20-0-101.testns.pod.cluster.local", A),
    ];
    check(
        &cluster(),
        &queries,
        &expect![[r#"
        ; 10-20-0-101.testns.pod.cluster.local 1
        NOERROR aa
        an 10-20-0-101.testns.pod.cluster.local. 5 A 10.20.0.101
        ; 10-20-0-101.testns.pod.cluster.local 28
        NOERROR aa
        ns cluster.local. 5 SOA ns.dns.cluster.local. hostmaster.cluster.local. 1499347823 7200 1800 86400 5
        ; 1234-abcd--1.testns.pod.cluster.local 28
        NOERROR aa
        an 1234-abcd--1.testns.pod.cluster.local. 5 AAAA 1234:abcd::1
        ; 10-20-0-101.nons.pod.cluster.local 1
        NXDOMAIN aa
        ns cluster.local. 5 SOA ns.dns.cluster.local. hostmaster.cluster.local. 1499347823 7200 1800 86400 5
        ; 10-20-0-256.testns.pod.cluster.local 1
        NXDOMAIN aa
        ns cluster.local. 5 SOA ns.dns.cluster.local. hostmaster.cluster.local. 1499347823 7200 1800 86400 5
        ; nonsense.testns.pod.cluster.local 1
        NXDOMAIN aa
        ns cluster.local. 5 SOA ns.dns.cluster.local. hostmaster.cluster.local. 1499347823 7200 1800 86400 5
        ; testns.pod.cluster.local 1
        NOERROR aa
        ns cluster.local. 5 SOA ns.dns.cluster.local. hostmaster.cluster.local. 1499347823 7200 1800 86400 5
        ; x.10-20-0-101.testns.pod.cluster.local 1
        NXDOMAIN aa
        ns cluster.local. 5 SOA ns.dns.cluster.local. hostmaster.cluster.local. 1499347823 7200 1800 86400 5
    "#]],
    );

    let mut world = World::new(DnsConfig { pods: PodMode::Verified, ..config() });
    world.put(namespace("a"));
    let pod = |ip: &str, phase: &str| {
        json!({"apiVersion": "v1", "kind": "Pod", "metadata": {"namespace": "a", "name": "p"},
            "status": {"podIP": ip, "podIPs": [{"ip": ip}], "phase": phase}})
    };
    world.put(pod("10.1.1.1", "Running"));
    world.start();
    let ask = |world: &World, name: &str| world.dig(name, A).lines().nth(1).map_or(String::new(), Into::into);
    assert_eq!(ask(&world, "10-1-1-1.a.pod.cluster.local"), "an 10-1-1-1.a.pod.cluster.local. 5 A 10.1.1.1");
    assert!(ask(&world, "10-1-1-2.a.pod.cluster.local").contains("SOA"));
    assert!(ask(&world, "10-1-1-1.b.pod.cluster.local").contains("SOA"));
    world.put(pod("10.1.1.2", "Running"));
    assert!(ask(&world, "10-1-1-1.a.pod.cluster.local").contains("SOA"));
    assert!(ask(&world, "10-1-1-2.a.pod.cluster.local").contains("A 10.1.1.2"));
    world.put(pod("10.1.1.2", "Succeeded"));
    assert!(ask(&world, "10-1-1-2.a.pod.cluster.local").contains("SOA"));

    let mut world = World::new(DnsConfig { pods: PodMode::Disabled, ..config() });
    world.start();
    assert!(world.dig("10-1-1-1.a.pod.cluster.local", A).starts_with("NXDOMAIN"));
}

#[test]
fn addresses_take_turns() {
    let snapshot = cluster().snapshot();
    let first = |id| {
        show(&ask(&snapshot, "hdls1.testns.svc.cluster.local", A, id)).lines().nth(1).unwrap()[40..]
            .to_string()
    };
    use alloc::string::ToString as _;
    let firsts: alloc::collections::BTreeSet<String> = (0..4).map(first).collect();
    assert_eq!(firsts.len(), 4, "{firsts:?}");
}

#[test]
fn nothing_is_denied_before_all_is_known() {
    let mut world = World::new(config());
    world.put(service("testns", "svc1", json!({"clusterIPs": ["10.0.0.1"], "ports": [{"port": 80}]})));
    let reply = ask(&world.snapshot(), "svc1.testns.svc.cluster.local", A, 0);
    assert_eq!((reply.header.rcode, world.published.len()), (2, 0));
    assert_eq!(ask(&world.snapshot(), "1.0.0.10.in-addr.arpa", PTR, 0).header.rcode, 2);
    world.start();
    // The namespace was not seen, but who has a service exists.
    assert!(world.dig("svc1.testns.svc.cluster.local", A).contains("A 10.0.0.1"));
    assert!(world.dig("testns.svc.cluster.local", A).starts_with("NOERROR"));
    assert_eq!(world.published.len(), 1);
    // What changes no name publishes nothing.
    world.put(service(
        "testns",
        "svc1",
        json!({"clusterIPs": ["10.0.0.1"], "ports": [{"port": 80}], "selector": {"a": "b"}}),
    ));
    assert_eq!(world.published.len(), 1);
    world.delete("services", "testns", "svc1");
    assert!(world.dig("svc1.testns.svc.cluster.local", A).starts_with("NXDOMAIN"));
    assert!(world.dig("testns.svc.cluster.local", A).starts_with("NXDOMAIN"));
    assert_eq!(world.published.len(), 2);
    // Who still holds the first snapshot reads from it what it held.
    assert_eq!(ask(&world.published[0], "svc1.testns.svc.cluster.local", A, 0).records.len(), 1);
}
