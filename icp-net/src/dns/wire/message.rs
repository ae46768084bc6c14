//! Whole messages, decompressed.

use alloc::vec::Vec;

use super::name::Name;
use super::query::Edns;
use super::reader::{Reader, WireError};
use super::writer::{Owner, Writer};
use super::{CLASS_IN, ExtendedError, rtype};

/// The header without the counts.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Header {
    /// Names the exchange.
    pub id: u16,
    /// QR, opcode, AA, TC, RD, RA, AD and CD, in place; the low four bits are zero.
    pub flags: u16,
    /// The response code, with the upper bits that an OPT record gives.
    pub rcode: u16,
}

impl Header {
    /// The message is an answer.
    pub const RESPONSE: u16 = 0x8000;
    /// The answer comes from who is responsible for the name.
    pub const AUTHORITATIVE: u16 = 0x0400;
    /// The answer did not fit.
    pub const TRUNCATED: u16 = 0x0200;
    /// Recursion is wanted.
    pub const RECURSION_DESIRED: u16 = 0x0100;
    /// Recursion can be had.
    pub const RECURSION_AVAILABLE: u16 = 0x0080;
    /// The signatures were checked.
    pub const AUTHENTIC_DATA: u16 = 0x0020;
    /// The client checks signatures itself.
    pub const CHECKING_DISABLED: u16 = 0x0010;

    /// Whether all bits of `flags` are set.
    #[must_use]
    pub const fn has(&self, flags: u16) -> bool {
        self.flags & flags == flags
    }
}

/// What is asked.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Question {
    /// The name.
    pub name: Name,
    /// The type.
    pub rtype: u16,
    /// The class.
    pub class: u16,
}

/// Where in a message a record stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Section {
    /// What was asked for.
    Answer = 0,
    /// Who knows, or the SOA record of a negative answer.
    Authority = 1,
    /// What the client is likely to ask next.
    Additional = 2,
}

/// A resource record, its names decompressed.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Record {
    /// Whose it is.
    pub name: Name,
    /// The type.
    pub rtype: u16,
    /// The class.
    pub class: u16,
    /// How long it may be kept, in seconds.
    pub ttl_secs: u32,
    /// The data in wire form without compression.
    pub data: Vec<u8>,
}

/// A message with exactly one question.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Message {
    /// The header.
    pub header: Header,
    /// The question.
    pub question: Question,
    /// All records but OPT, section by section.
    pub records: Vec<(Section, Record)>,
    /// The OPT record.
    pub edns: Option<Edns>,
    /// The codes of extended errors in the OPT record.
    pub extended_errors: Vec<u16>,
}

impl Message {
    /// Reads a packet. Names in the data of the types that RFC 1035 and 2782 define are decompressed (RFC 3597 §4);
    /// all other data is taken as it is.
    ///
    /// # Errors
    /// If the packet is not a message with one question.
    pub fn decode(packet: &[u8]) -> Result<Self, WireError> {
        let mut reader = Reader::new(packet, 0);
        let (id, flags) = (reader.u16()?, reader.u16()?);
        let questions = reader.u16()?;
        let counts = [reader.u16()?, reader.u16()?, reader.u16()?];
        if questions != 1 {
            return Err(WireError::NotOneQuestion);
        }
        let question = Question { name: reader.name()?, rtype: reader.u16()?, class: reader.u16()? };
        let header = Header { id, flags: flags & 0xfff0, rcode: flags & 15 };
        let mut message =
            Self { header, question, records: Vec::new(), edns: None, extended_errors: Vec::new() };
        for (section, count) in
            [Section::Answer, Section::Authority, Section::Additional].into_iter().zip(counts)
        {
            for _ in 0..count {
                message.read_record(section, packet, &mut reader)?;
            }
        }
        if reader.at_end() { Ok(message) } else { Err(WireError::Trailing) }
    }

    fn read_record(
        &mut self,
        section: Section,
        packet: &[u8],
        reader: &mut Reader<'_>,
    ) -> Result<(), WireError> {
        let name = reader.name()?;
        let (rtype, class, ttl_secs) = (reader.u16()?, reader.u16()?, reader.u32()?);
        let length = usize::from(reader.u16()?);
        let start = reader.at();
        let raw = reader.take(length)?;
        if rtype == rtype::OPT {
            if section != Section::Additional || self.edns.is_some() || name.as_wire() != [0] {
                return Err(WireError::BadOpt);
            }
            let [high, version, flags, _] = ttl_secs.to_be_bytes();
            self.header.rcode |= u16::from(high) << 4;
            self.edns = Some(Edns { udp_bytes: class, version, dnssec_ok: flags & 0x80 != 0 });
            return self.read_options(raw);
        }
        // A TTL with the highest bit set counts as zero (RFC 2181 §8).
        let ttl_secs = if ttl_secs > i32::MAX.unsigned_abs() { 0 } else { ttl_secs };
        let data = decompress(packet, rtype, start, raw)?;
        self.records.push((section, Record { name, rtype, class, ttl_secs, data }));
        Ok(())
    }

