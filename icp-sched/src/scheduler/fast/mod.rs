//! Decisions that follow the changes of the cluster instead of asking every plugin about every node.
//!
//! A class of pods is decided on in one of two ways, whichever costs less:
//!
//! - A *sweep* scores all nodes at once from a sheet that all classes share: a few nanoseconds a node, nothing kept. It
//!   serves classes that are new, or seldom asked about while much changes.
//! - An *index* keeps which nodes will do and how many points they get, and catches up with what changed since the class
//!   was last asked about: a decision costs as much as there are changes, however many nodes there are.
//!
//! An index is made when sweeps have cost as much as making it, so that neither a class that comes once nor a thousand
//! classes in turn pay for what they do not use. Classes to which other pods matter by more than what they take always
//! have an index. The outcome is that of asking every plugin about every node.

mod axes;
mod choose;
mod counts;
mod feed;
mod index;
mod kinds;
mod probe;
mod rows;
mod rules;
mod sheet;
mod state;
mod sweep;

use alloc::sync::Arc;
use alloc::vec::Vec;

use smallvec::SmallVec;

use self::choose::{Candidate, Choice, Judge};
use self::feed::Feed;
use self::kinds::{Kinds, Wishes};
use self::sheet::Sheet;
use self::state::{ClassState, View};
use crate::cache::{Cluster, Map, NodeId};
use crate::framework::{Rejected, Rejection};
use crate::model::PodSpec;
use crate::plugins::{node_affinity, spread};
use crate::scheduler::TieBreak;

pub(super) use self::index::Key;
pub(super) use self::probe::{Probe, Touch};
pub(super) use self::rows::Rows;
pub(super) use self::rules::{Rules, is_for_volumes};

/// What all indexes together may take, in bytes, and what one takes for a row: its place, and its bit in a few buckets;
/// for a class to which other pods matter, also as what the row was counted.
const BYTES_MAX: usize = 1 << 30;
const BYTES_PER_ROW: usize = 8;
const BYTES_PER_ROW_COUNTED: usize = 24;
/// Indexes that may be kept however large they are.
const INDEXES_MIN: usize = 4;
/// Classes without or with an index.
const CLASSES_MAX: usize = 8192;
/// What things cost, in tenths of a nanosecond, measured: a row of a sweep, without and with kinds of nodes; a change that
/// an index follows; a row of an index that is made.
const SWEEP: usize = 35;
const SWEEP_KINDS: usize = 60;
const FOLLOW: usize = 1000;
const MAKE: usize = 250;
/// The same for classes to which other pods matter by more than what they take.
const SWEEP_GROUPS: usize = 70;
const FOLLOW_COUNTED: usize = 2500;
const MAKE_COUNTED: usize = 1000;

/// How a decision ended.
#[derive(Debug)]
pub(super) enum Outcome {
    Chosen(Choice),
    /// No node will do: how many each rejection keeps off.
    None(Vec<(Rejection, usize)>),
    /// Ask every plugin about every node.
    AskAll,
}

/// The classes that are kept.
#[derive(Debug, Default)]
pub(crate) struct Fast {
    rules: Rules,
    feed: Feed,
    sheet: Sheet,
    kinds: Vec<Kinds>,
    kinds_by_wishes: Map<Wishes, usize>,
    states: Vec<ClassState>,
    by_address: Map<usize, usize>,
    by_spec: Map<Arc<PodSpec>, usize>,
    /// The class that was asked about last, which is often the next one too.
    last: usize,
    tick: u64,
    /// Points of a sweep.
    scratch: Vec<i16>,
}

impl Fast {
    /// One that weighs plugins by these rules.
    pub(super) fn new(rules: Rules) -> Self {
        Self { rules, ..Self::default() }
    }

    /// The same, with nothing observed.
    pub(super) fn anew(&self) -> Self {
        Self::new(self.rules.clone())
    }

