//! What talks to a kernel.
//!
//! A netlink socket belongs for good to the network namespace of the thread that opened it. A shell that works
//! in another namespace opens its sockets after it entered that namespace ([`netns`]) and may then leave it again.

#[cfg(feature = "netlink")]
pub mod calico;
#[cfg(feature = "netlink")]
pub mod conntrack;
#[cfg(feature = "dns")]
pub mod dns;
#[cfg(feature = "netlink")]
pub mod netlink;
#[cfg(feature = "netlink")]
pub mod netns;
#[cfg(feature = "netlink")]
pub mod nft;
#[cfg(feature = "netlink")]
pub mod rtnl;
#[cfg(feature = "netlink")]
pub mod service;
#[cfg(all(test, feature = "netlink"))]
pub(crate) mod testing;
#[cfg(feature = "shell")]
pub(crate) mod worker;
