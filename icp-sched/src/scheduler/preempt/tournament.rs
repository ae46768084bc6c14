//! The least of many costs, kept while single ones change.

use alloc::vec::Vec;
use core::ops::Range;

/// Nobody.
const NONE: u32 = u32::MAX;

/// A cost for some of many rows, with the winner of every pair, of every pair of winners, and so on.
#[derive(Clone, Debug)]
pub(super) struct Tournament<C> {
    costs: Vec<Option<C>>,
    /// A heap: the winner of node `n` is that of `2n` and `2n + 1`; the rows begin at the middle.
    winners: Vec<u32>,
}

impl<C: Ord + Copy> Tournament<C> {
    pub(super) fn new(mut costs: Vec<Option<C>>) -> Self {
        let leaves = costs.len().next_power_of_two().max(1);
        costs.resize(leaves, None);
        let mut winners = alloc::vec![NONE; leaves];
        winners.extend(costs.iter().zip(0..).map(|(cost, row)| if cost.is_some() { row } else { NONE }));
        let mut all = Self { costs, winners };
        for node in (1..leaves).rev() {
            all.play(node);
        }
        all
    }

    pub(super) fn rows(&self) -> usize {
        self.costs.len()
    }

    pub(super) fn get(&self, row: usize) -> Option<C> {
        self.costs.get(row).copied().flatten()
    }

    pub(super) fn set(&mut self, row: usize, cost: Option<C>) {
        let mut node = self.costs.len() + row;
        let Some(slot) = self.costs.get_mut(row) else { return };
        *slot = cost;
        if let (Some(winner), Ok(row)) = (self.winners.get_mut(node), u32::try_from(row)) {
            *winner = if cost.is_some() { row } else { NONE };
        }
        while node > 1 {
            node /= 2;
            self.play(node);
        }
    }

    /// The first row with the least cost of those from `start` on and then those before it.
    pub(super) fn best(&self, start: usize) -> Option<usize> {
        let (after, before) = (self.least(start..self.rows()), self.least(0..start.min(self.rows())));
        let better = match (self.cost(after), self.cost(before)) {
            (Some(after_cost), Some(before_cost)) if before_cost < after_cost => before,
            (None, _) => before,
            _ => after,
        };
        (better != NONE).then_some(better as usize)
    }

    fn least(&self, rows: Range<usize>) -> u32 {
        let mut best = NONE;
        let (mut from, mut to) = (rows.start + self.rows(), rows.end + self.rows());
        while from < to {
            if from % 2 == 1 {
                best = self.better(best, self.winner(from));
                from += 1;
            }
            if to % 2 == 1 {
                to -= 1;
                best = self.better(best, self.winner(to));
            }
            from /= 2;
            to /= 2;
        }
        best
    }

    fn play(&mut self, node: usize) {
        let better = self.better(self.winner(2 * node), self.winner(2 * node + 1));
        if let Some(winner) = self.winners.get_mut(node) {
            *winner = better;
        }
    }

    fn winner(&self, node: usize) -> u32 {
        self.winners.get(node).copied().unwrap_or(NONE)
    }

    fn cost(&self, row: u32) -> Option<C> {
        self.get(row as usize)
    }

    /// By cost, then by row.
    fn better(&self, a: u32, b: u32) -> u32 {
        match (self.cost(a), self.cost(b)) {
            (Some(of_a), Some(of_b)) if (of_a, a) <= (of_b, b) => a,
            (Some(_), None) => a,
            _ => b,
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(64))]
        #[test]
        fn like_a_look_at_all(
            first in prop::collection::vec(prop::option::of(0..4_u8), 0..40),
            later in prop::collection::vec((0..40_usize, prop::option::of(0..4_u8)), 0..40),
            start in 0..50_usize,
        ) {
            let mut costs = first.clone();
            let mut all = Tournament::new(first);
            for (row, cost) in later {
                if let Some(slot) = costs.get_mut(row) {
                    *slot = cost;
                    all.set(row, cost);
                }
            }
            let key = |row: &usize| (costs[*row], *row < start, *row);
            let want = (0..costs.len()).filter(|row| costs[*row].is_some()).min_by_key(key);
            prop_assert_eq!(all.best(start), want);
        }
    }
}
