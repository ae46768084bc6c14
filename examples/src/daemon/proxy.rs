//! `icp-proxy`: kube-proxy on one machine, in the network namespace that it is started in.

use icp_net::service;
use ipnet::IpNet;
use serde::{Deserialize, Serialize};

use super::{Access, DaemonError, Stop};

/// What the proxy is told.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Config {
    /// How the API servers are reached.
    pub access: Access,
    /// The node's name: endpoints on it are local.
    pub node: String,
    /// Where pods live.
    pub cluster_cidr: IpNet,
    /// Where ClusterIPs come from.
    pub service_cidr: IpNet,
}

/// Runs until `stop`; the rules stay, so that connections outlive a restart.
///
/// # Errors
/// If a certificate cannot be used or the kernel cannot be talked to.
pub async fn run(config: Config, stop: Stop) -> Result<(), DaemonError> {
    let client = config.access.client("proxy", "kube-proxy")?;
    let machine = service::Config {
        pod_networks: vec![config.cluster_cidr],
        service_networks: vec![config.service_cidr],
        ..service::Config::new(&config.node)
    };
    service::shell::run(machine, client, stop, |why| eprintln!("proxy: {why}"))
        .await
        .map_err(super::netlink("nftables"))
}
