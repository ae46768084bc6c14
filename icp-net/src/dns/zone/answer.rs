//! From a client's packet to the answer, or to what others must be asked.

use alloc::vec::Vec;
use core::net::IpAddr;

use super::entry::Node;
use super::lookup::{Found, reverse_address};
use super::snapshot::Snapshot;
use crate::dns::wire::{
    CLASS_ANY, CLASS_IN, Edns, ExtendedError, HEADER_BYTES, Header, LowerName, MESSAGE_BYTES_MAX,
    NAME_BYTES_MAX, Name, Owner, Query, Question, Refusal, Section, UDP_BYTES_MIN, Writer, internet, rcode,
    rtype,
};

/// Most aliases that are followed in one answer (`plugin/backend_lookup.go` of CoreDNS follows eight).
const ALIASES_MAX: usize = 8;
/// The version of the schema that names follow, and how long it may be kept.
const SCHEMA: &[u8] = b"1.1.0";
const SCHEMA_TTL_SECS: u32 = 28_800;
/// The answer to a question for all types, as data of an HINFO record (RFC 8482 §4.2).
const ANY_DATA: &[u8] = b"\x07RFC8482\x00";

/// How a query came.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Transport {
    /// In one datagram.
    Udp,
    /// In a stream.
    Tcp,
}

/// What made an answer, by the plugin that would in CoreDNS.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[non_exhaustive]
pub enum Source {
    /// The server itself: the query could not be taken.
    Server,
    /// The cluster's zone.
    Kubernetes,
    /// The hosts file.
    Hosts,
    /// An upstream server.
    Forward,
    /// An answer of an upstream server to another client.
    Cache,
}

/// What is counted of an answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Note {
    /// The type that was asked for; 0 if it could not be read.
    pub rtype: u16,
    /// The response code.
    pub rcode: u16,
    /// What made it.
    pub source: Source,
    /// The client wanted DNSSEC records.
    pub dnssec_ok: bool,
}

/// What comes of a packet.
#[derive(Clone, Debug, PartialEq)]
pub enum Outcome {
    /// The answer stands in the buffer.
    Reply(Note),
    /// The packet gets no answer.
    Drop,
    /// Others know the answer.
    Forward(Forwarded),
}

/// A client's question that an upstream server must answer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Forwarded {
    /// Names the answer to the client.
    pub id: u16,
    /// The bits RD, AD and CD of the query, in place.
    pub flags: u16,
    /// What the client asked.
    pub question: Question,
    /// The client's OPT record.
    pub edns: Option<Edns>,
    /// The largest answer that the client takes, in bytes.
    pub limit_bytes: usize,
    /// Aliases that lead from the question out of the zone; the last is what upstream servers are asked.
    pub aliases: Vec<Name>,
    /// How long the aliases may be kept, in seconds.
    pub alias_ttl_secs: u32,
}

