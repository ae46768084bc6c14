//! A process that writes is killed with SIGKILL, again and again: what it acknowledged is there whole, watches go on
//! without gap or repetition, and leases still hold their keys.
//!
//! `ICP_DEEP` is the number of kills, 5,000 if it is no number; 100 without it.
#![cfg(feature = "std")]
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::disallowed_methods,
    unreachable_pub,
    reason = "test code, which starts a process and reads the clock"
)]

mod peer;

use std::collections::{BTreeMap, BTreeSet};
use std::io::{BufRead, BufReader, Write};
use std::path::Path;
use std::process::{Child, ChildStdout, Command, Stdio};
use std::time::Duration;

use futures_util::StreamExt;
use icp_core::base::Rng;
use icp_core::storage::{
    DeleteRangeRequest, KeyRange, Op, PutRequest, RangeRequest, Storage, StorageError, Txn, WatchRequest,
};
use icp_store::log::{LogError, LogOptions};
use icp_store::{Disk, DiskOptions};

const DIRECTORY: &str = "ICP_STORE_CRASH_DIRECTORY";
/// The round, and the newest revision that the watcher has seen.
const ROUND: &str = "ICP_STORE_CRASH_ROUND";
const SEEN: &str = "ICP_STORE_CRASH_SEEN";
const WRITERS: u64 = 8;
/// The keys of a writer that one transaction writes together.
const PARTS: [&str; 3] = ["a", "b", "c"];

/// Small segments, so that segments and snapshots change many times in a run; the largest values exceed a segment.
fn options() -> DiskOptions {
    let log = LogOptions { segment_bytes: 16 << 10, snapshot_frame_bytes: 4 << 10 };
    DiskOptions { log, snapshot_log_bytes: 0, ..DiskOptions::default() }
}

/// One write call, so that a line is there whole or not at all.
fn say(line: &str) {
    std::io::stdout().lock().write_all(format!("{line}\n").as_bytes()).unwrap();
}

/// The process that is killed: a test that does nothing unless it is started as that process.
#[test]
fn writer_process() {
    let Some(dir) = std::env::var_os(DIRECTORY) else { return };
    let number = |name: &str| std::env::var(name).unwrap().parse::<i64>().unwrap();
    let (round, seen) = (number(ROUND), number(SEEN));
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap();
    let store = Disk::open(dir, options()).unwrap();
    let tasks: Vec<_> = (0..WRITERS)
        .map(|writer| {
            let store = store.clone();
            runtime.spawn(async move {
                if writer == 0 {
                    leases(&store, round).await;
                }
                write(&store, writer, round, seen).await;
            })
        })
        .collect();
    runtime.block_on(async {
        for task in tasks {
            task.await.unwrap();
        }
    });
}

/// A lease with a key each round; that of ten rounds ago ends.
async fn leases(store: &Disk, round: i64) {
    let lease = store.lease_grant(round + 1, 3600).await.unwrap().id;
    let mut put = PutRequest::new(format!("lease/{lease}"), format!("{lease}"));
    put.lease = lease;
    store.txn(Txn { success: vec![Op::Put(put)], ..Txn::default() }).await.unwrap();
    say(&format!("leased {lease}"));
    match store.lease_revoke(lease - 10).await {
        Ok(()) => say(&format!("revoked {}", lease - 10)),
        // It was revoked before the process was killed, or never granted.
        Err(e) => assert_eq!(e, StorageError::LeaseNotFound(lease - 10)),
    }
}

