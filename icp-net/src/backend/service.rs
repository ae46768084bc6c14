//! Does what [`crate::service::ProxyMachine`] wants done to the kernel.
//!
//! ```no_run
//! use icp_net::backend::service::ServiceBackend;
//! use icp_net::service::Effect;
//! # let effects: Vec<Effect> = vec![];
//! let mut backend = ServiceBackend::open()?; // in the network namespace of this thread, for good
//! for effect in effects {
//!     if let Some(event) = backend.perform(&effect) {
//!         // proxy.on(now, event, &mut out);
//! #       drop(event);
//!     }
//! }
//! # Ok::<(), icp_net::backend::netlink::NetlinkError>(())
//! ```

use std::collections::BTreeMap;
use std::string::ToString;

use super::conntrack::Conntrack;
use super::netlink::NetlinkError;
use super::nft::Nft;
use super::rtnl::sysctl;
use crate::rules::{Snapshot, TableId};
use crate::service::{BackendError, Effect, Event};

/// The kernel side of a proxy, bound to the network namespace in which it was opened.
#[derive(Debug)]
pub struct ServiceBackend {
    nft: Nft,
    conntrack: Conntrack,
}

impl ServiceBackend {
    /// Opens the sockets in the network namespace of the calling thread.
    ///
    /// # Errors
    /// [`NetlinkError::Open`].
    pub fn open() -> Result<Self, NetlinkError> {
        Ok(Self { nft: Nft::open()?, conntrack: Conntrack::open()? })
    }

    /// Lets the network namespace of the calling thread forward packets, as a node must.
    ///
    /// # Errors
    /// If `/proc/sys` is read-only and forwarding is off.
    pub fn enable_forwarding() -> std::io::Result<()> {
        sysctl::set("net.ipv4.ip_forward", "1")
    }

    /// Does what the effect says and returns what the machine is to be told; `None` for effects that are not for
    /// the kernel ([`Effect::Client`]) or need no answer.
    pub fn perform(&mut self, effect: &Effect) -> Option<Event> {
        match effect {
            Effect::Observe { generation, tables } => {
                let result = self.observe(tables).map_err(|e| BackendError(e.to_string()));
                Some(Event::Observed { generation: *generation, result })
            }
            Effect::Apply { generation, batch } => {
                let result = self.nft.apply(batch).map(|_| ()).map_err(|e| BackendError(e.to_string()));
                Some(Event::Applied { generation: *generation, result })
            }
            Effect::ForgetFlows(stale) => {
                // A kernel without `nf_conntrack_netlink` cannot; such flows then end by their own time-out.
                let _ = self.conntrack.forget_stale(stale);
                None
            }
            Effect::Client(_) => None,
        }
    }

    fn observe(&mut self, tables: &[TableId]) -> Result<BTreeMap<TableId, Option<Snapshot>>, NetlinkError> {
        tables.iter().map(|id| Ok((id.clone(), self.nft.snapshot(id)?))).collect()
    }
}
