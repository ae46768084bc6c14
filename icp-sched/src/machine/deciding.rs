//! Which pod is decided on, and what becomes of one for which there is no node.

use alloc::collections::BTreeSet;
use alloc::format;
use alloc::string::{String, ToString as _};
use alloc::vec::Vec;

use icp_core::base::{Duration, Time};
use icp_core::client::EventType;

use super::binding::Flight;
use super::decision::NoWay;
use super::driver::SchedulerMachine;
use super::{Effect, requests};
use crate::framework::{Ended, Point};
use crate::model::Pod;
use crate::{Preemption, Unschedulable};

impl SchedulerMachine {
    /// Decides on pods that are ready, as long as there is room for bindings.
    pub(super) fn pump(&mut self, now: Time, out: &mut Vec<Effect>) {
        self.more = None;
        if self.waits_for_extender() || self.leading(now).is_none() || !self.synced() {
            return;
        }
        let mut left = self.config.decisions_max;
        while left > 0 {
            if self.flights.len() >= self.config.bindings_max {
                return;
            }
            let Some(pod) = self.queue.pop(now) else { return };
            left = left.saturating_sub(self.timed(now, pod, out).max(1));
            if self.waits_for_extender() {
                return;
            }
        }
        if self.flights.len() < self.config.bindings_max && self.queue.is_ready(now) {
            self.more = Some(now);
        }
    }

    /// Decides on a pod or on its gang, and writes down what plugins took if anybody wants to know. Says on how many pods
    /// it was decided.
    fn timed(&mut self, now: Time, pod: Pod, out: &mut Vec<Effect>) -> usize {
        let Some(timings) = self.timings.clone() else { return self.place(now, pod, out) };
        let profile = self.scheduler.profile(&pod.scheduler_name).unwrap_or_default().to_string();
        timings.begin();
        let decisions = self.place(now, pod, out);
        for (point, ended, took) in timings.end() {
            self.metrics.at_point(point, ended, &profile, took);
        }
        decisions
    }

    /// What the clock says, if there is one.
    pub(super) fn clock(&self) -> Option<Duration> {
        self.timings.as_ref().map(|t| t.read())
    }

    /// How long ago that was.
    pub(super) fn took(&self, from: Option<Duration>) -> Option<Duration> {
        Some(self.clock()?.saturating_sub(from?))
    }

    fn place(&mut self, now: Time, pod: Pod, out: &mut Vec<Effect>) -> usize {
        if let Some(gang) = self.gang_of(&pod) {
            return self.place_gang(now, &gang, &pod, out);
        }
        if self.ask_extenders(now, &pod, out) {
            return 1;
        }
        let from = self.clock();
        let answer = self.scheduler.schedule(&pod);
        if let Some(took) = self.took(from) {
            self.metrics.decided(took);
        }
        match answer {
            Ok(placement) => self.chosen(now, pod, placement, out),
            Err(none) => self.nowhere(now, &pod, none, out),
        }
        1
    }

    /// No node will do: room is made, or the pod waits until something happens.
    pub(super) fn nowhere(&mut self, now: Time, pod: &Pod, none: Unschedulable, out: &mut Vec<Effect>) {
        if self.object(&pod.key).is_none() {
            self.queue.remove(&pod.key);
            return;
        }
        if let Some(node) = self.scheduler.post_filter(pod, &none) {
            let Unschedulable { message, plugins, .. } = none;
            let way = NoWay { message, plugins, preemption: None, nominated: Some(node) };
            self.rejected(now, pod, way, out);
        } else if !self.bargain(now, pod, &none, out) {
            let from = self.clock();
            let room = self.scheduler.preempt(pod, &none);
            if let Some(took) = self.took(from).filter(|_| !matches!(&room, Err(why) if why.is_empty())) {
                let ended = if room.is_ok() { Ended::Success } else { Ended::Unschedulable };
                let profile = self.scheduler.profile(&pod.scheduler_name).unwrap_or_default().to_string();
                self.metrics.looked_for_room(ended, took);
                self.metrics.at_point(Point::PostFilter, ended, &profile, took);
            }
            self.settle(now, pod, none, room, out);
        }
    }

