//! Links: bridges, veth pairs, VXLAN devices.

use std::borrow::ToOwned;
use std::format;
use std::net::Ipv4Addr;
use std::os::fd::{AsRawFd, BorrowedFd};
use std::string::String;
use std::vec::Vec;

use super::Rtnl;
use crate::backend::netlink::{Encoder, NetlinkError, attributes, flag};

const RTM_NEWLINK: u16 = 16;
const RTM_DELLINK: u16 = 17;
const RTM_GETLINK: u16 = 18;
const RTM_SETLINK: u16 = 19;
const AF_BRIDGE: u8 = 7;
const IFLA_PROTINFO: u16 = 12;
const IFLA_BRPORT_MODE: u16 = 4;

const IFLA_ADDRESS: u16 = 1;
const IFLA_IFNAME: u16 = 3;
const IFLA_MTU: u16 = 4;
const IFLA_LINK: u16 = 5;
const IFLA_MASTER: u16 = 10;
const IFLA_LINKINFO: u16 = 18;
const IFLA_NET_NS_PID: u16 = 19;
const IFLA_NET_NS_FD: u16 = 28;
const IFLA_INFO_KIND: u16 = 1;
const IFLA_INFO_DATA: u16 = 2;
const VETH_INFO_PEER: u16 = 1;
const IFLA_BR_MCAST_SNOOPING: u16 = 23;
const IFLA_VXLAN_ID: u16 = 1;
const IFLA_VXLAN_LINK: u16 = 3;
const IFLA_VXLAN_LOCAL: u16 = 4;
const IFLA_VXLAN_LEARNING: u16 = 7;
const IFLA_VXLAN_PORT: u16 = 15;

const IFF_UP: u32 = 0x1;
const IFF_RUNNING: u32 = 0x40;
const IFF_LOWER_UP: u32 = 0x1_0000;
const INFO_BYTES: usize = 16;

/// A hardware address.
pub type Mac = [u8; 6];

/// What sort of link it is, as far as this crate makes or tells them apart.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum LinkKind {
    /// A software switch.
    Bridge,
    /// One end of a virtual cable.
    Veth,
    /// A VXLAN tunnel end point.
    Vxlan,
    /// A link without link information: loopback, hardware.
    Plain,
    /// Any other kind, by the kernel's name.
    Other(String),
}

/// A link as the kernel reports it.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Link {
    /// The interface index, unique in its network namespace.
    pub index: u32,
    /// The name.
    pub name: String,
    /// What sort it is.
    pub kind: LinkKind,
    /// The hardware address, if it is an Ethernet one.
    pub mac: Option<Mac>,
    /// The largest packet, in bytes.
    pub mtu_bytes: u32,
    /// The bridge (or other device) that it belongs to.
    pub master: Option<u32>,
    /// The index of the other end of a veth, in that end's own namespace.
    pub peer: Option<u32>,
    /// Whether it was set up.
    pub up: bool,
    /// Whether it has carrier.
    pub carrier: bool,
    /// Whether it sends: a while after it has carrier, until which it drops what it is given.
    pub running: bool,
}

/// A network namespace to move a link into.
#[derive(Clone, Copy, Debug)]
pub enum Target<'a> {
    /// By an open `/proc/.../ns/net`.
    Fd(BorrowedFd<'a>),
    /// By a process in it.
    Pid(u32),
}

impl Target<'_> {
    fn write(self, e: &mut Encoder) {
        match self {
            Self::Fd(fd) => e.attr(IFLA_NET_NS_FD, &fd.as_raw_fd().to_ne_bytes()),
            Self::Pid(pid) => e.u32(IFLA_NET_NS_PID, pid),
        };
    }
}

/// The far end of a veth pair.
#[derive(Clone, Copy, Debug)]
pub struct VethPeer<'a> {
    /// Its name in the namespace where it comes to be.
    pub name: &'a str,
    /// Where it comes to be; `None` for the same namespace.
    pub namespace: Option<Target<'a>>,
    /// Its hardware address; `None` for the kernel's choice.
    pub mac: Option<Mac>,
    /// Its MTU in bytes; `None` for the kernel's choice.
    pub mtu_bytes: Option<u32>,
}

/// A VXLAN device (RFC 7348) whose forwarding is programmed, not learnt.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Vxlan {
    /// The network identifier, 24 bits.
    pub vni: u32,
    /// The UDP port, 4789 by the standard.
    pub port: u16,
    /// The address packets are sent from.
    pub local: Option<Ipv4Addr>,
    /// The index of the link packets leave by.
    pub parent: Option<u32>,
    /// The hardware address; `None` for the kernel's choice.
    pub mac: Option<Mac>,
}

fn info(e: &mut Encoder, index: u32, flags: u32, change: u32) {
    e.raw(&[0; 4]).raw(&index.to_ne_bytes()).raw(&flags.to_ne_bytes()).raw(&change.to_ne_bytes());
}

