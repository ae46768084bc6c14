//! The store: transactions and reads in memory, fan-out of watches, durable group commit.
//!
//! Figures to hold beside (`etcd check perf --load=l`, etcd 3.4.23 on a loaded 2-core machine): 2,016 durable writes/s.
//! The example `store-vs-etcd` measures both on the same disk at the same time.
#![allow(missing_docs, clippy::unwrap_used, clippy::disallowed_methods, reason = "a bench")]

use std::hint::black_box;
use std::time::{Duration, Instant};

use criterion::{BatchSize, BenchmarkId, Criterion, Throughput, criterion_group, criterion_main};
use icp_core::base::Time;
use icp_core::storage::{KeyRange, Op, PutRequest, RangeRequest, Storage, Txn, WatchRequest};
use icp_store::watch::Polled;
use icp_store::{Config, Disk, DiskOptions, Store};

const VALUE: [u8; 1024] = [b'x'; 1024];

fn put(key: String) -> Txn {
    Txn { success: vec![Op::Put(PutRequest::new(key, &VALUE[..]))], ..Txn::default() }
}

fn pod(n: u64) -> String {
    format!("/registry/pods/ns-{:03}/pod-{n:06}", n % 100)
}

/// A store of `keys` pods and as many other keys.
fn filled(keys: u64) -> Store {
    let mut store = Store::new(Config::default());
    for n in 0..keys {
        store.txn(Time::ZERO, &put(pod(n))).unwrap();
        store.txn(Time::ZERO, &put(format!("/registry/leases/ns/{n}"))).unwrap();
    }
    store.publish_all();
    store.take_entries();
    store
}

fn memory(c: &mut Criterion) {
    let mut group = c.benchmark_group("store/memory");
    group.throughput(Throughput::Elements(1)).sample_size(20).measurement_time(Duration::from_secs(2));
    let mut store = filled(100_000);
    let mut n = 0;
    group.bench_function("put one of 200,000 keys", |b| {
        b.iter(|| {
            n += 7;
            store.txn(Time::ZERO, &put(pod(n % 100_000))).unwrap();
            store.publish_all();
            store.take_entries();
            // As Kubernetes does: history is bounded.
            if n % 70_000 == 0 {
                store.compact(store.visible() - 5_000).unwrap();
            }
        });
    });
    let store = filled(100_000);
    group.bench_function("get one of 200,000 keys", |b| {
        b.iter(|| store.range(&RangeRequest::new(KeyRange::key(black_box(pod(4_711))))).unwrap());
    });
    let namespace = RangeRequest::new(KeyRange::prefix("/registry/pods/ns-042/"));
    group.throughput(Throughput::Elements(1_000));
    group.bench_function("list 1,000 of 200,000 keys", |b| {
        b.iter(|| assert_eq!(store.range(black_box(&namespace)).unwrap().count, 1_000));
    });
    group.finish();
}

fn watch(c: &mut Criterion) {
    const WATCHERS: u64 = 10_000;
    let mut group = c.benchmark_group("store/watch");
    group.sample_size(20).measurement_time(Duration::from_secs(2));

    let mut store = Store::new(Config::default());
    let watch = |store: &mut Store, prefix: String| {
        store.watch(WatchRequest::new(KeyRange::prefix(prefix), 0)).unwrap()
    };
    let ids: Vec<_> = (0..WATCHERS).map(|_| watch(&mut store, "/registry/pods/".into())).collect();
    let mut n = 0;
    group.throughput(Throughput::Elements(WATCHERS));
    group.bench_function("one put to 10,000 watchers", |b| {
        b.iter(|| {
            n += 1;
            store.txn(Time::ZERO, &put(pod(n % 100))).unwrap();
            store.publish_all();
            store.take_entries();
            store.take_ready();
            for id in &ids {
                assert!(matches!(store.poll_watch(*id), Polled::Batch(_)));
            }
            if n % 1_000 == 0 {
                store.compact(store.visible()).unwrap();
            }
        });
    });

    let mut store = Store::new(Config::default());
    for n in 0..WATCHERS {
        watch(&mut store, format!("/registry/secrets/ns-{n}/"));
    }
    group.throughput(Throughput::Elements(1));
    group.bench_function("one put beside 10,000 unrelated watchers", |b| {
        b.iter(|| {
            n += 1;
            store.txn(Time::ZERO, &put(pod(n % 100))).unwrap();
            store.publish_all();
            store.take_entries();
            if n % 1_000 == 0 {
                store.compact(store.visible()).unwrap();
            }
        });
    });
    group.finish();
}

/// Kubernetes renews a lease for each node every ten seconds: 100,000 nodes are 10,000 renewals a second.
fn leases(c: &mut Criterion) {
    const LEASES: u64 = 100_000;
    let mut group = c.benchmark_group("store/leases");
    group.throughput(Throughput::Elements(1)).sample_size(20).measurement_time(Duration::from_secs(2));
    let mut store = Store::new(Config::default());
    for id in 1..=LEASES {
        store.lease_grant(Time::ZERO, id as i64, 40 + (id % 3_600) as i64).unwrap();
    }
    store.take_entries();
    let mut n = 0;
    group.bench_function("renew one of 100,000 leases", |b| {
        b.iter(|| {
            n += 1;
            let id = (n * 7_919 % LEASES + 1) as i64;
            store.lease_keep_alive(Time::from_micros(n as i64), id).unwrap();
        });
    });
    group.throughput(Throughput::Elements(LEASES));
    group.bench_function("let 100,000 leases with a key each run out at once", |b| {
        let granted = || {
            let mut store = Store::new(Config::default());
            for id in 1..=LEASES as i64 {
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

fn durable(c: &mut Criterion) {
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap();
    let mut group = c.benchmark_group("store/durable");
    group.throughput(Throughput::Elements(1)).sample_size(10).measurement_time(Duration::from_secs(3));
    for writers in [1_u64, 64, 1_000] {
        let dir = std::env::temp_dir().join(format!("icp-bench-store-{}-{writers}", std::process::id()));
        let store = Disk::open(&dir, DiskOptions::default()).unwrap();
        group.bench_function(BenchmarkId::new("put 1 KiB, writers", writers), |b| {
            b.iter_custom(|iterations| {
                let start = Instant::now();
                runtime.block_on(async {
                    let tasks: Vec<_> = (0..writers)
                        .map(|writer| {
                            let store = store.clone();
                            let share = iterations / writers + u64::from(writer < iterations % writers);
                            tokio::spawn(async move {
                                for n in 0..share {
                                    store.txn(put(pod(writer * 1_000 + n % 1_000))).await.unwrap();
                                }
                            })
                        })
                        .collect();
                    for task in tasks {
                        task.await.unwrap();
                    }
                    let _ = store.compact(store.revision()).await;
                });
                start.elapsed()
            });
        });
        let stats = store.stats();
        println!(
            "{writers} writers: {:.1} records per sync ({} records, {} syncs, {} snapshots)",
            stats.entries as f64 / stats.syncs.max(1) as f64,
            stats.entries,
            stats.syncs,
            stats.snapshots,
        );
        drop(store);
        std::fs::remove_dir_all(&dir).unwrap();
    }
    group.finish();
}

criterion_group!(benches, memory, watch, leases, durable);
criterion_main!(benches);
