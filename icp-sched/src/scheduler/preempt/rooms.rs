//! What it would cost to make room on each node, kept for each class of preemptors and following the changes of the
//! cluster.
//!
//! A node is looked at again when its pods, its object, the budgets of its pods or the pods that room is kept for on it
//! change; most preemptions change one node. Where other pods matter by more than what they take, nodes of which the same
//! counts decide are a group, and all of them are looked at again when these counts let them in or keep them out. On
//! nodes with pods that count and can be evicted, the outcome can hang on the counts themselves: these are looked at
//! again with every such change, unless what counts for them is on the node alone.
//!
//! For classes that are new, or seldom asked about while much changes, all of this costs more than a look at all nodes by
//! shape; see [`Roster`].

use alloc::collections::{BTreeMap, BTreeSet};
use alloc::sync::Arc;
use alloc::vec::Vec;

use super::cost::Cost;
use super::ground::{Ground, Tried, Victims};
use super::roster::{Outlook, Roster};
use super::tournament::Tournament;
use crate::cache::{Change, Map, NodeId};
use crate::framework::{Reasons, Rejection};
use crate::model::{Pod, PodSpec};
use crate::scheduler::fast::{Fast, Key, Probe, Rows};

/// Rows that all classes together may keep, and the least number of classes.
const ROWS_MAX: usize = 1 << 21;
const CLASSES_MIN: usize = 4;
/// A row that is in no group.
const NO_GROUP: u32 = u32::MAX;

/// A node that has no room to make, and is not pointless: which reason.
type ReasonNumber = u32;

/// Rows of which the same counts decide.
#[derive(Debug)]
struct Group {
    key: Key,
    rejection: Option<Rejection>,
    rows: Rows,
}

/// The rows by group, for classes to which other pods matter by more than what they take.
#[derive(Debug, Default)]
struct Groups {
    list: Vec<Group>,
    numbers: Map<Key, u32>,
    of_row: Vec<u32>,
}

impl Groups {
    /// Puts a row where it belongs.
    fn put(&mut self, probe: &Probe<'_>, row: usize) {
        if self.of_row.len() <= row {
            self.of_row.resize(row + 1, NO_GROUP);
        }
        let number = match probe.key(row).filter(|_| probe.is_counted()) {
            None => NO_GROUP,
            Some(key) => match self.numbers.get(&key) {
                Some(number) => *number,
                None => self.add(probe, key),
            },
        };
        let Some(slot) = self.of_row.get_mut(row) else { return };
        let before = core::mem::replace(slot, number);
        if before == number {
            return;
        }
        if let Some(group) = self.list.get_mut(before as usize) {
            group.rows.remove(row);
        }
        if let Some(group) = self.list.get_mut(number as usize) {
            group.rows.insert(row);
        }
    }

    fn add(&mut self, probe: &Probe<'_>, key: Key) -> u32 {
        let rejection = probe.reject(&key);
        let free = self.list.iter().position(|g| g.rows.len() == 0);
        let group = Group { key: key.clone(), rejection, rows: Rows::default() };
        let at = match free.and_then(|at| Some((at, self.list.get_mut(at)?))) {
            Some((at, slot)) => {
                self.numbers.remove(&slot.key);
                *slot = group;
                at
            }
            None => {
                self.list.push(group);
                self.list.len() - 1
            }
        };
        let number = u32::try_from(at).unwrap_or(NO_GROUP);
        self.numbers.insert(key, number);
        number
    }

    /// Asks again what is counted against each group; hands out the rows of those for which it is something else now.
    fn ask(&mut self, probe: &Probe<'_>, stale: &mut BTreeSet<u32>) {
        for group in self.list.iter_mut().filter(|g| g.rows.len() > 0) {
            let now = probe.reject(&group.key);
            if now != group.rejection {
                group.rejection = now;
                let mut next = group.rows.next(0);
                while let Some(row) = next {
                    stale.extend(u32::try_from(row));
                    next = group.rows.next(row + 1);
                }
            }
        }
    }
}

/// What is kept for a class of preemptors.
#[derive(Debug)]
struct Class {
    spec: Arc<PodSpec>,
    generation: (u64, u64),
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
    groups: Groups,
    /// Nodes with pods that count and need not stay.
    sensitive: BTreeSet<u32>,
}

