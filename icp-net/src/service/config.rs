//! What a node's proxy is told.

use alloc::string::String;
use alloc::vec::Vec;

use icp_core::base::Duration;
use ipnet::IpNet;

use crate::rules::Family;

/// Configuration of [`super::ProxyMachine`] (`KubeProxyConfiguration`).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Config {
    /// The node's name: endpoints on it are local.
    pub node: String,
    /// The node's zone (`topology.kubernetes.io/zone`); `None` if unknown, topology hints are then not followed.
    pub zone: Option<String>,
    /// Which address families are served, each with a table of its own.
    pub families: Vec<Family>,
    /// The name of the tables.
    pub table: String,
    /// Where pods live (`clusterCIDR`). Traffic to services that comes from elsewhere is masqueraded; with none,
    /// only what must be is.
    pub pod_networks: Vec<IpNet>,
    /// The range of ClusterIPs. Packets to addresses of it that no service has are dropped; with none, nothing is.
    pub service_networks: Vec<IpNet>,
    /// Which addresses of the node answer on node ports (`nodePortAddresses`); none for all but loopback.
    pub node_port_networks: Vec<IpNet>,
    /// Masquerade all traffic to ClusterIPs (`masqueradeAll`).
    pub masquerade_all: bool,
    /// The bit of the packet mark that asks for masquerade.
    pub masquerade_mark: u32,
    /// How often the kernel's state is read and compared with what it should be.
    pub resync: Duration,
}

impl Config {
    /// What kube-proxy does by default on an IPv4 cluster, for node `node`.
    #[must_use]
    pub fn new(node: &str) -> Self {
        Self {
            node: node.into(),
            zone: None,
            families: Vec::from([Family::Ip]),
            table: "icp-services".into(),
            pod_networks: Vec::new(),
            service_networks: Vec::new(),
            node_port_networks: Vec::new(),
            masquerade_all: false,
            masquerade_mark: 0x4000,
            resync: Duration::from_secs(60),
        }
    }
}