    /// Decides on a pod of `spec`; `hidden` rows will not do, for these reasons.
    pub(super) fn decide(
        &mut self,
        cluster: &Cluster,
        spec: &Arc<PodSpec>,
        start: usize,
        hidden: &[(NodeId, Rejection)],
    ) -> Outcome {
        if !Self::knows(spec) {
            return Outcome::AskAll;
        }
        if let Some(names) = node_affinity::named(spec) {
            return if hidden.is_empty() {
                self.decide_named(cluster, spec, &names)
            } else {
                Outcome::AskAll
            };
        }
        let at = self.class(cluster, spec);
        if let Some(outcome) = self.sweep(cluster, at, start, hidden) {
            return outcome;
        }
        if let Some(choice) = self.sweep_groups(cluster, at, start, hidden) {
            return Outcome::Chosen(choice);
        }
        self.repair(cluster, at);
        let Self { states, rules, .. } = self;
        let Some(state) = states.get_mut(at).filter(|s| !s.unusual) else { return Outcome::AskAll };
        let (Some(index), counts) = (&mut state.index, state.counts.as_deref()) else {
            return Outcome::AskAll;
        };
        let judge = Judge { rules, spec: &state.spec, counts };
        if hidden.is_empty()
            && let Some(choice) = judge.choose_lone(index, start)
        {
            return Outcome::Chosen(choice);
        }
        let places: SmallVec<[(usize, u32); 4]> =
            hidden.iter().filter_map(|(id, _)| Some((id.row(), index.hide(id.row())?))).collect();
        let mut by_group: Vec<(Rejection, usize)> = Vec::new();
        let choice = judge.choose(index, start, |rejection, n| by_group.push((rejection, n)));
        let mut all = Vec::new();
        if choice.is_none() {
            // A node that would not do anyway is counted once, for the reason that was given first.
            all = index.rejections(hidden.iter().map(|(id, _)| id.row()));
            all.append(&mut by_group);
            all.extend(hidden.iter().map(|(_, r)| (r.clone(), 1)));
        }
        for (row, place) in places {
            index.restore(row, place);
        }
        choice.map_or(Outcome::None(all), Outcome::Chosen)
    }

    /// Decides on a pod of `spec`, given what plugins that are not known here say: whether they have something against a
    /// node, and how many points they give to the nodes that will do. If none will do, all plugins have to be asked.
    pub(super) fn decide_with(
        &mut self,
        cluster: &Cluster,
        spec: &Arc<PodSpec>,
        start: usize,
        hidden: &[(NodeId, Rejection)],
        allows: impl Fn(NodeId) -> bool,
        score: impl Fn(&[NodeId], &mut [i64]),
    ) -> Outcome {
        let spec = &Self::bare(spec);
        if !Self::knows(spec) || node_affinity::named(spec).is_some() {
            return Outcome::AskAll;
        }
        let at = self.class(cluster, spec);
        self.repair(cluster, at);
        let Some(state) = self.states.get(at).filter(|s| !s.unusual) else { return Outcome::AskAll };
        let Some(index) = &state.index else { return Outcome::AskAll };
        let judge = Judge { rules: &self.rules, spec, counts: state.counts.as_deref() };
        let (groups, rows) = index.feasible();
        let fine: Vec<bool> = groups.iter().map(|g| g.len > 0 && judge.reject(&g.key).is_none()).collect();
        let mut left = alloc::vec![0_usize; groups.len()];
        let mut nodes: Vec<NodeId> = Vec::new();
        let mut places: Vec<(usize, i64)> = Vec::new();
        for (row, group, points) in rows {
            let id = NodeId::of(row);
            if fine.get(group) == Some(&true) && !hidden.iter().any(|(h, _)| *h == id) && allows(id) {
                nodes.push(id);
                places.push((group, points));
                if let Some(n) = left.get_mut(group) {
                    *n += 1;
                }
            }
        }
        let there = || groups.iter().zip(&left).enumerate().filter(|(_, (_, n))| **n > 0);
        let bonuses = judge.bonuses(there().map(|(_, (g, n))| Candidate::new(&g.key, *n)).collect());
        let mut by_group = alloc::vec![0_i64; groups.len()];
        for ((at, _), bonus) in there().zip(bonuses) {
            if let Some(slot) = by_group.get_mut(at) {
                *slot = bonus;
            }
        }
        let bonus = |group: usize| by_group.get(group).copied().unwrap_or(0);
        let mut totals: Vec<i64> = places.iter().map(|(group, points)| points + bonus(*group)).collect();
        if nodes.len() > 1 {
            score(&nodes, &mut totals);
        }
        let max = totals.iter().copied().max();
        let best: Vec<NodeId> =
            nodes.iter().zip(&totals).filter(|(_, t)| Some(**t) == max).map(|(id, _)| *id).collect();
        match TieBreak::pick(start, &best) {
            Some(id) => Outcome::Chosen(Choice { row: id.row(), feasible: nodes.len() }),
            None => Outcome::AskAll,
        }
    }

