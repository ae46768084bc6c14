//! The lab's network: one bridge, and a machine's end of it.

use std::fs::File;
use std::io;
use std::net::{IpAddr, Ipv4Addr};
use std::os::fd::{AsFd, OwnedFd};

use icp_net::backend::netlink::NetlinkError;
use icp_net::backend::netns;
use icp_net::backend::rtnl::{Mac, Route, Rtnl, Target, VethPeer, sysctl};
use ipnet::{IpNet, Ipv4Net};
use rustix::net::{AddressFamily, SocketFlags, SocketType, socket_with};

use super::wire::SocketKind;

/// The machines' interface.
const INTERFACE: &str = "eth0";
const BRIDGE: &str = "lab0";

/// The network as the lab's root, in whose network namespace the bridge is, sees it.
#[derive(Debug)]
pub(super) struct LabNet {
    rtnl: Rtnl,
    bridge: u32,
    subnet: Ipv4Net,
    gateway: Ipv4Addr,
}

/// A machine's network.
#[derive(Debug)]
pub(super) struct MachineNet {
    /// The machine's network namespace.
    pub namespace: File,
    /// The link on the bridge that leads to it.
    port: u32,
}

impl LabNet {
    /// Makes the bridge in the present network namespace.
    pub(super) fn build(subnet: Ipv4Net, gateway: Ipv4Addr) -> Result<Self, String> {
        let make = || -> Result<Self, NetlinkError> {
            let mut rtnl = Rtnl::open()?;
            let lo = rtnl.link("lo")?.index;
            rtnl.set_up(lo)?;
            let bridge = rtnl.create_bridge(BRIDGE)?;
            rtnl.set_mac(bridge, mac(gateway))?;
            // No router asks for listeners here, so that a snooping bridge would soon drop the virtual address's packets.
            rtnl.set_multicast_snooping(bridge, false)?;
            rtnl.add_address(bridge, net(gateway, subnet))?;
            rtnl.set_up(bridge)?;
            Ok(Self { rtnl, bridge, subnet, gateway })
        };
        let lab = make().map_err(|e| format!("cannot make a bridge: {e}"))?;
        forward().map_err(|e| format!("cannot set net.ipv4.ip_forward: {e}"))?;
        Ok(lab)
    }

    /// Makes a network namespace with `eth0` on the bridge.
    pub(super) fn add(&mut self, address: Ipv4Addr) -> Result<MachineNet, String> {
        let namespace = netns::create().map_err(|e| format!("cannot make a network namespace: {e}"))?;
        let name = format!("m{:08x}", u32::from(address));
        let peer = VethPeer {
            name: INTERFACE,
            namespace: Some(Target::Fd(namespace.as_fd())),
            mac: Some(mac(address)),
            mtu_bytes: None,
        };
        let port = self.rtnl.create_veth(&name, peer).map_err(|e| format!("cannot make a veth pair: {e}"))?;
        let plugged = self.rtnl.set_master(port, Some(self.bridge)).and_then(|()| self.rtnl.set_up(port));
        let inside = netns::within(&namespace, || self.inside(address));
        let done = plugged
            .map_err(|e| format!("cannot plug {name} in: {e}"))
            .and_then(|()| inside.map_err(|e| format!("cannot enter a network namespace: {e}")))
            .and_then(|inside| inside);
        match done {
            Ok(()) => Ok(MachineNet { namespace, port }),
            Err(reason) => {
                let _ = self.rtnl.delete_link(port);
                Err(reason)
            }
        }
    }

    /// Sets up the machine's side, in its namespace.
    fn inside(&self, address: Ipv4Addr) -> Result<(), String> {
        let links = || -> Result<(), NetlinkError> {
            let mut rtnl = Rtnl::open()?;
            for (name, own) in [("lo", None), (INTERFACE, Some(net(address, self.subnet)))] {
                let link = rtnl.link(name)?.index;
                if let Some(own) = own {
                    rtnl.add_address(link, own)?;
                }
                rtnl.set_up(link)?;
            }
            let everywhere = IpNet::new_assert(IpAddr::from([0; 4]), 0);
            rtnl.add_route(&Route::via(everywhere, self.gateway.into()))
        };
        links().map_err(|e| e.to_string())?;
        forward().map_err(|e| format!("net.ipv4.ip_forward: {e}"))
    }

    /// Takes a machine off the bridge for good, and its addresses with it, whoever else still holds its namespace.
    pub(super) fn remove(&mut self, machine: &MachineNet) -> Result<(), String> {
        match self.rtnl.delete_link(machine.port) {
            Err(e) if !e.is_missing() => Err(format!("cannot take the machine off the bridge: {e}")),
            _ => Ok(()),
        }
    }

    /// Plugs the machine's cable in, or pulls it: its `eth0` has carrier, or none.
    pub(super) fn plug(&mut self, machine: &MachineNet, plugged: bool) -> Result<(), String> {
        let port = machine.port;
        let done = if plugged { self.rtnl.set_up(port) } else { self.rtnl.set_down(port) };
        done.map_err(|e| format!("cannot plug or pull a cable: {e}"))
    }
}

/// Makes a socket in the machine's network, or in the present one.
pub(super) fn socket(machine: Option<&MachineNet>, kind: SocketKind) -> io::Result<OwnedFd> {
    let make = || {
        let kind = match kind {
            SocketKind::Tcp => SocketType::STREAM,
            SocketKind::Udp => SocketType::DGRAM,
        };
        socket_with(AddressFamily::INET, kind, SocketFlags::CLOEXEC | SocketFlags::NONBLOCK, None)
    };
    let made = match machine {
        Some(machine) => netns::within(&machine.namespace, make)?,
        None => make(),
    };
    Ok(made?)
}

fn forward() -> io::Result<()> {
    sysctl::set("net.ipv4.ip_forward", "1")?;
    // Virtual and pod addresses come and go by other ways than they answer; the system's default differs from one
    // distribution to the next.
    for name in ["net.ipv4.conf.all.rp_filter", "net.ipv4.conf.default.rp_filter"] {
        let _ = sysctl::set(name, "0");
    }
    Ok(())
}

/// The same hardware address at each power-on, so that nobody's neighbour table goes stale.
fn mac(address: Ipv4Addr) -> Mac {
    let [a, b, c, d] = address.octets();
    [0x02, 0x1c, a, b, c, d]
}

fn net(address: Ipv4Addr, subnet: Ipv4Net) -> IpNet {
    IpNet::new_assert(address.into(), subnet.prefix_len())
}
