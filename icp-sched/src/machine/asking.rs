//! Decisions and bindings in which extenders have a say.
//!
//! As upstream: nodes that the plugins leave go through each extender in turn, then plugins and all extenders give points
//! to those that are left. A decision is one at a time, so that no other pod is decided on while one waits for answers.

use alloc::collections::BTreeMap;
use alloc::string::{String, ToString};
use alloc::sync::Arc;
use alloc::vec::Vec;

use icp_core::api::{Object, resources};
use icp_core::base::{Duration, Time};
use icp_core::client::{EventType, ObjectKey, RequestId};

use super::binding::Flight;
use super::driver::SchedulerMachine;
use super::{Effect, requests};
use crate::config::ExtenderConfiguration;
use crate::extender::{
    BindingArgs, EXTENDER, ExtenderAnswer, ExtenderArgs, ExtenderCall, FilterResult, POINTS_FACTOR, Unbound,
    bound, points,
};
use crate::framework::{Rejected, Rejection};
use crate::model::Pod;
use crate::scheduler::Contest;

/// What an extender answered, or why it did not.
type Answer = Result<ExtenderAnswer, String>;

/// A decision that waits for extenders.
#[derive(Clone, Debug)]
pub(super) struct Asking {
    pod: Pod,
    object: Arc<Object>,
    /// What the clock said when it began.
    since: Option<Duration>,
    /// Only the node is looked at on which room was made for the pod.
    kept: bool,
    contest: Contest,
    /// The first extender that was not asked for nodes yet.
    next: usize,
    /// What was asked, of which extender.
    open: BTreeMap<RequestId, usize>,
    /// The points of nodes, once no extender has to be asked for nodes any more.
    totals: Option<Vec<(String, i64)>>,
    /// The cluster changed meanwhile: who finds no node may find one now.
    pub(super) disturbed: bool,
}

impl Asking {
    pub(super) const fn pod(&self) -> &Pod {
        &self.pod
    }
}

impl SchedulerMachine {
    pub(super) fn extender(&self, at: usize) -> Option<&ExtenderConfiguration> {
        self.config.extenders.get(at)
    }

    /// The first extender from `from` on that has a say about a pod, and the address of this question.
    pub(super) fn asked_from(
        &self,
        from: usize,
        pod: &Object,
        verb: impl Fn(&ExtenderConfiguration) -> &str,
    ) -> Option<(usize, String)> {
        let mut list = self.config.extenders.iter().enumerate().skip(from);
        let (at, extender) = list.find(|(_, e)| !verb(e).is_empty() && e.is_interested(pod))?;
        Some((at, extender.url(verb(extender))))
    }

    /// Whether extenders have a say about the nodes of a pod.
    pub(super) fn are_extenders_asked(&self, pod: &Object) -> bool {
        self.asked_from(0, pod, |e| &e.filter_verb).is_some()
            || self.asked_from(0, pod, |e| &e.prioritize_verb).is_some()
    }

    pub(super) fn call(
        &mut self,
        now: Time,
        at: usize,
        url: String,
        body: Vec<u8>,
        out: &mut Vec<Effect>,
    ) -> RequestId {
        let id = self.ids.next_id();
        let timeout = self.extender(at).map(|e| e.timeout).unwrap_or_default();
        self.timers.set(id, now + timeout);
        out.push(Effect::AskExtender(ExtenderCall { id, extender: at, url, body, timeout }));
        id
    }

    /// A question about nodes. Names and parsed JSON can always be written.
    fn question(&self, at: usize, pod: &Object, names: &[String]) -> Vec<u8> {
        let by_name = self.extender(at).is_some_and(|e| e.node_cache_capable);
        let args = if by_name {
            ExtenderArgs::by_name(pod, names)
        } else {
            let store = self.informers.get(&resources::NODES).map(|i| i.store());
            let node = |name: &String| store?.get_key(&ObjectKey::new("", name)).map(|n| &**n);
            ExtenderArgs::whole(pod, names.iter().filter_map(node).collect())
        };
        serde_json::to_vec(&args).unwrap_or_default()
    }

    /// Begins a decision in which extenders have a say; says whether it is one.
    pub(super) fn ask_extenders(&mut self, now: Time, pod: &Pod, out: &mut Vec<Effect>) -> bool {
        if self.config.extenders.is_empty() {
            return false;
        }
        let Some(object) = self.object(&pod.key) else { return false };
        if !self.are_extenders_asked(&object) {
            return false;
        }
        let mut asking = Asking {
            pod: pod.clone(),
            object,
            since: self.clock(),
            kept: true,
            contest: Contest::default(),
            next: 0,
            open: BTreeMap::new(),
            totals: None,
            disturbed: false,
        };
        match self.scheduler.kept_alone(pod) {
            Some(node) => {
                asking.contest.feasible.push(node);
                self.ask_for_nodes(now, asking, out);
            }
            None => self.ask_about_all(now, asking, out),
        }
        true
    }

