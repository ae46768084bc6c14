//! The pods that weigh on nodes.

use icp_core::client::ObjectKey;
use smallvec::SmallVec;

use super::{Chunks, ClassId, Index, NodeId};
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

/// Slots in a chunk; a pod is large.
const CHUNK: usize = 64;

/// A slab of pods with an index by name and one by node.
#[derive(Debug, Default)]
pub(super) struct Pods {
    slots: Chunks<Option<Placed>, CHUNK>,
    free: Chunks<u32>,
    /// Slots by the keys that stand in them.
    by_key: Index<256>,
    on_node: Chunks<SmallVec<[u32; 6]>>,
}

impl Pods {
    /// The same pods for a snapshot.
    pub(super) fn share(&mut self) -> Self {
        Self {
            slots: self.slots.share(),
            free: self.free.share(),
            by_key: self.by_key.share(),
            on_node: self.on_node.share(),
        }
    }

    pub(super) fn len(&self) -> usize {
        self.by_key.len()
    }

    fn slot(&self, key: &ObjectKey) -> Option<u32> {
        self.slot_hashed(key, self.by_key.hash(key))
    }

    fn slot_hashed(&self, key: &ObjectKey, hash: u64) -> Option<u32> {
        let is = |slot: u32| {
            self.slots.get(slot as usize).is_some_and(|p| p.as_ref().is_some_and(|p| p.pod.key == *key))
        };
        self.by_key.find(hash, is)
    }

    pub(super) fn get(&self, key: &ObjectKey) -> Option<&Placed> {
        self.slots.get(self.slot(key)? as usize)?.as_ref()
    }

    pub(super) fn get_mut(&mut self, key: &ObjectKey) -> Option<&mut Placed> {
        let slot = self.slot(key)?;
        self.slots.get_mut(slot as usize)?.as_mut()
    }

    pub(super) fn insert(&mut self, placed: Placed) {
        let hash = self.hash(&placed.pod.key);
        self.insert_hashed(placed, hash);
    }

    /// The hash of a key, for those who look for it more than once.
    pub(super) fn hash(&self, key: &ObjectKey) -> u64 {
        self.by_key.hash(key)
    }

    /// Whether there is a pod of that name.
    pub(super) fn has(&self, key: &ObjectKey, hash: u64) -> bool {
        self.slot_hashed(key, hash).is_some()
    }

    /// Adds a pod whose key has this hash, and is not there.
    #[inline]
    pub(super) fn insert_hashed(&mut self, placed: Placed, hash: u64) {
        let node = placed.node;
        let slot = match self.free.pop() {
            Some(slot) => {
                if let Some(s) = self.slots.get_mut(slot as usize) {
                    *s = Some(placed);
                }
                slot
            }
            None => {
                self.slots.push(Some(placed));
                u32::try_from(self.slots.len() - 1).unwrap_or(u32::MAX)
            }
        };
        self.by_key.insert(hash, slot);
        if let Some(list) = node.and_then(|node| self.list(node)) {
            list.push(slot);
        }
    }

    pub(super) fn remove(&mut self, key: &ObjectKey) -> Option<Placed> {
        let slot = self.slot(key)?;
        self.by_key.remove(self.by_key.hash(key), slot);
        let placed = self.slots.get_mut(slot as usize)?.take()?;
        self.free.push(slot);
        if let Some(list) = placed.node.and_then(|node| self.list(node)) {
            list.retain(|s| *s != slot);
        }
        Some(placed)
    }

    pub(super) fn on(&self, node: NodeId) -> impl Iterator<Item = &Placed> {
        let list = self.on_node.get(node.row()).map(SmallVec::as_slice).unwrap_or_default();
        list.iter().filter_map(|s| self.slots.get(*s as usize)?.as_ref())
    }

    fn list(&mut self, node: NodeId) -> Option<&mut SmallVec<[u32; 6]>> {
        if self.on_node.len() <= node.row() {
            self.on_node.grow(node.row() + 1, SmallVec::new);
        }
        self.on_node.get_mut(node.row())
    }
}
