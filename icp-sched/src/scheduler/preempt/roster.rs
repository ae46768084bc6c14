//! Nodes by what stands on them, for preemptors of whatever class.
//!
//! Nodes of equal capacity with pods of equal amounts and priorities, in the order in which they would be spared, are of
//! one *shape*. Whom to evict there is worked out once for a shape, and what is left to tell its nodes apart is when the
//! victims started. So a preemptor whose class is new, or comes seldom, costs as much as there are shapes and a glance at
//! the nodes of the best ones.

use alloc::collections::{BTreeMap, BTreeSet};
use alloc::sync::Arc;
use alloc::vec::Vec;

use icp_core::client::ObjectKey;
use smallvec::SmallVec;

use super::NO_VICTIMS;
use super::cost::{Cost, by_importance, started};
use super::ground::{Ground, Tried, Victims};
use crate::cache::{Capacity, Change, Load, Map, NodeId};
use crate::framework::Reasons;
use crate::model::{Pod, PodSpec};
use crate::plugins::fit;
use crate::scheduler::fast::Probe;

/// A row without a node.
const ABSENT: u32 = u32::MAX;
/// A row whose amounts could overflow when they are summed in another order: it is tried by itself.
const ODD: u32 = u32::MAX - 1;
const AMOUNT_MAX: i64 = 1 << 50;
const MEMBERS_MAX: usize = 1 << 10;

/// A pod of a shape.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
struct Member {
    priority: i32,
    cpu: i64,
    memory: i64,
    ephemeral: i64,
    /// The number of the set of its budgets; 0 for none.
    budgets: u32,
}

impl Member {
    fn put(&self, load: &mut Load, times: i64) {
        load.cpu += self.cpu * times;
        load.memory += self.memory * times;
        load.ephemeral += self.ephemeral * times;
        load.pods += times;
    }
}

/// What makes a shape.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
struct Content {
    have: Capacity,
    /// The most important first.
    members: SmallVec<[Member; 6]>,
}

#[derive(Debug)]
struct Shape {
    content: Arc<Content>,
    load: Load,
    rows: Vec<u32>,
}

/// Where a row is.
#[derive(Debug)]
struct Place {
    shape: u32,
    /// Its place among the rows of the shape.
    at: u32,
    /// When its pods started, the most important first.
    started: SmallVec<[i64; 6]>,
}

/// What becomes of the nodes of a shape; of the cost, all but when victims started.
#[derive(Debug)]
enum Fate {
    Pointless,
    Lacking(Reasons),
    Spared,
    /// With the place of the first of the most important victims, which started before the others.
    Room(Cost, usize),
}

/// What the nodes together give.
#[derive(Debug, Default)]
pub(super) struct Outlook {
    pub(super) best: Option<usize>,
    /// Without a best one, how many nodes were tried in vain, and why.
    pub(super) tried: usize,
    pub(super) reasons: Vec<(Reasons, usize)>,
}

/// The nodes by shape.
#[derive(Debug, Default)]
pub(super) struct Roster {
    seen: u64,
    budgets_seen: u64,
    places: Vec<Place>,
    shapes: Vec<Shape>,
    by_content: Map<Arc<Content>, u32>,
    free: Vec<u32>,
    odd: BTreeSet<u32>,
    /// Sets of budgets by number, the empty one first.
    sets: Vec<Vec<ObjectKey>>,
    set_numbers: BTreeMap<Vec<ObjectKey>, u32>,
}

impl Roster {
    /// Whether a look at shapes tells what becomes of a pod: others matter to it only by CPU, memory, ephemeral storage
    /// and their number.
    pub(super) fn knows(probe: &Probe<'_>, spec: &PodSpec) -> bool {
        !probe.is_counted() && spec.requests.scalars.is_empty() && spec.host_ports.is_empty()
    }

    /// About what a look at all nodes costs, in nanoseconds.
    pub(super) fn nanos(&self) -> usize {
        self.places.len() * 6 + self.shapes.len() * 40
    }

