//! Why an address cannot be given out.

use alloc::string::String;
use core::net::IpAddr;

use ipnet::IpNet;

/// Why an address cannot be given out, or a state cannot be taken over.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum IpamError {
    /// The block size is not one that Calico allows: 20 to 32 for IPv4, 116 to 128 for IPv6, and not larger than
    /// the pool.
    #[error(
        "pool {pool}: a block of /{prefix} is not possible: it must be /{min} to /{max} and fit into the pool"
    )]
    BlockSize {
        /// The pool.
        pool: IpNet,
        /// The block's prefix length.
        prefix: u8,
        /// The shortest prefix.
        min: u8,
        /// The longest prefix.
        max: u8,
    },
    /// Two pools have addresses in common.
    #[error("pools {one} and {other} overlap")]
    Overlap {
        /// A pool.
        one: IpNet,
        /// Another.
        other: IpNet,
    },
    /// No pool of the wanted family is enabled.
    #[error("no pool for IPv{family}")]
    NoPool {
        /// 4 or 6.
        family: u8,
    },
    /// No address is free for this node.
    #[error("no IPv{family} address is free for node {node}: {why}")]
    Exhausted {
        /// 4 or 6.
        family: u8,
        /// The node.
        node: String,
        /// Which limit was met.
        why: &'static str,
    },
    /// The address is in no enabled pool, or reserved.
    #[error("{ip} is in no pool, or reserved")]
    NotInPool {
        /// The address.
        ip: IpAddr,
    },
    /// The address has another owner.
    #[error("{ip} is taken by {handle}")]
    Taken {
        /// The address.
        ip: IpAddr,
        /// Its owner.
        handle: String,
    },
    /// The address is in a block of another node, and affinity is strict.
    #[error("{ip} is in block {block} of another node, and affinity is strict")]
    Foreign {
        /// The address.
        ip: IpAddr,
        /// Its block.
        block: IpNet,
    },
    /// A block that was read is not well formed.
    #[error("block {block} is corrupt: {why}")]
    Corrupt {
        /// The block.
        block: IpNet,
        /// What is wrong.
        why: &'static str,
    },
}
