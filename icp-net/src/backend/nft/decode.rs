//! What stands in the kernel, read back for mark and sweep.

use std::collections::{BTreeMap, BTreeSet};
use std::string::{String, ToString};
use std::vec::Vec;

use super::constants::*;
use super::encode::{fingerprint_of, predecessor};
use crate::backend::netlink::{Attribute, attributes};
use crate::rules::{
    BaseChain, ChainSnapshot, ChainType, Data, DataType, FieldType, Hook, Key, SetSpec, Type, Value, Verdict,
};

/// `struct nfgenmsg`.
const HEADER_BYTES: usize = 4;

pub(super) fn body(payload: &[u8]) -> impl Iterator<Item = Attribute<'_>> {
    attributes(payload.get(HEADER_BYTES..).unwrap_or(&[]))
}

pub(super) fn table_name(payload: &[u8]) -> String {
    body(payload).find(|a| a.kind == TABLE_NAME).map_or(String::new(), |a| a.str().to_string())
}

pub(super) fn chain(payload: &[u8]) -> (String, String, ChainSnapshot) {
    let (mut table, mut name) = (String::new(), String::new());
    let (mut hook, mut drop_by_default, mut kind) = (None, false, ChainType::Filter);
    for a in body(payload) {
        match a.kind {
            CHAIN_TABLE => table = a.str().to_string(),
            CHAIN_NAME => name = a.str().to_string(),
            CHAIN_POLICY => drop_by_default = a.be32() == Some(0),
            CHAIN_TYPE if a.str() == "nat" => kind = ChainType::Nat,
            CHAIN_HOOK => hook = base_hook(a),
            _ => {}
        }
    }
    let base = hook.map(|(hook, priority)| BaseChain { kind, hook, priority, drop_by_default });
    (table, name, ChainSnapshot { base, rules: Vec::new() })
}

fn base_hook(a: Attribute<'_>) -> Option<(Hook, i32)> {
    let (mut hook, mut priority) = (None, 0);
    for a in a.nested() {
        match a.kind {
            HOOK_NUMBER => {
                hook = match a.be32()? {
                    0 => Some(Hook::Prerouting),
                    1 => Some(Hook::Input),
                    2 => Some(Hook::Forward),
                    3 => Some(Hook::Output),
                    _ => Some(Hook::Postrouting),
                };
            }
            HOOK_PRIORITY => priority = a.array().map(i32::from_be_bytes)?,
            _ => {}
        }
    }
    Some((hook?, priority))
}

pub(super) fn rule(payload: &[u8]) -> (String, String, Option<u64>) {
    let (mut table, mut chain, mut fingerprint) = (String::new(), String::new(), None);
    for a in body(payload) {
        match a.kind {
            RULE_TABLE => table = a.str().to_string(),
            RULE_CHAIN => chain = a.str().to_string(),
            RULE_USERDATA => fingerprint = fingerprint_of(a.value),
            _ => {}
        }
    }
    (table, chain, fingerprint)
}

fn types_of(nft_type: u32) -> Option<Type> {
    const ALL: [FieldType; 7] = [
        FieldType::Ipv4Addr,
        FieldType::Ipv6Addr,
        FieldType::InetProto,
        FieldType::InetService,
        FieldType::Mark,
        FieldType::IfName,
        FieldType::EtherAddr,
    ];
    let mut fields = Vec::new();
    let mut rest = nft_type;
    while rest != 0 {
        fields.push(*ALL.iter().find(|f| f.nft_type() == rest & 0x3f)?);
        rest >>= 6;
    }
    fields.reverse();
    Some(fields.into())
}

