//! Entries as bytes.
//!
//! An entry is a kind byte and its fields: numbers as LEB128 (`i64` as its 64 bits), bytes with their length before them.

use alloc::sync::Arc;
use alloc::vec::Vec;

use bytes::Bytes;
use icp_core::storage::{AlarmKind, KeyValue};

use crate::mvcc::{Change, Commit, Version};
use crate::store::Entry;

const COMMIT: u8 = 1;
const LEASE_GRANT: u8 = 2;
const LEASE_REVOKE: u8 = 3;
const COMPACT: u8 = 4;
const RESTORE: u8 = 5;
const BASE: u8 = 6;
/// A base version that was not the first change of its transaction.
const BASE_OF_MANY: u8 = 7;
const ALARM: u8 = 8;
const LEASE_CHECKPOINT: u8 = 9;

const ALARM_NO_SPACE: i64 = 1;
const ALARM_CORRUPT: i64 = 2;

/// Appends `entry` to `out`.
pub(super) fn encode(entry: &Entry, out: &mut Vec<u8>) {
    match entry {
        Entry::Commit(commit) => {
            out.push(COMMIT);
            number(commit.revision, out);
            number(commit.changes.len() as i64, out);
            for change in &commit.changes {
                version(&change.kv, out);
            }
        }
        Entry::LeaseGrant { id, ttl_secs } => {
            out.push(LEASE_GRANT);
            number(*id, out);
            number(*ttl_secs, out);
        }
        Entry::LeaseCheckpoint { id, left_secs } => {
            out.push(LEASE_CHECKPOINT);
            number(*id, out);
            number(*left_secs, out);
        }
        Entry::LeaseRevoke { id } => {
            out.push(LEASE_REVOKE);
            number(*id, out);
        }
        Entry::Compact { revision } => {
            out.push(COMPACT);
            number(*revision, out);
        }
        Entry::Restore { compacted } => {
            out.push(RESTORE);
            number(*compacted, out);
        }
        Entry::Base(kv) => {
            out.push(if kv.sub == 0 { BASE } else { BASE_OF_MANY });
            number(kv.mod_revision, out);
            if kv.sub != 0 {
                number(kv.sub.into(), out);
            }
            version(kv, out);
        }
        Entry::Alarm { kind, raised } => {
            out.push(ALARM);
            number(alarm_number(*kind), out);
            number((*raised).into(), out);
        }
    }
}

/// etcd's numbers (`AlarmType`).
fn alarm_number(kind: AlarmKind) -> i64 {
    match kind {
        AlarmKind::Corrupt => ALARM_CORRUPT,
        _ => ALARM_NO_SPACE,
    }
}

fn version(kv: &KeyValue, out: &mut Vec<u8>) {
    number(kv.version, out);
    bytes(&kv.key, out);
    // A tombstone has no more.
    if kv.version != 0 {
        number(kv.create_revision, out);
        number(kv.lease, out);
        bytes(&kv.value, out);
    }
}

fn number(n: i64, out: &mut Vec<u8>) {
    let mut n = n as u64;
    while n >= 0x80 {
        out.push(n as u8 | 0x80);
        n >>= 7;
    }
    out.push(n as u8);
}

fn bytes(b: &[u8], out: &mut Vec<u8>) {
    number(b.len() as i64, out);
    out.extend_from_slice(b);
}

/// Reads `count` entries, which must be all of `payload`; `None` if they are not.
pub(super) fn decode(mut payload: &[u8], count: u32) -> Option<Vec<Entry>> {
    let mut entries = Vec::new();
    for _ in 0..count {
        entries.push(entry(&mut payload)?);
    }
    payload.is_empty().then_some(entries)
}

fn entry(from: &mut &[u8]) -> Option<Entry> {
    let (kind, rest) = from.split_first()?;
    *from = rest;
    Some(match *kind {
        COMMIT => {
            let revision = take_number(from)?;
            let count = usize::try_from(take_number(from)?).ok()?;
            let mut changes = Vec::new();
            for sub in 0..count {
                let kv = take_version(from, revision, u32::try_from(sub).ok()?)?;
                changes.push(Change { kv, prev: None });
            }
            Entry::Commit(Arc::new(Commit { revision, changes: changes.into() }))
        }
        LEASE_GRANT => Entry::LeaseGrant { id: take_number(from)?, ttl_secs: take_number(from)? },
        LEASE_CHECKPOINT => Entry::LeaseCheckpoint { id: take_number(from)?, left_secs: take_number(from)? },
        LEASE_REVOKE => Entry::LeaseRevoke { id: take_number(from)? },
        COMPACT => Entry::Compact { revision: take_number(from)? },
        RESTORE => Entry::Restore { compacted: take_number(from)? },
        BASE => {
            let mod_revision = take_number(from)?;
            Entry::Base(take_version(from, mod_revision, 0)?)
        }
        BASE_OF_MANY => {
            let mod_revision = take_number(from)?;
            let sub = u32::try_from(take_number(from)?).ok()?;
            Entry::Base(take_version(from, mod_revision, sub)?)
        }
        ALARM => {
            let kind = match take_number(from)? {
                ALARM_NO_SPACE => AlarmKind::NoSpace,
                ALARM_CORRUPT => AlarmKind::Corrupt,
                _ => return None,
            };
            Entry::Alarm { kind, raised: take_number(from)? != 0 }
        }
        _ => return None,
    })
}

fn take_version(from: &mut &[u8], mod_revision: i64, sub: u32) -> Option<Arc<Version>> {
    let version = take_number(from)?;
    let key = take_bytes(from)?;
    let mut kv = KeyValue { key, mod_revision, version, ..KeyValue::default() };
    if version != 0 {
        kv.create_revision = take_number(from)?;
        kv.lease = take_number(from)?;
        kv.value = take_bytes(from)?;
    }
    Some(Arc::new(Version { kv, sub }))
}

fn take_number(from: &mut &[u8]) -> Option<i64> {
    let mut n = 0_u64;
    for shift in (0..64).step_by(7) {
        let (byte, rest) = from.split_first()?;
        *from = rest;
        n |= u64::from(byte & 0x7f) << shift;
        if byte & 0x80 == 0 {
            return Some(n as i64);
        }
    }
    None
}

fn take_bytes(from: &mut &[u8]) -> Option<Bytes> {
    let len = usize::try_from(take_number(from)?).ok()?;
    let (taken, rest) = from.split_at_checked(len)?;
    *from = rest;
    Some(Bytes::copy_from_slice(taken))
}
