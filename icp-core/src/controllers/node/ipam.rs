//! The pod addresses of each node.

use alloc::collections::{BTreeMap, BTreeSet};
use alloc::string::{String, ToString};
use alloc::vec;
use alloc::vec::Vec;

use ipnet::IpNet;
use serde_json::{Value, json};

use crate::api::{Gvr, Object, resources};
use crate::base::{Rng, Time};
use crate::client::{Delta, ObjectKey};
use crate::controllers::{Action, Cache, Controller, Note, Plan};

/// Why a range cannot be divided.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum AllocateError {
    /// The node mask is shorter than the range's own, longer than the address, or would make more than 65536 ranges
    /// (`cidrset.NewCIDRSet`).
    #[error(
        "cluster CIDR {range}: cannot be divided into /{mask}: the node mask must be between the range's prefix and the prefix plus 16"
    )]
    Mask {
        /// The range.
        range: IpNet,
        /// The mask.
        mask: u8,
    },
}

/// Divides a range into equal parts, one for each node.
///
/// ```
/// use icp_core::controllers::node::CidrAllocator;
/// let mut a = CidrAllocator::new("10.244.0.0/16".parse().unwrap(), 24).unwrap();
/// assert_eq!(a.allocate().unwrap().to_string(), "10.244.0.0/24");
/// assert_eq!(a.allocate().unwrap().to_string(), "10.244.1.0/24");
/// a.release("10.244.0.0/24".parse().unwrap());
/// assert_eq!(a.allocate().unwrap().to_string(), "10.244.2.0/24"); // a freed part rests until the end was reached
/// ```
#[derive(Clone, Debug)]
pub struct CidrAllocator {
    range: IpNet,
    mask: u8,
    used: BTreeSet<u32>,
    next: u32,
}

impl CidrAllocator {
    /// Parts of `range` with the prefix length `mask`.
    ///
    /// # Errors
    /// If the range cannot be divided so.
    pub fn new(range: IpNet, mask: u8) -> Result<Self, AllocateError> {
        if mask < range.prefix_len() || mask > range.max_prefix_len() || mask - range.prefix_len() > 16 {
            return Err(AllocateError::Mask { range, mask });
        }
        Ok(Self { range: range.trunc(), mask, used: BTreeSet::new(), next: 0 })
    }

    fn parts(&self) -> u32 {
        1 << (self.mask - self.range.prefix_len())
    }

    fn part(&self, index: u32) -> Option<IpNet> {
        let shift = u32::from(self.range.max_prefix_len() - self.mask);
        match self.range {
            IpNet::V4(net) => {
                let bits = u32::from(net.network()) | index.checked_shl(shift).unwrap_or(0);
                IpNet::new(core::net::IpAddr::V4(bits.into()), self.mask).ok()
            }
            IpNet::V6(net) => {
                let bits = u128::from(net.network()) | u128::from(index).checked_shl(shift).unwrap_or(0);
                IpNet::new(core::net::IpAddr::V6(bits.into()), self.mask).ok()
            }
        }
    }

    fn index_of(&self, net: IpNet) -> Option<u32> {
        if !self.range.contains(&net.network()) || net.prefix_len() < self.mask {
            return None;
        }
        let shift = u32::from(self.range.max_prefix_len() - self.mask);
        let bits = match (self.range, net) {
            (IpNet::V4(range), IpNet::V4(net)) => {
                u128::from(u32::from(net.network()) ^ u32::from(range.network()))
            }
            (IpNet::V6(range), IpNet::V6(net)) => u128::from(net.network()) ^ u128::from(range.network()),
            _ => return None,
        };
        u32::try_from(bits.checked_shr(shift)?).ok()
    }

    /// A part that was not given out; none if all are.
    pub fn allocate(&mut self) -> Option<IpNet> {
        let parts = self.parts();
        let index = (0..parts).map(|i| (self.next + i) % parts).find(|i| !self.used.contains(i))?;
        self.used.insert(index);
        self.next = (index + 1) % parts;
        self.part(index)
    }

    /// Marks the part that holds `net` as given out.
    pub fn occupy(&mut self, net: IpNet) {
        if let Some(index) = self.index_of(net) {
            self.used.insert(index);
        }
    }

    /// Takes a part back.
    pub fn release(&mut self, net: IpNet) {
        if let Some(index) = self.index_of(net) {
            self.used.remove(&index);
        }
    }
}

