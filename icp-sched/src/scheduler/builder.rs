//! Putting a scheduler together.

use alloc::boxed::Box;
use alloc::vec::Vec;
use core::fmt;

use super::{Scheduler, TieBreak};
use crate::framework::{Plugin, Slot};
use crate::plugins;

/// Puts a [`Scheduler`] together.
pub struct SchedulerBuilder {
    slots: Vec<(Box<dyn Plugin>, i64)>,
    ties: TieBreak,
    /// Plugins and weights are the default ones.
    default: bool,
    fast: bool,
}

impl Default for SchedulerBuilder {
    fn default() -> Self {
        Self { slots: plugins::defaults(), ties: TieBreak::default(), default: true, fast: true }
    }
}

impl fmt::Debug for SchedulerBuilder {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let names = self.slots.iter().map(|(p, weight)| (p.name(), weight));
        f.debug_map().entries(names).finish()
    }
}

impl SchedulerBuilder {
    /// Adds a plugin after the others; its points are multiplied by `weight`.
    #[must_use]
    pub fn plugin(mut self, plugin: impl Plugin + 'static, weight: i64) -> Self {
        self.default = false;
        self.slots.push((Box::new(plugin), weight));
        self
    }

    /// Leaves out the plugin of that name.
    #[must_use]
    pub fn without(mut self, name: &str) -> Self {
        self.default = false;
        self.slots.retain(|(p, _)| p.name() != name);
        self
    }

    /// Gives the plugin of that name another weight.
    #[must_use]
    pub fn weight(mut self, name: &str, weight: i64) -> Self {
        self.default = false;
        for (_, w) in self.slots.iter_mut().filter(|(p, _)| p.name() == name) {
            *w = weight;
        }
        self
    }

    /// How one of several best nodes is chosen.
    #[must_use]
    pub fn ties(mut self, ties: TieBreak) -> Self {
        self.ties = ties;
        self
    }

    /// Asks every plugin about every node for every pod, instead of following changes: the same decisions, slower.
    #[must_use]
    pub fn exhaustive(mut self) -> Self {
        self.fast = false;
        self
    }

    /// A scheduler that knows no nodes yet.
    #[must_use]
    pub fn build(self) -> Scheduler {
        let slots = self.slots.into_iter().map(|(plugin, weight)| Slot { plugin, weight });
        Scheduler::new(slots.collect(), self.ties, self.default && self.fast)
    }
}
