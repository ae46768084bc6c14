//! From what is wanted and what is there to what is to be done.

use alloc::collections::BTreeMap;
use alloc::format;
use alloc::string::String;
use alloc::vec::Vec;
use core::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use ipnet::IpNet;

use super::{CniError, host_link_name};

/// The pod's end of the cable.
pub const POD_LINK: &str = "eth0";
/// The hardware address of the machine's end, the same on every cable.
pub const HOST_MAC: [u8; 6] = [0xee; 6];
/// The next hop of a pod's IPv4 packets.
pub const GATEWAY_IPV4: Ipv4Addr = Ipv4Addr::new(169, 254, 1, 1);
/// The next hop of a pod's IPv6 packets: the link-local address that belongs to [`HOST_MAC`].
pub const GATEWAY_IPV6: Ipv6Addr = Ipv6Addr::new(0xfe80, 0, 0, 0, 0xecee, 0xeeff, 0xfeee, 0xeeee);

/// A pod on the network.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Attachment {
    /// Names the pod on its node for good.
    pub key: String,
    /// Its addresses.
    pub addresses: Vec<IpAddr>,
    /// The largest packet, in bytes.
    pub mtu_bytes: u32,
}

impl Attachment {
    /// A pod with addresses.
    #[must_use]
    pub fn new(key: &str, addresses: impl IntoIterator<Item = IpAddr>, mtu_bytes: u32) -> Self {
        Self { key: key.into(), addresses: addresses.into_iter().collect(), mtu_bytes }
    }

    /// The name of the machine's end of the cable.
    #[must_use]
    pub fn host_link(&self) -> String {
        host_link_name(&self.key)
    }

    /// The kernel parameters that matter, each in the namespace of that side.
    #[must_use]
    pub fn sysctls(&self) -> BTreeMap<(Side, String), &'static str> {
        let host = self.host_link();
        let mut found = BTreeMap::new();
        if self.has(false) {
            // A pod cannot send from addresses that are not its own.
            found.insert((Side::Host, format!("net.ipv4.conf.{host}.rp_filter")), "1");
            found.insert((Side::Host, format!("net.ipv4.conf.{host}.forwarding")), "1");
        }
        if self.has(true) {
            found.insert((Side::Host, format!("net.ipv6.conf.{host}.forwarding")), "1");
            found.insert((Side::Pod, format!("net.ipv6.conf.{POD_LINK}.disable_ipv6")), "0");
            // The next hop is known; what others advertise does not count.
            found.insert((Side::Pod, format!("net.ipv6.conf.{POD_LINK}.accept_ra")), "0");
        }
        found
    }

    fn has(&self, ipv6: bool) -> bool {
        self.addresses.iter().any(|ip| ip.is_ipv6() == ipv6)
    }

    fn families(&self) -> impl Iterator<Item = bool> {
        [false, true].into_iter().filter(|ipv6| self.has(*ipv6))
    }
}

/// An end of the cable.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Side {
    /// The machine's.
    Host,
    /// The pod's.
    Pod,
}

/// A route that leaves by one end of the cable.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct LinkRoute {
    /// Where to.
    pub destination: IpNet,
    /// The next hop; `None` if the destination is at the other end.
    pub gateway: Option<IpAddr>,
}

/// One end of the cable as it was found.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct LinkState {
    /// Its index in its namespace.
    pub index: u32,
    /// Whether it is an end of a virtual cable at all.
    pub veth: bool,
    /// The index of the other end in that end's namespace.
    pub peer: Option<u32>,
    /// The hardware address.
    pub mac: Option<[u8; 6]>,
    /// The largest packet, in bytes.
    pub mtu_bytes: u32,
    /// Whether it is up.
    pub up: bool,
    /// Its addresses, but for link-local ones.
    pub addresses: Vec<IpNet>,
    /// The routes of the main table that leave by it.
    pub routes: Vec<LinkRoute>,
    /// Its permanent neighbours.
    pub neighbours: Vec<(IpAddr, [u8; 6])>,
}

