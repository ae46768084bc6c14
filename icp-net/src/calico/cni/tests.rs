//! Plans against a model of the kernel.

use alloc::string::{String, ToString};
use alloc::vec::Vec;
use core::net::IpAddr;

use proptest::prelude::*;

use super::*;

fn attachment(ips: &[&str]) -> Attachment {
    Attachment::new("default.web", ips.iter().map(|ip| ip.parse::<IpAddr>().unwrap()), 1450)
}

fn end(found: &mut Observed, side: Side) -> &mut LinkState {
    let link = if side == Side::Host { &mut found.host } else { &mut found.pod };
    link.as_mut().expect("the link is there")
}

/// Does what a plan says to a model of both namespaces.
fn perform(found: &mut Observed, ops: &[Op]) {
    for op in ops {
        match op {
            Op::Delete(Side::Host) => {
                let gone = found.host.take().expect("the link is there");
                if found.pod.as_ref().is_some_and(|pod| Some(pod.index) == gone.peer) {
                    found.pod = None;
                }
            }
            Op::Delete(Side::Pod) => found.pod = None,
            Op::CreatePair => {
                assert!(found.host.is_none() && found.pod.is_none(), "a name is taken");
                let new = |index, peer| LinkState {
                    index,
                    veth: true,
                    peer: Some(peer),
                    mac: Some([2; 6]),
                    mtu_bytes: 1500,
                    ..LinkState::default()
                };
                (found.host, found.pod) = (Some(new(11, 2)), Some(new(2, 11)));
                found.sysctls.clear();
            }
            Op::SetMac(side, mac) => end(found, *side).mac = Some(*mac),
            Op::SetMtu(side, bytes) => end(found, *side).mtu_bytes = *bytes,
            Op::Sysctl { side, name, value } => {
                end(found, *side);
                found.sysctls.insert((*side, name.clone()), (*value).into());
            }
            Op::SetUp(side) => end(found, *side).up = true,
            Op::LoopbackUp => found.loopback_up = true,
            Op::AddAddress(side, net) => end(found, *side).addresses.push(*net),
            Op::DeleteAddress(side, net) => end(found, *side).addresses.retain(|n| n != net),
            Op::AddRoute(side, route) => {
                let link = end(found, *side);
                assert!(link.up, "routes need a link that is up");
                let on_link = |gateway: &IpAddr| {
                    link.routes.iter().any(|r| r.gateway.is_none() && r.destination.contains(gateway))
                };
                assert!(route.gateway.as_ref().is_none_or(on_link), "the gateway is not on the link");
                link.routes.retain(|r| r.destination != route.destination);
                link.routes.push(*route);
            }
            Op::DeleteRoute(side, route) => end(found, *side).routes.retain(|r| r != route),
            Op::AddNeighbour(side, ip, mac) => {
                let link = end(found, *side);
                link.neighbours.retain(|(n, _)| n != ip);
                link.neighbours.push((*ip, *mac));
            }
        }
    }
}

