//! The store: transactions, reads, leases and watches in memory, durable group commit, recovery. Each group begins with
//! its limit: what the machine does for the same work without a store around it.
//!
//! The example `store-vs-etcd` measures a real etcd on the same disk at the same time.
#![allow(
    missing_docs,
    clippy::unwrap_used,
    clippy::indexing_slicing,
    clippy::disallowed_methods,
    reason = "a bench"
)]

use std::collections::BTreeMap;
use std::hint::black_box;
use std::ops::Bound;
use std::os::unix::fs::FileExt as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use criterion::measurement::WallTime;
use criterion::{
    BatchSize, BenchmarkGroup, BenchmarkId, Criterion, Throughput, criterion_group, criterion_main,
};
use icp_core::base::Time;
use icp_core::storage::{Compare, KeyRange, Op, PutRequest, RangeRequest, Storage, Txn, WatchRequest};
use icp_store::watch::Polled;
use icp_store::{Config, Disk, DiskOptions, Memory, Store};

const VALUE: Bytes = Bytes::from_static(&[b'x'; 1024]);
const UNRELATED_KEYS: u64 = 1_000_000;
const WRITERS: [u64; 3] = [1, 64, 1_000];

fn put_to(key: String, value: Bytes) -> Txn {
    Txn { success: vec![Op::Put(PutRequest::new(key, value))], ..Txn::default() }
}

fn put(key: String) -> Txn {
    // Every value has its own bytes, as those that come from a socket have.
    put_to(key, Bytes::copy_from_slice(&VALUE))
}

fn pod(n: u64) -> String {
    format!("/registry/pods/ns-{:03}/pod-{n:06}", n % 100)
}

fn group<'a>(c: &'a mut Criterion, name: &str) -> BenchmarkGroup<'a, WallTime> {
    let mut group = c.benchmark_group(name);
    group.sample_size(10).warm_up_time(Duration::from_millis(300)).measurement_time(Duration::from_secs(1));
    group
}

fn runtime() -> tokio::runtime::Runtime {
    tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap()
}

/// A directory on the disk of the build, which is removed when it is dropped.
struct Scratch(PathBuf);

impl Scratch {
    fn new(name: &str) -> Self {
        let path = std::env::temp_dir().join(format!("icp-bench-store-{}-{name}", std::process::id()));
        std::fs::create_dir_all(&path).unwrap();
        Self(path)
    }

