//! Calico: addresses for pods, their interfaces, and routes between nodes.
//!
//! | module | what |
//! |---|---|
//! | [`ipam`] | which pod has which address: pools, blocks, handles |
//! | [`cni`] | from a pod's addresses to interfaces, routes and neighbours |
//! | [`route`] | from Nodes to the routes, the masquerade rules and the forwarding of one machine |
//!
//! What touches a kernel or a disk stands in `icp_net::backend::calico` (feature `netlink`).

pub mod cni;
pub mod ipam;
pub mod route;
