//! The best node of a class, group by group.

use smallvec::SmallVec;

use super::axes::{AFFINITY, Look, TAINTS};
use super::counts::Counts;
use super::index::{Group, Index, Key};
use super::rows::Rows;
use super::rules::Rules;
use crate::framework::{Rejected, Rejection, SCORE_MAX};
use crate::model::PodSpec;
use crate::plugins::interpod::{self, Field, REASON_AFFINITY, REASON_ANTI, REASON_EXISTING};
use crate::plugins::spread::{self, REASON, REASON_LABEL, Soft};

/// A group that will do.
pub(super) struct Candidate<'s> {
    pub(super) key: &'s Key,
    /// How many nodes of it will do.
    pub(super) len: usize,
    /// The spread before it is normalised; `None` for nodes that get no points for it.
    spread: Option<i64>,
    interpod: i64,
}

impl<'s> Candidate<'s> {
    pub(super) const fn new(key: &'s Key, len: usize) -> Self {
        Self { key, len, spread: None, interpod: 0 }
    }
}

/// The chosen row, and how many would do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::scheduler) struct Choice {
    pub(in crate::scheduler) row: usize,
    pub(in crate::scheduler) feasible: usize,
}

fn at(key: &Key, position: usize) -> i64 {
    key.get(position).copied().unwrap_or(0)
}

/// 0 to 100 by the largest (`DefaultNormalizeScore`).
pub(super) const fn scaled(raw: i64, max: i64, reverse: bool) -> i64 {
    let part = if max == 0 { raw } else { raw.saturating_mul(SCORE_MAX) / max };
    match (max, reverse) {
        (0, true) => SCORE_MAX,
        (_, true) => SCORE_MAX - part,
        (_, false) => part,
    }
}

/// What decides about groups.
#[derive(Clone, Copy)]
pub(super) struct Judge<'j> {
    pub(super) rules: &'j Rules,
    pub(super) spec: &'j PodSpec,
    /// Absent if other pods do not matter.
    pub(super) counts: Option<&'j Counts>,
}

impl Judge<'_> {
    /// Why the nodes of a group will not do.
    pub(super) fn reject(self, key: &Key) -> Option<Rejection> {
        let counts = self.counts?;
        for (n, (look, c)) in counts.axes.hard.iter().zip(&self.spec.spread_hard).enumerate() {
            let Some(hard) = &counts.hard else { continue };
            let domain = at(key, look.label);
            if domain < 0 {
                return Some(Rejected::unresolvable(REASON_LABEL).by("PodTopologySpread"));
            }
            let there = match look.value {
                Some(value) => at(key, value),
                None => hard.count(n, u32::try_from(domain).unwrap_or(u32::MAX)),
            };
            if !hard.allows(n, c, there) {
                return Some(Rejected::unschedulable(REASON).by("PodTopologySpread"));
            }
        }
        let positive = |look: &Look, field| counts.field(key, look, field).is_some_and(|n| n > 0);
        let mut alone = false;
        for look in &counts.axes.affinity {
            match counts.field(key, look, Field::Affinity) {
                None => return Some(Rejected::unresolvable(REASON_AFFINITY).by("InterPodAffinity")),
                Some(n) => alone |= n <= 0,
            }
        }
        let first = || counts.fields.entries(Field::Affinity) == 0 && counts.attracts_itself;
        if alone && !first() {
            return Some(Rejected::unresolvable(REASON_AFFINITY).by("InterPodAffinity"));
        }
        if counts.axes.anti.iter().any(|look| positive(look, Field::Anti)) {
            return Some(Rejected::unschedulable(REASON_ANTI).by("InterPodAffinity"));
        }
        if counts.axes.existing.iter().any(|look| positive(look, Field::Existing)) {
            return Some(Rejected::unschedulable(REASON_EXISTING).by("InterPodAffinity"));
        }
        None
    }

    /// Chooses where other pods do not matter and all nodes that will do are of one group, as is usual; `None` where it
    /// is otherwise.
    pub(super) fn choose_lone(self, index: &Index, start: usize) -> Option<Choice> {
        let mut groups = index.groups();
        let (Some(group), None, None) = (groups.next(), groups.next(), self.counts) else { return None };
        let (_, rows) = group.top()?;
        let row = rows.next(start).or_else(|| rows.next(0))?;
        Some(Choice { row, feasible: group.len })
    }

    /// Chooses among all groups, looking for the first of equals from row `start` on. Without a choice, `rejected` has
    /// been told of every group.
    pub(super) fn choose(
        self,
        index: &Index,
        start: usize,
        mut rejected: impl FnMut(Rejection, usize),
    ) -> Option<Choice> {
        let mut groups: SmallVec<[&Group; 8]> = SmallVec::new();
        for group in index.groups() {
            match self.reject(&group.key) {
                Some(rejection) => rejected(rejection, group.len),
                None => groups.push(group),
            }
        }
        let mut best: SmallVec<[&Rows; 4]> = SmallVec::new();
        let (mut max, mut feasible) = (i64::MIN, 0);
        let bonuses = match groups.len() {
            // What all nodes get alike does not matter.
            0 | 1 => SmallVec::from_elem(0, groups.len()),
            _ => self.bonuses(groups.iter().map(|g| Candidate::new(&g.key, g.len)).collect()),
        };
        for (group, bonus) in groups.iter().zip(bonuses) {
            feasible += group.len;
            let Some((points, rows)) = group.top() else { continue };
            let total = points + bonus;
            if total > max {
                max = total;
                best.clear();
            }
            if total == max {
                best.push(rows);
            }
        }
        let from = |start| best.iter().filter_map(|rows| rows.next(start)).min();
        let row = from(start).or_else(|| from(0))?;
        Some(Choice { row, feasible })
    }

    /// What each group gets beyond the points of its nodes.
    pub(super) fn bonuses(self, mut candidates: SmallVec<[Candidate<'_>; 8]>) -> SmallVec<[i64; 8]> {
        let rules = self.rules;
        let most = |position| candidates.iter().map(|c| at(c.key, position)).max().unwrap_or(0);
        let (taints, affinity) = (most(TAINTS), most(AFFINITY));
        let (spread, interpod) = match self.counts {
            Some(counts) => (counts.spread(&mut candidates), counts.interpod(&mut candidates)),
            None => (None, None),
        };
        let bonus = |candidate: &Candidate<'_>| {
            let mut total = rules.taints * scaled(at(candidate.key, TAINTS), taints, true)
                + rules.affinity * scaled(at(candidate.key, AFFINITY), affinity, false);
            if let (Some((least, most)), Some(raw)) = (spread, candidate.spread) {
                total += rules.spread * spread::normalized(raw, least, most);
            }
            if let Some((least, most)) = interpod {
                total += rules.interpod * interpod::normalized(candidate.interpod, least, most);
            }
            total
        };
        candidates.iter().map(bonus).collect()
    }
}

