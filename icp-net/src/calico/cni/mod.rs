//! From a pod's addresses to interfaces, routes and neighbours, by Calico's model (`cni-plugin/pkg/dataplane`).
//!
//! A pod is no member of any network of more than one host. Its `eth0` has its addresses with full prefixes; all its
//! packets go to a next hop that is the same in every pod, 169.254.1.1 (or a link-local IPv6 address), which stands for
//! the machine's end of the cable by a permanent neighbour entry. The machine has a host route to each pod's address. So
//! pods cannot see each other's frames, and two pods of a machine need no bridge.
//!
//! [`plan_add`] compares what is wanted with what is there and returns the operations that are missing: none after a
//! success, so that each command may be repeated.
//!
//! ```
//! use icp_net::calico::cni::{Attachment, Observed, Op, plan_add, plan_check, plan_delete};
//! let attachment = Attachment::new("default.web", ["10.244.1.7".parse().unwrap()], 1500);
//! assert_eq!(attachment.host_link(), "cali68caf03a5f4");
//! let ops = plan_add(&attachment, &Observed::default())?;
//! assert!(matches!(ops[0], Op::CreatePair));
//! assert!(!plan_check(&attachment, &Observed::default()).is_empty());
//! assert!(plan_delete(&Observed::default()).is_empty());
//! # Ok::<(), icp_net::calico::cni::CniError>(())
//! ```

mod error;
mod names;
mod plan;
mod ports;
#[cfg(test)]
mod tests;

pub use error::CniError;
pub use names::{HOST_LINK_PREFIX, host_link_name, is_host_link_name};
pub use plan::{
    Attachment, GATEWAY_IPV4, GATEWAY_IPV6, HOST_MAC, LinkRoute, LinkState, Observed, Op, POD_LINK, Side,
    plan_add, plan_check, plan_delete,
};
pub use ports::{HOST_PORTS_TABLE, HostPort, host_ports_table_id, plan_host_ports};