    /// The spec without what only plugins mind that are not known here: it makes no class of its own.
    pub(super) fn bare(spec: &Arc<PodSpec>) -> Arc<PodSpec> {
        if spec.volumes.is_empty() && spec.features.is_empty() {
            return Arc::clone(spec);
        }
        Arc::new(PodSpec { volumes: Vec::new(), features: Default::default(), ..PodSpec::clone(spec) })
    }

    /// Why a node will not do for a pod of `spec`, if anything; `None` if every plugin has to be asked.
    pub(super) fn reject(
        &mut self,
        cluster: &Cluster,
        spec: &Arc<PodSpec>,
        id: NodeId,
    ) -> Option<Option<Rejection>> {
        if !Self::knows(spec) || node_affinity::named(spec).is_some() {
            return None;
        }
        let at = self.class(cluster, spec);
        if let Some(rejection) = self.verdict(cluster, at, id).1 {
            return Some(Some(rejection));
        }
        self.reject_group(cluster, at, id)
    }

    /// What keeps a node off: by its object, or by what is taken on it.
    fn verdict(&self, cluster: &Cluster, at: usize, id: NodeId) -> (Option<Rejection>, Option<Rejection>) {
        let state = self.states.get(at);
        let kinds = state.and_then(|s| self.kinds.get(s.kinds));
        match (state, kinds) {
            (Some(state), Some(kinds)) => state.verdict(self.view(cluster, kinds), id.row()),
            _ => (None, None),
        }
    }

    /// What keeps off the group of a node that will do else; `None` if every plugin has to be asked.
    fn reject_group(&mut self, cluster: &Cluster, at: usize, id: NodeId) -> Option<Option<Rejection>> {
        if self.states.get(at).is_some_and(ClassState::is_by_load) {
            return Some(None);
        }
        self.repair_as_is(cluster, at);
        let state = self.states.get(at).filter(|s| !s.unusual)?;
        let judge = Judge { rules: &self.rules, spec: &state.spec, counts: state.counts.as_deref() };
        Some(state.index.as_ref()?.key(id.row()).and_then(|key| judge.reject(key)))
    }

    /// Whether all that matters to pods of `spec` is kept here.
    fn knows(spec: &PodSpec) -> bool {
        spec.spread_hard.len().max(spec.spread_soft.len()) <= spread::CONSTRAINTS_MAX
            && spec.volumes.is_empty()
            && spec.features.is_empty()
    }

    /// A pod that names its nodes, as those of DaemonSets do: only these are looked at, by the state of the class
    /// without the names.
    fn decide_named(
        &mut self,
        cluster: &Cluster,
        spec: &Arc<PodSpec>,
        names: &alloc::collections::BTreeSet<&str>,
    ) -> Outcome {
        if names.is_empty() || !spec.spread_hard.is_empty() || !spec.spread_soft.is_empty() {
            return Outcome::AskAll;
        }
        let anywhere = Arc::new(PodSpec { node_terms: None, ..PodSpec::clone(spec) });
        let at = self.class(cluster, &anywhere);
        let ids: Vec<NodeId> = names.iter().filter_map(|n| cluster.node_id(n)).collect();
        let (mut feasible, mut rejected) = (Vec::new(), Vec::new());
        for id in &ids {
            let Some(node) = cluster.node(*id) else { continue };
            let rejection = match self.verdict(cluster, at, *id) {
                (Some(fixed), _) => Some(fixed),
                _ if !node_affinity::allows(spec, node) => {
                    Some(node_affinity::rejection().by("NodeAffinity"))
                }
                (None, Some(any)) => Some(any),
                (None, None) => match self.reject_group(cluster, at, *id) {
                    Some(rejection) => rejection,
                    None => return Outcome::AskAll,
                },
            };
            match rejection {
                Some(r) => rejected.push((r, 1)),
                None => feasible.push(id.row()),
            }
        }
        match feasible.as_slice() {
            [row] => Outcome::Chosen(Choice { row: *row, feasible: 1 }),
            [] => {
                let others = cluster.node_count() - ids.len();
                if others > 0 {
                    let reason = "node(s) didn't satisfy plugin(s) [NodeAffinity]";
                    rejected.push((Rejected::unresolvable(reason).by("NodeAffinity"), others));
                }
                Outcome::None(rejected)
            }
            _ => Outcome::AskAll,
        }
    }

