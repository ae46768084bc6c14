//! A block of addresses.

use alloc::collections::{BTreeMap, VecDeque};
use alloc::string::String;
use core::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use ipnet::IpNet;
use serde::{Deserialize, Serialize};

use super::IpamError;

/// Who an address was given to.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Owner {
    /// The handle, by which it is released.
    pub handle: String,
    /// The node on which it is used; another than the block's if it was borrowed.
    pub node: String,
}

/// A block: at most 4096 addresses, numbered from 0.
///
/// Free addresses stand in a queue, so that one that was released rests as long as possible before another pod gets
/// it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Block {
    #[serde(with = "text")]
    cidr: IpNet,
    affinity: Option<String>,
    allocated: BTreeMap<u32, Owner>,
    free: VecDeque<u32>,
    sequence: u64,
}

mod text {
    use alloc::borrow::Cow;
    use alloc::string::String;

    use ipnet::IpNet;
    use serde::{Deserialize, Deserializer, Serializer};

    pub(super) fn serialize<S: Serializer>(net: &IpNet, s: S) -> Result<S::Ok, S::Error> {
        s.collect_str(net)
    }

    pub(super) fn deserialize<'de, D: Deserializer<'de>>(d: D) -> Result<IpNet, D::Error> {
        let text: Cow<'de, str> = String::deserialize(d)?.into();
        text.parse().map_err(serde::de::Error::custom)
    }
}

/// The longest block has this many address bits.
const BITS_MAX: u8 = 12;

impl Block {
    /// A free block of `node`, never written yet.
    ///
    /// # Errors
    /// [`IpamError::Corrupt`] if it would have more than 4096 addresses.
    pub fn new(cidr: IpNet, node: &str) -> Result<Self, IpamError> {
        let bits = cidr.max_prefix_len() - cidr.prefix_len();
        if bits > BITS_MAX {
            return Err(IpamError::Corrupt { block: cidr, why: "it is too large" });
        }
        let free = (0..1u32 << bits).collect();
        let affinity = Some(node.into());
        Ok(Self { cidr: cidr.trunc(), affinity, allocated: BTreeMap::new(), free, sequence: 0 })
    }

    /// Checks what was read: each address is either free or has one owner.
    ///
    /// # Errors
    /// [`IpamError::Corrupt`].
    pub fn check(&self) -> Result<(), IpamError> {
        let corrupt = |why| Err(IpamError::Corrupt { block: self.cidr, why });
        let bits = self.cidr.max_prefix_len() - self.cidr.prefix_len();
        if bits > BITS_MAX || self.cidr != self.cidr.trunc() {
            return corrupt("its range is none of a block");
        }
        let mut seen = alloc::vec![false; 1 << bits];
        for ordinal in self.free.iter().chain(self.allocated.keys()) {
            match usize::try_from(*ordinal).ok().and_then(|n| seen.get_mut(n)) {
                None => return corrupt("an address is outside of it"),
                Some(seen) if *seen => return corrupt("an address stands in it twice"),
                Some(seen) => *seen = true,
            }
        }
        if seen.contains(&false) { corrupt("an address is missing") } else { Ok(()) }
    }

    /// Its range.
    #[must_use]
    pub const fn cidr(&self) -> IpNet {
        self.cidr
    }

    /// The node it belongs to; `None` if that node gave it up while addresses were in use.
    #[must_use]
    pub fn node(&self) -> Option<&str> {
        self.affinity.as_deref()
    }

    /// How often it was written; 0 before the first time.
    #[must_use]
    pub const fn sequence(&self) -> u64 {
        self.sequence
    }

    /// How many addresses are free.
    #[must_use]
    pub fn free_count(&self) -> usize {
        self.free.len()
    }

    /// Whether no address is given out.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.allocated.is_empty()
    }

    /// The addresses that were given out, and to whom.
    pub fn allocated(&self) -> impl Iterator<Item = (IpAddr, &Owner)> {
        self.allocated.iter().map(|(ordinal, owner)| (self.address(*ordinal), owner))
    }

    /// Who has `ip`.
    #[must_use]
    pub fn owner(&self, ip: IpAddr) -> Option<&Owner> {
        self.allocated.get(&self.ordinal(ip)?)
    }

    fn address(&self, ordinal: u32) -> IpAddr {
        match self.cidr.network() {
            IpAddr::V4(ip) => Ipv4Addr::from(u32::from(ip).wrapping_add(ordinal)).into(),
            IpAddr::V6(ip) => Ipv6Addr::from(u128::from(ip).wrapping_add(ordinal.into())).into(),
        }
    }

    fn ordinal(&self, ip: IpAddr) -> Option<u32> {
        if !self.cidr.contains(&ip) {
            return None;
        }
        match (ip, self.cidr.network()) {
            (IpAddr::V4(ip), IpAddr::V4(first)) => u32::from(ip).checked_sub(first.into()),
            (IpAddr::V6(ip), IpAddr::V6(first)) => {
                u128::from(ip).checked_sub(first.into()).and_then(|n| u32::try_from(n).ok())
            }
            _ => None,
        }
    }

    /// Gives the address out that has been free for longest, of those that `allowed` lets pass.
    pub(super) fn take(&mut self, owner: &Owner, allowed: impl Fn(IpAddr) -> bool) -> Option<IpAddr> {
        let at = self.free.iter().position(|ordinal| allowed(self.address(*ordinal)))?;
        let ordinal = self.free.remove(at)?;
        self.allocated.insert(ordinal, owner.clone());
        Some(self.address(ordinal))
    }

    /// Gives `ip` out; false if it is not free.
    pub(super) fn take_address(&mut self, ip: IpAddr, owner: &Owner) -> bool {
        let Some(ordinal) = self.ordinal(ip) else { return false };
        let Some(at) = self.free.iter().position(|free| *free == ordinal) else { return false };
        self.free.remove(at);
        self.allocated.insert(ordinal, owner.clone());
        true
    }

    /// Takes back what `which` names.
    pub(super) fn release(&mut self, which: impl Fn(IpAddr, &Owner) -> bool) -> alloc::vec::Vec<IpAddr> {
        let gone: alloc::vec::Vec<(u32, IpAddr)> = self
            .allocated
            .iter()
            .map(|(ordinal, owner)| (*ordinal, self.address(*ordinal), owner))
            .filter(|(_, ip, owner)| which(*ip, owner))
            .map(|(ordinal, ip, _)| (ordinal, ip))
            .collect();
        for (ordinal, _) in &gone {
            self.allocated.remove(ordinal);
            self.free.push_back(*ordinal);
        }
        gone.into_iter().map(|(_, ip)| ip).collect()
    }

    pub(super) fn disown(&mut self) {
        self.affinity = None;
    }

    pub(super) const fn written(&mut self) {
        self.sequence += 1;
    }
}
