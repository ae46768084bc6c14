//! Changes to netlink messages (`linux/netfilter/nf_tables.h`).

use std::format;
use std::string::String;
use std::vec::Vec;

use super::constants::*;
use super::expr::{value, verdict_data, write_expr};
use crate::backend::netlink::{Encoder, flag};
use crate::rules::{
    BaseChain, Chain, ChainType, Change, Data, DataType, Family, FieldType, Hook, Key, Rule, SetSpec,
    TableId, Type, Value,
};

/// The most bytes of elements in one message: their list is one attribute, which holds 64 KiB.
const ELEMENTS_BYTES_MAX: usize = 60_000;

pub(super) const fn family(family: Family) -> u8 {
    match family {
        Family::Inet => 1,
        Family::Ip => 2,
        Family::Ip6 => 10,
    }
}

pub(super) const fn hook(hook: Hook) -> u32 {
    match hook {
        Hook::Prerouting => 0,
        Hook::Input => 1,
        Hook::Forward => 2,
        Hook::Output => 3,
        Hook::Postrouting => 4,
    }
}

/// `struct nfgenmsg`.
pub(super) fn header(e: &mut Encoder, family: u8, resource: u16) {
    e.raw(&[family, 0]).raw(&resource.to_be_bytes());
}

/// Says what each message of a batch was about, so that an error can name it.
pub(super) struct Messages<'a> {
    pub(super) out: &'a mut Encoder,
    pub(super) seq: &'a mut dyn FnMut() -> u32,
    pub(super) about: &'a mut Vec<(u32, String)>,
}

