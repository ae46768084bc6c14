//! Pods that run, counted for a class to which they matter: by domain for spreading, and by pull for affinity.

use alloc::collections::BTreeSet;
use alloc::sync::Arc;
use alloc::vec::Vec;

use smallvec::SmallVec;

use super::axes::Axes;
use super::feed::{Entry, Feed};
use super::index::Key;
use super::kinds::Kind;
use super::state::View;
use crate::cache::{Cluster, NO_DOMAIN};
use crate::model::{PodSpec, SpreadConstraint};
use crate::plugins::interpod::{Field, Fields, Pull, Pulls, attracts_all, pulls};
use crate::plugins::spread::{self, Hard, Soft};

/// Constraints of a kind that a view has bits for.
pub(super) const CONSTRAINTS_MAX: usize = 16;

/// What one existing pod of a spec does to the counts.
#[derive(Debug, Default)]
enum Effect {
    #[default]
    Unknown,
    Nothing,
    Some(Arc<Changes>),
}

#[derive(Debug)]
pub(super) struct Changes {
    pulls: Pulls,
    hard: u64,
    soft: u64,
}

impl Changes {
    fn of(cluster: &Cluster, spec: &PodSpec, soft: Option<&Soft>, existing: &PodSpec) -> Self {
        Self {
            pulls: pulls(cluster, spec, existing, true, true),
            hard: spread::matching(spec, &spec.spread_hard, existing),
            soft: soft.map_or(0, |s| spread::matching(spec, s.list(), existing)),
        }
    }

    fn are_none(&self) -> bool {
        self.pulls.is_empty() && self.hard == 0 && self.soft == 0
    }

    /// Whether they can make a node do, or not do.
    pub(super) fn filter(&self) -> bool {
        self.hard != 0 || self.pulls.iter().any(|p| p.field != Field::Score)
    }
}

/// The counts.
#[derive(Debug)]
pub(super) struct Counts {
    pub(super) hard: Option<Hard>,
    pub(super) soft: Option<Soft>,
    pub(super) fields: Fields,
    pub(super) axes: Axes,
    /// The pod itself is one that it wants to be with.
    pub(super) attracts_itself: bool,
    /// By number of the existing pods' spec.
    effects: Vec<Effect>,
    numbering: u64,
    /// The columns in which existing pods have a say, whether or not their nodes have the label.
    said: BTreeSet<(Field, usize)>,
    /// As what each row was counted: a bit for each constraint that it counts for, and its domain in each column. Kept so
    /// that a node can be counted out after it changed.
    views: Vec<u32>,
}

/// The bit of a hard constraint, or of a soft one.
const fn bit(at: usize, soft: bool) -> u32 {
    1 << (at + if soft { CONSTRAINTS_MAX } else { 0 })
}

impl Counts {
    /// Whether pods that run matter to a class whatever they are.
    pub(super) fn are_needed(cluster: &Cluster, spec: &PodSpec) -> bool {
        !(spec.spread_hard.is_empty()
            && spec.affinity.is_empty()
            && spec.anti_affinity.is_empty()
            && spec.affinity_preferences.is_empty()
            && spec.anti_affinity_preferences.is_empty())
            || Soft::build(cluster, spec).is_some()
    }

    /// Whether pods of a spec that run matter to a class.
    pub(super) fn matters(cluster: &Cluster, spec: &PodSpec, existing: &PodSpec) -> bool {
        !pulls(cluster, spec, existing, true, true).is_empty()
    }

    /// Counts the whole cluster; `None` if there is more than views and keys have room for.
    pub(super) fn build(view: View<'_>, spec: &PodSpec) -> Option<Self> {
        let cluster = view.cluster;
        let mut counts = Self {
            hard: (!spec.spread_hard.is_empty()).then(|| Hard::empty(cluster, spec)),
            soft: Soft::build(cluster, spec),
            fields: Fields::default(),
            axes: Axes::default(),
            attracts_itself: attracts_all(cluster, spec, spec),
            effects: Vec::new(),
            numbering: view.feed.numbering,
            said: BTreeSet::new(),
            views: Vec::new(),
        };
        let soft = counts.soft.as_ref().map_or(0, |s| s.list().len());
        if spec.spread_hard.len().max(soft) > CONSTRAINTS_MAX {
            return None;
        }
        for (id, _) in cluster.nodes() {
            for (class, _) in cluster.class_counts(id.row()) {
                if let Some(number) = view.feed.number_of(cluster, class) {
                    counts.learn(cluster, view.feed, spec, number);
                }
            }
        }
        counts.axes = Axes::of(cluster, spec, counts.soft.as_ref(), &counts.said)?;
        for row in 0..cluster.columns().rows() {
            let new = counts.view(view, spec, row);
            counts.views.extend_from_slice(&new);
            counts.nodes(&new, true);
            for (class, count) in cluster.class_counts(row) {
                if let Some(number) = view.feed.number_of(cluster, class) {
                    counts.pods(row, number, i64::from(count));
                }
            }
        }
        Some(counts)
    }

