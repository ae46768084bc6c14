//! The built-in table, read in place: no parsing, no memory.
//!
//! `types.bin` is made by the example `pack-schemas`. All numbers are little-endian. After the magic and five
//! counts (types, fields, nodes, keys, strings) follow
//! - types, sorted by name, 22 bytes: name, description length, description offset (u32), first field, fields,
//!   group, version, kind; then four bytes: kind of value, atomic map, format, 0;
//! - fields, grouped by type and sorted by name, 12 bytes: name, node, required, description length,
//!   description offset (u32);
//! - nodes, 12 bytes: kind of value, list type, flags, format; then argument (a type or a node), merge key, list
//!   keys, 0. The first nodes are the types in order;
//! - keys, u16: lists of strings, each a count and the strings;
//! - the ends of the strings (u32), then the strings.
//!
//! `tags.bin` has three bytes for each field in the same order: the number of the field in protobuf, the number within
//! that field's message if Go embeds the struct, and whether a zero is a value. 0 is no number.
//!
//! `descriptions.txt` is a file of its own because only `kubectl explain` needs it.

static TYPES: &[u8] = include_bytes!("types.bin");
static TAGS: &[u8] = include_bytes!("tags.bin");
static DESCRIPTIONS: &str = include_str!("descriptions.txt");

const HEAD: usize = 28;
const TYPE: usize = 22;
const FIELD: usize = 12;
const NODE: usize = 12;
pub(super) const NONE: u16 = u16::MAX;

pub(super) const ANY: u8 = 0;
pub(super) const STRING: u8 = 1;
pub(super) const INTEGER: u8 = 2;
pub(super) const NUMBER: u8 = 3;
pub(super) const BOOLEAN: u8 = 4;
pub(super) const FREE: u8 = 5;
pub(super) const LIST: u8 = 6;
pub(super) const MAP: u8 = 7;
pub(super) const REF: u8 = 8;
pub(super) const OBJECT: u8 = 9;
pub(super) const INT_OR_STRING: u8 = 10;
pub(super) const QUANTITY: u8 = 11;

/// Reads past the end give zero; the tests walk the whole table.
fn u16_at(at: usize) -> u16 {
    TYPES.get(at..at + 2).and_then(|b| b.try_into().ok()).map_or(0, u16::from_le_bytes)
}

fn u32_at(at: usize) -> usize {
    TYPES.get(at..at + 4).and_then(|b| b.try_into().ok()).map_or(0, |b| u32::from_le_bytes(b) as usize)
}

fn u8_at(at: usize) -> u8 {
    TYPES.get(at).copied().unwrap_or(0)
}

fn types() -> usize {
    u32_at(8)
}

fn fields_at() -> usize {
    HEAD + types() * TYPE
}

fn nodes_at() -> usize {
    fields_at() + u32_at(12) * FIELD
}

fn keys_at() -> usize {
    nodes_at() + u32_at(16) * NODE
}

fn ends_at() -> usize {
    keys_at() + u32_at(20) * 2
}

fn string(id: u16) -> &'static str {
    if id == NONE {
        return "";
    }
    let (id, ends) = (usize::from(id), ends_at());
    let base = ends + u32_at(24) * 4;
    let start = if id == 0 { 0 } else { u32_at(ends + (id - 1) * 4) };
    let end = u32_at(ends + id * 4);
    TYPES.get(base + start..base + end).and_then(|b| core::str::from_utf8(b).ok()).unwrap_or("")
}

fn description(len_at: usize, start_at: usize) -> &'static str {
    let start = u32_at(start_at);
    DESCRIPTIONS.get(start..start + usize::from(u16_at(len_at))).unwrap_or("")
}

/// A type of the table.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Type(pub(super) u16);

/// A field of a type.
#[derive(Clone, Copy, Debug)]
pub(super) struct Field(usize);

impl Type {
    fn at(self) -> usize {
        HEAD + usize::from(self.0) * TYPE
    }

    pub(super) fn find(name: &str) -> Option<Self> {
        let (mut low, mut high) = (0, types());
        while low < high {
            let middle = usize::midpoint(low, high);
            let this = Self(u16::try_from(middle).ok()?);
            match this.name().cmp(name) {
                core::cmp::Ordering::Equal => return Some(this),
                core::cmp::Ordering::Less => low = middle + 1,
                core::cmp::Ordering::Greater => high = middle,
            }
        }
        None
    }

    #[cfg(test)]
    pub(super) fn all() -> impl Iterator<Item = Self> {
        (0..u16::try_from(types()).unwrap_or(0)).map(Self)
    }