/// Answers a packet from `snapshot` into `out`, whose old content is lost.
///
/// ```
/// use icp_net::dns::{DnsConfig, Outcome, Snapshot, Transport, answer};
/// let snapshot = Snapshot::new(&DnsConfig::new("cluster.local".parse()?));
/// let mut out = Vec::new();
/// // Nothing was listed yet: SERVFAIL, not NXDOMAIN.
/// let query = b"\0\x07\x01\0\0\x01\0\0\0\0\0\0\x07cluster\x05local\0\0\x06\0\x01";
/// assert!(matches!(answer(&snapshot, query, Transport::Udp, &mut out), Outcome::Reply(note) if note.rcode == 2));
/// assert_eq!(out[..2], [0, 7]);
/// assert_eq!(answer(&snapshot, b"short", Transport::Udp, &mut out), Outcome::Drop);
/// # Ok::<(), icp_net::dns::wire::NameError>(())
/// ```
pub fn answer(snapshot: &Snapshot, packet: &[u8], transport: Transport, out: &mut Vec<u8>) -> Outcome {
    let query = match Query::parse(packet) {
        Ok(query) => query,
        Err(Refusal::Reply { id, flags, rcode }) => {
            Writer::new(out, HEADER_BYTES, None).finish(id, Header::RESPONSE | flags, rcode);
            return Outcome::Reply(Note { rtype: 0, rcode, source: Source::Server, dnssec_ok: false });
        }
        Err(Refusal::Drop) => return Outcome::Drop,
    };
    let limit = match transport {
        Transport::Tcp => MESSAGE_BYTES_MAX,
        Transport::Udp => {
            let wanted = query.edns.map_or(UDP_BYTES_MIN, |e| e.udp_bytes);
            usize::from(wanted.clamp(UDP_BYTES_MIN, snapshot.zone.udp_bytes_max))
        }
    };
    let edns = query.edns.map(|e| Edns { udp_bytes: snapshot.zone.udp_bytes_max, version: 0, ..e });
    let mut writer = Writer::new(out, limit, edns);
    writer.question(query.name, query.rtype, query.class);
    let mut answering = Answering {
        snapshot,
        writer,
        rtype: query.rtype,
        rotation: usize::from(query.id),
        base: HEADER_BYTES,
        aliases: Vec::new(),
    };
    let Some((rcode, source)) = answering.run(&query) else {
        return Outcome::Forward(Forwarded {
            id: query.id,
            flags: flags_of(&query) | if query.authentic_data { Header::AUTHENTIC_DATA } else { 0 },
            question: Question { name: query.to_name(), rtype: query.rtype, class: query.class },
            edns: query.edns,
            limit_bytes: limit,
            aliases: answering.aliases,
            alias_ttl_secs: snapshot.zone.ttl_secs,
        });
    };
    let authoritative = match source {
        Source::Kubernetes | Source::Hosts if rcode != rcode::SERVFAIL => Header::AUTHORITATIVE,
        _ => 0,
    };
    let flags = Header::RESPONSE | Header::RECURSION_AVAILABLE | authoritative | flags_of(&query);
    answering.writer.finish(query.id, flags, rcode);
    let dnssec_ok = query.edns.is_some_and(|e| e.dnssec_ok);
    Outcome::Reply(Note { rtype: query.rtype, rcode, source, dnssec_ok })
}

/// The bits that an answer repeats.
fn flags_of(query: &Query<'_>) -> u16 {
    let desired = if query.recursion_desired { Header::RECURSION_DESIRED } else { 0 };
    desired | if query.checking_disabled { Header::CHECKING_DISABLED } else { 0 }
}

struct Answering<'s, 'o> {
    snapshot: &'s Snapshot,
    writer: Writer<'o>,
    rtype: u16,
    /// Where lists of addresses begin, so that clients spread over them.
    rotation: usize,
    /// Where the name that is looked up stands in the message.
    base: usize,
    aliases: Vec<Name>,
}

impl Answering<'_, '_> {
    /// Writes the records; `None` if others must be asked.
    fn run(&mut self, query: &Query<'_>) -> Option<(u16, Source)> {
        if query.edns.is_some_and(|e| e.version != 0) {
            return Some((rcode::BADVERS, Source::Server));
        }
        match (query.class, query.rtype) {
            (_, rtype::OPT) => return Some((rcode::FORMERR, Source::Server)),
            (_, rtype::AXFR | rtype::IXFR) => return Some((rcode::REFUSED, Source::Server)),
            (CLASS_IN | CLASS_ANY, _) => {}
            _ => return Some((rcode::REFUSED, Source::Server)),
        }
        let name = &query.lower;
        let hosts = &self.snapshot.hosts;
        if !hosts.is_empty()
            && let Some(ips) = hosts.by_wire(name.tail(0))
        {
            for ip in ips {
                self.address(Section::Answer, Owner::QUESTION, *ip, hosts.ttl_secs());
            }
            return Some((rcode::NOERROR, Source::Hosts));
        }
        match self.snapshot.labels_within(name) {
            Some(within) => self.zone(query, within),
            None => self.reverse(name),
        }
    }

    /// Answers for a name that stands for an address.
    fn reverse(&mut self, name: &LowerName) -> Option<(u16, Source)> {
        let ip = reverse_address(name)?;
        let wants = matches!(self.rtype, rtype::PTR | rtype::ANY);
        let hosts = &self.snapshot.hosts;
        let names = hosts.names(ip);
        if !names.is_empty() {
            for name in names.iter().filter(|_| wants) {
                let head = internet(rtype::PTR, hosts.ttl_secs());
                self.writer.record(Section::Answer, Owner::QUESTION, head, |w| w.bytes(name.as_wire()));
            }
            return Some((rcode::NOERROR, Source::Hosts));
        }
        if !self.snapshot.synced {
            return Some(self.not_ready());
        }
        let pointers = self.snapshot.find_pointers(ip)?;
        let (head, zone) = (internet(rtype::PTR, self.ttl_secs()), self.snapshot.zone.name.as_wire());
        let fits = |labels: &&alloc::sync::Arc<[u8]>| labels.len() + zone.len() <= NAME_BYTES_MAX;
        for labels in pointers.iter().filter(|_| wants).filter(fits) {
            self.writer.record(Section::Answer, Owner::QUESTION, head, |w| {
                w.bytes(labels);
                w.bytes(zone);
            });
        }
        Some((rcode::NOERROR, Source::Kubernetes))
    }

