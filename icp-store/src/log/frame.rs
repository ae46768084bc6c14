//! Headers and frames.

use alloc::vec::Vec;

use super::{LogError, codec};
use crate::store::Entry;

pub(super) const HEADER_BYTES: usize = 32;
pub(super) const FRAME_HEADER_BYTES: usize = 24;
pub(super) const ALIGN: usize = 8;
/// The format that this release writes.
pub(super) const VERSION: u32 = 1;
/// Largest payload of a frame that is believed.
const PAYLOAD_BYTES_MAX: usize = 1 << 30;

pub(super) const LOG_MAGIC: &[u8; 8] = b"icpstlog";
pub(super) const SNAPSHOT_MAGIC: &[u8; 8] = b"icpstsnp";

/// The header of a file.
pub(super) fn header(magic: &[u8; 8], seq: u64) -> Vec<u8> {
    let mut out = Vec::with_capacity(HEADER_BYTES);
    out.extend_from_slice(magic);
    out.extend_from_slice(&VERSION.to_le_bytes());
    out.extend_from_slice(&0_u32.to_le_bytes());
    out.extend_from_slice(&seq.to_le_bytes());
    let crc = crc32c::crc32c(&out);
    out.extend_from_slice(&crc.to_le_bytes());
    out.extend_from_slice(&0_u32.to_le_bytes());
    out
}

/// Reads a header and returns its sequence number.
pub(super) fn parse_header(file: &str, magic: &[u8; 8], bytes: &[u8]) -> Result<u64, LogError> {
    let corrupt = |detail: &str| LogError::corrupt(file, 0, detail);
    let header = bytes.get(..HEADER_BYTES).ok_or_else(|| corrupt("the header is cut"))?;
    if header.get(..8) != Some(&magic[..]) {
        return Err(corrupt("the magic does not fit"));
    }
    let crc = crc32c::crc32c(header.get(..24).unwrap_or_default());
    if u32_at(header, 24) != Some(crc) || u32_at(header, 28) != Some(0) {
        return Err(corrupt("the header's checksum does not fit"));
    }
    let found = u32_at(header, 8).unwrap_or(0);
    if found != VERSION {
        return Err(LogError::Version { file: file.into(), found, known: VERSION });
    }
    u64_at(header, 16).ok_or_else(|| corrupt("the header is cut"))
}

/// One frame of `entries`, of which the first has the number `first_seq`.
pub(super) fn frame(first_seq: u64, entries: &[Entry]) -> Vec<u8> {
    let mut out = alloc::vec![0; FRAME_HEADER_BYTES];
    entries.iter().for_each(|e| codec::encode(e, &mut out));
    let payload_bytes = (out.len() - FRAME_HEADER_BYTES) as u32;
    let mut head = Vec::with_capacity(FRAME_HEADER_BYTES);
    head.extend_from_slice(&payload_bytes.to_le_bytes());
    head.extend_from_slice(&0_u32.to_le_bytes());
    head.extend_from_slice(&first_seq.to_le_bytes());
    head.extend_from_slice(&(entries.len() as u32).to_le_bytes());
    // Never zero, so that an empty frame is told from space that was never written.
    head.extend_from_slice(&1_u32.to_le_bytes());
    for (to, from) in out.iter_mut().zip(&head) {
        *to = *from;
    }
    let crc = crc32c::crc32c(&out).to_le_bytes();
    for (to, from) in out.iter_mut().skip(4).zip(crc) {
        *to = from;
    }
    out.resize(out.len().next_multiple_of(ALIGN), 0);
    out
}

/// What stands at a place of a file.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Parsed<'a> {
    /// A whole frame.
    Frame {
        first_seq: u64,
        count: u32,
        payload: &'a [u8],
        /// Bytes of the frame with its padding.
        bytes: usize,
    },
    /// Nothing was ever written here.
    Unwritten,
    /// Neither.
    Damaged,
}

/// Reads the frame at the beginning of `bytes`.
pub(super) fn parse(bytes: &[u8]) -> Parsed<'_> {
    let Some(head) = bytes.get(..FRAME_HEADER_BYTES) else {
        return if bytes.iter().all(|b| *b == 0) { Parsed::Unwritten } else { Parsed::Damaged };
    };
    if head.iter().all(|b| *b == 0) {
        return Parsed::Unwritten;
    }
    let parts = (u32_at(head, 0), u32_at(head, 4), u64_at(head, 8), u32_at(head, 16), u32_at(head, 20));
    let (Some(payload_bytes), Some(crc), Some(first_seq), Some(count), Some(1)) = parts else {
        return Parsed::Damaged;
    };
    let payload_bytes = payload_bytes as usize;
    if payload_bytes > PAYLOAD_BYTES_MAX {
        return Parsed::Damaged;
    }
    let Some(whole) = bytes.get(..FRAME_HEADER_BYTES + payload_bytes) else { return Parsed::Damaged };
    let (Some(before), Some(after), Some(payload)) =
        (whole.get(..4), whole.get(8..), whole.get(FRAME_HEADER_BYTES..))
    else {
        return Parsed::Damaged;
    };
    let computed = crc32c::crc32c_append(crc32c::crc32c_append(crc32c::crc32c(before), &[0; 4]), after);
    let padded = whole.len().next_multiple_of(ALIGN);
    let padding = bytes.get(whole.len()..padded.min(bytes.len())).unwrap_or_default();
    if computed != crc || padding.iter().any(|b| *b != 0) {
        return Parsed::Damaged;
    }
    Parsed::Frame { first_seq, count, payload, bytes: padded }
}

fn u32_at(bytes: &[u8], at: usize) -> Option<u32> {
    Some(u32::from_le_bytes(bytes.get(at..at + 4)?.try_into().ok()?))
}

fn u64_at(bytes: &[u8], at: usize) -> Option<u64> {
    Some(u64::from_le_bytes(bytes.get(at..at + 8)?.try_into().ok()?))
}
