//! The queue.

use alloc::collections::{BTreeMap, BTreeSet};
use icp_core::base::{Duration, Time, TimingWheel};
use icp_core::client::ObjectKey;

use super::ClusterEvent;
use crate::model::Pod;

/// First and longest pause of a pod that found no node, unless told otherwise.
const BACKOFF_INITIAL: Duration = Duration::from_secs(1);
const BACKOFF_MAX: Duration = Duration::from_secs(10);
/// A pod that nothing happened for is tried anyway after this long (`podMaxInUnschedulablePodsDuration`).
const STUCK_MAX: Duration = Duration::from_secs(300);

/// Where a pod stands.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Place {
    /// Ready, since then and in this order.
    Active(Time, u64),
    /// Pausing.
    Backoff,
    /// Waiting for the cluster to change.
    Stuck(BTreeSet<&'static str>),
    /// Being placed.
    Working,
    /// Waiting for its scheduling gates to go.
    Gated,
}

#[derive(Clone, Debug)]
struct Waiting {
    pod: Pod,
    /// The lowest comes first.
    rank: i64,
    /// Since when it waits, and how often it was tried.
    since: Time,
    tries: u32,
    place: Place,
    /// Tries that found no node.
    failures: u32,
    last_try: Time,
}

/// How many pods stand where.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct QueueSizes {
    /// Ready.
    pub active: usize,
    /// Pausing.
    pub backoff: usize,
    /// Waiting for the cluster to change.
    pub unschedulable: usize,
    /// Waiting for their gates to go.
    pub gated: usize,
}

/// Pods that wait for a node. The most important comes first, then the one that waits longest (PrioritySort). Pauses
/// double, from 1 s to 10 s unless told otherwise; a pod that pauses is taken early when no other is ready (KEP-5142), except after an
/// error, and never if it belongs to a group.
#[derive(Clone, Debug)]
pub struct Queue {
    backoff_initial: Duration,
    backoff_max: Duration,
    pods: BTreeMap<ObjectKey, Waiting>,
    active: BTreeMap<(i64, Time, u64), ObjectKey>,
    /// When pauses end.
    backoff: TimingWheel<ObjectKey>,
    /// Pausing pods that may be taken early, by the end of their pause.
    early: BTreeSet<(Time, ObjectKey)>,
    /// When stuck pods are tried anyway.
    stuck: TimingWheel<ObjectKey>,
    /// Stuck pods by the plugins that rejected them; under the empty name if none is known.
    stuck_by: BTreeMap<&'static str, BTreeSet<ObjectKey>>,
    order: u64,
    ripened: (u64, u64),
}

impl Default for Queue {
    fn default() -> Self {
        Self::new(BACKOFF_INITIAL, BACKOFF_MAX)
    }
}

impl Queue {
    /// A queue whose pauses begin with `initial` and double up to `max`.
    #[must_use]
    pub fn new(initial: Duration, max: Duration) -> Self {
        Self {
            backoff_initial: initial,
            backoff_max: max.max(initial),
            pods: BTreeMap::new(),
            active: BTreeMap::new(),
            backoff: TimingWheel::new(),
            early: BTreeSet::new(),
            stuck: TimingWheel::new(),
            stuck_by: BTreeMap::new(),
            order: 0,
            ripened: (0, 0),
        }
    }

    fn pause(&self, failures: u32) -> Duration {
        let factor = 1_u32.checked_shl(failures.saturating_sub(1).min(31)).unwrap_or(u32::MAX);
        self.backoff_initial.saturating_mul(factor).min(self.backoff_max)
    }

    /// A pod wants a node, or changed while it waits. A change gives a stuck pod another chance. The most important comes
    /// first.
    pub fn set(&mut self, now: Time, pod: Pod) {
        let rank = -i64::from(pod.spec.priority);
        self.set_ranked(now, pod, rank);
    }

