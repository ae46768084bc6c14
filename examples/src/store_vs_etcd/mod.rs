//! `store-vs-etcd`: our store, in process and over gRPC, beside a real etcd on the same disk.

mod child;
mod disk;
mod load;
mod process;
mod report;
mod scenarios;
mod subject;

use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::Duration;

use clap::Parser;

use disk::Scratch;
use scenarios::{Sizes, Stores};

/// Measures the store in process and over gRPC beside a real etcd: same disk, same durability, same load.
#[derive(Debug, Parser)]
#[command(name = "store-vs-etcd")]
struct Arguments {
    /// The etcd to compare with; without, $ICP_ETCD or the one in $PATH, and without that our rows alone.
    #[arg(long)]
    etcd: Option<PathBuf>,
    /// Where the data goes, on a disk; without, $TMPDIR or the build's `target` directory.
    #[arg(long)]
    dir: Option<PathBuf>,
    /// Short windows, few keys and watchers.
    #[arg(long)]
    quick: bool,
    /// Prints JSON instead of the table.
    #[arg(long)]
    json: bool,
    /// Only these scenarios.
    #[arg(long, value_delimiter = ',', value_parser = scenarios::NAMES)]
    only: Vec<String>,
}

/// Why there is no table.
#[derive(Debug, thiserror::Error)]
enum Failure {
    /// The directory cannot be used.
    #[error("{path}: {detail}")]
    Directory {
        /// Which.
        path: String,
        /// Why.
        detail: String,
    },
    /// A process did not do what it should.
    #[error("{what}: {detail}")]
    Child {
        /// Which.
        what: &'static str,
        /// What happened.
        detail: String,
    },
    /// A store did not answer well.
    #[error("{what}: {detail}")]
    Store {
        /// Which.
        what: &'static str,
        /// What it said.
        detail: String,
    },
    /// A signal.
    #[error("interrupted")]
    Interrupted,
}

impl From<icp_core::storage::StorageError> for Failure {
    fn from(error: icp_core::storage::StorageError) -> Self {
        Self::Store { what: "a request", detail: error.to_string() }
    }
}

/// Runs the program.
#[must_use]
pub fn main() -> ExitCode {
    let words: Vec<String> = std::env::args().skip(1).collect();
    let done = child::dispatch(&words).unwrap_or_else(|| compare(&Arguments::parse()));
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(e) => {
            eprintln!("store-vs-etcd: {e}");
            ExitCode::FAILURE
        }
    }
}

fn compare(arguments: &Arguments) -> Result<(), Failure> {
    let etcd = find_etcd(arguments.etcd.as_deref())?;
    let parent = arguments.dir.clone().unwrap_or_else(disk::default_parent);
    let scratch = Scratch::new(&parent)?;
    let runtime = child::runtime()?;
    let sizes = if arguments.quick { Sizes::QUICK } else { Sizes::FULL };
    let measured = runtime.block_on(async {
        let mut stores =
            Stores { etcd: etcd.as_ref().map(|(path, _)| path.clone()), scratch: &scratch, sizes };
        tokio::select! {
            rows = scenarios::all(&mut stores, &arguments.only) => rows,
            () = interrupted() => Err(Failure::Interrupted),
        }
    });
    runtime.shutdown_timeout(Duration::from_secs(2));
    let rows = measured?;
    let version =
        etcd.map_or_else(|| "no etcd found".to_string(), |(path, v)| format!("{v} ({})", path.display()));
    if arguments.json {
        let document = serde_json::json!({ "etcd": version, "directory": parent, "rows": rows });
        println!("{document}");
    } else {
        println!("{version}; {} cores; data under {}", cores(), parent.display());
        println!("{}", report::table(&rows));
    }
    Ok(())
}

fn cores() -> usize {
    std::thread::available_parallelism().map_or(1, usize::from)
}

/// The first signal that asks to end.
async fn interrupted() {
    use tokio::signal::unix::{SignalKind, signal};
    let Ok(mut term) = signal(SignalKind::terminate()) else { return std::future::pending().await };
    tokio::select! {
        _ = tokio::signal::ctrl_c() => {}
        _ = term.recv() => {}
    }
}

/// The etcd to compare with, and its version. One that is named must work; one that is not found is told.
fn find_etcd(named: Option<&Path>) -> Result<Option<(PathBuf, String)>, Failure> {
    let named = named.map(Path::to_path_buf).or_else(|| std::env::var_os("ICP_ETCD").map(PathBuf::from));
    let path = named.clone().or_else(|| {
        let dirs = std::env::var_os("PATH").unwrap_or_default();
        std::env::split_paths(&dirs).map(|d| d.join("etcd")).find(|p| p.is_file())
    });
    let Some(path) = path else {
        eprintln!("no etcd found ($ICP_ETCD, $PATH, --etcd): our rows alone");
        return Ok(None);
    };
    let failed =
        |detail: String| Failure::Child { what: "etcd", detail: format!("{}: {detail}", path.display()) };
    let output =
        std::process::Command::new(&path).arg("--version").output().map_err(|e| failed(e.to_string()))?;
    let text = String::from_utf8_lossy(&output.stdout);
    match text.lines().find_map(|l| l.strip_prefix("etcd Version: ")) {
        Some(version) => Ok(Some((path, format!("etcd {version}")))),
        None => Err(failed("it does not say its version".into())),
    }
}
