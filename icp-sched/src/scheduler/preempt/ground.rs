//! Trying a node: whom to evict there so that a pod finds room, by arithmetic on what is taken and counted.

use alloc::sync::Arc;
use alloc::vec::Vec;

use icp_core::client::ObjectKey;
use smallvec::SmallVec;

use super::cost::{Cost, by_importance};
use super::{Budgets, NO_VICTIMS};
use crate::cache::{Capacity, Cluster, Load, NodeId};
use crate::framework::{Code, Reasons, Rejected, Rejection};
use crate::model::{Pod, PodSpec};
use crate::plugins::{fit, node_ports};
use crate::scheduler::fast::{Probe, Touch};
use crate::scheduler::nominated::Nominated;

/// Victims of one node; seldom more.
pub(super) type Victims<'p> = SmallVec<[&'p Pod; 8]>;

/// What is seen of the cluster.
#[derive(Clone, Copy)]
pub(super) struct Ground<'g> {
    pub(super) cluster: &'g Cluster,
    pub(super) budgets: &'g Budgets,
    pub(super) nominated: &'g Nominated,
}

/// What became of trying to make room on a node.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Tried {
    /// It will do as it is, or nothing helps.
    Pointless,
    /// It does not do even so, for these reasons.
    Lacking(Reasons),
    /// There is room, at this cost; nothing if nobody has to go.
    Room(Option<Cost>),
}

/// A pod on the node, and what it means to the preemptor.
struct Guest<'g> {
    pod: &'g Pod,
    touch: Touch,
}

