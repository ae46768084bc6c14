//! The load: workers that each send one request after the other, the same for every store.
#![expect(clippy::disallowed_methods, reason = "a program: it owns the clock and its tasks")]

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use icp_core::storage::{KeyRange, Op, PutRequest, RangeRequest, Storage, StorageError, Txn};
use serde::{Deserialize, Serialize};

use super::Failure;
use super::process::Counters;
use crate::cluster::report::percentile;

/// Bytes of a value.
pub(super) const VALUE_BYTES: usize = 1_024;
/// Keys that are there before reads are measured, and the most that writers write to.
pub(super) const KEYS: u64 = 10_000;
/// Leases that are renewed.
pub(super) const LEASES: i64 = 1_000;
/// The part of a window that is run first and not counted.
const WARM_UP_DIVISOR: u32 = 4;
/// Puts of one transaction that only fills a store.
const FILL_OPS: u64 = 100;

/// What a worker does.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) enum Work {
    /// Puts a value, in a transaction, as Kubernetes does; answered when it is durable.
    Put,
    /// Reads one key, linearizably.
    Get,
    /// Renews a lease.
    Renew,
}

/// Figures of one subject in one scenario.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub(super) struct Sample {
    /// Requests (or deliveries) per second.
    pub(super) rate: f64,
    /// Latencies in microseconds.
    pub(super) p50_us: f64,
    pub(super) p99_us: f64,
    pub(super) max_us: f64,
    /// CPU seconds of the store's process per second.
    pub(super) cpu: f64,
    /// Syncs of the log per second, and records that shared one.
    pub(super) syncs: f64,
    pub(super) records_per_sync: f64,
    /// Other figures by name.
    pub(super) more: BTreeMap<String, f64>,
}

impl Sample {
    /// Sets the latencies.
    pub(super) fn latencies(&mut self, mut micros: Vec<u64>) {
        micros.sort_unstable();
        self.p50_us = percentile(&micros, 50) as f64;
        self.p99_us = percentile(&micros, 99) as f64;
        self.max_us = percentile(&micros, 100) as f64;
    }

    /// The median of every figure.
    pub(super) fn median(samples: &[Self]) -> Self {
        let middle = |figure: &dyn Fn(&Self) -> f64| {
            let mut all: Vec<f64> = samples.iter().map(figure).collect();
            all.sort_by(f64::total_cmp);
            let upper = all.get(all.len() / 2).copied().unwrap_or(0.0);
            let lower = all.get(all.len().saturating_sub(1) / 2).copied().unwrap_or(0.0);
            f64::midpoint(lower, upper)
        };
        let names = samples.iter().flat_map(|s| s.more.keys().cloned());
        let more = |name: String| {
            let value = middle(&|s| s.more.get(&name).copied().unwrap_or(0.0));
            (name, value)
        };
        Self {
            rate: middle(&|s| s.rate),
            p50_us: middle(&|s| s.p50_us),
            p99_us: middle(&|s| s.p99_us),
            max_us: middle(&|s| s.max_us),
            cpu: middle(&|s| s.cpu),
            syncs: middle(&|s| s.syncs),
            records_per_sync: middle(&|s| s.records_per_sync),
            more: names.map(more).collect(),
        }
    }
}

/// Handles of one store, over which workers are spread: connections, or clones of one handle.
pub(super) type Handles = Vec<Arc<dyn Storage>>;

/// The key that worker or reader `n` uses.
pub(super) fn key(n: u64) -> String {
    format!("/registry/pods/ns-{:03}/pod-{n:06}", n % 100)
}

/// A value that does not compress to nothing.
pub(super) fn value() -> Vec<u8> {
    let mut state = 0x9e37_79b9_u64;
    let step = |_| {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (state >> 33) as u8
    };
    (0..VALUE_BYTES).map(step).collect()
}

/// A transaction of one put.
pub(super) fn put(key: String, value: Vec<u8>) -> Txn {
    Txn { success: vec![Op::Put(PutRequest::new(key, value))], ..Txn::default() }
}

/// Puts the keys `0..keys`, many in one transaction.
pub(super) async fn fill(handles: &Handles, keys: u64) -> Result<(), StorageError> {
    let value = Arc::new(value());
    let lanes = 16_u64;
    let tasks: Vec<_> = (0..lanes)
        .filter_map(|lane| Some((lane, handles.get(lane as usize % handles.len().max(1))?.clone())))
        .map(|(lane, handle)| {
            let value = value.clone();
            tokio::spawn(async move {
                let mut first = lane * FILL_OPS;
                while first < keys {
                    let some = first..keys.min(first + FILL_OPS);
                    let put = |n| Op::Put(PutRequest::new(key(n), value.to_vec()));
                    handle.txn(Txn { success: some.map(put).collect(), ..Txn::default() }).await?;
                    first += lanes * FILL_OPS;
                }
                Ok::<(), StorageError>(())
            })
        })
        .collect();
    for task in tasks {
        joined(task).await??;
    }
    Ok(())
}

