//! Writes an answer, record by record, within a limit.

use alloc::vec::Vec;

use smallvec::SmallVec;

use super::message::Section;
use super::query::Edns;
use super::{CLASS_IN, ExtendedError, HEADER_BYTES, rtype};

/// Bytes of an OPT record without options.
const OPT_BYTES: usize = 11;
/// Bytes of an extended error without text.
const EXTENDED_ERROR_BYTES: usize = 6;
/// Most places of names that compression looks at; what stands behind them is written out.
const PLACES_MAX: usize = 64;
/// The first place that a pointer cannot name.
const POINTER_END: usize = 0x4000;

/// Whose record it is.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Owner<'n> {
    /// The name that stands at this place of the message.
    At(usize),
    /// A label below the name that stands at this place.
    Below(&'n [u8], usize),
    /// A name in wire form.
    Name(&'n [u8]),
}

impl Owner<'static> {
    /// The name of the question.
    pub(crate) const QUESTION: Self = Self::At(HEADER_BYTES);
}

/// A message that grows at the end of a buffer. The message begins with the buffer.
#[derive(Debug)]
pub(crate) struct Writer<'o> {
    out: &'o mut Vec<u8>,
    limit: usize,
    counts: [u16; 3],
    truncated: bool,
    edns: Option<Edns>,
    error: Option<ExtendedError>,
    /// Where names stand that later ones may end with.
    places: SmallVec<[u16; PLACES_MAX]>,
}

impl<'o> Writer<'o> {
    /// Begins a message of at most `limit` bytes. With `edns`, an OPT record that says so stands at its end.
    pub(crate) fn new(out: &'o mut Vec<u8>, limit: usize, edns: Option<Edns>) -> Self {
        out.clear();
        out.extend_from_slice(&[0; HEADER_BYTES]);
        let reserved = edns.map_or(0, |_| OPT_BYTES + EXTENDED_ERROR_BYTES);
        let limit = limit.saturating_sub(reserved);
        Self { out, limit, counts: [0; 3], truncated: false, edns, error: None, places: SmallVec::new() }
    }

    /// Writes the question; its name stands behind the header.
    pub(crate) fn question(&mut self, name: &[u8], rtype: u16, class: u16) {
        self.out.extend_from_slice(name);
        self.u16(rtype);
        self.u16(class);
        if let Some(count) = self.out.get_mut(5) {
            *count = 1;
        }
    }

    /// Lets later names end with the question's name or what stands behind a dot of it.
    pub(crate) fn compress_with_question(&mut self) {
        self.note_places(HEADER_BYTES);
    }

    /// Gives the reason beside the response code.
    pub(crate) fn explain(&mut self, error: ExtendedError) {
        self.error.get_or_insert(error);
    }

    /// The place at which the next byte goes.
    pub(crate) fn at(&self) -> usize {
        self.out.len()
    }

    /// Appends a record whose data `data` writes, and whether it fitted. A record of the additional section that
    /// does not fit is left out silently; of another section, the message counts as truncated (RFC 2181 §9), and
    /// nothing more goes in.
    pub(crate) fn record(
        &mut self,
        section: Section,
        owner: Owner<'_>,
        (rtype, class, ttl_secs): (u16, u16, u32),
        data: impl FnOnce(&mut Self),
    ) -> bool {
        if self.truncated {
            return false;
        }
        let (start, places) = (self.out.len(), self.places.len());
        self.owner(owner);
        self.u16(rtype);
        self.u16(class);
        self.out.extend_from_slice(&ttl_secs.to_be_bytes());
        let length_at = self.out.len();
        self.u16(0);
        data(self);
        let length = self.out.len() - length_at - 2;
        let count = self.counts.get_mut(section as usize);
        let fits = self.out.len() <= self.limit;
        match (u16::try_from(length), count) {
            (Ok(length), Some(count)) if fits && *count < u16::MAX => {
                *count += 1;
                self.patch(length_at, length);
                true
            }
            _ => {
                self.out.truncate(start);
                self.places.truncate(places);
                self.truncated = section != Section::Additional;
                false
            }
        }
    }

    pub(crate) fn u16(&mut self, value: u16) {
        self.out.extend_from_slice(&value.to_be_bytes());
    }

    pub(crate) fn bytes(&mut self, bytes: &[u8]) {
        self.out.extend_from_slice(bytes);
    }

