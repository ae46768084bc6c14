//! The words of the file: page headers, elements, meta pages (`etcd-io/bbolt page.go, db.go`). All numbers are
//! little-endian, as on every machine that etcd is released for.

use alloc::vec::Vec;

/// The size of the pages that are written.
pub(super) const PAGE: usize = 4096;
/// Bytes before a page's elements.
pub(super) const PAGE_HEADER: usize = 16;
/// Bytes of an element of a leaf or a branch, without key and value.
pub(super) const ELEMENT: usize = 16;
/// Bytes of a bucket before an inline page.
pub(super) const BUCKET_HEADER: usize = 16;

pub(super) const BRANCH: u16 = 1;
pub(super) const LEAF: u16 = 2;
pub(super) const META: u16 = 4;
pub(super) const FREELIST: u16 = 0x10;
/// The flag of a leaf element whose value is a bucket.
pub(super) const IS_BUCKET: u32 = 1;

const MAGIC: u32 = 0xED0C_DAED;
const VERSION: u32 = 2;
const META_BYTES: usize = 64;

/// What a meta page says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Meta {
    pub(super) page_bytes: u32,
    /// The page of the root bucket.
    pub(super) root: u64,
    pub(super) freelist: u64,
    /// The first page that was never used.
    pub(super) pages: u64,
    pub(super) txid: u64,
}

impl Meta {
    /// Writes the whole meta page `id`.
    pub(super) fn write(&self, id: u64, out: &mut Vec<u8>) {
        let start = out.len();
        header(out, id, META, 0, 0);
        let body = out.len();
        for word in [MAGIC, VERSION, self.page_bytes, 0] {
            out.extend_from_slice(&word.to_le_bytes());
        }
        for word in [self.root, 0, self.freelist, self.pages, self.txid] {
            out.extend_from_slice(&word.to_le_bytes());
        }
        let sum = fnv1a(out.get(body..).unwrap_or_default());
        out.extend_from_slice(&sum.to_le_bytes());
        out.resize(start + PAGE, 0);
    }

    /// Reads a meta page; `None` if it is none or if its checksum is wrong.
    pub(super) fn read(page: &[u8]) -> Option<Self> {
        let meta = page.get(PAGE_HEADER..PAGE_HEADER + META_BYTES)?;
        let valid = u16_at(page, 8)? & META != 0
            && u32_at(meta, 0)? == MAGIC
            && u32_at(meta, 4)? == VERSION
            && u64_at(meta, 56)? == fnv1a(meta.get(..56)?);
        let read = Self {
            page_bytes: u32_at(meta, 8)?,
            root: u64_at(meta, 16)?,
            freelist: u64_at(meta, 32)?,
            pages: u64_at(meta, 40)?,
            txid: u64_at(meta, 48)?,
        };
        valid.then_some(read)
    }
}

/// Appends a page header.
pub(super) fn header(out: &mut Vec<u8>, id: u64, flags: u16, count: u16, overflow: u32) {
    out.extend_from_slice(&id.to_le_bytes());
    out.extend_from_slice(&flags.to_le_bytes());
    out.extend_from_slice(&count.to_le_bytes());
    out.extend_from_slice(&overflow.to_le_bytes());
}

fn fnv1a(bytes: &[u8]) -> u64 {
    bytes.iter().fold(0xcbf2_9ce4_8422_2325, |h, b| (h ^ u64::from(*b)).wrapping_mul(0x100_0000_01b3))
}

pub(super) fn u16_at(bytes: &[u8], at: usize) -> Option<u16> {
    Some(u16::from_le_bytes(*bytes.get(at..)?.first_chunk()?))
}

pub(super) fn u32_at(bytes: &[u8], at: usize) -> Option<u32> {
    Some(u32::from_le_bytes(*bytes.get(at..)?.first_chunk()?))
}

pub(super) fn u64_at(bytes: &[u8], at: usize) -> Option<u64> {
    Some(u64::from_le_bytes(*bytes.get(at..)?.first_chunk()?))
}
