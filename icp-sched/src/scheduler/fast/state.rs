//! What is kept for a class of pods: which nodes will do, in which group, with how many points.

use alloc::collections::{BTreeMap, BTreeSet};
use alloc::sync::Arc;
use alloc::vec::Vec;

use super::axes::Axes;
use super::index::{Index, POINTS_MAX};
use crate::cache::{Change, Cluster, Map, NodeId};
use crate::framework::{Cycle, Rejection};
use crate::model::PodSpec;
use crate::plugins::interpod::{Field, Fields, Pulls, attracts_all, pulls};
use crate::plugins::spread::{self, Hard, Soft};
use crate::plugins::{balanced, fit, images, node_affinity, node_ports, taints, unschedulable};

/// Classes of existing pods whose effect is remembered.
const MEMO_MAX: usize = 4096;
/// A row without a node.
const NO_NODE: u32 = u32::MAX;
/// A row that will do.
const FINE: u32 = 0;

/// What depends on the node's object alone.
#[derive(Clone, Copy, Debug, Default)]
struct Fixed {
    verdict: u32,
    images: i32,
    taints: i64,
    affinity: i64,
}

/// Rejections by number, and how many nodes have each.
#[derive(Debug, Default)]
struct Reasons {
    list: Vec<(Rejection, usize)>,
    numbers: Map<Rejection, u32>,
}

impl Reasons {
    fn number(&mut self, rejection: Rejection) -> u32 {
        if let Some(n) = self.numbers.get(&rejection) {
            return *n;
        }
        self.list.push((rejection.clone(), 0));
        let n = u32::try_from(self.list.len()).unwrap_or(NO_NODE - 1);
        self.numbers.insert(rejection, n);
        n
    }

    fn count(&mut self, number: u32, more: bool) {
        let at = (number as usize).wrapping_sub(1);
        if let Some((_, n)) = self.list.get_mut(at).filter(|_| number != NO_NODE) {
            *n = if more { *n + 1 } else { n.saturating_sub(1) };
        }
    }

    fn get(&self, number: u32) -> Option<&Rejection> {
        self.list.get((number as usize).wrapping_sub(1)).map(|(r, _)| r)
    }
}

/// What one existing pod of a class does to the counts.
#[derive(Clone, Debug)]
struct Effect {
    pulls: Pulls,
    hard: u64,
    soft: u64,
}

/// The state of a class.
#[derive(Debug)]
pub(super) struct ClassState {
    pub(super) spec: Arc<PodSpec>,
    seen: u64,
    fixed: Vec<Fixed>,
    verdicts: Vec<u32>,
    reasons: Reasons,
    pub(super) index: Index,
    pub(super) hard: Option<Hard>,
    pub(super) soft: Option<Soft>,
    pub(super) fields: Fields,
    pub(super) axes: Axes,
    /// The pod itself is one that it wants to be with.
    pub(super) attracts_itself: bool,
    effects: Map<u64, Effect>,
    /// The columns in which existing pods have a say, whether or not their nodes have the label.
    said: BTreeSet<(Field, usize)>,
    /// An image of the pod is on some node, so that every node that comes or goes changes the points of all.
    images_matter: bool,
    /// Numbers beyond what the index can hold: the class is decided on by asking every plugin about every node.
    pub(super) unusual: bool,
    /// When it was last used.
    pub(super) used: u64,
}

