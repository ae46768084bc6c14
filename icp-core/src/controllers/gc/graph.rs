//! Who depends on whom.

use alloc::collections::{BTreeMap, BTreeSet};
use alloc::string::String;
use alloc::sync::Arc;
use alloc::vec::Vec;

use crate::api::{Gvr, Object};

/// An observed object.
#[derive(Clone, Debug)]
pub(super) struct Node {
    pub(super) gvr: Gvr,
    pub(super) object: Arc<Object>,
}

/// The observed objects that own something, or are owned.
#[derive(Clone, Debug, Default)]
pub(super) struct Graph {
    nodes: BTreeMap<String, Node>,
    /// The uids of those who name the key as an owner.
    dependents: BTreeMap<String, BTreeSet<String>>,
}

impl Graph {
    pub(super) fn node(&self, uid: &str) -> Option<&Node> {
        self.nodes.get(uid)
    }

    /// The dependents that were observed.
    pub(super) fn dependents<'a>(&'a self, uid: &str) -> impl Iterator<Item = &'a Node> {
        self.dependents.get(uid).into_iter().flatten().filter_map(|uid| self.nodes.get(uid))
    }

    pub(super) fn put(&mut self, gvr: &Gvr, object: &Arc<Object>) {
        let uid = &object.metadata.uid;
        let old = self.nodes.insert(uid.clone(), Node { gvr: gvr.clone(), object: Arc::clone(object) });
        if let Some(old) = old {
            self.unlink(&old.object);
        }
        for owner in &object.metadata.owner_references {
            self.dependents.entry(owner.uid.clone()).or_default().insert(uid.clone());
        }
    }

    pub(super) fn remove(&mut self, object: &Object) {
        if let Some(old) = self.nodes.remove(&object.metadata.uid) {
            self.unlink(&old.object);
        }
    }

    fn unlink(&mut self, object: &Object) {
        for owner in &object.metadata.owner_references {
            if let Some(of) = self.dependents.get_mut(&owner.uid) {
                of.remove(&object.metadata.uid);
                if of.is_empty() {
                    self.dependents.remove(&owner.uid);
                }
            }
        }
    }

    pub(super) fn dependent_uids(&self, uid: &str) -> Vec<String> {
        self.dependents.get(uid).into_iter().flatten().cloned().collect()
    }
}
