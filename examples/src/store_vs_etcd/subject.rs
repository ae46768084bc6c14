//! A store under test: the same calls for our store in this process and for a server.
#![expect(clippy::disallowed_methods, reason = "a program: it owns the clock and its tasks")]

use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::BufMut as _;
use futures_util::{StreamExt as _, TryStreamExt as _, stream};
use icp_core::storage::{KeyRange, Storage, StorageError, WatchRequest, WatchStream};
use icp_store::etcd::{Client, ClientOptions};
use icp_store::{Disk, DiskOptions};

use super::Failure;
use super::load::{self, Handles, Sample, VALUE_BYTES, Work, joined, key, put};
use super::process::{Counters, Server, cpu_secs, status_bytes};

/// How long all watchers may take for all events.
const DELIVERY_TIMEOUT: Duration = Duration::from_secs(120);
/// Watches that are begun at a time.
const BEGUN_AT_A_TIME: usize = 64;

/// A store under test.
#[derive(Debug)]
pub(super) enum Subject {
    /// Our store in this process.
    Local(Disk),
    /// A server, and `etcdctl` if it is etcd and that was found.
    Remote(Box<Server>, Option<PathBuf>),
}

impl Subject {
    /// Our store in this process, on the directory `data`.
    pub(super) fn local(data: &Path) -> Result<Self, Failure> {
        let opened = Disk::open(data, DiskOptions::default());
        opened.map(Self::Local).map_err(|e| Failure::Store { what: "our store", detail: e.to_string() })
    }

