//! What the program does as a child of itself: serve a directory, or run one scenario on a store of its own.
#![expect(clippy::disallowed_methods, reason = "a program: it owns its tasks")]

use std::io::BufRead as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

use icp_core::storage::Storage as _;
use icp_store::etcd::server::{ServerOptions, serve};
use icp_store::{Disk, DiskOptions};
use serde::{Deserialize, Serialize};

use super::Failure;
use super::load::{Sample, Work};
use super::process::exec;
use super::subject::{Subject, counters};

/// A scenario on our store in a process of its own.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(super) enum Part {
    /// [`Subject::load`].
    Load { workers: usize, work: Work, window: Duration },
    /// [`Subject::watch`].
    Watch { watchers: usize, events: u64 },
    /// [`Subject::keys`], then [`Subject::stall`]; it answers twice and then waits to be killed.
    Keys { keys: u64, window: Duration },
    /// Opens the store, and answers with the time that took.
    Recover { keys: u64 },
}

/// Whether these are the words of a child; if so, how it ended.
pub(super) fn dispatch(args: &[String]) -> Option<Result<(), Failure>> {
    let [child, role, args @ ..] = args else { return None };
    if child != "child" {
        return None;
    }
    Some(match (role.as_str(), args) {
        ("exec", args) => exec(args),
        ("serve", [data]) => runtime().and_then(|r| r.block_on(server(Path::new(data)))),
        ("part", [part, data]) => runtime().and_then(|r| r.block_on(run(part, PathBuf::from(data)))),
        _ => Err(failed("a child needs a role and its arguments")),
    })
}

fn failed(detail: impl ToString) -> Failure {
    Failure::Child { what: "a child", detail: detail.to_string() }
}

pub(super) fn runtime() -> Result<tokio::runtime::Runtime, Failure> {
    let built = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build();
    built.map_err(failed)
}

fn say(answer: &impl Serialize) -> Result<(), Failure> {
    println!("{}", serde_json::to_string(answer).map_err(failed)?);
    Ok(())
}

fn open(data: &Path) -> Result<Disk, Failure> {
    Disk::open(data, DiskOptions::default()).map_err(failed)
}

/// Serves until its input ends, which it does when the program that started it does.
async fn server(data: &Path) -> Result<(), Failure> {
    let disk = open(data)?;
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.map_err(failed)?;
    say(&listener.local_addr().map_err(failed)?.port())?;
    let served = tokio::spawn(serve(listener, Arc::new(disk.clone()), ServerOptions::default()));
    let told = tokio::task::spawn_blocking(move || {
        for line in std::io::stdin().lock().lines() {
            match line.map_err(failed)?.as_str() {
                "counters" => say(&counters(&disk))?,
                "snapshot" => {
                    let done = tokio::runtime::Handle::current().block_on(disk.snapshot_log());
                    say(&done.map_err(|e| e.to_string()))?;
                }
                other => return Err(failed(format!("it was told {other:?}"))),
            }
        }
        Ok(())
    });
    tokio::select! {
        served = served => Err(failed(match served {
            Ok(Ok(())) => "the server ended".to_string(),
            Ok(Err(e)) => e.to_string(),
            Err(e) => e.to_string(),
        })),
        told = told => told.map_err(failed)?,
    }
}

async fn run(part: &str, data: PathBuf) -> Result<(), Failure> {
    let part: Part = serde_json::from_str(part).map_err(failed)?;
    // If the program that started this one ends, there is nobody to answer.
    std::thread::spawn(|| {
        let _ = std::io::stdin().lock().lines().count();
        std::process::exit(1);
    });
    match part {
        Part::Load { workers, work, window } => {
            say(&Subject::local(&data)?.load(workers, work, window).await?)
        }
        Part::Watch { watchers, events } => say(&Subject::local(&data)?.watch(watchers, events).await?),
        Part::Keys { keys, window } => {
            let mut subject = Subject::local(&data)?;
            say(&subject.keys(keys).await?)?;
            say(&subject.stall(window).await?)?;
            std::future::pending().await
        }
        Part::Recover { keys } => {
            let began = Instant::now();
            let disk = open(&data)?;
            let secs = began.elapsed().as_secs_f64();
            disk.status().await.map_err(failed)?;
            say(&recovered(keys, secs))
        }
    }
}

/// What a recovery of `keys` in `secs` is.
pub(super) fn recovered(keys: u64, secs: f64) -> Sample {
    let recovery = ("recovery, s".to_string(), secs);
    Sample { rate: keys as f64 / secs.max(1e-9), more: [recovery].into(), ..Sample::default() }
}
