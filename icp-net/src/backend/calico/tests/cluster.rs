//! Machines with routes between them, and Services over pods.

use std::format;
use std::fs::File;
use std::io::ErrorKind;
use std::net::IpAddr;
use std::string::{String, ToString};
use std::sync::Arc;
use std::vec::Vec;

use icp_core::api::Object;
use icp_core::client::{Operation, WatchKind};
use serde_json::{Value as Json, json};

use super::api::{Api, Runner, Step};
use super::lab::{Lab, Machine, Server, namespace, path};
use crate::backend::calico::{NodeNetwork, RouteBackend};
use crate::backend::netns;
use crate::backend::nft::Nft;
use crate::backend::rtnl::{Route, Rtnl, protocol, sysctl};
use crate::backend::service::ServiceBackend;
use crate::backend::testing::in_new_netns;
use crate::calico::cni::{HOST_PORTS_TABLE, HostPort};
use crate::calico::route;
use crate::rules::Family;
use crate::service::{self, Protocol, ProxyMachine};

struct Node {
    network: NodeNetwork,
    routes: Runner<route::RouteMachine>,
    proxy: Runner<ProxyMachine>,
}

struct Cluster {
    lab: Lab,
    api: Api,
    nodes: Vec<(&'static str, Node)>,
    /// A host on the same network that knows no routes to pods.
    outside: &'static str,
}

pub(super) const POD_NETWORK: &str = "10.244.0.0/16";

pub(super) fn node_object(name: &str, machine: &Machine) -> Json {
    json!({
        "apiVersion": "v1", "kind": "Node", "metadata": {"name": name},
        "spec": {"podCIDR": machine.pod_network, "podCIDRs": [machine.pod_network]},
        "status": {"addresses": [
            {"type": "Hostname", "address": name}, {"type": "InternalIP", "address": machine.ip.to_string()}]},
    })
}

fn routes(name: &str, machine: &Machine) -> Runner<route::RouteMachine> {
    let pod_networks = [POD_NETWORK.parse().unwrap()].to_vec();
    let machine_of = route::RouteMachine::new(route::Config { pod_networks, ..route::Config::new(name) });
    let namespace = machine.namespace.try_clone().unwrap();
    let mut backend = machine.inside(|| RouteBackend::open().unwrap());
    Runner::new(machine_of, move |effect| match effect {
        route::Effect::Client(effect) => Step::Client(effect),
        effect => Step::Event(netns::within(&namespace, || backend.perform(&effect)).unwrap()),
    })
}

fn proxy(name: &str, machine: &Machine) -> Runner<ProxyMachine> {
    let config = service::Config {
        pod_networks: [POD_NETWORK.parse().unwrap()].to_vec(),
        service_networks: ["10.96.0.0/12".parse().unwrap()].to_vec(),
        ..service::Config::new(name)
    };
    let mut backend = machine.inside(|| ServiceBackend::open().unwrap());
    Runner::new(ProxyMachine::new(config), move |effect| match effect {
        service::Effect::Client(effect) => Step::Client(effect),
        effect => Step::Event(backend.perform(&effect)),
    })
}

/// A service with one port and its endpoints.
pub(super) fn service_objects(ip: &str, node_port: u16, endpoints: &[(IpAddr, &str)]) -> [Json; 2] {
    let service = json!({
        "apiVersion": "v1", "kind": "Service",
            "metadata": {"name": "web", "namespace": "default", "uid": "web"},
            "spec": {"clusterIP": ip, "clusterIPs": [ip], "type": "NodePort",
                "ports": [{"name": "http", "port": 80, "protocol": "TCP", "nodePort": node_port}]},
    });
    let endpoint = |(ip, node): &(IpAddr, &str)| json!({"addresses": [ip.to_string()], "nodeName": node, "conditions": {"ready": true}});
    let slice = json!({
    "apiVersion": "discovery.k8s.io/v1", "kind": "EndpointSlice", "addressType": "IPv4",
        "metadata": {"name": "web-1", "namespace": "default", "uid": "web-1",
            "labels": {"kubernetes.io/service-name": "web"}},
        "ports": [{"name": "http", "port": 8080, "protocol": "TCP"}],
        "endpoints": endpoints.iter().map(endpoint).collect::<Vec<_>>(),
    });
    [service, slice]
}

impl Cluster {
    fn new() -> Self {
        let lab = Lab::new(&["a", "b", "c", "outside"]);
        let mut api = Api::default();
        for name in ["a", "b", "c"] {
            let machine = lab.machine(name);
            machine.inside(|| sysctl::set("net.ipv4.ip_forward", "0").unwrap());
            api.put(&node_object(name, machine));
            // What a machine itself sends to a service is routed before it is translated.
            let via = lab.machine("outside").ip.into();
            let default = Route::via("0.0.0.0/0".parse().unwrap(), via);
            machine.inside(|| Rtnl::open().unwrap().add_route(&default).unwrap());
        }
        let node = |name| {
            let machine = lab.machine(name);
            let mut node = Node {
                network: machine.network(name),
                routes: routes(name, machine),
                proxy: proxy(name, machine),
            };
            node.routes.start(&api);
            node.proxy.start(&api);
            assert!(
                node.routes.machine.in_sync(),
                "{:?}",
                node.routes.machine.problems().collect::<Vec<_>>()
            );
            (name, node)
        };
        let nodes = ["a", "b", "c"].into_iter().map(node).collect();
        Self { lab, api, nodes, outside: "outside" }
    }

