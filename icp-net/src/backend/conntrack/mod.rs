//! Connection tracking over netlink: which flows the kernel knows, and how to make it forget one.
//!
//! The kernel translates a flow as it did its first packet. A UDP client that keeps its port is thus sent to an endpoint
//! that is gone until it has been silent for minutes, unless its flow is forgotten.
//!
//! ```no_run
//! use icp_net::backend::conntrack::Conntrack;
//! let mut conntrack = Conntrack::open()?;
//! for flow in conntrack.udp_flows()? {
//!     println!("{} -> {}, answered by {}", flow.source, flow.destination, flow.answers_from);
//! }
//! # Ok::<(), icp_net::backend::netlink::NetlinkError>(())
//! ```

#[cfg(test)]
mod tests;

use core::net::{IpAddr, SocketAddr};
use std::format;
use std::vec::Vec;

use super::netlink::{Attribute, Channel, Encoder, Family, NetlinkError, attributes};
use crate::service::StaleFlows;

const SUBSYSTEM: u16 = 1 << 8;
const GET: u16 = SUBSYSTEM | 1;
const NEW: u16 = SUBSYSTEM;
const DELETE: u16 = SUBSYSTEM | 2;
const CTA_TUPLE_ORIG: u16 = 1;
const CTA_TUPLE_REPLY: u16 = 2;
const CTA_STATUS: u16 = 3;
const CTA_ID: u16 = 12;
const CTA_ZONE: u16 = 18;
const CTA_TUPLE_IP: u16 = 1;
const CTA_TUPLE_PROTO: u16 = 2;
const CTA_IP_V4_SRC: u16 = 1;
const CTA_IP_V4_DST: u16 = 2;
const CTA_IP_V6_SRC: u16 = 3;
const CTA_IP_V6_DST: u16 = 4;
const CTA_PROTO_NUM: u16 = 1;
const CTA_PROTO_SRC_PORT: u16 = 2;
const CTA_PROTO_DST_PORT: u16 = 3;
const NESTED: u16 = 0x8000;
const UDP: u8 = 17;
/// `IPS_DST_NAT`.
const DESTINATION_TRANSLATED: u32 = 0x20;
const GENERIC_BYTES: usize = 4;

/// A UDP flow.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Flow {
    /// Who sent its first packet.
    pub source: SocketAddr,
    /// Where that packet was sent to.
    pub destination: SocketAddr,
    /// Where answers come from: after translation, the endpoint.
    pub answers_from: SocketAddr,
    /// Whether its destination is translated.
    pub translated: bool,
    /// What names it in a request.
    name: Vec<u8>,
}

impl Flow {
    /// Whether it is one of those flows to a frontend that go elsewhere than to its endpoints. To a node port go only
    /// flows that are translated: the port's number may be anything else's on another machine.
    #[must_use]
    pub fn is_stale(&self, of: &StaleFlows) -> bool {
        let to_frontend = match of.ip {
            Some(ip) => self.destination == SocketAddr::new(ip, of.port),
            None => self.translated && self.destination.port() == of.port,
        };
        let to = (self.answers_from.ip(), self.answers_from.port());
        to_frontend && !of.endpoints.iter().any(|endpoint| (endpoint.ip, endpoint.port) == to)
    }
}

/// A connection to connection tracking, bound to the network namespace in which it was opened.
#[derive(Debug)]
pub struct Conntrack {
    channel: Channel,
}

fn header(e: &mut Encoder, family: u8) {
    e.raw(&[family, 0, 0, 0]);
}

const fn family(ip: IpAddr) -> u8 {
    match ip {
        IpAddr::V4(_) => 2,
        IpAddr::V6(_) => 10,
    }
}

impl Conntrack {
    /// Opens a connection in the network namespace of the calling thread.
    ///
    /// # Errors
    /// [`NetlinkError::Open`].
    pub fn open() -> Result<Self, NetlinkError> {
        Ok(Self { channel: Channel::open(Family::Netfilter)? })
    }