impl Class {
    fn build(ground: Ground<'_>, probe: &mut Probe<'_>, spec: &Arc<PodSpec>) -> Option<Self> {
        let rows = ground.cluster.columns().rows();
        let mut class = Self {
            spec: Arc::clone(spec),
            generation: probe.generation(),
            seen: ground.cluster.changes().end(),
            budgets_seen: ground.budgets.changes.end(),
            nominations_seen: ground.nominated.changes().end(),
            costs: Tournament::new(Vec::new()),
            lacking: Map::default(),
            reasons: Vec::new(),
            spared: BTreeSet::new(),
            guests: BTreeMap::new(),
            groups: Groups::default(),
            sensitive: BTreeSet::new(),
        };
        let costs: Option<Vec<_>> = (0..rows).map(|row| class.look_at(ground, probe, row)).collect();
        class.costs = Tournament::new(costs?);
        Some(class)
    }

    /// Looks at a node; what it keeps beside the cost is up to date after it. `None` if plugins have to be asked.
    fn look_at(&mut self, ground: Ground<'_>, probe: &mut Probe<'_>, row: usize) -> Option<Option<Cost>> {
        let (tried, sensitive) = ground.try_row(probe, &self.spec, None, row, &mut Victims::new())?;
        let number = u32::try_from(row).unwrap_or(u32::MAX);
        if let Some(reason) = self.lacking.remove(&number)
            && let Some((_, n)) = self.reasons.get_mut(reason as usize)
        {
            *n = n.saturating_sub(1);
        }
        self.spared.remove(&number);
        if probe.is_counted() {
            self.groups.put(probe, row);
            if sensitive {
                self.sensitive.insert(number);
            } else {
                self.sensitive.remove(&number);
            }
        }
        let present = ground.absent_guests(&self.spec, row);
        if present.is_empty() {
            self.guests.remove(&number);
        } else {
            self.guests.insert(number, present);
        }
        Some(match tried {
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
        })
    }

    /// The class as things are now; `None` if plugins have to be asked.
    fn catch_up(&mut self, ground: Ground<'_>, probe: &mut Probe<'_>) -> Option<()> {
        let Some(rows) = self.stale(ground, probe) else {
            *self = Self::build(ground, probe, &Arc::clone(&self.spec))?;
            return Some(());
        };
        for row in rows {
            let cost = self.look_at(ground, probe, row as usize)?;
            self.costs.set(row as usize, cost);
        }
        self.seen = ground.cluster.changes().end();
        self.budgets_seen = ground.budgets.changes.end();
        self.nominations_seen = ground.nominated.changes().end();
        Some(())
    }