    /// Works out what pods of a spec do, once.
    fn learn(&mut self, cluster: &Cluster, feed: &Feed, spec: &PodSpec, number: u32) {
        let at = number as usize;
        if self.effects.len() <= at {
            self.effects.resize_with(at + 1, Effect::default);
        }
        let (Some(effect @ Effect::Unknown), Some(existing)) = (self.effects.get_mut(at), feed.spec(number))
        else {
            return;
        };
        let changes = Changes::of(cluster, spec, self.soft.as_ref(), existing);
        self.said.extend(changes.pulls.iter().map(|p| (p.field, p.column)));
        *effect = if changes.are_none() { Effect::Nothing } else { Effect::Some(Arc::new(changes)) };
    }

    /// What pods of a spec do that is known by its number, if they do anything.
    pub(super) fn changes(&self, number: u32) -> Option<&Arc<Changes>> {
        match self.effects.get(number as usize) {
            Some(Effect::Some(changes)) => Some(changes),
            _ => None,
        }
    }

    /// What a pod would do that is not there yet; an error if there is no room to count it.
    pub(super) fn changes_of(
        &self,
        cluster: &Cluster,
        spec: &PodSpec,
        existing: &PodSpec,
    ) -> Result<Option<Arc<Changes>>, ()> {
        let changes = Changes::of(cluster, spec, self.soft.as_ref(), existing);
        let lacks = |p: &Pull| p.field != Field::Score && self.axes.lacks(p.field, p.column);
        if changes.pulls.iter().any(lacks) {
            return Err(());
        }
        Ok(changes.filter().then(|| Arc::new(changes)))
    }

    /// Whether what keeps a node off can depend on pods of other nodes that are in none of its own domains, or on pods
    /// of other nodes in a domain that it shares.
    pub(super) fn is_shared(&self) -> bool {
        self.hard.is_some() || !self.axes.affinity.is_empty() || self.axes.is_shared()
    }

    /// Counts pods of a spec on a row. Says whether they have a say that no key has room for.
    fn pods(&mut self, row: usize, number: u32, times: i64) -> bool {
        match self.effects.get(number as usize) {
            Some(Effect::Some(changes)) => {
                let changes = Arc::clone(changes);
                self.tally(row, &changes, times)
            }
            _ => false,
        }
    }

    /// The same by what one of them does.
    pub(super) fn tally(&mut self, row: usize, changes: &Changes, times: i64) -> bool {
        let stride = self.axes.columns().len() + 1;
        let view = self.views.get(row * stride..(row + 1) * stride).unwrap_or_default();
        let (mask, domains) = view.split_first().map_or((0, &[][..]), |(mask, domains)| (*mask, domains));
        let domain = |place: usize| domains.get(place).copied().unwrap_or(NO_DOMAIN);
        if let Some(hard) = self.hard.as_mut().filter(|_| changes.hard != 0) {
            for (at, look) in self.axes.hard.iter().enumerate() {
                if spread::is_in(changes.hard, at) && mask & bit(at, false) != 0 {
                    hard.pods_in(at, domain(Axes::place_of(look)), times);
                }
            }
        }
        if let Some(soft) = self.soft.as_mut().filter(|_| changes.soft != 0) {
            for (at, look) in self.axes.soft.iter().enumerate() {
                if !spread::is_in(changes.soft, at) {
                    continue;
                }
                if soft.per_node(at) {
                    soft.pods_in(at, row, times);
                } else if mask & bit(at, true) != 0 {
                    soft.pods_in(at, domain(Axes::place_of(look)) as usize, times);
                }
            }
        }
        let axes = &self.axes;
        self.fields.apply_where(&changes.pulls, |column| axes.place(column).map_or(NO_DOMAIN, domain), times);
        changes.pulls.iter().any(|p| axes.lacks(p.field, p.column))
    }

