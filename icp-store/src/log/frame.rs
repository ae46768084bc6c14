//! Headers and frames.

use alloc::vec::Vec;

use super::{LogError, codec};
use crate::store::Entry;

pub(super) const HEADER_BYTES: usize = 32;
pub(super) const FRAME_HEADER_BYTES: usize = 24;
pub(super) const ALIGN: usize = 8;
/// The format that this release writes.
pub(super) const VERSION: u32 = 1;
/// Largest payload of a frame, in bytes; a longer one is neither written nor believed.
pub(super) const PAYLOAD_BYTES_MAX: usize = 1 << 30;
/// Largest file that a header can tell of, in bytes.
pub(super) const FILE_BYTES_MAX: u64 = (u32::MAX as u64) * ALIGN as u64;

pub(super) const LOG_MAGIC: &[u8; 8] = b"icpstlog";
pub(super) const SNAPSHOT_MAGIC: &[u8; 8] = b"icpstsnp";

/// What stands at the beginning of a file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Header {
    /// Enters the checksum of each frame of the file, so that nobody who only chooses values can make one up.
    pub(super) salt: u32,
    /// Of a segment the first sequence number, of a snapshot the last one that it covers.
    pub(super) seq: u64,
    /// The length that the file was made with, a multiple of 8; 0 if it was not known.
    pub(super) file_bytes: u64,
}

impl Header {
    pub(super) fn encode(&self, magic: &[u8; 8]) -> Vec<u8> {
        let mut out = Vec::with_capacity(HEADER_BYTES);
        out.extend_from_slice(magic);
        out.extend_from_slice(&VERSION.to_le_bytes());
        out.extend_from_slice(&self.salt.to_le_bytes());
        out.extend_from_slice(&self.seq.to_le_bytes());
        let units = u32::try_from(self.file_bytes / ALIGN as u64).unwrap_or(u32::MAX);
        out.extend_from_slice(&units.to_le_bytes());
        let crc = crc32c::crc32c(&out);
        out.extend_from_slice(&crc.to_le_bytes());
        out
    }

    /// Reads the header of `file`.
    pub(super) fn parse(file: &str, magic: &[u8; 8], bytes: &[u8]) -> Result<Self, LogError> {
        let corrupt = |detail: &str| LogError::corrupt(file, 0, detail);
        let header = bytes.get(..HEADER_BYTES).ok_or_else(|| corrupt("the header is cut"))?;
        if header.get(..8) != Some(&magic[..]) {
            return Err(corrupt("it does not begin with the magic number of its kind"));
        }
        let parts = (u32_at(header, 8), u32_at(header, 12), u64_at(header, 16), u32_at(header, 24));
        let (Some(found), Some(salt), Some(seq), Some(units)) = parts else {
            return Err(corrupt("the header is cut"));
        };
        if u32_at(header, 28) != Some(crc32c::crc32c(header.get(..28).unwrap_or_default())) {
            return Err(corrupt("the header's checksum does not fit"));
        }
        if found != VERSION {
            return Err(LogError::Version { file: file.into(), found, known: VERSION });
        }
        Ok(Self { salt, seq, file_bytes: u64::from(units) * ALIGN as u64 })
    }
}

/// One frame of `entries`, of which the first has the number `first_seq`; its payload's length if that exceeds
/// `payload_bytes_max`.
pub(super) fn frame(
    salt: u32,
    first_seq: u64,
    entries: &[Entry],
    payload_bytes_max: usize,
) -> Result<Vec<u8>, usize> {
    let mut out = alloc::vec![0; FRAME_HEADER_BYTES];
    entries.iter().for_each(|e| codec::encode(e, &mut out));
    let payload_bytes = out.len() - FRAME_HEADER_BYTES;
    if payload_bytes > payload_bytes_max {
        return Err(payload_bytes);
    }
    let mut head = Vec::with_capacity(FRAME_HEADER_BYTES);
    head.extend_from_slice(&(payload_bytes as u32).to_le_bytes());
    head.extend_from_slice(&0_u32.to_le_bytes());
    head.extend_from_slice(&first_seq.to_le_bytes());
    head.extend_from_slice(&(entries.len() as u32).to_le_bytes());
    // Never zero, so that an empty frame is told from space that was never written.
    head.extend_from_slice(&1_u32.to_le_bytes());
    for (to, from) in out.iter_mut().zip(&head) {
        *to = *from;
    }
    let crc = checksum(salt, &out).unwrap_or(0).to_le_bytes();
    for (to, from) in out.iter_mut().skip(4).zip(crc) {
        *to = from;
    }
    out.resize(out.len().next_multiple_of(ALIGN), 0);
    Ok(out)
}

/// Of all bytes of a frame but the checksum itself.
fn checksum(salt: u32, frame: &[u8]) -> Option<u32> {
    Some(crc32c::crc32c_append(crc32c::crc32c_append(salt, frame.get(..4)?), frame.get(8..)?))
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

/// How many bytes the frame takes whose header is `head`, with its padding; `None` if that is too much to be believed.
pub(super) fn frame_bytes(head: &[u8]) -> Option<usize> {
    let payload_bytes = u32_at(head, 0)? as usize;
    (payload_bytes <= PAYLOAD_BYTES_MAX).then(|| (FRAME_HEADER_BYTES + payload_bytes).next_multiple_of(ALIGN))
}

/// Reads the frame at the beginning of `bytes`, which belongs to a file with this salt.
pub(super) fn parse(salt: u32, bytes: &[u8]) -> Parsed<'_> {
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
    let Some(whole) =
        frame_bytes(head).and_then(|_| bytes.get(..FRAME_HEADER_BYTES + payload_bytes as usize))
    else {
        return Parsed::Damaged;
    };
    let padded = whole.len().next_multiple_of(ALIGN);
    let padding = bytes.get(whole.len()..padded.min(bytes.len())).unwrap_or_default();
    match whole.get(FRAME_HEADER_BYTES..) {
        Some(payload) if checksum(salt, whole) == Some(crc) && padding.iter().all(|b| *b == 0) => {
            Parsed::Frame { first_seq, count, payload, bytes: padded }
        }
        _ => Parsed::Damaged,
    }
}

fn u32_at(bytes: &[u8], at: usize) -> Option<u32> {
    Some(u32::from_le_bytes(bytes.get(at..at.checked_add(4)?)?.try_into().ok()?))
}

fn u64_at(bytes: &[u8], at: usize) -> Option<u64> {
    Some(u64::from_le_bytes(bytes.get(at..at.checked_add(8)?)?.try_into().ok()?))
}