async fn write(store: &Disk, writer: u64, round: i64, seen: i64) {
    let mut rng = Rng::new(round as u64).child(&format!("{writer}"));
    for n in 0_u64.. {
        let bytes = if rng.below(40) == 0 { 20_000 } else { rng.below(300) };
        let value = format!("{round}/{n}/{}", "x".repeat(bytes as usize));
        let mut success: Vec<Op> = PARTS
            .iter()
            .map(|part| Op::Put(PutRequest::new(format!("w{writer}/{part}"), value.clone())))
            .collect();
        // And a key that comes and goes with the number.
        let odd = KeyRange::key(format!("w{writer}/odd"));
        success.push(match n % 2 {
            0 => Op::DeleteRange(DeleteRangeRequest { range: odd, prev_kv: false }),
            _ => Op::Put(PutRequest::new(format!("w{writer}/odd"), value)),
        });
        let revision = store.txn(Txn { success, ..Txn::default() }).await.unwrap().revision;
        say(&format!("ack {revision} {writer} {round}/{n}/"));
        if n % 7 == 6 {
            // Others may have compacted as far already.
            let _ = store.compact(seen - rng.below(5) as i64).await;
        }
    }
}

/// What the processes said, and what the watcher saw.
#[derive(Default)]
struct Truth {
    /// The newest acknowledged transaction of each writer: its revision and what its values begin with.
    acknowledged: BTreeMap<String, (i64, String)>,
    acks: u64,
    last_revision: i64,
    leased: BTreeSet<i64>,
    revoked: BTreeSet<i64>,
    /// All keys as the watch told them, with the newest revision it told.
    watched: BTreeMap<Vec<u8>, (i64, Vec<u8>)>,
    seen: i64,
}

impl Truth {
    fn take(&mut self, line: &str) {
        let Some(at) = ["ack ", "leased ", "revoked "].iter().find_map(|word| line.find(word)) else {
            return;
        };
        let words: Vec<&str> = line[at..].split(' ').collect();
        match words[..] {
            ["ack", revision, writer, value] => {
                let revision: i64 = revision.parse().unwrap();
                self.last_revision = self.last_revision.max(revision);
                self.acks += 1;
                let newest = self.acknowledged.entry(writer.to_string()).or_default();
                assert!(newest.0 < revision, "the revision of writer {writer} went back");
                *newest = (revision, value.to_string());
            }
            ["leased", id] => _ = self.leased.insert(id.parse().unwrap()),
            ["revoked", id] => _ = self.revoked.insert(id.parse().unwrap()),
            _ => panic!("{line:?}"),
        }
    }

    async fn check(&mut self, store: &Disk, round: u64) {
        assert!(store.revision() >= self.last_revision, "round {round}: the revision went back");
        let get = async |key: String| store.range(RangeRequest::new(KeyRange::key(key))).await.unwrap().kvs;
        for (writer, (revision, value)) in &self.acknowledged {
            let mut whole = BTreeSet::new();
            for part in PARTS {
                let found = get(format!("w{writer}/{part}")).await;
                let kv = found.first().unwrap_or_else(|| panic!("round {round}: {writer}/{part} is lost"));
                assert!(kv.mod_revision >= *revision, "round {round}: {writer}/{part} went back");
                assert!(
                    kv.mod_revision > *revision || kv.value.starts_with(value.as_bytes()),
                    "round {round}"
                );
                whole.insert((kv.mod_revision, kv.value.clone()));
            }
            assert_eq!(whole.len(), 1, "round {round}: half of a transaction of writer {writer}");
            let (_, value) = whole.pop_first().unwrap();
            let n: u64 = std::str::from_utf8(&value).unwrap().split('/').nth(1).unwrap().parse().unwrap();
            assert_eq!(get(format!("w{writer}/odd")).await.len() as u64, n % 2, "round {round}: {writer}");
        }
        for id in &self.leased {
            let status = store.lease_status(*id).await;
            match status {
                Ok(status) => {
                    assert_eq!(status.keys, [format!("lease/{id}")], "round {round}: lease {id}");
                    assert!(!self.revoked.contains(id), "round {round}: lease {id} is back");
                }
                // A revocation may be there without having been acknowledged; its key is then gone too.
                Err(e) => {
                    assert_eq!(e, StorageError::LeaseNotFound(*id));
                    assert!(
                        self.leased.contains(&(id + 10)) || *id + 10 == round as i64 + 1,
                        "lease {id} is lost"
                    );
                    assert!(
                        get(format!("lease/{id}")).await.is_empty(),
                        "round {round}: a key outlived lease {id}"
                    );
                }
            }
        }
        self.watch(store, round).await;
    }