impl Counts {
    /// A sum of affinity at a group; `None` without the topology label.
    fn field(&self, key: &Key, look: &Look, field: Field) -> Option<i64> {
        let domain = at(key, look.label);
        let domain = u32::try_from(domain).ok()?;
        Some(match look.value {
            Some(value) => at(key, value),
            None => self.fields.get(field, look.column, domain),
        })
    }

    /// Fills in the spread of each candidate; the least and the most of them, if the pod is spread softly.
    fn spread(&self, candidates: &mut [Candidate<'_>]) -> Option<(i64, i64)> {
        let soft = self.soft.as_ref()?;
        let labelled =
            |key: &Key| !soft.needs_labels() || self.axes.soft.iter().all(|look| at(key, look.label) >= 0);
        let mut weights: SmallVec<[f64; 4]> = SmallVec::new();
        for (n, look) in self.axes.soft.iter().enumerate() {
            let there = candidates.iter().filter(|c| labelled(c.key));
            let size = if soft.per_node(n) {
                there.map(|c| c.len).sum()
            } else if look.value.is_some() {
                // Each labelled node is a domain of its own; the others are one.
                let with: usize = there.clone().filter(|c| at(c.key, look.label) >= 0).map(|c| c.len).sum();
                with + usize::from(there.clone().any(|c| at(c.key, look.label) < 0))
            } else {
                let mut domains: SmallVec<[i64; 16]> = there.map(|c| at(c.key, look.label)).collect();
                domains.sort_unstable();
                domains.dedup();
                domains.len()
            };
            weights.push(spread::weight(size));
        }
        for candidate in candidates.iter_mut().filter(|c| labelled(c.key)) {
            candidate.spread = Some(self.raw_spread(soft, &weights, candidate.key));
        }
        let raw = || candidates.iter().filter_map(|c| c.spread);
        Some((raw().min().unwrap_or(0), raw().max().unwrap_or(0)))
    }

    fn raw_spread(&self, soft: &Soft, weights: &[f64], key: &Key) -> i64 {
        let mut score = 0.0;
        for (n, ((look, weight), c)) in self.axes.soft.iter().zip(weights).zip(soft.list()).enumerate() {
            if let Ok(domain) = usize::try_from(at(key, look.label)) {
                let pods = look.value.map_or_else(|| soft.count(n, domain), |value| at(key, value));
                score += pods as f64 * weight + c.max_skew.saturating_sub(1) as f64;
            }
        }
        libm::round(score) as i64
    }

    /// Fills in the affinity of each candidate; the least and the most of them, if any pod has a say.
    fn interpod(&self, candidates: &mut [Candidate<'_>]) -> Option<(i64, i64)> {
        if self.axes.score.is_empty() {
            return None;
        }
        for candidate in candidates.iter_mut() {
            let of = |look| self.field(candidate.key, look, Field::Score).unwrap_or(0);
            candidate.interpod = self.axes.score.iter().map(of).fold(0, i64::saturating_add);
        }
        let raw = || candidates.iter().map(|c| c.interpod);
        Some((raw().min()?, raw().max()?))
    }
}
