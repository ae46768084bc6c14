//! Neighbours (ARP, neighbour discovery) and the forwarding databases of bridges and VXLAN devices.

use std::format;
use std::net::IpAddr;
use std::vec::Vec;

use super::address::{family, ip_attr, ip_of};
use super::{Mac, Rtnl};
use crate::backend::netlink::{NetlinkError, attributes, flag};

const RTM_NEWNEIGH: u16 = 28;
const RTM_DELNEIGH: u16 = 29;
const RTM_GETNEIGH: u16 = 30;
const NDA_DST: u16 = 1;
const NDA_LLADDR: u16 = 2;
const NUD_PERMANENT: u16 = 0x80;
const NTF_SELF: u8 = 0x02;
const AF_BRIDGE: u8 = 7;
const INFO_BYTES: usize = 12;

/// Which table an entry stands in.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum NeighbourFamily {
    /// Address to hardware address.
    Ip,
    /// Hardware address to tunnel end point (`bridge fdb`, the device's own table).
    Forwarding,
}

/// A permanent entry.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Neighbour {
    /// The index of the link.
    pub link: u32,
    /// The table.
    pub family: NeighbourFamily,
    /// The address: of the neighbour, or of the remote tunnel end point.
    pub ip: IpAddr,
    /// The hardware address.
    pub mac: Mac,
}

impl Rtnl {
    /// The permanent entries of a link.
    ///
    /// # Errors
    /// Any of [`NetlinkError`].
    pub fn neighbours(&mut self, link: u32, family: NeighbourFamily) -> Result<Vec<Neighbour>, NetlinkError> {
        let raw_family = if family == NeighbourFamily::Ip { 0 } else { AF_BRIDGE };
        let mut found = self.channel.dump(
            RTM_GETNEIGH,
            "neighbours",
            |e| {
                e.raw(&[raw_family, 0, 0, 0]).raw(&[0; INFO_BYTES - 4]);
            },
            Vec::new,
            |found, kind, payload| {
                if kind == RTM_NEWNEIGH {
                    found.extend(decode(payload));
                }
            },
        )?;
        found.retain(|n: &Neighbour| n.link == link && n.family == family);
        found.sort();
        Ok(found)
    }

    fn neighbour(&mut self, kind: u16, flags: u16, verb: &str, n: &Neighbour) -> Result<(), NetlinkError> {
        let object = format!("{verb} neighbour {} on link {}", n.ip, n.link);
        self.channel.request(kind, flags, &object, |e| {
            let (raw_family, raw_flags) = match n.family {
                NeighbourFamily::Ip => (family(n.ip), 0),
                NeighbourFamily::Forwarding => (AF_BRIDGE, NTF_SELF),
            };
            e.raw(&[raw_family, 0, 0, 0]).raw(&n.link.to_ne_bytes());
            e.raw(&NUD_PERMANENT.to_ne_bytes()).raw(&[raw_flags, 0]);
            ip_attr(e, NDA_DST, n.ip);
            e.attr(NDA_LLADDR, &n.mac);
        })
    }

    /// Adds a permanent entry, or puts it in the place of the one with the same key.
    ///
    /// # Errors
    /// `ENODEV` if there is no such link.
    pub fn replace_neighbour(&mut self, neighbour: &Neighbour) -> Result<(), NetlinkError> {
        self.neighbour(RTM_NEWNEIGH, flag::CREATE | flag::REPLACE, "replace", neighbour)
    }

    /// Deletes an entry.
    ///
    /// # Errors
    /// `ENOENT` if there is none.
    pub fn delete_neighbour(&mut self, neighbour: &Neighbour) -> Result<(), NetlinkError> {
        self.neighbour(RTM_DELNEIGH, 0, "delete", neighbour)
    }
}

fn decode(payload: &[u8]) -> Option<Neighbour> {
    let raw_family = *payload.first()?;
    let link = payload.get(4..8)?.try_into().ok().map(u32::from_ne_bytes)?;
    let state = payload.get(8..10)?.try_into().ok().map(u16::from_ne_bytes)?;
    if state & NUD_PERMANENT == 0 {
        return None;
    }
    let family = if raw_family == AF_BRIDGE { NeighbourFamily::Forwarding } else { NeighbourFamily::Ip };
    let (mut ip, mut mac) = (None, None);
    for a in attributes(payload.get(INFO_BYTES..)?) {
        match a.kind {
            NDA_DST => ip = ip_of(a.value),
            NDA_LLADDR if a.value.len() == 6 => mac = a.array(),
            _ => {}
        }
    }
    Some(Neighbour { link, family, ip: ip?, mac: mac? })
}