/// What is taken of a node, and what is counted, while pods are thought away and back.
struct Spot<'s, 'f> {
    probe: &'s mut Probe<'f>,
    spec: &'s PodSpec,
    row: usize,
    have: Capacity,
    load: Load,
    /// Of each extended resource that the preemptor asks for: name, amount, what there is, and what is taken.
    scalars: SmallVec<[(&'s str, i64, i64, i64); 2]>,
    /// How many of the pods have a host port that the preemptor wants.
    conflicts: i64,
}

impl<'s, 'f> Spot<'s, 'f> {
    fn new(cluster: &Cluster, probe: &'s mut Probe<'f>, spec: &'s PodSpec, row: usize) -> Option<Self> {
        let columns = cluster.columns();
        let (have, load) = (*columns.capacity.get(row)?, *columns.load.get(row)?);
        let asked = spec.requests.scalars.iter().filter(|(_, asked)| **asked != 0);
        let scalars = asked.map(|(name, asked)| {
            let (have, used) = fit::scalar(columns, name, row);
            (name.as_str(), *asked, have, used)
        });
        let mut spot = Self { probe, spec, row, have, load, scalars: scalars.collect(), conflicts: 0 };
        if !spec.host_ports.is_empty() {
            spot.conflicts = cluster.pods_on(NodeId::of(row)).map(|p| spot.conflict(p)).sum();
        }
        Some(spot)
    }

    fn conflict(&self, pod: &Pod) -> i64 {
        let wanted = &self.spec.host_ports;
        i64::from(pod.spec.host_ports.iter().any(|p| wanted.iter().any(|w| w.conflicts(p))))
    }

    /// Thinks a pod there (1) or away (-1).
    fn put(&mut self, guest: &Guest<'_>, times: i64) {
        self.load.add(&guest.pod.spec, times);
        for (name, _, _, used) in &mut self.scalars {
            let takes = guest.pod.spec.requests.scalars.get(*name).copied().unwrap_or(0);
            *used = used.saturating_add(takes.saturating_mul(times));
        }
        if !self.spec.host_ports.is_empty() {
            self.conflicts += times * self.conflict(guest.pod);
        }
        self.probe.count(self.row, &guest.touch, times);
    }

    fn fits(&self) -> bool {
        self.conflicts == 0
            && fit::fits_load(&self.have, &self.load, self.spec)
            && self.scalars.iter().all(|(_, asked, have, used)| *asked <= have.saturating_sub(*used))
    }

    /// What is counted against the node.
    fn counted(&self) -> Option<Rejection> {
        if !self.probe.is_counted() {
            return None;
        }
        self.probe.reject(&self.probe.key(self.row)?)
    }

    /// Why the node will not do, as filters say it in their order.
    fn rejection(&self) -> Option<Rejected> {
        if self.conflicts != 0 {
            return Some(node_ports::rejection());
        }
        if !self.fits() {
            return fit::lacking_of(&self.have, &self.load, self.spec, self.scalars.iter().copied());
        }
        self.counted().map(|r| Rejected { code: r.code, reasons: r.reasons })
    }

    /// The same, with and without pods that room is kept for.
    fn verdict(&mut self, kept: &[Guest<'_>]) -> Option<Rejected> {
        let with = self.rejection();
        if with.is_some() || kept.is_empty() {
            return with;
        }
        kept.iter().for_each(|g| self.put(g, -1));
        let without = self.rejection();
        kept.iter().for_each(|g| self.put(g, 1));
        without
    }

    fn does(&mut self, kept: &[Guest<'_>]) -> bool {
        if kept.is_empty() { self.fits() && self.counted().is_none() } else { self.verdict(kept).is_none() }
    }
}

impl<'g> Ground<'g> {
    /// The pods that room is kept for on a node, of those that are at least as important, without `except`.
    pub(super) fn guests(
        self,
        spec: &PodSpec,
        except: Option<&ObjectKey>,
        row: usize,
    ) -> impl Iterator<Item = &'g Pod> {
        let node = if self.nominated.is_empty() { None } else { self.cluster.node(NodeId::of(row)) };
        let there = node.map(|n| self.nominated.on(&n.name)).into_iter().flatten();
        let (priority, except) = (spec.priority, except.cloned());
        there.filter(move |p| p.spec.priority >= priority && Some(&p.key) != except.as_ref())
    }

    /// Of the pods that room is kept for on a node, which are not there yet.
    pub(super) fn absent_guests(self, spec: &PodSpec, row: usize) -> Vec<bool> {
        self.guests(spec, None, row).map(|p| self.cluster.pod(&p.key).is_none()).collect()
    }

    /// Tries a node, and hands out the victims (`SelectVictimsOnNode`): the fewest and least important pods whose
    /// eviction makes it do. `None` if every plugin has to be asked. Says also whether other pods than those that must
    /// stay matter by more than what they take.
    pub(super) fn try_row(
        self,
        probe: &mut Probe<'_>,
        spec: &Arc<PodSpec>,
        except: Option<&ObjectKey>,
        row: usize,
        victims: &mut Victims<'g>,
    ) -> Option<(Tried, bool)> {
        victims.clear();
        let id = NodeId::of(row);
        if self.cluster.node(id).is_none() || probe.fixed(row).is_some_and(|r| r.code != Code::Unschedulable)
        {
            return Some((Tried::Pointless, false));
        }
        let mut kept: SmallVec<[Guest<'_>; 1]> = SmallVec::new();
        for pod in self.guests(spec, except, row).filter(|p| self.cluster.pod(&p.key).is_none()) {
            kept.push(Guest { pod, touch: probe.touch_of(self.cluster, &pod.spec)? });
        }
        let placed = self.cluster.placed_on(id).filter(|(p, _)| p.spec.priority < spec.priority);
        let mut lower: SmallVec<[Guest<'g>; 8]> =
            placed.map(|(pod, class)| Guest { pod, touch: probe.touch(self.cluster, class) }).collect();
        let minds = lower.iter().chain(&kept).any(|g| g.touch.matters());
        let Some(mut spot) = Spot::new(self.cluster, probe, spec, row) else {
            return Some((Tried::Pointless, minds));
        };
        kept.iter().for_each(|g| spot.put(g, 1));
        let tried = match spot.verdict(&kept) {
            Some(r) if r.code == Code::Unschedulable => {
                lower.sort_unstable_by(|a, b| by_importance(a.pod, b.pod));
                self.reprieve(&mut spot, &kept, &lower, victims)
            }
            _ => Tried::Pointless,
        };
        kept.iter().for_each(|g| spot.put(g, -1));
        Some((tried, minds))
    }

    /// Thinks the less important pods away, and those back that can stay, the most important first; leaves everything
    /// counted as it was.
    fn reprieve(
        self,
        spot: &mut Spot<'_, '_>,
        kept: &[Guest<'g>],
        lower: &[Guest<'g>],
        victims: &mut Victims<'g>,
    ) -> Tried {
        if lower.is_empty() {
            return Tried::Lacking(Reasons::from_elem(NO_VICTIMS.into(), 1));
        }
        lower.iter().for_each(|g| spot.put(g, -1));
        if !spot.does(kept) {
            let reasons = spot.verdict(kept).map(|r| r.reasons).unwrap_or_default();
            lower.iter().for_each(|g| spot.put(g, 1));
            return Tried::Lacking(reasons);
        }
        let violates = self.budgets.violating(lower.iter().map(|g| g.pod));
        let mut violations = 0;
        let mut gone: SmallVec<[&Guest<'g>; 8]> = SmallVec::new();
        // Pods whose budgets would be broken are spared first.
        for wanted in [true, false] {
            for (guest, violates) in lower.iter().zip(&violates).filter(|(_, v)| **v == wanted) {
                spot.put(guest, 1);
                if !spot.does(kept) {
                    spot.put(guest, -1);
                    gone.push(guest);
                    violations += usize::from(*violates);
                }
            }
        }
        gone.iter().for_each(|g| spot.put(g, 1));
        victims.extend(gone.iter().map(|g| g.pod));
        Tried::Room(Cost::of(violations, victims.iter().copied()))
    }
}
