//! Pods that run together or not at all; what is held to stands in the documentation of [`super`].

use alloc::collections::{BTreeMap, BTreeSet};
use alloc::format;
use alloc::string::{String, ToString};
use alloc::vec::Vec;

use icp_core::api::resources;
use icp_core::base::{Duration, Time};
use icp_core::client::{ApiError, Delta, ObjectKey, Reply, RequestId};

use super::Effect;
use super::decision::NoNode;
use super::driver::SchedulerMachine;
use super::requests::{self, Outcome};
use crate::Unplaced;
use crate::framework::{Rejection, Waiter, fit_error};
use crate::gang::{GangError, Seats, min_count};
use crate::model::Pod;
use crate::queue::{ClusterEvent, GANG_SCHEDULING};

/// What stands among the gates of a pod that waits for its group; no gate of a pod is named so.
const GATE: &str = "group: ";
/// Pods are told what they wait for after this long: most groups are complete before.
const PATIENCE: Duration = Duration::from_secs(10);

/// What was decided on a gang while plugins are asked for leave to bind its pods.
#[derive(Clone, Debug)]
pub(super) struct Cohort {
    /// How many of these pods must keep their nodes.
    need: usize,
    members: BTreeMap<ObjectKey, Member>,
    /// Plugins are still being asked about some of them.
    asking: bool,
    /// Nobody else saw yet that the nodes are taken.
    fresh: bool,
    /// Why one of them lost its node.
    why: String,
}

#[derive(Clone, Debug)]
struct Member {
    pod: Pod,
    node: String,
    /// It may be bound.
    leave: bool,
}

impl Cohort {
    /// Whether a pod has its node here and is not bound yet.
    pub(super) fn holds(&self, key: &ObjectKey) -> bool {
        self.members.contains_key(key)
    }
}