    fn node(&mut self, name: &str) -> &mut Node {
        &mut self.nodes.iter_mut().find(|(n, _)| *n == name).unwrap().1
    }

    fn pod(&mut self, node: &str, key: &str) -> (File, IpAddr) {
        let pod = namespace();
        let ip = self.node(node).network.attach(key, &path(&pod)).unwrap()[0];
        (pod, ip)
    }

    fn tell(&mut self, change: &(WatchKind, Arc<Object>)) {
        for (_, node) in &mut self.nodes {
            node.routes.see(&self.api, change);
            node.proxy.see(&self.api, change);
        }
    }

    fn put(&mut self, object: &Json) {
        let change = self.api.put(object);
        self.tell(&change);
    }

    fn delete(&mut self, resource: &str, key: &str) {
        let change = self.api.delete(resource, key);
        self.tell(&change);
    }

    fn service(&mut self, ip: &str, node_port: u16, endpoints: &[(IpAddr, &str)]) {
        service_objects(ip, node_port, endpoints).iter().for_each(|object| self.put(object));
        for (name, node) in &self.nodes {
            assert!(node.proxy.machine.in_sync(), "{name}: {:?}", node.proxy.machine.last_error());
        }
    }

    fn machine(&self, name: &str) -> &Machine {
        self.lab.machine(name)
    }

