//! A process that writes is killed with SIGKILL, again and again: what it acknowledged is there, and watches continue.
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

use std::collections::BTreeMap;
use std::io::{BufRead, BufReader, Write};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use futures_util::StreamExt;
use icp_core::base::Rng;
use icp_core::storage::{KeyRange, Op, PutRequest, RangeRequest, Storage, Txn, WatchRequest};
use icp_store::log::LogOptions;
use icp_store::{Disk, DiskOptions};

const DIRECTORY: &str = "ICP_STORE_CRASH_DIRECTORY";
const WRITERS: usize = 8;

/// Small segments, so that segments and snapshots change many times in a run.
fn options() -> DiskOptions {
    let log = LogOptions { segment_bytes: 64 << 10, ..LogOptions::default() };
    DiskOptions { log, snapshot_log_bytes: 0, ..DiskOptions::default() }
}

/// The process that is killed: a test that does nothing unless it is started as that process.
#[test]
fn writer_process() {
    let Some(dir) = std::env::var_os(DIRECTORY) else { return };
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap();
    let store = Disk::open(dir, options()).unwrap();
    let round = store.revision();
    let tasks: Vec<_> = (0..WRITERS)
        .map(|writer| {
            let store = store.clone();
            runtime.spawn(async move {
                for n in 0_u64.. {
                    let key = format!("w{writer}/{}", n % 50);
                    let put = PutRequest::new(key.clone(), format!("{round}/{n}/{}", "x".repeat(200)));
                    let txn = Txn { success: vec![Op::Put(put)], ..Txn::default() };
                    let revision = store.txn(txn).await.unwrap().revision;
                    // One write call, so that a line is there whole or not at all.
                    let line = format!("ack {revision} {key} {round}/{n}\n");
                    std::io::stdout().lock().write_all(line.as_bytes()).unwrap();
                    if n % 40 == 39 {
                        // Another writer may have compacted further already.
                        let _ = store.compact(revision - 20).await;
                    }
                }
            })
        })
        .collect();
    runtime.block_on(async {
        for task in tasks {
            task.await.unwrap();
        }
    });
}

#[test]
fn what_was_acknowledged_survives_kill_9() {
    let dir = peer::temp_dir("crash");
    let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
    let mut rng = Rng::new(9);
    let mut acknowledged: BTreeMap<String, (i64, String)> = BTreeMap::new();
    let (mut last_revision, mut acks) = (1, 0);
    for round in 0..8 {
        let mut child = Command::new(std::env::current_exe().unwrap())
            .args(["--exact", "writer_process", "--nocapture", "--test-threads=1"])
            .env(DIRECTORY, &dir)
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();
        let mut take = |line: &str| {
            let Some((_, ack)) = line.split_once("ack ") else { return };
            let parts: Vec<&str> = ack.split(' ').collect();
            let [revision, key, value] = parts[..] else { panic!("{line:?}") };
            let revision: i64 = revision.parse().unwrap();
            last_revision = last_revision.max(revision);
            acks += 1;
            let newest = acknowledged.entry(key.to_string()).or_default();
            assert!(newest.0 < revision, "a revision went back");
            *newest = (revision, value.to_string());
        };
        let until = Instant::now() + Duration::from_millis(20 + rng.below(200));
        while Instant::now() < until {
            let Some(line) = lines.next() else { panic!("the writer ended by itself") };
            take(&line.unwrap());
        }
        child.kill().unwrap();
        child.wait().unwrap();
        lines.for_each(|line| take(&line.unwrap()));

        let store = Disk::open(&dir, options()).unwrap();
        assert!(store.revision() >= last_revision, "round {round}: the revision went back");
        runtime.block_on(async {
            for (key, (revision, value)) in &acknowledged {
                let found = store.range(RangeRequest::new(KeyRange::key(key.clone()))).await.unwrap().kvs;
                let kv = found.first().unwrap_or_else(|| panic!("round {round}: {key} is lost"));
                assert!(kv.mod_revision >= *revision, "round {round}: {key} went back");
                if kv.mod_revision == *revision {
                    assert!(kv.value.starts_with(value.as_bytes()), "round {round}: {key}");
                }
            }
            // Every revision since the compaction is reported, once.
            let from = store.status().await.unwrap().compacted.max(2);
            let mut watch = store.watch(WatchRequest::new(KeyRange::prefix("w"), from)).await.unwrap();
            let mut next = from;
            while next <= store.revision() {
                for event in watch.next().await.unwrap().unwrap().events {
                    assert_eq!(event.kv.mod_revision, next);
                    next += 1;
                }
            }
        });
    }
    assert!(acks > 100, "{acks}");
    std::fs::remove_dir_all(&dir).unwrap();
}
