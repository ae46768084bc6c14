//! Bytes of any kind in the place of segments and snapshots: an error or a store, never a panic, never much memory.
//!
//! `ICP_FUZZ` is the number of cases of each property, 200 by default.

use std::sync::Arc;

use icp_core::storage::{AlarmKind, KeyValue};
use icp_store::Entry;
use icp_store::log::{DiskLog, Files, Log, LogError, SimFiles};
use icp_store::mvcc::{Change, Commit, Version};
use proptest::prelude::*;

use super::workload::{SMALL, Workload, one_more, open, state};

fn cases() -> ProptestConfig {
    let cases = std::env::var("ICP_FUZZ").ok().and_then(|n| n.parse().ok()).unwrap_or(200);
    ProptestConfig { failure_persistence: None, ..ProptestConfig::with_cases(cases) }
}

/// A good log with several segments and a snapshot.
fn good(seed: u64) -> SimFiles {
    let files = SimFiles::new(seed);
    assert!(Workload { seed, batches: 20 }.run(&files).error.is_none());
    files
}

/// A change of a file's bytes.
#[derive(Clone, Debug)]
enum Mutation {
    Set(prop::sample::Index, u8),
    Number(prop::sample::Index, u32),
    Remove(prop::sample::Index, usize),
    Insert(prop::sample::Index, Vec<u8>),
    Copy(prop::sample::Index, prop::sample::Index, usize),
}

fn mutation() -> impl Strategy<Value = Mutation> {
    let at = any::<prop::sample::Index>;
    prop_oneof![
        4 => (at(), any::<u8>()).prop_map(|(at, byte)| Mutation::Set(at, byte)),
        2 => (at(), prop_oneof![Just(u32::MAX), Just(1 << 30), Just(0), any::<u32>()])
            .prop_map(|(at, n)| Mutation::Number(at, n)),
        1 => (at(), 1..40_usize).prop_map(|(at, n)| Mutation::Remove(at, n)),
        1 => (at(), prop::collection::vec(any::<u8>(), 1..20)).prop_map(|(at, b)| Mutation::Insert(at, b)),
        1 => (at(), at(), 1..60_usize).prop_map(|(from, to, n)| Mutation::Copy(from, to, n)),
    ]
}

fn mutate(bytes: &mut Vec<u8>, mutation: &Mutation, used: usize) {
    let used = used.min(bytes.len());
    if used == 0 {
        return;
    }
    match mutation {
        Mutation::Set(at, byte) => bytes[at.index(used)] = *byte,
        Mutation::Number(at, n) => {
            let at = at.index(used);
            bytes.iter_mut().skip(at).zip(n.to_le_bytes()).for_each(|(to, from)| *to = from);
        }
        Mutation::Remove(at, n) => drop(bytes.drain(at.index(used)..(at.index(used) + n).min(bytes.len()))),
        Mutation::Insert(at, more) => {
            drop(bytes.splice(at.index(used)..at.index(used), more.iter().copied()))
        }
        Mutation::Copy(from, to, n) => {
            let from = from.index(used);
            let copied = bytes[from..(from + n).min(bytes.len())].to_vec();
            bytes.iter_mut().skip(to.index(used)).zip(copied).for_each(|(to, from)| *to = from);
        }
    }
}

/// Makes all checksums right, and the lengths that the header knows, so that what is behind them is reached.
fn seal(bytes: &mut Vec<u8>) {
    if bytes.len() < 32 {
        return;
    }
    if bytes.starts_with(b"icpstlog") {
        bytes.resize(bytes.len().next_multiple_of(8), 0);
        let units = (bytes.len() / 8) as u32;
        bytes[24..28].copy_from_slice(&units.to_le_bytes());
    }
    let crc = crc32c::crc32c(&bytes[..28]);
    bytes[28..32].copy_from_slice(&crc.to_le_bytes());
    let salt = u32::from_le_bytes(bytes[12..16].try_into().unwrap());
    let mut at = 32;
    while let Some(head) = bytes.get(at..at + 24) {
        if head.iter().all(|b| *b == 0) {
            break;
        }
        let payload = u32::from_le_bytes(head[..4].try_into().unwrap()) as usize;
        let end = (at + 24 + payload).min(bytes.len());
        let length = (end - at - 24) as u32;
        bytes[at..at + 4].copy_from_slice(&length.to_le_bytes());
        bytes[at + 20..at + 24].copy_from_slice(&1_u32.to_le_bytes());
        let crc = crc32c::crc32c_append(crc32c::crc32c_append(salt, &bytes[at..at + 4]), &bytes[at + 8..end]);
        bytes[at + 4..at + 8].copy_from_slice(&crc.to_le_bytes());
        let next = at + (end - at).next_multiple_of(8);
        bytes.iter_mut().take(next).skip(end).for_each(|b| *b = 0);
        at = next;
    }
}

