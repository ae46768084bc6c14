//! The reference daemons: each reads its configuration, wires a part of icp to its shells, and runs until it is told to
//! stop.
//!
//! The logic is in the libraries; what stands here is what a program of your own would contain. A daemon's
//! configuration is one JSON document ([`Role`]), so that a supervisor can write it to a file:
//!
//! ```
//! use examples::daemon::Role;
//! let text = r#"{ "scheduler": { "access": { "endpoints": ["10.77.0.100:6443"], "pki": "/var/lib/icp/pki" },
//!                 "identity": "m1", "leader_election": true } }"#;
//! let role: Role = serde_json::from_str(text).unwrap();
//! assert_eq!(role.name(), "icp-scheduler");
//! ```
#![expect(clippy::disallowed_methods, reason = "programs: they own the clock, the runtime and its tasks")]

pub mod apiserver;
pub mod calico_node;
pub mod controller_manager;
pub mod dns;
pub mod etcd;
pub mod extender;
pub mod kubeconfig;
pub mod kubelet;
pub mod proxy;
pub mod scheduler;
mod serving;
pub mod vip;
mod wait;

use std::io;
use std::path::PathBuf;
use std::sync::Arc;

use icp_core::base::{Duration, Machine};
use icp_core::client::{Client, ClientEffect, ClientEvent};
use icp_core::shell::host::{Host, Mailbox};
use icp_core::shell::{HttpClient, HttpConfig, tls};
use serde::{Deserialize, Serialize};
use tokio::sync::watch;

use crate::pki::{PkiDir, PkiFilesError};

/// Why a daemon ended by itself.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum DaemonError {
    /// Its configuration cannot be read.
    #[error("configuration {path}: {detail}")]
    Config {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        detail: String,
    },
    /// Its address cannot be listened on.
    #[error("listening on {address}: {source}")]
    Listen {
        /// The address.
        address: String,
        /// What the system said.
        source: io::Error,
    },
    /// A certificate is missing or cannot be used.
    #[error(transparent)]
    Pki(#[from] PkiFilesError),
    /// TLS cannot be set up.
    #[error(transparent)]
    Tls(#[from] tls::TlsError),
    /// The store cannot be opened.
    #[error("store {what}: {detail}")]
    Store {
        /// Which.
        what: String,
        /// Why.
        detail: String,
    },
    /// A field of the configuration has a value that cannot be used.
    #[error("{field}: {detail}")]
    Field {
        /// The field.
        field: &'static str,
        /// What is wrong with it.
        detail: String,
    },
    /// The system refused something.
    #[error("{what}: {source}")]
    Io {
        /// What was tried.
        what: String,
        /// What the system said.
        source: io::Error,
    },
}

impl DaemonError {
    pub(crate) fn io(what: impl Into<String>) -> impl FnOnce(io::Error) -> Self {
        let what = what.into();
        move |source| Self::Io { what, source }
    }
}

pub(crate) fn netlink(
    what: &'static str,
) -> impl FnOnce(icp_net::backend::netlink::NetlinkError) -> DaemonError {
    move |e| DaemonError::Io { what: what.into(), source: io::Error::other(e.to_string()) }
}

/// Ends a daemon when it becomes true or its sender is dropped.
pub type Stop = watch::Receiver<bool>;

/// Waits for the end.
pub async fn stopped(mut stop: Stop) {
    drop(stop.wait_for(|on| *on).await);
}

/// How a client reaches the API servers.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Access {
    /// `host:port` of each API server, or of a virtual address.
    pub endpoints: Vec<String>,
    /// The directory of certificates.
    pub pki: PathBuf,
}

impl Access {
    /// A client that shows the certificate `identity`.
    ///
    /// # Errors
    /// If a certificate cannot be read or used.
    pub fn client(&self, identity: &str, user_agent: &str) -> Result<Arc<dyn Client>, DaemonError> {
        Ok(Arc::new(self.http_client(identity, user_agent)?))
    }

    /// The same, as the type that sends raw requests too.
    ///
    /// # Errors
    /// As [`Access::client`].
    pub fn http_client(&self, identity: &str, user_agent: &str) -> Result<HttpClient, DaemonError> {
        self.connect(Some(identity), user_agent)
    }

