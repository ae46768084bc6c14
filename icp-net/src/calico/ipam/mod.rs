//! Which pod has which address, by Calico's model (`libcalico-go/lib/ipam`).
//!
//! A *pool* is a range that is cut into *blocks* of equal size. A block is *affine* to a node, which takes addresses
//! from its own blocks first, claims another when they are full, and borrows from the blocks of others when none is
//! left and [`IpamConfig::strict_affinity`] does not forbid it. A *handle* names who an address was given to.
//!
//! [`Ipam`] holds the observed blocks; its `plan_*` functions are pure. The caller writes a [`Plan`] to its store,
//! each block on the condition that it still has the expected sequence number, and then [`Ipam::commit`]s it.
//!
//! ```
//! use icp_net::calico::ipam::{Ipam, IpamConfig, Pool, Request};
//! let pool = Pool::new("10.244.1.0/24".parse().unwrap())?;
//! let mut ipam = Ipam::new(IpamConfig::new([pool]), [])?;
//! let plan = ipam.plan_assign(&Request::new("worker-1", "default.web"))?;
//! assert_eq!(plan.addresses.len(), 1);
//! ipam.commit(&plan);
//! // The same handle gets the same address again, and nothing is to be written.
//! let again = ipam.plan_assign(&Request::new("worker-1", "default.web"))?;
//! assert_eq!((&again.addresses, again.writes.len()), (&plan.addresses, 0));
//! # Ok::<(), icp_net::calico::ipam::IpamError>(())
//! ```

mod block;
mod config;
mod error;
mod plan;
mod port;
#[cfg(test)]
mod tests;

pub use block::{Block, Owner};
pub use config::{IpamConfig, Pool};
pub use error::IpamError;
pub use plan::{Ipam, Plan, Request, Write};
pub use port::{BlockStore, StoreError};
