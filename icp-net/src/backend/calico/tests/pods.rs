//! Attaching and detaching.

use std::collections::BTreeSet;
use std::fs::File;
use std::io::ErrorKind;
use std::net::{IpAddr, SocketAddr, UdpSocket};
use std::string::{String, ToString};
use std::time::Duration;
use std::vec::Vec;

use super::lab::{Dir, Lab, Server, links, namespace, path};
use crate::backend::calico::{NodeNetwork, NodeNetworkConfig, NodeNetworkError};
use crate::backend::netns;
use crate::backend::rtnl::{Route, Rtnl, VethPeer};
use crate::backend::testing::in_new_netns;
use crate::calico::cni::{Op, Side, host_link_name};

fn net(s: &str) -> ipnet::IpNet {
    s.parse().unwrap()
}

fn at(ip: IpAddr, port: u16) -> SocketAddr {
    (ip, port).into()
}

#[test]
fn pods_of_one_machine_reach_each_other_and_vanish_without_trace() {
    in_new_netns(|| {
        let lab = Lab::new(&["a"]);
        let machine = lab.machine("a");
        let network = machine.network("a");
        let (one, two) = (namespace(), namespace());
        let before = links(&machine.namespace);
        let one_ip = network.attach("default.one", &path(&one)).unwrap()[0];
        let two_ip = network.attach("default.two", &path(&two)).unwrap()[0];
        assert_ne!(one_ip, two_ip);
        assert!(net("10.244.1.0/24").contains(&one_ip), "{one_ip}");
        // Again: the same, and nothing to do.
        assert_eq!(network.attach("default.one", &path(&one)).unwrap(), [one_ip]);
        assert_eq!(network.check("default.one", &path(&one)).unwrap(), [one_ip]);

        let server = Server::start(&two, 80);
        assert_eq!(server.call(&one, at(two_ip, 80)), Ok(one_ip));
        assert_eq!(server.call(&machine.namespace, at(two_ip, 80)), Ok(machine.ip.into()));

        network.detach("default.two").unwrap();
        network.detach("default.two").unwrap();
        assert_eq!(links(&two), ["lo"]);
        assert_eq!(network.list(), [("default.one".to_string(), [one_ip].to_vec())]);
        network.detach("default.one").unwrap();
        assert_eq!(links(&machine.namespace), before);
        machine.inside(|| {
            let routes = Rtnl::open().unwrap().routes(None).unwrap();
            assert!(
                !routes.iter().any(|r| r.destination.contains(&one_ip) && r.destination.prefix_len() == 32)
            );
        });
        assert!(matches!(network.check("default.one", &path(&one)), Err(NodeNetworkError::Unknown { .. })));
    });
}

#[test]
fn what_was_broken_is_found_and_mended() {
    in_new_netns(|| {
        let lab = Lab::new(&["a"]);
        let machine = lab.machine("a");
        let network = machine.network("a");
        let pod = namespace();
        let ip = network.attach("k", &path(&pod)).unwrap()[0];
        machine.inside(|| {
            let mut r = Rtnl::open().unwrap();
            let link = r.link(&host_link_name("k")).unwrap().index;
            r.set_mtu(link, 1400).unwrap();
            let route = r.routes(None).unwrap().into_iter().find(|r| r.link == Some(link)).unwrap();
            r.delete_route(&route).unwrap();
            r.add_route(&Route::on(net("10.9.9.9/32"), link)).unwrap();
        });
        netns::within(&pod, || {
            let mut r = Rtnl::open().unwrap();
            let link = r.link("eth0").unwrap().index;
            r.delete_address(link, net(&std::format!("{ip}/32"))).unwrap();
            r.add_address(link, net("10.1.1.1/24")).unwrap();
        })
        .unwrap();
        let Err(NodeNetworkError::Drift { missing, .. }) = network.check("k", &path(&pod)) else {
            panic!("nothing found")
        };
        assert!(missing.contains(&Op::SetMtu(Side::Host, 1500)), "{missing:?}");
        assert!(missing.contains(&Op::DeleteAddress(Side::Pod, net("10.1.1.1/24"))), "{missing:?}");
        assert_eq!(network.attach("k", &path(&pod)).unwrap(), [ip]);
        assert_eq!(network.check("k", &path(&pod)).unwrap(), [ip]);

        // The pod's sandbox is made anew: the same address in another namespace.
        let next = namespace();
        assert_eq!(network.attach("k", &path(&next)).unwrap(), [ip]);
        assert_eq!((links(&pod).len(), links(&next).len()), (1, 2));
        let server = Server::start(&next, 80);
        assert_eq!(server.call(&machine.namespace, at(ip, 80)), Ok(machine.ip.into()));
    });
}

