//! What the route machine is told.

use alloc::string::String;
use alloc::vec::Vec;

use icp_core::base::Duration;
use ipnet::IpNet;

/// Configuration of [`super::RouteMachine`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Config {
    /// The name of this machine's Node. There need be none: a master that runs no pods still reaches them.
    pub node: String,
    /// Where pods live (`clusterCIDR`, or the pools with `natOutgoing`). What pods send to addresses outside is
    /// masqueraded; with none, nothing is.
    pub pod_networks: Vec<IpNet>,
    /// The name of the tables with the masquerade rules.
    pub table: String,
    /// Keep the Node's condition `NetworkUnavailable`, as calico/node does.
    pub report_condition: bool,
    /// How often the kernel's state is read and compared with what it should be.
    pub resync: Duration,
}

impl Config {
    /// For node `node`, without masquerade.
    #[must_use]
    pub fn new(node: &str) -> Self {
        Self {
            node: node.into(),
            pod_networks: Vec::new(),
            table: "icp-masquerade".into(),
            report_condition: true,
            resync: Duration::from_secs(30),
        }
    }
}
