//! The decision.

use alloc::collections::BTreeSet;
use alloc::format;
use alloc::string::String;
use alloc::vec::Vec;
use core::fmt;

use icp_core::client::ObjectKey;

use super::fast::Outcome;
use super::nominated::Nominated;
use super::preempt::Budgets;
use super::profile::Profile;
use super::{SchedulerBuilder, TieBreak};
use crate::cache::{Cluster, NodeId};
use crate::framework::{
    Checks, Code, Cycle, Explanation, Point, Rejection, Slot, Survey, fit_error, survey, survey_some,
};
use crate::model::{Node, Pod};

/// Where a pod goes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Placement {
    /// The node.
    pub node: NodeId,
    /// Its name.
    pub name: String,
    /// How many nodes would do.
    pub feasible: usize,
}

/// No node will do.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{message}")]
pub struct Unschedulable {
    /// `0/N nodes are available: ...`, as upstream says it.
    pub message: String,
    /// The plugins that rejected nodes: what they look at must change before the pod has a chance.
    pub plugins: BTreeSet<&'static str>,
    /// On how many nodes evicting other pods could help.
    pub preemptable: usize,
}

/// A scheduler: nodes, pods, plugins, and the decision. It knows no clock and no API server; see
/// [`SchedulerMachine`](crate::machine::SchedulerMachine) for one that does.
///
/// ```
/// use std::sync::Arc;
/// use icp_sched::Scheduler;
/// use icp_sched::model::{Node, Pod, PodSpec};
///
/// let mut scheduler = Scheduler::builder().build();
/// scheduler.cluster_mut().set_node(Node::new("small", 2_000, 4 << 30, 110));
/// scheduler.cluster_mut().set_node(Node::new("large", 8_000, 16 << 30, 110));
/// let web = Pod::new("web", Arc::new(PodSpec::asking(500, 1 << 30)));
/// let placement = scheduler.schedule(&web).unwrap();
/// assert_eq!(placement.name, "large");
/// scheduler.assume(web, placement.node); // from now on it weighs there
///
/// let huge = Pod::new("huge", Arc::new(PodSpec::asking(64_000, 1 << 30)));
/// let error = scheduler.schedule(&huge).unwrap_err();
/// assert_eq!(error.to_string(), "0/2 nodes are available: 2 Insufficient cpu.");
/// ```
pub struct Scheduler {
    pub(super) cluster: Cluster,
    pub(super) nominated: Nominated,
    pub(super) ties: TieBreak,
    pub(super) budgets: Budgets,
    /// The profile that decided last.
    pub(super) profile: Profile,
    /// The names of all profiles.
    pub(super) names: Vec<String>,
    /// The other profiles.
    pub(super) others: Vec<Profile>,
}

impl fmt::Debug for Scheduler {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Scheduler")
            .field("nodes", &self.cluster.node_count())
            .field("pods", &self.cluster.pod_count())
            .field("plugins", &self.profile.slots.iter().map(|s| s.plugin.name()).collect::<Vec<_>>())
            .finish_non_exhaustive()
    }
}

impl Default for Scheduler {
    fn default() -> Self {
        Self::builder().build()
    }
}

impl Scheduler {
    /// The default plugins, to add to and to take from.
    #[must_use]
    pub fn builder() -> SchedulerBuilder {
        SchedulerBuilder::default()
    }

    pub(super) fn new(profile: Profile, others: Vec<Profile>, ties: TieBreak) -> Self {
        let names = core::iter::once(&profile).chain(&others).map(|p| p.name.clone()).collect();
        let mut scheduler = Self {
            cluster: Cluster::default(),
            nominated: Nominated::default(),
            ties,
            budgets: Budgets::default(),
            profile,
            names,
            others,
        };
        scheduler.follow_topologies();
        scheduler
    }

    /// What is known of the cluster.
    #[must_use]
    pub const fn cluster(&self) -> &Cluster {
        &self.cluster
    }

    /// The same, to write observations into.
    pub const fn cluster_mut(&mut self) -> &mut Cluster {
        &mut self.cluster
    }

