//! How bad it is to evict pods.

use core::cmp::{Ordering, Reverse};

use icp_core::base::Time;

use crate::model::Pod;

/// Smaller is better (`pickOneNodeForPreemption`): fewest broken budgets, least important victim at the top, least
/// importance in all, fewest victims, and the top victims that started last.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Cost {
    pub(super) violations: usize,
    top: i32,
    sum: i64,
    victims: usize,
    /// When the first of the top victims started, in microseconds.
    earliest: Reverse<i64>,
}

/// So that the sum of priorities below zero grows with their number as well.
const fn weight(priority: i32) -> i64 {
    priority as i64 + i32::MAX as i64 + 1
}

impl Cost {
    /// The cost of evicting these pods; nothing for none.
    pub(super) fn of<'p>(
        violations: usize,
        victims: impl ExactSizeIterator<Item = &'p Pod> + Clone,
    ) -> Option<Self> {
        let top = victims.clone().map(|v| v.spec.priority).max()?;
        let sum = victims.clone().map(|v| weight(v.spec.priority)).sum();
        let earliest = victims.clone().filter(|v| v.spec.priority == top).map(started).min()?;
        Some(Self { violations, top, sum, victims: victims.len(), earliest: Reverse(earliest) })
    }

    /// The cost of evicting pods of these priorities, of which `top` is the highest, but for when they started: at least
    /// so much.
    pub(super) fn bare(violations: usize, top: i32, priorities: impl ExactSizeIterator<Item = i32>) -> Self {
        let victims = priorities.len();
        Self { violations, top, sum: priorities.map(weight).sum(), victims, earliest: Reverse(i64::MAX) }
    }

    /// The same where the first of the top victims started then, in microseconds.
    pub(super) const fn since(self, earliest: i64) -> Self {
        Self { earliest: Reverse(earliest), ..self }
    }

    /// What evicting at least one pod of this priority costs at least.
    pub(super) const fn at_least(top: i32) -> Self {
        Self { violations: 0, top, sum: weight(top), victims: 1, earliest: Reverse(i64::MAX) }
    }
}

/// A pod that did not start yet starts last.
pub(super) fn started(pod: &Pod) -> i64 {
    pod.started.map_or(i64::MAX, Time::as_micros)
}

/// The most important first: by priority, then by how long they run (`util.MoreImportantPod`), then by name.
pub(super) fn by_importance(a: &Pod, b: &Pod) -> Ordering {
    let rank = |p: &Pod| (Reverse(p.spec.priority), started(p));
    rank(a).cmp(&rank(b)).then_with(|| a.key.cmp(&b.key))
}
