//! `icp-calico-node`: routes to the pods of other nodes, and masquerade for what pods send outside.

use icp_net::calico::route;
use ipnet::IpNet;
use serde::{Deserialize, Serialize};

use super::{Access, DaemonError, Stop};

/// What the network agent of a machine is told.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Config {
    /// How the API servers are reached.
    pub access: Access,
    /// The certificate that it shows, such as `node-worker-1`.
    pub identity: String,
    /// The name of this machine's Node; a machine that has none only gets routes.
    pub node: String,
    /// Whether there is a Node of that name.
    pub is_node: bool,
    /// Where pods live.
    pub cluster_cidr: IpNet,
}

/// Runs until `stop`; the routes stay.
///
/// # Errors
/// If a certificate cannot be used or the kernel cannot be talked to.
pub async fn run(config: Config, stop: Stop) -> Result<(), DaemonError> {
    let client = config.access.client(&config.identity, "calico-node")?;
    let machine = route::Config {
        pod_networks: vec![config.cluster_cidr],
        report_condition: config.is_node,
        ..route::Config::new(&config.node)
    };
    // The kubelet learns the node's part of the pod network from the Node itself.
    let learn = |_| {};
    route::shell::run(machine, client, stop, learn, |why| eprintln!("calico-node: {why}"))
        .await
        .map_err(super::netlink("routes"))
}