    /// Makes the room that was found, if any, and lets the pod wait.
    pub(super) fn settle(
        &mut self,
        now: Time,
        pod: &Pod,
        none: Unschedulable,
        room: Result<Preemption, String>,
        out: &mut Vec<Effect>,
    ) {
        let Unschedulable { message, plugins, preemptable } = none;
        let mut way = NoWay { message, plugins, preemption: None, nominated: None };
        match room {
            Ok(preemption) => way.preemption = Some(preemption),
            Err(why) => {
                if !why.is_empty() {
                    self.metrics.preemption_tried();
                    way.message = format!("{} {why}", way.message);
                }
                if preemptable == 0 {
                    // Room that was kept is of no use.
                    way.nominated = Some(String::new());
                }
            }
        }
        self.rejected(now, pod, way, out);
    }

    /// Makes or gives up room as was decided, and lets the pod wait.
    pub(super) fn carry_out(&mut self, now: Time, pod: &Pod, way: NoWay, out: &mut Vec<Effect>) {
        let NoWay { message, plugins, preemption, nominated } = way;
        let nominated = match (preemption, nominated) {
            (Some(preemption), _) => {
                self.metrics.preempted(preemption.victims.len(), preemption.violations);
                self.make_room(now, pod, &preemption, out);
                Some(preemption.name)
            }
            (None, Some(node)) => {
                if node.is_empty() {
                    self.scheduler.clear_nomination(&pod.key);
                } else {
                    self.scheduler.nominate(pod.clone(), &node);
                }
                Some(node)
            }
            (None, None) => None,
        };
        self.unschedulable(now, pod, plugins, message, nominated.as_deref(), out);
    }

    /// Tells of a pod that found no node, and lets it wait until something happens that matters to these plugins.
    pub(super) fn unschedulable(
        &mut self,
        now: Time,
        pod: &Pod,
        plugins: BTreeSet<&'static str>,
        message: String,
        nominated: Option<&str>,
        out: &mut Vec<Effect>,
    ) {
        self.attempted(now, pod, "unschedulable");
        self.queue.unschedulable(now, &pod.key, plugins);
        self.metrics.incoming("unschedulable", "ScheduleAttemptFailure", 1);
        let Some(object) = self.object(&pod.key) else { return };
        self.note(now, requests::not_scheduled(now, &object, "Unschedulable", &message, nominated), out);
        self.tell(now, &object, EventType::Warning, "FailedScheduling", "Scheduling", message, out);
    }

    /// Evicts the victims, and keeps the room for the pod.
    fn make_room(&mut self, now: Time, pod: &Pod, preemption: &Preemption, out: &mut Vec<Effect>) {
        for victim in &preemption.victims {
            if let Some(object) = self.object(&victim.key) {
                let scheduler =
                    self.scheduler.profile(&pod.scheduler_name).unwrap_or(&self.config.scheduler_name);
                let note = requests::disrupted(now, &object, scheduler);
                self.note(now, note, out);
                let message = format!("Preempted by pod {} on node {}", pod.uid, preemption.name);
                self.tell(now, &object, EventType::Normal, "Preempted", "Preempting", message, out);
            }
            let request = requests::evict(victim);
            self.send(now, request, Flight::Evict { preemptor: pod.key.clone() }, out);
        }
        for key in self.scheduler.outranked(pod, &preemption.name) {
            self.scheduler.clear_nomination(&key);
            if let Some(object) = self.object(&key) {
                self.note(now, Some(requests::no_nomination(&object)), out);
            }
        }
        self.scheduler.nominate(pod.clone(), &preemption.name);
    }
}