impl ClassState {
    /// Looks at the whole cluster. The pod's topology keys have columns.
    pub(super) fn build(cluster: &Cluster, spec: &Arc<PodSpec>) -> Self {
        let mut state = Self {
            spec: Arc::clone(spec),
            seen: cluster.changes().end(),
            fixed: Vec::new(),
            verdicts: Vec::new(),
            reasons: Reasons::default(),
            index: Index::default(),
            hard: (!spec.spread_hard.is_empty()).then(|| Hard::build(cluster, spec)),
            soft: Soft::build(cluster, spec),
            fields: Fields::default(),
            axes: Axes::default(),
            attracts_itself: attracts_all(cluster, spec, spec),
            effects: Map::default(),
            said: BTreeSet::new(),
            images_matter: cluster.images().any(&spec.images),
            unusual: false,
            used: 0,
        };
        for (id, _) in cluster.nodes() {
            for (class, count) in cluster.class_counts(id.row()) {
                if let Some(existing) = cluster.spec(class) {
                    state.effect(cluster, existing, cluster.serial(class), id.row(), i64::from(count));
                }
            }
        }
        match Axes::of(cluster, spec, state.soft.as_ref(), &state.said) {
            Some(axes) => state.axes = axes,
            None => state.unusual = true,
        }
        for row in 0..cluster.columns().rows() {
            state.look_at(cluster, row);
            state.refresh(cluster, row);
        }
        state
    }

    /// Follows what changed since it was last used.
    pub(super) fn catch_up(&mut self, cluster: &Cluster) {
        let end = cluster.changes().end();
        if self.seen == end {
            return;
        }
        let far = cluster.columns().rows().saturating_mul(2).max(64);
        let changes = match cluster.changes().since(self.seen) {
            Some(changes) if changes.len() <= far => changes,
            _ => return self.rebuild(cluster),
        };
        let spec = Arc::clone(&self.spec);
        self.images_matter |= cluster.images().any(&spec.images);
        let mut rows: smallvec::SmallVec<[u32; 8]> = smallvec::SmallVec::new();
        for change in changes {
            match change {
                Change::Meaning => return self.rebuild(cluster),
                Change::Started { .. } => {}
                Change::Node { .. } if !self.axes.is_plain() || self.images_matter => {
                    return self.rebuild(cluster);
                }
                Change::Node { row } => self.look_at(cluster, *row as usize),
                Change::Pod { row, spec, serial, times } => {
                    if self.effect(cluster, spec, *serial, *row as usize, i64::from(*times)) {
                        return self.rebuild(cluster);
                    }
                }
            }
            let (Change::Node { row } | Change::Pod { row, .. }) = change else { continue };
            if rows.len() > 8 || !rows.contains(row) {
                rows.push(*row);
            }
        }
        for row in rows {
            self.refresh(cluster, row as usize);
        }
        self.seen = end;
    }

    fn rebuild(&mut self, cluster: &Cluster) {
        let used = self.used;
        *self = Self::build(cluster, &Arc::clone(&self.spec));
        self.used = used;
    }

    /// Counts existing pods. Says whether they have a say that no key has room for.
    fn effect(&mut self, cluster: &Cluster, existing: &PodSpec, serial: u64, row: usize, times: i64) -> bool {
        if !self.effects.contains_key(&serial) {
            if self.effects.len() >= MEMO_MAX {
                self.effects.clear();
            }
            let spec = &self.spec;
            let soft = self.soft.as_ref().map_or(0, |s| spread::matching(spec, s.list(), existing));
            let effect = Effect {
                pulls: pulls(cluster, spec, existing, true, true),
                hard: spread::matching(spec, &spec.spread_hard, existing),
                soft,
            };
            self.said.extend(effect.pulls.iter().map(|p| (p.field, p.column)));
            self.effects.insert(serial, effect);
        }
        let Some(effect) = self.effects.get(&serial) else { return true };
        if let Some(hard) = &mut self.hard {
            hard.pods(cluster, &self.spec, effect.hard, row, times);
        }
        if let Some(soft) = &mut self.soft {
            soft.pods(cluster, &self.spec, effect.soft, row, times);
        }
        if effect.pulls.is_empty() {
            return false;
        }
        self.fields.apply(cluster, &effect.pulls, row, times);
        effect.pulls.iter().any(|p| self.axes.lacks(p.field, p.column))
    }

