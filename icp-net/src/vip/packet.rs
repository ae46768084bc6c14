//! The bytes on the wire: CARP advertisements as `jedisct1/UCarp src/carp.c` writes them, and gratuitous ARP.

use alloc::vec::Vec;
use core::net::Ipv4Addr;

use hmac::{Hmac, KeyInit as _, Mac as _};
use sha1::Sha1;

/// `01:00:5e:00:00:12`, the multicast address of 224.0.0.18.
const GROUP_MAC: [u8; 6] = [0x01, 0x00, 0x5e, 0x00, 0x00, 0x12];
/// Where advertisements go.
const GROUP: Ipv4Addr = Ipv4Addr::new(224, 0, 0, 18);
/// The IP protocol that CARP shares with VRRP.
const PROTOCOL: u8 = 112;
const IP_LEN: usize = 20;
const CARP_LEN: usize = 36;
/// Bytes of an Ethernet header.
const ETHERNET_LEN: usize = 14;

/// Why a packet is not an advertisement for us. In the order in which the checks are made.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum PacketError {
    /// It is shorter than its headers say.
    #[error("truncated: {bytes} bytes")]
    Truncated {
        /// Bytes that are there.
        bytes: usize,
    },
    /// It is not an IPv4 packet of protocol 112.
    #[error("not a CARP packet")]
    NotCarp,
    /// Its time to live is not 255: it crossed a router.
    #[error("ttl {0} is not 255")]
    Ttl(u8),
    /// Its version or type is not 2/1 (VRRP has other ones).
    #[error("version and type {0:#04x} are not 0x21")]
    Version(u8),
    /// It speaks of another virtual host.
    #[error("vhid {0} is not ours")]
    OtherVhid(u8),
    /// It was not sent to the group.
    #[error("destination {0} is not the group")]
    Destination(Ipv4Addr),
    /// Its checksum is wrong.
    #[error("bad checksum")]
    Checksum,
    /// Its digest is wrong: another password or another address.
    #[error("bad digest")]
    Digest,
}

/// One CARP advertisement.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Advertisement {
    /// Who sent it.
    pub source: Ipv4Addr,
    /// The virtual host id.
    pub vhid: u8,
    /// Base of the sender's interval, in seconds.
    pub advbase_secs: u8,
    /// The sender's skew, in 1/256 seconds.
    pub advskew: u8,
    /// The counter that the digest covers.
    pub counter: u64,
}

impl Advertisement {
    /// The Ethernet frame: source `00:00:5e:00:00:VHID`, ttl 255, protocol 112.
    #[must_use]
    pub fn frame(&self, vip: Ipv4Addr, key: &[u8; 20], ip_id: u16) -> Vec<u8> {
        let mut carp = Vec::with_capacity(CARP_LEN);
        carp.extend([0x21, self.vhid, self.advskew, 7, 0, self.advbase_secs, 0, 0]);
        carp.extend(self.counter.to_be_bytes());
        carp.extend(digest(key, self.vhid, vip, self.counter));
        put_checksum(&mut carp, 6);

        let mut ip = Vec::with_capacity(IP_LEN);
        ip.extend([0x45, 0x10, 0, (IP_LEN + CARP_LEN) as u8]);
        ip.extend(ip_id.to_be_bytes());
        ip.extend([0x40, 0, 255, PROTOCOL, 0, 0]);
        ip.extend(self.source.octets());
        ip.extend(GROUP.octets());
        put_checksum(&mut ip, 10);

        let mut frame = Vec::with_capacity(ETHERNET_LEN + IP_LEN + CARP_LEN);
        frame.extend(GROUP_MAC);
        frame.extend([0, 0, 0x5e, 0, 0, self.vhid, 0x08, 0x00]);
        frame.extend(ip);
        frame.extend(carp);
        frame
    }

    /// Reads an IPv4 packet (no Ethernet header) and makes UCarp's checks in UCarp's order.
    ///
    /// # Errors
    /// The first check that fails.
    pub fn parse(packet: &[u8], vhid: u8, vip: Ipv4Addr, key: &[u8; 20]) -> Result<Self, PacketError> {
        let truncated = PacketError::Truncated { bytes: packet.len() };
        let ip: &[u8; IP_LEN] = packet.first_chunk().ok_or(truncated.clone())?;
        let header_len = usize::from(ip[0] & 0x0f) * 4;
        if ip[0] >> 4 != 4 || ip[9] != PROTOCOL || header_len < IP_LEN {
            return Err(PacketError::NotCarp);
        }
        let carp: &[u8; CARP_LEN] =
            packet.get(header_len..).and_then(<[u8]>::first_chunk).ok_or(truncated)?;
        let destination = Ipv4Addr::new(ip[16], ip[17], ip[18], ip[19]);
        if ip[8] != 255 {
            return Err(PacketError::Ttl(ip[8]));
        }
        if carp[0] != 0x21 {
            return Err(PacketError::Version(carp[0]));
        }
        if carp[1] != vhid {
            return Err(PacketError::OtherVhid(carp[1]));
        }
        if destination != GROUP {
            return Err(PacketError::Destination(destination));
        }
        if checksum(carp) != 0 {
            return Err(PacketError::Checksum);
        }
        let mut counter = [0; 8];
        counter.copy_from_slice(&carp[8..16]);
        let counter = u64::from_be_bytes(counter);
        mac(key, vhid, vip, counter).verify_slice(&carp[16..36]).map_err(|_| PacketError::Digest)?;
        Ok(Self {
            source: Ipv4Addr::new(ip[12], ip[13], ip[14], ip[15]),
            vhid,
            advbase_secs: carp[5],
            advskew: carp[2],
            counter,
        })
    }
}