/// What was found.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Observed {
    /// The machine's end.
    pub host: Option<LinkState>,
    /// What the pod has under the name `eth0`.
    pub pod: Option<LinkState>,
    /// Whether the pod's loopback is up.
    pub loopback_up: bool,
    /// The values of the [`Attachment::sysctls`] that exist.
    pub sysctls: BTreeMap<(Side, String), String>,
}

/// One step.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Op {
    /// Delete an end, and the other with it.
    Delete(Side),
    /// Make the cable.
    CreatePair,
    /// Set the hardware address.
    SetMac(Side, [u8; 6]),
    /// Set the largest packet, in bytes.
    SetMtu(Side, u32),
    /// Set a kernel parameter in the namespace of that side.
    Sysctl {
        /// The side.
        side: Side,
        /// The parameter.
        name: String,
        /// Its value.
        value: &'static str,
    },
    /// Set an end up.
    SetUp(Side),
    /// Set the pod's loopback up.
    LoopbackUp,
    /// Give an end an address.
    AddAddress(Side, IpNet),
    /// Take an address from an end.
    DeleteAddress(Side, IpNet),
    /// Add a route, or put it in the place of the one to the same destination.
    AddRoute(Side, LinkRoute),
    /// Delete a route.
    DeleteRoute(Side, LinkRoute),
    /// Add a permanent neighbour.
    AddNeighbour(Side, IpAddr, [u8; 6]),
}

/// What a new virtual cable has.
const NEW_LINK_MTU_BYTES: u32 = 1500;

const fn host_net(ip: IpAddr) -> IpNet {
    match ip {
        IpAddr::V4(ip) => IpNet::new_assert(IpAddr::V4(ip), 32),
        IpAddr::V6(ip) => IpNet::new_assert(IpAddr::V6(ip), 128),
    }
}

const fn gateway(ipv6: bool) -> IpAddr {
    if ipv6 { IpAddr::V6(GATEWAY_IPV6) } else { IpAddr::V4(GATEWAY_IPV4) }
}

const fn everything(ipv6: bool) -> IpNet {
    match ipv6 {
        false => IpNet::new_assert(IpAddr::V4(Ipv4Addr::UNSPECIFIED), 0),
        true => IpNet::new_assert(IpAddr::V6(Ipv6Addr::UNSPECIFIED), 0),
    }
}

