//! Directories of each format version, which every later release must open, and damaged ones with their errors.
//!
//! `ICP_CORPUS=write` writes those of the version that this release writes; a corpus of an older version never changes.

use std::fmt::Write as _;
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Once;

use icp_core::base::Time;
use icp_core::storage::{AlarmKind, DeleteRangeRequest, KeyRange, KeyValue, Op, PutRequest};
use icp_store::log::{Files, Log, OsFiles, SimFiles};
use icp_store::{Entry, Store};

use super::peer::temp_dir;
use super::workload::{open, put, txn};

/// The version whose files today's writer makes.
const VERSION: &str = "v1";

fn corpus() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/corpus")
}

/// What a store holds, one thing a line.
fn listing(store: &Store) -> String {
    let mut out = format!("revision {} compacted {}\n", store.visible(), store.status().compacted);
    let version = |kv: &KeyValue| {
        let (key, value) = (String::from_utf8_lossy(&kv.key), String::from_utf8_lossy(&kv.value));
        let value = match value.len() {
            0..=40 => format!("{value:?}"),
            n => format!("{n} bytes with checksum {:08x}", crc32c::crc32c(&kv.value)),
        };
        format!(
            "{key:?} create {} version {} lease {:x} value {value}",
            kv.create_revision, kv.version, kv.lease
        )
    };
    for entry in store.snapshot() {
        match entry {
            Entry::LeaseGrant { id, ttl_secs } => {
                let keys = store.lease_info(Time::ZERO, id).unwrap().keys;
                writeln!(out, "lease {id:x} of {ttl_secs} s with {keys:?}").unwrap();
            }
            Entry::Base(kv) => writeln!(out, "{} base {}", kv.mod_revision, version(&kv)).unwrap(),
            Entry::Commit(commit) => {
                for change in &commit.changes {
                    let verb = if change.is_delete() { "delete" } else { "put" };
                    writeln!(out, "{} {verb} {}", commit.revision, version(&change.kv)).unwrap();
                }
            }
            Entry::LeaseCheckpoint { id, left_secs } => {
                writeln!(out, "lease {id:x} has {left_secs} s").unwrap()
            }
            Entry::Alarm { kind, raised } => writeln!(out, "alarm {kind:?} raised {raised}").unwrap(),
            _ => {}
        }
    }
    out
}

/// A log with the entries that no transaction makes.
fn build_of_leases_and_alarms(snapshot: bool) -> SimFiles {
    let files = SimFiles::new(12);
    let (mut log, mut store) = open(files.clone()).unwrap();
    let batches = [
        vec![Entry::LeaseGrant { id: 5, ttl_secs: 3600 }, Entry::LeaseGrant { id: 6, ttl_secs: 60 }],
        vec![Entry::LeaseCheckpoint { id: 5, left_secs: 1800 }, Entry::LeaseRevoke { id: 6 }],
        vec![Entry::Alarm { kind: AlarmKind::NoSpace, raised: true }],
        vec![
            Entry::Alarm { kind: AlarmKind::NoSpace, raised: false },
            Entry::Alarm { kind: AlarmKind::Corrupt, raised: true },
        ],
    ];
    for batch in batches {
        batch.iter().for_each(|entry| store.replay(Time::ZERO, entry).unwrap());
        log.append(&batch).unwrap();
        log.sync().unwrap();
    }
    if snapshot {
        log.snapshot_writer(log.last_seq(), store.snapshot())().unwrap();
        log.install_snapshot(log.last_seq()).unwrap();
    }
    log.close().unwrap();
    files
}

