//! On real network namespaces, each test in a thread of its own.

use std::os::fd::AsFd;
use std::vec::Vec;

use super::*;
use crate::backend::netlink::Errno;
use crate::backend::netns;
use crate::backend::testing::{in_new_netns, peer};

fn net(s: &str) -> ipnet::IpNet {
    s.parse().unwrap()
}

#[test]
fn bridge_veth_addresses_and_routes_are_read_back() {
    in_new_netns(|| {
        let mut r = Rtnl::open().unwrap();
        let far = netns::create().unwrap();
        let bridge = r.create_bridge("br0").unwrap();
        let peer = VethPeer {
            name: "eth0",
            namespace: Some(Target::Fd(far.as_fd())),
            mac: Some([2, 0, 0, 0, 0, 7]),
            mtu_bytes: Some(1400),
        };
        let near = r.create_veth("v1", peer).unwrap();
        r.set_master(near, Some(bridge)).unwrap();
        r.set_mtu(near, 1400).unwrap();
        r.set_up(near).unwrap();
        r.set_up(bridge).unwrap();
        r.add_address(bridge, net("10.1.0.1/24")).unwrap();
        r.add_address(bridge, net("fd00::1/64")).unwrap();
        let link = r.link("v1").unwrap();
        assert_eq!(
            (link.kind, link.master, link.mtu_bytes, link.up),
            (LinkKind::Veth, Some(bridge), 1400, true)
        );
        assert_eq!(r.link("br0").unwrap().kind, LinkKind::Bridge);
        let nets: Vec<_> = r.addresses(Some(bridge)).unwrap().iter().map(|a| a.net).collect();
        assert!(nets.contains(&net("10.1.0.1/24")) && nets.contains(&net("fd00::1/64")), "{nets:?}");

        let route = Route { metric: Some(7), ..Route::via(net("10.2.0.0/16"), "10.1.0.9".parse().unwrap()) };
        let hole = Route { protocol: protocol::CALICO, ..Route::blackhole(net("10.3.0.0/26")) };
        let odd = Route {
            onlink: true,
            link: Some(bridge),
            table: 4711,
            ..Route::via(net("10.4.0.0/16"), "192.0.2.1".parse().unwrap())
        };
        for route in [&route, &hole, &odd] {
            r.add_route(route).unwrap();
            assert!(r.add_route(route).unwrap_err().is(Errno::EEXIST));
            r.replace_route(route).unwrap();
        }
        let all = r.routes(None).unwrap();
        assert!(all.contains(&hole), "{all:?}");
        assert!(all.contains(&Route { link: Some(bridge), ..route }), "{all:?}");
        assert_eq!(r.routes(Some(4711)).unwrap(), [odd]);
        r.delete_route(&hole).unwrap();
        assert!(r.delete_route(&hole).unwrap_err().is_missing());

        netns::within(&far, || {
            let mut r = Rtnl::open().unwrap();
            let eth0 = r.link("eth0").unwrap();
            assert_eq!((eth0.mac, eth0.mtu_bytes, eth0.up), (Some([2, 0, 0, 0, 0, 7]), 1400, false));
            assert_eq!(eth0.peer, Some(near));
        })
        .unwrap();

        r.delete_address(bridge, net("10.1.0.1/24")).unwrap();
        r.delete_link(near).unwrap();
        assert!(matches!(r.link("v1"), Err(crate::backend::netlink::NetlinkError::Missing { .. })));
        netns::within(&far, || assert_eq!(Rtnl::open().unwrap().links().unwrap().len(), 1)).unwrap();
    });
}

#[test]
fn a_link_moves_and_keeps_its_name() {
    in_new_netns(|| {
        let mut r = Rtnl::open().unwrap();
        let far = netns::create().unwrap();
        let near =
            r.create_veth("a", VethPeer { name: "b", namespace: None, mac: None, mtu_bytes: None }).unwrap();
        let b = r.link("b").unwrap().index;
        assert_eq!(r.link("a").unwrap().peer, Some(b));
        r.rename(near, "c").unwrap();
        r.move_link(b, Target::Fd(far.as_fd())).unwrap();
        let names: Vec<_> = r.links().unwrap().into_iter().map(|l| l.name).collect();
        assert_eq!(names, ["lo", "c"]);
        netns::within(&far, || {
            let mut r = Rtnl::open().unwrap();
            let b = r.link("b").unwrap();
            r.set_mac(b.index, [2, 0, 0, 0, 0, 9]).unwrap();
            assert_eq!(r.link("b").unwrap().mac, Some([2, 0, 0, 0, 0, 9]));
        })
        .unwrap();
    });
}

#[test]
fn neighbours_of_a_tunnel_are_read_back() {
    in_new_netns(|| {
        let mut r = Rtnl::open().unwrap();
        let lo = r.link("lo").unwrap().index;
        r.set_up(lo).unwrap();
        let spec =
            Vxlan { vni: 4096, port: 4789, local: Some([127, 0, 0, 1].into()), parent: None, mac: None };
        let vxlan = match r.create_vxlan("vxlan.calico", &spec) {
            Ok(index) => index,
            // A kernel without the driver can only show that it says so.
            Err(e) => return assert!(e.is(Errno::EOPNOTSUPP), "{e}"),
        };
        r.set_up(vxlan).unwrap();
        for family in [NeighbourFamily::Ip, NeighbourFamily::Forwarding] {
            let n = Neighbour { link: vxlan, family, ip: [10, 9, 0, 1].into(), mac: [2, 0, 0, 0, 0, 1] };
            r.replace_neighbour(&n).unwrap();
            r.replace_neighbour(&n).unwrap();
            assert_eq!(r.neighbours(vxlan, family).unwrap(), [n]);
            r.delete_neighbour(&n).unwrap();
            assert_eq!(r.neighbours(vxlan, family).unwrap(), []);
        }
    });
}

#[test]
fn iproute2_sees_a_bridge_stop_snooping() {
    in_new_netns(|| {
        let Some(ip) = peer("ip") else { return };
        let mut r = Rtnl::open().unwrap();
        let bridge = r.create_bridge("br0").unwrap();
        for (on, shown) in [(false, "mcast_snooping 0 "), (true, "mcast_snooping 1 ")] {
            r.set_multicast_snooping(bridge, on).unwrap();
            let text = ip(&["-details", "link", "show", "br0"]);
            assert!(text.contains(shown), "{text}");
        }
        let lo = r.link("lo").unwrap().index;
        assert!(r.set_multicast_snooping(lo, false).is_err());
    });
}

#[test]
fn errors_name_the_object_and_carry_the_errno() {
    in_new_netns(|| {
        let mut r = Rtnl::open().unwrap();
        r.create_bridge("br0").unwrap();
        let e = r.create_bridge("br0").unwrap_err();
        assert!(e.is(Errno::EEXIST) && std::format!("{e}").starts_with("create bridge br0: "), "{e}");
        assert!(r.set_up(999).unwrap_err().is(Errno::ENODEV));
        assert!(r.add_address(999, net("10.0.0.1/8")).unwrap_err().is_missing());
        let unreachable = Route::via(net("10.2.0.0/16"), "10.1.0.9".parse().unwrap());
        assert!(r.add_route(&unreachable).is_err());
    });
}

#[test]
fn sysctl_is_of_the_own_namespace() {
    in_new_netns(|| {
        assert_eq!(sysctl::get("net.ipv4.ip_forward").unwrap(), "0");
        sysctl::set("net.ipv4.ip_forward", "1").unwrap();
        assert_eq!(sysctl::get("net.ipv4.ip_forward").unwrap(), "1");
    });
}