    /// A client that shows no certificate: it may read what is open to all, such as `/readyz`.
    ///
    /// # Errors
    /// If the authority cannot be read or used.
    pub fn anonymous(&self, user_agent: &str) -> Result<HttpClient, DaemonError> {
        self.connect(None, user_agent)
    }

    fn connect(&self, identity: Option<&str>, user_agent: &str) -> Result<HttpClient, DaemonError> {
        let pki = PkiDir::open(&self.pki);
        let identity = identity.map(|name| pki.identity(name)).transpose()?;
        let tls = tls::client(&pki.ca_pem()?, identity.as_ref(), &["h2"])?;
        Ok(HttpClient::new(HttpConfig {
            endpoints: self.endpoints.clone(),
            tls: Some(tls),
            server_name: Some("kubernetes".into()),
            token: None,
            user_agent: format!("{user_agent}/{}", env!("CARGO_PKG_VERSION")),
        }))
    }
}

/// One daemon with its configuration.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
#[non_exhaustive]
pub enum Role {
    /// The store, serving the etcd v3 API.
    Etcd(etcd::Config),
    /// An API server.
    Apiserver(apiserver::Config),
    /// The controllers.
    ControllerManager(controller_manager::Config),
    /// The scheduler.
    Scheduler(scheduler::Config),
    /// The virtual IP manager.
    Vip(vip::Config),
    /// Cluster DNS.
    Dns(dns::Config),
    /// The node agent.
    Kubelet(kubelet::Config),
    /// Services of a machine.
    Proxy(proxy::Config),
    /// Routes of a machine.
    CalicoNode(calico_node::Config),
}

impl Role {
    /// The names of all programs.
    pub const NAMES: [&str; 9] = [
        "icp-etcd",
        "icp-apiserver",
        "icp-controller-manager",
        "icp-scheduler",
        "icp-kubelet",
        "icp-proxy",
        "icp-dns",
        "icp-vip",
        "icp-calico-node",
    ];

    /// The name of its program.
    #[must_use]
    pub const fn name(&self) -> &'static str {
        match self {
            Self::Etcd(_) => "icp-etcd",
            Self::Apiserver(_) => "icp-apiserver",
            Self::ControllerManager(_) => "icp-controller-manager",
            Self::Scheduler(_) => "icp-scheduler",
            Self::Vip(_) => "icp-vip",
            Self::Dns(_) => "icp-dns",
            Self::Kubelet(_) => "icp-kubelet",
            Self::Proxy(_) => "icp-proxy",
            Self::CalicoNode(_) => "icp-calico-node",
        }
    }

    /// Runs it until `stop`.
    ///
    /// # Errors
    /// What kept it from starting, or ended it.
    pub async fn run(self, stop: Stop) -> Result<(), DaemonError> {
        match self {
            Self::Etcd(config) => etcd::run(config, stop).await,
            Self::Apiserver(config) => apiserver::run(config, stop).await,
            Self::ControllerManager(config) => controller_manager::run(config, stop).await,
            Self::Scheduler(config) => scheduler::run(config, stop).await,
            Self::Vip(config) => vip::run(config, stop).await,
            Self::Dns(config) => dns::run(config, stop).await,
            Self::Kubelet(config) => kubelet::run(config, stop).await,
            Self::Proxy(config) => proxy::run(config, stop).await,
            Self::CalicoNode(config) => calico_node::run(config, stop).await,
        }
    }

    /// The store has a thread of its own that syncs: on few processors one more serves it best, since calls then never
    /// change threads.
    fn runtime(&self) -> tokio::runtime::Builder {
        let processors = std::thread::available_parallelism().map_or(1, usize::from);
        let threads = match self {
            Self::Etcd(_) if processors <= 2 => return tokio::runtime::Builder::new_current_thread(),
            Self::Etcd(_) => processors / 2,
            _ => 2,
        };
        let mut builder = tokio::runtime::Builder::new_multi_thread();
        builder.worker_threads(threads);
        builder
    }

    /// Runs it on a runtime of its own until SIGTERM or SIGINT.
    ///
    /// # Errors
    /// As [`Role::run`].
    pub fn run_to_end(self) -> Result<(), DaemonError> {
        let runtime = self.runtime().enable_all().build().map_err(DaemonError::io("starting a runtime"))?;
        runtime.block_on(async move {
            let (tell, stop) = watch::channel(false);
            let name = self.name();
            let mut term = tokio::signal::unix::signal(tokio::signal::unix::SignalKind::terminate())
                .map_err(DaemonError::io("signal handler"))?;
            let running = self.run(stop);
            tokio::pin!(running);
            tokio::select! {
                done = running.as_mut() => return done,
                _ = term.recv() => {}
                _ = tokio::signal::ctrl_c() => {}
            }
            tell.send_replace(true);
            // A daemon that does not end in time is left behind; its process ends here.
            let bound = Duration::from_secs(5);
            tokio::time::timeout(bound, running).await.unwrap_or_else(|_| {
                eprintln!("{name}: did not end within {} s", bound.as_secs());
                Ok(())
            })
        })
    }
}

