//! Terms of node affinity and of affinity between pods.

use alloc::collections::BTreeMap;
use alloc::string::String;
use alloc::vec::Vec;

use icp_core::api::labels::{Op, Requirement, Selector};

/// A term of a node selector: all its requirements hold. A term without any matches nothing.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub struct NodeTerm {
    /// What is asked of labels.
    pub labels: Vec<Requirement>,
    /// What is asked of `metadata.name` (`matchFields`).
    pub names: Vec<Requirement>,
}

impl NodeTerm {
    /// Whether the term asks for nothing, and so matches nothing.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.labels.is_empty() && self.names.is_empty()
    }

    /// Whether a node matches.
    #[must_use]
    pub fn matches(&self, name: &str, labels: &BTreeMap<String, String>) -> bool {
        !self.is_empty()
            && self.labels.iter().all(|r| r.matches(labels.get(&r.key).map(String::as_str)))
            && self.names.iter().all(|r| r.matches(Some(name)))
    }

    /// The names that the term allows, if it names nodes at all.
    #[must_use]
    pub fn named(&self) -> Option<Vec<&str>> {
        let mut lists = self.names.iter().filter(|r| r.op == Op::In);
        let mut names: Vec<&str> = lists.next()?.values.iter().map(String::as_str).collect();
        for list in lists {
            names.retain(|name| list.values.iter().any(|v| v == name));
        }
        Some(names)
    }
}

/// A preference for nodes.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct PreferredNodeTerm {
    /// How much it counts, 1 to 100.
    pub weight: i64,
    /// Which nodes.
    pub term: NodeTerm,
}

/// A term of (anti-)affinity between pods.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub struct AffinityTerm {
    /// Which pods; with `matchLabelKeys` and `mismatchLabelKeys` merged in.
    pub selector: Selector,
    /// In these namespaces, sorted; without any and without a selector: in the pod's own, which is listed then.
    pub namespaces: Vec<String>,
    /// And in the namespaces with these labels.
    pub namespace_selector: Option<Selector>,
    /// What counts as the same place.
    pub topology_key: String,
}

impl AffinityTerm {
    /// Whether a pod with `labels` in `namespace` (whose own labels are `namespace_labels`) is meant.
    #[must_use]
    pub fn matches(
        &self,
        namespace: &str,
        namespace_labels: Option<&BTreeMap<String, String>>,
        labels: &BTreeMap<String, String>,
    ) -> bool {
        let there = self.namespaces.iter().any(|n| n == namespace)
            || self.namespace_selector.as_ref().is_some_and(|s| match namespace_labels {
                Some(labels) => s.matches(labels),
                None => s.matches(&BTreeMap::new()),
            });
        there && self.selector.matches(labels)
    }
}

/// A preference for or against places with certain pods.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct WeightedAffinityTerm {
    /// How much it counts, 1 to 100.
    pub weight: i64,
    /// Which places.
    pub term: AffinityTerm,
}