    /// All UDP flows.
    ///
    /// # Errors
    /// Any of [`NetlinkError`]; the kernel refuses if it has no `nf_conntrack_netlink`.
    pub fn udp_flows(&mut self) -> Result<Vec<Flow>, NetlinkError> {
        self.channel.dump(
            GET,
            "tracked connections",
            |e| header(e, 0),
            Vec::new,
            |found, kind, payload| {
                if kind == NEW {
                    found.extend(decode(payload));
                }
            },
        )
    }

    /// Makes the kernel forget a flow; its next packet is treated as its first. It is no error if it is gone.
    ///
    /// # Errors
    /// Any of [`NetlinkError`].
    pub fn forget(&mut self, flow: &Flow) -> Result<(), NetlinkError> {
        let about = format!("forget flow {} -> {}", flow.source, flow.destination);
        let done = self.channel.request(DELETE, 0, &about, |e| {
            header(e, family(flow.source.ip()));
            e.raw(&flow.name);
        });
        done.or_else(|e| if e.is_missing() { Ok(()) } else { Err(e) })
    }

    /// Forgets all flows that are stale; returns how many.
    ///
    /// # Errors
    /// Any of [`NetlinkError`].
    pub fn forget_stale(&mut self, stale: &[StaleFlows]) -> Result<usize, NetlinkError> {
        if stale.is_empty() {
            return Ok(0);
        }
        let flows = self.udp_flows()?;
        let gone: Vec<&Flow> = flows.iter().filter(|flow| stale.iter().any(|s| flow.is_stale(s))).collect();
        gone.iter().try_for_each(|flow| self.forget(flow))?;
        Ok(gone.len())
    }
}

fn ip(a: &Attribute<'_>) -> Option<IpAddr> {
    match a.value.len() {
        4 => a.array::<4>().map(IpAddr::from),
        16 => a.array::<16>().map(IpAddr::from),
        _ => None,
    }
}

/// Source and destination of one direction of a UDP flow.
fn tuple(of: &Attribute<'_>) -> Option<(SocketAddr, SocketAddr)> {
    let (mut source, mut destination) = (None, None);
    let (mut source_port, mut destination_port, mut protocol) = (None, None, None);
    for part in of.nested() {
        for a in part.nested() {
            match (part.kind, a.kind) {
                (CTA_TUPLE_IP, CTA_IP_V4_SRC | CTA_IP_V6_SRC) => source = ip(&a),
                (CTA_TUPLE_IP, CTA_IP_V4_DST | CTA_IP_V6_DST) => destination = ip(&a),
                (CTA_TUPLE_PROTO, CTA_PROTO_NUM) => protocol = a.array::<1>(),
                (CTA_TUPLE_PROTO, CTA_PROTO_SRC_PORT) => source_port = a.array().map(u16::from_be_bytes),
                (CTA_TUPLE_PROTO, CTA_PROTO_DST_PORT) => destination_port = a.array().map(u16::from_be_bytes),
                _ => {}
            }
        }
    }
    (protocol? == [UDP]).then_some(())?;
    Some((SocketAddr::new(source?, source_port?), SocketAddr::new(destination?, destination_port?)))
}

fn decode(payload: &[u8]) -> Option<Flow> {
    let (mut original, mut reply, mut status) = (None, None, 0);
    let mut name = Encoder::new();
    for a in attributes(payload.get(GENERIC_BYTES..)?) {
        match a.kind {
            CTA_TUPLE_ORIG => {
                original = tuple(&a);
                name.attr(a.kind | NESTED, a.value);
            }
            CTA_TUPLE_REPLY => reply = tuple(&a),
            CTA_STATUS => status = a.be32().unwrap_or(0),
            // The number tells the flow from a later one between the same ends.
            CTA_ID | CTA_ZONE => {
                name.attr(a.kind, a.value);
            }
            _ => {}
        }
    }
    let ((source, destination), (answers_from, _)) = (original?, reply?);
    let translated = status & DESTINATION_TRANSLATED != 0;
    Some(Flow { source, destination, answers_from, translated, name: name.bytes().to_vec() })
}
