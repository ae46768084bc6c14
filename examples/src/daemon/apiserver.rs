//! `icp-apiserver`: an API server over a store of one's choice.

use std::net::{IpAddr, SocketAddr};
use std::path::PathBuf;
use std::sync::Arc;

use icp_core::base::{Duration, Rng};
use icp_core::server::{ApiServer, Clock as _, NodeProxy, Options};
use icp_core::shell::node_proxy::{HttpNodeProxy, NodeProxyConfig};
use icp_core::shell::{SystemClock, SystemEntropy, listener, tls};
use icp_core::storage::Storage;
use icp_store::Memory;
use icp_store::etcd::{Client as EtcdClient, ClientOptions};
use ipnet::IpNet;
use serde::{Deserialize, Serialize};

use super::{DaemonError, Stop, etcd, stopped};
use crate::pki::PkiDir;

/// Where the objects are.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Store {
    /// In the process; they end with it.
    Memory,
    /// In a directory of this machine.
    Disk(PathBuf),
    /// In an etcd cluster, real or `icp-etcd`: the URLs of its members.
    Etcd(Vec<String>),
}

impl std::str::FromStr for Store {
    type Err = String;

    /// `memory`, `disk:DIR` or `etcd:URL[,URL...]`.
    fn from_str(text: &str) -> Result<Self, String> {
        match text.split_once(':') {
            None if text == "memory" => Ok(Self::Memory),
            Some(("disk", dir)) if !dir.is_empty() => Ok(Self::Disk(dir.into())),
            Some(("etcd", urls)) if !urls.is_empty() => {
                Ok(Self::Etcd(urls.split(',').map(str::to_string).collect()))
            }
            _ => Err(format!("{text:?} is none of memory, disk:DIR, etcd:URL[,URL...]")),
        }
    }
}

impl Store {
    /// Opens it. `pki` holds the authority and the client certificate for `https` endpoints.
    ///
    /// # Errors
    /// If the directory is in use or corrupt, or a URL is not understood.
    pub fn open(&self, pki: Option<&PkiDir>, stop: &Stop) -> Result<Arc<dyn Storage>, DaemonError> {
        match self {
            Self::Memory => {
                let memory = Memory::new();
                let (clock, ticking) = (SystemClock, memory.clone());
                let ended = stopped(stop.clone());
                tokio::spawn(async move {
                    tokio::pin!(ended);
                    loop {
                        tokio::select! {
                            () = ended.as_mut() => return,
                            () = tokio::time::sleep(Duration::from_secs(1)) => ticking.tick(clock.now()),
                        }
                    }
                });
                Ok(Arc::new(memory))
            }
            Self::Disk(dir) => Ok(Arc::new(etcd::open(dir)?)),
            Self::Etcd(urls) => {
                let secure = urls.iter().any(|u| u.starts_with("https:"));
                let tls = match pki.filter(|_| secure) {
                    Some(pki) => {
                        Some(tls::client(&pki.etcd_ca_pem()?, Some(&pki.identity("etcd-client")?), &["h2"])?)
                    }
                    None => None,
                };
                let options = ClientOptions { tls, ..ClientOptions::default() };
                let client = EtcdClient::new(urls, options)
                    .map_err(|e| DaemonError::Store { what: urls.join(","), detail: e.to_string() })?;
                Ok(Arc::new(client))
            }
        }
    }
}

/// What an API server is told.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Config {
    /// Where it listens.
    pub listen: SocketAddr,
    /// Where the objects are.
    pub store: Store,
    /// The directory of certificates.
    pub pki: PathBuf,
    /// The addresses of all API servers, for the `kubernetes` service.
    pub advertise: Vec<IpAddr>,
    /// Where ClusterIPs come from.
    pub service_cidr: IpNet,
}

impl Config {
    /// The server of this configuration.
    ///
    /// # Errors
    /// If the store cannot be opened or a certificate cannot be read.
    pub fn server(
        &self,
        storage: Arc<dyn Storage>,
        nodes: Arc<dyn NodeProxy>,
    ) -> Result<ApiServer, DaemonError> {
        let pki = PkiDir::open(&self.pki);
        let options = Options {
            ca_pem: Some(pki.ca_pem()?),
            advertise_addresses: self.advertise.clone(),
            secure_port: self.listen.port(),
            service_cidr: self.service_cidr,
            service_account_key: Some(pki.service_account_key()?),
            require_service_accounts: true,
            ..Options::default()
        };
        Ok(ApiServer::builder(storage)
            .clock(SystemClock)
            .rng(Rng::new(super::seed()))
            .entropy(SystemEntropy::new())
            .nodes(nodes)
            .options(options)
            .build())
    }
}

/// Serves `server` on `socket` with the certificates of `pki` until `stop`.
///
/// # Errors
/// If a certificate cannot be used or the socket breaks.
pub async fn serve(
    socket: tokio::net::TcpListener,
    server: ApiServer,
    pki: &PkiDir,
    stop: Stop,
) -> Result<(), DaemonError> {
    let tls = tls::server(&pki.identity("apiserver")?, Some(&pki.ca_pem()?))?;
    listener::serve(socket, server, Some(tls), listener::Limits::default(), stop)
        .await
        .map_err(DaemonError::io("serving"))
}

/// Runs until `stop`.
///
/// # Errors
/// If the store, the address or a certificate cannot be had.
pub async fn run(config: Config, stop: Stop) -> Result<(), DaemonError> {
    let pki = PkiDir::open(&config.pki);
    let storage = config.store.open(Some(&pki), &stop)?;
    let client = pki.identity("apiserver-kubelet-client")?;
    let kubelets = tls::client(&pki.ca_pem()?, Some(&client), &["http/1.1"])?;
    let nodes = HttpNodeProxy::new(NodeProxyConfig::new(Some(kubelets)));
    let server = config.server(storage, Arc::new(nodes))?;
    let socket = super::listen(config.listen).await?;
    serve(socket, server, &pki, stop).await
}