impl Messages<'_> {
    fn message(&mut self, kind: u16, flags: u16, family: u8, about: String, body: impl FnOnce(&mut Encoder)) {
        let seq = (self.seq)();
        self.about.push((seq, about));
        self.out.message((SUBSYSTEM << 8) | kind, flags | flag::REQUEST, seq, |e| {
            header(e, family, 0);
            body(e);
        });
    }

    /// Writes `change` as one or more messages.
    pub(super) fn change(&mut self, change: &Change) {
        match change {
            Change::AddTable(id) => self.message(
                NEWTABLE,
                flag::CREATE,
                family(id.family),
                format!("add table {}", id.name),
                |e| {
                    e.str(TABLE_NAME, &id.name);
                },
            ),
            Change::DeleteTable(id) => {
                self.message(DELTABLE, 0, family(id.family), format!("delete table {}", id.name), |e| {
                    e.str(TABLE_NAME, &id.name);
                })
            }
            Change::AddSet(id, spec) => self.add_set(id, spec),
            Change::DeleteSet(id, name) => {
                self.message(DELSET, 0, family(id.family), format!("delete set {name}"), |e| {
                    e.str(SET_TABLE, &id.name).str(SET_NAME, name);
                })
            }
            Change::AddElements(id, spec, elements) => {
                self.elements(NEWSETELEM, flag::CREATE, "add", id, spec, elements);
            }
            Change::DeleteElements(id, spec, elements) => {
                self.elements(DELSETELEM, 0, "delete", id, spec, elements);
            }
            Change::AddChain(id, chain) => self.add_chain(id, chain),
            Change::AddRule(id, chain, rule) => self.add_rule(id, chain, rule),
            Change::FlushChain(id, name) => {
                self.message(DELRULE, 0, family(id.family), format!("flush chain {name}"), |e| {
                    e.str(RULE_TABLE, &id.name).str(RULE_CHAIN, name);
                })
            }
            Change::DeleteChain(id, name) => {
                self.message(DELCHAIN, 0, family(id.family), format!("delete chain {name}"), |e| {
                    e.str(CHAIN_TABLE, &id.name).str(CHAIN_NAME, name);
                })
            }
        }
    }

    fn add_set(&mut self, id: &TableId, spec: &SetSpec) {
        let about = format!("add set {}", spec.name);
        // The kernel wants a number to name a set by within its transaction.
        let set_id = u32::try_from(self.about.len()).unwrap_or(u32::MAX);
        self.message(NEWSET, flag::CREATE | flag::EXCL, family(id.family), about, |e| {
            e.str(SET_TABLE, &id.name).str(SET_NAME, &spec.name);
            e.be32(SET_FLAGS, set_flags(spec)).be32(SET_KEY_TYPE, spec.key.nft_type());
            e.be32(SET_KEY_LEN, spec.key.len_bytes()).be32(SET_ID, set_id);
            match &spec.data {
                DataType::None => {}
                DataType::Value(data) => {
                    e.be32(SET_DATA_TYPE, data.nft_type()).be32(SET_DATA_LEN, data.len_bytes());
                }
                DataType::Verdict => {
                    e.be32(SET_DATA_TYPE, DATA_TYPE_VERDICT).be32(SET_DATA_LEN, VERDICT_BYTES);
                }
            }
            e.nested(SET_DESC, |e| {
                if spec.size > 0 {
                    e.be32(SET_DESC_SIZE, spec.size);
                }
                if set_flags(spec) & SET_CONCAT != 0 {
                    e.nested(SET_DESC_CONCAT, |e| {
                        for field in spec.key.fields() {
                            e.nested(LIST_ELEM, |e| {
                                e.be32(SET_FIELD_LEN, field.len_bytes());
                            });
                        }
                    });
                }
            });
            if spec.timeout_ms > 0 {
                e.be64(SET_TIMEOUT, spec.timeout_ms);
            }
            let mut user_data = Vec::from([USER_DATA_KEY_ORDER, 4]);
            user_data.extend(byte_order(&spec.key).to_ne_bytes());
            if let DataType::Value(data) = &spec.data {
                user_data.extend([USER_DATA_DATA_ORDER, 4]);
                user_data.extend(byte_order(data).to_ne_bytes());
            }
            e.attr(SET_USERDATA, &user_data);
        });
    }

    fn add_chain(&mut self, id: &TableId, chain: &Chain) {
        let about = format!("add chain {}", chain.name);
        self.message(NEWCHAIN, flag::CREATE | flag::EXCL, family(id.family), about, |e| {
            e.str(CHAIN_TABLE, &id.name).str(CHAIN_NAME, &chain.name);
            if let Some(BaseChain { kind, hook: at, priority, drop_by_default }) = chain.base {
                e.nested(CHAIN_HOOK, |e| {
                    e.be32(HOOK_NUMBER, hook(at));
                    e.attr(HOOK_PRIORITY, &priority.to_be_bytes());
                });
                e.be32(CHAIN_POLICY, u32::from(!drop_by_default));
                e.str(
                    CHAIN_TYPE,
                    match kind {
                        ChainType::Filter => "filter",
                        ChainType::Nat => "nat",
                    },
                );
            }
        });
    }

    fn add_rule(&mut self, id: &TableId, chain: &str, rule: &Rule) {
        let comment = comment(rule);
        let about = format!("add rule to {chain} ({comment})");
        self.message(NEWRULE, flag::CREATE | flag::APPEND, family(id.family), about, |e| {
            e.str(RULE_TABLE, &id.name).str(RULE_CHAIN, chain);
            e.nested(RULE_EXPRESSIONS, |e| rule.exprs.iter().for_each(|expr| write_expr(e, id.family, expr)));
            let len = u8::try_from(comment.len() + 1).unwrap_or(u8::MAX);
            let mut user_data = Vec::from([USER_DATA_COMMENT, len]);
            user_data.extend_from_slice(comment.as_bytes());
            user_data.push(0);
            e.attr(RULE_USERDATA, &user_data);
        });
    }

    fn elements(
        &mut self,
        kind: u16,
        flags: u16,
        verb: &str,
        id: &TableId,
        spec: &SetSpec,
        all: &[(Key, Data)],
    ) {
        let mut rest = all;
        while !rest.is_empty() {
            let mut taken = 0;
            self.message(kind, flags, family(id.family), format!("{verb} elements of {}", spec.name), |e| {
                e.str(ELEM_LIST_TABLE, &id.name).str(ELEM_LIST_SET, &spec.name);
                e.nested(ELEM_LIST_ELEMENTS, |e| {
                    let start = e.len();
                    for (key, data) in rest {
                        element(e, spec, key, data, kind == NEWSETELEM);
                        taken += 1;
                        if e.len() - start > ELEMENTS_BYTES_MAX {
                            break;
                        }
                    }
                });
            });
            rest = rest.get(taken..).unwrap_or(&[]);
        }
    }
}

