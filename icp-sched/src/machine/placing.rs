//! From a placement to its binding: reservations, leave, preparations; and what is counted on the way.

use alloc::borrow::Cow;
use alloc::collections::BTreeMap;
use alloc::format;
use alloc::string::String;
use alloc::vec::Vec;

use icp_core::base::{Duration, Time};
use icp_core::client::{ObjectKey, RequestId};

use super::Effect;
use super::driver::SchedulerMachine;
use crate::framework::{Rejected, Rejection, Waiter, fit_error};
use crate::model::Pod;
use crate::plugins::preparations;
use crate::queue::{Changed, ClusterEvent, Happened};

/// The longest wait for leave (`maxTimeout`).
const LEAVE_MAX: Duration = Duration::from_secs(15 * 60);

impl SchedulerMachine {
    /// Pods that it matters to are ready again when their pause is over.
    pub(super) fn happened(&mut self, now: Time, event: ClusterEvent) {
        self.happened_to(now, event, Changed::Unknown);
    }

    /// The same, with what it happened to, so that plugins can say for which pods it matters.
    pub(super) fn happened_to(&mut self, now: Time, event: ClusterEvent, what: Changed<'_>) {
        let from = self.clock();
        self.tell_waiting(now, event, what);
        if let Some(took) = self.took(from) {
            self.metrics.handled(event.label(), took);
        }
    }

    fn tell_waiting(&mut self, now: Time, event: ClusterEvent, what: Changed<'_>) {
        if let Some(asking) = &mut self.asking {
            asking.disturbed = true;
        }
        if let Some(bargain) = &mut self.bargain {
            bargain.disturbed = true;
        }
        let scheduler = &self.scheduler;
        let happened = Happened { event, what, cluster: scheduler.cluster() };
        let moved =
            self.queue.happened_if(now, event, |plugin, pod| scheduler.hinted(plugin, pod, &happened));
        self.metrics.incoming("active", event.label(), moved.active);
        self.metrics.incoming("backoff", event.label(), moved.backoff);
        if self.scheduler.has_own_plugins() {
            self.ask_again(now, event, what);
        }
    }

    /// Asks about pods that plugins hold back.
    fn ask_again(&mut self, now: Time, event: ClusterEvent, what: Changed<'_>) {
        let held = |pod: &&Pod| pod.gates.iter().any(|g| g.starts_with(HELD));
        let held: Vec<Pod> = self.queue.gated().filter(held).cloned().collect();
        for mut pod in held {
            let by =
                pod.gates.iter().find_map(|g| g.strip_prefix(HELD)).map(String::from).unwrap_or_default();
            let happened = Happened { event, what, cluster: self.scheduler.cluster() };
            if self.scheduler.hinted(&by, &pod, &happened) {
                pod.gates.retain(|g| !g.starts_with(HELD));
                self.enqueue(now, pod);
            }
        }
    }

    /// A pod waits for a node from now on, or changed meanwhile.
    pub(super) fn enqueue(&mut self, now: Time, mut pod: Pod) {
        if let Some(plugin) = self.scheduler.held_back(&pod) {
            pod.gates.push(format!("{HELD}{plugin}"));
        }
        let joined = self.join(now, &mut pod);
        let (before, key) = (self.queue.place(&pod.key), pod.key.clone());
        let known = self.queue.get(&key).is_some_and(|p| p.uid == pod.uid);
        let rank = self.scheduler.rank(&pod);
        self.queue.set_ranked(now, pod, rank);
        let after = self.queue.place(&key);
        if let Some(place) = after.filter(|_| !known || before != after) {
            self.metrics.incoming(place, if known { "UnscheduledPodUpdate" } else { "UnscheduledPodAdd" }, 1);
        }
        if let Some(joined) = joined {
            self.joined(now, &key, &joined);
        }
    }

    /// Something went wrong that may not next time.
    pub(super) fn try_again(&mut self, now: Time, pod: &Pod) {
        self.attempted(now, pod, "error");
        self.queue.failed(now, &pod.key);
        self.metrics.incoming("backoff", "ScheduleAttemptFailure", 1);
    }