    /// Decides where a pod goes. Changes nothing but the draw of ties: call [`Scheduler::assume`] to hold to it.
    ///
    /// # Errors
    /// If no node will do, with the reasons.
    pub fn schedule(&mut self, pod: &Pod) -> Result<Placement, Unschedulable> {
        self.turn_to(pod);
        self.cluster.prepare(&pod.spec);
        if let Some(placement) = self.kept_for(pod) {
            return Ok(placement);
        }
        let crowded = self.crowded(pod);
        let start = self.ties.start(self.cluster.columns().rows());
        if self.profile.fast_on && pod.node.is_none() && self.sample().is_none() {
            match self.decide_fast(pod, start, &crowded) {
                Outcome::Chosen(choice) => {
                    return Ok(self.placement(NodeId::of(choice.row), choice.feasible));
                }
                Outcome::None(counts) => return Err(self.unschedulable(counts)),
                Outcome::AskAll => {}
            }
        }
        let survey = self.survey_in_turn(pod, crowded);
        let cycle = self.cycle(pod);
        let totals = totals(&self.profile.slots, cycle, &survey.feasible);
        let max = totals.iter().copied().max();
        let best: Vec<NodeId> = survey
            .feasible
            .iter()
            .zip(&totals)
            .filter(|(_, total)| Some(**total) == max)
            .map(|(id, _)| *id)
            .collect();
        match (TieBreak::pick(start, &best), survey.prefilter) {
            (Some(node), _) => Ok(self.placement(node, survey.feasible.len())),
            (None, Some(rejection)) => Err(self.rejected_outright(&rejection)),
            (None, None) => {
                Err(self.unschedulable(survey.rejected.into_iter().map(|(_, r)| (r, 1)).collect()))
            }
        }
    }

    /// The node on which room was made for the pod, if it will do: no other is looked at.
    pub(super) fn kept_for(&mut self, pod: &Pod) -> Option<Placement> {
        let id = self.cluster.node_id(self.nominated.node_of(&pod.key)?)?;
        self.reject(pod, id).is_none().then(|| self.placement(id, 1))
    }

    /// Why a node will not do now.
    pub(super) fn reject_alone(&mut self, pod: &Pod, id: NodeId) -> Option<Rejection> {
        if self.profile.fast_plugins
            && pod.node.is_none()
            && let Some(answer) = self.profile.fast.reject(&self.cluster, &pod.spec, id)
        {
            return answer;
        }
        match Checks::plan(&self.profile.slots, self.cycle(pod)) {
            Ok(checks) => checks.check(id),
            Err(rejection) => Some(rejection),
        }
    }

    pub(super) fn placement(&self, node: NodeId, feasible: usize) -> Placement {
        let name = self.cluster.node(node).map(|n| n.name.clone()).unwrap_or_default();
        Placement { node, name, feasible }
    }

    /// Says of every node which plugin rejects it, or how many points each plugin gives it.
    pub fn explain(&mut self, pod: &Pod) -> Explanation {
        self.turn_to(pod);
        self.cluster.prepare(&pod.spec);
        let crowded = self.crowded(pod);
        let survey = self.survey(pod, crowded);
        Explanation::new(&self.profile.slots, self.cycle(pod), survey)
    }

    /// Holds to a decision: the pod weighs on the node from now on.
    pub fn assume(&mut self, pod: Pod, node: NodeId) {
        self.nominated.remove(&pod.key);
        self.cluster.assume(pod, node);
    }

    /// Takes an assumption back; says whether there was one.
    pub fn forget(&mut self, key: &ObjectKey) -> bool {
        self.cluster.forget(key)
    }

    /// Keeps room on a node for a pod, until it is placed or [`Scheduler::clear_nomination`] is called: less important
    /// pods find the room taken.
    pub fn nominate(&mut self, pod: Pod, node: &str) {
        self.nominated.set(pod, node);
    }

    /// Gives up the room that was kept for a pod.
    pub fn clear_nomination(&mut self, key: &ObjectKey) {
        self.nominated.remove(key);
    }

