//! Who waits for whom.

use alloc::collections::{BTreeMap, BTreeSet};
use alloc::vec::Vec;

use icp_core::base::{Duration, Time};
use icp_core::client::ObjectKey;

use super::{GangError, Seats};
use crate::Scheduler;
use crate::model::Pod;

#[derive(Clone, Debug, Default)]
struct Group {
    /// How many are placed at once; `None` as long as the group is not known.
    min: Option<usize>,
    waiting: BTreeMap<ObjectKey, Pod>,
    placed: BTreeSet<ObjectKey>,
    /// When those that wait began to, or were last told that it takes long.
    since: Option<Time>,
}

impl Group {
    fn is_complete(&self) -> bool {
        !self.waiting.is_empty() && self.min.is_some_and(|min| self.waiting.len() + self.placed.len() >= min)
    }
}

/// Gangs with pods that wait. Pods are not held on nodes while they wait: a gang that is not complete takes nothing
/// from others.
#[derive(Clone, Debug)]
pub struct Gangs {
    groups: BTreeMap<ObjectKey, Group>,
    timeout: Duration,
}

impl Gangs {
    /// No gangs; those that wait longer than `timeout` are told by [`Gangs::overdue`].
    #[must_use]
    pub const fn new(timeout: Duration) -> Self {
        Self { groups: BTreeMap::new(), timeout }
    }

    /// Writes how many pods of a group have to be placed at once; 0 if they are placed one by one (the policy `basic`), and
    /// `None` when the group is gone.
    pub fn set_group(&mut self, group: &ObjectKey, min: Option<usize>) {
        self.change(group, |g| g.min = min);
    }

    /// A pod of a group is pending.
    pub fn arrive(&mut self, now: Time, group: &ObjectKey, pod: Pod) {
        self.change(group, |g| {
            g.placed.remove(&pod.key);
            g.waiting.insert(pod.key.clone(), pod);
            g.since.get_or_insert(now);
        });
    }

    /// A pod of a group is seen on a node, whoever placed it.
    pub fn bound(&mut self, group: &ObjectKey, pod: &ObjectKey) {
        self.change(group, |g| {
            g.waiting.remove(pod);
            g.placed.insert(pod.clone());
        });
    }

    /// A pod of a group is gone.
    pub fn leave(&mut self, group: &ObjectKey, pod: &ObjectKey) {
        self.change(group, |g| {
            g.waiting.remove(pod);
            g.placed.remove(pod);
        });
    }

    fn change(&mut self, key: &ObjectKey, change: impl FnOnce(&mut Group)) {
        let group = self.groups.entry(key.clone()).or_default();
        change(group);
        if group.waiting.is_empty() {
            group.since = None;
        }
        if group.min.is_none() && group.waiting.is_empty() && group.placed.is_empty() {
            self.groups.remove(key);
        }
    }

    /// How many pods of a group have to be placed at once, if the group is known.
    #[must_use]
    pub fn minimum(&self, group: &ObjectKey) -> Option<usize> {
        self.groups.get(group)?.min
    }

    /// How many pods of a group wait, and how many have a place.
    #[must_use]
    pub fn counts(&self, group: &ObjectKey) -> (usize, usize) {
        self.groups.get(group).map_or((0, 0), |g| (g.waiting.len(), g.placed.len()))
    }

    /// Whether a group can be decided on: pods of it wait, and enough of them are there.
    #[must_use]
    pub fn is_ready(&self, group: &ObjectKey) -> bool {
        self.groups.get(group).is_some_and(Group::is_complete)
    }

    /// The pods of a group that wait.
    pub fn waiting(&self, group: &ObjectKey) -> impl Iterator<Item = &Pod> {
        self.groups.get(group).into_iter().flat_map(|g| g.waiting.values())
    }

    /// The groups that can be decided on: enough of their pods are there.
    #[must_use]
    pub fn ready(&self) -> Vec<ObjectKey> {
        self.groups.iter().filter(|(_, g)| g.is_complete()).map(|(key, _)| key.clone()).collect()
    }

    /// Places the pods of a group that wait, the most important first, so that at least its minimum has a place; those
    /// that were placed before count. Pods that find no node beyond that wait on.
    ///
    /// # Errors
    /// If the gang is not complete, or too few of its pods find a node; no pod was placed then, and all wait on.
    pub fn decide(
        &mut self,
        now: Time,
        key: &ObjectKey,
        scheduler: &mut Scheduler,
    ) -> Result<Seats, GangError> {
        let group = self.groups.get_mut(key).filter(|g| g.is_complete());
        let Some(group) = group else { return Err(GangError::Incomplete(key.clone())) };
        let mut pods: Vec<Pod> = group.waiting.values().cloned().collect();
        pods.sort_by_key(|p| (core::cmp::Reverse(p.spec.priority), p.created));
        let min = group.min.unwrap_or(1).saturating_sub(group.placed.len());
        let placed = scheduler.schedule_gang(pods, min)?;
        for seat in &placed.seats {
            group.waiting.remove(&seat.pod.key);
            group.placed.insert(seat.pod.key.clone());
        }
        group.since = if group.waiting.is_empty() { None } else { Some(now) };
        Ok(placed)
    }

    /// When [`Gangs::overdue`] has to be called next.
    #[must_use]
    pub fn deadline(&self) -> Option<Time> {
        self.groups.values().filter_map(|g| g.since).min().map(|since| since + self.timeout)
    }

    /// The groups whose pods waited for the whole time-out, with the pods that wait; they are told again after another
    /// one.
    pub fn overdue(&mut self, now: Time) -> Vec<(ObjectKey, Vec<ObjectKey>)> {
        let mut overdue = Vec::new();
        for (key, group) in &mut self.groups {
            if group.since.is_some_and(|since| since + self.timeout <= now) {
                group.since = Some(now);
                overdue.push((key.clone(), group.waiting.keys().cloned().collect()));
            }
        }
        overdue
    }
}
