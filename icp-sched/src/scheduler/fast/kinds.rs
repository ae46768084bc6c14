//! What the objects of nodes mean to pods: shared by all classes that ask the same of node objects.

use alloc::collections::BTreeMap;
use alloc::string::String;
use alloc::sync::Arc;
use alloc::vec::Vec;

use super::feed::Feed;
use crate::cache::{Cluster, Map, NodeId};
use crate::framework::Rejection;
use crate::model::{NodeTerm, PodSpec, PreferredNodeTerm, Toleration};
use crate::plugins::{images, node_affinity, taints, unschedulable};

/// Kinds beyond the number of rows before they are numbered anew.
const SPARE_KINDS: usize = 1024;
/// A row without a node.
const ABSENT: u32 = u32::MAX;

/// What pods ask of node objects.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(super) struct Wishes {
    tolerations: Vec<Toleration>,
    node_selector: Option<BTreeMap<String, String>>,
    node_terms: Option<Vec<NodeTerm>>,
    node_preferences: Option<Vec<PreferredNodeTerm>>,
    images: Vec<String>,
}

impl Wishes {
    pub(super) fn of(spec: &PodSpec) -> Self {
        Self {
            tolerations: spec.tolerations.clone(),
            node_selector: spec.node_selector.clone(),
            node_terms: spec.node_terms.clone(),
            node_preferences: spec.node_preferences.clone(),
            images: spec.images.clone(),
        }
    }
}

/// What the plugins that look at node objects say.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub(super) struct Kind {
    pub(super) rejection: Option<Rejection>,
    pub(super) images: i64,
    pub(super) taints: i64,
    pub(super) affinity: i64,
    /// Node affinity and selector allow it, which spread constraints may honour.
    pub(super) allowed: bool,
    /// It has a taint that repels, which spread constraints may honour.
    pub(super) repels: bool,
}

impl Kind {
    fn of(cluster: &Cluster, spec: &PodSpec, id: NodeId) -> Option<Self> {
        let node = cluster.node(id)?;
        let (allowed, repelling) = (node_affinity::allows(spec, node), taints::repelling(spec, node));
        let rejection = if node.unschedulable && !unschedulable::tolerated(spec) {
            Some(unschedulable::rejection().by("NodeUnschedulable"))
        } else if let Some(taint) = repelling {
            Some(taints::rejection(taint).by("TaintToleration"))
        } else if !allowed {
            Some(node_affinity::rejection().by("NodeAffinity"))
        } else {
            None
        };
        Some(Self {
            rejection,
            images: images::points(cluster, spec, id),
            taints: taints::dislikes(spec, node),
            affinity: node_affinity::preference(spec, node),
            allowed,
            repels: repelling.is_some(),
        })
    }
}

/// The kind of every node.
#[derive(Debug)]
pub(super) struct Kinds {
    /// A pod with the wishes.
    spec: Arc<PodSpec>,
    /// With how many nodes each has.
    list: Vec<(Kind, usize)>,
    numbers: Map<Kind, u32>,
    of_row: Vec<u32>,
    seen: u64,
    /// An image of the pod is on some node, so that every node that comes or goes changes the points of all.
    images_matter: bool,
    /// Changes when nodes become of another kind that did not change themselves.
    pub(super) epoch: u64,
    /// How many classes use it.
    pub(super) users: usize,
}

impl Kinds {
    pub(super) fn new(cluster: &Cluster, feed: &Feed, spec: &Arc<PodSpec>) -> Self {
        let mut kinds = Self {
            spec: Arc::clone(spec),
            list: Vec::new(),
            numbers: Map::default(),
            of_row: Vec::new(),
            seen: feed.nodes_end(),
            images_matter: cluster.images().any(&spec.images),
            epoch: 0,
            users: 0,
        };
        (0..cluster.columns().rows()).for_each(|row| {
            kinds.look_at(cluster, row);
        });
        kinds
    }

    /// Lets go of what nobody uses.
    pub(super) fn clear(&mut self) {
        self.list = Vec::new();
        self.numbers = Map::default();
        self.of_row = Vec::new();
    }

    pub(super) fn wishes(&self) -> Wishes {
        Wishes::of(&self.spec)
    }

    /// Follows what nodes became.
    pub(super) fn catch_up(&mut self, cluster: &Cluster, feed: &Feed) {
        let end = feed.nodes_end();
        if self.seen == end {
            return;
        }
        let rows = cluster.columns().rows();
        self.images_matter |= cluster.images().any(&self.spec.images);
        if self.list.len() > rows + SPARE_KINDS {
            self.list.clear();
            self.numbers.clear();
            self.of_row.clear();
            (0..rows).for_each(|row| {
                self.look_at(cluster, row);
            });
            self.epoch += 1;
        } else {
            match feed.nodes_since(self.seen) {
                Some(changed) if !self.images_matter && changed.len() <= rows => {
                    for row in changed {
                        self.look_at(cluster, *row as usize);
                    }
                }
                changed => {
                    let mut known: Vec<u32> = changed.unwrap_or_default().to_vec();
                    known.sort_unstable();
                    for row in 0..rows {
                        let told = u32::try_from(row).is_ok_and(|row| known.binary_search(&row).is_ok());
                        if self.look_at(cluster, row) && !told {
                            self.epoch += 1;
                        }
                    }
                }
            }
        }
        self.seen = end;
    }

    /// Says whether the node became of another kind.
    fn look_at(&mut self, cluster: &Cluster, row: usize) -> bool {
        if self.of_row.len() <= row {
            self.of_row.resize(row + 1, ABSENT);
        }
        let number = match Kind::of(cluster, &self.spec, NodeId::of(row)) {
            None => ABSENT,
            Some(kind) => match self.numbers.get(&kind) {
                Some(number) => *number,
                None => {
                    let number = u32::try_from(self.list.len()).unwrap_or(ABSENT);
                    self.list.push((kind.clone(), 0));
                    self.numbers.insert(kind, number);
                    number
                }
            },
        };
        let Some(slot) = self.of_row.get_mut(row) else { return false };
        let before = core::mem::replace(slot, number);
        if let Some((_, n)) = self.list.get_mut(before as usize) {
            *n -= 1;
        }
        if let Some((_, n)) = self.list.get_mut(number as usize) {
            *n += 1;
        }
        before != number
    }

    /// The kind of a node; `None` if the row has none.
    pub(super) fn kind(&self, row: usize) -> Option<&Kind> {
        self.list.get(*self.of_row.get(row)? as usize).map(|(kind, _)| kind)
    }

    /// The same with its number.
    pub(super) fn numbered(&self, row: usize) -> Option<(usize, &Kind)> {
        let number = *self.of_row.get(row)? as usize;
        self.list.get(number).map(|(kind, _)| (number, kind))
    }

    /// The one kind that all nodes are of, if they are.
    pub(super) fn uniform(&self) -> Option<&Kind> {
        let mut present = self.list.iter().filter(|(_, n)| *n > 0);
        let (kind, _) = present.next()?;
        present.next().is_none().then_some(kind)
    }

    /// The kinds by number, some without nodes.
    pub(super) fn list(&self) -> impl ExactSizeIterator<Item = &Kind> {
        self.list.iter().map(|(kind, _)| kind)
    }

    /// The number of the kind of each row; beyond the list if there is no node.
    pub(super) fn of_row(&self) -> &[u32] {
        &self.of_row
    }
}
