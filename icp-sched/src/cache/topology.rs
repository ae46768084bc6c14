//! Topology domains as numbers: for each key that a pod ever asked about, which domain each node is in.

use alloc::collections::BTreeMap;
use alloc::string::String;
use alloc::sync::Arc;
use alloc::vec::Vec;

use super::{Chunks, Index};
use crate::model::Node;

/// The node has no such label.
pub(crate) const NO_DOMAIN: u32 = u32::MAX;

/// One topology key as a column.
#[derive(Debug, Default)]
pub(crate) struct TopologyColumn {
    key: String,
    /// By node: the number of its domain.
    pub(crate) domain_of: Chunks<u32>,
    /// By domain: the value of its label. Numbers are not given out twice.
    values: Chunks<String>,
    numbers: Index<64>,
    /// How many nodes each domain has.
    members: Chunks<u32>,
    /// Domains with more than one node.
    shared: usize,
}

impl TopologyColumn {
    fn share(&mut self) -> Self {
        Self {
            key: self.key.clone(),
            domain_of: self.domain_of.share(),
            values: self.values.share(),
            numbers: self.numbers.share(),
            members: self.members.share(),
            shared: self.shared,
        }
    }

    fn number(&mut self, value: &str) -> u32 {
        let hash = self.numbers.hash(value);
        let is = |n: u32| self.values.get(n as usize).is_some_and(|v| v == value);
        self.numbers.find(hash, is).unwrap_or_else(|| {
            let n = u32::try_from(self.values.len()).unwrap_or(NO_DOMAIN);
            self.values.push(value.into());
            self.members.push(0);
            self.numbers.insert(hash, n);
            n
        })
    }

    fn put(&mut self, at: usize, labels: Option<&BTreeMap<String, String>>) {
        self.domain_of.grow(at + 1, || NO_DOMAIN);
        let domain = match labels.and_then(|l| l.get(&self.key)) {
            Some(value) => self.number(value),
            None => NO_DOMAIN,
        };
        if let Some(slot) = self.domain_of.get_mut(at) {
            let before = core::mem::replace(slot, domain);
            self.count(before, false);
            self.count(domain, true);
        }
    }

    fn count(&mut self, domain: u32, more: bool) {
        if domain == NO_DOMAIN {
            return;
        }
        let Some(members) = self.members.get_mut(domain as usize) else { return };
        if more {
            *members += 1;
            self.shared += usize::from(*members == 2);
        } else {
            *members = members.saturating_sub(1);
            self.shared -= usize::from(*members == 1);
        }
    }
}

/// The columns that exist; a key gets one when it is first asked for.
#[derive(Debug, Default)]
pub(crate) struct Topology {
    columns: Vec<TopologyColumn>,
}

impl Topology {
    pub(super) fn share(&mut self) -> Self {
        Self { columns: self.columns.iter_mut().map(TopologyColumn::share).collect() }
    }

    /// The number of the column of `key`, made if there is none.
    pub(crate) fn ensure(&mut self, key: &str, nodes: &Chunks<Option<Arc<Node>>>) -> usize {
        if let Some(at) = self.find(key) {
            return at;
        }
        let mut column = TopologyColumn { key: key.into(), ..TopologyColumn::default() };
        for (at, node) in nodes.iter().enumerate() {
            column.put(at, node.as_ref().map(|n| &n.labels));
        }
        self.columns.push(column);
        self.columns.len() - 1
    }

    pub(crate) fn find(&self, key: &str) -> Option<usize> {
        self.columns.iter().position(|c| c.key == key)
    }

    /// Whether no domain has two nodes.
    pub(crate) fn is_unique(&self, column: usize) -> bool {
        self.columns.get(column).is_some_and(|c| c.shared == 0)
    }

    /// The domain of a node in a column.
    pub(crate) fn domain(&self, column: usize, node: usize) -> u32 {
        self.columns.get(column).and_then(|c| c.domain_of.get(node)).copied().unwrap_or(NO_DOMAIN)
    }

    pub(super) fn set_node(&mut self, at: usize, node: Option<&Node>) {
        for column in &mut self.columns {
            column.put(at, node.map(|n| &n.labels));
        }
    }
}