/// The table, the name and the definition; anonymous sets belong to a rule and are left out.
pub(super) fn set(payload: &[u8]) -> Option<(String, String, Option<SetSpec>)> {
    let (mut table, mut name) = (String::new(), String::new());
    let (mut flags, mut key, mut data, mut size, mut timeout_ms) = (0, 0, 0, 0, 0);
    for a in body(payload) {
        match a.kind {
            SET_TABLE => table = a.str().to_string(),
            SET_NAME => name = a.str().to_string(),
            SET_FLAGS => flags = a.be32().unwrap_or(0),
            SET_KEY_TYPE => key = a.be32().unwrap_or(0),
            SET_DATA_TYPE => data = a.be32().unwrap_or(0),
            SET_TIMEOUT => timeout_ms = a.be64().unwrap_or(0),
            SET_DESC => {
                size = a.nested().find(|n| n.kind == SET_DESC_SIZE).and_then(|n| n.be32()).unwrap_or(0);
            }
            _ => {}
        }
    }
    if flags & SET_ANONYMOUS != 0 {
        return None;
    }
    let data = if flags & SET_MAP == 0 {
        Some(DataType::None)
    } else if data == DATA_TYPE_VERDICT {
        Some(DataType::Verdict)
    } else {
        types_of(data).map(DataType::Value)
    };
    let spec = match (types_of(key), data) {
        (Some(key), Some(data)) => Some(SetSpec {
            name: name.clone(),
            key,
            data,
            interval: flags & SET_INTERVAL != 0,
            dynamic: flags & SET_EVAL != 0,
            timeout_ms,
            size,
        }),
        _ => None,
    };
    Some((table, name, spec))
}

fn value_in(a: Attribute<'_>) -> Option<Value> {
    a.nested().find(|n| n.kind == DATA_VALUE).map(|n| Value::new(n.value))
}

fn data_in(a: Attribute<'_>) -> Option<Data> {
    let inner = a.nested().next()?;
    if inner.kind == DATA_VALUE {
        return Some(Data::Value(Value::new(inner.value)));
    }
    let (mut code, mut chain) = (0, String::new());
    for n in inner.nested() {
        match n.kind {
            VERDICT_CODE => code = n.array().map(i32::from_be_bytes)?,
            VERDICT_CHAIN => chain = n.str().to_string(),
            _ => {}
        }
    }
    Some(Data::Verdict(match code {
        VERDICT_DROP => Verdict::Drop,
        VERDICT_ACCEPT => Verdict::Accept,
        VERDICT_JUMP => Verdict::Jump(chain),
        VERDICT_GOTO => Verdict::Goto(chain),
        VERDICT_RETURN => Verdict::Return,
        _ => Verdict::Continue,
    }))
}

/// The elements of one set, as they come.
#[derive(Default)]
pub(super) struct Elements {
    whole: BTreeMap<Key, Data>,
    starts: Vec<(Value, Data)>,
    ends: BTreeSet<Value>,
}

impl Elements {
    pub(super) fn add(&mut self, payload: &[u8], single_range: bool) {
        let Some(list) = body(payload).find(|a| a.kind == ELEM_LIST_ELEMENTS) else { return };
        for element in list.nested() {
            let (mut value, mut end, mut data, mut is_end) = (None, None, Data::None, false);
            for a in element.nested() {
                match a.kind {
                    ELEM_KEY => value = value_in(a),
                    ELEM_KEY_END => end = value_in(a),
                    ELEM_DATA => data = data_in(a).unwrap_or(Data::None),
                    ELEM_FLAGS => is_end = a.be32().unwrap_or(0) & ELEM_INTERVAL_END != 0,
                    _ => {}
                }
            }
            match value {
                Some(value) if is_end => {
                    self.ends.insert(value);
                }
                Some(value) if single_range => self.starts.push((value, data)),
                Some(value) => {
                    end = end.filter(|e| *e != value);
                    self.whole.insert(Key { value, end }, data);
                }
                None => {}
            }
        }
    }

    /// A range of a single field comes as its start and the first value behind it.
    pub(super) fn finish(mut self) -> BTreeMap<Key, Data> {
        for (value, data) in core::mem::take(&mut self.starts) {
            let behind =
                self.ends.range((core::ops::Bound::Excluded(&value), core::ops::Bound::Unbounded)).next();
            let end = match behind {
                Some(behind) => predecessor(behind),
                None => Some(Value::new(&std::vec![0xff; value.bytes().len()])),
            };
            let end = end.filter(|e| *e != value);
            self.whole.insert(Key { value, end }, data);
        }
        self.whole
    }
}