    /// The node on which room is kept for a pod.
    #[must_use]
    pub fn nominated_node(&self, key: &ObjectKey) -> Option<&str> {
        self.nominated.node_of(key)
    }

    /// The node of that name.
    #[must_use]
    pub fn node(&self, id: NodeId) -> Option<&Node> {
        self.cluster.node(id).map(|n| &**n)
    }

    pub(super) fn cycle<'a>(&'a self, pod: &'a Pod) -> Cycle<'a> {
        Cycle { pod: &pod.spec, cluster: &self.cluster, node_name: pod.node.as_deref() }
    }

    /// Forgets what was observed; plugins and ties stay.
    pub fn reset(&mut self) {
        self.cluster = Cluster::default();
        self.nominated = Nominated::default();
        self.profile.forget();
        self.budgets = Budgets::default();
        self.others.iter_mut().for_each(Profile::forget);
        self.follow_topologies();
    }

    pub(super) fn unschedulable(&self, counts: Vec<(Rejection, usize)>) -> Unschedulable {
        let resolvable = counts.iter().filter(|(r, _)| r.code == Code::Unschedulable);
        Unschedulable {
            preemptable: resolvable.map(|(_, n)| n).sum(),
            message: fit_error(self.cluster.node_count(), &counts),
            plugins: counts.iter().map(|(r, _)| r.plugin).collect(),
        }
    }

    pub(super) fn rejected_outright(&self, rejection: &Rejection) -> Unschedulable {
        let nodes = self.cluster.node_count();
        Unschedulable {
            message: format!("0/{nodes} nodes are available: {}.", rejection.message()),
            plugins: [rejection.plugin].into(),
            preemptable: if rejection.code == Code::Unschedulable { nodes } else { 0 },
        }
    }

    fn survey(&self, pod: &Pod, crowded: Vec<(NodeId, Rejection)>) -> Survey {
        let mut survey = survey(&self.profile.slots, self.cycle(pod));
        for (id, rejection) in crowded {
            if let Some(at) = survey.feasible.iter().position(|f| *f == id) {
                survey.feasible.remove(at);
                survey.rejected.push((id, rejection));
            } else if let Some((_, r)) = survey.rejected.iter_mut().find(|(r, _)| *r == id) {
                *r = rejection;
            }
        }
        survey
    }

    /// The survey of all nodes, or of the sample whose turn it is.
    pub(super) fn survey_in_turn(&mut self, pod: &Pod, crowded: Vec<(NodeId, Rejection)>) -> Survey {
        let Some(wanted) = self.sample() else { return self.survey(pod, crowded) };
        let from = self.sample_start();
        let (survey, next) = survey_some(&self.profile.slots, self.cycle(pod), from, wanted, &crowded);
        self.sampled_to(next);
        survey
    }

    /// Nodes that will not do once the pods are there that room is kept for (`RunFilterPluginsWithNominatedPods`).
    pub(super) fn crowded(&mut self, pod: &Pod) -> Vec<(NodeId, Rejection)> {
        if self.nominated.is_empty() {
            return Vec::new();
        }
        let nodes: Vec<NodeId> = self
            .nominated
            .weighing_on(pod)
            .into_iter()
            .filter_map(|(node, _)| self.cluster.node_id(node))
            .collect();
        nodes.into_iter().filter_map(|id| Some((id, self.reject(pod, id)?))).collect()
    }
}

/// The sum of the weighted points of each feasible node.
pub(super) fn totals(slots: &[Slot], cycle: Cycle<'_>, feasible: &[NodeId]) -> Vec<i64> {
    let mut totals = alloc::vec![0_i64; feasible.len()];
    // A node without rivals is chosen whatever its points.
    if feasible.len() < 2 {
        return totals;
    }
    for slot in slots.iter().filter(|s| s.weight != 0 && s.at(Point::Score)) {
        if let Some(points) = slot.plugin.score(&cycle, feasible) {
            for (total, p) in totals.iter_mut().zip(points) {
                *total = total.saturating_add(p.saturating_mul(slot.weight));
            }
        }
    }
    totals
}

#[cfg(test)]
mod tests;
