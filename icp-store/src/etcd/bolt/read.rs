//! Reads a file, page by page, in the order of keys. The file is not trusted.

use alloc::string::String;
use alloc::vec::Vec;

use super::format::{
    BRANCH, BUCKET_HEADER, ELEMENT, IS_BUCKET, LEAF, Meta, PAGE_HEADER, u16_at, u32_at, u64_at,
};

/// Why a file cannot be read.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum BoltError {
    /// Neither meta page is one.
    #[error("no valid meta page: not a bbolt file, or one that was cut")]
    NoMeta,
    /// A page says something that cannot be.
    #[error("page {page}: {detail}")]
    Corrupt {
        /// The page.
        page: u64,
        /// What is wrong with it.
        detail: &'static str,
    },
    /// The source failed.
    #[error("reading at {offset}: {detail}")]
    Read {
        /// Where.
        offset: u64,
        /// What it said.
        detail: String,
    },
    /// Who takes the records refused one.
    #[error("{0}")]
    Refused(String),
}

/// Bytes that can be read anywhere: a file, or memory.
pub trait Source {
    /// Fills `out` from `offset` on.
    ///
    /// # Errors
    /// What the system says, also if the bytes end before `out` is full.
    fn read_at(&self, offset: u64, out: &mut [u8]) -> Result<(), String>;

    /// How many bytes there are.
    fn bytes(&self) -> u64;
}

impl Source for [u8] {
    fn read_at(&self, offset: u64, out: &mut [u8]) -> Result<(), String> {
        let from = usize::try_from(offset).ok().and_then(|o| self.get(o..)?.get(..out.len()));
        out.copy_from_slice(from.ok_or("the bytes end before that")?);
        Ok(())
    }

    fn bytes(&self) -> u64 {
        self.len() as u64
    }
}

/// A file to read.
pub struct Reader<'a, S: Source + ?Sized> {
    source: &'a S,
    meta: Meta,
}

/// Deepest tree that is followed: four billion pages fill fewer levels.
const DEPTH_MAX: usize = 64;

/// Takes flags, key and value of a leaf element.
type Visit<'v> = dyn FnMut(u32, &[u8], &[u8]) -> Result<(), BoltError> + 'v;

/// Where a bucket's records are.
enum Root {
    Page(u64),
    Inline(Vec<u8>),
}

impl<'a, S: Source + ?Sized> Reader<'a, S> {
    /// Opens a file by the newer of its two meta pages.
    ///
    /// # Errors
    /// [`BoltError::NoMeta`].
    pub fn open(source: &'a S) -> Result<Self, BoltError> {
        let meta_at = |offset: u64| {
            let mut page = alloc::vec![0; PAGE_HEADER + 64];
            source.read_at(offset, &mut page).ok()?;
            Meta::read(&page)
        };
        // If the first is broken the second lies one page further, of a size that is not known.
        let second = |first: Option<Meta>| match first {
            Some(meta) => meta_at(u64::from(meta.page_bytes)),
            None => (9..17)
                .map(|n| 1 << n)
                .find_map(|bytes| meta_at(bytes).filter(|m| u64::from(m.page_bytes) == bytes)),
        };
        let first = meta_at(0);
        let meta = first.into_iter().chain(second(first)).max_by_key(|m| m.txid).ok_or(BoltError::NoMeta)?;
        if !meta.page_bytes.is_power_of_two() || !(512..=1 << 16).contains(&meta.page_bytes) {
            return Err(BoltError::NoMeta);
        }
        Ok(Self { source, meta })
    }

    /// Visits the records of a bucket in the order of keys; a bucket that is missing has none. Buckets within are
    /// passed over.
    ///
    /// # Errors
    /// [`BoltError::Corrupt`], [`BoltError::Read`], and what `visit` returns.
    pub fn for_each(
        &self,
        bucket: &[u8],
        mut visit: impl FnMut(&[u8], &[u8]) -> Result<(), BoltError>,
    ) -> Result<(), BoltError> {
        let mut root = None;
        self.visit_page(self.meta.root, &mut |flags, name, value| {
            if flags & IS_BUCKET != 0 && name == bucket {
                let corrupt = |detail| BoltError::Corrupt { page: self.meta.root, detail };
                let page = u64_at(value, 0).ok_or_else(|| corrupt("a bucket without a root"))?;
                root = Some(match page {
                    0 => Root::Inline(value.get(BUCKET_HEADER..).unwrap_or_default().to_vec()),
                    page => Root::Page(page),
                });
            }
            Ok(())
        })?;
        let mut leaf = |flags: u32, key: &[u8], value: &[u8]| {
            if flags & IS_BUCKET != 0 { Ok(()) } else { visit(key, value) }
        };
        match root {
            None => Ok(()),
            Some(Root::Page(page)) => self.visit_page(page, &mut leaf),
            Some(Root::Inline(page)) => visit_leaf(0, &page, &mut leaf),
        }
    }