    /// The same, with a rank of one's own: the lowest comes first.
    pub fn set_ranked(&mut self, now: Time, pod: Pod, rank: i64) {
        let gated = !pod.gates.is_empty();
        let key = pod.key.clone();
        match self.pods.get_mut(&key) {
            Some(old) if old.pod.uid == pod.uid => {
                let same = old.pod.spec == pod.spec && old.pod.gates == pod.gates;
                let moved = old.rank != rank || gated != (old.place == Place::Gated);
                if same || (old.place == Place::Working && !gated) {
                    old.pod = pod;
                    return;
                }
                if !moved && !matches!(old.place, Place::Stuck(_)) {
                    old.pod = pod;
                    return;
                }
                self.leave(&key);
                if let Some(waiting) = self.pods.get_mut(&key) {
                    waiting.pod = pod;
                    waiting.rank = rank;
                    waiting.place = Place::Gated;
                }
            }
            _ => {
                self.remove(&key);
                let place = Place::Gated;
                let waiting = Waiting { pod, rank, since: now, tries: 0, place, failures: 0, last_try: now };
                self.pods.insert(key.clone(), waiting);
            }
        }
        if !gated {
            self.activate(now, &key);
        }
    }

    /// The pod wants no node any more.
    pub fn remove(&mut self, key: &ObjectKey) -> Option<Pod> {
        self.leave(key);
        self.pods.remove(key).map(|w| w.pod)
    }

    /// The pod of that name, if it waits or is being placed.
    #[must_use]
    pub fn get(&self, key: &ObjectKey) -> Option<&Pod> {
        self.pods.get(key).map(|w| &w.pod)
    }

    /// The next pod to place; [`Queue::remove`], [`Queue::unschedulable`] or [`Queue::failed`] must follow.
    pub fn pop(&mut self, now: Time) -> Option<Pod> {
        self.ripen(now);
        let key = match self.active.pop_first() {
            Some((_, key)) => key,
            None => {
                let (_, key) = self.early.pop_first()?;
                self.backoff.cancel(&key);
                key
            }
        };
        let waiting = self.pods.get_mut(&key)?;
        waiting.place = Place::Working;
        waiting.tries = waiting.tries.saturating_add(1);
        waiting.last_try = now;
        Some(waiting.pod.clone())
    }

    /// Takes a pod out of its turn that is ready, pauses or is stuck, and says whether there is one; the same must follow
    /// as after [`Queue::pop`].
    pub fn take(&mut self, now: Time, key: &ObjectKey) -> bool {
        let stands = |w: &Waiting| matches!(w.place, Place::Active(..) | Place::Backoff | Place::Stuck(_));
        if !self.pods.get(key).is_some_and(stands) {
            return false;
        }
        self.leave(key);
        if let Some(waiting) = self.pods.get_mut(key) {
            waiting.place = Place::Working;
            waiting.tries = waiting.tries.saturating_add(1);
            waiting.last_try = now;
        }
        true
    }

    /// A pod that is ready is to be tried together with another one, which may have failed: it pauses as long.
    pub fn follow(&mut self, now: Time, key: &ObjectKey, other: &ObjectKey) {
        let Some((failures, last_try)) = self.pods.get(other).map(|w| (w.failures, w.last_try)) else {
            return;
        };
        if failures == 0 || !self.pods.get(key).is_some_and(|w| matches!(w.place, Place::Active(..))) {
            return;
        }
        self.leave(key);
        if let Some(waiting) = self.pods.get_mut(key) {
            (waiting.failures, waiting.last_try) = (failures, last_try);
            waiting.place = Place::Stuck(BTreeSet::new());
        }
        self.retry(now, key);
    }

    /// No node would do, because of these plugins: the pod waits until something happens that matters to one of them.
    pub fn unschedulable(&mut self, now: Time, key: &ObjectKey, plugins: BTreeSet<&'static str>) {
        self.leave(key);
        let Some(waiting) = self.pods.get_mut(key) else { return };
        waiting.failures = waiting.failures.saturating_add(1);
        waiting.last_try = now;
        if plugins.is_empty() {
            self.stuck_by.entry("").or_default().insert(key.clone());
        }
        for plugin in &plugins {
            self.stuck_by.entry(plugin).or_default().insert(key.clone());
        }
        waiting.place = Place::Stuck(plugins);
        self.stuck.set(key.clone(), now + STUCK_MAX);
    }

