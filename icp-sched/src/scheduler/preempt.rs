//! DefaultPreemption: which pods to evict so that a more important one finds room.
//!
//! Upstream tries a tenth of the nodes that could help, from a random one on; here all of them are looked at, so that
//! the choice is the best there is, unless [`SchedulerBuilder::preemption_candidates`](super::SchedulerBuilder) says
//! how many will do.

mod budgets;
mod candidates;
mod cost;
mod ground;
mod rooms;
mod roster;
#[cfg(test)]
mod tests;
mod tournament;

use alloc::collections::BTreeMap;
use alloc::format;
use alloc::string::String;
use alloc::vec::Vec;

use icp_core::client::ObjectKey;

pub(crate) use self::budgets::Budgets;
pub use self::budgets::DisruptionBudget;
pub(crate) use self::candidates::Candidates;
use self::cost::{Cost, by_importance};
use self::ground::{Ground, Tried, Victims};
pub(crate) use self::rooms::Rooms;
use super::profile::Profile;
use super::{Scheduler, Unschedulable};
use crate::cache::NodeId;
use crate::framework::{Code, Reason, Reasons, Rejected, Rejection, fit_error};
use crate::model::Pod;
use crate::plugins::fit;

const NO_VICTIMS: &str = "No preemption victims found for incoming pod";

/// Room that can be made.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Preemption {
    /// The node.
    pub node: NodeId,
    /// Its name.
    pub name: String,
    /// The pods to evict, the most important first.
    pub victims: Vec<Pod>,
    /// How many of them their budgets do not allow.
    pub violations: usize,
}

/// How many broken budgets, and who goes.
type Evicted = (usize, Vec<Pod>);

/// How many nodes say no, by reason.
type Statuses = BTreeMap<String, usize>;

impl Scheduler {
    /// Writes a PodDisruptionBudget; `None` when it is gone.
    pub fn set_budget(&mut self, key: ObjectKey, budget: Option<DisruptionBudget>) {
        self.budgets.set(key, budget);
    }

    /// Looks for pods to evict for a pod that found no node; nothing is evicted by this. Of all nodes, it is the one
    /// where upstream's order of costs says least: fewest broken budgets, least important top victim, least sum of
    /// priorities, fewest victims, top victims that started last, and then the first row from where ties are drawn. With
    /// [`SchedulerBuilder::preemption_candidates`](crate::SchedulerBuilder::preemption_candidates) it is the best of so
    /// many.
    ///
    /// # Errors
    /// Why there are none, in upstream's words; empty if the pod's profile evicts nobody.
    pub fn preempt(&mut self, pod: &Pod, none: &Unschedulable) -> Result<Preemption, String> {
        self.turn_to(pod);
        if !self.profile.preempts {
            return Err(String::new());
        }
        self.may_preempt(pod)?;
        let start = self.ties.start(self.cluster.columns().rows());
        let mut statuses = Statuses::new();
        let mut tried = 0;
        if none.preemptable > 0 {
            let found = if let Some(limits) = self.profile.candidates {
                Preemption::cheapest(self.some_candidates(pod, limits, &mut statuses, &mut tried))
            } else {
                match self.by_rooms(pod, start, &mut statuses, &mut tried) {
                    Some(found) => found,
                    None => self.by_trial(pod, start, &mut statuses, &mut tried),
                }
            };
            if let Some(found) = found {
                return Ok(found);
            }
        }
        Err(self.no_room(statuses, tried))
    }

    /// Nodes where room can be made, for extenders to choose among: as many as the profile says, or as upstream looks
    /// at.
    pub(crate) fn candidates(&mut self, pod: &Pod, none: &Unschedulable) -> Result<Vec<Preemption>, String> {
        self.turn_to(pod);
        if !self.profile.preempts {
            return Err(String::new());
        }
        self.may_preempt(pod)?;
        let limits = self.profile.candidates.unwrap_or_default();
        let (mut statuses, mut tried) = (Statuses::new(), 0);
        let mut found = Vec::new();
        if none.preemptable > 0 {
            found = self.some_candidates(pod, limits, &mut statuses, &mut tried);
        }
        if found.is_empty() { Err(self.no_room(statuses, tried)) } else { Ok(found) }
    }

    /// Why no room can be made, in upstream's words.
    fn no_room(&self, mut statuses: Statuses, tried: usize) -> String {
        let nodes = self.cluster.node_count();
        if nodes > tried {
            *statuses.entry("Preemption is not helpful for scheduling".into()).or_default() += nodes - tried;
        }
        let counted = statuses
            .into_iter()
            .map(|(reason, n)| (Rejected::unresolvable(reason).by("DefaultPreemption"), n));
        format!("preemption: {}", fit_error(nodes, &counted.collect::<Vec<_>>()))
    }