    /// Reads what changed.
    pub(super) fn catch_up(&mut self, ground: Ground<'_>) {
        let rows = ground.cluster.columns().rows();
        match self.stale(ground, rows) {
            Some(stale) => stale.into_iter().for_each(|row| self.read(ground, row as usize)),
            None => {
                *self = Self::default();
                (0..rows).for_each(|row| self.read(ground, row));
            }
        }
        self.seen = ground.cluster.changes().end();
        self.budgets_seen = ground.budgets.changes.end();
    }

    fn stale(&self, ground: Ground<'_>, rows: usize) -> Option<BTreeSet<u32>> {
        if self.places.is_empty() {
            return None;
        }
        let changes = ground.cluster.changes().since(self.seen).filter(|c| c.len() <= rows.max(64))?;
        let mut stale: BTreeSet<u32> = changes.filter_map(Change::row).collect();
        for protected in ground.budgets.changes.since(self.budgets_seen)? {
            for (id, _) in ground.cluster.nodes() {
                if ground.cluster.classes_on(id.row()).any(|(spec, _)| protected.has(spec)) {
                    stale.insert(id.0);
                }
            }
        }
        Some(stale)
    }

    /// Reads a row anew.
    fn read(&mut self, ground: Ground<'_>, row: usize) {
        let number = u32::try_from(row).unwrap_or(ABSENT);
        while self.places.len() <= row {
            self.places.push(Place { shape: ABSENT, at: 0, started: SmallVec::new() });
        }
        self.leave(row);
        self.odd.remove(&number);
        let id = NodeId::of(row);
        let columns = ground.cluster.columns();
        let (Some(have), Some(_)) = (columns.capacity.get(row), ground.cluster.node(id)) else { return };
        let mut pods: Victims<'_> = ground.cluster.pods_on(id).collect();
        pods.sort_unstable_by(|a, b| by_importance(a, b));
        let times = pods.iter().map(|p| started(p)).collect();
        let members: SmallVec<[Member; 6]> = pods.iter().map(|p| self.member(ground, p)).collect();
        let usual = |amount: i64| (0..AMOUNT_MAX).contains(&amount);
        let sound = members.len() <= MEMBERS_MAX
            && [have.cpu, have.memory, have.ephemeral, have.pods].into_iter().all(usual)
            && members.iter().all(|m| [m.cpu, m.memory, m.ephemeral].into_iter().all(usual));
        if !sound {
            self.odd.insert(number);
            self.enter(row, ODD, times);
            return;
        }
        let shape = self.shape(Content { have: *have, members });
        self.enter(row, shape, times);
    }

    fn member(&mut self, ground: Ground<'_>, pod: &Pod) -> Member {
        let r = &pod.spec.requests;
        let budgets = match ground.budgets.protecting(pod) {
            set if set.is_empty() => 0,
            set => match self.set_numbers.get(&set) {
                Some(number) => *number,
                None => {
                    if self.sets.is_empty() {
                        self.sets.push(Vec::new());
                    }
                    let number = u32::try_from(self.sets.len()).unwrap_or(0);
                    self.sets.push(set.clone());
                    self.set_numbers.insert(set, number);
                    number
                }
            },
        };
        Member { priority: pod.spec.priority, cpu: r.cpu, memory: r.memory, ephemeral: r.ephemeral, budgets }
    }

    fn shape(&mut self, content: Content) -> u32 {
        if let Some(number) = self.by_content.get(&content) {
            return *number;
        }
        let mut load = Load::default();
        content.members.iter().for_each(|m| m.put(&mut load, 1));
        let content = Arc::new(content);
        let shape = Shape { content: Arc::clone(&content), load, rows: Vec::new() };
        let number = match self.free.pop() {
            Some(number) => {
                if let Some(slot) = self.shapes.get_mut(number as usize) {
                    *slot = shape;
                }
                number
            }
            None => {
                self.shapes.push(shape);
                u32::try_from(self.shapes.len() - 1).unwrap_or(ODD)
            }
        };
        self.by_content.insert(content, number);
        number
    }

