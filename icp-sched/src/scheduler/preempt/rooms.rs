//! What it would cost to make room on each node, kept for each class of preemptors and following the changes of the
//! cluster: for pods to which other pods matter only by what they take of a node.
//!
//! A node is looked at again when its pods, its object, the budgets of its pods or the pods that room is kept for on it
//! change; a preemption changes one node. Nodes on which all less important pods together leave too little are told by
//! the sums by priority that the cluster keeps, without looking at a pod.

use alloc::collections::{BTreeMap, BTreeSet};
use alloc::sync::Arc;
use alloc::vec::Vec;

use icp_core::client::ObjectKey;
use smallvec::SmallVec;

use super::cost::{Cost, by_importance};
use super::tournament::Tournament;
use super::{Budgets, NO_VICTIMS};
use crate::cache::{Cluster, Load, Map, NodeId};
use crate::framework::{Code, Reasons};
use crate::model::{Pod, PodSpec};
use crate::plugins::fit;
use crate::scheduler::fast::Fast;
use crate::scheduler::nominated::Nominated;

/// Rows that all classes together may keep, and the least number of classes.
const ROWS_MAX: usize = 1 << 21;
const CLASSES_MIN: usize = 4;

/// Victims of one node; seldom more.
pub(super) type Victims<'p> = SmallVec<[&'p Pod; 8]>;

/// What is seen of the cluster.
#[derive(Clone, Copy)]
pub(super) struct Ground<'g> {
    pub(super) cluster: &'g Cluster,
    pub(super) budgets: &'g Budgets,
    pub(super) nominated: &'g Nominated,
}

/// What became of trying to make room on a node.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Tried {
    /// It will do as it is, or nothing helps.
    Pointless,
    /// It does not do even so, for these reasons.
    Lacking(Reasons),
    /// There is room, at this cost; nothing if nobody has to go.
    Room(Option<Cost>),
}

impl<'g> Ground<'g> {
    /// The pods that room is kept for on a node, of those that are at least as important, without `except`.
    fn guests(self, spec: &PodSpec, except: Option<&ObjectKey>, row: usize) -> impl Iterator<Item = &'g Pod> {
        let node = if self.nominated.is_empty() { None } else { self.cluster.node(NodeId::of(row)) };
        let there = node.map(|n| self.nominated.on(&n.name)).into_iter().flatten();
        let (priority, except) = (spec.priority, except.cloned());
        there.filter(move |p| p.spec.priority >= priority && Some(&p.key) != except.as_ref())
    }

    /// Tries a node by arithmetic alone, and hands out the victims.
    pub(super) fn try_by_load(
        self,
        fast: &mut Fast,
        spec: &Arc<PodSpec>,
        except: Option<&ObjectKey>,
        row: usize,
        victims: &mut Victims<'g>,
    ) -> Tried {
        let columns = self.cluster.columns();
        let (Some(have), Some(load)) = (columns.capacity.get(row), columns.load.get(row)) else {
            return Tried::Pointless;
        };
        if self.cluster.node(NodeId::of(row)).is_none() {
            return Tried::Pointless;
        }
        let mut load: Load = *load;
        let guests = self.guests(spec, except, row).filter(|p| self.cluster.pod(&p.key).is_none());
        guests.for_each(|p| load.add(&p.spec, 1));
        let alone = fast.reject(self.cluster, spec, NodeId::of(row)).flatten();
        let code = match alone {
            Some(rejection) => Some(rejection.code),
            None => fit::lacking_load(have, &load, spec).map(|r| r.code),
        };
        if code != Some(Code::Unschedulable) {
            return Tried::Pointless;
        }
        let tiers = columns.tiers.get(row).map(SmallVec::as_slice).unwrap_or_default();
        let mut lower = tiers.iter().take_while(|t| t.priority < spec.priority).peekable();
        if lower.peek().is_none() {
            return Tried::Lacking(Reasons::from_elem(NO_VICTIMS.into(), 1));
        }
        lower.for_each(|tier| load -= &tier.load);
        if !fit::fits_load(have, &load, spec) {
            return Tried::Lacking(
                fit::lacking_load(have, &load, spec).map(|r| r.reasons).unwrap_or_default(),
            );
        }
        let mut pods: Victims<'g> =
            self.cluster.pods_on(NodeId::of(row)).filter(|p| p.spec.priority < spec.priority).collect();
        pods.sort_unstable_by(|a, b| by_importance(a, b));
        let violates = self.budgets.violating(pods.iter().copied());
        let mut violations = 0;
        victims.clear();
        // Pods whose budgets would be broken are spared first.
        for wanted in [true, false] {
            for (pod, violates) in pods.iter().zip(&violates).filter(|(_, v)| **v == wanted) {
                load.add(&pod.spec, 1);
                if !fit::fits_load(have, &load, spec) {
                    load.add(&pod.spec, -1);
                    victims.push(pod);
                    violations += usize::from(*violates);
                }
            }
        }
        Tried::Room(Cost::of(violations, victims.iter().copied()))
    }
}

