//! A decision in steps, between which extenders are asked. The cluster may change between them, so that nodes have
//! names here; one that went is left out.

use alloc::string::String;
use alloc::vec::Vec;

use super::decide::totals;
use super::{Placement, Scheduler, TieBreak, Unschedulable};
use crate::cache::NodeId;
use crate::framework::Rejection;
use crate::model::Pod;

/// The nodes that plugins leave for a pod.
#[derive(Clone, Debug, Default)]
pub(crate) struct Contest {
    /// In order of row.
    pub(crate) feasible: Vec<String>,
    /// Why others are left out.
    pub(crate) rejected: Vec<Rejection>,
    /// From which row on ties are decided.
    pub(crate) start: usize,
}

impl Scheduler {
    /// The node on which room was made for the pod, if it will do.
    pub(crate) fn kept_alone(&mut self, pod: &Pod) -> Option<String> {
        self.turn_to(pod);
        self.cluster.prepare(&pod.spec);
        self.kept_for(pod).map(|p| p.name)
    }

    /// Which nodes will do for a pod, as far as plugins go.
    pub(crate) fn contest(&mut self, pod: &Pod) -> Result<Contest, Unschedulable> {
        self.turn_to(pod);
        self.cluster.prepare(&pod.spec);
        let crowded = self.crowded(pod);
        let start = self.ties.start(self.cluster.columns().rows());
        let survey = self.survey_in_turn(pod, crowded);
        match survey.prefilter {
            Some(rejection) => Err(self.rejected_outright(&rejection)),
            None => Ok(Contest {
                feasible: survey
                    .feasible
                    .iter()
                    .filter_map(|id| Some(self.node(*id)?.name.clone()))
                    .collect(),
                rejected: survey.rejected.into_iter().map(|(_, r)| r).collect(),
                start,
            }),
        }
    }

    /// The points that plugins give to each of these nodes.
    pub(crate) fn points(&mut self, pod: &Pod, names: &[String]) -> Vec<(String, i64)> {
        self.turn_to(pod);
        self.cluster.prepare(&pod.spec);
        let mut ids: Vec<NodeId> = names.iter().filter_map(|n| self.cluster.node_id(n)).collect();
        ids.sort_unstable();
        ids.dedup();
        let totals = totals(&self.profile.slots, self.cycle(pod), &ids);
        ids.iter().zip(totals).filter_map(|(id, total)| Some((self.node(*id)?.name.clone(), total))).collect()
    }

    /// The best of these nodes.
    pub(crate) fn best(&self, start: usize, totals: &[(String, i64)]) -> Option<Placement> {
        let mut there: Vec<(NodeId, i64)> =
            totals.iter().filter_map(|(name, total)| Some((self.cluster.node_id(name)?, *total))).collect();
        there.sort_unstable();
        let max = there.iter().map(|(_, total)| *total).max()?;
        let best: Vec<NodeId> = there.iter().filter(|(_, t)| *t == max).map(|(id, _)| *id).collect();
        TieBreak::pick(start, &best).map(|node| self.placement(node, there.len()))
    }

    /// No node is left for these reasons, one a node.
    pub(crate) fn none_left(&self, rejected: Vec<Rejection>) -> Unschedulable {
        self.unschedulable(rejected.into_iter().map(|r| (r, 1)).collect())
    }
}
