//! The cluster of `full-cluster`: its parts, what it shows, and its acceptance list.
#![expect(clippy::disallowed_methods, reason = "a program: it owns the clock, the runtime and its tasks")]

pub mod api;
pub mod check;
pub mod options;
pub mod real;
pub mod report;
pub mod sim;
pub mod view;

use std::os::unix::fs::DirBuilderExt as _;
use std::path::{Path, PathBuf};
use std::time::Duration;

use api::{Api, ApiFailure};
use options::{Mode, Options};
use report::Report;

use crate::daemon::DaemonError;

/// Names that are tried for a fresh temporary directory.
const STATE_NAMES_MAX: u32 = 100;

/// Why the cluster does not come up, or does not go on.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ClusterError {
    /// The address of the API is taken.
    #[error(
        "{address} is in use by another program; choose another address with --listen, such as --listen 127.0.0.1:0"
    )]
    PortInUse {
        /// The address.
        address: std::net::SocketAddr,
    },
    /// A part did not start.
    #[error(transparent)]
    Daemon(#[from] DaemonError),
    /// The API refused something.
    #[error(transparent)]
    Api(#[from] ApiFailure),
    /// A file could not be read or written.
    #[error("{path}: {source}")]
    File {
        /// The file.
        path: PathBuf,
        /// What the system said.
        source: std::io::Error,
    },
    /// What was asked for is not built.
    #[error("not yet: {0}")]
    NotYet(String),
    /// What was asked for cannot be had on this machine.
    #[error("{0}")]
    Unsupported(String),
}

impl From<crate::pki::PkiFilesError> for ClusterError {
    fn from(e: crate::pki::PkiFilesError) -> Self {
        Self::Daemon(e.into())
    }
}

pub(crate) fn at(path: &Path) -> impl FnOnce(std::io::Error) -> ClusterError + '_ {
    move |source| ClusterError::File { path: path.into(), source }
}

/// A directory that goes with its owner, unless the user named it.
#[derive(Debug)]
pub struct StateDir {
    path: PathBuf,
    keep: bool,
}

impl StateDir {
    /// The directory of `options`, or a fresh temporary one. Only its owner may look into what is made.
    ///
    /// # Errors
    /// If it cannot be made.
    pub fn open(options: &Options) -> Result<Self, ClusterError> {
        let private = |recursive: bool, path: &Path| {
            std::fs::DirBuilder::new().recursive(recursive).mode(0o700).create(path)
        };
        let (path, keep) = match &options.state {
            Some(path) => {
                private(true, path).map_err(at(path))?;
                (path.clone(), true)
            }
            None => {
                // Never a directory that is there already: in a shared /tmp it may be somebody else's.
                let name = |n: u32| std::env::temp_dir().join(format!("icp-{}-{n}", std::process::id()));
                let mut n = 0;
                loop {
                    match private(false, &name(n)) {
                        Ok(()) => break (name(n), false),
                        Err(e) if e.kind() == std::io::ErrorKind::AlreadyExists && n < STATE_NAMES_MAX => {
                            n += 1
                        }
                        Err(e) => return Err(at(&name(n))(e)),
                    }
                }
            }
        };
        let path = path.canonicalize().map_err(at(&path))?;
        Ok(Self { path, keep })
    }

    /// The path.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.path
    }
}

impl Drop for StateDir {
    fn drop(&mut self) {
        if !self.keep {
            // What cannot be removed stays in the temporary directory, as any program's rest would.
            let _ = std::fs::remove_dir_all(&self.path);
        }
    }
}

/// Listens where the API shall be served, before anything else is made.
///
/// # Errors
/// [`ClusterError::PortInUse`] in one line, with what to do.
pub fn bind(options: &Options) -> Result<std::net::TcpListener, ClusterError> {
    let listener = std::net::TcpListener::bind(options.listen).map_err(|e| match e.kind() {
        std::io::ErrorKind::AddrInUse => ClusterError::PortInUse { address: options.listen },
        _ => DaemonError::Listen { address: options.listen.to_string(), source: e }.into(),
    })?;
    Ok(listener)
}

