//! The pods that weigh on nodes.

use alloc::vec::Vec;
use core::hash::BuildHasher as _;

use foldhash::fast::FixedState;
use hashbrown::HashTable;

use icp_core::client::ObjectKey;
use smallvec::SmallVec;

use super::{ClassId, NodeId};
use crate::model::Pod;

/// A pod that weighs on a node, or would if its node were known.
#[derive(Clone, Debug)]
pub(crate) struct Placed {
    pub(crate) pod: Pod,
    pub(crate) class: ClassId,
    pub(crate) node: Option<NodeId>,
    /// It was placed here, and the API server does not show it yet.
    pub(crate) assumed: bool,
}

/// A slab of pods with an index by name and one by node.
#[derive(Debug, Default)]
pub(super) struct Pods {
    slots: Vec<Option<Placed>>,
    free: Vec<u32>,
    /// Slots by the keys that stand in them.
    by_key: HashTable<u32>,
    hasher: FixedState,
    on_node: Vec<SmallVec<[u32; 6]>>,
}

impl Pods {
    pub(super) fn len(&self) -> usize {
        self.by_key.len()
    }

    fn slot(&self, key: &ObjectKey) -> Option<u32> {
        let is = |slot: &u32| {
            self.slots.get(*slot as usize).is_some_and(|p| p.as_ref().is_some_and(|p| p.pod.key == *key))
        };
        self.by_key.find(self.hasher.hash_one(key), is).copied()
    }

    pub(super) fn get(&self, key: &ObjectKey) -> Option<&Placed> {
        self.slots.get(self.slot(key)? as usize)?.as_ref()
    }

    pub(super) fn get_mut(&mut self, key: &ObjectKey) -> Option<&mut Placed> {
        let slot = self.slot(key)?;
        self.slots.get_mut(slot as usize)?.as_mut()
    }

    pub(super) fn insert(&mut self, placed: Placed) {
        let slot = match self.free.pop() {
            Some(slot) => slot,
            None => {
                self.slots.push(None);
                u32::try_from(self.slots.len() - 1).unwrap_or(u32::MAX)
            }
        };
        if let Some(node) = placed.node {
            self.list(node).push(slot);
        }
        let hash = self.hasher.hash_one(&placed.pod.key);
        if let Some(s) = self.slots.get_mut(slot as usize) {
            *s = Some(placed);
        }
        let (slots, hasher) = (&self.slots, &self.hasher);
        let hash_of = |slot: &u32| {
            slots.get(*slot as usize).and_then(Option::as_ref).map_or(0, |p| hasher.hash_one(&p.pod.key))
        };
        self.by_key.insert_unique(hash, slot, hash_of);
    }

    pub(super) fn remove(&mut self, key: &ObjectKey) -> Option<Placed> {
        let slot = self.slot(key)?;
        if let Ok(entry) = self.by_key.find_entry(self.hasher.hash_one(key), |s| *s == slot) {
            entry.remove();
        }
        let placed = self.slots.get_mut(slot as usize)?.take()?;
        self.free.push(slot);
        if let Some(node) = placed.node {
            self.list(node).retain(|s| *s != slot);
        }
        Some(placed)
    }

    pub(super) fn on(&self, node: NodeId) -> impl Iterator<Item = &Placed> {
        let list = self.on_node.get(node.row()).map(SmallVec::as_slice).unwrap_or_default();
        list.iter().filter_map(|s| self.slots.get(*s as usize)?.as_ref())
    }

    fn list(&mut self, node: NodeId) -> &mut SmallVec<[u32; 6]> {
        let row = node.row();
        if self.on_node.len() <= row {
            self.on_node.resize_with(row + 1, SmallVec::new);
        }
        // The list was just made long enough.
        #[expect(clippy::indexing_slicing, reason = "resized above")]
        &mut self.on_node[row]
    }
}
