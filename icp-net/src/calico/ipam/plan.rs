//! Plans of allocation and release.

use alloc::collections::{BTreeMap, BTreeSet};
use alloc::string::String;
use alloc::vec::Vec;
use core::net::IpAddr;

use ipnet::IpNet;

use super::{Block, IpamConfig, IpamError, Owner, Pool};

/// Who wants addresses.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Request {
    /// The node.
    pub node: String,
    /// The handle. What it has already counts.
    pub handle: String,
    /// How many IPv4 addresses it shall have.
    pub ipv4: usize,
    /// How many IPv6 addresses it shall have.
    pub ipv6: usize,
}

impl Request {
    /// One IPv4 address.
    #[must_use]
    pub fn new(node: &str, handle: &str) -> Self {
        Self { node: node.into(), handle: handle.into(), ipv4: 1, ipv6: 0 }
    }
}

/// A change of one block, to be made if the store still has the block of that sequence number.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Write {
    /// Write the block; `expected` is the sequence number of the one that stands there, 0 for none.
    Put {
        /// The number.
        expected: u64,
        /// The block.
        block: Block,
    },
    /// Delete the block.
    Delete {
        /// The number.
        expected: u64,
        /// The block's range.
        cidr: IpNet,
    },
}

/// What is to be written, and what comes of it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Plan {
    /// The addresses that the handle then has, or that were released.
    pub addresses: Vec<IpAddr>,
    /// The changes, in any order.
    pub writes: Vec<Write>,
}

/// The observed blocks.
#[derive(Clone, Debug)]
pub struct Ipam {
    config: IpamConfig,
    blocks: BTreeMap<IpNet, Block>,
    handles: BTreeMap<String, BTreeSet<IpAddr>>,
}

const fn family(ipv6: bool) -> u8 {
    if ipv6 { 6 } else { 4 }
}

fn seed(node: &str) -> u64 {
    use core::hash::BuildHasher;
    foldhash::quality::FixedState::with_seed(0).hash_one(node)
}

/// Most blocks of a pool that are looked at for one that is free.
const BLOCKS_TRIED_MAX: u128 = 65_536;

/// The blocks that a plan has changed so far.
struct Draft<'a> {
    ipam: &'a Ipam,
    changed: BTreeMap<IpNet, Block>,
}

impl Draft<'_> {
    fn get(&self, cidr: IpNet) -> Option<&Block> {
        self.changed.get(&cidr).or_else(|| self.ipam.blocks.get(&cidr))
    }

    fn take(&mut self, cidr: IpNet, owner: &Owner) -> Option<IpAddr> {
        let mut block = self.get(cidr)?.clone();
        let ip = block.take(owner, |ip| !self.ipam.config.is_reserved(ip))?;
        self.changed.insert(cidr, block);
        Some(ip)
    }

    fn writes(self) -> Vec<Write> {
        let one = |(cidr, mut block): (IpNet, Block)| {
            let expected = self.ipam.blocks.get(&cidr).map_or(0, Block::sequence);
            if block.is_empty() && (block.node().is_none() || !self.ipam.in_pool(cidr)) {
                return Write::Delete { expected, cidr };
            }
            block.written();
            Write::Put { expected, block }
        };
        self.changed.into_iter().map(one).collect()
    }
}

impl Ipam {
    /// Takes over the blocks of a store.
    ///
    /// # Errors
    /// [`IpamError::Overlap`], [`IpamError::Corrupt`].
    pub fn new(config: IpamConfig, blocks: impl IntoIterator<Item = Block>) -> Result<Self, IpamError> {
        config.check()?;
        let mut ipam = Self { config, blocks: BTreeMap::new(), handles: BTreeMap::new() };
        for block in blocks {
            block.check()?;
            let cidr = block.cidr();
            let overlaps = |other: &Block| other.cidr().contains(&cidr) || cidr.contains(&other.cidr());
            if ipam.blocks.values().any(overlaps) {
                return Err(IpamError::Corrupt { block: cidr, why: "it overlaps another" });
            }
            ipam.insert(block);
        }
        Ok(ipam)
    }

    /// Goes on with other pools. Addresses outside of them stay with their owners.
    ///
    /// # Errors
    /// [`IpamError::Overlap`]; nothing is changed then.
    pub fn reconfigure(&mut self, config: IpamConfig) -> Result<(), IpamError> {
        config.check()?;
        self.config = config;
        Ok(())
    }

    /// The pools and rules.
    #[must_use]
    pub const fn config(&self) -> &IpamConfig {
        &self.config
    }