    /// Visits the leaf elements under a page in order.
    fn visit_page(&self, root: u64, visit: &mut Visit<'_>) -> Result<(), BoltError> {
        // Branches on the way down, each with the next child.
        let mut path: Vec<(u64, Vec<u8>, usize)> = Vec::new();
        let mut at = Some(root);
        let mut pages_left = self.meta.pages;
        loop {
            if let Some(id) = at.take() {
                let corrupt = |detail| BoltError::Corrupt { page: id, detail };
                pages_left = pages_left.checked_sub(1).ok_or_else(|| corrupt("pages refer to each other"))?;
                let page = self.page(id)?;
                match u16_at(&page, 8).unwrap_or(0) {
                    LEAF => visit_leaf(id, &page, visit)?,
                    BRANCH if path.len() < DEPTH_MAX => path.push((id, page, 0)),
                    BRANCH => return Err(corrupt("the tree is too deep")),
                    _ => return Err(corrupt("neither a branch nor a leaf")),
                }
            }
            let Some((id, page, next)) = path.last_mut() else { return Ok(()) };
            if *next < usize::from(u16_at(page, 10).unwrap_or(0)) {
                let child = u64_at(page, PAGE_HEADER + *next * ELEMENT + 8);
                at =
                    Some(child.ok_or(BoltError::Corrupt {
                        page: *id,
                        detail: "a child lies outside of the page",
                    })?);
                *next += 1;
            } else {
                path.pop();
            }
        }
    }

    /// A page with what it overflows into.
    fn page(&self, id: u64) -> Result<Vec<u8>, BoltError> {
        let corrupt = |detail| BoltError::Corrupt { page: id, detail };
        let page_bytes = u64::from(self.meta.page_bytes);
        if id >= self.meta.pages {
            return Err(corrupt("it lies beyond the pages in use"));
        }
        let offset = id.checked_mul(page_bytes).ok_or_else(|| corrupt("it lies beyond the file"))?;
        let read = |bytes: u64| {
            if offset.checked_add(bytes).is_none_or(|end| end > self.source.bytes()) {
                return Err(corrupt("it lies beyond the file"));
            }
            let mut page = alloc::vec![0; usize::try_from(bytes).map_err(|_| corrupt("it is too large"))?];
            self.source.read_at(offset, &mut page).map_err(|detail| BoltError::Read { offset, detail })?;
            Ok(page)
        };
        let page = read(page_bytes)?;
        if u64_at(&page, 0) != Some(id) {
            return Err(corrupt("it has another number"));
        }
        match u32_at(&page, 12).unwrap_or(0) {
            0 => Ok(page),
            overflow => read(page_bytes.saturating_mul(u64::from(overflow) + 1)),
        }
    }
}

fn visit_leaf(id: u64, page: &[u8], visit: &mut Visit<'_>) -> Result<(), BoltError> {
    let outside = BoltError::Corrupt { page: id, detail: "a record lies outside of the page" };
    let count = u16_at(page, 10).ok_or_else(|| outside.clone())?;
    for index in 0..usize::from(count) {
        let at = PAGE_HEADER + index * ELEMENT;
        let record = || {
            let [flags, from, key, value] = [0, 4, 8, 12].map(|n| u32_at(page, at + n));
            let from = page.get(at..)?.get(from? as usize..)?;
            let (key, rest) = from.split_at_checked(key? as usize)?;
            Some((flags?, key, rest.get(..value? as usize)?))
        };
        let (flags, key, value) = record().ok_or_else(|| outside.clone())?;
        visit(flags, key, value)?;
    }
    Ok(())
}