    /// What plugins say of the node's object, which seldom changes.
    fn look_at(&mut self, cluster: &Cluster, row: usize) {
        if self.fixed.len() <= row {
            self.fixed.resize(row + 1, Fixed::default());
            self.verdicts.resize(row + 1, NO_NODE);
        }
        let id = NodeId::of(row);
        let spec = &self.spec;
        let fixed = match cluster.node(id) {
            None => Fixed { verdict: NO_NODE, ..Fixed::default() },
            Some(node) => {
                let rejection = if node.unschedulable && !unschedulable::tolerated(spec) {
                    Some(unschedulable::rejection().by("NodeUnschedulable"))
                } else if let Some(taint) = taints::repelling(spec, node) {
                    Some(taints::rejection(taint).by("TaintToleration"))
                } else if !node_affinity::allows(spec, node) {
                    Some(node_affinity::rejection().by("NodeAffinity"))
                } else {
                    None
                };
                Fixed {
                    verdict: rejection.map_or(FINE, |r| self.reasons.number(r)),
                    images: i32::try_from(images::points(cluster, spec, id)).unwrap_or(0),
                    taints: taints::dislikes(spec, node),
                    affinity: node_affinity::preference(spec, node),
                }
            }
        };
        if let Some(slot) = self.fixed.get_mut(row) {
            *slot = fixed;
        }
    }

    /// What plugins say of what is taken on the node.
    fn refresh(&mut self, cluster: &Cluster, row: usize) {
        let Some(fixed) = self.fixed.get(row).copied() else { return };
        let (columns, spec) = (cluster.columns(), &self.spec);
        let mut verdict = fixed.verdict;
        if verdict == FINE && !spec.host_ports.is_empty() {
            let cycle = Cycle { pod: spec, cluster, node_name: None };
            if node_ports::taken(&cycle, row) {
                verdict = self.reasons.number(node_ports::rejection().by("NodePorts"));
            }
        }
        if verdict == FINE && !fit::fits(columns, spec, row) {
            verdict = match fit::lacking(columns, spec, row) {
                Some(lacking) => self.reasons.number(lacking.by("NodeResourcesFit")),
                None => FINE,
            };
        }
        if let Some(slot) = self.verdicts.get_mut(row) {
            let before = core::mem::replace(slot, verdict);
            if before != verdict {
                self.reasons.count(before, false);
                self.reasons.count(verdict, true);
            }
        }
        if verdict != FINE {
            self.index.remove(row);
            return;
        }
        let balance = if balanced::cares(spec) { balanced::points(columns, spec, row) } else { 0 };
        let points = fit::least_allocated(columns, spec, row) + balance + i64::from(fixed.images);
        let Some(points) = usize::try_from(points).ok().filter(|p| *p <= POINTS_MAX) else {
            self.unusual = true;
            return;
        };
        let counted = (self.hard.as_ref(), self.soft.as_ref(), &self.fields);
        let key = self.axes.key(cluster, (fixed.taints, fixed.affinity), counted, row);
        self.index.put(row, &key, points);
    }

    /// How many nodes each rejection keeps off, without what depends on groups.
    pub(super) fn rejections(&self) -> BTreeMap<u32, usize> {
        let numbered = self.reasons.list.iter().enumerate();
        numbered.filter(|(_, (_, n))| *n > 0).map(|(at, (_, n))| (at as u32 + 1, *n)).collect()
    }

    /// The number of the rejection that keeps a node off.
    pub(super) fn verdict_number(&self, row: usize) -> Option<u32> {
        self.verdicts.get(row).copied().filter(|v| !matches!(*v, FINE | NO_NODE))
    }

    /// A rejection by its number.
    pub(super) fn rejection(&self, number: u32) -> Option<&Rejection> {
        self.reasons.get(number)
    }

    /// What keeps a node off: by its object, or by what is taken on it.
    pub(super) fn verdict(&self, row: usize) -> (Option<&Rejection>, Option<&Rejection>) {
        let fixed = self.fixed.get(row).and_then(|f| self.reasons.get(f.verdict));
        (fixed, self.verdicts.get(row).and_then(|v| self.reasons.get(*v)))
    }
}