/// The node of a pod, or why it has none and which plugins say so.
type Verdict = Result<String, (String, BTreeSet<&'static str>)>;

/// What the arrival of a pod did to its group.
pub(super) struct Joined {
    group: ObjectKey,
    flipped: bool,
    new: bool,
}

impl SchedulerMachine {
    /// The gang of a pod; `None` if it is placed alone.
    pub(super) fn gang_of(&self, pod: &Pod) -> Option<ObjectKey> {
        pod.group_key().filter(|group| self.gangs.minimum(group).is_some_and(|min| min > 0))
    }

    pub(super) fn on_group(&mut self, now: Time, delta: &Delta, out: &mut Vec<Effect>) {
        let object = delta.object();
        let group = ObjectKey::of(object);
        let min = (!matches!(delta, Delta::Deleted(_))).then(|| min_count(object).unwrap_or(0));
        let (was, before) = (self.gangs.is_ready(&group), self.gangs.minimum(&group));
        self.gangs.set_group(&group, min);
        if was != self.gangs.is_ready(&group) {
            self.regroup(now, &group);
        } else if self.gangs.is_ready(&group) && min < before {
            self.try_group(now, &group);
        } else if min != before && self.gangs.counts(&group).0 > 0 {
            self.be_patient(now, &group);
        }
        self.tell_scheduled(now, &group, out);
    }

    /// A pod is about to wait for a node; it gets a gate if it has to wait for its group first.
    pub(super) fn join(&mut self, now: Time, pod: &mut Pod) -> Option<Joined> {
        let group = pod.group_key()?;
        if self.scheduler.cluster().is_assumed(&pod.key) {
            return None;
        }
        pod.gates.retain(|g| g != GATE);
        let was = self.gangs.is_ready(&group);
        let new = self.queue.get(&pod.key).is_none_or(|p| p.uid != pod.uid);
        if pod.gates.is_empty() {
            self.gangs.arrive(now, &group, pod.clone());
            if !self.gangs.is_ready(&group) {
                pod.gates.push(GATE.into());
                if new {
                    self.be_patient(now, &group);
                }
            }
        } else {
            // Who waits for something else is not there yet.
            self.gangs.leave(&group, &pod.key);
        }
        let flipped = was != self.gangs.is_ready(&group);
        Some(Joined { group, flipped, new })
    }

    /// The pod that joined stands in the queue.
    pub(super) fn joined(&mut self, now: Time, key: &ObjectKey, joined: &Joined) {
        if joined.flipped {
            self.regroup(now, &joined.group);
        } else if joined.new
            && self.gangs.minimum(&joined.group).is_some_and(|min| min > 0)
            && let Some(other) = self.gangs.waiting(&joined.group).find(|p| p.key != *key)
        {
            self.queue.follow(now, key, &other.key);
        }
    }

    /// A pod is gone, or wants no node any more.
    pub(super) fn leave_group(&mut self, now: Time, pod: &Pod) {
        let Some(group) = pod.group_key() else { return };
        let was = self.gangs.is_ready(&group);
        self.gangs.leave(&group, &pod.key);
        if was != self.gangs.is_ready(&group) {
            self.regroup(now, &group);
        }
    }

    /// A pod is seen on a node.
    pub(super) fn group_bound(&mut self, now: Time, pod: &Pod, out: &mut Vec<Effect>) {
        let Some(group) = pod.group_key() else { return };
        if let Some(cohort) = self.cohorts.get_mut(&group)
            && cohort.members.remove(&pod.key).is_some()
        {
            cohort.need = cohort.need.saturating_sub(1);
        }
        let was = self.gangs.is_ready(&group);
        self.gangs.bound(&group, &pod.key);
        if was != self.gangs.is_ready(&group) {
            self.regroup(now, &group);
        }
        self.tell_scheduled(now, &group, out);
    }

    /// A pod is not on its node after all, and wants another one if it still waits.
    pub(super) fn group_unseated(&mut self, now: Time, pod: &Pod) {
        let Some(group) = pod.group_key() else { return };
        match self.queue.get(&pod.key).filter(|p| p.uid == pod.uid).cloned() {
            Some(pod) => self.gangs.arrive(now, &group, pod),
            None => self.leave_group(now, pod),
        }
    }

    /// Lets the pods of a group stand in line, or holds them back, as it is complete or not.
    fn regroup(&mut self, now: Time, group: &ObjectKey) {
        let ready = self.gangs.is_ready(group);
        let pods: Vec<Pod> = self.gangs.waiting(group).cloned().collect();
        if !ready && !pods.is_empty() {
            self.be_patient(now, group);
        }
        for mut pod in pods {
            if !ready {
                pod.gates.push(GATE.into());
            }
            let (key, rank) = (pod.key.clone(), self.scheduler.rank(&pod));
            let before = self.queue.place(&key);
            self.queue.set_ranked(now, pod, rank);
            let after = self.queue.place(&key);
            if let Some(place) = after.filter(|_| before != after) {
                self.metrics.incoming(place, "PodGroupUpdate", 1);
            }
        }
    }

    /// The pods of a group have another chance when their pause is over. One of them takes the others along.
    fn try_group(&mut self, now: Time, group: &ObjectKey) {
        if let Some(pod) = self.gangs.waiting(group).next() {
            self.queue.retry(now, &pod.key);
        }
    }

    fn be_patient(&mut self, now: Time, group: &ObjectKey) {
        if self.patience.due(group).is_none() {
            self.patience.set(group.clone(), now + PATIENCE);
        }
    }

    /// Tells the pods of a group what they wait for, if they still do, and the group that it is scheduled, if that did not
    /// reach it.
    pub(super) fn patience_ended(&mut self, now: Time, group: &ObjectKey, out: &mut Vec<Effect>) {
        self.tell_scheduled(now, group, out);
        if self.gangs.is_ready(group) {
            return;
        }
        let missing = self.informers.get(&resources::POD_GROUPS).is_some_and(|i| i.missing());
        let (waiting, placed) = self.gangs.counts(group);
        let message = match self.gangs.minimum(group) {
            Some(min) => format!(
                "waiting for minCount pods from a gang to appear in scheduling queue: pod group {:?} has {} of {min}",
                group.name,
                waiting + placed
            ),
            None if missing => format!(
                "waiting for pod's pod group {:?}, but the API server does not serve pod groups",
                group.name
            ),
            None => {
                format!("waiting for pod's pod group {:?} to appear in scheduling queue", group.name)
            }
        };
        let keys: Vec<ObjectKey> = self.gangs.waiting(group).map(|p| p.key.clone()).collect();
        for key in keys {
            let Some(object) = self.object(&key) else { continue };
            let note = requests::not_scheduled(now, &object, "Unschedulable", &message, None);
            if note.is_some() && !self.may_note() {
                self.be_patient(now, group);
                break;
            }
            self.note(now, note, out);
        }
    }

    /// Decides on a gang, of which a pod is in turn. Says how many pods that were.
    pub(super) fn place_gang(
        &mut self,
        now: Time,
        group: &ObjectKey,
        first: &Pod,
        out: &mut Vec<Effect>,
    ) -> usize {
        if self.cohorts.contains_key(group) {
            // Whether this pod's gang has its minimum turns out when that has leave to be bound.
            self.queue.unschedulable(now, &first.key, [GANG_SCHEDULING].into());
            return 1;
        }
        self.gangs.arrive(now, group, first.clone());
        let pods: Vec<Pod> = self.gangs.waiting(group).cloned().collect();
        for pod in &pods {
            if self.scheduler.cluster().pod(&pod.key).is_some() {
                self.gangs.bound(group, &pod.key);
            } else if pod.key != first.key {
                self.queue.take(now, &pod.key);
            }
        }
        let asked = |pod: &&Pod| self.object(&pod.key).is_some_and(|o| self.are_extenders_asked(&o));
        let asked = (!self.config.extenders.is_empty()).then(|| pods.iter().find(asked)).flatten();
        if let Some(pod) = asked {
            let why = format!("an extender would have to be asked about pod {:?} alone", pod.key.name);
            let message = self.shortfall(group, &why);
            let none = |pod| (pod, Err((message.clone(), [GANG_SCHEDULING].into())));
            return self.decided(
                now,
                group,
                pods.into_iter().map(none).collect(),
                Some(message.clone()),
                out,
            );
        }
        let from = self.clock();
        let answer = self.gangs.decide(now, group, &mut self.scheduler);
        if let Some(took) = self.took(from) {
            self.metrics.decided(took);
        }
        match answer {
            Ok(Seats { seats, unplaced }) => {
                let mut pods: BTreeMap<ObjectKey, Pod> =
                    pods.into_iter().map(|p| (p.key.clone(), p)).collect();
                let seated = seats.into_iter().map(|seat| (seat.pod, Ok(seat.placement.name)));
                let left = unplaced.into_iter().filter_map(|Unplaced { pod, reason }| {
                    Some((pods.remove(&pod)?, Err((reason.message, reason.plugins))))
                });
                self.decided(now, group, seated.chain(left).collect(), None, out)
            }
            Err(GangError::TooFew { placed, unplaced, .. }) => {
                let before = self.gangs.counts(group).1;
                let why = format!("{placed} more pods find a node, and {before} have one");
                let head = self.shortfall(group, &why);
                // Whom no plugin rejected, as without a node, waits for anything.
                let any = unplaced.iter().any(|u| u.reason.plugins.is_empty());
                let plugins = unplaced.iter().filter(|_| !any).flat_map(|u| u.reason.plugins.iter().copied());
                let plugins: BTreeSet<_> = plugins.chain((!any).then_some(GANG_SCHEDULING)).collect();
                let reasons: BTreeMap<&ObjectKey, &str> =
                    unplaced.iter().map(|u| (&u.pod, u.reason.message.as_str())).collect();
                let first = unplaced.first().map_or("", |u| u.reason.message.as_str());
                let none = |pod: Pod| {
                    let own = reasons.get(&pod.key).copied().unwrap_or(first);
                    (pod, Err((format!("{head}; {own}"), plugins.clone())))
                };
                let verdicts = pods.into_iter().map(none).collect();
                self.decided(now, group, verdicts, Some(format!("{head}; {first}")), out)
            }
            Err(e @ (GangError::Placed(_) | GangError::Incomplete(_))) => {
                for pod in &pods {
                    self.erred(now, pod, e.to_string(), out);
                }
                pods.len()
            }
        }
    }

    fn shortfall(&self, group: &ObjectKey, why: &str) -> String {
        let min = self.gangs.minimum(group).unwrap_or(0);
        format!("pod group {:?} is unschedulable: minCount ({min}) is not satisfied: {why}", group.name)
    }

    /// Carries out what was decided on the pods of a gang, or what was recorded instead; `none` is what the group is told
    /// if it was refused. Says how many pods these are.
    fn decided(
        &mut self,
        now: Time,
        group: &ObjectKey,
        verdicts: Vec<(Pod, Verdict)>,
        none: Option<String>,
        out: &mut Vec<Effect>,
    ) -> usize {
        let count = verdicts.len();
        let (mut seats, mut left, mut as_decided) = (Vec::new(), Vec::new(), true);
        for (pod, verdict) in verdicts {
            let verdict = match self.told(&pod, || said_of(&verdict)) {
                None => verdict,
                Some(instead) => {
                    as_decided = false;
                    self.recall_member(now, group, &pod, verdict.is_ok(), instead)
                }
            };
            match verdict {
                Ok(node) => seats.push((pod, node)),
                Err(none) => left.push((pod, none)),
            }
        }
        for (pod, (message, plugins)) in left {
            self.unschedulable(now, &pod, plugins, message, None, out);
        }
        if let Some(message) = none.filter(|_| seats.is_empty()) {
            self.tell_group(now, group, false, "Unschedulable", &message, out);
        }
        if !seats.is_empty() {
            let before = self.gangs.counts(group).1.saturating_sub(seats.len());
            let need = self.gangs.minimum(group).unwrap_or(0).saturating_sub(before);
            let need = if as_decided { need } else { need.min(seats.len()) };
            self.seat(now, group, need, seats, out);
        }
        count
    }

    /// Gives a pod what was recorded instead of what was decided, as far as it can be done.
    fn recall_member(
        &mut self,
        now: Time,
        group: &ObjectKey,
        pod: &Pod,
        seated: bool,
        recorded: Result<String, NoNode>,
    ) -> Verdict {
        if seated {
            self.scheduler.forget(&pod.key);
            self.gangs.arrive(now, group, pod.clone());
        }
        match recorded {
            Ok(name) => {
                let Some(node) = self.scheduler.cluster().node_id(&name) else {
                    return Err(Default::default());
                };
                self.scheduler.assume(pod.clone(), node);
                self.gangs.bound(group, &pod.key);
                Ok(name)
            }
            Err(NoNode { message, plugins, .. }) => {
                let named = |name: &String| match name.as_str() {
                    GANG_SCHEDULING => GANG_SCHEDULING,
                    // A plugin that is not there any more may have waited for anything.
                    name => self.scheduler.plugin_named(name).unwrap_or(""),
                };
                Err((message, plugins.iter().map(named).collect()))
            }
        }
    }

    /// The pods of a gang have nodes: plugins keep those, and say whether the pods are bound now.
    fn seat(
        &mut self,
        now: Time,
        group: &ObjectKey,
        need: usize,
        seats: Vec<(Pod, String)>,
        out: &mut Vec<Effect>,
    ) {
        if !self.scheduler.has_own_plugins() || need == 0 {
            for (pod, node) in seats {
                self.reserve(now, pod, node, out);
            }
            self.tell_scheduled(now, group, out);
            return;
        }
        let (mut members, mut lost) = (BTreeMap::new(), Vec::new());
        for (pod, node) in seats {
            match self.scheduler.reserve(&pod, &node) {
                Ok(()) => {
                    self.reserved.insert(pod.key.clone(), (pod.clone(), node.clone()));
                    members.insert(pod.key.clone(), Member { pod, node, leave: false });
                }
                Err(rejection) => lost.push((pod, rejection)),
            }
        }
        let why = lost.first().map(|(_, r)| said(r)).unwrap_or_default();
        let keys: Vec<ObjectKey> = members.keys().cloned().collect();
        self.cohorts.insert(group.clone(), Cohort { need, members, asking: true, fresh: true, why });
        for (pod, rejection) in lost {
            self.not_taken(now, &pod, &rejection, out);
        }
        for key in keys {
            let Some(cohort) = self.cohorts.get(group).filter(|c| c.members.len() >= need) else { break };
            let Some(Member { pod, node, .. }) = cohort.members.get(&key).cloned() else { continue };
            let leave = self.scheduler.permit(&pod, &node, &self.waiters);
            match leave.rejected {
                Some(rejection) => self.not_taken(now, &pod, &rejection, out),
                None if leave.pending.is_empty() => {
                    self.has_leave(&key);
                }
                None => {
                    let pending = self.await_leave(now, leave.pending);
                    self.waiters.insert(key, Waiter { pod, node, pending, since: now });
                }
            }
            for (key, plugin) in leave.allowed {
                self.allow(now, &key, plugin, out);
            }
            for (key, plugin, reason) in leave.refused {
                self.refuse(now, &key, plugin, reason.into_owned(), out);
            }
        }
        if let Some(cohort) = self.cohorts.get_mut(group) {
            cohort.asking = false;
        }
        self.settle_gangs(now, out);
        if let Some(cohort) = self.cohorts.get_mut(group) {
            cohort.fresh = false;
        }
    }

    /// A pod may be bound; says whether it waits for others of its gang then.
    pub(super) fn has_leave(&mut self, key: &ObjectKey) -> bool {
        let member = self.cohorts.values_mut().find_map(|c| c.members.get_mut(key));
        member.map(|m| m.leave = true).is_some()
    }

    /// Whether a pod has its node since this step, so that nobody else saw that it is taken.
    pub(super) fn is_fresh(&self, key: &ObjectKey) -> bool {
        self.cohorts.values().any(|c| c.fresh && c.members.contains_key(key))
    }

    /// A pod does not get the node that its gang was given.
    pub(super) fn drop_member(&mut self, key: &ObjectKey, uid: &str, why: Option<&Rejection>) {
        let ours = |m: &Member| uid.is_empty() || m.pod.uid == uid;
        for cohort in self.cohorts.values_mut() {
            if cohort.members.get(key).is_some_and(ours) {
                cohort.members.remove(key);
                cohort.why = why.map_or_else(|| format!("pod {:?} is gone", key.name), said);
            }
        }
    }

    /// Binds the gangs of which all pods have leave, and takes the nodes of those back of which too few get it.
    pub(super) fn settle_gangs(&mut self, now: Time, out: &mut Vec<Effect>) {
        if self.cohorts.is_empty() || self.leading(now).is_none() {
            return;
        }
        let settled = |c: &Cohort| c.members.len() < c.need || c.members.values().all(|m| m.leave);
        let groups = self.cohorts.iter().filter(|(_, c)| !c.asking && settled(c));
        let groups: Vec<ObjectKey> = groups.map(|(group, _)| group.clone()).collect();
        for group in groups {
            let Some(Cohort { need, members, fresh, why, .. }) = self.cohorts.remove(&group) else {
                continue;
            };
            if members.len() >= need {
                for Member { pod, node, .. } in members.into_values() {
                    self.go_on(now, pod, node, out);
                }
                self.tell_scheduled(now, &group, out);
                // Those that came meanwhile.
                self.try_group(now, &group);
            } else {
                let pods: Vec<Pod> = members.into_values().map(|m| m.pod).collect();
                for pod in &pods {
                    self.unseat(now, pod);
                }
                if !fresh && !pods.is_empty() {
                    self.happened(now, ClusterEvent::PodRemoved);
                }
                let message = self.shortfall(&group, &why);
                for pod in &pods {
                    self.unschedulable(now, pod, [GANG_SCHEDULING].into(), message.clone(), None, out);
                }
                self.tell_group(now, &group, false, "Unschedulable", &message, out);
            }
        }
    }

    /// Writes into a PodGroup that it found its nodes, once it has.
    fn tell_scheduled(&mut self, now: Time, group: &ObjectKey, out: &mut Vec<Effect>) {
        let Some(min) = self.gangs.minimum(group) else { return };
        if self.gangs.counts(group).1 >= min.max(1) && !self.cohorts.contains_key(group) {
            self.tell_group(now, group, true, "Scheduled", "", out);
        }
    }

    /// Writes the condition `PodGroupInitiallyScheduled`, unless another write of it is under way, or too many of all.
    fn tell_group(
        &mut self,
        now: Time,
        group: &ObjectKey,
        scheduled: bool,
        reason: &'static str,
        message: &str,
        out: &mut Vec<Effect>,
    ) {
        if self.telling.values().any(|(g, _)| g == group) {
            return;
        }
        if !self.may_note() {
            // The next attempt tells of a refusal; that it is scheduled is told when the patience ends.
            self.be_patient(now, group);
            return;
        }
        let store = self.informers.get(&resources::POD_GROUPS).map(|i| i.store());
        let Some(object) = store.and_then(|s| s.get_key(group)) else { return };
        if let Some(request) = requests::group_scheduled(now, object, scheduled, reason, message) {
            let id = self.send_note(now, request, out);
            self.telling.insert(id, (group.clone(), scheduled));
        }
    }

    /// A condition of a group was written, or was not.
    pub(super) fn group_told(
        &mut self,
        now: Time,
        id: RequestId,
        answer: &Result<Reply, ApiError>,
        out: &mut Vec<Effect>,
    ) {
        let Some((group, scheduled)) = self.telling.remove(&id) else { return };
        if !scheduled {
            // It may have found its nodes meanwhile.
            self.tell_scheduled(now, &group, out);
        } else if requests::outcome(answer) == Outcome::Unknown {
            self.be_patient(now, &group);
        }
    }
}

fn said_of(verdict: &Verdict) -> Result<String, NoNode> {
    verdict.clone().map_err(|(message, plugins)| NoNode {
        message,
        plugins: plugins.iter().map(ToString::to_string).collect(),
        ..NoNode::default()
    })
}

fn said(rejection: &Rejection) -> String {
    fit_error(1, &[(rejection.clone(), 1)])
}