    /// A pointer to the name at `place`.
    pub(crate) fn pointer(&mut self, place: usize) {
        debug_assert!(place < POINTER_END);
        self.u16(0xc000 | u16::try_from(place & (POINTER_END - 1)).unwrap_or(0));
    }

    /// A name, compressed where it can be.
    pub(crate) fn name(&mut self, wire: &[u8]) {
        let (start, mut rest) = (self.out.len(), wire);
        while let Some((&length, tail)) = rest.split_first() {
            if length == 0 {
                self.out.push(0);
                break;
            }
            if let Some(place) = self.places.iter().copied().find(|p| self.stands_at(usize::from(*p), rest)) {
                self.pointer(usize::from(place));
                break;
            }
            let Some((label, tail)) = tail.split_at_checked(usize::from(length)) else { break };
            self.out.push(length);
            self.out.extend_from_slice(label);
            rest = tail;
        }
        self.note_places(start);
    }

    /// Ends the message. `rcode` may be an extended one if the client has EDNS.
    pub(crate) fn finish(mut self, id: u16, flags: u16, rcode: u16) {
        if let Some(edns) = self.edns {
            self.bytes(&[0]);
            self.u16(rtype::OPT);
            self.u16(edns.udp_bytes);
            let high = u8::try_from(rcode >> 4).unwrap_or(0);
            self.bytes(&[high, 0, if edns.dnssec_ok { 0x80 } else { 0 }, 0]);
            match self.error {
                None => self.u16(0),
                Some(error) => {
                    self.u16(6);
                    // EXTENDED-ERROR (15), two bytes.
                    self.bytes(&[0, 15, 0, 2]);
                    self.u16(error.code());
                }
            }
        }
        let truncated = if self.truncated { 0x0200 } else { 0 };
        self.patch(0, id);
        self.patch(2, flags | truncated | (rcode & 15));
        let [answers, authorities, additionals] = self.counts;
        self.patch(6, answers);
        self.patch(8, authorities);
        self.patch(10, additionals + u16::from(self.edns.is_some()));
    }

    fn patch(&mut self, at: usize, value: u16) {
        if let Some(bytes) = self.out.get_mut(at..at + 2) {
            bytes.copy_from_slice(&value.to_be_bytes());
        }
    }

    fn owner(&mut self, owner: Owner<'_>) {
        match owner {
            Owner::At(place) => self.pointer(place),
            Owner::Below(label, place) => {
                self.label(label);
                self.pointer(place);
            }
            Owner::Name(wire) => self.name(wire),
        }
    }

    /// A label of at most 63 bytes.
    pub(crate) fn label(&mut self, label: &[u8]) {
        debug_assert!((1..64).contains(&label.len()));
        self.out.push(u8::try_from(label.len()).unwrap_or(0));
        self.out.extend_from_slice(label);
    }

    /// Notes each label of the name at `start` that is not a pointer.
    fn note_places(&mut self, start: usize) {
        let mut at = start;
        while let Some(length @ 1..=63) = self.out.get(at).copied() {
            match u16::try_from(at) {
                Ok(place) if at < POINTER_END && self.places.len() < PLACES_MAX => self.places.push(place),
                _ => return,
            }
            at += usize::from(length) + 1;
        }
    }

    /// Whether the name at `place` is `wire`, in this very case: a name keeps the case its owner gave it.
    fn stands_at(&self, mut place: usize, mut wire: &[u8]) -> bool {
        // Places are of names that were written here, whose pointers point back.
        for _ in 0..super::NAME_BYTES_MAX {
            match self.out.get(place).copied() {
                Some(high @ 192..) => {
                    let low = self.out.get(place + 1).copied().unwrap_or(0);
                    place = usize::from(u16::from_be_bytes([high & 0x3f, low]));
                }
                Some(0) => return wire == [0],
                Some(length) => {
                    let end = place + 1 + usize::from(length);
                    match (self.out.get(place..end), wire.split_at_checked(end - place)) {
                        (Some(here), Some((there, rest))) if here == there => {
                            wire = rest;
                            place = end;
                        }
                        _ => return false,
                    }
                }
                None => return false,
            }
        }
        false
    }
}

/// The type, class and TTL of a record of the internet.
pub(crate) const fn internet(rtype: u16, ttl_secs: u32) -> (u16, u16, u32) {
    (rtype, CLASS_IN, ttl_secs)
}