/// A log that a few steps make, each a batch.
fn build(steps: usize, snapshot_at: Option<usize>, close: bool) -> SimFiles {
    let files = SimFiles::new(11);
    let (mut log, mut store) = open(files.clone()).unwrap();
    for n in 0..steps {
        let mut leased = PutRequest::new("leased", format!("{n}"));
        let _ = match n % 8 {
            0 => store.lease_grant(Time::ZERO, 0x7000 + n as i64, 60).map(drop),
            1 => {
                leased.lease = 0x7000 + n as i64 - 1;
                store.txn(Time::ZERO, &txn(vec![Op::Put(leased)])).map(drop)
            }
            2 => store
                .txn(Time::ZERO, &txn((0..5).map(|i| put(format!("many/{i}"), format!("{n}"))).collect()))
                .map(drop),
            3 => store.txn(Time::ZERO, &txn(vec![put("big", "abc".repeat(700))])).map(drop),
            4 => {
                let range = KeyRange::between("many/1", "many/3");
                let delete = Op::DeleteRange(DeleteRangeRequest { range, prev_kv: false });
                store.txn(Time::ZERO, &txn(vec![delete, put("both", "")])).map(drop)
            }
            5 => store.compact(store.visible() - 2),
            6 if n > 8 => store.lease_revoke(Time::ZERO, 0x7000 + n as i64 - 14),
            _ => store.txn(Time::ZERO, &txn(vec![put("", "refused")])).map(drop),
        };
        store.publish_all();
        log.append(&store.take_entries()).unwrap();
        log.sync().unwrap();
        log.reserve().unwrap();
        if snapshot_at == Some(n) {
            log.snapshot_writer(log.last_seq(), store.snapshot())().unwrap();
            log.install_snapshot(log.last_seq()).unwrap();
            // What it replaces is removed by and by.
            (0..20).for_each(|_| log.reserve().unwrap());
        }
    }
    if close {
        log.close().unwrap();
    }
    files
}

fn change(files: &SimFiles, name: &str, change: impl FnOnce(&mut Vec<u8>)) {
    let mut bytes = files.bytes(name).unwrap();
    change(&mut bytes);
    files.put(name, bytes);
}

/// The header of a file says another version.
fn of_version(files: &SimFiles, name: &str, version: u32) {
    change(files, name, |bytes| {
        bytes[8..12].copy_from_slice(&version.to_le_bytes());
        let crc = crc32c::crc32c(&bytes[..28]);
        bytes[28..32].copy_from_slice(&crc.to_le_bytes());
    });
}

const FIRST: &str = "0000000000000001.log";

fn nth(files: &SimFiles, suffix: &str, n: usize) -> String {
    let mut names = files.list().unwrap();
    names.retain(|name| name.ends_with(suffix) && name != "spare.log");
    names.swap_remove(n)
}

/// All directories of today's version by their names.
fn cases() -> Vec<(&'static str, SimFiles)> {
    let damaged = |files: SimFiles, damage: &dyn Fn(&SimFiles)| {
        damage(&files);
        files
    };
    let plain = || build(30, None, false);
    let snapped = || build(30, Some(12), true);
    vec![
        ("empty", build(0, None, false)),
        ("one-segment", build(3, None, false)),
        ("segments", plain()),
        ("closed", build(30, None, true)),
        ("leases-and-alarms", build_of_leases_and_alarms(false)),
        ("leases-and-alarms-snapshot", build_of_leases_and_alarms(true)),
        ("snapshot", snapped()),
        ("snapshot-last", build(20, Some(19), false)),
        ("torn-tail", damaged(build(3, None, false), &|f| change(f, FIRST, |b| b[190] ^= 1))),
        (
            "leftovers",
            damaged(snapped(), &|f| {
                f.put("snapshot.tmp", b"a part of a snapsh".to_vec());
                f.put("0000000000000002.snap", Vec::new());
            }),
        ),
        ("bad-newer-log", damaged(build(3, None, false), &|f| of_version(f, FIRST, 2))),
        ("bad-newer-snapshot", damaged(snapped(), &|f| of_version(f, &nth(f, ".snap", 0), 9))),
        ("bad-magic", damaged(build(3, None, false), &|f| change(f, FIRST, |b| b[0] = b'x'))),
        ("bad-empty-segment", damaged(build(3, None, false), &|f| f.put(FIRST, Vec::new()))),
        ("bad-empty-snapshot", damaged(snapped(), &|f| f.put(&nth(f, ".snap", 0), Vec::new()))),
        ("bad-cut", damaged(build(3, None, false), &|f| change(f, FIRST, |b| b.truncate(2048)))),
        ("bad-frame", damaged(plain(), &|f| change(f, FIRST, |b| b[60] ^= 4))),
        ("bad-snapshot-frame", damaged(snapped(), &|f| change(f, &nth(f, ".snap", 0), |b| b[60] ^= 4))),
        ("bad-gap", damaged(plain(), &|f| f.remove(&nth(f, ".log", 1)).unwrap())),
        ("bad-first-missing", damaged(plain(), &|f| f.remove(FIRST).unwrap())),
        (
            "bad-snapshot-alone",
            damaged(build(20, Some(19), false), &|f| f.remove(&nth(f, ".log", 0)).unwrap()),
        ),
        ("bad-overlap", damaged(plain(), &|f| f.put("0000000000000002.log", f.bytes(FIRST).unwrap()))),
    ]
}