#[test]
fn a_pod_cannot_send_as_another() {
    in_new_netns(|| {
        let lab = Lab::new(&["a"]);
        let network = lab.machine("a").network("a");
        let (liar, other) = (namespace(), namespace());
        let own_ip = network.attach("liar", &path(&liar)).unwrap()[0];
        let other_ip = network.attach("other", &path(&other)).unwrap()[0];
        let server = netns::within(&other, || UdpSocket::bind("0.0.0.0:53").unwrap()).unwrap();
        server.set_read_timeout(Some(Duration::from_millis(300))).unwrap();
        let send_from = |source: &str| {
            let socket = netns::within(&liar, || UdpSocket::bind((source, 0)).unwrap()).unwrap();
            socket.send_to(b"?", (other_ip, 53)).unwrap();
            server.recv_from(&mut [0; 8]).map(|(_, from)| from.ip()).map_err(|e| e.kind())
        };
        assert_eq!(send_from("0.0.0.0"), Ok(own_ip));
        netns::within(&liar, || {
            let mut r = Rtnl::open().unwrap();
            let link = r.link("eth0").unwrap().index;
            r.add_address(link, net("10.244.1.200/32")).unwrap();
        })
        .unwrap();
        assert_eq!(send_from("10.244.1.200"), Err(ErrorKind::WouldBlock));
        assert_eq!(send_from("0.0.0.0"), Ok(own_ip));
    });
}

#[test]
fn addresses_outlive_the_agent_and_are_never_given_twice() {
    in_new_netns(|| {
        let lab = Lab::new(&["a"]);
        let machine = lab.machine("a");
        let pods: Vec<File> = (0..4).map(|_| namespace()).collect();
        let network = machine.network("a");
        let ips: Vec<IpAddr> =
            (0..3).map(|n| network.attach(&n.to_string(), &path(&pods[n])).unwrap()[0]).collect();
        network.detach("1").unwrap();
        drop(network);

        let network = machine.network("a");
        let listed: Vec<String> = network.list().into_iter().map(|(key, _)| key).collect();
        assert_eq!(listed, ["0", "2"]);
        assert_eq!(network.attach("2", &path(&pods[2])).unwrap(), [ips[2]]);
        let new = network.attach("3", &path(&pods[3])).unwrap()[0];
        assert!(!ips.contains(&new), "{new} was in use just now");

        // Pods that ended while no agent ran.
        let live: BTreeSet<String> = ["2".to_string()].into();
        assert_eq!(network.retain(&live).unwrap(), ["0", "3"]);
        assert_eq!(network.list(), [("2".to_string(), [ips[2]].to_vec())]);
        assert_eq!((links(&pods[0]).len(), links(&pods[2]).len()), (1, 2));
    });
}

#[test]
fn a_machine_that_was_switched_off_has_no_pods() {
    in_new_netns(|| {
        let lab = Lab::new(&["a", "next"]);
        let machine = lab.machine("a");
        let pods = [namespace(), namespace()];
        let network = machine.network("a");
        let ips: Vec<IpAddr> = ["0", "1"]
            .iter()
            .zip(&pods)
            .map(|(key, pod)| network.attach(key, &path(pod)).unwrap()[0])
            .collect();
        drop(network);
        // One cable is lost; the other pod keeps its address.
        machine.inside(|| {
            let mut r = Rtnl::open().unwrap();
            let link = r.link(&host_link_name("0")).unwrap().index;
            r.delete_link(link).unwrap();
        });
        assert_eq!(machine.network("a").list(), [("1".to_string(), [ips[1]].to_vec())]);
        // The same disk in a machine that was switched on again.
        let config = machine.config("a");
        let network = lab.machine("next").inside(|| NodeNetwork::new(config).unwrap());
        assert_eq!(network.list(), []);
        drop(network);
        assert_eq!(machine.network("a").list(), []);
    });
}

