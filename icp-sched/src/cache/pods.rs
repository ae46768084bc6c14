//! The pods that weigh on nodes.

use alloc::vec::Vec;

use icp_core::client::ObjectKey;

use super::{ClassId, Map, NodeId};
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
    by_key: Map<ObjectKey, u32>,
    on_node: Vec<Vec<u32>>,
}

impl Pods {
    pub(super) fn len(&self) -> usize {
        self.by_key.len()
    }

    pub(super) fn get(&self, key: &ObjectKey) -> Option<&Placed> {
        self.slots.get(*self.by_key.get(key)? as usize)?.as_ref()
    }

    pub(super) fn get_mut(&mut self, key: &ObjectKey) -> Option<&mut Placed> {
        self.slots.get_mut(*self.by_key.get(key)? as usize)?.as_mut()
    }

    pub(super) fn iter(&self) -> impl Iterator<Item = &Placed> {
        self.slots.iter().flatten()
    }

    pub(super) fn insert(&mut self, placed: Placed) {
        let slot = match self.free.pop() {
            Some(slot) => slot,
            None => {
                self.slots.push(None);
                u32::try_from(self.slots.len() - 1).unwrap_or(u32::MAX)
            }
        };
        self.by_key.insert(placed.pod.key.clone(), slot);
        if let Some(node) = placed.node {
            self.list(node).push(slot);
        }
        if let Some(s) = self.slots.get_mut(slot as usize) {
            *s = Some(placed);
        }
    }

    pub(super) fn remove(&mut self, key: &ObjectKey) -> Option<Placed> {
        let slot = self.by_key.remove(key)?;
        let placed = self.slots.get_mut(slot as usize)?.take()?;
        self.free.push(slot);
        if let Some(node) = placed.node {
            self.list(node).retain(|s| *s != slot);
        }
        Some(placed)
    }

    pub(super) fn on(&self, node: NodeId) -> impl Iterator<Item = &Placed> {
        let list = self.on_node.get(node.row()).map(Vec::as_slice).unwrap_or_default();
        list.iter().filter_map(|s| self.slots.get(*s as usize)?.as_ref())
    }

    fn list(&mut self, node: NodeId) -> &mut Vec<u32> {
        let row = node.row();
        if self.on_node.len() <= row {
            self.on_node.resize_with(row + 1, Vec::new);
        }
        // The list was just made long enough.
        #[expect(clippy::indexing_slicing, reason = "resized above")]
        &mut self.on_node[row]
    }
}