    /// Counts a try that is over.
    pub(super) fn attempted(&mut self, now: Time, pod: &Pod, result: &'static str) {
        let profile = self.scheduler.profile(&pod.scheduler_name).unwrap_or_default();
        if let Some((.., last_try)) = self.queue.history(&pod.key) {
            self.metrics.attempted(result, profile, now.since(last_try));
        }
    }

    /// A pod that was being placed here is on its node.
    pub(super) fn placed(&mut self, now: Time, pod: &Pod) {
        if self.queue.place(&pod.key).is_none()
            && self.scheduler.cluster().is_assumed(&pod.key)
            && let Some((since, tries, _)) = self.queue.history(&pod.key)
        {
            self.attempted(now, pod, "scheduled");
            self.metrics.scheduled(tries, now.since(since));
        }
        if let Some((reserved, node)) = self.reserved.remove(&pod.key) {
            if pod.node.as_ref().is_none_or(|n| *n == node) {
                self.scheduler.post_bind(&reserved, &node);
            } else {
                self.scheduler.unreserve(&reserved, &node);
            }
        }
    }

    /// Plugins keep no reservation for a pod any more, and it waits for nobody's leave. An empty uid is any.
    pub(super) fn release(&mut self, key: &ObjectKey, uid: &str) {
        self.drop_member(key, uid, None);
        let ours = |pod: &Pod| uid.is_empty() || pod.uid == uid;
        if self.waiters.get(key).is_some_and(|w| ours(&w.pod))
            && let Some(waiter) = self.waiters.remove(key)
        {
            waiter.pending.values().for_each(|(timer, _)| {
                self.timers.cancel(timer);
            });
        }
        if self.reserved.get(key).is_some_and(|(pod, _)| ours(pod))
            && let Some((pod, node)) = self.reserved.remove(key)
        {
            self.scheduler.unreserve(&pod, &node);
        }
    }

    /// A pod has a node: plugins keep it, and say whether the pod is bound now.
    pub(super) fn reserve(&mut self, now: Time, pod: Pod, node: String, out: &mut Vec<Effect>) {
        if !self.scheduler.has_own_plugins() {
            self.go_on(now, pod, node, out);
            return;
        }
        if let Err(rejection) = self.scheduler.reserve(&pod, &node) {
            self.not_taken(now, &pod, &rejection, out);
            return;
        }
        self.reserved.insert(pod.key.clone(), (pod.clone(), node.clone()));
        let leave = self.scheduler.permit(&pod, &node, &self.waiters);
        match leave.rejected {
            Some(rejection) => self.not_taken(now, &pod, &rejection, out),
            None if leave.pending.is_empty() => self.go_on(now, pod, node, out),
            None => {
                let pending = self.await_leave(now, leave.pending);
                self.waiters.insert(pod.key.clone(), Waiter { pod, node, pending, since: now });
            }
        }
        for (key, plugin) in leave.allowed {
            self.allow(now, &key, plugin, out);
        }
        for (key, plugin, reason) in leave.refused {
            self.refuse(now, &key, plugin, reason.into_owned(), out);
        }
    }

    /// Sets the time-outs of plugins that keep a pod waiting.
    pub(super) fn await_leave(
        &mut self,
        now: Time,
        pending: Vec<(&'static str, Duration)>,
    ) -> BTreeMap<&'static str, (RequestId, Duration)> {
        let mut timers = BTreeMap::new();
        for (plugin, time) in pending {
            let (timer, time) = (self.ids.next_id(), time.min(LEAVE_MAX));
            self.timers.set(timer, now + time);
            timers.insert(plugin, (timer, time));
        }
        timers
    }

    /// A plugin lets a pod go; it is bound when no other plugin keeps it waiting.
    pub(super) fn allow(&mut self, now: Time, key: &ObjectKey, plugin: &str, out: &mut Vec<Effect>) {
        let Some(waiter) = self.waiters.get_mut(key) else { return };
        if let Some((timer, _)) = waiter.pending.remove(plugin) {
            self.timers.cancel(&timer);
        }
        if waiter.pending.is_empty()
            && let Some(waiter) = self.waiters.remove(key)
            && self.leading(now).is_some()
        {
            self.metrics.waited("Success", now.since(waiter.since));
            if !self.has_leave(key) {
                self.go_on(now, waiter.pod, waiter.node, out);
            }
        }
    }