    fn open(&self) -> Disk {
        Disk::open(&self.0, DiskOptions::default()).unwrap()
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

/// How long `iterations` puts of `writers` tasks take.
fn puts<S: Storage + Clone + 'static>(
    runtime: &tokio::runtime::Runtime,
    store: &S,
    writers: u64,
    iterations: u64,
) -> Duration {
    let start = Instant::now();
    runtime.block_on(async {
        let tasks: Vec<_> = (0..writers)
            .map(|writer| {
                let store = store.clone();
                let share = iterations / writers + u64::from(writer < iterations % writers);
                tokio::spawn(async move {
                    for n in 0..share {
                        store.txn(put(pod((writer * 10 + n) % 10_000))).await.unwrap();
                        tokio::task::consume_budget().await;
                    }
                })
            })
            .collect();
        for task in tasks {
            task.await.unwrap();
        }
        // As Kubernetes does: history is bounded.
        let revision = store.status().await.unwrap().revision;
        let _ = store.compact(revision).await;
    });
    start.elapsed()
}

fn memory(c: &mut Criterion) {
    let mut group = group(c, "store/put 1 KiB in memory");
    group.throughput(Throughput::Elements(1));
    let (mut map, mut n) = (BTreeMap::new(), 0);
    group.bench_function("limit: copy it into a BTreeMap of 10,000", |b| {
        b.iter(|| {
            n += 7;
            map.insert(pod(n % 10_000), Bytes::copy_from_slice(black_box(&VALUE)))
        });
    });
    let runtime = runtime();
    for writers in WRITERS {
        let store = Memory::new();
        group.bench_function(BenchmarkId::new("writers", writers), |b| {
            b.iter_custom(|iterations| puts(&runtime, &store, writers, iterations));
        });
    }
    group.finish();
}

fn durable(c: &mut Criterion) {
    let mut group = group(c, "store/put 1 KiB durably");
    group.throughput(Throughput::Elements(1)).measurement_time(Duration::from_secs(2));
    let scratch = Scratch::new("limit");
    let file = std::fs::File::create(scratch.0.join("limit")).unwrap();
    file.write_all_at(&vec![0; 16 << 20], 0).unwrap();
    file.sync_all().unwrap();
    let mut at = 0;
    group.bench_function("limit: write and fdatasync of written space", |b| {
        b.iter(|| {
            file.write_all_at(&VALUE, at).unwrap();
            file.sync_data().unwrap();
            at = (at + 1_024) % (16 << 20);
        });
    });
    let runtime = runtime();
    for writers in WRITERS {
        let scratch = Scratch::new(&format!("{writers}"));
        let store = scratch.open();
        group.bench_function(BenchmarkId::new("writers", writers), |b| {
            b.iter_custom(|iterations| puts(&runtime, &store, writers, iterations));
        });
        let stats = store.stats();
        println!(
            "{writers} writers: {:.1} records per sync ({} records, {} syncs, {} snapshots)",
            stats.entries as f64 / stats.syncs.max(1) as f64,
            stats.entries,
            stats.syncs,
            stats.snapshots,
        );
    }
    group.finish();
}

/// Reads among a million keys that do not matter to them.
fn range(c: &mut Criterion) {
    let mut group = group(c, "store/range");
    let pods = |store: &mut Store| {
        (0..10_000).for_each(|n| _ = store.txn(Time::ZERO, &put(pod(n))).unwrap());
        store.publish_all();
        store.take_entries();
    };
    let (mut small, mut large) = (Store::new(Config::default()), Store::new(Config::default()));
    pods(&mut small);
    for n in 0..UNRELATED_KEYS {
        // On both sides of the pods.
        let kind = if n % 2 == 0 { "leases" } else { "secrets" };
        store_unlogged(&mut large, put_to(format!("/registry/{kind}/ns-{:03}/{n}", n % 500), Bytes::new()));
    }
    pods(&mut large);
    let map: BTreeMap<String, Bytes> = (0..10_000).map(|n| (pod(n), VALUE.clone())).collect();
    let one = (pod(4_711), KeyRange::key(pod(4_711)));
    let ranges = [
        (1, one),
        (100, (pod(42), KeyRange::prefix("/registry/pods/ns-042/"))),
        (10_000, (pod(0), KeyRange::prefix("/registry/pods/"))),
    ];
    for (keys, (first, range)) in ranges {
        group.throughput(Throughput::Elements(keys));
        group.bench_function(BenchmarkId::new("limit: clone from a BTreeMap", keys), |b| {
            b.iter(|| {
                let from =
                    map.range::<str, _>((Bound::Included(black_box(first.as_str())), Bound::Unbounded));
                let found: Vec<(String, Bytes)> =
                    from.take(keys as usize).map(|(k, v)| (k.clone(), v.clone())).collect();
                found
            });
        });
        let request = RangeRequest::new(range);
        for (among, store) in [("among 10,000", &small), ("among 1,010,000", &large)] {
            group.bench_function(BenchmarkId::new(among, keys), |b| {
                b.iter(|| assert_eq!(store.range(black_box(&request)).unwrap().count, keys as i64));
            });
        }
    }
    group.finish();
}

fn store_unlogged(store: &mut Store, txn: Txn) {
    store.txn(Time::ZERO, &txn).unwrap();
    store.publish_all();
    store.take_entries();
}

fn watch(c: &mut Criterion) {
    let mut group = group(c, "store/watch, one put to watchers");
    for watchers in [1_u64, 100, 10_000] {
        let mut store = Store::new(Config::default());
        let watch = WatchRequest::new(KeyRange::prefix("/registry/pods/"), 0);
        let ids: Vec<_> = (0..watchers).map(|_| store.watch(watch.clone()).unwrap()).collect();
        group.throughput(Throughput::Elements(watchers));
        let shared = Arc::new(VALUE.clone());
        group.bench_function(BenchmarkId::new("limit: an Arc and a vector for each", watchers), |b| {
            b.iter(|| (0..watchers).map(|_| vec![black_box(&shared).clone()]).collect::<Vec<_>>());
        });
        let mut n = 0;
        group.bench_function(BenchmarkId::new("watchers", watchers), |b| {
            b.iter(|| {
                n += 1;
                store_unlogged(&mut store, put(pod(n % 100)));
                store.take_ready();
                for id in &ids {
                    assert!(matches!(store.poll_watch(*id), Polled::Batch(_)));
                }
                if n % 1_000 == 0 {
                    store.compact(store.visible()).unwrap();
                }
            });
        });
    }
    let mut store = Store::new(Config::default());
    for n in 0..10_000 {
        let range = KeyRange::prefix(format!("/registry/secrets/ns-{n}/"));
        store.watch(WatchRequest::new(range, 0)).unwrap();
    }
    group.throughput(Throughput::Elements(1));
    let mut n = 0;
    group.bench_function("10,000 unrelated watchers", |b| {
        b.iter(|| {
            n += 1;
            store_unlogged(&mut store, put(pod(n % 100)));
            if n % 1_000 == 0 {
                store.compact(store.visible()).unwrap();
            }
        });
    });
    group.finish();
}

fn lease(c: &mut Criterion) {
    const LEASES: i64 = 100_000;
    let mut group = group(c, "store/lease");
    group.throughput(Throughput::Elements(1));
    let map: BTreeMap<i64, i64> = (1..=LEASES).map(|n| (n, n)).collect();
    let mut n = 0;
    group.bench_function("limit: find one of 100,000", |b| {
        b.iter(|| {
            n = (n + 7_919) % LEASES;
            map.get(&black_box(n + 1)).copied()
        });
    });
    let mut store = Store::new(Config::default());
    (1..=LEASES).for_each(|id| _ = store.lease_grant(Time::ZERO, id, 40 + id % 3_600).unwrap());
    store.take_entries();
    let mut now = 0;
    group.bench_function("renew one of 100,000", |b| {
        b.iter(|| {
            n = (n + 7_919) % LEASES;
            now += 1;
            store.lease_keep_alive(Time::from_micros(now), n + 1).unwrap()
        });
    });
    group.throughput(Throughput::Elements(LEASES as u64));
    group.bench_function("let 100,000 with a key each run out at once", |b| {
        let granted = || {
            let mut store = Store::new(Config::default());
            for id in 1..=LEASES {
                store.lease_grant(Time::ZERO, id, 40).unwrap();
                let put = PutRequest { lease: id, ..PutRequest::new(format!("/registry/events/{id}"), "x") };
                store.txn(Time::ZERO, &Txn { success: vec![Op::Put(put)], ..Txn::default() }).unwrap();
            }
            store.take_entries();
            store
        };
        b.iter_batched(granted, |mut store| store.tick(Time::from_secs(41)), BatchSize::PerIteration);
    });
    group.finish();
}

/// What Kubernetes sends for an update: put if the revision is still this, else read.
fn txn(c: &mut Criterion) {
    let mut group = group(c, "store/txn");
    group.throughput(Throughput::Elements(1));
    for compares in [0_u64, 1, 4] {
        let mut store = Store::new(Config::default());
        (0..10_000).for_each(|n| store_unlogged(&mut store, put(pod(n))));
        let (mut n, mut revisions) = (0, (2..10_002).collect::<Vec<i64>>());
        group.bench_function(BenchmarkId::new("put 1 KiB if revisions hold", compares), |b| {
            b.iter(|| {
                n = (n + 7) % 10_000;
                let others = (0..compares).map(|i| (n + i) % 10_000);
                let held = |i: u64| Compare::mod_revision(pod(i), revisions[i as usize]);
                let txn = Txn {
                    compare: others.map(held).collect(),
                    failure: vec![Op::Range(RangeRequest::new(KeyRange::key(pod(n))))],
                    ..put(pod(n))
                };
                let done = store.txn(Time::ZERO, &txn).unwrap();
                assert!(done.succeeded);
                revisions[n as usize] = done.revision;
                store.publish_all();
                store.take_entries();
                if done.revision % 10_000 == 0 {
                    store.compact(store.visible()).unwrap();
                }
            });
        });
    }
    group.finish();
}

fn recovery(c: &mut Criterion) {
    const KEYS: u64 = 30_000;
    let mut group = group(c, "store/recovery");
    let scratch = Scratch::new("recovery");
    runtime().block_on(async {
        let store = scratch.open();
        for first in (0..KEYS).step_by(100) {
            let key = |n| Op::Put(PutRequest::new(pod(n), VALUE.clone()));
            let success = (first..first + 100).map(key).collect();
            store.txn(Txn { success, ..Txn::default() }).await.unwrap();
        }
    });
    let files = |dir: &Path| -> Vec<PathBuf> {
        let all = std::fs::read_dir(dir).unwrap().map(|e| e.unwrap().path());
        all.filter(|p| !p.ends_with("spare.log")).collect()
    };
    group.throughput(Throughput::Bytes(KEYS * 1_024));
    group.bench_function("limit: read the files from the page cache", |b| {
        b.iter(|| files(&scratch.0).iter().map(|p| std::fs::read(p).unwrap().len()).sum::<usize>());
    });
    group.bench_function("open 30,000 keys of 1 KiB", |b| {
        b.iter_custom(|iterations| {
            let mut took = Duration::ZERO;
            for _ in 0..iterations {
                let start = Instant::now();
                let store = scratch.open();
                took += start.elapsed();
                drop(store);
            }
            took
        });
    });
    group.finish();
}

criterion_group!(benches, memory, durable, range, watch, lease, txn, recovery);
criterion_main!(benches);
