//! Messages and attributes (`linux/netlink.h`): lengths and types in host order, everything aligned to 4 bytes.

use std::vec::Vec;

const NESTED: u16 = 0x8000;
const KIND_MASK: u16 = 0x3fff;
const HEADER_BYTES: usize = 16;

/// Writes messages and attributes, one after the other.
#[derive(Clone, Debug, Default)]
pub struct Encoder {
    bytes: Vec<u8>,
    too_long: bool,
}

const fn align(len: usize) -> usize {
    (len + 3) & !3
}

impl Encoder {
    /// Nothing written.
    #[must_use]
    pub const fn new() -> Self {
        Self { bytes: Vec::new(), too_long: false }
    }

    /// What was written.
    #[must_use]
    pub fn bytes(&self) -> &[u8] {
        &self.bytes
    }

    /// How many bytes were written.
    #[must_use]
    pub const fn len(&self) -> usize {
        self.bytes.len()
    }

    /// Whether nothing was written.
    #[must_use]
    pub const fn is_empty(&self) -> bool {
        self.bytes.is_empty()
    }

    /// Whether some attribute was longer than its length field can say; the bytes are then worthless.
    #[must_use]
    pub const fn is_too_long(&self) -> bool {
        self.too_long
    }

    /// Forgets what was written and keeps the memory.
    pub fn clear(&mut self) {
        self.bytes.clear();
        self.too_long = false;
    }

    /// Forgets what was written after `len` bytes.
    pub fn truncate(&mut self, len: usize) {
        self.bytes.truncate(len);
    }

    /// One message; `body` writes its payload.
    pub fn message(&mut self, kind: u16, flags: u16, seq: u32, body: impl FnOnce(&mut Self)) -> &mut Self {
        let start = self.bytes.len();
        self.raw(&0u32.to_ne_bytes()).raw(&kind.to_ne_bytes()).raw(&flags.to_ne_bytes());
        self.raw(&seq.to_ne_bytes()).raw(&0u32.to_ne_bytes());
        body(self);
        let len = self.bytes.len() - start;
        match (u32::try_from(len), self.bytes.get_mut(start..start + 4)) {
            (Ok(len), Some(field)) => field.copy_from_slice(&len.to_ne_bytes()),
            _ => self.too_long = true,
        }
        self
    }

    /// Bytes as they are, without padding.
    pub fn raw(&mut self, bytes: &[u8]) -> &mut Self {
        self.bytes.extend_from_slice(bytes);
        self
    }

    /// An attribute with `value` as payload.
    pub fn attr(&mut self, kind: u16, value: &[u8]) -> &mut Self {
        let Ok(len) = u16::try_from(value.len() + 4) else {
            self.too_long = true;
            return self;
        };
        self.raw(&len.to_ne_bytes()).raw(&kind.to_ne_bytes()).raw(value);
        self.bytes.resize(align(self.bytes.len()), 0);
        self
    }

    /// An attribute without payload.
    pub fn flag(&mut self, kind: u16) -> &mut Self {
        self.attr(kind, &[])
    }

    /// An attribute of one byte.
    pub fn u8(&mut self, kind: u16, value: u8) -> &mut Self {
        self.attr(kind, &[value])
    }

    /// An attribute of two bytes, host order.
    pub fn u16(&mut self, kind: u16, value: u16) -> &mut Self {
        self.attr(kind, &value.to_ne_bytes())
    }

    /// An attribute of two bytes, network order.
    pub fn be16(&mut self, kind: u16, value: u16) -> &mut Self {
        self.attr(kind, &value.to_be_bytes())
    }

    /// An attribute of four bytes, host order.
    pub fn u32(&mut self, kind: u16, value: u32) -> &mut Self {
        self.attr(kind, &value.to_ne_bytes())
    }

    /// An attribute of four bytes, network order.
    pub fn be32(&mut self, kind: u16, value: u32) -> &mut Self {
        self.attr(kind, &value.to_be_bytes())
    }

    /// An attribute of eight bytes, network order.
    pub fn be64(&mut self, kind: u16, value: u64) -> &mut Self {
        self.attr(kind, &value.to_be_bytes())
    }

    /// A text with its terminating zero.
    pub fn str(&mut self, kind: u16, value: &str) -> &mut Self {
        let Ok(len) = u16::try_from(value.len() + 5) else {
            self.too_long = true;
            return self;
        };
        self.raw(&len.to_ne_bytes()).raw(&kind.to_ne_bytes()).raw(value.as_bytes()).raw(&[0]);
        self.bytes.resize(align(self.bytes.len()), 0);
        self
    }

    /// An attribute whose payload is attributes, written by `body`.
    pub fn nested(&mut self, kind: u16, body: impl FnOnce(&mut Self)) -> &mut Self {
        self.nest(kind | NESTED, body)
    }

    /// The same without the nested bit, as rtnetlink's link information has it.
    pub fn nested_unmarked(&mut self, kind: u16, body: impl FnOnce(&mut Self)) -> &mut Self {
        self.nest(kind, body)
    }