    /// By what is kept for the class of the pod; `None` if plugins have to be asked.
    fn by_rooms(
        &mut self,
        pod: &Pod,
        start: usize,
        statuses: &mut Statuses,
        tried: &mut usize,
    ) -> Option<Option<Preemption>> {
        if !self.profile.fast_plugins || pod.node.is_some() {
            return None;
        }
        let Self { cluster, budgets, nominated, profile, .. } = self;
        let Profile { fast, rooms, .. } = profile;
        let ground = Ground { cluster, budgets, nominated };
        let outlook = rooms.best(ground, fast, pod, start)?;
        if let Some(row) = outlook.best {
            let id = NodeId::of(row);
            let Ok(Some((violations, victims))) = self.try_by_counts(pod, id)? else {
                debug_assert!(false, "what is kept of row {row} is not so");
                return None;
            };
            return Some(Some(self.preemption(id, victims, violations)));
        }
        *tried = outlook.tried;
        for (reasons, n) in outlook.reasons {
            for reason in reasons {
                *statuses.entry(reason.into_owned()).or_default() += n;
            }
        }
        Some(None)
    }

    /// Whom to evict on a node, the most important first, and how many of them their budgets do not allow: nothing if
    /// nobody has to go, or it would not help. `None` if plugins have to be asked.
    fn try_by_counts(&mut self, pod: &Pod, id: NodeId) -> Option<Result<Option<Evicted>, Reasons>> {
        let Self { cluster, budgets, nominated, profile, .. } = self;
        if !profile.fast_plugins || pod.node.is_some() {
            return None;
        }
        let mut victims = Victims::new();
        let mut probe = profile.fast.probe(cluster, &pod.spec)?;
        let ground = Ground { cluster, budgets, nominated };
        let (tried, _) = ground.try_row(&mut probe, &pod.spec, Some(&pod.key), id.row(), &mut victims)?;
        Some(match tried {
            Tried::Pointless | Tried::Room(None) => Ok(None),
            Tried::Lacking(reasons) => Err(reasons),
            Tried::Room(Some(cost)) => {
                victims.sort_unstable_by(|a, b| by_importance(a, b));
                Ok(Some((cost.violations, victims.into_iter().cloned().collect())))
            }
        })
    }

    fn preemption(&self, node: NodeId, victims: Vec<Pod>, violations: usize) -> Preemption {
        let name = self.cluster.node(node).map(|n| n.name.clone()).unwrap_or_default();
        Preemption { node, name, victims, violations }
    }

    /// By taking pods off and asking the plugins, on the nodes that could be the best.
    fn by_trial(
        &mut self,
        pod: &Pod,
        start: usize,
        statuses: &mut Statuses,
        tried: &mut usize,
    ) -> Option<Preemption> {
        let rows = self.cluster.columns().rows();
        let mut nodes: Vec<(Option<Cost>, usize, NodeId)> = (start..rows)
            .chain(0..start)
            .map(NodeId::of)
            .enumerate()
            .filter(|(_, id)| self.cluster.node(*id).is_some())
            .map(|(order, id)| (self.at_least(pod, id), order, id))
            .collect();
        // Nodes where nobody can be evicted come last: they only matter to the message.
        nodes.sort_unstable_by_key(|(least, order, _)| (least.is_none(), *least, *order));
        let mut best: Option<(Cost, usize, NodeId, Vec<Pod>)> = None;
        for (least, order, id) in nodes {
            if best.as_ref().is_some_and(|(cost, ..)| least.is_none_or(|least| least > *cost)) {
                break;
            }
            // A node that was feasible, or where nothing helps, is no candidate.
            match self.reject(pod, id) {
                Some(r) if r.code == Code::Unschedulable => {}
                _ => continue,
            }
            *tried += 1;
            match self.victims_on(pod, id) {
                Ok((cost, victims)) => {
                    if let Some(cost) = cost
                        && best.as_ref().is_none_or(|(least, at, ..)| (cost, order) < (*least, *at))
                    {
                        best = Some((cost, order, id, victims));
                    }
                }
                Err(reasons) => {
                    for reason in reasons {
                        *statuses.entry(reason).or_default() += 1;
                    }
                }
            }
        }
        let (cost, _, node, victims) = best?;
        Some(self.preemption(node, victims, cost.violations))
    }

