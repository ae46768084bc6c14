//! Pools, and the rules that hold for all of them.

use alloc::vec::Vec;
use core::net::IpAddr;

use ipnet::{IpNet, Ipv4Net, Ipv6Net};

use super::IpamError;

/// A range of addresses that pods get theirs from (`IPPool`).
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Pool {
    cidr: IpNet,
    block_prefix: u8,
    /// No address is given out from it; those that were stay.
    pub disabled: bool,
}

/// The shortest, longest and default prefix of a block (`api/pkg/apis/projectcalico/v3/ippool.go`).
const fn block_limits(ipv6: bool) -> (u8, u8, u8) {
    if ipv6 { (116, 128, 122) } else { (20, 32, 26) }
}

impl Pool {
    /// A pool with blocks of the default size: 64 addresses, or the whole pool if it is smaller.
    ///
    /// # Errors
    /// None at present; as [`Pool::with_blocks`].
    pub fn new(cidr: IpNet) -> Result<Self, IpamError> {
        let (_, _, default) = block_limits(cidr.addr().is_ipv6());
        Self::with_blocks(cidr, default.max(cidr.prefix_len()))
    }

    /// A pool with blocks of that prefix length.
    ///
    /// # Errors
    /// [`IpamError::BlockSize`].
    pub fn with_blocks(cidr: IpNet, block_prefix: u8) -> Result<Self, IpamError> {
        let (min, max, _) = block_limits(cidr.addr().is_ipv6());
        if block_prefix < min.max(cidr.prefix_len()) || block_prefix > max {
            return Err(IpamError::BlockSize { pool: cidr, prefix: block_prefix, min, max });
        }
        Ok(Self { cidr: cidr.trunc(), block_prefix, disabled: false })
    }

    /// The range.
    #[must_use]
    pub const fn cidr(&self) -> IpNet {
        self.cidr
    }

    /// How many blocks it has.
    #[must_use]
    pub fn block_count(&self) -> u128 {
        1u128.checked_shl(u32::from(self.block_prefix - self.cidr.prefix_len())).unwrap_or(u128::MAX)
    }

    /// The block with that number, counted from 0.
    pub(super) fn block(&self, number: u128) -> Option<IpNet> {
        let shift = u32::from(self.cidr.max_prefix_len() - self.block_prefix);
        let offset = if number == 0 { 0 } else { number.checked_shl(shift)? };
        let net = match self.cidr {
            IpNet::V4(net) => {
                let ip = u32::from(net.network()).checked_add(u32::try_from(offset).ok()?)?;
                Ipv4Net::new(ip.into(), self.block_prefix).ok().map(IpNet::V4)
            }
            IpNet::V6(net) => {
                let ip = u128::from(net.network()).checked_add(offset)?;
                Ipv6Net::new(ip.into(), self.block_prefix).ok().map(IpNet::V6)
            }
        };
        net.filter(|net| self.cidr.contains(net))
    }

    /// The block that `ip` is in.
    pub(super) fn block_of(&self, ip: IpAddr) -> Option<IpNet> {
        let block = IpNet::new(ip, self.block_prefix).ok()?.trunc();
        self.cidr.contains(&block).then_some(block)
    }
}

/// The pools, and the rules that hold for all of them (`IPAMConfiguration`, `IPReservation`).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct IpamConfig {
    /// The pools, in the order in which they are tried.
    pub pools: Vec<Pool>,
    /// Nodes take addresses from their own blocks alone (`strictAffinity`).
    pub strict_affinity: bool,
    /// Most blocks of one node (`maxBlocksPerHost`); 0 for no limit.
    pub blocks_per_node_max: usize,
    /// Addresses that are never given out by themselves (`IPReservation`).
    pub reserved: Vec<IpNet>,
}

impl IpamConfig {
    /// Calico's defaults: borrowing is allowed, 20 blocks for each node.
    #[must_use]
    pub fn new(pools: impl IntoIterator<Item = Pool>) -> Self {
        Self {
            pools: pools.into_iter().collect(),
            strict_affinity: false,
            blocks_per_node_max: 20,
            reserved: Vec::new(),
        }
    }

    /// Checks that no two pools overlap.
    ///
    /// # Errors
    /// [`IpamError::Overlap`].
    pub fn check(&self) -> Result<(), IpamError> {
        for (n, one) in self.pools.iter().enumerate() {
            for other in self.pools.iter().skip(n + 1) {
                if one.cidr.contains(&other.cidr) || other.cidr.contains(&one.cidr) {
                    return Err(IpamError::Overlap { one: one.cidr, other: other.cidr });
                }
            }
        }
        Ok(())
    }

    pub(super) fn is_reserved(&self, ip: IpAddr) -> bool {
        self.reserved.iter().any(|net| net.contains(&ip))
    }
}
