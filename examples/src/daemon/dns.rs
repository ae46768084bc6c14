//! `icp-dns`: cluster DNS on one machine.

use std::net::SocketAddr;

use icp_core::shell::SystemEntropy;
use icp_core::shell::host::Host;
use icp_net::backend::dns::{DnsServer, SnapshotCell, serve};
use icp_net::dns::{DnsConfig, DnsEffect, DnsMachine, ForwardConfig};
use serde::{Deserialize, Serialize};
use tokio::net::UdpSocket;

use super::{Access, DaemonError, Stop, stopped};

/// What cluster DNS is told.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Config {
    /// How the API servers are reached.
    pub access: Access,
    /// Where it listens, over UDP and TCP.
    pub listen: SocketAddr,
    /// The domain of the cluster, such as `cluster.local`.
    pub domain: String,
    /// Where other names are asked for; with none they are refused.
    pub upstreams: Vec<SocketAddr>,
}

/// Runs until `stop`.
///
/// # Errors
/// If the address or a certificate cannot be had.
pub async fn run(config: Config, stop: Stop) -> Result<(), DaemonError> {
    let client = config.access.client("dns", "coredns")?;
    let domain = config
        .domain
        .parse()
        .map_err(|e| DaemonError::Field { field: "domain", detail: format!("{:?}: {e}", config.domain) })?;
    let listening = |source| DaemonError::Listen { address: config.listen.to_string(), source };
    let udp = UdpSocket::bind(config.listen).await.map_err(listening)?;
    let tcp = super::listen(config.listen).await?;
    let machine =
        DnsMachine::new(DnsConfig { nameservers: vec![config.listen.ip()], ..DnsConfig::new(domain) });
    let cell = SnapshotCell::new(machine.snapshot().clone());
    let server = DnsServer::new(cell.clone(), ForwardConfig::new(config.upstreams.clone()));
    let following = Host::new(machine, client).stop_when(stop.clone()).run(move |effect, _| match effect {
        DnsEffect::Client(effect) => Some(effect),
        DnsEffect::Publish(snapshot) => {
            cell.store(snapshot);
            None
        }
        _ => None,
    });
    let serving = serve(server, Box::new(SystemEntropy::new()), vec![udp], vec![tcp]);
    tokio::select! {
        done = serving => done.map_err(DaemonError::io("serving")),
        () = following => Ok(()),
        () = stopped(stop) => Ok(()),
    }
}