    /// Something went wrong that may not next time: the pod pauses.
    pub fn failed(&mut self, now: Time, key: &ObjectKey) {
        self.leave(key);
        let Some(waiting) = self.pods.get_mut(key) else { return };
        waiting.failures = waiting.failures.saturating_add(1);
        waiting.last_try = now;
        waiting.place = Place::Backoff;
        let failures = waiting.failures;
        let due = now + self.pause(failures);
        self.backoff.set(key.clone(), due);
    }

    /// The cluster changed: stuck pods for which it matters are ready again when their pause is over. Says how many.
    pub fn happened(&mut self, now: Time, event: ClusterEvent) -> QueueSizes {
        self.happened_if(now, event, |_, _| true)
    }

    /// The same for pods for which, beside that, a hint says that it matters to a plugin that rejected them.
    pub fn happened_if(
        &mut self,
        now: Time,
        event: ClusterEvent,
        mut hint: impl FnMut(&'static str, &Pod) -> bool,
    ) -> QueueSizes {
        let mut keys: BTreeSet<ObjectKey> = BTreeSet::new();
        for (plugin, stuck) in self.stuck_by.iter().filter(|(plugin, _)| event.matters_to(plugin)) {
            let hinted = |key: &&ObjectKey| self.pods.get(key).is_some_and(|w| hint(plugin, &w.pod));
            keys.extend(stuck.iter().filter(hinted).cloned());
        }
        let mut moved = QueueSizes::default();
        for key in keys {
            self.retry(now, &key);
            match self.pods.get(&key).map(|w| &w.place) {
                Some(Place::Active(..)) => moved.active += 1,
                Some(Place::Backoff) => moved.backoff += 1,
                _ => {}
            }
        }
        moved
    }

    /// Since when a pod waits, how often it was tried, and when last.
    #[must_use]
    pub fn history(&self, key: &ObjectKey) -> Option<(Time, u32, Time)> {
        self.pods.get(key).map(|w| (w.since, w.tries, w.last_try))
    }

    /// How many pods became ready because their pause was over, and because they waited for too long.
    #[must_use]
    pub const fn ripened(&self) -> (u64, u64) {
        self.ripened
    }

    /// Where a pod stands, in the words of upstream's metrics; `None` while it is being placed.
    #[must_use]
    pub fn place(&self, key: &ObjectKey) -> Option<&'static str> {
        match self.pods.get(key)?.place {
            Place::Active(..) => Some("active"),
            Place::Backoff => Some("backoff"),
            Place::Stuck(_) => Some("unschedulable"),
            Place::Gated => Some("gated"),
            Place::Working => None,
        }
    }

    /// The stuck pods by the plugins that rejected them.
    pub fn stuck_by(&self) -> impl Iterator<Item = (&'static str, &Pod)> {
        let lists = self.stuck_by.iter().filter(|(plugin, _)| !plugin.is_empty());
        lists.flat_map(|(plugin, keys)| keys.iter().filter_map(|k| Some((*plugin, self.get(k)?))))
    }

    /// Pods that wait for gates, or for a plugin to let them be tried.
    pub fn gated(&self) -> impl Iterator<Item = &Pod> {
        self.pods.values().filter(|w| w.place == Place::Gated).map(|w| &w.pod)
    }

    /// Every stuck pod is ready again when its pause is over.
    pub fn retry_all(&mut self, now: Time) {
        let keys: BTreeSet<ObjectKey> = self.stuck_by.values().flatten().cloned().collect();
        for key in keys {
            self.retry(now, &key);
        }
    }

    /// Whether [`Queue::pop`] would return a pod.
    #[must_use]
    pub fn is_ready(&self, now: Time) -> bool {
        !self.active.is_empty()
            || !self.early.is_empty()
            || self.backoff.deadline().is_some_and(|due| due <= now)
            || self.stuck.deadline().is_some_and(|due| due <= now)
    }

