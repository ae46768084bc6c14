//! The hash that etcd computes over its keys (`etcd-io/etcd 3.4 mvcc/kvstore.go HashByRev`).
//!
//! It is a CRC-32C of the bucket's name and of all versions up to the revision, each as the bytes that etcd has in its
//! file: the revision and the place, then the version in protobuf. Of the versions at or below the compacted revision only
//! those count that are still the newest of their keys at the hashed revision; but if no key exists at that revision,
//! all that the compaction left count.

use alloc::vec::Vec;

use icp_core::storage::{KeyValue, Revision};

use super::{Version, View};

/// The name of etcd's bucket.
const BUCKET: &[u8] = b"key";

impl View {
    /// The hash that etcd's `HashKV` gives for the view's revision and compacted revision.
    #[must_use]
    pub fn hash(&mut self) -> u32 {
        self.sort();
        // A change says which version it supersedes.
        let mut superseded: Vec<(Revision, u32)> = Vec::new();
        let mut keys = self.base().len() as i64;
        for change in self.commits().iter().flat_map(|c| &c.changes) {
            match &change.prev {
                Some(prev) if prev.mod_revision <= self.compacted => {
                    superseded.push((prev.mod_revision, prev.sub))
                }
                _ => {}
            }
            keys += match (change.is_delete(), change.kv.version) {
                (true, _) => -1,
                (false, 1) => 1,
                _ => 0,
            };
        }
        superseded.sort_unstable();
        let mut crc = crc32c(0, BUCKET);
        let mut buffer = Vec::new();
        for version in self.base() {
            if keys == 0 || superseded.binary_search(&(version.mod_revision, version.sub)).is_err() {
                crc = append(crc, version, &mut buffer);
            }
        }
        for change in self.commits().iter().flat_map(|c| &c.changes) {
            crc = append(crc, &change.kv, &mut buffer);
        }
        crc
    }
}

fn append(crc: u32, version: &Version, buffer: &mut Vec<u8>) -> u32 {
    buffer.clear();
    buffer.extend_from_slice(&version.mod_revision.to_be_bytes());
    buffer.push(b'_');
    buffer.extend_from_slice(&i64::from(version.sub).to_be_bytes());
    if version.is_delete() {
        buffer.push(b't');
    }
    encode(version, buffer);
    crc32c(crc, buffer)
}

/// `mvccpb.KeyValue` in protobuf: fields in order, without those that are zero. A tombstone has the key alone.
fn encode(kv: &KeyValue, out: &mut Vec<u8>) {
    let bytes = |tag: u8, bytes: &[u8], out: &mut Vec<u8>| {
        if !bytes.is_empty() {
            out.push(tag);
            varint(bytes.len() as u64, out);
            out.extend_from_slice(bytes);
        }
    };
    bytes(0x0a, &kv.key, out);
    if kv.version == 0 {
        return;
    }
    for (tag, number) in [(0x10, kv.create_revision), (0x18, kv.mod_revision), (0x20, kv.version)] {
        number_field(tag, number, out);
    }
    bytes(0x2a, &kv.value, out);
    number_field(0x30, kv.lease, out);
}

fn number_field(tag: u8, number: i64, out: &mut Vec<u8>) {
    if number != 0 {
        out.push(tag);
        varint(number as u64, out);
    }
}

fn varint(mut n: u64, out: &mut Vec<u8>) {
    while n >= 0x80 {
        out.push(n as u8 | 0x80);
        n >>= 7;
    }
    out.push(n as u8);
}

#[cfg(feature = "std")]
fn crc32c(crc: u32, bytes: &[u8]) -> u32 {
    ::crc32c::crc32c_append(crc, bytes)
}

#[cfg(not(feature = "std"))]
use bitwise::crc32c;

/// CRC-32C bit by bit, for builds without the crate that uses the processor's instruction.
#[cfg(any(test, not(feature = "std")))]
mod bitwise {
    pub(super) fn crc32c(crc: u32, bytes: &[u8]) -> u32 {
        let shift = |crc: u32, _| if crc & 1 == 1 { (crc >> 1) ^ 0x82f6_3b78 } else { crc >> 1 };
        !bytes.iter().fold(!crc, |crc, byte| (0..8).fold(crc ^ u32::from(*byte), shift))
    }
}

#[cfg(test)]
mod tests {
    #[test]
    fn the_known_check_value() {
        assert_eq!(super::bitwise::crc32c(0, b"123456789"), 0xe306_9283);
        assert_eq!(super::crc32c(super::crc32c(0, b"1234"), b"56789"), 0xe306_9283);
    }
}
