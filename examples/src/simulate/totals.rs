//! The outcomes of many seeds.

use icp_core::base::{Duration, Time};
use icp_core::sim::{Counts, Trace};

use super::Outcome;

/// The outcomes of many seeds, in their order.
#[derive(Clone, Debug)]
pub struct Totals {
    /// How many.
    pub seeds: u64,
    /// How much time was simulated in all.
    pub simulated: Duration,
    /// Faults by kind.
    pub faults: Counts,
    /// Checks by kind.
    pub checks: Counts,
    /// The longest time from the healing until all was well.
    pub slowest: Duration,
    hashes: Trace,
}

impl Default for Totals {
    fn default() -> Self {
        Self {
            seeds: 0,
            simulated: Duration::ZERO,
            faults: Counts::default(),
            checks: Counts::default(),
            slowest: Duration::ZERO,
            hashes: Trace::new(false),
        }
    }
}

impl Totals {
    /// Adds the next seed.
    pub fn add(&mut self, outcome: &Outcome) {
        self.seeds += 1;
        self.simulated += outcome.simulated;
        self.faults.merge(&outcome.faults);
        self.checks.merge(&outcome.checks);
        self.slowest = self.slowest.max(outcome.converged_after.unwrap_or_default());
        let at = Time::ZERO + outcome.simulated;
        self.hashes.line(at, &outcome.seed.to_string(), format_args!("{}", outcome.hash));
    }

    /// The hash over the traces of all seeds.
    #[must_use]
    pub fn hash(&self) -> String {
        self.hashes.hash()
    }
}