/// The files that a directory of the corpus holds: reserved space is left out.
fn kept(files: &SimFiles) -> Vec<(String, Vec<u8>)> {
    let names = files.list().unwrap().into_iter().filter(|n| n != "spare.log");
    names.map(|name| (name.clone(), files.bytes(&name).unwrap())).collect()
}

/// What is found when a copy of `directory` is opened: a listing, or the error without the copy's path.
fn opened(directory: &Path) -> String {
    let copy = temp_dir("corpus");
    for file in fs::read_dir(directory).unwrap() {
        let file = file.unwrap().path();
        fs::copy(&file, copy.join(file.file_name().unwrap())).unwrap();
    }
    let found = match OsFiles::open(&copy).and_then(open) {
        Ok((_, store)) => listing(&store),
        Err(e) => format!("{e}\n").replace(&format!("{}/", copy.display()), ""),
    };
    fs::remove_dir_all(copy).unwrap();
    found
}

#[test]
fn every_version_is_opened() {
    write_if_asked();
    let mut directories = 0;
    for version in fs::read_dir(corpus()).unwrap() {
        let version = version.unwrap().path();
        for entry in fs::read_dir(&version).unwrap() {
            let directory = entry.unwrap().path();
            if directory.is_dir() {
                let expected = fs::read_to_string(directory.with_extension("txt")).unwrap();
                assert_eq!(opened(&directory), expected, "{}", directory.display());
                directories += 1;
            }
        }
    }
    assert!(directories >= cases().len(), "{directories}");
}

/// Another writer needs another version, and a corpus of it.
#[test]
fn todays_writer_writes_the_bytes_of_its_version() {
    write_if_asked();
    for (name, files) in cases() {
        let directory = corpus().join(VERSION).join(name);
        for (file, bytes) in kept(&files) {
            let stored = fs::read(directory.join(&file)).unwrap_or_else(|e| panic!("{name}/{file}: {e}"));
            let differs = stored.iter().zip(&bytes).position(|(a, b)| a != b);
            assert_eq!((stored.len(), differs), (bytes.len(), None), "{name}/{file} is not what it was");
        }
        assert_eq!(fs::read_dir(&directory).unwrap().count(), kept(&files).len(), "{name}");
    }
}

fn write_if_asked() {
    static ONCE: Once = Once::new();
    if std::env::var("ICP_CORPUS").is_ok_and(|v| v == "write") {
        ONCE.call_once(write);
    }
}

fn write() {
    for (name, files) in cases() {
        let directory = corpus().join(VERSION).join(name);
        let _ = fs::remove_dir_all(&directory);
        fs::create_dir_all(&directory).unwrap();
        for (file, bytes) in kept(&files) {
            fs::write(directory.join(file), bytes).unwrap();
        }
        fs::write(directory.with_extension("txt"), opened(&directory)).unwrap();
    }
}
