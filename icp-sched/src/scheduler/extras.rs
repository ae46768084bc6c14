//! Plugins whose outcome is not kept for classes: they are asked about each node that the others leave, on top of what is
//! kept for the rest.

use smallvec::SmallVec;

use super::Scheduler;
use super::fast::{Fast, Outcome};
use super::profile::Profile;
use crate::cache::NodeId;
use crate::framework::{Checks, Cycle, Point, Rejection, Slot};
use crate::model::{Pod, PodSpec};

/// Which pods such a plugin is asked about.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Wanted {
    /// All of them: it is one of the user's own.
    Always,
    /// Those with volumes.
    ByVolumes,
    /// Those that need features of nodes.
    ByFeatures,
}

/// A plugin that is asked about each node.
#[derive(Clone, Copy, Debug)]
pub(super) struct Extra {
    pub(super) slot: usize,
    pub(super) wanted: Wanted,
}

impl Extra {
    fn minds(self, spec: &PodSpec) -> bool {
        match self.wanted {
            Wanted::Always => true,
            Wanted::ByVolumes => !spec.volumes.is_empty(),
            Wanted::ByFeatures => !spec.features.is_empty(),
        }
    }
}

impl Scheduler {
    /// Decides by what is kept for classes.
    pub(super) fn decide_fast(
        &mut self,
        pod: &Pod,
        start: usize,
        crowded: &[(NodeId, Rejection)],
    ) -> Outcome {
        let Self { cluster, profile, .. } = self;
        let Profile { slots, fast, extras, has_own, .. } = profile;
        if !*has_own && pod.spec.volumes.is_empty() && pod.spec.features.is_empty() {
            return fast.decide(cluster, &pod.spec, start, crowded);
        }
        let asked: SmallVec<[&Slot; 4]> =
            extras.iter().filter(|e| e.minds(&pod.spec)).filter_map(|e| slots.get(e.slot)).collect();
        if asked.is_empty() {
            return fast.decide(cluster, &pod.spec, start, crowded);
        }
        let cycle = Cycle { pod: &pod.spec, cluster, node_name: None };
        // Who is against all nodes has to be heard in the order of all plugins.
        let Ok(checks) = Checks::plan(asked.iter().copied(), cycle) else { return Outcome::AskAll };
        if checks.are_none() && !asked.iter().any(|s| s.weight != 0 && s.at(Point::Score)) {
            return fast.decide(cluster, &Fast::bare(&pod.spec), start, crowded);
        }
        let score = |nodes: &[NodeId], totals: &mut [i64]| {
            for slot in asked.iter().filter(|s| s.weight != 0 && s.at(Point::Score)) {
                let points = slot.plugin.score(&cycle, nodes).unwrap_or_default();
                for (total, p) in totals.iter_mut().zip(points) {
                    *total = total.saturating_add(p.saturating_mul(slot.weight));
                }
            }
        };
        fast.decide_with(cluster, &pod.spec, start, crowded, |id| checks.check(id).is_none(), score)
    }
}