    fn routes_of(&self, name: &str) -> Vec<Route> {
        let all = self.machine(name).inside(|| Rtnl::open().unwrap().routes(Some(254)).unwrap());
        all.into_iter().filter(|r| r.protocol == protocol::CALICO).collect()
    }
}

#[test]
fn pods_of_different_machines_see_each_other_as_they_are() {
    in_new_netns(|| {
        let mut c = Cluster::new();
        let (one, one_ip) = c.pod("a", "default.one");
        let (two, two_ip) = c.pod("b", "default.two");
        let server = Server::start(&two, 80);
        assert_eq!(server.call(&one, (two_ip, 80).into()), Ok(one_ip));
        let back = Server::start(&one, 80);
        assert_eq!(back.call(&two, (one_ip, 80).into()), Ok(two_ip));
        // Machines reach pods everywhere.
        let machine = c.machine("c");
        assert_eq!(server.call(&machine.namespace, (two_ip, 80).into()), Ok(machine.ip.into()));
        c.node("b").network.detach("default.two").unwrap();
        assert!(server.call(&one, (two_ip, 80).into()).is_err());
    });
}

#[test]
fn what_pods_send_to_elsewhere_comes_from_their_machine() {
    in_new_netns(|| {
        let mut c = Cluster::new();
        let (pod, _) = c.pod("a", "pod");
        let outside = c.machine(c.outside);
        let server = Server::start(&outside.namespace, 80);
        let machine: IpAddr = c.machine("a").ip.into();
        assert_eq!(server.call(&pod, (outside.ip, 80).into()), Ok(machine));
        // A node that is not theirs is elsewhere, too.
        let other = c.machine("b");
        let server = Server::start(&other.namespace, 80);
        assert_eq!(server.call(&pod, (other.ip, 80).into()), Ok(machine));

        // A service of machines, such as that of the API servers: its endpoints know no way to pods.
        let (outside_ip, outside) = (outside.ip.into(), outside.namespace.try_clone().unwrap());
        c.service("10.96.0.1", 30080, &[(outside_ip, "outside")]);
        let server = Server::start(&outside, 8080);
        let service = "10.96.0.1:80".parse().unwrap();
        assert_eq!(server.call(&pod, service), Ok(machine));
        assert_eq!(server.call(&c.machine("a").namespace, service), Ok(machine));
    });
}

#[test]
fn a_service_reaches_pods_of_all_machines_from_everywhere() {
    in_new_netns(|| {
        let mut c = Cluster::new();
        let (one, one_ip) = c.pod("a", "one");
        let (two, two_ip) = c.pod("b", "two");
        let (three, _) = c.pod("c", "three");
        c.service("10.96.0.1", 30080, &[(two_ip, "b")]);
        let server = Server::start(&two, 8080);
        let service = "10.96.0.1:80".parse().unwrap();
        // A pod of another machine, as itself; the pod of the same machine; a machine, masqueraded.
        assert_eq!(server.call(&one, service), Ok(one_ip));
        assert_eq!(server.call(&c.machine("a").namespace, service), Ok(c.machine("a").ip.into()));
        assert!(server.call(&three, service).is_ok());
        // An endpoint that calls its own service cannot answer itself: it sees its machine.
        assert_eq!(server.call(&two, service), Ok(c.machine("b").ip.into()));
        // Node ports of machines with and without the endpoint, from a machine and from outside.
        for (from, to) in [("c", "a"), ("c", "b"), (c.outside, "a"), (c.outside, "b")] {
            let at = (c.machine(to).ip, 30080).into();
            assert!(server.call(&c.machine(from).namespace, at).is_ok(), "{from} to {to}");
        }
        // The endpoint moves.
        c.service("10.96.0.1", 30080, &[(one_ip, "a")]);
        let next = Server::start(&one, 8080);
        assert!(next.call(&two, service).is_ok());
        assert_eq!(next.call(&one, service), Ok(c.machine("a").ip.into()));
        c.service("10.96.0.1", 30080, &[]);
        assert_eq!(next.call(&two, service), Err(ErrorKind::ConnectionRefused));
    });
}

#[test]
fn routes_follow_nodes_and_a_restart_sweeps_only_its_own() {
    in_new_netns(|| {
        let mut c = Cluster::new();
        let found: Vec<String> = c.routes_of("a").iter().map(ToString::to_string).collect();
        assert!(found.iter().any(|r| r == "Blackhole route 10.244.1.0/24 table 254"), "{found:?}");
        assert!(found.iter().any(|r| r.contains("10.244.2.0/24 via 192.0.2.2")), "{found:?}");
        assert_eq!(found.len(), 3);

        // A node that is out of reach does not stop the others.
        let mut far = node_object("far", c.machine("c"));
        far["spec"] = json!({"podCIDR": "10.244.9.0/24"});
        far["status"]["addresses"] = json!([{"type": "InternalIP", "address": "not one"}]);
        c.put(&far);
        assert_eq!(c.routes_of("a").len(), 3);
        let problems: Vec<_> = c.node("a").routes.machine.problems().map(String::from).collect();
        assert_eq!(problems, ["node far: no InternalIP of its own to reach podCIDR 10.244.9.0/24 by"]);
        c.delete("nodes", "far");

        // While the agent is away, a node changes its address and another goes.
        let foreign = Route::via("10.244.77.0/24".parse().unwrap(), "192.0.2.2".parse().unwrap());
        c.machine("a").inside(|| Rtnl::open().unwrap().add_route(&foreign).unwrap());
        let mut moved = node_object("b", c.machine("b"));
        moved["status"]["addresses"] = json!([{"type": "InternalIP", "address": "192.0.2.77"}]);
        c.api.put(&moved);
        c.api.delete("nodes", "c");
        let mut next = routes("a", c.lab.machine("a"));
        next.start(&c.api);
        assert!(next.machine.in_sync());
        let found: Vec<String> = c.routes_of("a").iter().map(ToString::to_string).collect();
        assert_eq!(found.len(), 2, "{found:?}");
        assert!(found.iter().any(|r| r.contains("10.244.2.0/24 via 192.0.2.77")), "{found:?}");
        c.machine("a").inside(|| {
            let all = Rtnl::open().unwrap().routes(Some(254)).unwrap();
            assert!(all.iter().any(|r| r.destination == foreign.destination), "{all:?}");
        });

        // What somebody deletes comes back; with nothing to do, nothing is done.
        c.machine("a").inside(|| {
            let mut r = Rtnl::open().unwrap();
            let ours = r.routes(Some(254)).unwrap().into_iter().filter(|r| r.protocol == protocol::CALICO);
            ours.for_each(|route| r.delete_route(&route).unwrap());
            let mut nft = Nft::open().unwrap();
            let id = route::masquerade(&route::Config::new("a"))[0].id.clone();
            let change = crate::rules::Change::DeleteTable(id);
            nft.apply(&crate::rules::Batch { changes: [change].to_vec() }).unwrap();
        });
        next.wake(&c.api);
        next.tell(&c.api, route::Event::Disturbed);
        assert_eq!(c.routes_of("a").len(), 2);
        let generation = |c: &Cluster| c.machine("a").inside(|| Nft::open().unwrap().generation().unwrap());
        let before = generation(&c);
        next.tell(&c.api, route::Event::Disturbed);
        assert_eq!(generation(&c), before);
    });
}

#[test]
fn the_node_says_whether_its_network_works() {
    in_new_netns(|| {
        let mut c = Cluster::new();
        let requests = &c.node("a").routes.requests;
        let Operation::Patch { body, .. } = &requests[0].op else { panic!("{requests:?}") };
        let condition = &body["status"]["conditions"][0];
        assert_eq!(requests[0].subresource, Some("status"));
        assert_eq!(
            (&condition["type"], &condition["status"], &condition["reason"]),
            (&json!("NetworkUnavailable"), &json!("False"), &json!("CalicoIsUp"))
        );
        assert_eq!(format!("{}", condition["message"]), "\"Calico is running on this node\"");
    });
}

#[test]
fn ports_of_a_machine_lead_to_its_pods() {
    in_new_netns(|| {
        let mut c = Cluster::new();
        let (one, one_ip) = c.pod("a", "one");
        let (two, _) = c.pod("a", "two");
        let at = c.machine("a").ip;
        let port = |ip: Option<IpAddr>, port| HostPort { ip, protocol: Protocol::Tcp, port, pod_port: 8080 };
        let ports = [port(None, 81), port(Some(at.into()), 82), port(Some([192, 0, 2, 77].into()), 83)];
        c.node("a").network.set_host_ports("one", &ports).unwrap();
        c.node("a").network.set_host_ports("one", &ports).unwrap();
        let server = Server::start(&one, 8080);
        let outside = &c.machine(c.outside).namespace;
        let caller: IpAddr = c.machine(c.outside).ip.into();
        for number in [81, 82] {
            assert_eq!(server.call(outside, (at, number).into()), Ok(caller));
            assert!(server.call(&c.machine("a").namespace, (at, number).into()).is_ok());
            assert!(server.call(&two, (at, number).into()).is_ok());
            // Itself, masqueraded.
            assert_eq!(server.call(&one, (at, number).into()), Ok(at.into()));
        }
        assert_eq!(server.call(outside, (at, 83).into()), Err(ErrorKind::ConnectionRefused));
        let e = c.node("a").network.set_host_ports("two", &[port(None, 81)]).unwrap_err();
        assert_eq!(e.to_string(), format!("Tcp port 81 of the machine leads to {one_ip} already"));

        // The record outlives the agent, and ends with the pod.
        let network = c.lab.machine("a").network("a");
        assert!(network.set_host_ports("two", &[port(None, 81)]).is_err());
        network.set_host_ports("two", &[port(None, 84)]).unwrap();
        network.detach("one").unwrap();
        network.set_host_ports("two", &[port(None, 81)]).unwrap();
        let server = Server::start(&two, 8080);
        assert!(server.call(&c.machine(c.outside).namespace, (at, 81).into()).is_ok());
        let at_84 = server.call(&c.machine(c.outside).namespace, (at, 84).into());
        assert_eq!(at_84, Err(ErrorKind::ConnectionRefused));
        network.retain(&[].into()).unwrap();
        let tables = c.machine("a").inside(|| Nft::open().unwrap().tables(Family::Ip).unwrap());
        assert!(!tables.contains(&HOST_PORTS_TABLE.into()), "{tables:?}");
    });
}