fn refused_or_whole(files: SimFiles) {
    match open(files.clone()) {
        Err(LogError::Corrupt { .. } | LogError::Version { .. }) => {}
        Err(e) => panic!("{e}"),
        Ok((mut log, mut store)) => {
            // What was taken can be gone on with, and is taken again.
            one_more(&mut log, &mut store, "more");
            drop(log);
            let (_, again) = open(files.crash()).unwrap();
            assert_eq!(state(&again), state(&store));
        }
    }
}

proptest! {
    #![proptest_config(cases())]

    #[test]
    fn mutated_files_are_refused_or_whole(
        seed in 0..4_u64,
        file in any::<prop::sample::Index>(),
        mutations in prop::collection::vec(mutation(), 1..6),
        sealed in any::<bool>(),
    ) {
        let files = good(seed);
        let mut names = files.list().unwrap();
        names.retain(|n| n != "spare.log");
        let name = file.get(&names);
        let mut bytes = files.bytes(name).unwrap();
        let used = bytes.iter().rposition(|b| *b != 0).map_or(0, |at| at + 1);
        mutations.iter().for_each(|m| mutate(&mut bytes, m, used));
        if sealed {
            seal(&mut bytes);
        }
        files.put(name, bytes);
        refused_or_whole(files);
    }

    #[test]
    fn arbitrary_files_are_refused_or_whole(
        snapshot in any::<bool>(),
        salt in any::<u32>(),
        payload in prop::collection::vec(any::<u8>(), 0..400),
        count in 0..5_u32,
        header in any::<bool>(),
    ) {
        let files = SimFiles::new(1);
        let (magic, name) = if snapshot {
            good(0).list().unwrap().iter().for_each(|n| files.put(n, good(0).bytes(n).unwrap()));
            let name = files.list().unwrap().into_iter().find(|n| n.ends_with(".snap")).unwrap();
            (*b"icpstsnp", name)
        } else {
            (*b"icpstlog", "0000000000000001.log".into())
        };
        let mut bytes = payload.clone();
        if header {
            let seq = u64::from_str_radix(name.split('.').next().unwrap(), 16).unwrap();
            let first = 1_u64;
            bytes = [
                &magic[..], &1_u32.to_le_bytes(), &salt.to_le_bytes(), &seq.to_le_bytes(), &[0; 8],
                &(payload.len() as u32).to_le_bytes(), &[0; 4], &first.to_le_bytes(), &count.to_le_bytes(), &[1, 0, 0, 0],
                &payload,
            ].concat();
            seal(&mut bytes);
        }
        files.put(&name, bytes);
        refused_or_whole(files);
    }

    /// What is decoded is what was encoded, in any batches.
    #[test]
    fn entries_come_back_as_they_went(batches in prop::collection::vec(prop::collection::vec(entry(), 1..6), 0..20)) {
        let files = SimFiles::new(1);
        let mut log = DiskLog::open(files.clone(), SMALL, &mut |_| Ok(())).unwrap();
        for batch in &batches {
            log.append(batch).unwrap();
            log.sync().unwrap();
            log.reserve().unwrap();
        }
        let all: Vec<Entry> = batches.into_iter().flatten().collect();
        prop_assert_eq!(log.last_seq(), all.len() as u64);
        let replayed = |files: SimFiles| {
            let mut seen = Vec::new();
            let mut note = |entry| {
                seen.push(entry);
                Ok(())
            };
            DiskLog::open(files, SMALL, &mut note).map(|_| seen)
        };
        prop_assert_eq!(&replayed(files.crash()).unwrap(), &all);
        log.snapshot_writer(log.last_seq(), all.clone())().unwrap();
        log.install_snapshot(log.last_seq()).unwrap();
        prop_assert_eq!(&replayed(files.crash()).unwrap(), &all);
    }
}

