//! Preemption in which extenders have a say (`preemptVerb`): each leaves out nodes, or names other victims on them, of those
//! that the one before left; the cheapest that is left is taken. As upstream, extenders see some of the nodes where room can
//! be made, not all: a tenth and at least a hundred, unless the configuration says how many.

use alloc::collections::BTreeMap;
use alloc::format;
use alloc::string::String;
use alloc::sync::Arc;
use alloc::vec::Vec;

use icp_core::api::Object;
use icp_core::base::Time;
use icp_core::client::RequestId;

use super::Effect;
use super::driver::SchedulerMachine;
use crate::config::ExtenderConfiguration;
use crate::extender::{ExtenderAnswer, NodeVictims, PreemptionArgs, VictimIds, victims};
use crate::model::Pod;
use crate::{Preemption, Unschedulable};

/// A preemption that waits for an extender.
#[derive(Clone, Debug)]
pub(super) struct Bargain {
    pod: Pod,
    object: Arc<Object>,
    none: Unschedulable,
    candidates: Vec<Preemption>,
    /// What was asked, of which extender.
    id: RequestId,
    extender: usize,
    /// The cluster changed meanwhile: who finds no node may find one now.
    pub(super) disturbed: bool,
}

impl Bargain {
    pub(super) const fn pod(&self) -> &Pod {
        &self.pod
    }
}

impl SchedulerMachine {
    /// Whether the pod that is decided on waits for an extender.
    pub(super) const fn waits_for_extender(&self) -> bool {
        self.asking.is_some() || self.bargain.is_some()
    }

    /// Looks for room if extenders have a say in that; says whether they have.
    pub(super) fn bargain(
        &mut self,
        now: Time,
        pod: &Pod,
        none: &Unschedulable,
        out: &mut Vec<Effect>,
    ) -> bool {
        if self.config.extenders.is_empty() {
            return false;
        }
        let Some(object) = self.object(&pod.key) else { return false };
        if self.asked_from(0, &object, |e| &e.preempt_verb).is_none() {
            return false;
        }
        match self.scheduler.candidates(pod, none) {
            Ok(candidates) => {
                let bargain = Bargain {
                    pod: pod.clone(),
                    object,
                    none: none.clone(),
                    candidates,
                    id: RequestId::default(),
                    extender: 0,
                    disturbed: false,
                };
                self.ask_about_victims(now, bargain, 0, out);
            }
            Err(why) => self.settle(now, pod, none.clone(), Err(why), out),
        }
        true
    }

    /// Asks the next extender, from `next` on, or takes the cheapest node if there is none.
    fn ask_about_victims(&mut self, now: Time, mut bargain: Bargain, next: usize, out: &mut Vec<Effect>) {
        let asked = self.asked_from(next, &bargain.object, |e| &e.preempt_verb);
        match asked.filter(|_| !bargain.candidates.is_empty()) {
            Some((at, url)) => {
                let body = self.victims_question(at, &bargain);
                bargain.extender = at;
                bargain.id = self.call(now, at, url, body, out);
                self.bargain = Some(bargain);
            }
            None => {
                let room = Preemption::cheapest(core::mem::take(&mut bargain.candidates));
                let room = room.ok_or_else(|| "preemption: no candidate node for preemption".into());
                self.strike(now, &bargain, room, out);
            }
        }
    }

    /// The bargain is over.
    fn strike(
        &mut self,
        now: Time,
        bargain: &Bargain,
        room: Result<Preemption, String>,
        out: &mut Vec<Effect>,
    ) {
        self.settle(now, &bargain.pod, bargain.none.clone(), room, out);
        if bargain.disturbed {
            self.queue.retry(now, &bargain.pod.key);
        }
    }

    fn victims_question(&self, at: usize, bargain: &Bargain) -> Vec<u8> {
        let by_name = self.extender(at).is_some_and(|e| e.node_cache_capable);
        let objects: Vec<Vec<Arc<Object>>> = bargain
            .candidates
            .iter()
            .map(|c| c.victims.iter().filter_map(|v| self.object(&v.key)).collect())
            .collect();
        let mut args = PreemptionArgs::new(&bargain.object);
        let candidates = bargain.candidates.iter();
        if by_name {
            let ids = |c: &Preemption| VictimIds::new(c.victims.iter().map(|v| v.uid.clone()), c.violations);
            args.node_name_to_meta_victims = Some(candidates.map(|c| (c.name.as_str(), ids(c))).collect());
        } else {
            let whole = candidates.zip(&objects);
            let whole = whole.map(|(c, pods)| (c.name.as_str(), NodeVictims::new(pods, c.violations)));
            args.node_name_to_victims = Some(whole.collect());
        }
        serde_json::to_vec(&args).unwrap_or_default()
    }

    /// An extender answered about victims, or nothing came back in time; says whether anybody was waiting for that.
    pub(super) fn victims_answered(
        &mut self,
        now: Time,
        id: RequestId,
        answer: &Result<ExtenderAnswer, String>,
        out: &mut Vec<Effect>,
    ) -> bool {
        let Some(mut bargain) = self.bargain.take_if(|b| b.id == id) else { return false };
        self.timers.cancel(&id);
        let key = &bargain.pod.key;
        // The pod went, was placed by somebody else, or is another one.
        if self.queue.place(key).is_some() || self.queue.get(key).is_none_or(|p| p.uid != bargain.pod.uid) {
            return true;
        }
        let Some(extender) = self.extender(bargain.extender).cloned() else { return true };
        let left = answer
            .as_ref()
            .map_err(String::clone)
            .and_then(|a| victims(a, &extender.url(&extender.preempt_verb)))
            .and_then(|left| self.left_to_evict(&bargain.candidates, left, &extender));
        match left {
            Ok(left) => bargain.candidates = left,
            Err(_) if extender.ignorable => {}
            Err(e) => {
                self.strike(now, &bargain, Err(format!("preemption: {e}")), out);
                return true;
            }
        }
        let next = bargain.extender + 1;
        self.ask_about_victims(now, bargain, next, out);
        true
    }

    /// What an extender leaves, with the pods as they are now; in the order of the candidates, and then by name.
    fn left_to_evict(
        &self,
        candidates: &[Preemption],
        mut answer: BTreeMap<String, VictimIds>,
        extender: &ExtenderConfiguration,
    ) -> Result<Vec<Preemption>, String> {
        let mut left = Vec::new();
        let names: Vec<&str> = candidates.iter().map(|c| c.name.as_str()).collect();
        let known = names.iter().filter_map(|name| answer.remove_entry(*name)).collect::<Vec<_>>();
        for (name, ids) in known.into_iter().chain(answer) {
            let cluster = self.scheduler.cluster();
            let node =
                cluster.node_id(&name).ok_or_else(|| format!("nodeinfo not found for node name {name:?}"))?;
            let mut victims = Vec::new();
            for uid in &ids.uids {
                let pod = cluster.pods_on(node).find(|p| p.uid == *uid).ok_or_else(|| {
                    format!(
                        "extender: {} claims to preempt pod (UID: {uid}) on node: {name}, but the pod is not found on \
                         that node",
                        extender.url_prefix
                    )
                })?;
                victims.push(pod.clone());
            }
            if victims.is_empty() {
                if extender.ignorable {
                    continue;
                }
                return Err(format!("expected at least one victim pod on node {name:?}"));
            }
            left.push(Preemption { node, name, victims, violations: ids.violations });
        }
        Ok(left)
    }
}