    fn nest(&mut self, kind: u16, body: impl FnOnce(&mut Self)) -> &mut Self {
        let start = self.bytes.len();
        self.raw(&0u16.to_ne_bytes()).raw(&kind.to_ne_bytes());
        body(self);
        let len = self.bytes.len() - start;
        match (u16::try_from(len), self.bytes.get_mut(start..start + 2)) {
            (Ok(len), Some(field)) => field.copy_from_slice(&len.to_ne_bytes()),
            _ => self.too_long = true,
        }
        self
    }
}

/// The header of a message.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Header {
    /// `nlmsg_type`.
    pub kind: u16,
    /// `nlmsg_flags`.
    pub flags: u16,
    /// `nlmsg_seq`.
    pub seq: u32,
}

/// One attribute as it was received.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Attribute<'a> {
    /// The type, without the nested and byte-order bits.
    pub kind: u16,
    /// The payload.
    pub value: &'a [u8],
}

impl<'a> Attribute<'a> {
    /// The payload as attributes.
    pub fn nested(&self) -> impl Iterator<Item = Attribute<'a>> + use<'a> {
        attributes(self.value)
    }

    /// The payload as `N` bytes, if it has at least so many.
    #[must_use]
    pub fn array<const N: usize>(&self) -> Option<[u8; N]> {
        self.value.get(..N)?.try_into().ok()
    }

    /// The payload as a number in host order.
    #[must_use]
    pub fn u32(&self) -> Option<u32> {
        self.array().map(u32::from_ne_bytes)
    }

    /// The payload as a number in network order.
    #[must_use]
    pub fn be32(&self) -> Option<u32> {
        self.array().map(u32::from_be_bytes)
    }

    /// The payload as a number in network order.
    #[must_use]
    pub fn be64(&self) -> Option<u64> {
        self.array().map(u64::from_be_bytes)
    }

    /// The payload as a text up to its terminating zero; empty if it is not UTF-8.
    #[must_use]
    pub fn str(&self) -> &'a str {
        let text = self.value.split(|b| *b == 0).next().unwrap_or(&[]);
        core::str::from_utf8(text).unwrap_or("")
    }
}

fn u16_at(bytes: &[u8], at: usize) -> Option<u16> {
    bytes.get(at..at + 2)?.try_into().ok().map(u16::from_ne_bytes)
}

fn u32_at(bytes: &[u8], at: usize) -> Option<u32> {
    bytes.get(at..at + 4)?.try_into().ok().map(u32::from_ne_bytes)
}

/// The attributes in `bytes`; ends at the first that breaks the format.
pub fn attributes(bytes: &[u8]) -> impl Iterator<Item = Attribute<'_>> {
    let mut rest = bytes;
    core::iter::from_fn(move || {
        let len = usize::from(u16_at(rest, 0)?);
        let kind = u16_at(rest, 2)? & KIND_MASK;
        let value = rest.get(4..len)?;
        rest = rest.get(align(len)..).unwrap_or(&[]);
        Some(Attribute { kind, value })
    })
}

/// The messages in `bytes`; ends at the first that breaks the format.
pub fn messages(bytes: &[u8]) -> impl Iterator<Item = (Header, &[u8])> {
    let mut rest = bytes;
    core::iter::from_fn(move || {
        let len = usize::try_from(u32_at(rest, 0)?).ok()?;
        let header = Header { kind: u16_at(rest, 4)?, flags: u16_at(rest, 6)?, seq: u32_at(rest, 8)? };
        let payload = rest.get(HEADER_BYTES..len)?;
        rest = rest.get(align(len)..).unwrap_or(&[]);
        Some((header, payload))
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn lengths_are_patched_and_padded() {
        let mut e = Encoder::new();
        e.message(16, 5, 7, |e| {
            e.raw(&[1, 2, 3, 4]).nested(1, |e| {
                e.str(2, "ab").u8(3, 9);
            });
        });
        let (header, payload) = messages(e.bytes()).next().unwrap();
        assert_eq!(header, Header { kind: 16, flags: 5, seq: 7 });
        let outer = attributes(&payload[4..]).next().unwrap();
        let inner: Vec<_> = outer.nested().collect();
        assert_eq!((inner[0].str(), inner[1].value), ("ab", &[9u8][..]));
        assert_eq!(e.len() % 4, 0);
    }

    #[test]
    fn an_attribute_that_does_not_fit_is_marked() {
        let mut e = Encoder::new();
        e.nested(1, |e| {
            for _ in 0..20 {
                e.attr(2, &[0; 4096]);
            }
        });
        assert!(e.is_too_long());
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(64))]
        #[test]
        fn any_bytes_are_read_without_panic_and_in_bounded_steps(bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
            prop_assert!(attributes(&bytes).count() <= bytes.len() / 4 + 1);
            prop_assert!(messages(&bytes).count() <= bytes.len() / 16 + 1);
        }
    }
}
