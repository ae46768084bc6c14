//! Writes a file from sorted records, page after page.
//!
//! A first pass looks at sizes alone and gives every page its number; a second one writes the pages in order. Nothing
//! but the first keys of the pages is held.

use alloc::boxed::Box;
use alloc::vec::Vec;

use super::format::{
    BRANCH, BUCKET_HEADER, ELEMENT, FREELIST, IS_BUCKET, LEAF, Meta, PAGE, PAGE_HEADER, header,
};

/// The records of a bucket: sorted by key, without repeats.
pub trait Records: Send {
    /// How many there are.
    fn len(&self) -> usize;

    /// Whether there are none.
    fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Appends the key of a record.
    fn key(&self, index: usize, out: &mut Vec<u8>);

    /// The bytes of its value.
    fn value_bytes(&self, index: usize) -> usize;

    /// Appends its value, of exactly [`Records::value_bytes`].
    fn value(&self, index: usize, out: &mut Vec<u8>);
}

impl Records for Vec<(Vec<u8>, Vec<u8>)> {
    fn len(&self) -> usize {
        Vec::len(self)
    }

    fn key(&self, index: usize, out: &mut Vec<u8>) {
        out.extend(self.get(index).map(|(key, _)| key.as_slice()).unwrap_or_default());
    }

    fn value_bytes(&self, index: usize) -> usize {
        self.get(index).map_or(0, |(_, value)| value.len())
    }

    fn value(&self, index: usize, out: &mut Vec<u8>) {
        out.extend(self.get(index).map(|(_, value)| value.as_slice()).unwrap_or_default());
    }
}

/// A bucket to write.
pub struct Bucket {
    /// Its name.
    pub name: &'static [u8],
    /// What is in it.
    pub records: Box<dyn Records>,
}

/// Some pages in a row: records of a bucket, or children of a branch.
struct Node {
    id: u64,
    /// Pages that it takes.
    pages: u64,
    /// The first record or child, and how many.
    first: usize,
    count: usize,
    key: Vec<u8>,
}

/// A bucket with its pages: leaves, then the branches above them, level by level; one node is in the last level.
struct Planned {
    bucket: Bucket,
    levels: Vec<Vec<Node>>,
}

/// A file whose pages are numbered; take them with [`File::next`].
pub struct File {
    buckets: Vec<Planned>,
    root: Vec<u8>,
    pages: u64,
    next: Next,
}

enum Next {
    Head,
    Node { bucket: usize, level: usize, node: usize },
    End,
}

/// A bucket that takes at most this stands in its parent's page, as bbolt does it.
const INLINE_BYTES_MAX: usize = PAGE / 4;
const META_PAGES: u64 = 2;
const ROOT_PAGE: u64 = META_PAGES + 1;
const COUNT_MAX: usize = u16::MAX as usize;

impl File {
    /// Plans a file of these buckets, which must be sorted by name.
    #[must_use]
    pub fn new(buckets: Vec<Bucket>) -> Self {
        // The root leaf holds a header for each bucket, or all of a small one.
        let values: Vec<usize> = buckets.iter().map(|b| inline_bytes(b).unwrap_or(BUCKET_HEADER)).collect();
        let root_bytes: usize = values.iter().zip(&buckets).map(|(v, b)| ELEMENT + b.name.len() + v).sum();
        let mut pages = ROOT_PAGE + pages_of(PAGE_HEADER + root_bytes);
        let buckets: Vec<Planned> = buckets.into_iter().map(|b| plan(b, &mut pages)).collect();
        let mut file = Self { buckets, root: Vec::new(), pages, next: Next::Head };
        file.root = file.root_page();
        file
    }

    /// The bytes of the whole file.
    #[must_use]
    pub const fn bytes(&self) -> u64 {
        self.pages * PAGE as u64
    }