    /// Answers for a name of the zone, and follows its aliases.
    fn zone(&mut self, query: &Query<'_>, mut within: usize) -> Option<(u16, Source)> {
        if !self.snapshot.synced {
            return Some(self.not_ready());
        }
        let mut name = query.lower;
        loop {
            let zone_at = self.base + name.start(within);
            let target = match self.snapshot.find(&name, within) {
                Found::Alias(target) => target,
                found => return Some((self.found(&found, &name, zone_at), Source::Kubernetes)),
            };
            let head = internet(rtype::CNAME, self.ttl_secs());
            let owner = Owner::At(self.base);
            let mut target_at = 0;
            self.writer.record(Section::Answer, owner, head, |w| {
                target_at = w.at();
                w.bytes(target.as_wire());
            });
            let seen = self.aliases.iter().any(|a| a.eq_ignore_case(target))
                || target.as_wire().eq_ignore_ascii_case(query.name);
            self.aliases.push(target.clone());
            // A circle ends here; the client sees the aliases that form it.
            if matches!(self.rtype, rtype::CNAME | rtype::ANY) || seen || self.aliases.len() >= ALIASES_MAX {
                return Some((rcode::NOERROR, Source::Kubernetes));
            }
            self.base = target_at;
            name = LowerName::of(target.as_wire());
            within = self.snapshot.labels_within(&name)?;
        }
    }

    fn not_ready(&mut self) -> (u16, Source) {
        self.writer.explain(ExtendedError::NotReady);
        (rcode::SERVFAIL, Source::Kubernetes)
    }

    fn ttl_secs(&self) -> u32 {
        self.snapshot.zone.ttl_secs
    }

    /// Writes what stands at a name, or the SOA record if that is nothing of the type.
    fn found(&mut self, found: &Found<'_>, name: &LowerName, zone_at: usize) -> u16 {
        let (owner, ttl_secs) = (Owner::At(self.base), self.ttl_secs());
        let any = self.rtype == rtype::ANY && !matches!(found, Found::NoName | Found::Nothing);
        let written = match found {
            _ if any => self
                .writer
                .record(Section::Answer, owner, internet(rtype::HINFO, ttl_secs), |w| w.bytes(ANY_DATA)),
            Found::NoName | Found::Nothing | Found::Alias(_) => false,
            Found::Apex => self.apex(owner, zone_at),
            Found::NameServer => self.nameservers(Section::Answer, owner),
            Found::Version if self.rtype == rtype::TXT => {
                let head = internet(rtype::TXT, SCHEMA_TTL_SECS);
                self.writer.record(Section::Answer, owner, head, |w| w.label(SCHEMA))
            }
            Found::Version => false,
            Found::Pod(ip) => self.address(Section::Answer, owner, *ip, ttl_secs),
            Found::Node(node, service) => self.node(node, owner, name, *service),
        };
        if !written {
            self.soa(Section::Authority, Owner::At(zone_at), zone_at);
        }
        if matches!(found, Found::NoName) { rcode::NXDOMAIN } else { rcode::NOERROR }
    }

    /// Whether there was something to write, even if not all of it fitted.
    fn node(&mut self, node: &Node, owner: Owner<'_>, name: &LowerName, service: usize) -> bool {
        let ttl_secs = self.ttl_secs();
        match self.rtype {
            rtype::A => {
                let (tail, head) = node.v4.split_at(self.rotation % node.v4.len().max(1));
                for ip in head.iter().chain(tail) {
                    let octets = ip.octets();
                    self.writer
                        .record(Section::Answer, owner, internet(rtype::A, ttl_secs), |w| w.bytes(&octets));
                }
                !node.v4.is_empty()
            }
            rtype::AAAA => {
                let (tail, head) = node.v6.split_at(self.rotation % node.v6.len().max(1));
                for ip in head.iter().chain(tail) {
                    let octets = ip.octets();
                    self.writer.record(Section::Answer, owner, internet(rtype::AAAA, ttl_secs), |w| {
                        w.bytes(&octets)
                    });
                }
                !node.v6.is_empty()
            }
            rtype::SRV => {
                self.services(node, owner, name, service);
                !node.srv.is_empty()
            }
            _ => false,
        }
    }