fn key_value(mod_revision: i64) -> impl Strategy<Value = KeyValue> {
    let bytes = |n| prop::collection::vec(any::<u8>(), 0..n);
    (bytes(20), bytes(300), any::<i64>(), any::<i64>(), any::<i64>()).prop_map(
        move |(key, value, create_revision, version, lease)| {
            let kv = KeyValue { key: key.into(), mod_revision, version, ..KeyValue::default() };
            // A tombstone has no more.
            if version == 0 { kv } else { KeyValue { value: value.into(), create_revision, lease, ..kv } }
        },
    )
}

fn entry() -> impl Strategy<Value = Entry> {
    let commit = any::<i64>().prop_flat_map(|revision| {
        prop::collection::vec(key_value(revision), 0..5).prop_map(move |kvs| {
            let changes: Vec<Change> = kvs
                .into_iter()
                .zip(0..)
                .map(|(kv, sub)| Change { kv: Arc::new(Version { kv, sub }), prev: None })
                .collect();
            Entry::Commit(Arc::new(Commit { revision, changes: changes.into() }))
        })
    });
    prop_oneof![
        4 => commit,
        1 => (any::<i64>(), any::<i64>()).prop_map(|(id, ttl_secs)| Entry::LeaseGrant { id, ttl_secs }),
        1 => any::<i64>().prop_map(|id| Entry::LeaseRevoke { id }),
        1 => (any::<i64>(), any::<i64>()).prop_map(|(id, left_secs)| Entry::LeaseCheckpoint { id, left_secs }),
        1 => (any::<bool>(), any::<bool>()).prop_map(|(space, raised)| {
            Entry::Alarm { kind: if space { AlarmKind::NoSpace } else { AlarmKind::Corrupt }, raised }
        }),
        1 => any::<i64>().prop_map(|revision| Entry::Compact { revision }),
        1 => any::<i64>().prop_map(|compacted| Entry::Restore { compacted }),
        1 => (any::<i64>().prop_flat_map(key_value), 0..3_u32)
            .prop_map(|(kv, sub)| Entry::Base(Arc::new(Version { kv, sub }))),
    ]
}

/// Set for the process of its own that measures its memory.
const ALONE: &str = "ICP_STORE_CLAIMED_LENGTHS";

/// A length that a damaged file claims costs no memory: the file has fewer bytes.
#[test]
fn a_claimed_length_is_not_allocated() {
    if std::env::var_os(ALONE).is_none() {
        // The peak is that of the whole process, and other tests run beside this one.
        let child = std::process::Command::new(std::env::current_exe().unwrap())
            .args(["--exact", "properties::a_claimed_length_is_not_allocated"])
            .env(ALONE, "1")
            .output()
            .unwrap();
        assert!(child.status.success(), "{}", String::from_utf8_lossy(&child.stdout));
        return;
    }
    let peak_kib = || {
        let status = std::fs::read_to_string("/proc/self/status").unwrap();
        let line = status.lines().find(|l| l.starts_with("VmPeak:")).unwrap().to_string();
        line.split_whitespace().nth(1).unwrap().parse::<u64>().unwrap()
    };
    let before = peak_kib();
    let files = good(0);
    for name in files.list().unwrap() {
        let used = files.bytes(&name).unwrap().iter().rposition(|b| *b != 0).unwrap_or(0);
        for claim in [u32::MAX, 1 << 30, (1 << 30) - 100] {
            for at in (0..used).step_by(4) {
                for sealed in [false, true] {
                    let damaged = files.copy();
                    let mut bytes = files.bytes(&name).unwrap();
                    bytes.iter_mut().skip(at).zip(claim.to_le_bytes()).for_each(|(to, from)| *to = from);
                    if sealed {
                        seal(&mut bytes);
                    }
                    damaged.put(&name, bytes);
                    let _ = DiskLog::open(damaged, SMALL, &mut |_| Ok(()));
                }
            }
        }
    }
    let grown = peak_kib() - before;
    assert!(grown < 900 << 10, "{grown} KiB");
}
