//! The scenarios, and the order in which the stores go through them.
#![expect(clippy::disallowed_methods, reason = "a program: it waits")]

use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use icp_core::storage::{KeyRange, RangeRequest};

use super::child::{Part, recovered};
use super::disk::{self, Scratch};
use super::load::{KEYS, Sample, Work};
use super::process::{Process, Server};
use super::report::{ETCD, Row};
use super::subject::Subject;
use super::{Failure, load};

/// What can be asked for alone.
pub(super) const NAMES: [&str; 6] = ["disk", "writes", "reads", "leases", "watch", "keys"];

const LOCAL: &str = "in process";
const GRPC: &str = "over gRPC";

/// How much is done.
#[derive(Clone, Copy, Debug)]
pub(super) struct Sizes {
    window: Duration,
    /// Rounds of a load; every second one goes through the stores backwards.
    rounds: usize,
    watchers: usize,
    events: u64,
    keys: u64,
    stall_window: Duration,
}

impl Sizes {
    pub(super) const FULL: Self = Self {
        window: Duration::from_secs(3),
        rounds: 4,
        watchers: 10_000,
        events: 50,
        keys: 1_000_000,
        stall_window: Duration::from_secs(15),
    };
    pub(super) const QUICK: Self = Self {
        window: Duration::from_millis(800),
        rounds: 2,
        watchers: 1_000,
        events: 20,
        keys: 50_000,
        stall_window: Duration::from_secs(2),
    };
}

/// Where the stores come from.
#[derive(Debug)]
pub(super) struct Stores<'a> {
    /// The program of etcd.
    pub(super) etcd: Option<PathBuf>,
    pub(super) scratch: &'a Scratch,
    pub(super) sizes: Sizes,
}

impl Stores<'_> {
    /// The servers to measure, each on an empty directory, with the directory.
    async fn servers(&self, name: &str) -> Result<Vec<(&'static str, Subject, PathBuf)>, Failure> {
        let data = self.scratch.sub(&format!("{name}-ours"))?;
        let mut servers = vec![(GRPC, Subject::Remote(Box::new(Server::ours(&data).await?), None), data)];
        if let Some(program) = &self.etcd {
            let data = self.scratch.sub(&format!("{name}-etcd"))?;
            let server = Server::etcd(program, &data).await?;
            servers.push((ETCD, Subject::Remote(Box::new(server), etcdctl(program)), data));
        }
        Ok(servers)
    }

    /// Our store in a process of its own that does `part`.
    fn local(&self, part: &Part, data: &Path) -> Result<Process, Failure> {
        let part = serde_json::to_string(part)
            .map_err(|e| Failure::Child { what: "our store", detail: e.to_string() })?;
        let log = self.scratch.path().join("part.log");
        Process::role("our store", "part", &[&part, &data.to_string_lossy()], &log)
    }
}

/// `etcdctl` beside `etcd`.
fn etcdctl(etcd: &Path) -> Option<PathBuf> {
    Some(etcd.with_file_name("etcdctl")).filter(|p| p.is_file())
}

/// Runs the scenarios that `only` names, or all.
pub(super) async fn all(stores: &mut Stores<'_>, only: &[String]) -> Result<Vec<Row>, Failure> {
    let wanted = |name: &str| only.is_empty() || only.iter().any(|o| o == name);
    let mut rows = Vec::new();
    if wanted("disk") {
        let window = stores.sizes.window;
        let mut limit = Vec::new();
        for (name, bytes) in [("1 KiB", 1_024), ("64 KiB", 65_536), ("1 MiB", 1 << 20)] {
            limit.push((name, Ok(disk::limit(stores.scratch, bytes, window)?)));
        }
        rows.push(Row { scenario: "write + fdatasync by itself, the disk's limit".into(), stores: limit });
    }
    for (name, work, what) in [
        ("writes", Work::Put, "durable puts of 1 KiB, writers"),
        ("reads", Work::Get, "linearizable reads of one key, readers"),
        ("leases", Work::Renew, "lease renewals, clients"),
    ] {
        if wanted(name) {
            rows.append(&mut loads(stores, name, work, what).await?);
        }
    }
    if wanted("watch") {
        rows.push(watch(stores).await?);
    }
    if wanted("keys") {
        rows.append(&mut keys(stores).await?);
    }
    Ok(rows)
}

