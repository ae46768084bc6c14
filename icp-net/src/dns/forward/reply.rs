//! Answers to clients from what upstream servers said.

use alloc::vec::Vec;

use super::cache::Answer;
use crate::dns::wire::{CLASS_IN, Edns, ExtendedError, Header, Message, Record, Section, rcode, rtype};
use crate::dns::zone::{Forwarded, Note, Source};

/// The largest UDP message that this server takes, in bytes.
pub(super) const UDP_BYTES: u16 = 1232;

/// What makes an answer what it is.
pub(super) struct Reply<'a> {
    pub(super) answer: &'a Answer,
    /// How old the answer is, in seconds.
    pub(super) age_secs: u32,
    /// The TTL of all records, if it is not their own less the age.
    pub(super) ttl_secs: Option<u32>,
    pub(super) source: Source,
    pub(super) error: Option<ExtendedError>,
}

impl Reply<'_> {
    /// The packet for a client.
    pub(super) fn to(&self, client: &Forwarded) -> (Vec<u8>, Note) {
        let dnssec_ok = client.edns.is_some_and(|e| e.dnssec_ok);
        let wants_authentic = dnssec_ok || client.flags & Header::AUTHENTIC_DATA != 0;
        let authentic = if self.answer.authentic && wants_authentic { Header::AUTHENTIC_DATA } else { 0 };
        let repeated = client.flags & (Header::RECURSION_DESIRED | Header::CHECKING_DISABLED);
        let mut owner = &client.question.name;
        let mut records = Vec::with_capacity(client.aliases.len() + self.answer.records.len());
        for alias in &client.aliases {
            let ttl_secs = client.alias_ttl_secs;
            let (name, data) = (owner.clone(), alias.as_wire().into());
            let record = Record { name, rtype: rtype::CNAME, class: CLASS_IN, ttl_secs, data };
            records.push((Section::Answer, record));
            owner = alias;
        }
        for (section, record) in &self.answer.records {
            // The client sees its own case of letters.
            let name = if record.name.eq_ignore_case(owner) { owner } else { &record.name };
            let ttl_secs = self.ttl_secs.unwrap_or_else(|| record.ttl_secs.saturating_sub(self.age_secs));
            let record = Record { name: name.clone(), ttl_secs, data: record.data.clone(), ..*record };
            records.push((*section, record));
        }
        let message = Message {
            header: Header {
                id: client.id,
                flags: Header::RESPONSE | Header::RECURSION_AVAILABLE | repeated | authentic,
                rcode: self.answer.rcode,
            },
            question: client.question.clone(),
            records,
            edns: client.edns.map(|e| Edns { udp_bytes: UDP_BYTES, version: 0, ..e }),
            extended_errors: Vec::new(),
        };
        let mut packet = Vec::new();
        message.encode(client.limit_bytes, self.error, &mut packet);
        let note =
            Note { rtype: client.question.rtype, rcode: self.answer.rcode, source: self.source, dnssec_ok };
        (packet, note)
    }
}

/// The answer to a client whose question is not asked anybody: a response code and why.
#[must_use]
pub fn refuse(client: &Forwarded, rcode: u16, error: ExtendedError) -> (Vec<u8>, Note) {
    let answer = Answer { rcode, authentic: false, records: Vec::new() };
    let source = if rcode == rcode::REFUSED { Source::Server } else { Source::Forward };
    Reply { answer: &answer, age_secs: 0, ttl_secs: None, source, error: Some(error) }.to(client)
}