    /// Appends the next pages, and says whether there were any.
    pub fn next(&mut self, out: &mut Vec<u8>) -> bool {
        match self.next {
            Next::Head => {
                let meta = Meta {
                    page_bytes: PAGE as u32,
                    root: ROOT_PAGE,
                    freelist: META_PAGES,
                    pages: self.pages,
                    txid: 0,
                };
                meta.write(0, out);
                Meta { txid: 1, ..meta }.write(1, out);
                header(out, META_PAGES, FREELIST, 0, 0);
                out.resize(out.len() + PAGE - PAGE_HEADER, 0);
                out.extend_from_slice(&self.root);
                self.next = self.first_node(0);
                true
            }
            Next::Node { bucket, level, node } => {
                self.write(bucket, level, node, out);
                let levels = self.buckets.get(bucket).map(|b| &b.levels);
                let nodes = levels.and_then(|l| l.get(level)).map_or(0, Vec::len);
                self.next = if node + 1 < nodes {
                    Next::Node { bucket, level, node: node + 1 }
                } else if level + 1 < levels.map_or(0, Vec::len) {
                    Next::Node { bucket, level: level + 1, node: 0 }
                } else {
                    self.first_node(bucket + 1)
                };
                true
            }
            Next::End => false,
        }
    }

    fn first_node(&self, from: usize) -> Next {
        let found = self.buckets.iter().skip(from).position(|b| !b.levels.is_empty());
        found.map_or(Next::End, |n| Next::Node { bucket: from + n, level: 0, node: 0 })
    }

    fn root_page(&self) -> Vec<u8> {
        let mut leaf = Elements::default();
        for planned in &self.buckets {
            let top = planned.levels.last().and_then(|l| l.first()).map_or(0, |n| n.id);
            let value = |out: &mut Vec<u8>| {
                out.extend_from_slice(&top.to_le_bytes());
                out.extend_from_slice(&0_u64.to_le_bytes());
                if top == 0 {
                    let records = &*planned.bucket.records;
                    let page = leaf_of(records, 0, records.len());
                    page.write(0, LEAF, out);
                }
            };
            leaf.push(IS_BUCKET, |out| out.extend_from_slice(planned.bucket.name), value);
        }
        let mut out = Vec::new();
        leaf.write(ROOT_PAGE, LEAF, &mut out);
        out.resize(out.len().next_multiple_of(PAGE), 0);
        out
    }

    fn write(&self, bucket: usize, level: usize, node: usize, out: &mut Vec<u8>) {
        let Some(planned) = self.buckets.get(bucket) else { return };
        let Some(node) = planned.levels.get(level).and_then(|l| l.get(node)) else { return };
        let start = out.len();
        match level.checked_sub(1).and_then(|below| planned.levels.get(below)) {
            None => leaf_of(&*planned.bucket.records, node.first, node.count).write(node.id, LEAF, out),
            Some(children) => {
                let mut branch = Elements::default();
                for child in children.iter().skip(node.first).take(node.count) {
                    branch.push_child(child.id, &child.key);
                }
                branch.write(node.id, BRANCH, out);
            }
        }
        out.resize(start + node.pages as usize * PAGE, 0);
    }
}

fn pages_of(bytes: usize) -> u64 {
    bytes.div_ceil(PAGE) as u64
}

/// The bytes of a bucket that is small enough to stand in its parent's page.
fn inline_bytes(bucket: &Bucket) -> Option<usize> {
    let records = &*bucket.records;
    // An element alone is this large.
    if records.len() > INLINE_BYTES_MAX / ELEMENT {
        return None;
    }
    let mut key = Vec::new();
    let mut bytes = BUCKET_HEADER + PAGE_HEADER;
    for index in 0..records.len() {
        key.clear();
        records.key(index, &mut key);
        bytes += ELEMENT + key.len() + records.value_bytes(index);
    }
    (bytes <= INLINE_BYTES_MAX).then_some(bytes)
}

fn plan(bucket: Bucket, pages: &mut u64) -> Planned {
    if inline_bytes(&bucket).is_some() {
        return Planned { bucket, levels: Vec::new() };
    }
    let records = &*bucket.records;
    let mut key = Vec::new();
    let sizes = (0..records.len()).map(|index| {
        key.clear();
        records.key(index, &mut key);
        (key.len() + records.value_bytes(index), key.clone())
    });
    let mut levels = alloc::vec![group(sizes, 1, pages)];
    while let Some(below) = levels.last().filter(|l| l.len() > 1) {
        let level = group(below.iter().map(|n| (n.key.len(), n.key.clone())), 2, pages);
        levels.push(level);
    }
    Planned { bucket, levels }
}

