//! Which images how many nodes hold.

use alloc::collections::{BTreeMap, BTreeSet};
use alloc::string::String;

use super::NodeId;
use crate::model::Node;

#[derive(Clone, Debug)]
struct ImageState {
    /// The size that the first node told.
    bytes: i64,
    nodes: BTreeSet<NodeId>,
}

/// The images of all nodes.
#[derive(Clone, Debug, Default)]
pub(crate) struct Images {
    by_name: BTreeMap<String, ImageState>,
}

impl Images {
    pub(super) fn add(&mut self, id: NodeId, node: &Node) {
        for image in &node.images {
            for name in &image.names {
                self.by_name
                    .entry(name.clone())
                    .or_insert_with(|| ImageState { bytes: image.bytes, nodes: BTreeSet::new() })
                    .nodes
                    .insert(id);
            }
        }
    }

    pub(super) fn remove(&mut self, id: NodeId, node: &Node) {
        for name in node.images.iter().flat_map(|i| &i.names) {
            if let Some(state) = self.by_name.get_mut(name) {
                state.nodes.remove(&id);
                if state.nodes.is_empty() {
                    self.by_name.remove(name);
                }
            }
        }
    }

    /// Whether some node holds one of these images.
    pub(crate) fn any(&self, names: &[String]) -> bool {
        !self.by_name.is_empty() && names.iter().any(|n| self.by_name.contains_key(n))
    }

    /// The size in bytes of an image, if the node holds it, and how many nodes do.
    pub(crate) fn on(&self, id: NodeId, name: &str) -> Option<(i64, usize)> {
        self.by_name.get(name).filter(|s| s.nodes.contains(&id)).map(|s| (s.bytes, s.nodes.len()))
    }
}
