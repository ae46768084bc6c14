//! DefaultPreemption: which pods to evict so that a more important one finds room.

use alloc::collections::{BTreeMap, BTreeSet};
use alloc::format;
use alloc::string::String;
use alloc::vec::Vec;
use core::cmp::{Ordering, Reverse};

use icp_core::api::labels::Selector;
use icp_core::base::Time;
use icp_core::client::ObjectKey;
use smallvec::SmallVec;

use super::{Scheduler, Unschedulable};
use crate::cache::NodeId;
use crate::framework::{Code, Reason, Rejected, Rejection, fit_error};
use crate::model::Pod;
use crate::plugins::fit;

/// Of the nodes on which eviction could help, so many are tried: this part, and at least this number
/// (`DefaultPreemptionArgs`).
const CANDIDATES_PERCENT: usize = 10;
const CANDIDATES_MIN: usize = 100;

const NO_VICTIMS: &str = "No preemption victims found for incoming pod";

/// A PodDisruptionBudget, as far as preemption minds it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct DisruptionBudget {
    /// The pods that it protects, of its namespace; an empty selector protects none.
    pub selector: Selector,
    /// How many may be evicted now (`status.disruptionsAllowed`).
    pub allowed: i64,
    /// Pods whose eviction is counted already (`status.disruptedPods`).
    pub disrupted: BTreeSet<String>,
}

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

/// Smaller is better (`pickOneNodeForPreemption`): fewest broken budgets, least important victim at the top, least
/// importance in all, fewest victims, and the top victims that started last.
type Cost = (usize, i32, i64, usize, Reverse<Option<i64>>);

fn cost<'p>(violations: usize, victims: impl Iterator<Item = &'p Pod> + Clone) -> Cost {
    let top = victims.clone().map(|v| v.spec.priority).max().unwrap_or(i32::MIN);
    let sum = victims.clone().map(|v| i64::from(v.spec.priority) + i64::from(i32::MAX) + 1).sum();
    let earliest = victims.clone().filter(|v| v.spec.priority == top).map(started).min();
    (violations, top, sum, victims.count(), Reverse(earliest))
}

/// The best node of those that were tried.
#[derive(Debug, Default)]
struct Best {
    found: Option<(Cost, NodeId, Vec<Pod>)>,
    good: usize,
    bad: usize,
}

impl Best {
    fn offer<'p>(&mut self, id: NodeId, violations: usize, victims: impl Iterator<Item = &'p Pod> + Clone) {
        *if violations == 0 { &mut self.good } else { &mut self.bad } += 1;
        let cost = cost(violations, victims.clone());
        if self.found.as_ref().is_none_or(|(best, ..)| cost < *best) {
            self.found = Some((cost, id, victims.cloned().collect()));
        }
    }
}

/// A pod that did not start yet starts last.
fn started(pod: &Pod) -> i64 {
    pod.started.map_or(i64::MAX, Time::as_micros)
}

/// The most important first: by priority, then by how long they run (`util.MoreImportantPod`), then by name.
fn by_importance(a: &Pod, b: &Pod) -> Ordering {
    let rank = |p: &Pod| (Reverse(p.spec.priority), started(p));
    rank(a).cmp(&rank(b)).then_with(|| a.key.cmp(&b.key))
}

/// Budgets by namespace and name.
pub(crate) type Budgets = BTreeMap<ObjectKey, DisruptionBudget>;

/// Which of the pods their budgets do not allow to evict, when all of them go in this order
/// (`filterPodsWithPDBViolation`).
fn violating<'p>(budgets: &Budgets, pods: impl Iterator<Item = &'p Pod>) -> Vec<bool> {
    let mut left: BTreeMap<&ObjectKey, i64> = budgets.iter().map(|(key, b)| (key, b.allowed)).collect();
    let mut violates = Vec::new();
    for pod in pods {
        let mut broken = false;
        for (key, budget) in budgets.iter().filter(|(key, _)| key.namespace == pod.key.namespace) {
            let protects = !pod.spec.labels.is_empty()
                && !budget.selector.is_everything()
                && budget.selector.matches(&pod.spec.labels)
                && !budget.disrupted.contains(&pod.key.name);
            if let Some(left) = left.get_mut(key).filter(|_| protects) {
                *left -= 1;
                broken |= *left < 0;
            }
        }
        violates.push(broken);
    }
    violates
}

impl Scheduler {
    /// Writes a PodDisruptionBudget; `None` when it is gone.
    pub fn set_budget(&mut self, key: ObjectKey, budget: Option<DisruptionBudget>) {
        match budget {
            Some(budget) => self.budgets.insert(key, budget),
            None => self.budgets.remove(&key),
        };
    }

