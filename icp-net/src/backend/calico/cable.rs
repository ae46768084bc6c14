//! Looks at a pod's cable and does what a plan says.

use std::format;
use std::fs::File;
use std::io;
use std::net::IpAddr;
use std::os::fd::AsFd;
use std::string::{String, ToString};
use std::time::Duration;
use std::vec::Vec;

use ipnet::IpNet;

use super::NodeNetworkError;
use crate::backend::netlink::NetlinkError;
use crate::backend::netns;
use crate::backend::rtnl::{
    Link, LinkKind, Neighbour, NeighbourFamily, Route, Rtnl, Target, VethPeer, protocol, sysctl, table,
};
use crate::calico::cni::{Attachment, LinkRoute, LinkState, Observed, Op, POD_LINK, Side};

/// Connections to the machine's namespace and to a pod's. It belongs to a thread that ends with it, because the
/// thread goes from one namespace to the other.
pub(super) struct Cable<'a> {
    home: &'a File,
    namespace: &'a File,
    inside: Side,
    host: Rtnl,
    pod: Rtnl,
}

const SETTLE_TRIES_MAX: u32 = 100;
const SETTLE_PAUSE: Duration = Duration::from_millis(1);

fn entering(e: io::Error) -> NodeNetworkError {
    NodeNetworkError::Namespace { what: "enter the network namespace".into(), why: e.to_string() }
}

/// The link called `name`, if there is one.
pub(super) fn find(rtnl: &mut Rtnl, name: &str) -> Result<Option<Link>, NetlinkError> {
    match rtnl.link(name) {
        Ok(link) => Ok(Some(link)),
        Err(e) if e.is_missing() => Ok(None),
        Err(e) => Err(e),
    }
}

fn is_global(net: &IpNet) -> bool {
    match net.addr() {
        IpAddr::V4(_) => true,
        IpAddr::V6(ip) => !ip.is_unicast_link_local(),
    }
}

fn state(rtnl: &mut Rtnl, link: &Link) -> Result<LinkState, NetlinkError> {
    let routes = rtnl.routes(Some(table::MAIN))?.into_iter().filter(|r| r.link == Some(link.index));
    let neighbours = rtnl.neighbours(link.index, NeighbourFamily::Ip)?;
    Ok(LinkState {
        index: link.index,
        veth: link.kind == LinkKind::Veth,
        peer: link.peer,
        mac: link.mac,
        mtu_bytes: link.mtu_bytes,
        up: link.up,
        addresses: rtnl.addresses(Some(link.index))?.into_iter().map(|a| a.net).filter(is_global).collect(),
        routes: routes.map(|r| LinkRoute { destination: r.destination, gateway: r.gateway }).collect(),
        neighbours: neighbours.into_iter().map(|n| (n.ip, n.mac)).collect(),
    })
}

impl<'a> Cable<'a> {
    /// Opens both connections. The calling thread is left in the pod's namespace.
    pub(super) fn open(home: &'a File, namespace: &'a File) -> Result<Self, NodeNetworkError> {
        netns::enter(home).map_err(entering)?;
        let host = Rtnl::open()?;
        netns::enter(namespace).map_err(entering)?;
        let pod = Rtnl::open()?;
        Ok(Self { home, namespace, inside: Side::Pod, host, pod })
    }

    fn enter(&mut self, side: Side) -> Result<(), NodeNetworkError> {
        if self.inside != side {
            let namespace = if side == Side::Host { self.home } else { self.namespace };
            netns::enter(namespace).map_err(entering)?;
            self.inside = side;
        }
        Ok(())
    }

    fn rtnl(&mut self, side: Side) -> &mut Rtnl {
        if side == Side::Host { &mut self.host } else { &mut self.pod }
    }

    pub(super) fn observe(&mut self, of: &Attachment) -> Result<Observed, NodeNetworkError> {
        let mut found = Observed::default();
        if let Some(link) = find(&mut self.host, &of.host_link())? {
            found.host = Some(state(&mut self.host, &link)?);
        }
        if let Some(link) = find(&mut self.pod, POD_LINK)? {
            found.pod = Some(state(&mut self.pod, &link)?);
        }
        found.loopback_up = find(&mut self.pod, "lo")?.is_some_and(|link| link.up);
        if found.host.is_some() && found.pod.is_some() {
            for (side, name) in of.sysctls().into_keys() {
                self.enter(side)?;
                // A parameter that cannot be read differs from what it should be; writing it then says why.
                if let Ok(value) = sysctl::get(&name) {
                    found.sysctls.insert((side, name), value);
                }
            }
        }
        Ok(found)
    }