/// A load with few and many clients, in rounds that go through the stores there and back.
async fn loads(stores: &Stores<'_>, name: &str, work: Work, what: &str) -> Result<Vec<Row>, Failure> {
    let mut servers = stores.servers(name).await?;
    let Sizes { window, rounds, .. } = stores.sizes;
    let mut rows = Vec::new();
    for workers in [1, 64, 1_000] {
        let mut samples = vec![(LOCAL, Vec::new())];
        samples.extend(servers.iter().map(|(name, ..)| (*name, Vec::new())));
        for round in 0..rounds {
            let there: Vec<usize> = (0..samples.len()).collect();
            let order: Vec<usize> = if round % 2 == 0 { there } else { there.into_iter().rev().collect() };
            for at in order {
                progress(&format!("{what} {workers}, round {} of {rounds}", round + 1));
                let sample = match at.checked_sub(1).and_then(|s| servers.get_mut(s)) {
                    None => {
                        let data = stores.scratch.sub("local")?;
                        let mut part = stores.local(&Part::Load { workers, work, window }, &data)?;
                        part.answer().await?
                    }
                    Some((_, server, _)) => match server.load(workers, work, window).await {
                        Ok(sample) => sample,
                        Err(e) => return Err(server.explain(e)),
                    },
                };
                if let Some((_, of)) = samples.get_mut(at) {
                    of.push(sample);
                }
                // Compaction and write-back of the one before are not the next one's cost.
                tokio::time::sleep(window / 4).await;
            }
        }
        let stores = samples.into_iter().map(|(name, of)| (name, Ok(Sample::median(&of)))).collect();
        rows.push(Row { scenario: format!("{what}: {workers}"), stores });
    }
    Ok(rows)
}

async fn watch(stores: &Stores<'_>) -> Result<Row, Failure> {
    let Sizes { watchers, events, .. } = stores.sizes;
    let what = format!("events to {watchers} watchers of one prefix");
    progress(&what);
    let data = stores.scratch.sub("local")?;
    let local: Sample = stores.local(&Part::Watch { watchers, events }, &data)?.answer().await?;
    let mut row = Row { scenario: format!("{what}, deliveries"), stores: vec![(LOCAL, Ok(local))] };
    for (name, mut server, data) in stores.servers("watch").await? {
        let seen = match server.watch(watchers, events).await {
            Ok(sample) => Ok(sample),
            // Not every server carries so many.
            Err(e @ Failure::Store { .. }) => match server.explain(e) {
                e @ Failure::Store { .. } => Err(e.to_string()),
                gone => return Err(gone),
            },
            Err(e) => return Err(e),
        };
        row.stores.push((name, seen));
        drop(server);
        stores.scratch.discard(&data);
    }
    Ok(row)
}

/// Many keys: memory, a snapshot under writes, recovery after `kill -9`. One store after the other.
async fn keys(stores: &Stores<'_>) -> Result<Vec<Row>, Failure> {
    let Sizes { keys, stall_window: window, .. } = stores.sizes;
    let mut rows = [
        format!("{keys} keys of 1 KiB, put 100 in a transaction"),
        "64 writers beside a snapshot of them".to_string(),
        "recovery of them after kill -9, keys".to_string(),
    ]
    .map(|scenario| Row { scenario, stores: Vec::new() });
    let mut add = |name, samples: [Sample; 3]| {
        for (row, sample) in rows.iter_mut().zip(samples) {
            row.stores.push((name, Ok(sample)));
        }
    };

    progress(&format!("{keys} keys, {LOCAL}"));
    let data = stores.scratch.sub("local")?;
    let mut part = stores.local(&Part::Keys { keys, window }, &data)?;
    let (filled, stalled) = (part.answer().await?, part.answer().await?);
    part.kill();
    let again = stores.local(&Part::Recover { keys }, &data)?.answer().await?;
    add(LOCAL, [filled, stalled, again]);
    stores.scratch.discard(&data);

    // Both servers are begun, and one of them waits: an idle one costs nothing that is seen.
    for (name, mut server, data) in stores.servers("keys").await? {
        progress(&format!("{keys} keys, {name}"));
        let filled = server.keys(keys).await.map_err(|e| server.explain(e))?;
        let stalled = server.stall(window).await.map_err(|e| server.explain(e))?;
        if let Subject::Remote(server, _) = &mut server {
            server.process.kill();
        }
        let began = Instant::now();
        let again = match (&stores.etcd, name) {
            (Some(program), ETCD) => Server::etcd(program, &data).await?,
            _ => Server::ours(&data).await?,
        };
        let again = Subject::Remote(Box::new(again), None);
        let read = RangeRequest::new(KeyRange::key(load::key(KEYS - 1)));
        for handle in again.handles(1)? {
            if handle.range(read.clone()).await?.count != 1 {
                let detail = "a key that was written is not there after the restart".into();
                return Err(Failure::Store { what: name, detail });
            }
        }
        let secs = began.elapsed().as_secs_f64();
        add(name, [filled, stalled, recovered(keys, secs)]);
        drop((server, again));
        stores.scratch.discard(&data);
    }
    Ok(rows.into())
}

/// Says on the error stream what goes on.
fn progress(what: &str) {
    eprintln!("{what} ...");
}