    fn read_options(&mut self, mut options: &[u8]) -> Result<(), WireError> {
        while let [code_high, code_low, a, b, rest @ ..] = options {
            let length = usize::from(u16::from_be_bytes([*a, *b]));
            let (value, rest) = rest.split_at_checked(length).ok_or(WireError::BadOpt)?;
            if let ([0, 15], [high, low, ..]) = ([*code_high, *code_low], value) {
                self.extended_errors.push(u16::from_be_bytes([*high, *low]));
            }
            options = rest;
        }
        if options.is_empty() { Ok(()) } else { Err(WireError::BadOpt) }
    }

    /// The records of a section.
    pub fn section(&self, section: Section) -> impl Iterator<Item = &Record> {
        self.records.iter().filter(move |(s, _)| *s == section).map(|(_, record)| record)
    }

    /// Writes the message with at most `limit` bytes; what does not fit is left out as [`Section`] by [`Section`]
    /// demands, and the TC bit set if an answer or authority was.
    pub fn encode(&self, limit: usize, error: Option<ExtendedError>, out: &mut Vec<u8>) {
        let mut writer = Writer::new(out, limit, self.edns);
        writer.question(self.question.name.as_wire(), self.question.rtype, self.question.class);
        writer.compress_with_question();
        if let Some(error) = error {
            writer.explain(error);
        }
        for (section, record) in &self.records {
            let head = (record.rtype, record.class, record.ttl_secs);
            let owner = Owner::Name(record.name.as_wire());
            writer.record(*section, owner, head, |w| write_data(w, record));
        }
        writer.finish(self.header.id, self.header.flags, self.header.rcode);
    }
}

/// How the data of a type begins, up to its names: (bytes before, names).
const fn names_of(rtype: u16) -> Option<(usize, usize)> {
    match rtype {
        // NS, MD, MF, CNAME, MB, MG, MR, PTR, DNAME.
        2 | 3 | 4 | 5 | 7 | 8 | 9 | 12 | rtype::DNAME => Some((0, 1)),
        // SOA, MINFO, RP.
        6 | 14 | 17 => Some((0, 2)),
        // MX, AFSDB, RT, KX.
        15 | 18 | 21 | 36 => Some((2, 1)),
        rtype::SRV => Some((6, 1)),
        _ => None,
    }
}

fn decompress(packet: &[u8], rtype: u16, start: usize, raw: &[u8]) -> Result<Vec<u8>, WireError> {
    let end = start + raw.len();
    match rtype {
        rtype::A if raw.len() != 4 => return Err(WireError::BadData),
        rtype::AAAA if raw.len() != 16 => return Err(WireError::BadData),
        _ => {}
    }
    let Some((before, names)) = names_of(rtype) else { return Ok(raw.into()) };
    // The packet up to the record's end: no name of it may go on behind.
    let mut reader = Reader::new(packet.get(..end).ok_or(WireError::Short)?, start);
    let mut data: Vec<u8> = reader.take(before).map_err(|_| WireError::BadData)?.into();
    for _ in 0..names {
        data.extend_from_slice(reader.name()?.as_wire());
    }
    let rest = reader.take(end.checked_sub(reader.at()).ok_or(WireError::BadData)?)?;
    if rtype == rtype::SOA && rest.len() != 20 || rtype != rtype::SOA && !rest.is_empty() {
        return Err(WireError::BadData);
    }
    data.extend_from_slice(rest);
    Ok(data)
}

/// Compresses the names of the types whose readers know how to decompress them (RFC 1035; not SRV and DNAME).
fn write_data(writer: &mut Writer<'_>, record: &Record) {
    let compressed = matches!(record.rtype, rtype::NS | rtype::CNAME | rtype::PTR | rtype::MX | rtype::SOA);
    let (Some((before, names)), true) = (names_of(record.rtype), compressed && record.class == CLASS_IN)
    else {
        return writer.bytes(&record.data);
    };
    let mut reader = Reader::new(&record.data, 0);
    writer.bytes(reader.take(before).unwrap_or_default());
    for _ in 0..names {
        if let Ok(name) = reader.plain_name() {
            writer.name(name);
        }
    }
    writer.bytes(record.data.get(reader.at()..).unwrap_or_default());
}