/// A node that has no room to make, and is not pointless: which reason.
type ReasonNumber = u32;

/// What is kept for a class of preemptors.
#[derive(Debug)]
pub(super) struct Class {
    spec: Arc<PodSpec>,
    seen: u64,
    budgets_seen: u64,
    nominations_seen: u64,
    costs: Tournament<Cost>,
    /// Nodes without a cost that were tried in vain.
    lacking: Map<u32, ReasonNumber>,
    reasons: Vec<(Reasons, usize)>,
    /// Nodes where all can stay, although something was against it.
    spared: BTreeSet<u32>,
    /// Nodes that room is kept on: which of the pods are not there yet.
    guests: BTreeMap<u32, Vec<bool>>,
    used: u64,
}

impl Class {
    fn build(ground: Ground<'_>, fast: &mut Fast, spec: &Arc<PodSpec>) -> Self {
        let rows = ground.cluster.columns().rows();
        let mut class = Self {
            spec: Arc::clone(spec),
            seen: ground.cluster.changes().end(),
            budgets_seen: ground.budgets.changes.end(),
            nominations_seen: ground.nominated.changes().end(),
            costs: Tournament::new(Vec::new()),
            lacking: Map::default(),
            reasons: Vec::new(),
            spared: BTreeSet::new(),
            guests: BTreeMap::new(),
            used: 0,
        };
        let costs = (0..rows).map(|row| class.look_at(ground, fast, row)).collect();
        class.costs = Tournament::new(costs);
        class
    }

    /// Looks at a node; what it keeps beside the cost is up to date after it.
    fn look_at(&mut self, ground: Ground<'_>, fast: &mut Fast, row: usize) -> Option<Cost> {
        let tried = ground.try_by_load(fast, &self.spec, None, row, &mut Victims::new());
        let number = u32::try_from(row).unwrap_or(u32::MAX);
        if let Some(reason) = self.lacking.remove(&number)
            && let Some((_, n)) = self.reasons.get_mut(reason as usize)
        {
            *n = n.saturating_sub(1);
        }
        self.spared.remove(&number);
        let present = ground.absent_guests(&self.spec, row);
        if present.is_empty() {
            self.guests.remove(&number);
        } else {
            self.guests.insert(number, present);
        }
        match tried {
            Tried::Pointless => None,
            Tried::Room(None) => {
                self.spared.insert(number);
                None
            }
            Tried::Room(cost) => cost,
            Tried::Lacking(reasons) => {
                let at = self.reasons.iter().position(|(r, _)| *r == reasons).unwrap_or_else(|| {
                    self.reasons.push((reasons, 0));
                    self.reasons.len() - 1
                });
                if let Some((_, n)) = self.reasons.get_mut(at) {
                    *n += 1;
                }
                self.lacking.insert(number, u32::try_from(at).unwrap_or(u32::MAX));
                None
            }
        }
    }

    fn catch_up(&mut self, ground: Ground<'_>, fast: &mut Fast) {
        let Some(rows) = self.stale(ground) else {
            let used = self.used;
            *self = Self::build(ground, fast, &Arc::clone(&self.spec));
            self.used = used;
            return;
        };
        for row in rows {
            let cost = self.look_at(ground, fast, row as usize);
            self.costs.set(row as usize, cost);
        }
        self.seen = ground.cluster.changes().end();
        self.budgets_seen = ground.budgets.changes.end();
        self.nominations_seen = ground.nominated.changes().end();
    }

