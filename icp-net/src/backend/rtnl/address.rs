//! Addresses of links.

use std::format;
use std::net::IpAddr;
use std::vec::Vec;

use ipnet::IpNet;

use super::Rtnl;
use crate::backend::netlink::{Encoder, NetlinkError, attributes, flag};

const RTM_NEWADDR: u16 = 20;
const RTM_DELADDR: u16 = 21;
const RTM_GETADDR: u16 = 22;
const IFA_ADDRESS: u16 = 1;
const IFA_LOCAL: u16 = 2;
const IFA_BROADCAST: u16 = 4;
const IFA_FLAGS: u16 = 8;
/// Usable at once: no duplicate address detection (IPv6).
const IFA_F_NODAD: u32 = 0x02;
const INFO_BYTES: usize = 8;

/// An address of a link.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Address {
    /// The index of the link.
    pub link: u32,
    /// The address with its prefix length; host bits are kept.
    pub net: IpNet,
}

pub(super) const fn family(ip: IpAddr) -> u8 {
    match ip {
        IpAddr::V4(_) => 2,
        IpAddr::V6(_) => 10,
    }
}

pub(super) fn ip_attr(e: &mut Encoder, kind: u16, ip: IpAddr) {
    match ip {
        IpAddr::V4(ip) => e.attr(kind, &ip.octets()),
        IpAddr::V6(ip) => e.attr(kind, &ip.octets()),
    };
}

pub(super) fn ip_of(bytes: &[u8]) -> Option<IpAddr> {
    match bytes.len() {
        4 => <[u8; 4]>::try_from(bytes).ok().map(IpAddr::from),
        16 => <[u8; 16]>::try_from(bytes).ok().map(IpAddr::from),
        _ => None,
    }
}

impl Rtnl {
    /// The addresses of one link, or of all.
    ///
    /// # Errors
    /// Any of [`NetlinkError`].
    pub fn addresses(&mut self, link: Option<u32>) -> Result<Vec<Address>, NetlinkError> {
        let mut found = self.channel.dump(
            RTM_GETADDR,
            "addresses",
            |e| {
                e.raw(&[0; INFO_BYTES]);
            },
            Vec::new,
            |found, kind, payload| {
                if kind == RTM_NEWADDR {
                    found.extend(decode(payload));
                }
            },
        )?;
        found.retain(|a: &Address| link.is_none_or(|index| a.link == index));
        found.sort();
        Ok(found)
    }

    fn address(
        &mut self,
        kind: u16,
        flags: u16,
        verb: &str,
        link: u32,
        net: IpNet,
    ) -> Result<(), NetlinkError> {
        self.channel.request(kind, flags, &format!("{verb} address {net} on link {link}"), |e| {
            let scope = if net.addr().is_loopback() { 254 } else { 0 };
            e.raw(&[family(net.addr()), net.prefix_len(), 0, scope]).raw(&link.to_ne_bytes());
            ip_attr(e, IFA_LOCAL, net.addr());
            ip_attr(e, IFA_ADDRESS, net.addr());
            match net {
                IpNet::V4(v4) if v4.prefix_len() < 31 && kind == RTM_NEWADDR => {
                    ip_attr(e, IFA_BROADCAST, v4.broadcast().into());
                }
                IpNet::V6(_) if kind == RTM_NEWADDR => {
                    e.u32(IFA_FLAGS, IFA_F_NODAD);
                }
                _ => {}
            }
        })
    }

    /// Gives a link an address. IPv6 addresses are usable at once, without duplicate address detection.
    ///
    /// # Errors
    /// `EEXIST` if it has it, `ENODEV` if there is no such link.
    pub fn add_address(&mut self, link: u32, net: IpNet) -> Result<(), NetlinkError> {
        self.address(RTM_NEWADDR, flag::CREATE | flag::EXCL, "add", link, net)
    }

    /// Gives a link an address unless it has it.
    ///
    /// # Errors
    /// `ENODEV` if there is no such link.
    pub fn replace_address(&mut self, link: u32, net: IpNet) -> Result<(), NetlinkError> {
        self.address(RTM_NEWADDR, flag::CREATE | flag::REPLACE, "replace", link, net)
    }

    /// Takes an address from a link.
    ///
    /// # Errors
    /// `EADDRNOTAVAIL` if it has it not.
    pub fn delete_address(&mut self, link: u32, net: IpNet) -> Result<(), NetlinkError> {
        self.address(RTM_DELADDR, 0, "delete", link, net)
    }
}

fn decode(payload: &[u8]) -> Option<Address> {
    let prefix = *payload.get(1)?;
    let link = payload.get(4..8)?.try_into().ok().map(u32::from_ne_bytes)?;
    let (mut local, mut address) = (None, None);
    for a in attributes(payload.get(INFO_BYTES..)?) {
        match a.kind {
            IFA_LOCAL => local = ip_of(a.value),
            IFA_ADDRESS => address = ip_of(a.value),
            _ => {}
        }
    }
    Some(Address { link, net: IpNet::new(local.or(address)?, prefix).ok()? })
}
