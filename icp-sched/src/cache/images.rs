//! Which images how many nodes hold.

use alloc::collections::{BTreeMap, BTreeSet};
use alloc::string::String;
use alloc::sync::Arc;

use super::{NodeId, Shared};
use crate::model::Node;

#[derive(Clone, Debug, Default)]
struct ImageState {
    /// The size that the first node told.
    bytes: i64,
    nodes: BTreeSet<NodeId>,
}

/// The images of all nodes.
#[derive(Debug, Default)]
pub(crate) struct Images {
    by_name: Shared<BTreeMap<String, Arc<ImageState>>>,
}

impl Images {
    /// The same images for a snapshot. The first change on one side copies the names, and the nodes of those images that
    /// it is about.
    pub(super) fn share(&mut self) -> Self {
        Self { by_name: self.by_name.share() }
    }

    pub(super) fn add(&mut self, id: NodeId, node: &Node) {
        for image in &node.images {
            for name in &image.names {
                let by_name = self.by_name.get_mut();
                let state = by_name
                    .entry(name.clone())
                    .or_insert_with(|| Arc::new(ImageState { bytes: image.bytes, nodes: BTreeSet::new() }));
                Arc::make_mut(state).nodes.insert(id);
            }
        }
    }

    pub(super) fn remove(&mut self, id: NodeId, node: &Node) {
        for name in node.images.iter().flat_map(|i| &i.names) {
            let by_name = self.by_name.get_mut();
            if let Some(state) = by_name.get_mut(name) {
                let state = Arc::make_mut(state);
                state.nodes.remove(&id);
                if state.nodes.is_empty() {
                    by_name.remove(name);
                }
            }
        }
    }

    /// Whether some node holds one of these images.
    pub(crate) fn any(&self, names: &[String]) -> bool {
        let by_name = self.by_name.get();
        !by_name.is_empty() && names.iter().any(|n| by_name.contains_key(n))
    }

    /// The size in bytes of an image, if the node holds it, and how many nodes do.
    pub(crate) fn on(&self, id: NodeId, name: &str) -> Option<(i64, usize)> {
        self.by_name.get().get(name).filter(|s| s.nodes.contains(&id)).map(|s| (s.bytes, s.nodes.len()))
    }
}