/// Runs the cluster as `options` say; true if everything that was asked for went well.
///
/// # Errors
/// In one line, what failed and what to do.
pub fn run(options: &Options) -> Result<bool, ClusterError> {
    let report = Report::new(options.json);
    let manifests = read_manifests(options)?;
    for image in &options.load_image {
        std::fs::metadata(image).map_err(at(image))?;
    }
    let listener = bind(options)?;
    let mode = match options.mode {
        Mode::Auto => match crate::lab::probe() {
            Ok(()) => Mode::Real,
            Err(e) => {
                report.line("mode", &format!("sim, because real machines cannot be had here: {e}"));
                Mode::Sim
            }
        },
        mode => mode,
    };
    if mode == Mode::Real {
        return real::run(options, listener, &manifests, &report);
    }
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .build()
        .map_err(DaemonError::io("starting a runtime"))?;
    let done = runtime.block_on(sim::run(options, listener, &manifests, &report));
    runtime.shutdown_timeout(Duration::from_secs(2));
    done
}

/// A file of `--apply`.
#[derive(Debug)]
pub struct Manifest {
    path: PathBuf,
    documents: Vec<serde_json::Value>,
}

/// Reads the files of `--apply`, before anything is made.
fn read_manifests(options: &Options) -> Result<Vec<Manifest>, ClusterError> {
    let read = |path: &PathBuf| {
        let text = std::fs::read_to_string(path).map_err(at(path))?;
        let documents = api::documents(&text).map_err(|e| {
            let why = e.to_string();
            ClusterError::Unsupported(format!("{}: {}", path.display(), why.lines().next().unwrap_or("")))
        })?;
        Ok(Manifest { path: path.clone(), documents })
    };
    options.apply.iter().map(read).collect()
}

/// Applies manifests.
///
/// # Errors
/// The first that fails.
pub async fn apply_manifests(manifests: &[Manifest], api: &Api, report: &Report) -> Result<(), ClusterError> {
    for Manifest { path, documents } in manifests {
        for document in documents {
            api.apply(document.clone(), "default").await?;
        }
        report.line("apply", &format!("{} objects of {}", documents.len(), path.display()));
    }
    Ok(())
}

/// Shows the cluster until the time of `--for` is over or Ctrl-C.
pub async fn watch(options: &Options, api: &Api, report: &Report) {
    let end = async {
        match options.run_for {
            Some(time) => tokio::time::sleep(time.saturating_sub(report.elapsed())).await,
            None => std::future::pending().await,
        }
    };
    let mut term = tokio::signal::unix::signal(tokio::signal::unix::SignalKind::terminate()).ok();
    let terminated = async {
        match &mut term {
            Some(term) => drop(term.recv().await),
            None => std::future::pending().await,
        }
    };
    tokio::select! {
        () = view::show(api, report) => {}
        () = end => {}
        () = terminated => {}
        _ = tokio::signal::ctrl_c() => {}
    }
    report.line("end", "stopping");
}

/// What the certificate of the API servers names: loopback, `addresses`, and the `kubernetes` service.
pub(crate) fn apiserver_names(addresses: &[std::net::IpAddr]) -> Vec<String> {
    let mut names = icp_core::shell::listener::service_names("cluster.local");
    names.extend(["127.0.0.1".into(), "::1".into(), "10.96.0.1".into()]);
    names.extend(addresses.iter().map(ToString::to_string));
    names.sort();
    names.dedup();
    names
}

/// Waits until `nodes` nodes are ready.
pub(crate) async fn wait_ready(api: &Api, nodes: usize, report: &Report) -> Result<(), ClusterError> {
    let limit = Duration::from_secs(60);
    let ready = api
        .wait("all nodes ready", limit, async |api| {
            let all = api.list(&icp_core::api::resources::NODES, "", "").await?;
            let ready = all.iter().filter(|n| view::condition(n, "Ready")).count();
            Ok(if ready >= nodes { Ok(ready) } else { Err(format!("{ready} of {nodes} ready")) })
        })
        .await?;
    report.line("ready", &format!("{ready} nodes"));
    report.figure("time to ready", &serde_json::json!(report.elapsed().as_millis() as u64), "ms");
    Ok(())
}
