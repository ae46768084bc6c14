//! Real packets between network namespaces.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::ErrorKind;
use std::net::{IpAddr, Ipv4Addr, SocketAddr, TcpListener, TcpStream, UdpSocket};
use std::os::fd::AsFd;
use std::string::{String, ToString};
use std::time::Duration;
use std::vec;
use std::vec::Vec;

use serde_json::json;

use super::fixture::{World, config, endpoint, service, slice};
use crate::backend::netns;
use crate::backend::rtnl::{Route, Rtnl, Target, VethPeer};
use crate::backend::service::ServiceBackend;
use crate::backend::testing::in_new_netns;

/// A node (the thread's own namespace) with pods on a bridge, and a host outside.
struct Lab {
    pods: BTreeMap<&'static str, (File, Ipv4Addr)>,
    listeners: Vec<(&'static str, TcpListener)>,
}

/// Longer than it takes to send the first packet a second time.
const CONNECT_TIMEOUT: Duration = Duration::from_millis(1500);
const OUTSIDE: &str = "outside";

impl Lab {
    fn new(pods: &[(&'static str, &str)]) -> Self {
        let mut r = Rtnl::open().unwrap();
        ServiceBackend::enable_forwarding().unwrap();
        let lo = r.link("lo").unwrap().index;
        r.set_up(lo).unwrap();
        let bridge = r.create_bridge("br0").unwrap();
        r.add_address(bridge, "10.244.0.1/24".parse().unwrap()).unwrap();
        r.set_up(bridge).unwrap();
        let mut lab = Self { pods: BTreeMap::new(), listeners: Vec::new() };
        for (name, ip) in pods {
            let near = lab.host(&mut r, name, ip, "10.244.0.1");
            r.set_master(near, Some(bridge)).unwrap();
            r.set_hairpin(near, true).unwrap();
        }
        let near = lab.host(&mut r, OUTSIDE, "198.51.100.2", "198.51.100.1");
        r.add_address(near, "198.51.100.1/24".parse().unwrap()).unwrap();
        // What has no route is refused by routing before any rule sees it.
        r.add_route(&Route::via("0.0.0.0/0".parse().unwrap(), "198.51.100.2".parse().unwrap())).unwrap();
        lab
    }

    fn host(&mut self, r: &mut Rtnl, name: &'static str, ip: &str, gateway: &str) -> u32 {
        let namespace = netns::create().unwrap();
        let target = Some(Target::Fd(namespace.as_fd()));
        let peer = VethPeer { name: "eth0", namespace: target, mac: None, mtu_bytes: None };
        let near = r.create_veth(&std::format!("v{name}"), peer).unwrap();
        r.set_up(near).unwrap();
        netns::within(&namespace, || {
            let mut r = Rtnl::open().unwrap();
            for name in ["lo", "eth0"] {
                let index = r.link(name).unwrap().index;
                r.set_up(index).unwrap();
            }
            let eth0 = r.link("eth0").unwrap().index;
            r.add_address(eth0, std::format!("{ip}/24").parse().unwrap()).unwrap();
            r.add_route(&Route::via("0.0.0.0/0".parse().unwrap(), gateway.parse().unwrap())).unwrap();
        })
        .unwrap();
        self.pods.insert(name, (namespace, ip.parse().unwrap()));
        near
    }

    fn ip(&self, pod: &str) -> IpAddr {
        self.pods[pod].1.into()
    }

    fn inside<T>(&self, pod: &str, body: impl FnOnce() -> T) -> T {
        if pod == "node" { body() } else { netns::within(&self.pods[pod].0, body).unwrap() }
    }

    fn listen(&mut self, pod: &'static str) {
        let listener = self.inside(pod, || TcpListener::bind("0.0.0.0:8080").unwrap());
        listener.set_nonblocking(true).unwrap();
        self.listeners.push((pod, listener));
    }

    /// Connects, and says who took the call and as whom the caller was seen; or how it failed.
    fn call(&self, from: &str, to: &str) -> Result<(&'static str, IpAddr), ErrorKind> {
        let to: SocketAddr = to.parse().unwrap();
        let stream =
            self.inside(from, || TcpStream::connect_timeout(&to, CONNECT_TIMEOUT)).map_err(|e| e.kind())?;
        for _ in 0..1000 {
            for (name, listener) in &self.listeners {
                if let Ok((_, peer)) = listener.accept() {
                    drop(stream);
                    return Ok((name, peer.ip()));
                }
            }
            std::thread::yield_now();
        }
        panic!("connected, but nobody accepts");
    }

    /// Who takes `n` calls.
    fn takers(&self, from: &str, to: &str, n: usize) -> Vec<&'static str> {
        let mut found: Vec<_> = (0..n).map(|_| self.call(from, to).unwrap().0).collect();
        found.sort_unstable();
        found.dedup();
        found
    }
}

fn world() -> World<ServiceBackend> {
    World::new(config(), ServiceBackend::open().unwrap())
}

fn lab() -> Lab {
    let mut lab = Lab::new(&[
        ("a", "10.244.0.5"),
        ("b", "10.244.0.6"),
        ("client", "10.244.0.9"),
        ("other", "10.244.0.10"),
    ]);
    lab.listen("a");
    lab.listen("b");
    lab
}

fn both() -> Vec<serde_json::Value> {
    vec![endpoint("10.244.0.5", "here", true), endpoint("10.244.0.6", "here", true)]
}

#[test]
fn a_cluster_ip_spreads_masquerades_hairpin_and_refuses_what_it_must() {
    in_new_netns(|| {
        let (mut w, lab) = (world(), lab());
        w.put(&service("web", "10.96.0.1", json!({})));
        w.put(&slice("web", both()));
        w.put(&service("empty", "10.96.0.2", json!({})));
        w.start();
        assert!(w.machine.in_sync(), "{:?}", w.machine.last_error());
        assert_eq!(lab.takers("client", "10.96.0.1:80", 40), ["a", "b"]);
        // A pod keeps its address; the node, and an endpoint that calls itself, do not.
        let seen = lab.call("client", "10.96.0.1:80").unwrap().1;
        assert_eq!(seen, lab.ip("client"));
        assert_eq!(lab.call("node", "10.96.0.1:80").unwrap().1, "10.244.0.1".parse::<IpAddr>().unwrap());
        for _ in 0..20 {
            let (taker, seen) = lab.call("a", "10.96.0.1:80").unwrap();
            let expected = if taker == "a" { "10.244.0.1".parse().unwrap() } else { lab.ip("a") };
            assert_eq!(seen, expected);
        }
        // From outside of the cluster, through the node: the source would not find its way back.
        let seen = lab.call(super::kernel::OUTSIDE, "10.96.0.1:80").unwrap().1;
        assert_eq!(seen, "10.244.0.1".parse::<IpAddr>().unwrap());

        assert_eq!(lab.call("client", "10.96.0.2:80"), Err(ErrorKind::ConnectionRefused), "no endpoint");
        assert_eq!(lab.call("node", "10.96.0.2:80"), Err(ErrorKind::ConnectionRefused), "no endpoint");
        assert_eq!(lab.call("client", "10.96.0.1:81"), Err(ErrorKind::ConnectionRefused), "no such port");
        assert_eq!(lab.call("client", "10.96.7.7:80"), Err(ErrorKind::TimedOut), "no such service");

        // One endpoint goes, one comes back.
        w.put(&slice("web", vec![endpoint("10.244.0.6", "here", true)]));
        assert_eq!(lab.takers("client", "10.96.0.1:80", 20), ["b"]);
        w.put(&slice("web", both()));
        assert_eq!(lab.takers("client", "10.96.0.1:80", 40), ["a", "b"]);
        w.put(&slice("web", vec![]));
        assert_eq!(lab.call("client", "10.96.0.1:80"), Err(ErrorKind::ConnectionRefused));
        w.delete("services", "web");
        assert_eq!(lab.call("client", "10.96.0.1:80"), Err(ErrorKind::TimedOut));
    });
}

#[test]
fn node_ports_follow_the_traffic_policy() {
    in_new_netns(|| {
        let (mut w, lab) = (world(), lab());
        let ports = json!([{"name": "http", "port": 80, "nodePort": 30080}]);
        let spec = |policy: &str| {
            json!({"type": "NodePort", "ports": ports, "externalTrafficPolicy": policy,
                "externalIPs": ["192.0.2.7"]})
        };
        w.put(&service("web", "10.96.0.1", spec("Cluster")));
        w.put(&slice(
            "web",
            vec![endpoint("10.244.0.5", "here", true), endpoint("10.244.0.6", "there", true)],
        ));
        w.start();
        assert!(w.machine.in_sync(), "{:?}", w.machine.last_error());
        let gateway: IpAddr = "10.244.0.1".parse().unwrap();
        for to in ["198.51.100.1:30080", "192.0.2.7:80"] {
            assert_eq!(lab.takers(OUTSIDE, to, 40), ["a", "b"], "{to}");
            assert_eq!(lab.call(OUTSIDE, to).unwrap().1, gateway, "{to}");
        }
        assert_eq!(lab.takers("node", "198.51.100.1:30080", 40), ["a", "b"]);
        assert_eq!(lab.call("node", "127.0.0.1:30080"), Err(ErrorKind::ConnectionRefused));

        // Local: only endpoints of this node, and they see who calls. Pods reach all.
        w.put(&service("web", "10.96.0.1", spec("Local")));
        for to in ["198.51.100.1:30080", "192.0.2.7:80"] {
            assert_eq!(lab.takers(OUTSIDE, to, 30), ["a"], "{to}");
            assert_eq!(lab.call(OUTSIDE, to).unwrap().1, lab.ip(OUTSIDE), "{to}");
            assert_eq!(lab.takers("client", to, 40), ["a", "b"], "{to}");
        }
        w.put(&slice("web", vec![endpoint("10.244.0.6", "there", true)]));
        assert_eq!(lab.call(OUTSIDE, "198.51.100.1:30080"), Err(ErrorKind::TimedOut));
        assert_eq!(lab.takers("client", "198.51.100.1:30080", 5), ["b"]);
        w.put(&slice("web", vec![]));
        assert_eq!(lab.call(OUTSIDE, "198.51.100.1:30080"), Err(ErrorKind::ConnectionRefused));
        assert_eq!(lab.call(OUTSIDE, "192.0.2.7:80"), Err(ErrorKind::ConnectionRefused));
    });
}

#[test]
fn the_internal_policy_local_and_source_ranges_hold() {
    in_new_netns(|| {
        let (mut w, lab) = (world(), lab());
        w.put(&service("web", "10.96.0.1", json!({"internalTrafficPolicy": "Local"})));
        w.put(&slice(
            "web",
            vec![endpoint("10.244.0.5", "here", true), endpoint("10.244.0.6", "there", true)],
        ));
        let mut balanced = service(
            "lb",
            "10.96.0.2",
            json!({"type": "LoadBalancer", "loadBalancerSourceRanges": ["203.0.113.0/24", "198.51.100.128/25"]}),
        );
        balanced["status"] = json!({"loadBalancer": {"ingress": [{"ip": "192.0.2.8"}]}});
        w.put(&balanced);
        w.put(&slice("lb", both()));
        w.start();
        assert!(w.machine.in_sync(), "{:?}", w.machine.last_error());
        assert_eq!(lab.takers("client", "10.96.0.1:80", 30), ["a"]);
        w.put(&slice("web", vec![endpoint("10.244.0.6", "there", true)]));
        assert_eq!(lab.call("client", "10.96.0.1:80"), Err(ErrorKind::TimedOut));

        assert_eq!(lab.call(OUTSIDE, "192.0.2.8:80"), Err(ErrorKind::TimedOut));
        balanced["spec"]["loadBalancerSourceRanges"] = json!(["203.0.113.0/24", "198.51.100.0/25"]);
        w.put(&balanced);
        assert_eq!(lab.takers(OUTSIDE, "192.0.2.8:80", 30), ["a", "b"]);
    });
}

#[test]
fn a_client_with_affinity_stays_until_its_endpoint_goes() {
    in_new_netns(|| {
        let (mut w, lab) = (world(), lab());
        w.put(&service(
            "web",
            "10.96.0.1",
            json!({"sessionAffinity": "ClientIP", "type": "NodePort",
                "ports": [{"name": "http", "port": 80, "nodePort": 30080}]}),
        ));
        w.put(&slice("web", both()));
        w.start();
        assert!(w.machine.in_sync(), "{:?}", w.machine.last_error());
        for (from, to) in
            [("client", "10.96.0.1:80"), ("other", "10.96.0.1:80"), (OUTSIDE, "198.51.100.1:30080")]
        {
            let mine = lab.call(from, to).unwrap().0;
            assert_eq!(lab.takers(from, to, 15), [mine], "{from}");
        }
        let mine = lab.call("client", "10.96.0.1:80").unwrap().0;
        let (other, other_ip) = if mine == "a" { ("b", "10.244.0.6") } else { ("a", "10.244.0.5") };
        w.put(&slice("web", vec![endpoint(other_ip, "here", true)]));
        assert_eq!(lab.takers("client", "10.96.0.1:80", 10), [other]);
        // The one that came back does not take its clients back.
        w.put(&slice("web", both()));
        assert_eq!(lab.takers("client", "10.96.0.1:80", 10), [other]);
    });
}

#[test]
fn a_restart_writes_nothing_and_a_wiped_table_comes_back() {
    in_new_netns(|| {
        let (mut w, lab) = (world(), lab());
        for n in 1..40u8 {
            let name = std::format!("s{n}");
            let affinity = if n % 3 == 0 { json!({"sessionAffinity": "ClientIP"}) } else { json!({}) };
            w.put(&service(&name, &std::format!("10.96.0.{n}"), affinity));
            w.put(&slice(&name, both()));
        }
        w.start();
        w.put(&slice("s3", vec![endpoint("10.244.0.6", "here", true)]));
        let mut second = world();
        second.objects = w.objects.clone();
        second.start();
        assert!(second.machine.in_sync(), "{:?}", second.machine.last_error());
        assert_eq!(second.batches, []);

        let mut nft = crate::backend::nft::Nft::open().unwrap();
        let id = w.machine.tables()[0].id.clone();
        nft.apply(&crate::rules::Batch { changes: vec![crate::rules::Change::DeleteTable(id)] }).unwrap();
        second.tell(crate::service::Event::Disturbed);
        assert!(second.machine.in_sync(), "{:?}", second.machine.last_error());
        assert_eq!(lab.takers("client", "10.96.0.1:80", 30), ["a", "b"]);
    });
}

#[test]
fn udp_goes_both_ways() {
    in_new_netns(|| {
        let (mut w, lab) = (world(), lab());
        w.put(&service(
            "dns",
            "10.96.0.10",
            json!({"ports": [{"name": "http", "port": 53, "protocol": "UDP"}]}),
        ));
        let mut s = slice("dns", vec![endpoint("10.244.0.5", "here", true)]);
        s["ports"][0]["protocol"] = json!("UDP");
        w.put(&s);
        w.start();
        assert!(w.machine.in_sync(), "{:?}", w.machine.last_error());
        let server = lab.inside("a", || UdpSocket::bind("0.0.0.0:8080").unwrap());
        let client = lab.inside("client", || UdpSocket::bind("0.0.0.0:0").unwrap());
        for socket in [&server, &client] {
            socket.set_read_timeout(Some(Duration::from_secs(2))).unwrap();
        }
        client.send_to(b"?", "10.96.0.10:53").unwrap();
        let mut buffer = [0; 8];
        let (_, from) = server.recv_from(&mut buffer).unwrap();
        server.send_to(b"!", from).unwrap();
        let (len, from) = client.recv_from(&mut buffer).unwrap();
        assert_eq!((&buffer[..len], from.to_string()), (&b"!"[..], String::from("10.96.0.10:53")));
    });
}

#[test]
fn a_udp_client_is_sent_on_when_its_endpoint_goes() {
    in_new_netns(|| {
        let (mut w, lab) = (world(), lab());
        let ports = json!({"ports": [{"name": "http", "port": 53, "protocol": "UDP"}]});
        w.put(&service("dns", "10.96.0.10", ports));
        let at = |ip: &str| {
            let mut s = slice("dns", vec![endpoint(ip, "here", true)]);
            s["ports"][0]["protocol"] = json!("UDP");
            s
        };
        w.put(&at("10.244.0.5"));
        w.start();
        let bind = |pod: &str, to: &str| {
            let socket = lab.inside(pod, || UdpSocket::bind(to).unwrap());
            socket.set_read_timeout(Some(Duration::from_secs(2))).unwrap();
            socket
        };
        let (a, b) = (bind("a", "0.0.0.0:8080"), bind("b", "0.0.0.0:8080"));
        let client = bind("client", "0.0.0.0:4000");
        let mut buffer = [0; 8];
        client.send_to(b"1", "10.96.0.10:53").unwrap();
        a.recv_from(&mut buffer).unwrap();
        // The same two ends: only the endpoint behind the service is another.
        w.put(&at("10.244.0.6"));
        client.send_to(b"2", "10.96.0.10:53").unwrap();
        let (len, _) = b.recv_from(&mut buffer).unwrap();
        assert_eq!(&buffer[..len], b"2");
        // With a further endpoint the flow stays where it is.
        let mut both = at("10.244.0.6");
        both["endpoints"] =
            json!([endpoint("10.244.0.5", "here", true), endpoint("10.244.0.6", "here", true)]);
        w.put(&both);
        for _ in 0..20 {
            client.send_to(b"3", "10.96.0.10:53").unwrap();
            b.recv_from(&mut buffer).unwrap();
        }
    });
}