    fn enter(&mut self, row: usize, shape: u32, started: SmallVec<[i64; 6]>) {
        let mut at = 0;
        if let (Some(shape), Ok(row)) = (self.shapes.get_mut(shape as usize), u32::try_from(row)) {
            at = u32::try_from(shape.rows.len()).unwrap_or(0);
            shape.rows.push(row);
        }
        if let Some(place) = self.places.get_mut(row) {
            *place = Place { shape, at, started };
        }
    }

    fn leave(&mut self, row: usize) {
        let Some(place) = self.places.get_mut(row) else { return };
        let (number, at) = (core::mem::replace(&mut place.shape, ABSENT), place.at);
        let Some(shape) = self.shapes.get_mut(number as usize) else { return };
        if (at as usize) < shape.rows.len() {
            shape.rows.swap_remove(at as usize);
        }
        if let Some(moved) = shape.rows.get(at as usize)
            && let Some(place) = self.places.get_mut(*moved as usize)
        {
            place.at = at;
        }
        if shape.rows.is_empty() {
            self.by_content.remove(&shape.content);
            self.free.push(number);
        }
    }

    /// The node where room for a pod costs least, looking for the first of equals from row `start` on: for pods to which
    /// others matter only by what they take. `None` if plugins have to be asked.
    pub(super) fn look(
        &self,
        ground: Ground<'_>,
        probe: &mut Probe<'_>,
        pod: &Pod,
        start: usize,
    ) -> Option<Outlook> {
        let spec = &pod.spec;
        let rows = self.places.len();
        let order = |row: usize| if row < start { row + rows } else { row };
        let mut best: Option<(Cost, usize)> = None;
        // Rows on which room is kept for others, or which are odd, are tried one by one.
        let mut alone: BTreeSet<u32> = self.odd.clone();
        for (node, guests) in ground.nominated.weighing_on(pod) {
            if guests.iter().any(|p| ground.cluster.pod(&p.key).is_none()) {
                alone.extend(ground.cluster.node_id(node).map(|id| id.0));
            }
        }
        let mut tried = Vec::new();
        for row in &alone {
            let row = *row as usize;
            let (outcome, _) = ground.try_row(probe, spec, Some(&pod.key), row, &mut Victims::new())?;
            if let Tried::Room(Some(cost)) = outcome {
                best = best.into_iter().chain([(cost, order(row))]).min();
            }
            tried.push(outcome);
        }
        let all = alone.is_empty() && probe.allows_all();
        let mine = |row: &&u32| !alone.contains(*row) && probe.fixed(**row as usize).is_none();
        let shapes = || self.shapes.iter().filter(|s| !s.rows.is_empty());
        for shape in shapes() {
            let Fate::Room(least, first) = self.fate(ground, shape, spec) else { continue };
            if best.is_some_and(|(cost, _)| least > cost) {
                continue;
            }
            let mut latest: Option<(i64, usize)> = None;
            let mut see = |row: usize| {
                let times = self.places.get(row).map(|p| p.started.as_slice()).unwrap_or_default();
                let earliest = times.get(first).copied().unwrap_or(i64::MAX);
                let order = order(row);
                if latest.is_none_or(|(time, at)| earliest > time || (earliest == time && order < at)) {
                    latest = Some((earliest, order));
                }
            };
            if all {
                shape.rows.iter().for_each(|row| see(*row as usize));
            } else {
                shape.rows.iter().filter(mine).for_each(|row| see(*row as usize));
            }
            if let Some((earliest, order)) = latest {
                best = best.into_iter().chain([(least.since(earliest), order)]).min();
            }
        }
        let mut outlook = Outlook::default();
        if let Some((_, order)) = best {
            outlook.best = Some(if order < rows { order } else { order - rows });
            return Some(outlook);
        }
        let mut note = |reasons: Option<Reasons>, n: usize| {
            outlook.tried += n;
            if let Some(reasons) = reasons.filter(|_| n > 0) {
                outlook.reasons.push((reasons, n));
            }
        };
        for outcome in tried {
            match outcome {
                Tried::Pointless | Tried::Room(Some(_)) => {}
                Tried::Lacking(reasons) => note(Some(reasons), 1),
                Tried::Room(None) => note(None, 1),
            }
        }
        for shape in shapes() {
            let n = shape.rows.iter().filter(mine).count();
            match self.fate(ground, shape, spec) {
                Fate::Lacking(reasons) => note(Some(reasons), n),
                Fate::Spared => note(None, n),
                Fate::Pointless | Fate::Room(..) => {}
            }
        }
        Some(outlook)
    }