    pub(super) fn perform(&mut self, of: &Attachment, ops: &[Op]) -> Result<(), NodeNetworkError> {
        let host_name = of.host_link();
        let name = |side: Side| if side == Side::Host { host_name.clone() } else { String::from(POD_LINK) };
        let mut index = [None, None];
        for op in ops {
            let mut at = |cable: &mut Self, side: Side| -> Result<u32, NetlinkError> {
                let slot = if side == Side::Host { &mut index[0] } else { &mut index[1] };
                match slot {
                    Some(index) => Ok(*index),
                    None => Ok(*slot.insert(cable.rtnl(side).link(&name(side))?.index)),
                }
            };
            match op {
                Op::Delete(side) => {
                    match find(self.rtnl(*side), &name(*side))?.map(|l| self.rtnl(*side).delete_link(l.index))
                    {
                        // The other end's deletion, or the end of its namespace, was faster.
                        Some(Err(e)) if !e.is_missing() => return Err(e.into()),
                        _ => index = [None, None],
                    }
                }
                Op::CreatePair => {
                    let peer = VethPeer {
                        name: POD_LINK,
                        namespace: Some(Target::Fd(self.namespace.as_fd())),
                        mac: None,
                        mtu_bytes: None,
                    };
                    index = [Some(self.host.create_veth(&host_name, peer)?), None];
                }
                Op::SetMac(side, mac) => {
                    let link = at(self, *side)?;
                    self.rtnl(*side).set_mac(link, *mac)?;
                }
                Op::SetMtu(side, bytes) => {
                    let link = at(self, *side)?;
                    self.rtnl(*side).set_mtu(link, *bytes)?;
                }
                Op::Sysctl { side, name, value } => {
                    self.enter(*side)?;
                    sysctl::set(name, value).map_err(|e| NodeNetworkError::Namespace {
                        what: format!("set {name} to {value}"),
                        why: e.to_string(),
                    })?;
                }
                Op::SetUp(side) => {
                    let link = at(self, *side)?;
                    self.rtnl(*side).set_up(link)?;
                }
                Op::LoopbackUp => {
                    let link = self.pod.link("lo")?.index;
                    self.pod.set_up(link)?;
                }
                Op::AddAddress(side, net) => {
                    let link = at(self, *side)?;
                    self.rtnl(*side).replace_address(link, *net)?;
                }
                Op::DeleteAddress(side, net) => {
                    let link = at(self, *side)?;
                    self.rtnl(*side).delete_address(link, *net)?;
                }
                Op::AddRoute(side, route) => {
                    let link = at(self, *side)?;
                    self.rtnl(*side).replace_route(&on_link(route, link))?;
                }
                Op::DeleteRoute(side, route) => {
                    let link = at(self, *side)?;
                    self.delete_route(*side, &on_link(route, link))?;
                }
                Op::AddNeighbour(side, ip, mac) => {
                    let link = at(self, *side)?;
                    let neighbour = Neighbour { link, family: NeighbourFamily::Ip, ip: *ip, mac: *mac };
                    self.rtnl(*side).replace_neighbour(&neighbour)?;
                }
            }
        }
        Ok(())
    }

    /// Waits a moment for both ends to send: the kernel starts their queues later than it sets them up, and drops what
    /// comes between, so that a pod's first connection would take a second more.
    #[expect(clippy::disallowed_methods, reason = "the kernel is asked again after a pause")]
    pub(super) fn settle(&mut self, of: &Attachment) -> Result<(), NodeNetworkError> {
        for _ in 0..SETTLE_TRIES_MAX {
            if self.host.link(&of.host_link())?.running && self.pod.link(POD_LINK)?.running {
                break;
            }
            std::thread::sleep(SETTLE_PAUSE);
        }
        Ok(())
    }

    /// Deletes a route whoever made it.
    fn delete_route(&mut self, side: Side, route: &Route) -> Result<(), NetlinkError> {
        let same =
            |r: &Route| (r.destination, r.gateway, r.link) == (route.destination, route.gateway, route.link);
        let found: Vec<Route> = self.rtnl(side).routes(Some(table::MAIN))?.into_iter().filter(same).collect();
        found.iter().try_for_each(|r| self.rtnl(side).delete_route(r))
    }
}

fn on_link(route: &LinkRoute, link: u32) -> Route {
    let plain = Route::on(route.destination, link);
    // The number that the CNI plugin's routes have; what the route machine sweeps has another.
    Route { gateway: route.gateway, protocol: protocol::BOOT, ..plain }
}
