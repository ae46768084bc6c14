//! What etcd guarantees of reads, writes and watches, checked on histories of concurrent clients.
//!
//! `ICP_DEEP` is the number of histories of each handle; 100 if it is no number.
#![cfg(feature = "std")]
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::disallowed_methods,
    unreachable_pub,
    reason = "test code, which runs clients and reads the clock"
)]

#[path = "../checker/mod.rs"]
mod checker;
#[path = "../peer/mod.rs"]
mod peer;

mod mutants;

use std::sync::Arc;

use checker::record::run;
use icp_core::storage::Storage;
use icp_store::log::LogOptions;
use icp_store::{Disk, DiskOptions, Memory};

fn runtime() -> tokio::runtime::Runtime {
    tokio::runtime::Builder::new_multi_thread().worker_threads(3).enable_all().build().unwrap()
}

/// Runs histories and checks them; says what was checked.
fn histories(name: &str, mut store: impl FnMut(u64) -> Arc<dyn Storage>) {
    let runtime = runtime();
    let (mut total, rounds) = (checker::Checked::default(), peer::deep(4, 100));
    for seed in 0..rounds {
        let (history, truth) = runtime.block_on(run(store(seed), seed, 5, 60));
        let checked = history.check(&truth).unwrap_or_else(|v| panic!("{name}, {seed}: {v:?}"));
        total.writes += checked.writes;
        total.reads += checked.reads;
        total.events += checked.events;
        // The writes that end each history are not of a client.
        total.unknown += checked.unknown - checker::record::SETTLING_WRITES;
    }
    println!("{name}: {rounds} histories, {total:?}");
    // An answer is lost only by servers that die.
    assert_eq!(total.unknown, 0);
    assert!(total.writes > 50 && total.reads > 50 && total.events > 200, "{total:?}");
}

#[test]
fn histories_of_memory() {
    histories("memory", |_| Arc::new(Memory::new()));
}

#[test]
fn histories_of_a_disk_whose_segments_and_snapshots_change() {
    let dir = peer::temp_dir("guarantees");
    let log = LogOptions { segment_bytes: 8 << 10, ..LogOptions::default() };
    let options = DiskOptions { log, snapshot_log_bytes: 0, ..DiskOptions::default() };
    histories("disk", |seed| Arc::new(Disk::open(dir.join(format!("{seed}")), options).unwrap()));
    std::fs::remove_dir_all(dir).unwrap();
}