    fn ask_about_all(&mut self, now: Time, mut asking: Asking, out: &mut Vec<Effect>) {
        match self.scheduler.contest(&asking.pod) {
            Ok(contest) => {
                asking.contest = contest;
                (asking.kept, asking.next) = (false, 0);
                self.ask_for_nodes(now, asking, out);
            }
            Err(none) => {
                self.extenders_are_through(&asking);
                self.nowhere(now, &asking.pod, none, out);
            }
        }
    }

    fn extenders_are_through(&mut self, asking: &Asking) {
        if let Some(took) = self.took(asking.since) {
            self.metrics.decided(took);
        }
    }

    /// Asks the next extender for nodes, and for points if there is none.
    fn ask_for_nodes(&mut self, now: Time, mut asking: Asking, out: &mut Vec<Effect>) {
        if asking.contest.feasible.is_empty() {
            if asking.kept {
                self.ask_about_all(now, asking, out);
            } else {
                self.none_left(now, asking, out);
            }
            return;
        }
        match self.asked_from(asking.next, &asking.object, |e| &e.filter_verb) {
            Some((at, url)) => {
                let body = self.question(at, &asking.object, &asking.contest.feasible);
                asking.next = at;
                asking.open.insert(self.call(now, at, url, body, out), at);
                self.asking = Some(asking);
            }
            None => self.ask_for_points(now, asking, out),
        }
    }

    fn ask_for_points(&mut self, now: Time, mut asking: Asking, out: &mut Vec<Effect>) {
        let totals = self.scheduler.points(&asking.pod, &asking.contest.feasible);
        // A node without rivals is chosen whatever its points.
        if totals.len() > 1 {
            let names: Vec<String> = totals.iter().map(|(name, _)| name.clone()).collect();
            let mut from = 0;
            while let Some((at, url)) = self.asked_from(from, &asking.object, |e| &e.prioritize_verb) {
                let body = self.question(at, &asking.object, &names);
                asking.open.insert(self.call(now, at, url, body, out), at);
                from = at + 1;
            }
        }
        asking.totals = Some(totals);
        if asking.open.is_empty() {
            self.choose(now, asking, out);
        } else {
            self.asking = Some(asking);
        }
    }

    fn choose(&mut self, now: Time, asking: Asking, out: &mut Vec<Effect>) {
        let totals = asking.totals.as_deref().unwrap_or_default();
        match self.scheduler.best(asking.contest.start, totals) {
            Some(placement) => {
                self.extenders_are_through(&asking);
                self.chosen(now, asking.pod, placement, out);
            }
            None => self.none_left(now, asking, out),
        }
    }

    fn none_left(&mut self, now: Time, asking: Asking, out: &mut Vec<Effect>) {
        self.extenders_are_through(&asking);
        let none = self.scheduler.none_left(asking.contest.rejected);
        self.nowhere(now, &asking.pod, none, out);
        if asking.disturbed {
            self.queue.retry(now, &asking.pod.key);
        }
    }

    /// An extender answered, or nothing came back in time; says whether anybody was waiting for that.
    pub(super) fn extender_answered(
        &mut self,
        now: Time,
        id: RequestId,
        answer: Answer,
        out: &mut Vec<Effect>,
    ) -> bool {
        if self.victims_answered(now, id, &answer, out) {
            return true;
        }
        if let Some(mut asking) = self.asking.take() {
            let Some(at) = asking.open.remove(&id) else {
                self.asking = Some(asking);
                return self.delegate_answered(now, id, answer, out);
            };
            self.timers.cancel(&id);
            self.on_opinion(now, asking, at, answer, out);
            return true;
        }
        self.delegate_answered(now, id, answer, out)
    }