    /// When the next pod becomes ready by itself.
    #[must_use]
    pub fn deadline(&self) -> Option<Time> {
        [self.backoff.deadline(), self.stuck.deadline()].into_iter().flatten().min()
    }

    /// How many pods stand where.
    #[must_use]
    pub fn sizes(&self) -> QueueSizes {
        let mut sizes = QueueSizes::default();
        for waiting in self.pods.values() {
            match waiting.place {
                Place::Active(..) => sizes.active += 1,
                Place::Backoff => sizes.backoff += 1,
                Place::Stuck(_) => sizes.unschedulable += 1,
                Place::Gated => sizes.gated += 1,
                Place::Working => {}
            }
        }
        sizes
    }

    /// A stuck pod is ready again when its pause is over.
    pub fn retry(&mut self, now: Time, key: &ObjectKey) {
        if !self.pods.get(key).is_some_and(|w| matches!(w.place, Place::Stuck(_))) {
            return;
        }
        self.leave(key);
        let Some((failures, last_try)) = self.pods.get(key).map(|w| (w.failures, w.last_try)) else { return };
        let due = last_try + self.pause(failures);
        if due <= now {
            self.activate(now, key);
        } else if let Some(waiting) = self.pods.get_mut(key) {
            waiting.place = Place::Backoff;
            self.backoff.set(key.clone(), due);
            // Gangs that are refused by plugins may wake each other: without a pause, for ever.
            if waiting.pod.group.is_none() {
                self.early.insert((due, key.clone()));
            }
        }
    }

    fn activate(&mut self, now: Time, key: &ObjectKey) {
        let Some(waiting) = self.pods.get_mut(key) else { return };
        self.order += 1;
        waiting.place = Place::Active(now, self.order);
        self.active.insert((waiting.rank, now, self.order), key.clone());
    }

    /// Ends the pauses that are over.
    fn ripen(&mut self, now: Time) {
        while self.backoff.deadline().is_some_and(|due| due <= now) {
            let due = self.backoff.deadline();
            let Some(key) = self.backoff.pop(now) else { break };
            if let Some(due) = due {
                self.early.remove(&(due, key.clone()));
            }
            self.ripened.0 += 1;
            self.activate(now, &key);
        }
        while let Some(key) = self.stuck.pop(now) {
            self.ripened.1 += 1;
            self.retry(now, &key);
        }
    }

    /// Takes a pod out of the index that it stands in.
    fn leave(&mut self, key: &ObjectKey) {
        let Some(waiting) = self.pods.get(key) else { return };
        match &waiting.place {
            Place::Active(since, order) => {
                self.active.remove(&(waiting.rank, *since, *order));
            }
            Place::Backoff => {
                if let Some(due) = self.backoff.due(key) {
                    self.early.remove(&(due, key.clone()));
                }
                self.backoff.cancel(key);
            }
            Place::Stuck(plugins) => {
                self.stuck.cancel(key);
                for plugin in plugins.iter().copied().chain([""]) {
                    if let Some(keys) = self.stuck_by.get_mut(plugin) {
                        keys.remove(key);
                    }
                }
            }
            Place::Working | Place::Gated => {}
        }
    }
}

#[cfg(test)]
mod tests {
    use alloc::format;
    use alloc::sync::Arc;
    use alloc::vec::Vec;

    use super::*;
    use crate::model::PodSpec;

    fn pod(name: &str, priority: i32) -> Pod {
        Pod::new(name, Arc::new(PodSpec { priority, ..PodSpec::asking(1, 1) }))
    }

    fn at(secs: i64) -> Time {
        Time::from_secs(secs)
    }

    #[test]
    fn the_most_important_first_then_the_oldest() {
        let mut q = Queue::default();
        for (name, priority) in [("a", 0), ("b", 5), ("c", 0), ("d", 5)] {
            q.set(at(0), pod(name, priority));
        }
        let names: Vec<_> = core::iter::from_fn(|| q.pop(at(0))).map(|p| p.key.name).collect();
        assert_eq!(names, ["b", "d", "a", "c"]);
    }

