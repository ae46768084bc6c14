//! The best node of a class, group by group.

use smallvec::SmallVec;

use super::axes::{AFFINITY, Look, TAINTS};
use super::index::{Group, Key};
use super::rows::Rows;
use super::state::ClassState;
use crate::framework::{Rejected, Rejection, SCORE_MAX};
use crate::plugins::interpod::{self, Field, REASON_AFFINITY, REASON_ANTI, REASON_EXISTING};
use crate::plugins::spread::{self, REASON, REASON_LABEL, Soft};

/// The weights of upstream (`getDefaultPlugins`).
const WEIGHT_TAINTS: i64 = 3;
const WEIGHT_AFFINITY: i64 = 2;
const WEIGHT_SPREAD: i64 = 2;
const WEIGHT_INTERPOD: i64 = 2;

/// A group that will do.
struct Candidate<'s> {
    group: &'s Group,
    /// The spread before it is normalised; `None` for nodes that get no points for it.
    spread: Option<i64>,
    interpod: i64,
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
const fn scaled(raw: i64, max: i64, reverse: bool) -> i64 {
    let part = if max == 0 { raw } else { raw.saturating_mul(SCORE_MAX) / max };
    match (max, reverse) {
        (0, true) => SCORE_MAX,
        (_, true) => SCORE_MAX - part,
        (_, false) => part,
    }
}

impl ClassState {
    /// Why the nodes of a group will not do.
    pub(super) fn judge(&self, key: &Key) -> Option<Rejection> {
        let hard = self.hard.as_ref().map(|hard| (hard, &self.spec.spread_hard));
        for (n, look) in self.axes.hard.iter().enumerate() {
            let Some((c, (hard, constraints))) = hard.and_then(|h| Some((h.1.get(n)?, h))) else { continue };
            debug_assert_eq!(constraints.len(), self.axes.hard.len());
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
        let positive = |look: &Look, field| self.field(key, look, field).is_some_and(|n| n > 0);
        let mut alone = false;
        for look in &self.axes.affinity {
            match self.field(key, look, Field::Affinity) {
                None => return Some(Rejected::unresolvable(REASON_AFFINITY).by("InterPodAffinity")),
                Some(n) => alone |= n <= 0,
            }
        }
        let first = || self.fields.entries(Field::Affinity) == 0 && self.attracts_itself;
        if alone && !first() {
            return Some(Rejected::unresolvable(REASON_AFFINITY).by("InterPodAffinity"));
        }
        if self.axes.anti.iter().any(|look| positive(look, Field::Anti)) {
            return Some(Rejected::unschedulable(REASON_ANTI).by("InterPodAffinity"));
        }
        if self.axes.existing.iter().any(|look| positive(look, Field::Existing)) {
            return Some(Rejected::unschedulable(REASON_EXISTING).by("InterPodAffinity"));
        }
        None
    }

    /// A sum of affinity at a group; `None` without the topology label.
    fn field(&self, key: &Key, look: &Look, field: Field) -> Option<i64> {
        let domain = at(key, look.label);
        let domain = u32::try_from(domain).ok()?;
        Some(match look.value {
            Some(value) => at(key, value),
            None => self.fields.get(field, look.column, domain),
        })
    }

    /// Chooses among all groups, looking for the first of equals from row `start` on. Without a choice, `rejected` has
    /// been told of every group.
    pub(super) fn choose(&self, start: usize, mut rejected: impl FnMut(Rejection, usize)) -> Option<Choice> {
        let mut candidates: SmallVec<[Candidate<'_>; 8]> = SmallVec::new();
        let filtered = !self.axes.is_plain();
        for group in self.index.groups() {
            if filtered && let Some(rejection) = self.judge(&group.key) {
                rejected(rejection, group.len);
                continue;
            }
            candidates.push(Candidate { group, spread: None, interpod: 0 });
        }
        let most = |position| candidates.iter().map(|c| at(&c.group.key, position)).max().unwrap_or(0);
        let (taints, affinity) = (most(TAINTS), most(AFFINITY));
        let spread = self.spread(&mut candidates);
        let interpod = self.interpod(&mut candidates);
        let mut best: SmallVec<[&Rows; 4]> = SmallVec::new();
        let (mut max, mut feasible) = (i64::MIN, 0);
        for candidate in &candidates {
            let group = candidate.group;
            feasible += group.len;
            let Some((points, rows)) = group.top() else { continue };
            let mut total = i64::try_from(points).unwrap_or(0)
                + WEIGHT_TAINTS * scaled(at(&group.key, TAINTS), taints, true)
                + WEIGHT_AFFINITY * scaled(at(&group.key, AFFINITY), affinity, false);
            if let (Some((least, most)), Some(raw)) = (spread, candidate.spread) {
                total += WEIGHT_SPREAD * spread::normalized(raw, least, most);
            }
            if let Some((least, most)) = interpod {
                total += WEIGHT_INTERPOD * interpod::normalized(candidate.interpod, least, most);
            }
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

    /// Fills in the spread of each candidate; the least and the most of them, if the pod is spread softly.
    fn spread(&self, candidates: &mut [Candidate<'_>]) -> Option<(i64, i64)> {
        let soft = self.soft.as_ref()?;
        let labelled =
            |key: &Key| !soft.needs_labels() || self.axes.soft.iter().all(|look| at(key, look.label) >= 0);
        let mut weights: SmallVec<[f64; 4]> = SmallVec::new();
        for (n, look) in self.axes.soft.iter().enumerate() {
            let there = candidates.iter().filter(|c| labelled(&c.group.key));
            let size = if soft.per_node(n) {
                there.map(|c| c.group.len).sum()
            } else if look.value.is_some() {
                // Each labelled node is a domain of its own; the others are one.
                let with: usize =
                    there.clone().filter(|c| at(&c.group.key, look.label) >= 0).map(|c| c.group.len).sum();
                with + usize::from(there.clone().any(|c| at(&c.group.key, look.label) < 0))
            } else {
                let mut domains: SmallVec<[i64; 16]> = there.map(|c| at(&c.group.key, look.label)).collect();
                domains.sort_unstable();
                domains.dedup();
                domains.len()
            };
            weights.push(spread::weight(size));
        }
        for candidate in candidates.iter_mut().filter(|c| labelled(&c.group.key)) {
            candidate.spread = Some(self.raw_spread(soft, &weights, &candidate.group.key));
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
            let of = |look| self.field(&candidate.group.key, look, Field::Score).unwrap_or(0);
            candidate.interpod = self.axes.score.iter().map(of).fold(0, i64::saturating_add);
        }
        let raw = || candidates.iter().map(|c| c.interpod);
        Some((raw().min()?, raw().max()?))
    }
}