    /// Looks for pods to evict for a pod that found no node; nothing is evicted by this.
    ///
    /// # Errors
    /// Why there are none, in upstream's words.
    pub fn preempt(&mut self, pod: &Pod, none: &Unschedulable) -> Result<Preemption, String> {
        self.may_preempt(pod)?;
        let wanted = (none.preemptable * CANDIDATES_PERCENT / 100).max(CANDIDATES_MIN).min(none.preemptable);
        let rows = self.cluster.columns().rows();
        let start = self.ties.start(rows);
        let mut best = Best::default();
        let mut statuses: BTreeMap<String, usize> = BTreeMap::new();
        let mut seen = 0;
        let by_load = self.only_load_matters(pod);
        if none.preemptable > 0 {
            for row in (start..rows).chain(0..start) {
                let id = NodeId::of(row);
                if self.cluster.node(id).is_none() {
                    continue;
                }
                // A node that was feasible, or where nothing helps, is no candidate.
                match self.reject(pod, id) {
                    Some(r) if r.code == Code::Unschedulable => {}
                    _ => continue,
                }
                seen += 1;
                let tried = if by_load {
                    self.victims_by_load(pod, id, &mut best)
                } else {
                    self.victims_on(pod, id, &mut best)
                };
                for reason in tried.err().into_iter().flatten() {
                    *statuses.entry(reason).or_default() += 1;
                }
                if best.good > 0 && best.good + best.bad >= wanted {
                    break;
                }
            }
        }
        if let Some((cost, node, victims)) = best.found {
            let name = self.cluster.node(node).map(|n| n.name.clone()).unwrap_or_default();
            return Ok(Preemption { node, name, victims, violations: cost.0 });
        }
        let nodes = self.cluster.node_count();
        if nodes > seen {
            *statuses.entry("Preemption is not helpful for scheduling".into()).or_default() += nodes - seen;
        }
        let counted = statuses
            .into_iter()
            .map(|(reason, n)| (Rejected::unresolvable(reason).by("DefaultPreemption"), n));
        Err(format!("preemption: {}", fit_error(nodes, &counted.collect::<Vec<_>>())))
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

    /// Whether eviction can change nothing for the pod but the room on the node.
    fn only_load_matters(&mut self, pod: &Pod) -> bool {
        pod.spec.requests.scalars.is_empty()
            && pod.spec.host_ports.is_empty()
            && pod.node.is_none()
            && self.fast_plugins
            && self.fast.is_plain(&self.cluster, &pod.spec)
    }

    /// [`Scheduler::victims_on`] by arithmetic alone.
    fn victims_by_load(&self, pod: &Pod, id: NodeId, best: &mut Best) -> Result<(), Vec<String>> {
        let columns = self.cluster.columns();
        let (Some(have), Some(load)) = (columns.capacity.get(id.row()), columns.load.get(id.row())) else {
            return Ok(());
        };
        let mut lower: SmallVec<[&Pod; 8]> =
            self.cluster.pods_on(id).filter(|p| p.spec.priority < pod.spec.priority).collect();
        if lower.is_empty() {
            return Err(alloc::vec![NO_VICTIMS.into()]);
        }
        lower.sort_by(|a, b| by_importance(a, b));
        let mut load = *load;
        if !self.nominated.is_empty()
            && let Some(node) = self.cluster.node(id)
        {
            let guests = self.nominated.on(&node.name).filter(|p| {
                p.spec.priority >= pod.spec.priority && p.key != pod.key && self.cluster.pod(&p.key).is_none()
            });
            guests.for_each(|p| load.add(&p.spec, 1));
        }
        lower.iter().for_each(|p| load.add(&p.spec, -1));
        if !fit::fits_load(have, &load, &pod.spec) {
            let lacking = fit::lacking_load(have, &load, &pod.spec);
            return Err(lacking.into_iter().flat_map(|r| r.reasons).map(Reason::into_owned).collect());
        }
        let violates = violating(&self.budgets, lower.iter().copied());
        let mut victims: SmallVec<[&Pod; 8]> = SmallVec::new();
        let mut violations = 0;
        // Pods whose budgets would be broken are spared first.
        for wanted in [true, false] {
            for (victim, violates) in lower.iter().zip(&violates).filter(|(_, v)| **v == wanted) {
                load.add(&victim.spec, 1);
                if !fit::fits_load(have, &load, &pod.spec) {
                    load.add(&victim.spec, -1);
                    victims.push(victim);
                    violations += usize::from(*violates);
                }
            }
        }
        if !victims.is_empty() {
            victims.sort_by(|a, b| by_importance(a, b));
            best.offer(id, violations, victims.iter().copied());
        }
        Ok(())
    }

    /// The fewest and least important pods whose eviction makes a node do (`SelectVictimsOnNode`).
    fn victims_on(&mut self, pod: &Pod, id: NodeId, best: &mut Best) -> Result<(), Vec<String>> {
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
        let mut result = Ok(());
        match self.reject(pod, id) {
            Some(rejection) => {
                result = Err(rejection.reasons.into_iter().map(Reason::into_owned).collect());
            }
            None => {
                let violates = violating(&self.budgets, lower.iter());
                let mut victims: Vec<(&Pod, bool)> = Vec::new();
                // Pods whose budgets would be broken are spared first.
                for wanted in [true, false] {
                    for (victim, violates) in lower.iter().zip(&violates).filter(|(_, v)| **v == wanted) {
                        let at = lifted.iter().position(|p| p.pod.key == victim.key);
                        let Some(placed) = at.map(|at| lifted.swap_remove(at)) else { continue };
                        self.cluster.put_back(placed);
                        if self.reject(pod, id).is_some() {
                            lifted.extend(self.cluster.lift(&victim.key));
                            victims.push((victim, *violates));
                        }
                    }
                }
                victims.sort_by(|(a, _), (b, _)| by_importance(a, b));
                let violations = victims.iter().filter(|(_, v)| *v).count();
                if !victims.is_empty() {
                    best.offer(id, violations, victims.iter().map(|(p, _)| *p));
                }
            }
        }
        for placed in lifted {
            self.cluster.put_back(placed);
        }
        result
    }
}

#[cfg(test)]
mod tests;
