//! Pods for which room was made on a node, and that are not there yet.

use alloc::collections::BTreeMap;
use alloc::string::String;
use alloc::vec::Vec;

use icp_core::client::ObjectKey;

use crate::cache::{Log, Shared};
use crate::model::Pod;

/// Nominated pods, by node.
#[derive(Debug, Default)]
pub(crate) struct Nominated {
    by_node: Shared<BTreeMap<String, BTreeMap<ObjectKey, Pod>>>,
    node_of: Shared<BTreeMap<ObjectKey, String>>,
    /// The nodes where pods came and went.
    changes: Log<String>,
}

impl Nominated {
    /// The same pods for a snapshot; the first change on either side copies them.
    pub(crate) fn share(&mut self) -> Self {
        Self { by_node: self.by_node.share(), node_of: self.node_of.share(), changes: Log::default() }
    }

    pub(crate) fn set(&mut self, pod: Pod, node: &str) {
        self.remove(&pod.key);
        self.node_of.get_mut().insert(pod.key.clone(), node.into());
        self.changes.push(node.into());
        self.by_node.get_mut().entry(node.into()).or_default().insert(pod.key.clone(), pod);
    }

    pub(crate) fn remove(&mut self, key: &ObjectKey) -> Option<String> {
        if self.is_empty() || !self.node_of.get().contains_key(key) {
            return None;
        }
        let node = self.node_of.get_mut().remove(key)?;
        let by_node = self.by_node.get_mut();
        if let Some(pods) = by_node.get_mut(&node) {
            pods.remove(key);
            if pods.is_empty() {
                by_node.remove(&node);
            }
        }
        self.changes.push(node.clone());
        Some(node)
    }

    pub(crate) const fn changes(&self) -> &Log<String> {
        &self.changes
    }

    pub(crate) fn node_of(&self, key: &ObjectKey) -> Option<&str> {
        if self.is_empty() {
            return None;
        }
        self.node_of.get().get(key).map(String::as_str)
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.by_node.get().is_empty()
    }

    /// The pods on a node.
    pub(crate) fn on(&self, node: &str) -> impl Iterator<Item = &Pod> {
        self.by_node.get().get(node).into_iter().flat_map(BTreeMap::values)
    }

    /// For each node, the pods that are at least as important as `pod`, without itself.
    pub(crate) fn weighing_on(&self, pod: &Pod) -> Vec<(&str, Vec<&Pod>)> {
        let counts = |p: &&Pod| p.spec.priority >= pod.spec.priority && p.key != pod.key;
        let nodes = self.by_node.get().iter();
        nodes
            .map(|(node, pods)| (node.as_str(), pods.values().filter(counts).collect::<Vec<_>>()))
            .filter(|(_, pods)| !pods.is_empty())
            .collect()
    }
}
