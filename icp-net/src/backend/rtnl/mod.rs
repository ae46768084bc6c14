//! Links, addresses, routes and neighbours over rtnetlink (`rtnetlink(7)`), synchronously.
//!
//! One [`Rtnl`] works in the network namespace in which it was opened. All calls are short and never block.
//!
//! ```no_run
//! use icp_net::backend::rtnl::{Rtnl, Route};
//! let mut rtnl = Rtnl::open()?;
//! let bridge = rtnl.create_bridge("br0")?;
//! rtnl.add_address(bridge, "10.0.0.1/24".parse().unwrap())?;
//! rtnl.set_up(bridge)?;
//! rtnl.replace_route(&Route::via("0.0.0.0/0".parse().unwrap(), "10.0.0.254".parse().unwrap()))?;
//! # Ok::<(), icp_net::backend::netlink::NetlinkError>(())
//! ```

mod address;
mod link;
mod neighbour;
mod route;
pub mod sysctl;
#[cfg(test)]
mod tests;

use crate::backend::netlink::{Channel, Family, NetlinkError};

pub use address::Address;
pub use link::{Link, LinkKind, Mac, Target, VethPeer, Vxlan};
pub use neighbour::{Neighbour, NeighbourFamily};
pub use route::{Route, RouteKind, protocol, table};

/// A connection to the kernel's rtnetlink, bound to the network namespace in which it was opened.
#[derive(Debug)]
pub struct Rtnl {
    channel: Channel,
}

impl Rtnl {
    /// Opens a connection in the network namespace of the calling thread.
    ///
    /// # Errors
    /// [`NetlinkError::Open`].
    pub fn open() -> Result<Self, NetlinkError> {
        Ok(Self { channel: Channel::open(Family::Route)? })
    }
}