    /// The nodes to look at again; nothing if it is better to begin anew.
    fn stale(&self, ground: Ground<'_>) -> Option<BTreeSet<u32>> {
        let Ground { cluster, budgets, nominated } = ground;
        let rows = cluster.columns().rows();
        let changes = cluster.changes().since(self.seen).filter(|c| c.len() <= rows.max(64))?;
        let mut stale: BTreeSet<u32> = BTreeSet::new();
        if changes.len() > 0 {
            stale.extend(changes.filter_map(crate::cache::Change::row));
            for (row, absent) in &self.guests {
                if *absent != ground.absent_guests(&self.spec, *row as usize) {
                    stale.insert(*row);
                }
            }
        }
        for protected in budgets.changes.since(self.budgets_seen)? {
            for (id, _) in cluster.nodes() {
                let mut classes = cluster.classes_on(id.row());
                if classes.any(|(spec, _)| spec.priority < self.spec.priority && protected.has(spec)) {
                    stale.insert(id.0);
                }
            }
        }
        let nodes = nominated.changes().since(self.nominations_seen).filter(|n| n.len() <= rows.max(64))?;
        stale.extend(nodes.filter_map(|name| Some(cluster.node_id(name)?.0)));
        (rows <= self.costs.rows()).then_some(stale)
    }

    /// The node where it costs least, from `start` on; `except` is not in the way of itself.
    fn best(&mut self, ground: Ground<'_>, fast: &mut Fast, pod: &Pod, start: usize) -> Option<usize> {
        let own = ground.nominated.node_of(&pod.key).and_then(|n| ground.cluster.node_id(n));
        let Some(own) = own.map(NodeId::row) else { return self.costs.best(start) };
        // On the node that room is kept on for the pod, this room is not taken.
        let kept = self.costs.get(own);
        let tried = ground.try_by_load(fast, &self.spec, Some(&pod.key), own, &mut Victims::new());
        self.costs.set(own, if let Tried::Room(cost) = tried { cost } else { None });
        let best = self.costs.best(start);
        self.costs.set(own, kept);
        best
    }

    /// How many nodes were tried in vain, by reason. Told when no node has a cost.
    pub(super) fn in_vain(&self) -> (impl Iterator<Item = (&Reasons, usize)>, usize) {
        let told = self.reasons.iter().filter(|(_, n)| *n > 0).map(|(r, n)| (r, *n));
        (told, self.lacking.len() + self.spared.len())
    }
}

impl Ground<'_> {
    fn absent_guests(self, spec: &PodSpec, row: usize) -> Vec<bool> {
        self.guests(spec, None, row).map(|p| self.cluster.pod(&p.key).is_none()).collect()
    }
}

/// The classes of preemptors that are kept.
#[derive(Debug, Default)]
pub(crate) struct Rooms {
    classes: Vec<Class>,
    by_spec: Map<Arc<PodSpec>, usize>,
    tick: u64,
}

impl Rooms {
    /// The class of a pod as it is now, and the node where room for the pod costs least, of all nodes, looking for
    /// the first of equals from row `start` on.
    pub(super) fn best(
        &mut self,
        ground: Ground<'_>,
        fast: &mut Fast,
        pod: &Pod,
        start: usize,
    ) -> (Option<usize>, Option<&Class>) {
        self.tick += 1;
        let at = match self.by_spec.get(&pod.spec).copied() {
            Some(at) => at,
            None => self.add(Class::build(ground, fast, &pod.spec), ground.cluster.columns().rows()),
        };
        let Some(class) = self.classes.get_mut(at) else { return (None, None) };
        class.used = self.tick;
        class.catch_up(ground, fast);
        let best = class.best(ground, fast, pod, start);
        (best, Some(class))
    }

    fn add(&mut self, class: Class, rows: usize) -> usize {
        let max = (ROWS_MAX / rows.max(1)).max(CLASSES_MIN);
        let oldest = self.classes.iter().enumerate().min_by_key(|(_, c)| c.used).map(|(at, _)| at);
        let spec = Arc::clone(&class.spec);
        let at = match oldest.filter(|_| self.classes.len() >= max) {
            Some(at) => {
                if let Some(slot) = self.classes.get_mut(at) {
                    let old = core::mem::replace(slot, class);
                    self.by_spec.remove(&old.spec);
                }
                at
            }
            None => {
                self.classes.push(class);
                self.classes.len() - 1
            }
        };
        self.by_spec.insert(spec, at);
        at
    }
}
