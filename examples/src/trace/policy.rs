//! The policies that are compared.

use icp_core::base::Rng;
use icp_sched::plugins::{ResourceWeight, ResourcesFit, ScoringStrategy};
use icp_sched::{Scheduler, TieBreak};

use super::GPU_MILLI;
use super::devices::{GpuShare, SharedFleet};
use super::fragments::{GpuFragments, Typical};

/// Weights of CPU, memory and GPUs where policies fill nodes up.
const WEIGHTS: [(&str, i64); 3] = [("cpu", 1), ("memory", 1), (GPU_MILLI, 5)];
/// Larger than all points of other plugins together.
const DECIDES: i64 = 1_000;

/// How nodes are preferred; what keeps pods off nodes is the same for all.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Policy {
    /// kube-scheduler's defaults: the emptiest node in CPU and memory.
    LeastAllocated,
    /// NodeResourcesFit's MostAllocated: the fullest node, GPUs counting five times as much as CPU and memory.
    MostAllocated,
    /// The node on which the pod makes the fewest fragments of GPUs.
    Fragments,
}

impl Policy {
    /// All of them.
    pub const ALL: [Self; 3] = [Self::LeastAllocated, Self::MostAllocated, Self::Fragments];

    /// The name, for tables.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::LeastAllocated => "LeastAllocated (defaults)",
            Self::MostAllocated => "MostAllocated (GPU x5)",
            Self::Fragments => "fragmentation descent",
        }
    }

    /// A scheduler of this policy, without nodes.
    #[must_use]
    pub fn scheduler(self, fleet: &SharedFleet, typical: &Typical) -> Scheduler {
        let builder = Scheduler::builder().ties(TieBreak::Seeded(Rng::new(1)));
        let builder = builder.plugin(GpuShare(fleet.clone()), 0);
        match self {
            Self::LeastAllocated => builder,
            Self::MostAllocated => {
                let weights = WEIGHTS.map(|(name, weight)| ResourceWeight::new(name, weight));
                let fit = ResourcesFit::new(ScoringStrategy::MostAllocated(weights.into()));
                builder.replace(fit).weight("NodeResourcesFit", DECIDES)
            }
            Self::Fragments => {
                builder.plugin(GpuFragments { fleet: fleet.clone(), typical: typical.clone() }, DECIDES)
            }
        }
        .build()
    }
}