#[test]
fn both_families() {
    in_new_netns(|| {
        let mut lab = Lab::new(&["a"]);
        lab.machines.get_mut("a").unwrap().pod_network = "10.244.1.0/24,fd00:1::/120".into();
        let machine = lab.machine("a");
        let network = machine.network("a");
        let (one, two) = (namespace(), namespace());
        let first = network.attach("one", &path(&one)).unwrap();
        let second = network.attach("two", &path(&two)).unwrap();
        assert!(first[0].is_ipv4() && first[1].is_ipv6(), "{first:?}");
        assert_eq!(network.check("one", &path(&one)).unwrap(), first);
        let listener = netns::within(&two, || std::net::TcpListener::bind("[::]:80").unwrap()).unwrap();
        // The machine's end has to find its own link-local address unique before it asks for the pod.
        let mut result = Err(ErrorKind::TimedOut);
        for _ in 0..20 {
            result = super::lab::connect(&one, at(second[1], 80)).map(drop);
            if result.is_ok() {
                break;
            }
        }
        assert_eq!(result, Ok(()));
        assert_eq!(listener.accept().unwrap().1.ip(), first[1]);
    });
}

#[test]
fn what_cannot_be_attached_is_refused_with_a_reason() {
    in_new_netns(|| {
        let lab = Lab::new(&["a"]);
        let machine = lab.machine("a");
        let state = Dir::new();
        let network = machine.inside(|| NodeNetwork::new(NodeNetworkConfig::new("a", &state.0)).unwrap());
        let pod = namespace();
        assert_eq!(network.attach("k", &path(&pod)), Err(NodeNetworkError::NoPodNetwork));
        network.set_pod_networks(&[net("10.244.7.4/31")]).unwrap();
        let own = path(&machine.namespace);
        assert!(matches!(network.attach("k", &own), Err(NodeNetworkError::HostNamespace { .. })));
        let e = network.attach("k", "/nowhere".as_ref()).unwrap_err();
        assert!(e.to_string().starts_with("cannot open /nowhere: "), "{e}");
        let e = network.attach("k", state.0.as_ref()).unwrap_err();
        assert!(matches!(e, NodeNetworkError::Namespace { .. }), "{e}");

        // The pod has an eth0 of another sort.
        netns::within(&pod, || Rtnl::open().unwrap().create_bridge("eth0").unwrap()).unwrap();
        let e = network.attach("k", &path(&pod)).unwrap_err();
        assert_eq!(e.to_string(), "eth0 exists and is not a virtual cable");
        network.detach("k").unwrap();

        let others = [namespace(), namespace()];
        for (n, other) in others.iter().enumerate() {
            network.attach(&n.to_string(), &path(other)).unwrap();
        }
        let e = network.attach("third", &path(&pod)).unwrap_err();
        assert_eq!(e.to_string(), "no IPv4 address is free for node a: all blocks are claimed");

        std::fs::write(state.0.join("10.244.9.0-26.json"), b"{").unwrap();
        let e = machine.inside(|| NodeNetwork::new(NodeNetworkConfig::new("a", &state.0)).unwrap_err());
        assert!(matches!(e, NodeNetworkError::Store(_)), "{e}");
    });
}

#[test]
fn interfaces_of_others_are_left_alone() {
    in_new_netns(|| {
        let lab = Lab::new(&["a"]);
        let machine = lab.machine("a");
        let network = machine.network("a");
        machine.inside(|| {
            let mut r = Rtnl::open().unwrap();
            let peer = VethPeer { name: "veth1", namespace: None, mac: None, mtu_bytes: None };
            r.create_veth("caliper", peer).unwrap();
            r.create_bridge(&host_link_name("bridge")).unwrap();
            let peer = VethPeer { name: "veth2", namespace: None, mac: None, mtu_bytes: None };
            r.create_veth(&host_link_name("stray"), peer).unwrap();
        });
        network.retain(&BTreeSet::new()).unwrap();
        let left = links(&machine.namespace);
        assert!(left.contains(&"caliper".to_string()) && left.contains(&host_link_name("bridge")));
        assert!(!left.contains(&host_link_name("stray")) && !left.contains(&"veth2".to_string()));
    });
}
