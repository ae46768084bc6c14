//! What keys and watchers cost in memory, counted by an allocator that rounds as glibc's does.
//!
//! The figures are printed: `cargo test -p icp-store --test memory --release -- --nocapture`. With `ICP_DEEP` a million
//! keys are stored, and the resident memory of the process is printed beside what was counted.
#![allow(
    unsafe_code,
    clippy::unwrap_used,
    unreachable_pub,
    reason = "test code; a counting allocator is a GlobalAlloc"
)]

mod peer;

use std::alloc::{GlobalAlloc, Layout, System};
use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};

use icp_core::base::{Rng, Time};
use icp_core::storage::{KeyRange, Op, PutRequest, Txn, WatchRequest};
use icp_store::watch::Polled;
use icp_store::{Config, Store};

struct Counting;

static LIVE: AtomicUsize = AtomicUsize::new(0);

/// The chunk that glibc's malloc takes for a request.
fn chunk(bytes: usize) -> usize {
    ((bytes + 8).next_multiple_of(16)).max(32)
}

// SAFETY: it hands every call on to the system's allocator and only counts beside it.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        LIVE.fetch_add(chunk(layout.size()), Ordering::Relaxed);
        // SAFETY: as the caller promises.
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, at: *mut u8, layout: Layout) {
        LIVE.fetch_sub(chunk(layout.size()), Ordering::Relaxed);
        // SAFETY: as the caller promises.
        unsafe { System.dealloc(at, layout) }
    }
}

#[global_allocator]
static ALLOCATOR: Counting = Counting;

/// One measurement at a time: the count is of the whole process.
static ALONE: Mutex<()> = Mutex::new(());

fn live() -> usize {
    LIVE.load(Ordering::Relaxed)
}

fn resident() -> usize {
    let statm = std::fs::read_to_string("/proc/self/statm").unwrap_or_default();
    statm.split(' ').nth(1).and_then(|pages| pages.parse::<usize>().ok()).unwrap_or(0) * 4096
}

fn put(key: String, value_bytes: usize) -> Txn {
    Txn { success: vec![Op::Put(PutRequest::new(key, vec![b'x'; value_bytes]))], ..Txn::default() }
}

fn pod(n: usize) -> String {
    format!("/registry/pods/ns-{:03}/pod-{n:07}", n % 100)
}

/// Fills a store in random order, as a cluster does, or in key order, as a restart from a snapshot does, and returns the
/// counted bytes for each key: with its history, and after compaction.
fn bytes_of_a_key(keys: usize, value_bytes: usize, ordered: bool) -> (f64, f64) {
    let mut order: Vec<usize> = (0..keys).collect();
    if !ordered {
        let mut rng = Rng::new(1);
        (1..keys).rev().for_each(|i| order.swap(i, rng.below(i as u64 + 1) as usize));
    } else {
        order.sort_by_key(|n| pod(*n));
    }
    let (before, resident_before) = (live(), resident());
    let mut store = Store::new(Config::default());
    for n in &order {
        store.txn(Time::ZERO, &put(pod(*n), value_bytes)).unwrap();
        store.publish_all();
        drop(store.take_entries());
    }
    let full = (live() - before) as f64;
    println!(
        "{keys} keys of {value_bytes} bytes, {}: {:.0} bytes a key, resident {:.2} of the data",
        if ordered { "in order" } else { "in random order" },
        full / keys as f64,
        (resident() - resident_before) as f64 / store.status().in_use_bytes as f64,
    );
    store.compact(store.visible()).unwrap();
    store.defragment();
    let compacted = (live() - before) as f64;
    (full / keys as f64, compacted / keys as f64)
}

#[test]
fn a_key_costs_little_beside_its_data() {
    let _alone = ALONE.lock().unwrap();
    let keys = peer::deep(20_000, 1_000_000) as usize;
    let key_bytes = pod(0).len() as f64;
    for value_bytes in [100, 1_000] {
        for ordered in [false, true] {
            let (full, compacted) = bytes_of_a_key(keys, value_bytes, ordered);
            let data = value_bytes as f64 + key_bytes;
            println!(
                "  {:.2} of the data with history, {:.2} after compaction ({compacted:.0} bytes)",
                full / data,
                compacted / data
            );
            if value_bytes == 1_000 {
                assert!(full / data <= 1.6, "{full} bytes for {data}");
            }
        }
    }
}

#[test]
fn ten_thousand_watchers_of_a_prefix_share_what_they_see() {
    const WATCHERS: usize = 10_000;
    let _alone = ALONE.lock().unwrap();
    let mut store = Store::new(Config::default());
    let before = live();
    let request = || WatchRequest::new(KeyRange::prefix("/registry/pods/"), 0);
    let ids: Vec<_> = (0..WATCHERS).map(|_| store.watch(request()).unwrap()).collect();
    let idle = (live() - before) / WATCHERS;
    let events = 100;
    for n in 0..events {
        store.txn(Time::ZERO, &put(pod(n), 1_000)).unwrap();
        store.publish_all();
        drop(store.take_entries());
    }
    let behind = (live() - before) / WATCHERS;
    println!("{idle} bytes an idle watcher; {behind} with {events} events of 1 KB waiting");
    store.take_ready();
    for id in &ids {
        let Polled::Batch(batch) = store.poll_watch(*id) else { panic!("no batch") };
        assert_eq!(batch.events.len(), events);
    }
    let after = (live() - before) / WATCHERS;
    println!("{after} bytes after all was delivered");
    assert!(idle <= 1_024 && behind <= 4_096 && after <= 2_048, "{idle} {behind} {after}");
}