    fn what(&self) -> &'static str {
        match self {
            Self::Local(_) => "our store",
            Self::Remote(..) => "the server",
        }
    }

    fn failed(&self, error: &StorageError) -> Failure {
        Failure::Store { what: self.what(), detail: error.to_string() }
    }

    fn pid(&self) -> u32 {
        match self {
            Self::Local(_) => std::process::id(),
            Self::Remote(server, _) => server.process.pid(),
        }
    }

    /// Handles for `workers`: one connection for each ten, as etcd's own benchmarks have it.
    pub(super) fn handles(&self, workers: usize) -> Result<Handles, Failure> {
        let connections = workers.div_ceil(10);
        let one = |_| -> Result<Arc<dyn Storage>, StorageError> {
            Ok(match self {
                Self::Local(disk) => Arc::new(disk.clone()),
                Self::Remote(server, _) => {
                    let options = ClientOptions {
                        request_timeout: Duration::from_secs(60),
                        ..ClientOptions::default()
                    };
                    Arc::new(Client::new(&[&server.url], options)?)
                }
            })
        };
        (0..connections.max(1)).map(one).collect::<Result<_, _>>().map_err(|e| self.failed(&e))
    }

    pub(super) async fn counters(&mut self) -> Result<Counters, Failure> {
        match self {
            Self::Local(disk) => Ok(counters(disk)),
            Self::Remote(server, _) => server.counters().await,
        }
    }

    /// If the store is gone, that is the failure; else what was seen.
    pub(super) fn explain(&mut self, seen: Failure) -> Failure {
        match self {
            Self::Local(_) => seen,
            Self::Remote(server, _) => server.process.check().err().unwrap_or(seen),
        }
    }

    /// Forgets all history.
    async fn compact(&self) -> Result<(), Failure> {
        let handles = self.handles(1)?;
        for handle in &handles {
            let compacted = match handle.status().await {
                Ok(status) => handle.compact(status.revision).await,
                Err(e) => Err(e),
            };
            match compacted {
                Ok(()) | Err(StorageError::Compacted { .. }) => {}
                Err(e) => return Err(self.failed(&e)),
            }
        }
        Ok(())
    }

    /// A load of `workers` for `window`.
    pub(super) async fn load(
        &mut self,
        workers: usize,
        work: Work,
        window: Duration,
    ) -> Result<Sample, Failure> {
        let handles = self.handles(workers)?;
        load::prepare(&handles, work).await.map_err(|e| self.failed(&e))?;
        let sample = load::run(&handles, workers, work, window, async || self.counters().await).await?;
        self.compact().await?;
        Ok(sample)
    }

    /// `watchers` on one prefix, and `events` puts under it.
    pub(super) async fn watch(&mut self, watchers: usize, events: u64) -> Result<Sample, Failure> {
        let handles = self.handles(watchers.div_ceil(10))?;
        load::fill(&handles, 100).await.map_err(|e| self.failed(&e))?;
        let before = status_bytes(self.pid(), "VmRSS");
        let begin = |n: usize| {
            let handle = handles.get(n % handles.len()).cloned();
            async move {
                let request = WatchRequest::new(KeyRange::prefix("/registry/pods/"), 0);
                match handle {
                    Some(handle) => handle.watch(request).await,
                    None => Err(StorageError::Unimplemented("a watch without a handle")),
                }
            }
        };
        let begun = stream::iter(0..watchers).map(begin).buffer_unordered(BEGUN_AT_A_TIME);
        let streams: Vec<WatchStream> = begun.try_collect().await.map_err(|e| self.failed(&e))?;
        let idle = status_bytes(self.pid(), "VmRSS");
        let (base, counted) = (Instant::now(), self.counters().await?);
        let tasks: Vec<_> = streams.into_iter().map(|s| tokio::spawn(follow(s, events, base))).collect();
        let writer = handles.first().cloned();
        let began = Instant::now();
        for n in 0..events {
            let Some(writer) = &writer else { break };
            let mut value = Vec::with_capacity(VALUE_BYTES);
            value.put_u64(micros(base));
            value.resize(VALUE_BYTES, b'x');
            writer.txn(put(key(n % 100), value)).await.map_err(|e| self.failed(&e))?;
        }
        let all = async {
            let mut latencies = Vec::new();
            for task in tasks {
                latencies.append(&mut joined(task).await??);
            }
            Ok::<_, StorageError>(latencies)
        };
        let Ok(latencies) = tokio::time::timeout(DELIVERY_TIMEOUT, all).await else {
            let detail = format!("not all events were delivered in {DELIVERY_TIMEOUT:?}");
            return Err(Failure::Store { what: self.what(), detail });
        };
        let latencies = latencies.map_err(|e| self.failed(&e))?;
        let secs = began.elapsed().as_secs_f64();
        let after = self.counters().await?;
        let busy = status_bytes(self.pid(), "VmRSS");
        let each = |bytes: f64| (bytes - before).max(0.0) / watchers as f64;
        let mut sample = Sample {
            rate: latencies.len() as f64 / secs,
            cpu: (after.cpu_secs - counted.cpu_secs) / secs,
            more: [("bytes per watcher, idle".to_string(), each(idle)), ("after".to_string(), each(busy))]
                .into(),
            ..Sample::default()
        };
        sample.latencies(latencies);
        Ok(sample)
    }

    /// Fills the store with `keys`; says how much memory they take.
    pub(super) async fn keys(&mut self, keys: u64) -> Result<Sample, Failure> {
        let handles = self.handles(160)?;
        let (began, counted) = (Instant::now(), self.counters().await?);
        load::fill(&handles, keys).await.map_err(|e| self.failed(&e))?;
        let secs = began.elapsed().as_secs_f64();
        let after = self.counters().await?;
        let data = (keys * (key(0).len() + VALUE_BYTES) as u64) as f64;
        Ok(Sample {
            rate: keys as f64 / secs,
            cpu: (after.cpu_secs - counted.cpu_secs) / secs,
            more: [("resident / data".to_string(), status_bytes(self.pid(), "VmRSS") / data)].into(),
            ..Sample::default()
        })
    }

    /// Writes with 64 workers, without and with a snapshot beside them: the longest write is how long they stood.
    pub(super) async fn stall(&mut self, window: Duration) -> Result<Sample, Failure> {
        let handles = self.handles(64)?;
        let quiet = load::run(&handles, 64, Work::Put, window, async || self.counters().await).await?;
        self.compact().await?;
        let (mut first, mut snapshot_secs) = (true, 0.0);
        let mut beside = load::run(&handles, 64, Work::Put, window, async || {
            let counted = self.counters().await?;
            if core::mem::take(&mut first) {
                let began = Instant::now();
                self.snapshot().await?;
                snapshot_secs = began.elapsed().as_secs_f64();
            }
            Ok(counted)
        })
        .await?;
        self.compact().await?;
        beside.more.insert("longest write without, ms".into(), quiet.max_us / 1e3);
        beside.more.insert("snapshot, s".into(), snapshot_secs);
        Ok(beside)
    }

    async fn snapshot(&mut self) -> Result<(), Failure> {
        let failed = |detail: String| Failure::Store { what: "the snapshot", detail };
        match self {
            Self::Local(disk) => disk.snapshot_log().await.map_err(|e| failed(e.to_string())),
            Self::Remote(server, Some(etcdctl)) => {
                let file =
                    std::env::temp_dir().join(format!("store-vs-etcd-{}.snapshot", std::process::id()));
                let saved = tokio::process::Command::new(etcdctl)
                    .env("ETCDCTL_API", "3")
                    .args(["--endpoints", &server.url, "--command-timeout", "300s", "snapshot", "save"])
                    .arg(&file)
                    .stdin(Stdio::null())
                    .stdout(Stdio::null())
                    .stderr(Stdio::null())
                    .kill_on_drop(true)
                    .status()
                    .await;
                let _ = std::fs::remove_file(&file);
                match saved {
                    Ok(status) if status.success() => Ok(()),
                    Ok(status) => Err(failed(format!("etcdctl: {status}"))),
                    Err(e) => Err(failed(format!("etcdctl: {e}"))),
                }
            }
            Self::Remote(server, None) => {
                server.process.tell("snapshot").await?;
                server.process.answer::<Result<(), String>>().await?.map_err(failed)
            }
        }
    }
}

/// The counters of a store in this process.
pub(super) fn counters(disk: &Disk) -> Counters {
    let stats = disk.stats();
    let cpu_secs = cpu_secs(std::process::id());
    Counters { cpu_secs, syncs: stats.syncs as f64, records: stats.entries as f64 }
}

fn micros(since: Instant) -> u64 {
    u64::try_from(since.elapsed().as_micros()).unwrap_or(u64::MAX)
}

/// Reads a watch until it has seen `events`; returns how long each took from before its put.
async fn follow(mut watch: WatchStream, events: u64, base: Instant) -> Result<Vec<u64>, StorageError> {
    let mut latencies = Vec::new();
    while (latencies.len() as u64) < events {
        let Some(batch) = watch.next().await else {
            return Err(StorageError::Unavailable { detail: "a watch ended".into() });
        };
        let now = micros(base);
        for event in batch?.events {
            let sent: [u8; 8] = event.kv.value.get(..8).and_then(|v| v.try_into().ok()).unwrap_or_default();
            latencies.push(now.saturating_sub(u64::from_be_bytes(sent)));
        }
        tokio::task::consume_budget().await;
    }
    Ok(latencies)
}