impl Rtnl {
    /// All links of the namespace, by index.
    ///
    /// # Errors
    /// Any of [`NetlinkError`].
    pub fn links(&mut self) -> Result<Vec<Link>, NetlinkError> {
        let mut links = self.channel.dump(
            RTM_GETLINK,
            "links",
            |e| info(e, 0, 0, 0),
            Vec::new,
            |links, kind, payload| {
                if kind == RTM_NEWLINK {
                    links.extend(decode(payload));
                }
            },
        )?;
        links.sort_by_key(|l| l.index);
        Ok(links)
    }

    /// The link called `name`.
    ///
    /// # Errors
    /// [`NetlinkError::Missing`] if there is none.
    pub fn link(&mut self, name: &str) -> Result<Link, NetlinkError> {
        let object = format!("link {name}");
        let payload = self.channel.get(RTM_GETLINK, &object, |e| {
            info(e, 0, 0, 0);
            e.str(IFLA_IFNAME, name);
        });
        match payload {
            Ok(payload) => decode(&payload).ok_or(NetlinkError::Malformed { object }),
            Err(e) if e.is_missing() => Err(NetlinkError::Missing { object }),
            Err(e) => Err(e),
        }
    }

    fn create(
        &mut self,
        name: &str,
        kind: &str,
        mac: Option<Mac>,
        data: impl FnOnce(&mut Encoder),
    ) -> Result<u32, NetlinkError> {
        let object = format!("create {kind} {name}");
        self.channel.request(RTM_NEWLINK, flag::CREATE | flag::EXCL, &object, |e| {
            info(e, 0, 0, 0);
            e.str(IFLA_IFNAME, name);
            if let Some(mac) = mac {
                e.attr(IFLA_ADDRESS, &mac);
            }
            e.nested_unmarked(IFLA_LINKINFO, |e| {
                e.str(IFLA_INFO_KIND, kind);
                e.nested_unmarked(IFLA_INFO_DATA, data);
            });
        })?;
        Ok(self.link(name)?.index)
    }

    /// Makes a bridge and returns its index. It is down, without spanning tree.
    ///
    /// # Errors
    /// `EEXIST` if the name is taken.
    pub fn create_bridge(&mut self, name: &str) -> Result<u32, NetlinkError> {
        self.create(name, "bridge", None, |_| {})
    }

    /// Makes a veth pair and returns the index of the near end; both ends are down.
    ///
    /// # Errors
    /// `EEXIST` if a name is taken, `EINVAL` or `ESRCH` if the peer's namespace is gone.
    pub fn create_veth(&mut self, name: &str, peer: VethPeer<'_>) -> Result<u32, NetlinkError> {
        self.create(name, "veth", None, |e| {
            e.nested_unmarked(VETH_INFO_PEER, |e| {
                info(e, 0, 0, 0);
                e.str(IFLA_IFNAME, peer.name);
                if let Some(mac) = peer.mac {
                    e.attr(IFLA_ADDRESS, &mac);
                }
                if let Some(mtu_bytes) = peer.mtu_bytes {
                    e.u32(IFLA_MTU, mtu_bytes);
                }
                if let Some(target) = peer.namespace {
                    target.write(e);
                }
            });
        })
    }

    /// Makes a VXLAN device that does not learn and returns its index.
    ///
    /// # Errors
    /// `EEXIST` if the name, or the network identifier on this port, is taken.
    pub fn create_vxlan(&mut self, name: &str, vxlan: &Vxlan) -> Result<u32, NetlinkError> {
        self.create(name, "vxlan", vxlan.mac, |e| {
            e.u32(IFLA_VXLAN_ID, vxlan.vni).be16(IFLA_VXLAN_PORT, vxlan.port).u8(IFLA_VXLAN_LEARNING, 0);
            if let Some(local) = vxlan.local {
                e.attr(IFLA_VXLAN_LOCAL, &local.octets());
            }
            if let Some(parent) = vxlan.parent {
                e.u32(IFLA_VXLAN_LINK, parent);
            }
        })
    }

    /// Deletes a link; the other end of a veth goes with it.
    ///
    /// # Errors
    /// `ENODEV` if there is none.
    pub fn delete_link(&mut self, index: u32) -> Result<(), NetlinkError> {
        self.channel.request(RTM_DELLINK, 0, &format!("delete link {index}"), |e| info(e, index, 0, 0))
    }

    fn change(
        &mut self,
        index: u32,
        what: &str,
        flags: (u32, u32),
        body: impl FnOnce(&mut Encoder),
    ) -> Result<(), NetlinkError> {
        self.channel.request(RTM_NEWLINK, 0, &format!("link {index}: {what}"), |e| {
            info(e, index, flags.0, flags.1);
            body(e);
        })
    }

    /// Sets a link up.
    ///
    /// # Errors
    /// `ENODEV` if there is none.
    pub fn set_up(&mut self, index: u32) -> Result<(), NetlinkError> {
        self.change(index, "up", (IFF_UP, IFF_UP), |_| {})
    }

    /// Sets a link down; its routes go away.
    ///
    /// # Errors
    /// `ENODEV` if there is none.
    pub fn set_down(&mut self, index: u32) -> Result<(), NetlinkError> {
        self.change(index, "down", (0, IFF_UP), |_| {})
    }