/// Reads a daemon's configuration. A KubeSchedulerConfiguration, in YAML or JSON, is one for the scheduler: it reaches the
/// API servers by its `clientConnection.kubeconfig`.
///
/// # Errors
/// [`DaemonError::Config`].
pub fn read(path: &std::path::Path) -> Result<Role, DaemonError> {
    let fail = |detail: String| DaemonError::Config { path: path.into(), detail };
    let text = std::fs::read_to_string(path).map_err(|e| fail(e.to_string()))?;
    if let Ok(document) = serde_saphyr::from_str::<serde_json::Value>(&text)
        && document.get("kind").and_then(serde_json::Value::as_str) == Some(icp_sched::config::KIND)
    {
        return Ok(Role::Scheduler(scheduler::Config::of_file(path)));
    }
    serde_json::from_str(&text).map_err(|e| fail(e.to_string()))
}

/// Listens on an address.
pub(crate) async fn listen(address: std::net::SocketAddr) -> Result<tokio::net::TcpListener, DaemonError> {
    tokio::net::TcpListener::bind(address)
        .await
        .map_err(|source| DaemonError::Listen { address: address.to_string(), source })
}

/// Runs a machine that is one of several candidates: it starts, and gives its Lease back before the end, so that
/// another leads at once.
async fn drive_candidate<M>(
    machine: M,
    client: Arc<dyn Client>,
    stop: Stop,
    ends: (M::Event, M::Event),
    log: impl Fn(M::Effect),
) where
    M: Machine + Send,
    M::Event: From<ClientEvent> + Send + 'static,
    M::Effect: Send,
    ClientEffect: TryFrom<M::Effect, Error = M::Effect>,
{
    drive_beside(machine, client, stop, ends, log, |_| std::future::pending()).await;
}

/// The same, beside something that sends events to the machine and ends with it.
async fn drive_beside<M, F>(
    machine: M,
    client: Arc<dyn Client>,
    stop: Stop,
    (start, end): (M::Event, M::Event),
    log: impl Fn(M::Effect),
    beside: impl FnOnce(Mailbox<M::Event>) -> F,
) where
    F: Future<Output = ()>,
    M: Machine + Send,
    M::Event: From<ClientEvent> + Send + 'static,
    M::Effect: Send,
    ClientEffect: TryFrom<M::Effect, Error = M::Effect>,
{
    let host = Host::new(machine, client);
    let mailbox = host.mailbox();
    let beside = beside(host.mailbox());
    let (tell, ended) = watch::channel(false);
    let ending = async move {
        mailbox.send(start).await;
        stopped(stop).await;
        mailbox.send(end).await;
        tokio::time::sleep(Duration::from_millis(300)).await;
        tell.send_replace(true);
    };
    let running = host.stop_when(ended).run(move |effect, _| match ClientEffect::try_from(effect) {
        Ok(effect) => Some(effect),
        Err(other) => {
            log(other);
            None
        }
    });
    tokio::select! {
        _ = async { tokio::join!(ending, running) } => {}
        () = async {
            beside.await;
            std::future::pending().await
        } => {}
    }
}

/// A seed from the operating system's generator, for names, jitter and tie-breaks.
#[must_use]
pub fn seed() -> u64 {
    let mut bytes = [0; 8];
    icp_core::base::Entropy::fill(&mut icp_core::shell::SystemEntropy::new(), &mut bytes);
    u64::from_le_bytes(bytes)
}