fn element(e: &mut Encoder, spec: &SetSpec, key: &Key, data: &Data, adding: bool) {
    let single = spec.key.fields().len() == 1;
    e.nested(LIST_ELEM, |e| {
        e.nested(ELEM_KEY, |e| value(e, &key.value));
        if spec.interval && !single {
            e.nested(ELEM_KEY_END, |e| value(e, key.end.as_ref().unwrap_or(&key.value)));
        }
        if adding {
            match data {
                Data::None => {}
                Data::Value(v) => {
                    e.nested(ELEM_DATA, |e| value(e, v));
                }
                Data::Verdict(v) => {
                    e.nested(ELEM_DATA, |e| verdict_data(e, v));
                }
            }
        }
    });
    // A range of a single field ends with an element of its own, which is the first value behind it.
    if spec.interval
        && single
        && let Some(after) = successor(key.end.as_ref().unwrap_or(&key.value))
    {
        e.nested(LIST_ELEM, |e| {
            e.nested(ELEM_KEY, |e| value(e, &after)).be32(ELEM_FLAGS, ELEM_INTERVAL_END);
        });
    }
}

/// The value that follows as a big-endian number; `None` behind the largest.
fn successor(v: &Value) -> Option<Value> {
    let mut bytes = Vec::from(v.bytes());
    for byte in bytes.iter_mut().rev() {
        let (next, carry) = byte.overflowing_add(1);
        *byte = next;
        if !carry {
            return Some(Value::new(&bytes));
        }
    }
    None
}

/// The value before as a big-endian number; `None` before zero.
pub(super) fn predecessor(v: &Value) -> Option<Value> {
    let mut bytes = Vec::from(v.bytes());
    for byte in bytes.iter_mut().rev() {
        let (next, borrow) = byte.overflowing_sub(1);
        *byte = next;
        if !borrow {
            return Some(Value::new(&bytes));
        }
    }
    None
}

pub(super) fn set_flags(spec: &SetSpec) -> u32 {
    let on = |yes: bool, bit: u32| if yes { bit } else { 0 };
    on(spec.interval, SET_INTERVAL)
        | on(spec.data != DataType::None, SET_MAP)
        | on(spec.timeout_ms > 0, SET_HAS_TIMEOUT)
        | on(spec.dynamic, SET_EVAL)
        | on(spec.interval && spec.key.fields().len() > 1, SET_CONCAT)
}

/// In which order `nft` prints the bytes of a number.
fn byte_order(of: &Type) -> u32 {
    const HOST: u32 = 1;
    const NETWORK: u32 = 2;
    if of.fields() == [FieldType::Mark] { HOST } else { NETWORK }
}

/// Words for people and the fingerprint, as `nft list` shows them.
fn comment(rule: &Rule) -> String {
    let mut words = rule.comment.clone();
    while words.len() > COMMENT_WORDS_MAX {
        words.pop();
    }
    let space = if words.is_empty() { "" } else { " " };
    format!("{words}{space}{FINGERPRINT_MARK}{:016x}]", rule.fingerprint())
}

/// The fingerprint in a rule's user data.
pub(super) fn fingerprint_of(user_data: &[u8]) -> Option<u64> {
    let text = user_data.get(2..)?.split(|b| *b == 0).next()?;
    let text = core::str::from_utf8(text).ok()?;
    let (_, hex) = text.rsplit_once(FINGERPRINT_MARK)?;
    u64::from_str_radix(hex.strip_suffix(']')?, 16).ok()
}

/// `nft` refuses comments above 128 bytes.
const COMMENT_WORDS_MAX: usize = 100;
const FINGERPRINT_MARK: &str = "[icp:";
