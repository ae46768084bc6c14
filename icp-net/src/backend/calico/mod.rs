//! Pod addresses and interfaces on a real machine.
//!
//! [`NodeNetwork`] is what a container runtime calls: it gives a pod its addresses, puts its `eth0` into the pod's
//! network namespace and routes to it. It keeps what it gave in files, so that an agent that restarts gives no address
//! twice.
//!
//! ```no_run
//! use std::path::Path;
//! use icp_net::backend::calico::{NodeNetwork, NodeNetworkConfig};
//! let mut config = NodeNetworkConfig::new("worker-1", "/var/lib/icp/ipam");
//! config.pod_networks = vec!["10.244.1.0/24".parse().unwrap()]; // the node's spec.podCIDRs
//! let network = NodeNetwork::new(config)?; // in the network namespace of this thread, for good
//! let addresses = network.attach("default.web", Path::new("/proc/4711/ns/net"))?;
//! network.detach("default.web")?;
//! # Ok::<(), icp_net::backend::calico::NodeNetworkError>(())
//! ```

mod cable;
mod files;
mod network;
mod routes;
#[cfg(test)]
mod tests;

pub use files::FileBlocks;
pub use network::{NodeNetwork, NodeNetworkConfig, NodeNetworkError};
pub use routes::RouteBackend;