    /// The nodes to look at again; nothing if it is better to begin anew.
    fn stale(&mut self, ground: Ground<'_>, probe: &Probe<'_>) -> Option<BTreeSet<u32>> {
        if self.generation != probe.generation() {
            return None;
        }
        let Ground { cluster, budgets, nominated } = ground;
        let rows = cluster.columns().rows();
        let changes = cluster.changes().since(self.seen).filter(|c| c.len() <= rows.max(64))?;
        let mut stale: BTreeSet<u32> = BTreeSet::new();
        if changes.len() > 0 {
            let mut counts = false;
            for change in changes {
                stale.extend(change.row());
                counts |= match change {
                    Change::Pod { serial, .. } => probe.minds(*serial),
                    Change::Node { .. } => true,
                    Change::Started { .. } | Change::Meaning => false,
                };
            }
            for (row, absent) in &self.guests {
                if *absent != ground.absent_guests(&self.spec, *row as usize) {
                    stale.insert(*row);
                }
            }
            if counts && probe.is_counted() {
                self.groups.ask(probe, &mut stale);
                if probe.is_shared() {
                    stale.extend(&self.sensitive);
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

    /// The node where it costs least, from `start` on; the pod is not in the way of itself.
    fn best(
        &mut self,
        ground: Ground<'_>,
        probe: &mut Probe<'_>,
        pod: &Pod,
        start: usize,
    ) -> Option<Option<usize>> {
        let own = ground.nominated.node_of(&pod.key).and_then(|n| ground.cluster.node_id(n));
        let Some(own) = own.map(NodeId::row) else { return Some(self.costs.best(start)) };
        // On the node that room is kept on for the pod, this room is not taken.
        let kept = self.costs.get(own);
        let (tried, _) = ground.try_row(probe, &self.spec, Some(&pod.key), own, &mut Victims::new())?;
        self.costs.set(own, if let Tried::Room(cost) = tried { cost } else { None });
        let best = self.costs.best(start);
        self.costs.set(own, kept);
        Some(best)
    }

    /// Notes how many nodes were tried in vain, by reason. Told when no node has a cost.
    fn in_vain(&self, outlook: &mut Outlook) {
        outlook.tried = self.lacking.len() + self.spared.len();
        outlook.reasons = self.reasons.iter().filter(|(_, n)| *n > 0).cloned().collect();
    }
}

/// Classes that are told apart.
const ENTRIES_MAX: usize = 8192;
/// What a look at one node costs, in nanoseconds, measured.
const LOOK: usize = 250;

/// A class of preemptors.
#[derive(Debug)]
struct Entry {
    spec: Arc<PodSpec>,
    /// Absent as long as it costs less to look at all nodes by shape.
    class: Option<Class>,
    /// Where the changes were when it was last asked about.
    asked: u64,
    /// What looks at all nodes cost beyond what following would have, in nanoseconds.
    credit: usize,
    used: u64,
}

/// What is kept for preemptors.
#[derive(Debug, Default)]
pub(crate) struct Rooms {
    entries: Vec<Entry>,
    by_spec: Map<Arc<PodSpec>, usize>,
    roster: Roster,
    tick: u64,
}

impl Rooms {
    /// The node where room for the pod costs least, of all nodes, looking for the first of equals from row `start` on,
    /// and else why there is none; `None` if plugins have to be asked.
    pub(super) fn best(
        &mut self,
        ground: Ground<'_>,
        fast: &mut Fast,
        pod: &Pod,
        start: usize,
    ) -> Option<Outlook> {
        self.tick += 1;
        let mut probe = fast.probe(ground.cluster, &pod.spec)?;
        let at = match self.by_spec.get(&pod.spec) {
            Some(at) => *at,
            None => self.add(&pod.spec, ground.cluster.changes().end()),
        };
        let by_shape = Roster::knows(&probe, &pod.spec);
        let Self { entries, roster, tick, .. } = self;
        let entry = entries.get_mut(at)?;
        entry.used = *tick;
        if by_shape && entry.is_seldom(ground, &probe, roster) {
            roster.catch_up(ground);
            return roster.look(ground, &mut probe, pod, start);
        }
        let mut class = match entry.class.take() {
            Some(class) => class,
            None => {
                let class = Class::build(ground, &mut probe, &pod.spec)?;
                self.make_room(ground.cluster.columns().rows());
                class
            }
        };
        // A class that did not catch up is not kept.
        class.catch_up(ground, &mut probe)?;
        let best = class.best(ground, &mut probe, pod, start)?;
        let mut outlook = Outlook { best, ..Outlook::default() };
        if best.is_none() {
            class.in_vain(&mut outlook);
        }
        self.entries.get_mut(at)?.class = Some(class);
        Some(outlook)
    }

    fn add(&mut self, spec: &Arc<PodSpec>, asked: u64) -> usize {
        let entry = Entry { spec: Arc::clone(spec), class: None, asked, credit: 0, used: 0 };
        let oldest = self.entries.iter().enumerate().min_by_key(|(_, e)| e.used).map(|(at, _)| at);
        let at = match oldest.filter(|_| self.entries.len() >= ENTRIES_MAX) {
            Some(at) => {
                if let Some(slot) = self.entries.get_mut(at) {
                    let old = core::mem::replace(slot, entry);
                    self.by_spec.remove(&old.spec);
                }
                at
            }
            None => {
                self.entries.push(entry);
                self.entries.len() - 1
            }
        };
        self.by_spec.insert(Arc::clone(spec), at);
        at
    }

    /// Drops what is kept for the class that was not used for longest, if all take too much.
    fn make_room(&mut self, rows: usize) {
        let max = (ROWS_MAX / rows.max(1)).max(CLASSES_MIN);
        let kept = self.entries.iter_mut().filter(|e| e.class.is_some());
        if kept.count() < max {
            return;
        }
        let kept = self.entries.iter_mut().filter(|e| e.class.is_some());
        if let Some(oldest) = kept.min_by_key(|e| e.used) {
            oldest.class = None;
        }
    }
}

impl Entry {
    /// Whether a look at all nodes by shape costs less than to follow what happened to them since the class was last
    /// asked about. What is saved counts against making, or making up for, what follows.
    fn is_seldom(&mut self, ground: Ground<'_>, probe: &Probe<'_>, roster: &Roster) -> bool {
        let (changes, rows) = (ground.cluster.changes(), ground.cluster.columns().rows());
        let following = |changes: usize| changes.min(rows).saturating_mul(LOOK);
        let class = self.class.as_ref().filter(|c| c.generation == probe.generation());
        let behind = class.and_then(|c| changes.since(c.seen)).map(|c| c.len());
        let repair = following(behind.unwrap_or(rows));
        let look = roster.nanos();
        let since = usize::try_from(changes.end() - self.asked).unwrap_or(usize::MAX);
        self.asked = changes.end();
        if repair <= look {
            return false;
        }
        self.credit = self.credit.saturating_add(look.saturating_sub(following(since)));
        if self.credit >= repair {
            self.credit = 0;
            return false;
        }
        true
    }
}