#[test]
fn the_whole_plan_in_order() {
    let ops = plan_add(&attachment(&["10.244.1.7"]), &Observed::default()).unwrap();
    let lines: Vec<String> = ops.iter().map(|op| alloc::format!("{op:?}")).collect();
    expect_test::expect![[r#"
        CreatePair
        SetMac(Host, [238, 238, 238, 238, 238, 238])
        SetMtu(Host, 1450)
        Sysctl { side: Host, name: "net.ipv4.conf.cali68caf03a5f4.forwarding", value: "1" }
        Sysctl { side: Host, name: "net.ipv4.conf.cali68caf03a5f4.rp_filter", value: "1" }
        SetUp(Host)
        LoopbackUp
        SetMtu(Pod, 1450)
        SetUp(Pod)
        AddAddress(Pod, 10.244.1.7/32)
        AddNeighbour(Pod, 169.254.1.1, [238, 238, 238, 238, 238, 238])
        AddRoute(Pod, LinkRoute { destination: 169.254.1.1/32, gateway: None })
        AddRoute(Pod, LinkRoute { destination: 0.0.0.0/0, gateway: Some(169.254.1.1) })
        AddRoute(Host, LinkRoute { destination: 10.244.1.7/32, gateway: None })"#]]
    .assert_eq(&lines.join("\n"));
}

#[test]
fn names_fit_and_are_recognised() {
    for key in ["", "default.web", "a-very-long-namespace.a-very-long-pod-name-0123456789"] {
        let name = host_link_name(key);
        assert!(name.len() == 15 && is_host_link_name(&name), "{name}");
    }
    for other in ["cali", "cali0123456789", "cali0123456789g", "eth0", "caliABCDEFABCDE", "calico-tunnel12"] {
        assert!(!is_host_link_name(other), "{other}");
    }
}

#[test]
fn what_others_made_is_not_touched() {
    let foreign = LinkState { veth: false, ..LinkState::default() };
    let wanted = attachment(&["10.244.1.7"]);
    let found = Observed { pod: Some(foreign.clone()), ..Observed::default() };
    assert_eq!(plan_add(&wanted, &found), Err(CniError::ForeignLink { link: "eth0".into() }));
    let found = Observed { host: Some(foreign), ..Observed::default() };
    assert_eq!(plan_add(&wanted, &found), Err(CniError::ForeignLink { link: wanted.host_link() }));
    assert_eq!(plan_delete(&found), []);
    assert_eq!(plan_add(&attachment(&[]), &Observed::default()), Err(CniError::NoAddress));
}

fn observed() -> impl Strategy<Value = Observed> {
    let net =
        prop_oneof![Just("10.244.1.7/32"), Just("10.244.1.9/32"), Just("fd00::7/128"), Just("10.0.0.0/8")];
    let net = net.prop_map(|s| s.parse().unwrap());
    let gateway: Option<IpAddr> = Some(GATEWAY_IPV4.into());
    let route = (net.clone(), prop_oneof![Just(None), Just(gateway)])
        .prop_map(|(destination, gateway)| LinkRoute { destination, gateway });
    let link = (
        0u32..3,
        prop::option::of(0u32..3),
        any::<bool>(),
        prop_oneof![Just(1450u32), Just(1500)],
        prop::collection::vec(net, 0..3),
        prop::collection::vec(route, 0..3),
        prop::collection::vec(Just((IpAddr::from(GATEWAY_IPV4), [1u8; 6])), 0..2),
    )
        .prop_map(|(index, peer, up, mtu_bytes, mut addresses, mut routes, neighbours)| {
            // A kernel has nothing twice.
            addresses.sort();
            addresses.dedup();
            routes.sort();
            routes.dedup();
            let mac = Some(if up { HOST_MAC } else { [2; 6] });
            LinkState { index, veth: true, peer, mac, mtu_bytes, up, addresses, routes, neighbours }
        });
    (prop::option::of(link.clone()), prop::option::of(link), any::<bool>()).prop_map(
        |(host, pod, loopback_up)| {
            let name = attachment(&[]).host_link();
            let stale = [((Side::Host, alloc::format!("net.ipv4.conf.{name}.rp_filter")), "0".to_string())];
            Observed { host, pod, loopback_up, sysctls: stale.into() }
        },
    )
}

proptest! {
    #[test]
    fn from_anywhere_one_plan_attaches_and_one_detaches(found in observed(), both: bool) {
        let ips: &[&str] = if both { &["10.244.1.7", "fd00::7"] } else { &["10.244.1.7"] };
        let wanted = attachment(ips);
        let mut state = found;
        let ops = plan_add(&wanted, &state).unwrap();
        perform(&mut state, &ops);
        prop_assert_eq!(plan_check(&wanted, &state), []);
        let (host, pod) = (state.host.clone().unwrap(), state.pod.clone().unwrap());
        prop_assert!(host.up && pod.up && state.loopback_up);
        prop_assert_eq!(pod.addresses.len(), ips.len());
        prop_assert_eq!(host.routes.len(), ips.len());
        let ops = plan_delete(&state);
        perform(&mut state, &ops);
        prop_assert!(state.host.is_none() && state.pod.is_none());
    }
}