/// Makes what `work` needs to be there.
pub(super) async fn prepare(handles: &Handles, work: Work) -> Result<(), StorageError> {
    match work {
        Work::Put => Ok(()),
        Work::Get => fill(handles, KEYS).await,
        Work::Renew => {
            let Some(handle) = handles.first() else { return Ok(()) };
            for id in 1..=LEASES {
                match handle.lease_grant(id, 3_600).await {
                    Ok(_) | Err(StorageError::LeaseExists(_)) => {}
                    Err(e) => return Err(e),
                }
            }
            Ok(())
        }
    }
}

pub(super) async fn joined<T>(task: tokio::task::JoinHandle<T>) -> Result<T, StorageError> {
    task.await.map_err(|e| StorageError::Unavailable { detail: e.to_string() })
}

/// Runs `workers` for `window` and counts what begins and ends in it. `probe` reads the counters of the store, once when
/// the window begins and once when it is over.
pub(super) async fn run(
    handles: &Handles,
    workers: usize,
    work: Work,
    window: Duration,
    mut probe: impl AsyncFnMut() -> Result<Counters, Failure>,
) -> Result<Sample, Failure> {
    let warm_up = window / WARM_UP_DIVISOR;
    let from = Instant::now() + warm_up;
    let to = from + window;
    let value = Arc::new(value());
    let tasks: Vec<_> = (0..workers)
        .filter_map(|worker| Some((worker, handles.get(worker % handles.len().max(1))?.clone())))
        .map(|(worker, handle)| {
            let value = value.clone();
            tokio::spawn(async move {
                let mut micros = Vec::new();
                let mut n = worker as u64;
                loop {
                    let began = Instant::now();
                    if began >= to {
                        return Ok::<_, StorageError>(micros);
                    }
                    n = n.wrapping_add(7_919);
                    match work {
                        // Its own bytes each time, as those that come from a socket are.
                        Work::Put => drop(handle.txn(put(key(n % KEYS), value.to_vec())).await?),
                        Work::Get => {
                            let read = RangeRequest::new(KeyRange::key(key(n % KEYS)));
                            if handle.range(read).await?.count != 1 {
                                let detail = "a key that was written is not there".into();
                                return Err(StorageError::Unavailable { detail });
                            }
                        }
                        Work::Renew => {
                            let _ = handle.lease_keep_alive(1 + (n as i64).rem_euclid(LEASES)).await?;
                        }
                    }
                    let ended = Instant::now();
                    if began >= from && ended <= to {
                        micros.push(u64::try_from((ended - began).as_micros()).unwrap_or(u64::MAX));
                    }
                    // An in-process answer may be ready at once: others get their turn too.
                    tokio::task::consume_budget().await;
                }
            })
        })
        .collect();
    tokio::time::sleep_until(from.into()).await;
    let (began, before) = (Instant::now(), probe().await?);
    tokio::time::sleep_until(to.into()).await;
    let (ended, after) = (Instant::now(), probe().await?);
    let mut micros = Vec::new();
    for task in tasks {
        micros.append(&mut joined(task).await??);
    }
    let secs = (ended - began).as_secs_f64().max(1e-9);
    let syncs = (after.syncs - before.syncs).max(0.0);
    let mut sample = Sample {
        rate: micros.len() as f64 / window.as_secs_f64(),
        cpu: (after.cpu_secs - before.cpu_secs) / secs,
        syncs: syncs / secs,
        records_per_sync: if syncs > 0.0 { (after.records - before.records) / syncs } else { 0.0 },
        ..Sample::default()
    };
    sample.latencies(micros);
    Ok(sample)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_median_is_of_each_figure() {
        let sample = |rate, p99_us| Sample {
            rate,
            p99_us,
            more: [("x".to_string(), rate)].into(),
            ..Sample::default()
        };
        let of = Sample::median(&[sample(9.0, 1.0), sample(1.0, 3.0), sample(3.0, 2.0), sample(4.0, 9.0)]);
        assert_eq!((of.rate, of.p99_us, of.more.get("x").copied()), (3.5, 2.5, Some(3.5)));
        assert_eq!(Sample::median(&[]), Sample::default());
    }

    #[test]
    fn keys_of_writers_do_not_collide() {
        let all: std::collections::BTreeSet<String> = (0..KEYS).map(key).collect();
        assert_eq!(all.len() as u64, KEYS);
        assert_eq!(value().len(), VALUE_BYTES);
    }
}