    const fn view<'v>(&'v self, cluster: &'v Cluster, kinds: &'v Kinds) -> View<'v> {
        View { cluster, feed: &self.feed, sheet: &self.sheet, kinds, rules: &self.rules }
    }

    /// The class of a spec, knowing what happened.
    fn class(&mut self, cluster: &Cluster, spec: &Arc<PodSpec>) -> usize {
        self.feed.follow(cluster);
        self.tick += 1;
        let is_last = |s: &&ClassState| Arc::ptr_eq(&s.spec, spec);
        let at = match self.states.get(self.last).filter(is_last) {
            Some(_) => self.last,
            None => self.find(cluster, spec),
        };
        self.last = at;
        let Self { feed, sheet, kinds, states, rules, tick, .. } = self;
        if let Some(state) = states.get_mut(at)
            && let Some(kinds) = kinds.get_mut(state.kinds)
        {
            kinds.catch_up(cluster, feed);
            state.used = *tick;
            state.settle(View { cluster, feed, sheet, kinds, rules });
        }
        at
    }

    fn find(&mut self, cluster: &Cluster, spec: &Arc<PodSpec>) -> usize {
        let known = self.by_address.get(&Arc::as_ptr(spec).addr()).or_else(|| self.by_spec.get(spec));
        match known {
            Some(at) => *at,
            None => self.add(cluster, spec),
        }
    }

    /// Decides by a sweep, if that costs less than an index would.
    fn sweep(
        &mut self,
        cluster: &Cluster,
        at: usize,
        start: usize,
        hidden: &[(NodeId, Rejection)],
    ) -> Option<Outcome> {
        let Self { feed, sheet, kinds, states, rules, scratch, .. } = self;
        let state = states.get_mut(at).filter(|s| s.can_sweep(rules) && !s.unusual)?;
        let kinds = kinds.get(state.kinds)?;
        let view = View { cluster, feed, sheet, kinds, rules };
        let rows = cluster.columns().rows();
        let make = rows * MAKE;
        let following = |changes: usize| changes.saturating_mul(FOLLOW).min(make);
        let repair = state.behind(view).map_or(make, following);
        if repair <= rows * SWEEP {
            state.asked = feed.end();
            return None;
        }
        let sweep = rows * if kinds.uniform().is_some() { SWEEP } else { SWEEP_KINDS };
        let since = usize::try_from(feed.end() - state.asked).unwrap_or(usize::MAX);
        state.asked = feed.end();
        if repair <= sweep {
            return None;
        }
        state.credit = state.credit.saturating_add(sweep.saturating_sub(following(since)));
        if state.credit >= repair {
            return None;
        }
        sheet.catch_up(cluster, feed);
        let view = View { cluster, feed, sheet, kinds, rules };
        match sweep::choose(view, &state.spec, start, hidden, scratch) {
            Some(choice) => Some(Outcome::Chosen(choice)),
            None => sweep::refuse(view, state, hidden).map(Outcome::None),
        }
    }

    /// The same for a class to which other pods matter by more than what they take: by a sweep and its groups.
    fn sweep_groups(
        &mut self,
        cluster: &Cluster,
        at: usize,
        start: usize,
        hidden: &[(NodeId, Rejection)],
    ) -> Option<Choice> {
        let state = self.states.get_mut(at).filter(|s| s.can_be_loose(&self.rules) && !s.unusual)?;
        let rows = cluster.columns().rows();
        let since = usize::try_from(self.feed.end() - state.asked).unwrap_or(usize::MAX);
        state.asked = self.feed.end();
        let sweep = rows * SWEEP_GROUPS;
        let follow = since.saturating_mul(FOLLOW_COUNTED).min(rows * MAKE_COUNTED);
        let (more, less) = if state.loose { (sweep, follow) } else { (follow, sweep) };
        state.credit = state.credit.saturating_add(more).saturating_sub(less);
        let turns = state.credit > rows * MAKE_COUNTED;
        let loose = state.loose != turns;
        if !loose && !turns {
            return None;
        }
        self.repair_as_is(cluster, at);
        let Self { feed, sheet, kinds, states, rules, scratch, .. } = self;
        sheet.catch_up(cluster, feed);
        let state = states.get_mut(at)?;
        let view = View { cluster, feed, sheet, kinds: kinds.get(state.kinds)?, rules };
        if turns {
            state.turn(view, loose, scratch);
        }
        if !state.loose || state.unusual {
            return None;
        }
        let judge = Judge { rules, spec: &state.spec, counts: state.counts.as_deref() };
        sweep::choose_by_group(view, (judge, state.index.as_deref()?), start, hidden, scratch)
    }

    /// Makes the index of a class show the present, with the points of all rows.
    fn repair(&mut self, cluster: &Cluster, at: usize) {
        self.repair_as_is(cluster, at);
        let Self { feed, sheet, kinds, states, rules, scratch, .. } = self;
        let Some(state) = states.get_mut(at).filter(|s| s.loose) else { return };
        let Some(kinds) = kinds.get(state.kinds) else { return };
        state.turn(View { cluster, feed, sheet, kinds, rules }, false, scratch);
    }

    /// Makes the index of a class show the present.
    fn repair_as_is(&mut self, cluster: &Cluster, at: usize) {
        let Self { feed, sheet, kinds, states, rules, scratch, .. } = self;
        let Some(state) = states.get_mut(at) else { return };
        let Some(kinds) = kinds.get(state.kinds) else { return };
        let had = state.index.is_some();
        if !had {
            sheet.catch_up(cluster, feed);
        }
        state.repair(View { cluster, feed, sheet, kinds, rules }, scratch);
        if state.is_by_load() {
            state.credit = 0;
        }
        if !had {
            self.make_room(cluster.columns().rows(), at);
        }
    }

    /// Drops indexes that were not used for long, if all take too much.
    fn make_room(&mut self, rows: usize, keep: usize) {
        let bytes = |s: &ClassState| match (&s.index, &s.counts) {
            (None, _) => 0,
            (Some(_), None) => rows * BYTES_PER_ROW,
            (Some(_), Some(_)) => rows * BYTES_PER_ROW_COUNTED,
        };
        let mut taken: usize = self.states.iter().map(bytes).sum();
        let mut kept = self.states.iter().filter(|s| s.index.is_some()).count();
        while taken > BYTES_MAX && kept > INDEXES_MIN {
            let others = self.states.iter_mut().enumerate().filter(|(n, s)| *n != keep && s.index.is_some());
            let Some((_, oldest)) = others.min_by_key(|(_, s)| s.used) else { return };
            taken -= bytes(oldest);
            kept -= 1;
            oldest.forget();
        }
    }

    fn add(&mut self, cluster: &Cluster, spec: &Arc<PodSpec>) -> usize {
        let kinds = self.kinds_of(cluster, spec);
        let Some(looked_at) = self.kinds.get_mut(kinds) else { return usize::MAX };
        looked_at.users += 1;
        looked_at.catch_up(cluster, &self.feed);
        let Some(looked_at) = self.kinds.get(kinds) else { return usize::MAX };
        let mut state = ClassState::new(self.view(cluster, looked_at), spec, kinds);
        state.born = self.tick;
        let oldest = (self.states.len() >= CLASSES_MAX)
            .then(|| self.states.iter().enumerate().min_by_key(|(_, s)| s.used).map(|(at, _)| at))
            .flatten();
        let at = match oldest {
            Some(at) => {
                if let Some(slot) = self.states.get_mut(at) {
                    let old = core::mem::replace(slot, state);
                    self.by_address.remove(&Arc::as_ptr(&old.spec).addr());
                    self.by_spec.remove(&old.spec);
                    self.leave_kinds(old.kinds);
                }
                at
            }
            None => {
                self.states.push(state);
                self.states.len() - 1
            }
        };
        self.by_address.insert(Arc::as_ptr(spec).addr(), at);
        self.by_spec.insert(Arc::clone(spec), at);
        at
    }

    /// What the objects of nodes mean to pods of a spec.
    fn kinds_of(&mut self, cluster: &Cluster, spec: &Arc<PodSpec>) -> usize {
        let wishes = Wishes::of(spec);
        if let Some(at) = self.kinds_by_wishes.get(&wishes) {
            return *at;
        }
        let kinds = Kinds::new(cluster, &self.feed, spec);
        let free = self.kinds.iter_mut().enumerate().find(|(_, k)| k.users == 0);
        let at = match free {
            Some((at, slot)) => {
                *slot = kinds;
                at
            }
            None => {
                self.kinds.push(kinds);
                self.kinds.len() - 1
            }
        };
        self.kinds_by_wishes.insert(wishes, at);
        at
    }

    fn leave_kinds(&mut self, at: usize) {
        let Some(kinds) = self.kinds.get_mut(at) else { return };
        kinds.users = kinds.users.saturating_sub(1);
        if kinds.users == 0 {
            self.kinds_by_wishes.remove(&kinds.wishes());
            kinds.clear();
        }
    }
}
