//! Netlink framing and a synchronous request channel, shared by every netlink family this crate speaks.
//!
//! ```
//! use icp_net::backend::netlink::{Encoder, attributes};
//! let mut e = Encoder::new();
//! e.str(3, "br0").u32(4, 1500);
//! let seen: Vec<u16> = attributes(e.bytes()).map(|a| a.kind).collect();
//! assert_eq!(seen, [3, 4]);
//! ```

pub(super) mod channel;
mod error;
mod wire;

pub use channel::{Channel, Family};
pub use error::{Errno, NetlinkError};
pub use wire::{Attribute, Encoder, Header, attributes, messages};

/// `NLM_F_*` and `NLMSG_*` of `linux/netlink.h`.
pub mod flag {
    /// A request (all that a client sends).
    pub const REQUEST: u16 = 0x1;
    /// Part of a multi-message answer.
    pub const MULTI: u16 = 0x2;
    /// Answer with an acknowledgement.
    pub const ACK: u16 = 0x4;
    /// The dump was interrupted by a change and is inconsistent.
    pub const DUMP_INTERRUPTED: u16 = 0x10;
    /// Return the whole table.
    pub const DUMP: u16 = 0x300;
    /// Replace what exists.
    pub const REPLACE: u16 = 0x100;
    /// Fail if it exists.
    pub const EXCL: u16 = 0x200;
    /// Create if it does not exist.
    pub const CREATE: u16 = 0x400;
    /// Add to the end.
    pub const APPEND: u16 = 0x800;
}