/// The operations that attach the pod, in order; none if it is attached.
///
/// # Errors
/// [`CniError::NoAddress`]; [`CniError::ForeignLink`] if the pod or the machine has an interface of the name that is no
/// virtual cable.
pub fn plan_add(wanted: &Attachment, found: &Observed) -> Result<Vec<Op>, CniError> {
    if wanted.addresses.is_empty() {
        return Err(CniError::NoAddress);
    }
    let foreign = |link: &Option<LinkState>| link.as_ref().is_some_and(|link| !link.veth);
    if foreign(&found.host) {
        return Err(CniError::ForeignLink { link: wanted.host_link() });
    }
    if foreign(&found.pod) {
        return Err(CniError::ForeignLink { link: POD_LINK.into() });
    }
    let mut ops = Vec::new();
    let pair = match (&found.host, &found.pod) {
        (Some(host), Some(pod)) => host.peer == Some(pod.index) && pod.peer == Some(host.index),
        _ => false,
    };
    let fresh = LinkState { mtu_bytes: NEW_LINK_MTU_BYTES, ..LinkState::default() };
    let (host, pod) = match (&found.host, &found.pod) {
        (Some(host), Some(pod)) if pair => (host, pod),
        (host, pod) => {
            // Half a cable, or two halves of different ones: what is left of another life of the pod.
            if host.is_some() {
                ops.push(Op::Delete(Side::Host));
            }
            if pod.is_some() {
                ops.push(Op::Delete(Side::Pod));
            }
            ops.push(Op::CreatePair);
            (&fresh, &fresh)
        }
    };
    // A new cable has the parameters of a new interface, whatever an old one of its name had.
    let known = if pair { Some(&found.sysctls) } else { None };
    let sysctls = |side: Side, ops: &mut Vec<Op>| {
        for ((of, name), value) in wanted.sysctls() {
            let key = (of, name);
            if of == side && known.and_then(|k| k.get(&key)).map(String::as_str) != Some(value) {
                ops.push(Op::Sysctl { side, name: key.1, value });
            }
        }
    };

    if host.mac != Some(HOST_MAC) {
        ops.push(Op::SetMac(Side::Host, HOST_MAC));
    }
    if host.mtu_bytes != wanted.mtu_bytes {
        ops.push(Op::SetMtu(Side::Host, wanted.mtu_bytes));
    }
    sysctls(Side::Host, &mut ops);
    if !host.up {
        ops.push(Op::SetUp(Side::Host));
    }

    if !found.loopback_up {
        ops.push(Op::LoopbackUp);
    }
    if pod.mtu_bytes != wanted.mtu_bytes {
        ops.push(Op::SetMtu(Side::Pod, wanted.mtu_bytes));
    }
    sysctls(Side::Pod, &mut ops);
    if !pod.up {
        ops.push(Op::SetUp(Side::Pod));
    }
    let addresses: Vec<IpNet> = wanted.addresses.iter().copied().map(host_net).collect();
    let strange = pod.addresses.iter().filter(|net| !addresses.contains(net));
    ops.extend(strange.map(|net| Op::DeleteAddress(Side::Pod, *net)));
    let missing = addresses.iter().filter(|net| !pod.addresses.contains(net));
    ops.extend(missing.map(|net| Op::AddAddress(Side::Pod, *net)));
    for ipv6 in wanted.families() {
        let via = gateway(ipv6);
        if !pod.neighbours.contains(&(via, HOST_MAC)) {
            ops.push(Op::AddNeighbour(Side::Pod, via, HOST_MAC));
        }
        let to_gateway = LinkRoute { destination: host_net(via), gateway: None };
        let default = LinkRoute { destination: everything(ipv6), gateway: Some(via) };
        for route in [to_gateway, default] {
            if !pod.routes.contains(&route) {
                ops.push(Op::AddRoute(Side::Pod, route));
            }
        }
    }

    // Last: from here on, packets find the pod.
    let routes: Vec<LinkRoute> =
        addresses.iter().map(|net| LinkRoute { destination: *net, gateway: None }).collect();
    let strange = host.routes.iter().filter(|route| !routes.contains(route) && !is_link_local(route));
    ops.extend(strange.map(|route| Op::DeleteRoute(Side::Host, *route)));
    let missing = routes.iter().filter(|route| !host.routes.contains(route));
    ops.extend(missing.map(|route| Op::AddRoute(Side::Host, *route)));
    Ok(ops)
}

/// The kernel's own route to link-local addresses.
fn is_link_local(route: &LinkRoute) -> bool {
    match route.destination.addr() {
        IpAddr::V4(_) => false,
        IpAddr::V6(ip) => ip.is_unicast_link_local() || ip.is_multicast(),
    }
}

/// What would have to be done to a pod that should be attached; none if all is well.
#[must_use]
pub fn plan_check(wanted: &Attachment, found: &Observed) -> Vec<Op> {
    plan_add(wanted, found).unwrap_or_else(|_| Vec::from([Op::CreatePair]))
}

/// The operations that detach a pod; its routes and its `eth0` go with the cable.
#[must_use]
pub fn plan_delete(found: &Observed) -> Vec<Op> {
    found.host.iter().filter(|link| link.veth).map(|_| Op::Delete(Side::Host)).collect()
}