    /// What making room on a node costs at least, by the sums of what is taken by priority; nothing if there is nobody
    /// to evict.
    fn at_least(&self, pod: &Pod, id: NodeId) -> Option<Cost> {
        let columns = self.cluster.columns();
        let (have, mut load) = (columns.capacity.get(id.row())?, *columns.load.get(id.row())?);
        let lower = columns.tiers.get(id.row())?.iter().take_while(|t| t.priority < pod.spec.priority);
        let mut top = None;
        for tier in lower {
            if top.is_some() && fit::fits_load(have, &load, &pod.spec) {
                break;
            }
            load -= &tier.load;
            top = Some(tier.priority);
        }
        top.map(Cost::at_least)
    }

    /// Nominated pods on a node that are less important than `pod`: their room is taken.
    #[must_use]
    pub fn outranked(&self, pod: &Pod, node: &str) -> Vec<ObjectKey> {
        let lower = self.nominated.on(node).filter(|p| p.spec.priority < pod.spec.priority);
        lower.map(|p| p.key.clone()).collect()
    }

    /// `PodEligibleToPreemptOthers`.
    fn may_preempt(&self, pod: &Pod) -> Result<(), String> {
        if pod.spec.never_preempts {
            return Err("preemption: not eligible due to preemptionPolicy=Never.".into());
        }
        let node = self.nominated.node_of(&pod.key).and_then(|n| self.cluster.node_id(n));
        let leaving = |p: &Pod| p.spec.terminating && p.spec.priority < pod.spec.priority;
        if node.is_some_and(|id| self.cluster.pods_on(id).any(leaving)) {
            return Err("preemption: not eligible due to a terminating pod on the nominated node.".into());
        }
        Ok(())
    }

    /// Why a node will not do now, with and without the pods that room is kept for.
    pub(super) fn reject(&mut self, pod: &Pod, id: NodeId) -> Option<Rejection> {
        if self.nominated.is_empty() {
            return self.reject_alone(pod, id);
        }
        let name = self.cluster.node(id).map(|n| n.name.clone())?;
        let guests: Vec<Pod> = self
            .nominated
            .on(&name)
            .filter(|p| p.spec.priority >= pod.spec.priority && p.key != pod.key)
            .filter(|p| self.cluster.pod(&p.key).is_none())
            .cloned()
            .collect();
        if !guests.is_empty() {
            for guest in &guests {
                self.cluster.assume(guest.clone(), id);
            }
            let rejection = self.reject_alone(pod, id);
            for guest in &guests {
                self.cluster.forget(&guest.key);
            }
            if rejection.is_some() {
                return rejection;
            }
        }
        self.reject_alone(pod, id)
    }

    /// The fewest and least important pods whose eviction makes a node do, and what that costs
    /// (`SelectVictimsOnNode`); no cost if nobody has to go.
    fn victims_on(&mut self, pod: &Pod, id: NodeId) -> Result<(Option<Cost>, Vec<Pod>), Vec<String>> {
        let mut lower: Vec<Pod> =
            self.cluster.pods_on(id).filter(|p| p.spec.priority < pod.spec.priority).cloned().collect();
        if lower.is_empty() {
            return Err(alloc::vec![NO_VICTIMS.into()]);
        }
        lower.sort_by(by_importance);
        let mut lifted = Vec::new();
        for victim in &lower {
            lifted.extend(self.cluster.lift(&victim.key));
        }
        let result = match self.reject(pod, id) {
            Some(rejection) => Err(rejection.reasons.into_iter().map(Reason::into_owned).collect()),
            None => {
                let violates = self.budgets.violating(lower.iter());
                let mut violations = 0;
                let mut victims: Vec<Pod> = Vec::new();
                // Pods whose budgets would be broken are spared first.
                for wanted in [true, false] {
                    for (victim, violates) in lower.iter().zip(&violates).filter(|(_, v)| **v == wanted) {
                        let at = lifted.iter().position(|p| p.pod.key == victim.key);
                        let Some(placed) = at.map(|at| lifted.swap_remove(at)) else { continue };
                        self.cluster.put_back(placed);
                        if self.reject(pod, id).is_some() {
                            lifted.extend(self.cluster.lift(&victim.key));
                            victims.push(victim.clone());
                            violations += usize::from(*violates);
                        }
                    }
                }
                victims.sort_by(by_importance);
                Ok((Cost::of(violations, victims.iter()), victims))
            }
        };
        for placed in lifted {
            self.cluster.put_back(placed);
        }
        result
    }
}