/// A gratuitous ARP request for `vip` at `mac`, as an Ethernet frame (RFC 5227: sender and target are the address).
#[must_use]
pub fn gratuitous_arp(vip: Ipv4Addr, mac: [u8; 6]) -> Vec<u8> {
    let mut frame = Vec::with_capacity(42);
    frame.extend([0xff; 6]);
    frame.extend(mac);
    frame.extend([0x08, 0x06, 0, 1, 0x08, 0, 6, 4, 0, 1]);
    frame.extend(mac);
    frame.extend(vip.octets());
    frame.extend([0; 6]);
    frame.extend(vip.octets());
    frame
}

fn mac(key: &[u8; 20], vhid: u8, vip: Ipv4Addr, counter: u64) -> Hmac<Sha1> {
    let mut block = [0; 64];
    for (to, from) in block.iter_mut().zip(key) {
        *to = *from;
    }
    let mut mac = Hmac::<Sha1>::new(&block.into());
    mac.update(&[2, 1, vhid]);
    mac.update(&vip.octets());
    mac.update(&counter.to_be_bytes());
    mac
}

fn digest(key: &[u8; 20], vhid: u8, vip: Ipv4Addr, counter: u64) -> [u8; 20] {
    mac(key, vhid, vip, counter).finalize().into_bytes().into()
}

/// RFC 1071; 0 over a block that contains its own right checksum.
fn checksum(bytes: &[u8]) -> u16 {
    let mut sum: u32 = 0;
    for pair in bytes.chunks(2) {
        let high = pair.first().copied().unwrap_or(0);
        let low = pair.get(1).copied().unwrap_or(0);
        sum += u32::from(u16::from_be_bytes([high, low]));
    }
    while sum > 0xffff {
        sum = (sum & 0xffff) + (sum >> 16);
    }
    !(sum as u16)
}

fn put_checksum(bytes: &mut [u8], at: usize) {
    let sum = checksum(bytes).to_be_bytes();
    for (to, from) in bytes.iter_mut().skip(at).zip(sum) {
        *to = from;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const VIP: Ipv4Addr = Ipv4Addr::new(10, 77, 0, 100);

    fn key(password: &[u8]) -> [u8; 20] {
        let mut key = [0; 20];
        key[..password.len()].copy_from_slice(password);
        key
    }

    fn ad() -> Advertisement {
        Advertisement {
            source: Ipv4Addr::new(10, 77, 0, 1),
            vhid: 7,
            advbase_secs: 1,
            advskew: 0,
            counter: 0x212f_cb8f_11d3_025a,
        }
    }

    /// A frame captured from ucarp 1.5.2 (`-v 7 -p secret -a 10.77.0.100 -s 10.77.0.1`).
    const CAPTURED: &str = "01005e00001200005e0000070800\
        4510003855cb4000ff703b1a0a4d0001e0000012\
        21070007000\
        11bec212fcb8f11d3025a54b38789bf37f8604885a9e9ecadb73ce077b771";

    fn hex(text: &str) -> Vec<u8> {
        let digits: Vec<u8> = text.bytes().filter(u8::is_ascii_hexdigit).collect();
        digits.chunks(2).map(|p| u8::from_str_radix(core::str::from_utf8(p).unwrap(), 16).unwrap()).collect()
    }

    #[test]
    fn frame_is_the_one_that_ucarp_sent() {
        assert_eq!(ad().frame(VIP, &key(b"secret"), 0x55cb), hex(CAPTURED));
    }

    #[test]
    fn captured_frame_is_understood_and_every_flaw_is_named() {
        let good = hex(CAPTURED).split_off(ETHERNET_LEN);
        let parse = |p: &[u8]| Advertisement::parse(p, 7, VIP, &key(b"secret"));
        assert_eq!(parse(&good), Ok(ad()));
        assert_eq!(Advertisement::parse(&good, 7, VIP, &key(b"guess")), Err(PacketError::Digest));
        assert_eq!(Advertisement::parse(&good, 8, VIP, &key(b"secret")), Err(PacketError::OtherVhid(7)));
        let with = |at: usize, byte: u8| {
            let mut bad = good.clone();
            bad[at] = byte;
            parse(&bad)
        };
        assert_eq!(with(8, 64), Err(PacketError::Ttl(64)));
        assert_eq!(with(9, 17), Err(PacketError::NotCarp));
        assert_eq!(with(20, 0x31), Err(PacketError::Version(0x31)));
        assert_eq!(with(19, 1), Err(PacketError::Destination(Ipv4Addr::new(224, 0, 0, 1))));
        assert_eq!(with(25, 9), Err(PacketError::Checksum));
        for cut in 0..good.len() {
            assert!(parse(&good[..cut]).is_err());
        }
    }
}
