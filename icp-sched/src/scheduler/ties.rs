//! Which of the best nodes.

use icp_core::base::Rng;

use crate::cache::NodeId;

/// How a node is chosen among those with equal points. Upstream draws one at random; here the rule is an input, so
/// that a run can be repeated.
#[derive(Clone, Debug, Default)]
pub enum TieBreak {
    /// The one in the first row: nodes that came first fill up first.
    #[default]
    First,
    /// The first at or after a row that is drawn anew for each pod.
    Seeded(Rng),
}

impl TieBreak {
    /// The row to look from, of so many rows.
    pub(crate) fn start(&mut self, rows: usize) -> usize {
        match self {
            Self::First => 0,
            Self::Seeded(rng) => usize::try_from(rng.below(rows as u64)).unwrap_or(0),
        }
    }

    /// The first at or after `start`, or the first of all; `best` is in order of row.
    pub(crate) fn pick(start: usize, best: &[NodeId]) -> Option<NodeId> {
        best.iter().find(|id| id.row() >= start).or_else(|| best.first()).copied()
    }
}