    fn on_opinion(
        &mut self,
        now: Time,
        mut asking: Asking,
        at: usize,
        answer: Answer,
        out: &mut Vec<Effect>,
    ) {
        let key = &asking.pod.key;
        // The pod went, was placed by somebody else, or is another one.
        if self.queue.place(key).is_some() || self.queue.get(key).is_none_or(|p| p.uid != asking.pod.uid) {
            asking.open.keys().for_each(|id| {
                self.timers.cancel(id);
            });
            return;
        }
        let Some(extender) = self.extender(at).cloned() else { return };
        if let Some(totals) = &mut asking.totals {
            // Without the points of one extender, those of the others decide.
            let url = extender.url(&extender.prioritize_verb);
            let given = answer.and_then(|a| points(&a, &url)).unwrap_or_default();
            for (name, total) in totals {
                let more = given.get(name).copied().unwrap_or(0);
                let more = more.saturating_mul(extender.weight).saturating_mul(POINTS_FACTOR);
                *total = total.saturating_add(more);
            }
            if asking.open.is_empty() {
                self.choose(now, asking, out);
            } else {
                self.asking = Some(asking);
            }
            return;
        }
        let url = extender.url(&extender.filter_verb);
        let by_name = extender.node_cache_capable;
        let asked = &asking.contest.feasible;
        asking.next = at + 1;
        match answer.and_then(|a| FilterResult::read(&a, &url, by_name, asked)) {
            Ok(result) => {
                left_out(&mut asking.contest, &result);
                self.ask_for_nodes(now, asking, out);
            }
            Err(_) if extender.ignorable => self.ask_for_nodes(now, asking, out),
            Err(_) if asking.kept => self.ask_about_all(now, asking, out),
            Err(e) => self.erred(now, &asking.pod, e, out),
        }
    }

    /// Lets the extender bind that binds pods of this kind; says whether there is one.
    pub(super) fn delegate(&mut self, now: Time, pod: &Pod, node: &str, out: &mut Vec<Effect>) -> bool {
        if self.config.extenders.is_empty() {
            return false;
        }
        let Some(object) = self.object(&pod.key) else { return false };
        let Some((at, url)) = self.asked_from(0, &object, |e| &e.bind_verb) else { return false };
        let args = BindingArgs {
            pod_name: &pod.key.name,
            pod_namespace: &pod.key.namespace,
            pod_uid: &pod.uid,
            node,
        };
        let id = self.call(now, at, url, serde_json::to_vec(&args).unwrap_or_default(), out);
        self.flights.insert(id, Flight::Delegate { pod: pod.clone(), node: node.into(), extender: at });
        true
    }

    fn delegate_answered(&mut self, now: Time, id: RequestId, answer: Answer, out: &mut Vec<Effect>) -> bool {
        let Some(Flight::Delegate { extender, .. }) = self.flights.get(&id) else { return false };
        let Some(extender) = self.extender(*extender).cloned() else { return false };
        let Some(Flight::Delegate { pod, node, .. }) = self.flights.remove(&id) else { return false };
        self.timers.cancel(&id);
        let url = extender.url(&extender.bind_verb);
        match answer.map_err(Unbound::Unknown).and_then(|a| bound(&a, &url)) {
            Ok(()) => self.bound(now, &pod, &node, out),
            // A pod that is bound after all is not bound again: the API server refuses that.
            Err(_) if extender.ignorable => self.bind_here(now, pod, node, out),
            Err(Unbound::Refused(e)) => {
                self.take_back(now, &pod);
                self.erred(now, &pod, e, out);
            }
            Err(Unbound::Unknown(_)) => {
                let request = requests::read(&pod.key);
                self.send(now, request, Flight::Read { pod, node }, out);
            }
        }
        true
    }

    /// A decision or a binding failed: the pod pauses, and is told why.
    pub(super) fn erred(&mut self, now: Time, pod: &Pod, message: String, out: &mut Vec<Effect>) {
        self.try_again(now, pod);
        let Some(object) = self.object(&pod.key) else { return };
        let note = requests::not_scheduled(now, &object, "SchedulerError", &message, None);
        self.note(now, note, out);
        self.tell(now, &object, EventType::Warning, "FailedScheduling", "Scheduling", message, out);
    }
}

/// Takes the nodes out that an extender does not leave, with its reasons.
fn left_out(contest: &mut Contest, result: &FilterResult) {
    let feasible = core::mem::take(&mut contest.feasible);
    for name in feasible {
        if result.left.contains(&name) {
            contest.feasible.push(name);
        } else {
            contest.rejected.push(rejection(&name, result));
        }
    }
}

fn rejection(name: &str, result: &FilterResult) -> Rejection {
    let rejected = match (result.unresolvable.get(name), result.failed.get(name)) {
        (Some(why), _) => Rejected::unresolvable(why.clone()),
        (None, Some(why)) => Rejected::unschedulable(why.clone()),
        (None, None) => Rejected::unresolvable("node(s) were left out by an extender".to_string()),
    };
    rejected.by(EXTENDER)
}