    /// The blocks.
    pub fn blocks(&self) -> impl Iterator<Item = &Block> {
        self.blocks.values()
    }

    /// The handles and their addresses.
    pub fn handles(&self) -> impl Iterator<Item = (&str, impl Iterator<Item = IpAddr>)> {
        self.handles.iter().map(|(handle, ips)| (handle.as_str(), ips.iter().copied()))
    }

    /// The addresses of a handle.
    #[must_use]
    pub fn addresses(&self, handle: &str) -> Vec<IpAddr> {
        self.handles.get(handle).into_iter().flatten().copied().collect()
    }

    /// Who has `ip`.
    #[must_use]
    pub fn owner(&self, ip: IpAddr) -> Option<&Owner> {
        // The last block that begins at or before the address is the only one that can hold it.
        let all = IpNet::new(ip, if ip.is_ipv6() { 128 } else { 32 }).ok()?;
        self.blocks.range(..=all).next_back().and_then(|(_, block)| block.owner(ip))
    }

    fn in_pool(&self, block: IpNet) -> bool {
        self.config.pools.iter().any(|pool| pool.block_of(block.addr()) == Some(block))
    }

    fn draft(&self) -> Draft<'_> {
        Draft { ipam: self, changed: BTreeMap::new() }
    }

    /// Gives a handle the addresses that it lacks: from the node's own blocks, then from one that it claims, then
    /// borrowed.
    ///
    /// # Errors
    /// [`IpamError::NoPool`], [`IpamError::Exhausted`].
    pub fn plan_assign(&self, request: &Request) -> Result<Plan, IpamError> {
        let mut addresses = self.addresses(&request.handle);
        let mut draft = self.draft();
        for (ipv6, wanted) in [(false, request.ipv4), (true, request.ipv6)] {
            let has = addresses.iter().filter(|ip| ip.is_ipv6() == ipv6).count();
            for _ in has..wanted {
                addresses.push(self.assign_one(&mut draft, request, ipv6)?);
            }
        }
        Ok(Plan { addresses, writes: draft.writes() })
    }

    fn assign_one(&self, draft: &mut Draft<'_>, request: &Request, ipv6: bool) -> Result<IpAddr, IpamError> {
        let of_family = |pool: &&Pool| !pool.disabled && pool.cidr().addr().is_ipv6() == ipv6;
        let pools: Vec<&Pool> = self.config.pools.iter().filter(of_family).collect();
        if pools.is_empty() {
            return Err(IpamError::NoPool { family: family(ipv6) });
        }
        let owner = Owner { handle: request.handle.clone(), node: request.node.clone() };
        let known: BTreeSet<IpNet> = self.blocks.keys().chain(draft.changed.keys()).copied().collect();
        let is_mine = |draft: &Draft<'_>, cidr: IpNet| {
            draft.get(cidr).is_some_and(|block| block.node() == Some(&request.node))
        };
        let usable = |cidr: IpNet| pools.iter().any(|pool| pool.block_of(cidr.addr()) == Some(cidr));
        let (mine, others): (Vec<IpNet>, Vec<IpNet>) =
            known.iter().copied().filter(|cidr| usable(*cidr)).partition(|cidr| is_mine(draft, *cidr));
        for cidr in &mine {
            if let Some(ip) = draft.take(*cidr, &owner) {
                return Ok(ip);
            }
        }
        let limit = self.config.blocks_per_node_max;
        let full = limit > 0 && known.iter().filter(|cidr| is_mine(draft, **cidr)).count() >= limit;
        if !full {
            for pool in &pools {
                for cidr in candidates(pool, &request.node).filter(|cidr| !known.contains(cidr)) {
                    // Blocks of another size, from before the pool was changed, may be in the way.
                    if known.iter().any(|other| other.contains(&cidr) || cidr.contains(other)) {
                        continue;
                    }
                    draft.changed.insert(cidr, Block::new(cidr, &request.node)?);
                    if let Some(ip) = draft.take(cidr, &owner) {
                        return Ok(ip);
                    }
                    draft.changed.remove(&cidr);
                }
            }
        }
        let exhausted = |why| IpamError::Exhausted { family: family(ipv6), node: request.node.clone(), why };
        if self.config.strict_affinity {
            let why = if full { "it has the most blocks it may have" } else { "all blocks are claimed" };
            return Err(exhausted(why));
        }
        // Each node begins elsewhere, so that not all borrow from the same block.
        let start = usize::try_from(seed(&request.node) % others.len().max(1) as u64).unwrap_or(0);
        let (before, after) = others.split_at_checked(start).unwrap_or((&[], &others));
        for cidr in after.iter().chain(before) {
            if let Some(ip) = draft.take(*cidr, &owner) {
                return Ok(ip);
            }
        }
        Err(exhausted("every pool is full"))
    }

    /// Gives a handle one certain address (the pod's annotation `cni.projectcalico.org/ipAddrs`). Its block is
    /// claimed if it is nobody's.
    ///
    /// # Errors
    /// [`IpamError::NotInPool`], [`IpamError::Taken`], [`IpamError::Foreign`].
    pub fn plan_assign_address(&self, ip: IpAddr, node: &str, handle: &str) -> Result<Plan, IpamError> {
        if let Some(owner) = self.owner(ip) {
            if owner.handle == handle {
                return Ok(Plan { addresses: self.addresses(handle), writes: Vec::new() });
            }
            return Err(IpamError::Taken { ip, handle: owner.handle.clone() });
        }
        let pools = self.config.pools.iter().filter(|pool| !pool.disabled);
        let cidr = pools.filter_map(|pool| pool.block_of(ip)).next().ok_or(IpamError::NotInPool { ip })?;
        let mut draft = self.draft();
        let mut block = match self.blocks.get(&cidr) {
            Some(block) => block.clone(),
            None => Block::new(cidr, node)?,
        };
        if block.node() != Some(node) && self.config.strict_affinity {
            return Err(IpamError::Foreign { ip, block: cidr });
        }
        let owner = Owner { handle: handle.into(), node: node.into() };
        if !block.take_address(ip, &owner) {
            return Err(IpamError::NotInPool { ip });
        }
        draft.changed.insert(cidr, block);
        let mut addresses = self.addresses(handle);
        addresses.push(ip);
        Ok(Plan { addresses, writes: draft.writes() })
    }

    fn plan_release(&self, which: impl Fn(IpAddr, &Owner) -> bool, disown: Option<&str>) -> Plan {
        let mut draft = self.draft();
        let mut addresses = Vec::new();
        for (cidr, block) in &self.blocks {
            let mut changed = block.clone();
            addresses.extend(changed.release(&which));
            if disown.is_some() && block.node() == disown {
                changed.disown();
            }
            if changed != *block {
                draft.changed.insert(*cidr, changed);
            }
        }
        Plan { addresses, writes: draft.writes() }
    }

    /// Takes back all addresses of a handle; none if it has none.
    #[must_use]
    pub fn plan_release_handle(&self, handle: &str) -> Plan {
        let ips = self.addresses(handle);
        if ips.is_empty() {
            return Plan::default();
        }
        self.plan_release(|ip, _| ips.contains(&ip), None)
    }

    /// Takes back all addresses of a node whose handles are not `live`. Who calls must know all handles that live on
    /// the node.
    #[must_use]
    pub fn plan_collect(&self, node: &str, live: impl Fn(&str) -> bool) -> Plan {
        self.plan_release(|_, owner| owner.node == node && !live(&owner.handle), None)
    }

    /// Takes back all that a node has, addresses and blocks: the node is gone.
    #[must_use]
    pub fn plan_forget_node(&self, node: &str) -> Plan {
        self.plan_release(|_, owner| owner.node == node, Some(node))
    }

    /// Takes over what was written.
    pub fn commit(&mut self, plan: &Plan) {
        for write in &plan.writes {
            match write {
                Write::Put { block, .. } => {
                    self.remove(block.cidr());
                    self.insert(block.clone());
                }
                Write::Delete { cidr, .. } => self.remove(*cidr),
            }
        }
    }

    fn insert(&mut self, block: Block) {
        for (ip, owner) in block.allocated() {
            self.handles.entry(owner.handle.clone()).or_default().insert(ip);
        }
        self.blocks.insert(block.cidr(), block);
    }

    fn remove(&mut self, cidr: IpNet) {
        let Some(block) = self.blocks.remove(&cidr) else { return };
        for (ip, owner) in block.allocated() {
            if let Some(ips) = self.handles.get_mut(&owner.handle) {
                ips.remove(&ip);
                if ips.is_empty() {
                    self.handles.remove(&owner.handle);
                }
            }
        }
    }
}

/// The blocks of a pool, from one on that depends on the node, so that nodes seldom want the same.
fn candidates(pool: &Pool, node: &str) -> impl Iterator<Item = IpNet> {
    let count = pool.block_count();
    let start = u128::from(seed(node)) % count.max(1);
    (0..count.min(BLOCKS_TRIED_MAX)).filter_map(move |n| pool.block((start + n) % count))
}