    /// A plugin takes the node of a pod away that waits.
    pub(super) fn refuse(
        &mut self,
        now: Time,
        key: &ObjectKey,
        plugin: &str,
        reason: String,
        out: &mut Vec<Effect>,
    ) {
        let Some(waiter) = self.waiters.get(key) else { return };
        let Some(plugin) = waiter.pending.keys().copied().find(|p| *p == plugin) else { return };
        let (pod, since) = (waiter.pod.clone(), waiter.since);
        self.metrics.waited("Unschedulable", now.since(since));
        self.not_there(now, &pod, &Rejected::unschedulable(Cow::Owned(reason)).by(plugin), out);
    }

    /// Leave did not come in time; says whether the timer was one for that.
    pub(super) fn permit_timed_out(&mut self, now: Time, id: RequestId, out: &mut Vec<Effect>) -> bool {
        let late = self.waiters.values().find_map(|w| {
            let (plugin, (_, time)) = w.pending.iter().find(|(_, (timer, _))| *timer == id)?;
            Some((w.pod.clone(), *plugin, *time, w.since))
        });
        let Some((pod, plugin, time, since)) = late else { return false };
        self.metrics.waited("Unschedulable", now.since(since));
        let reason = format!("rejected due to timeout after waiting {time:?} at plugin {plugin}");
        self.not_there(now, &pod, &Rejected::unschedulable(reason).by(plugin), out);
        true
    }

    /// A pod does not get the node that it was given a while ago: its room is free again.
    fn not_there(&mut self, now: Time, pod: &Pod, rejection: &Rejection, out: &mut Vec<Effect>) {
        if !self.is_fresh(&pod.key) {
            self.drop_member(&pod.key, &pod.uid, Some(rejection));
            self.take_back(now, pod);
        }
        self.not_taken(now, pod, rejection, out);
    }

    /// A pod does not get the node that it was just given. Nobody saw the room taken, so that nobody is told that it is
    /// free: two such pods would wake each other for ever.
    pub(super) fn not_taken(&mut self, now: Time, pod: &Pod, rejection: &Rejection, out: &mut Vec<Effect>) {
        self.drop_member(&pod.key, &pod.uid, Some(rejection));
        self.unseat(now, pod);
        let message = fit_error(1, &[(rejection.clone(), 1)]);
        self.unschedulable(now, pod, [rejection.plugin].into(), message, None, out);
    }

    /// The pod weighs on no node any more; as it was if it did.
    pub(super) fn unseat(&mut self, now: Time, pod: &Pod) -> Option<Pod> {
        self.release(&pod.key, &pod.uid);
        let ours = self.scheduler.cluster().pod(&pod.key).filter(|p| p.uid == pod.uid).cloned();
        let weighed = ours.filter(|_| self.scheduler.forget(&pod.key));
        self.group_unseated(now, pod);
        weighed
    }

    /// What must be done before the pod is bound is done, and then it is bound.
    pub(super) fn go_on(&mut self, now: Time, pod: Pod, node: String, out: &mut Vec<Effect>) {
        let wanted = match self.scheduler.pre_bind(&pod, &node) {
            Ok(requests) => requests,
            Err(rejection) => {
                self.not_taken(now, &pod, &rejection, out);
                return;
            }
        };
        let id = self.scheduler.cluster().node_id(&node).and_then(|id| self.scheduler.node(id));
        let todo = id
            .filter(|_| self.scheduler.has_plugin("VolumeBinding"))
            .map(|n| preparations(self.scheduler.cluster(), &pod.spec, n))
            .and_then(Result::ok)
            .unwrap_or_default();
        if todo.is_empty() && wanted.is_empty() {
            self.bind(now, pod, node, out);
        } else {
            self.prepare(now, pod, node, &todo, wanted, out);
        }
    }
}

/// What stands before the name of a plugin among the gates of a pod that it holds back; no gate of a pod is named so.
const HELD: &str = "plugin: ";
