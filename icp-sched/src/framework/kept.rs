//! What the engine knows of the plugins of this crate beyond asking them.

use alloc::string::String;
use alloc::vec::Vec;

use crate::plugins::ScoringStrategy;

/// A plugin of this crate, with the arguments that the engine minds. Only this crate can make one.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Kept(pub(crate) Part);

/// The part that a plugin has in a decision.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Part {
    /// What it has by default.
    Usual,
    /// NodeResourcesFit with a strategy.
    Fit(ScoringStrategy),
    /// NodeResourcesBalancedAllocation.
    Balance {
        /// Other resources than CPU and memory.
        of: Option<Vec<String>>,
        /// By what a pod does to the balance.
        improvement: bool,
    },
    /// It minds only pods with volumes, or that need features of nodes, and is asked about each node for them.
    OnTop,
}
