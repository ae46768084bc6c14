//! Topology domains as numbers: for each key that a pod ever asked about, which domain each node is in.

use alloc::collections::BTreeMap;
use alloc::string::String;
use alloc::sync::Arc;
use alloc::vec::Vec;

use super::Map;
use crate::model::Node;

/// The node has no such label.
pub(crate) const NO_DOMAIN: u32 = u32::MAX;

/// One topology key as a column.
#[derive(Clone, Debug, Default)]
pub(crate) struct TopologyColumn {
    key: String,
    /// By node: the number of its domain.
    pub(crate) domain_of: Vec<u32>,
    numbers: Map<String, u32>,
    /// Numbers that were ever given out.
    domains: u32,
    /// How many nodes each domain has.
    members: Vec<u32>,
    /// Domains with more than one node.
    shared: usize,
}

impl TopologyColumn {
    fn put(&mut self, at: usize, labels: Option<&BTreeMap<String, String>>) {
        if self.domain_of.len() <= at {
            self.domain_of.resize(at + 1, NO_DOMAIN);
        }
        let domain = match labels.and_then(|l| l.get(&self.key)) {
            Some(value) => match self.numbers.get(value) {
                Some(n) => *n,
                None => {
                    let n = self.domains;
                    self.numbers.insert(value.clone(), n);
                    self.domains += 1;
                    n
                }
            },
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
        let at = domain as usize;
        if self.members.len() <= at {
            self.members.resize(at + 1, 0);
        }
        let Some(members) = self.members.get_mut(at) else { return };
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
#[derive(Clone, Debug, Default)]
pub(crate) struct Topology {
    columns: Vec<TopologyColumn>,
}

impl Topology {
    /// The number of the column of `key`, made if there is none.
    pub(crate) fn ensure(&mut self, key: &str, nodes: &[Option<Arc<Node>>]) -> usize {
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