    fn services(&mut self, node: &Node, owner: Owner<'_>, name: &LowerName, service: usize) {
        let (ttl_secs, suffix) = (self.ttl_secs(), name.tail(service));
        let fits = |host: Option<&super::entry::Label>| {
            host.map_or(0, |h| h.len() + 1) + suffix.len() <= NAME_BYTES_MAX
        };
        for srv in node.srv.iter().filter(|srv| fits(srv.host.as_ref())) {
            self.writer.record(Section::Answer, owner, internet(rtype::SRV, ttl_secs), |w| {
                w.u16(0);
                w.u16(srv.weight);
                w.u16(srv.port);
                if let Some(host) = &srv.host {
                    w.label(host);
                }
                // Targets are not compressed (RFC 2782).
                w.bytes(suffix);
            });
        }
        let service_at = self.base + name.start(service);
        for target in node.targets.iter().filter(|target| fits(target.host.as_ref())) {
            let owner = match &target.host {
                Some(host) => Owner::Below(host, service_at),
                None => Owner::At(service_at),
            };
            self.address_of_any_type(owner, target.ip);
        }
    }

    /// Writes an address if it is of the wanted family; whether it is.
    fn address(&mut self, section: Section, owner: Owner<'_>, ip: IpAddr, ttl_secs: u32) -> bool {
        match (ip, self.rtype) {
            (IpAddr::V4(ip), rtype::A | rtype::ANY) => {
                self.writer.record(section, owner, internet(rtype::A, ttl_secs), |w| w.bytes(&ip.octets()));
                true
            }
            (IpAddr::V6(ip), rtype::AAAA | rtype::ANY) => {
                self.writer
                    .record(section, owner, internet(rtype::AAAA, ttl_secs), |w| w.bytes(&ip.octets()));
                true
            }
            _ => false,
        }
    }

    fn address_of_any_type(&mut self, owner: Owner<'_>, ip: IpAddr) {
        let (section, ttl_secs) = (Section::Additional, self.ttl_secs());
        match ip {
            IpAddr::V4(ip) => {
                self.writer.record(section, owner, internet(rtype::A, ttl_secs), |w| w.bytes(&ip.octets()))
            }
            IpAddr::V6(ip) => {
                self.writer.record(section, owner, internet(rtype::AAAA, ttl_secs), |w| w.bytes(&ip.octets()))
            }
        };
    }

    fn apex(&mut self, owner: Owner<'_>, zone_at: usize) -> bool {
        match self.rtype {
            rtype::SOA => self.soa(Section::Answer, owner, zone_at),
            rtype::NS => {
                let mut server_at = 0;
                let head = internet(rtype::NS, self.ttl_secs());
                let written = self.writer.record(Section::Answer, owner, head, |w| {
                    server_at = w.at();
                    w.label(b"ns");
                    w.label(b"dns");
                    w.pointer(zone_at);
                });
                let snapshot = self.snapshot;
                for ip in &snapshot.zone.nameservers {
                    self.address_of_any_type(Owner::At(server_at), *ip);
                }
                written
            }
            _ => false,
        }
    }

    fn nameservers(&mut self, section: Section, owner: Owner<'_>) -> bool {
        let (snapshot, ttl_secs) = (self.snapshot, self.ttl_secs());
        let mut any = false;
        for ip in &snapshot.zone.nameservers {
            any |= self.address(section, owner, *ip, ttl_secs);
        }
        any
    }

    /// The times are those of CoreDNS (`plugin/backend_lookup.go`).
    fn soa(&mut self, section: Section, owner: Owner<'_>, zone_at: usize) -> bool {
        let (ttl_secs, serial) = (self.ttl_secs(), self.snapshot.serial);
        self.writer.record(section, owner, internet(rtype::SOA, ttl_secs), |w| {
            w.label(b"ns");
            w.label(b"dns");
            w.pointer(zone_at);
            w.label(b"hostmaster");
            w.pointer(zone_at);
            for number in [serial, 7200, 1800, 86_400, ttl_secs] {
                w.bytes(&number.to_be_bytes());
            }
        })
    }
}
