//! The virtual IP manager: CARP, wire-compatible with UCarp 1.5.
//!
//! Several hosts share one address. The one that advertises fastest owns it; when its advertisements stop, the next
//! takes over. [`VipMachine`] is the pure step function; a shell sends its frames and adds and removes the address.
//!
//! This is the *available* mode: each connected component of a partitioned network has an owner, so that during a
//! partition two hosts may own the address. After it heals, one of them yields within one advertisement.
//!
//! ```
//! use core::net::Ipv4Addr;
//! use icp_core::base::{Machine, Time};
//! use icp_net::vip::{VipConfig, VipEffect, VipEvent, VipMachine};
//!
//! let config = VipConfig::new(7, "secret", Ipv4Addr::new(10, 77, 0, 100), Ipv4Addr::new(10, 77, 0, 1), [2, 0, 0, 0, 0, 1])?;
//! let (mut vip, mut out) = (VipMachine::new(config, 1), Vec::new());
//! vip.on(Time::ZERO, VipEvent::LinkUp, &mut out);
//! // Nobody advertises: after three intervals the address is ours.
//! vip.wake(vip.deadline().unwrap(), &mut out);
//! assert!(out.contains(&VipEffect::Claim));
//! # Ok::<(), icp_net::vip::VipError>(())
//! ```

mod config;
mod error;
mod machine;
mod packet;
#[cfg(feature = "vip")]
pub mod shell;

pub use config::{DeadTime, VipConfig};
pub use error::VipError;
pub use machine::{VipEffect, VipEvent, VipMachine, VipState};
pub use packet::{Advertisement, PacketError, gratuitous_arp};