    /// As what a row counts now.
    fn view(&self, view: View<'_>, spec: &PodSpec, row: usize) -> SmallVec<[u32; 6]> {
        let topology = &view.cluster.columns().topology;
        let mut new: SmallVec<[u32; 6]> = SmallVec::from_elem(0, 1);
        let kind = view.kinds.kind(row);
        let there = |column| if kind.is_some() { topology.domain(column, row) } else { NO_DOMAIN };
        new.extend(self.axes.columns().map(there));
        let Some(kind) = kind else { return new };
        let domain = |look| new.get(Axes::place_of(look) + 1).copied().unwrap_or(NO_DOMAIN);
        let mut mask = 0;
        let includes =
            |c: &SpreadConstraint| (!c.honor_affinity || kind.allowed) && (!c.honor_taints || !kind.repels);
        if self.axes.hard.iter().all(|look| domain(look) != NO_DOMAIN) {
            let counted = spec.spread_hard.iter().enumerate().filter(|(_, c)| includes(c));
            mask |= counted.fold(0, |mask, (at, _)| mask | bit(at, false));
        }
        if let Some(soft) = &self.soft
            && (!soft.needs_labels() || self.axes.soft.iter().all(|look| domain(look) != NO_DOMAIN))
        {
            for ((at, c), look) in soft.list().iter().enumerate().zip(&self.axes.soft) {
                if includes(c) && domain(look) != NO_DOMAIN {
                    mask |= bit(at, true);
                }
            }
        }
        if let Some(slot) = new.first_mut() {
            *slot = mask;
        }
        new
    }

    /// Counts a row as what it is now, and no longer as what it was. The pods on it are counted as they are at the end
    /// of the feed.
    fn moved(&mut self, view: View<'_>, spec: &PodSpec, row: usize) {
        let stride = self.axes.columns().len() + 1;
        let new = self.view(view, spec, row);
        let at = row * stride;
        while self.views.len() < at + stride {
            self.views.push(0);
            self.views.extend(core::iter::repeat_n(NO_DOMAIN, stride - 1));
        }
        let Some(slot) = self.views.get(at..at + stride) else { return };
        let old: SmallVec<[u32; 6]> = SmallVec::from_slice(slot);
        if old == new {
            return;
        }
        let here = || view.cluster.class_counts(row);
        for (class, count) in here() {
            if let Some(number) = view.feed.number_of(view.cluster, class) {
                self.pods_by_domain(row, number, -i64::from(count));
            }
        }
        self.nodes(&old, false);
        if let Some(slot) = self.views.get_mut(at..at + stride) {
            slot.copy_from_slice(&new);
        }
        self.nodes(&new, true);
        for (class, count) in here() {
            if let Some(number) = view.feed.number_of(view.cluster, class) {
                self.pods_by_domain(row, number, i64::from(count));
            }
        }
    }

    /// Counts pods where it depends on what the node is; what is counted by row stays.
    fn pods_by_domain(&mut self, row: usize, number: u32, times: i64) {
        self.pods(row, number, times);
        if let (Some(Effect::Some(changes)), Some(soft)) = (self.effects.get(number as usize), &mut self.soft)
        {
            for at in 0..self.axes.soft.len() {
                if spread::is_in(changes.soft, at) && soft.per_node(at) {
                    soft.pods_in(at, row, -times);
                }
            }
        }
    }

    fn nodes(&mut self, view: &[u32], came: bool) {
        let Some((mask, domains)) = view.split_first() else { return };
        let Some(hard) = &mut self.hard else { return };
        for (at, look) in self.axes.hard.iter().enumerate() {
            if mask & bit(at, false) != 0
                && let Some(domain) = domains.get(Axes::place_of(look))
            {
                hard.node_in(at, *domain, came);
            }
        }
    }

    /// Counts changes. Says whether it has to be built anew.
    pub(super) fn follow(&mut self, view: View<'_>, spec: &PodSpec, entries: &[Entry]) -> bool {
        if self.numbering != view.feed.numbering {
            self.numbering = view.feed.numbering;
            self.effects.clear();
        }
        let mut moved: Vec<u32> = Vec::new();
        for entry in entries {
            match entry.pod() {
                None => moved.push(entry.row),
                Some((number, times)) => {
                    self.learn(view.cluster, view.feed, spec, number);
                    if self.pods(entry.row as usize, number, times) {
                        return true;
                    }
                }
            }
        }
        if moved.is_empty() {
            return false;
        }
        if self.axes.is_outdated(view.cluster) {
            return true;
        }
        moved.sort_unstable();
        moved.dedup();
        for row in moved {
            for (class, _) in view.cluster.class_counts(row as usize) {
                if let Some(number) = view.feed.number_of(view.cluster, class) {
                    self.learn(view.cluster, view.feed, spec, number);
                }
            }
            self.moved(view, spec, row as usize);
        }
        false
    }

    /// Whether a change matters by more than what it takes of a node. It was counted.
    pub(super) fn mind(&self, entry: Entry) -> bool {
        entry
            .pod()
            .is_none_or(|(number, _)| !matches!(self.effects.get(number as usize), Some(Effect::Nothing)))
    }

    /// The key of a row.
    pub(super) fn key(&self, kind: &Kind, row: usize) -> Key {
        let stride = self.axes.columns().len() + 1;
        let domains = self.views.get(row * stride + 1..(row + 1) * stride).unwrap_or_default();
        let counted = (self.hard.as_ref(), self.soft.as_ref(), &self.fields);
        self.axes.key((kind.taints, kind.affinity), counted, row, domains)
    }
}