/// The controller that gives each node its `spec.podCIDRs`.
#[derive(Clone, Debug)]
pub struct NodeIpam {
    allocators: Vec<CidrAllocator>,
    /// What each node has, or is about to get.
    held: BTreeMap<String, Vec<IpNet>>,
}

impl NodeIpam {
    /// Gives each node one part of each allocator; the first is the primary family.
    #[must_use]
    pub const fn new(allocators: Vec<CidrAllocator>) -> Self {
        Self { allocators, held: BTreeMap::new() }
    }

    fn release(&mut self, node: &str) {
        for net in self.held.remove(node).into_iter().flatten() {
            self.allocators.iter_mut().for_each(|a| a.release(net));
        }
    }
}

fn cidrs_of(node: &Object) -> Vec<IpNet> {
    let list = node.at("/spec/podCIDRs").and_then(Value::as_array).cloned().unwrap_or_default();
    let texts = list.iter().filter_map(Value::as_str);
    texts.chain([node.str_at("/spec/podCIDR")]).filter_map(|t| t.parse().ok()).collect()
}

impl Controller for NodeIpam {
    fn name(&self) -> &'static str {
        "cidrAllocator"
    }

    fn watches(&self) -> Vec<Gvr> {
        vec![resources::NODES]
    }

    fn reset(&mut self) {
        for node in self.held.keys().cloned().collect::<Vec<_>>() {
            self.release(&node);
        }
    }

    fn concerns(&mut self, _now: Time, _cache: &Cache, _gvr: &Gvr, delta: &Delta, keys: &mut Vec<ObjectKey>) {
        let node = delta.object();
        let name = &node.metadata.name;
        match delta {
            Delta::Deleted(_) => self.release(name),
            Delta::Added(_) | Delta::Updated { .. } => {
                let cidrs = cidrs_of(node);
                if cidrs.is_empty() {
                    keys.push(ObjectKey::new("", name));
                } else {
                    cidrs.iter().for_each(|net| self.allocators.iter_mut().for_each(|a| a.occupy(*net)));
                    self.held.insert(name.clone(), cidrs);
                }
            }
        }
    }

    fn plan(&mut self, _now: Time, cache: &Cache, key: &ObjectKey, _rng: &mut Rng) -> Plan {
        let mut plan = Plan::none();
        let Some(node) = cache.store(&resources::NODES).get_key(key).filter(|n| cidrs_of(n).is_empty())
        else {
            return plan;
        };
        if !self.held.contains_key(&key.name) {
            let nets: Vec<Option<IpNet>> = self.allocators.iter_mut().map(CidrAllocator::allocate).collect();
            self.held.insert(key.name.clone(), nets.iter().flatten().copied().collect());
            if nets.iter().any(Option::is_none) {
                self.release(&key.name);
                let text = alloc::format!("Node {} status is now: CIDRNotAvailable", key.name);
                plan.notes.push(Note::normal(node, "CIDRNotAvailable", text));
                return plan;
            }
        }
        let nets: Vec<String> =
            self.held.get(&key.name).into_iter().flatten().map(ToString::to_string).collect();
        if let Some(first) = nets.first() {
            let body = json!({"metadata": {"uid": node.metadata.uid, "resourceVersion": node.metadata.resource_version},
                "spec": {"podCIDR": first, "podCIDRs": nets}});
            plan.one(Action::merge(&resources::NODES, key, body));
        }
        plan
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_part_once_then_none() {
        let mut a = CidrAllocator::new("10.0.0.0/30".parse().unwrap(), 32).unwrap();
        a.occupy("10.0.0.1/32".parse().unwrap());
        let got: Vec<String> = core::iter::from_fn(|| a.allocate()).map(|n| n.to_string()).collect();
        assert_eq!(got, ["10.0.0.0/32", "10.0.0.2/32", "10.0.0.3/32"]);
        a.release("10.0.0.2/32".parse().unwrap());
        assert_eq!(a.allocate().unwrap().to_string(), "10.0.0.2/32");
        let mut six = CidrAllocator::new("fd00:1::/48".parse().unwrap(), 64).unwrap();
        six.allocate();
        assert_eq!(six.allocate().unwrap().to_string(), "fd00:1:0:1::/64");
        let wrong = CidrAllocator::new("10.0.0.0/8".parse().unwrap(), 28);
        assert!(
            wrong.unwrap_err().to_string().starts_with("cluster CIDR 10.0.0.0/8: cannot be divided into /28")
        );
    }
}