    #[test]
    fn pauses_double_and_what_pauses_is_taken_early_unless_it_erred() {
        let mut q = Queue::default();
        q.set(at(0), pod("a", 0));
        let key = q.pop(at(0)).unwrap().key;
        q.failed(at(0), &key);
        assert!(q.pop(at(0)).is_none() && !q.is_ready(at(0)));
        assert_eq!(q.deadline(), Some(at(1)));
        assert!(q.pop(at(1)).is_some());
        q.failed(at(1), &key);
        assert_eq!(q.deadline(), Some(at(3)));
        q.pop(at(3)).unwrap();
        q.unschedulable(at(3), &key, ["NodeName"].into());
        q.happened(at(4), ClusterEvent::PodRemoved);
        assert_eq!(q.sizes().unschedulable, 1);
        q.happened(at(4), ClusterEvent::NodeAdded);
        assert_eq!(q.sizes().backoff, 1);
        assert!(q.pop(at(4)).is_some());
        for _ in 0..10 {
            q.failed(at(4), &key);
        }
        assert_eq!(q.deadline(), Some(at(14)));
    }

    #[test]
    fn nobody_is_stuck_for_ever() {
        let mut q = Queue::default();
        q.set(at(0), pod("a", 0));
        let key = q.pop(at(0)).unwrap().key;
        q.unschedulable(at(0), &key, ["NodeName"].into());
        assert_eq!(q.deadline(), Some(at(300)));
        assert!(q.pop(at(299)).is_none());
        assert!(q.pop(at(300)).is_some());
    }

    #[test]
    fn pods_of_a_gang_are_taken_along_and_pause_together() {
        let mut q = Queue::default();
        for name in ["a", "b", "c"] {
            q.set(at(0), pod(name, 0));
        }
        let [a, b, c] = ["a", "b", "c"].map(|n| pod(n, 0).key);
        assert_eq!(q.pop(at(0)).unwrap().key, a);
        assert!(q.take(at(0), &b) && !q.take(at(0), &b), "it is being placed");
        for key in [&a, &b] {
            q.unschedulable(at(0), key, ["NodeName"].into());
        }
        assert_eq!(q.history(&b), Some((at(0), 1, at(0))));
        q.follow(at(0), &c, &a);
        assert_eq!(q.place(&c), Some("backoff"));
        assert_eq!(q.deadline(), Some(at(1)));
        assert_eq!(q.pop(at(1)).unwrap().key, c);
        assert!(q.take(at(1), &a) && q.take(at(1), &b), "stuck ones are taken too");
        assert!(q.pop(at(1)).is_none());
        // Who follows one that never failed does not pause.
        q.set(at(1), pod("d", 0));
        q.set(at(1), pod("e", 0));
        q.follow(at(1), &pod("e", 0).key, &pod("d", 0).key);
        assert_eq!(q.sizes().active, 2);
    }

    #[test]
    fn gates_and_changes() {
        let mut q = Queue::default();
        let mut gated = pod("a", 0);
        gated.gates.push("quota".into());
        q.set(at(0), gated.clone());
        assert!(q.pop(at(0)).is_none());
        assert_eq!(q.sizes().gated, 1);
        gated.gates.clear();
        q.set(at(1), gated.clone());
        let key = q.pop(at(1)).unwrap().key;
        q.unschedulable(at(1), &key, ["NodeName"].into());
        q.set(at(2), gated.clone()); // nothing changed
        assert!(q.pop(at(2)).is_none());
        Arc::make_mut(&mut gated.spec).labels.insert("a".into(), "b".into());
        q.set(at(2), gated.clone());
        assert!(q.pop(at(2)).is_some());
        gated.uid = format!("{}2", gated.uid); // another pod of that name
        q.set(at(3), gated);
        assert!(q.pop(at(3)).is_some());
        assert!(q.remove(&key).is_some() && q.get(&key).is_none());
    }
}
