//! The command line of `full-cluster`.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

use clap::{Parser, ValueEnum};

use crate::daemon::apiserver::Store;

/// How much of the cluster is real.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Mode {
    /// `real` where the machine allows it, else `sim` with the reason.
    Auto,
    /// Machines are namespaces, containers are processes, services are nftables rules.
    Real,
    /// API server, TLS, store and clock are real; nodes are simulated.
    Sim,
}

/// What runs containers.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum RuntimeKind {
    /// The executor of this project: namespaces, no daemon.
    Native,
    /// A containerd daemon.
    Containerd,
    /// A Docker daemon.
    Docker,
}

/// A Kubernetes cluster of three masters, a store and three workers on this machine, in one command.
#[derive(Clone, Debug, Parser)]
#[command(name = "full-cluster", version, max_term_width = 110)]
pub struct Options {
    /// How much of the cluster is real
    #[arg(long, value_enum, default_value_t = Mode::Auto)]
    pub mode: Mode,
    /// Where the objects are: memory, disk:DIR, or etcd:URL[,URL...]
    #[arg(long, value_name = "STORE")]
    pub store: Option<Store>,
    /// What runs containers (with --mode real)
    #[arg(long, value_enum, default_value_t = RuntimeKind::Native)]
    pub runtime: RuntimeKind,
    /// Masters: API server, controllers, scheduler, virtual address
    #[arg(long, default_value_t = 3, value_parser = clap::value_parser!(u16).range(1..=9))]
    pub masters: u16,
    /// Workers
    #[arg(long, default_value_t = 3, value_parser = clap::value_parser!(u16).range(1..=5000))]
    pub nodes: u16,
    /// Share a second virtual address among the workers, as proxy nodes do
    #[arg(long)]
    pub proxy_vip: bool,
    /// Apply a manifest once the cluster is up (may be given several times)
    #[arg(long, value_name = "FILE")]
    pub apply: Vec<PathBuf>,
    /// Load an image from a docker-archive or OCI layout into every node (may be given several times)
    #[arg(long, value_name = "TAR")]
    pub load_image: Vec<PathBuf>,
    /// Walk the acceptance list, print a line for each part, and end
    #[arg(long)]
    pub check: bool,
    /// End after this time, such as 30s, 5m or 1h
    #[arg(long = "for", value_name = "TIME", value_parser = duration)]
    pub run_for: Option<Duration>,
    /// Where the API is served on this machine
    #[arg(long, value_name = "ADDRESS", default_value = "127.0.0.1:6443")]
    pub listen: SocketAddr,
    /// Where to write the kubeconfig
    #[arg(long, value_name = "FILE", default_value = "icp.kubeconfig")]
    pub kubeconfig: PathBuf,
    /// Keep certificates, logs and data here instead of in a temporary directory
    #[arg(long, value_name = "DIR")]
    pub state: Option<PathBuf>,
    /// Write down what the schedulers decide, for sched-replay (with --mode sim; with more masters than one, each has a file
    /// with its name behind this one)
    #[arg(long, value_name = "FILE")]
    pub record: Option<PathBuf>,
    /// Print lines of JSON
    #[arg(long)]
    pub json: bool,
}

/// Parses `30s`, `5m`, `1h`, `250ms`.
fn duration(text: &str) -> Result<Duration, String> {
    let at = text.find(|c: char| !c.is_ascii_digit()).unwrap_or(text.len());
    let (number, unit) = text.split_at(at);
    let number: u64 = number.parse().map_err(|_| format!("{text:?} is not a time such as 30s"))?;
    let millis = match unit {
        "ms" => 1,
        "s" | "" => 1_000,
        "m" => 60_000,
        "h" => 3_600_000,
        _ => return Err(format!("{unit:?} is none of the units ms, s, m, h")),
    };
    Ok(Duration::from_millis(number.saturating_mul(millis)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_command_line_is_consistent() {
        <Options as clap::CommandFactory>::command().debug_assert();
        let parse = |args: &[&str]| Options::try_parse_from([&["full-cluster"], args].concat());
        let options = parse(&["--for", "5m", "--store", "disk:/x", "--nodes", "50"]).unwrap();
        assert_eq!(options.run_for, Some(Duration::from_secs(300)));
        assert_eq!(options.store, Some(Store::Disk("/x".into())));
        for wrong in [["--for", "5 days"], ["--store", "tape"], ["--masters", "0"], ["--listen", "6443"]] {
            assert!(parse(&wrong).is_err(), "{wrong:?}");
        }
    }
}
