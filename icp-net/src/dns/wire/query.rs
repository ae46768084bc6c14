//! What a client asks, read without an allocation.

use super::name::{LowerName, Name};
use super::reader::{Reader, WireError};
use super::{HEADER_BYTES, rcode, rtype};

/// What an OPT record says (RFC 6891).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Edns {
    /// The largest UDP message that the sender takes, in bytes.
    pub udp_bytes: u16,
    /// The version; 0 is the only one there is.
    pub version: u8,
    /// The sender wants DNSSEC records.
    pub dnssec_ok: bool,
}

/// A query with one question.
#[derive(Clone, Debug)]
pub struct Query<'a> {
    /// Names the answer.
    pub id: u16,
    /// The client wants recursion.
    pub recursion_desired: bool,
    /// The client wants to know whether the data is authentic (RFC 6840 §5.7).
    pub authentic_data: bool,
    /// The client checks signatures itself.
    pub checking_disabled: bool,
    /// The name, as the client wrote it: labels with their lengths, then zero.
    pub name: &'a [u8],
    /// The type.
    pub rtype: u16,
    /// The class.
    pub class: u16,
    /// The OPT record, if there is one.
    pub edns: Option<Edns>,
    pub(crate) lower: LowerName,
}

/// A packet that is no query that can be answered.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Refusal {
    /// It must not be answered: it is too short to have an id, or itself an answer.
    Drop,
    /// It is answered by a bare header.
    Reply {
        /// The id of the query.
        id: u16,
        /// Its bits of operation and recursion, in place.
        flags: u16,
        /// [`rcode::FORMERR`] or [`rcode::NOTIMP`].
        rcode: u16,
    },
}

const QR: u16 = 0x8000;
const OPCODE: u16 = 0x7800;
const RD: u16 = 0x0100;
const AD: u16 = 0x0020;
const CD: u16 = 0x0010;

impl<'a> Query<'a> {
    /// Reads a packet that came from a client.
    ///
    /// # Errors
    /// What to do with a packet that is no such query.
    pub fn parse(packet: &'a [u8]) -> Result<Self, Refusal> {
        let mut reader = Reader::new(packet, 0);
        let mut header = [0_u16; HEADER_BYTES / 2];
        for field in &mut header {
            *field = reader.u16().map_err(|_| Refusal::Drop)?;
        }
        let [id, flags, questions, answers, authorities, additionals] = header;
        if flags & QR != 0 {
            return Err(Refusal::Drop);
        }
        let refuse = |rcode| Refusal::Reply { id, flags: flags & (OPCODE | RD), rcode };
        if flags & OPCODE != 0 {
            return Err(refuse(rcode::NOTIMP));
        }
        let records = u32::from(answers) + u32::from(authorities);
        Self::body(id, flags, questions, records, additionals, reader).map_err(|_| refuse(rcode::FORMERR))
    }

    fn body(
        id: u16,
        flags: u16,
        questions: u16,
        records: u32,
        additionals: u16,
        mut reader: Reader<'a>,
    ) -> Result<Self, WireError> {
        if questions != 1 {
            return Err(WireError::NotOneQuestion);
        }
        // No name stands before the question's, so that a pointer in it has nothing to point to.
        let name = reader.plain_name()?;
        let (rtype, class) = (reader.u16()?, reader.u16()?);
        for _ in 0..records {
            skip_record(&mut reader)?;
        }
        let mut edns = None;
        for _ in 0..additionals {
            if let Some(found) = opt(&mut reader)? {
                if edns.is_some() {
                    return Err(WireError::BadOpt);
                }
                edns = Some(found);
            }
        }
        if !reader.at_end() {
            return Err(WireError::Trailing);
        }
        Ok(Self {
            id,
            recursion_desired: flags & RD != 0,
            authentic_data: flags & AD != 0,
            checking_disabled: flags & CD != 0,
            name,
            rtype,
            class,
            edns,
            lower: LowerName::of(name),
        })
    }

    /// The name as a value.
    #[must_use]
    pub fn to_name(&self) -> Name {
        Name::from_wire(self.name)
    }
}

fn skip_record(reader: &mut Reader<'_>) -> Result<(), WireError> {
    reader.skip_name()?;
    reader.take(8)?;
    let length = reader.u16()?;
    reader.take(usize::from(length)).map(|_| ())
}

/// Reads the next record, and what it says if it is an OPT record.
fn opt(reader: &mut Reader<'_>) -> Result<Option<Edns>, WireError> {
    let (mut start, from) = (reader.clone(), reader.at());
    skip_record(reader)?;
    start.skip_name()?;
    let root = start.at() == from + 1;
    if start.u16()? != rtype::OPT {
        return Ok(None);
    }
    if !root {
        return Err(WireError::BadOpt);
    }
    let udp_bytes = start.u16()?;
    let (_extended_rcode, version, flags) = (start.u8()?, start.u8()?, start.u16()?);
    let length = usize::from(start.u16()?);
    let mut options = start.take(length)?;
    while let [_, _, a, b, rest @ ..] = options {
        options = rest.get(usize::from(u16::from_be_bytes([*a, *b]))..).ok_or(WireError::BadOpt)?;
    }
    if !options.is_empty() {
        return Err(WireError::BadOpt);
    }
    Ok(Some(Edns { udp_bytes, version, dnssec_ok: flags & 0x8000 != 0 }))
}