    /// The watch goes on where it stood.
    async fn watch(&mut self, store: &Disk, round: u64) {
        let compacted = store.status().await.unwrap().compacted;
        assert!(compacted <= self.seen.max(1), "round {round}: {compacted} was compacted");
        let mut watch = store.watch(WatchRequest::new(KeyRange::prefix(""), self.seen + 1)).await.unwrap();
        while self.seen < store.revision() {
            let batch = watch.next().await.unwrap().unwrap();
            for event in batch.events {
                let kv = event.kv;
                assert!((self.seen..=self.seen + 1).contains(&kv.mod_revision), "round {round}: a gap");
                self.seen = kv.mod_revision;
                match kv.version {
                    0 => drop(self.watched.remove(&kv.key[..])),
                    _ => drop(self.watched.insert(kv.key.to_vec(), (kv.mod_revision, kv.value.to_vec()))),
                }
            }
        }
        let all = store.range(RangeRequest::new(KeyRange::prefix(""))).await.unwrap().kvs;
        let read: BTreeMap<_, _> =
            all.into_iter().map(|kv| (kv.key.to_vec(), (kv.mod_revision, kv.value.to_vec()))).collect();
        assert!(read == self.watched, "round {round}: the watch told something else than is there");
    }
}

fn start(dir: &Path, round: u64, seen: i64) -> (Child, std::io::Lines<BufReader<ChildStdout>>) {
    let mut child = Command::new(std::env::current_exe().unwrap())
        .args(["--exact", "writer_process", "--nocapture", "--test-threads=1"])
        .env(DIRECTORY, dir)
        .env(ROUND, round.to_string())
        .env(SEEN, seen.to_string())
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    let lines = BufReader::new(child.stdout.take().unwrap()).lines();
    (child, lines)
}

#[test]
fn what_was_acknowledged_survives_kill_9() {
    let dir = peer::temp_dir("crash");
    let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
    let mut rng = Rng::new(9);
    let mut truth = Truth { seen: 1, ..Truth::default() };
    let rounds = peer::deep(100, 5_000);
    let (mut killed_early, mut snapshots) = (0, 0);
    for round in 0..rounds {
        let (mut child, mut lines) = start(&dir, round, truth.seen);
        if rng.below(6) == 0 {
            // While it starts, recovers or writes its first batch.
            std::thread::park_timeout(Duration::from_millis(rng.below(30)));
            killed_early += 1;
        } else {
            let acks = truth.acks + 1 + rng.below(80);
            while truth.acks < acks {
                let Some(line) = lines.next() else { panic!("round {round}: the writer ended by itself") };
                truth.take(&line.unwrap());
            }
            if round % 10 == 0 {
                assert!(matches!(Disk::open(&dir, options()), Err(LogError::Locked { .. })));
            }
        }
        child.kill().unwrap();
        child.wait().unwrap();
        lines.for_each(|line| truth.take(&line.unwrap()));
        // Now and then the next process finds what the killed one left, and not what an orderly end left.
        if rng.below(3) > 0 || round + 1 == rounds {
            let store = Disk::open(&dir, options()).unwrap();
            runtime.block_on(truth.check(&store, round));
        }
        snapshots += std::fs::read_dir(&dir)
            .unwrap()
            .filter(|f| f.as_ref().unwrap().path().extension().is_some_and(|e| e == "snap"))
            .count();
    }
    println!(
        "{rounds} kills ({killed_early} early), {} writes acknowledged, {} leases, 0 lost",
        truth.acks,
        truth.leased.len()
    );
    assert!(truth.acks > rounds * 10 && snapshots > 0, "{} acks, {snapshots} snapshots", truth.acks);
    std::fs::remove_dir_all(&dir).unwrap();
}