    pub(super) fn name(self) -> &'static str {
        string(u16_at(self.at()))
    }

    pub(super) fn description(self) -> &'static str {
        description(self.at() + 2, self.at() + 4)
    }

    pub(super) fn fields(self) -> impl DoubleEndedIterator<Item = Field> + Clone {
        let first = usize::from(u16_at(self.at() + 8));
        let base = fields_at();
        (first..first + usize::from(u16_at(self.at() + 10))).map(move |i| Field(base + i * FIELD))
    }

    pub(super) fn field(self, name: &str) -> Option<Field> {
        let first = usize::from(u16_at(self.at() + 8));
        let base = fields_at();
        let (mut low, mut high) = (first, first + usize::from(u16_at(self.at() + 10)));
        while low < high {
            let middle = usize::midpoint(low, high);
            let this = Field(base + middle * FIELD);
            match this.name().cmp(name) {
                core::cmp::Ordering::Equal => return Some(this),
                core::cmp::Ordering::Less => low = middle + 1,
                core::cmp::Ordering::Greater => high = middle,
            }
        }
        None
    }

    /// Group, version and kind, if the type is a kind.
    pub(super) fn gvk(self) -> Option<(&'static str, &'static str, &'static str)> {
        let part = |i: usize| u16_at(self.at() + 12 + i * 2);
        (part(2) != NONE).then(|| (string(part(0)), string(part(1)), string(part(2))))
    }

    pub(super) fn kind(self) -> u8 {
        u8_at(self.at() + 18)
    }

    pub(super) fn atomic(self) -> bool {
        u8_at(self.at() + 19) != 0
    }

    pub(super) fn format(self) -> u8 {
        u8_at(self.at() + 20)
    }
}

impl Field {
    pub(super) fn name(self) -> &'static str {
        string(u16_at(self.0))
    }

    pub(super) fn node(self) -> u16 {
        u16_at(self.0 + 2)
    }

    pub(super) fn required(self) -> bool {
        u16_at(self.0 + 4) != 0
    }

    pub(super) fn description(self) -> &'static str {
        description(self.0 + 6, self.0 + 8)
    }

    /// Number, inner number, whether a zero is a value.
    pub(super) fn tag(self) -> (u8, u8, bool) {
        let at = (self.0 - fields_at()) / FIELD * 3;
        let byte = |i: usize| TAGS.get(at + i).copied().unwrap_or(0);
        (byte(0), byte(1), byte(2) != 0)
    }
}

fn node_at(node: u16) -> usize {
    nodes_at() + usize::from(node) * NODE
}

/// The kind of value of a node, as written; a reference is [`REF`].
pub(super) fn kind(node: u16) -> u8 {
    u8_at(node_at(node))
}

pub(super) fn list_type(node: u16) -> u8 {
    u8_at(node_at(node) + 1)
}

pub(super) fn flags(node: u16) -> u8 {
    u8_at(node_at(node) + 2)
}

pub(super) fn format(node: u16) -> u8 {
    u8_at(node_at(node) + 3)
}

pub(super) fn argument(node: u16) -> u16 {
    u16_at(node_at(node) + 4)
}

pub(super) fn merge_key(node: u16) -> &'static str {
    string(u16_at(node_at(node) + 6))
}

pub(super) fn list_keys(node: u16) -> impl Iterator<Item = &'static str> {
    let id = u16_at(node_at(node) + 8);
    let at = keys_at() + usize::from(id) * 2;
    let count = if id == NONE { 0 } else { usize::from(u16_at(at)) };
    (0..count).map(move |i| string(u16_at(at + 2 + i * 2)))
}

/// The type that a node refers to.
pub(super) fn referred(node: u16) -> Option<Type> {
    (kind(node) == REF).then(|| Type(argument(node)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_whole_table_can_be_walked() {
        assert_eq!(TYPES.get(..8), Some(b"ICPSCHM1".as_slice()));
        assert_eq!(TAGS.len(), u32_at(12) * 3);
        let nodes = u32_at(16);
        let mut last = "";
        for t in Type::all() {
            assert!(last < t.name(), "{last} {}", t.name());
            last = t.name();
            assert_eq!(referred(t.0), Some(t));
            for f in t.fields() {
                assert!(!f.name().is_empty() && usize::from(f.node()) < nodes, "{} {}", t.name(), f.name());
                assert!(t.field(f.name()).is_some());
            }
        }
        for node in 0..u16::try_from(nodes).unwrap() {
            match kind(node) {
                REF => assert!(usize::from(argument(node)) < types()),
                LIST | MAP => assert!(usize::from(argument(node)) < nodes),
                _ => assert_eq!(argument(node), NONE),
            }
        }
    }
}