/// Fills nodes with elements in order; a node has at least `count_min`, whatever they take.
fn group(elements: impl Iterator<Item = (usize, Vec<u8>)>, count_min: usize, pages: &mut u64) -> Vec<Node> {
    let mut nodes: Vec<Node> = Vec::new();
    let mut sizes: Vec<usize> = Vec::new();
    for (index, (bytes, key)) in elements.enumerate() {
        let bytes = ELEMENT + bytes;
        match (nodes.last_mut(), sizes.last_mut()) {
            (Some(node), Some(size))
                if node.count < count_min || (*size + bytes <= PAGE && node.count < COUNT_MAX) =>
            {
                node.count += 1;
                *size += bytes;
            }
            _ => {
                nodes.push(Node { id: 0, pages: 0, first: index, count: 1, key });
                sizes.push(PAGE_HEADER + bytes);
            }
        }
    }
    // A last branch with one child would be a level for nothing: the one before it takes that in.
    if count_min > 1
        && nodes.last().is_some_and(|n| n.count < count_min)
        && let (Some(last), Some(bytes)) = (nodes.pop(), sizes.pop())
    {
        match (nodes.last_mut(), sizes.last_mut()) {
            (Some(node), Some(size)) => {
                node.count += last.count;
                *size += bytes - PAGE_HEADER;
            }
            _ => {
                nodes.push(last);
                sizes.push(bytes);
            }
        }
    }
    for (node, size) in nodes.iter_mut().zip(sizes) {
        node.id = *pages;
        node.pages = pages_of(size);
        *pages += node.pages;
    }
    nodes
}

fn leaf_of(records: &dyn Records, first: usize, count: usize) -> Elements {
    let mut leaf = Elements::default();
    for index in first..first + count {
        leaf.push(0, |out| records.key(index, out), |out| records.value(index, out));
    }
    leaf
}

/// The elements of a page and their keys and values, apart: a position counts from its element.
#[derive(Default)]
struct Elements {
    /// Flags or zero, the position of the key within the data, key bytes, value bytes; or position, key bytes and child.
    heads: Vec<Head>,
    data: Vec<u8>,
}

enum Head {
    Leaf { flags: u32, at: usize, key: usize, value: usize },
    Branch { at: usize, key: usize, child: u64 },
}

impl Elements {
    fn push(&mut self, flags: u32, key: impl FnOnce(&mut Vec<u8>), value: impl FnOnce(&mut Vec<u8>)) {
        let at = self.data.len();
        key(&mut self.data);
        let middle = self.data.len();
        value(&mut self.data);
        let (key, value) = (middle - at, self.data.len() - middle);
        self.heads.push(Head::Leaf { flags, at, key, value });
    }

    fn push_child(&mut self, child: u64, key: &[u8]) {
        self.heads.push(Head::Branch { at: self.data.len(), key: key.len(), child });
        self.data.extend_from_slice(key);
    }

    fn write(&self, id: u64, flags: u16, out: &mut Vec<u8>) {
        let bytes = PAGE_HEADER + self.heads.len() * ELEMENT + self.data.len();
        let overflow = if id == 0 { 0 } else { pages_of(bytes).saturating_sub(1) };
        header(out, id, flags, self.heads.len() as u16, overflow as u32);
        for (index, head) in self.heads.iter().enumerate() {
            let before_data = (self.heads.len() - index) * ELEMENT;
            match head {
                Head::Leaf { flags, at, key, value } => {
                    for word in [*flags as usize, before_data + at, *key, *value] {
                        out.extend_from_slice(&(word as u32).to_le_bytes());
                    }
                }
                Head::Branch { at, key, child } => {
                    out.extend_from_slice(&((before_data + at) as u32).to_le_bytes());
                    out.extend_from_slice(&(*key as u32).to_le_bytes());
                    out.extend_from_slice(&child.to_le_bytes());
                }
            }
        }
        out.extend_from_slice(&self.data);
    }
}