    /// Sets the largest packet, in bytes.
    ///
    /// # Errors
    /// `EINVAL` if the device cannot.
    pub fn set_mtu(&mut self, index: u32, mtu_bytes: u32) -> Result<(), NetlinkError> {
        self.change(index, "MTU", (0, 0), |e| {
            e.u32(IFLA_MTU, mtu_bytes);
        })
    }

    /// Puts a link into a bridge, or takes it out.
    ///
    /// # Errors
    /// `EBUSY`, `ELOOP` or `EINVAL` if the kernel will not have it there.
    pub fn set_master(&mut self, index: u32, master: Option<u32>) -> Result<(), NetlinkError> {
        self.change(index, "master", (0, 0), |e| {
            e.u32(IFLA_MASTER, master.unwrap_or(0));
        })
    }

    /// Lets a bridge send frames back out of the port they came by, or not.
    ///
    /// A pod on a bridge that calls a service of its own needs it wherever `br_netfilter` translates bridged frames.
    ///
    /// # Errors
    /// `EINVAL` or `EOPNOTSUPP` if the link is no port of a bridge.
    pub fn set_hairpin(&mut self, port: u32, on: bool) -> Result<(), NetlinkError> {
        self.channel.request(RTM_SETLINK, 0, &format!("link {port}: hairpin"), |e| {
            e.raw(&[AF_BRIDGE, 0, 0, 0]).raw(&port.to_ne_bytes()).raw(&[0; 8]);
            e.nested(IFLA_PROTINFO, |e| {
                e.u8(IFLA_BRPORT_MODE, u8::from(on));
            });
        })
    }

    /// Lets a bridge send multicast only where a listener was heard, or everywhere.
    ///
    /// Without a querier on the link, a bridge that snoops forgets its listeners.
    ///
    /// # Errors
    /// `EOPNOTSUPP` if the link is no bridge.
    pub fn set_multicast_snooping(&mut self, bridge: u32, on: bool) -> Result<(), NetlinkError> {
        self.change(bridge, "multicast snooping", (0, 0), |e| {
            e.nested_unmarked(IFLA_LINKINFO, |e| {
                e.str(IFLA_INFO_KIND, "bridge");
                e.nested_unmarked(IFLA_INFO_DATA, |e| {
                    e.u8(IFLA_BR_MCAST_SNOOPING, u8::from(on));
                });
            });
        })
    }

    /// Sets the hardware address.
    ///
    /// # Errors
    /// `EADDRNOTAVAIL` or `EOPNOTSUPP` if the device will not have it.
    pub fn set_mac(&mut self, index: u32, mac: Mac) -> Result<(), NetlinkError> {
        self.change(index, "hardware address", (0, 0), |e| {
            e.attr(IFLA_ADDRESS, &mac);
        })
    }

    /// Renames a link that is down.
    ///
    /// # Errors
    /// `EEXIST` if the name is taken, `EBUSY` if the link is up (older kernels).
    pub fn rename(&mut self, index: u32, name: &str) -> Result<(), NetlinkError> {
        self.change(index, "name", (0, 0), |e| {
            e.str(IFLA_IFNAME, name);
        })
    }

    /// Moves a link into another network namespace, where it is down and gets a new index if its own is taken.
    ///
    /// # Errors
    /// `EINVAL` or `ESRCH` if the namespace is gone, `EPERM` without rights there.
    pub fn move_link(&mut self, index: u32, target: Target<'_>) -> Result<(), NetlinkError> {
        self.change(index, "network namespace", (0, 0), |e| target.write(e))
    }
}

fn decode(payload: &[u8]) -> Option<Link> {
    let index = payload.get(4..8)?.try_into().ok().map(u32::from_ne_bytes)?;
    let flags = payload.get(8..12)?.try_into().ok().map(u32::from_ne_bytes)?;
    let mut link = Link {
        index,
        name: String::new(),
        kind: LinkKind::Plain,
        mac: None,
        mtu_bytes: 0,
        master: None,
        peer: None,
        up: flags & IFF_UP != 0,
        carrier: flags & IFF_LOWER_UP != 0,
        running: flags & IFF_RUNNING != 0,
    };
    for a in attributes(payload.get(INFO_BYTES..)?) {
        match a.kind {
            IFLA_IFNAME => a.str().clone_into(&mut link.name),
            IFLA_ADDRESS if a.value.len() == 6 => link.mac = a.array(),
            IFLA_MTU => link.mtu_bytes = a.u32().unwrap_or(0),
            IFLA_MASTER => link.master = a.u32(),
            IFLA_LINK => link.peer = a.u32(),
            IFLA_LINKINFO => {
                let kind = a.nested().find(|n| n.kind == IFLA_INFO_KIND).map_or("", |n| n.str());
                link.kind = match kind {
                    "bridge" => LinkKind::Bridge,
                    "veth" => LinkKind::Veth,
                    "vxlan" => LinkKind::Vxlan,
                    "" => LinkKind::Plain,
                    other => LinkKind::Other(other.to_owned()),
                };
            }
            _ => {}
        }
    }
    Some(link)
}