    /// Whom to evict on nodes of a shape (`SelectVictimsOnNode`).
    fn fate(&self, ground: Ground<'_>, shape: &Shape, spec: &PodSpec) -> Fate {
        let Content { have, members } = &*shape.content;
        let none = core::iter::empty;
        if fit::fits_load(have, &shape.load, spec) || fit::is_hopeless(have, &shape.load, spec) {
            return Fate::Pointless;
        }
        let from = members.partition_point(|m| m.priority >= spec.priority);
        let lower = members.get(from..).unwrap_or_default();
        if lower.is_empty() {
            return Fate::Lacking(Reasons::from_elem(NO_VICTIMS.into(), 1));
        }
        let mut load = shape.load;
        lower.iter().for_each(|m| m.put(&mut load, -1));
        if !fit::fits_load(have, &load, spec) {
            let lacking = fit::lacking_of(have, &load, spec, none());
            return Fate::Lacking(lacking.map(|r| r.reasons).unwrap_or_default());
        }
        let protected = lower.iter().any(|m| m.budgets != 0);
        let violates = if protected { self.violating(ground, lower) } else { SmallVec::new() };
        let mut victims: SmallVec<[(i32, usize); 8]> = SmallVec::new();
        let mut violations = 0;
        // Pods whose budgets would be broken are spared first.
        for wanted in [true, false] {
            if wanted && !protected {
                continue;
            }
            for (at, member) in lower.iter().enumerate() {
                let broken = violates.get(at) == Some(&true);
                if broken != wanted {
                    continue;
                }
                member.put(&mut load, 1);
                if !fit::fits_load(have, &load, spec) {
                    member.put(&mut load, -1);
                    victims.push((member.priority, from + at));
                    violations += usize::from(broken);
                }
            }
        }
        let Some(top) = victims.iter().map(|(priority, _)| *priority).max() else { return Fate::Spared };
        let cost = Cost::bare(violations, top, victims.iter().map(|(priority, _)| *priority));
        let tops = victims.iter().filter(|(priority, _)| *priority == top).map(|(_, at)| *at);
        Fate::Room(cost, tops.min().unwrap_or(0))
    }

    /// Whose eviction breaks a budget, when all of them go in this order.
    fn violating(&self, ground: Ground<'_>, members: &[Member]) -> SmallVec<[bool; 8]> {
        let mut left: SmallVec<[(&ObjectKey, i64); 4]> = SmallVec::new();
        let of = |member: &Member| {
            let mut broken = false;
            for key in self.sets.get(member.budgets as usize).into_iter().flatten() {
                let at = left.iter().position(|(k, _)| *k == key).unwrap_or_else(|| {
                    left.push((key, ground.budgets.allowed(key)));
                    left.len() - 1
                });
                if let Some((_, left)) = left.get_mut(at) {
                    *left = left.saturating_sub(1);
                    broken |= *left < 0;
                }
            }
            broken
        };
        members.iter().map(of).collect()
    }
}
