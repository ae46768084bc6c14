//! Decisions as they are told to whoever records them, and histories that are decided on again.

use alloc::boxed::Box;
use alloc::collections::{BTreeSet, VecDeque};
use alloc::string::{String, ToString};
use alloc::vec::Vec;

use icp_core::base::Time;
use icp_core::client::ObjectKey;

use super::Effect;
use super::driver::SchedulerMachine;
use crate::framework::NodeReport;
use crate::model::Pod;
use crate::{Placement, Preemption};

/// What was decided about a pod.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Decision {
    /// The pod.
    pub pod: ObjectKey,
    /// Its node, or why there is none.
    pub result: Result<String, NoNode>,
}

/// Why a pod has no node, and what is done about it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct NoNode {
    /// `0/N nodes are available: ...`
    pub message: String,
    /// The plugins that rejected nodes.
    pub plugins: BTreeSet<String>,
    /// The pods that are evicted for it, the most important first.
    pub victims: Vec<ObjectKey>,
    /// The node on which room is kept for it from now on; empty if room that was kept is given up.
    pub nominated: Option<String>,
}

/// What is decided about a pod for which there is no node.
#[derive(Debug)]
pub(super) struct NoWay {
    pub(super) message: String,
    pub(super) plugins: BTreeSet<&'static str>,
    pub(super) preemption: Option<Preemption>,
    /// By a plugin; empty if room that was kept is given up.
    pub(super) nominated: Option<String>,
}

impl NoWay {
    fn told(&self) -> NoNode {
        let preemption = self.preemption.as_ref();
        NoNode {
            message: self.message.clone(),
            plugins: self.plugins.iter().map(ToString::to_string).collect(),
            victims: preemption.into_iter().flat_map(|p| &p.victims).map(|v| v.key.clone()).collect(),
            nominated: preemption.map(|p| p.name.clone()).or_else(|| self.nominated.clone()),
        }
    }
}

/// A decision beside the recorded one.
#[derive(Clone, Debug)]
pub(crate) struct Judged {
    pub(crate) decision: Decision,
    pub(crate) recorded: Option<Decision>,
    /// The node that was recorded and the one that is chosen, if they differ.
    pub(crate) nodes: Vec<NodeReport>,
    /// Both are among the best nodes.
    pub(crate) tie: bool,
}

/// What is kept of the decisions on one input.
#[derive(Debug, Default)]
pub(super) struct Decisions {
    kept: Vec<Decision>,
    /// What holds instead of what is decided.
    script: Option<VecDeque<Decision>>,
    explain: bool,
    judged: Vec<Judged>,
}

impl SchedulerMachine {
    /// From now on, [`SchedulerMachine::decisions`] tells what was decided.
    pub fn keep_decisions(&mut self) {
        self.decisions.get_or_insert_default();
    }

    /// What was decided on the last event or wake, in order; nothing without [`SchedulerMachine::keep_decisions`]. A node
    /// that a plugin of one's own refuses in Reserve or Permit counts as decided.
    #[must_use]
    pub fn decisions(&self) -> &[Decision] {
        self.decisions.as_ref().map_or(&[], |d| &d.kept)
    }

    pub(super) fn new_input(&mut self) {
        if let Some(decisions) = &mut self.decisions {
            decisions.kept.clear();
        }
    }

    /// On the next input, what was recorded holds, whatever is decided.
    pub(crate) fn follow(&mut self, recorded: Vec<Decision>, explain: bool) {
        let decisions = self.decisions.get_or_insert_default();
        decisions.script = Some(recorded.into());
        decisions.explain = explain;
    }

    /// What was decided since, and what was recorded and not decided.
    pub(crate) fn take_judged(&mut self) -> (Vec<Judged>, VecDeque<Decision>) {
        let Some(decisions) = &mut self.decisions else { return Default::default() };
        (core::mem::take(&mut decisions.judged), decisions.script.take().unwrap_or_default())
    }

    /// Keeps a decision; gives what holds instead.
    pub(super) fn told(
        &mut self,
        pod: &Pod,
        result: impl FnOnce() -> Result<String, NoNode>,
    ) -> Option<Result<String, NoNode>> {
        let decisions = self.decisions.as_mut()?;
        let decision = Decision { pod: pod.key.clone(), result: result() };
        let Some(script) = &mut decisions.script else {
            decisions.kept.push(decision);
            return None;
        };
        let recorded = script.iter().position(|d| d.pod == pod.key).and_then(|at| script.remove(at));
        let explain = decisions.explain;
        let (mut nodes, mut tie) = (Vec::new(), false);
        if let Some(recorded) = recorded.as_ref().filter(|r| r.result != decision.result) {
            let names = [recorded.result.as_ref().ok(), decision.result.as_ref().ok()];
            if explain || names.iter().all(Option::is_some) {
                let explanation = self.scheduler.explain(pod);
                let best = explanation.best();
                tie = names.iter().all(|name| name.is_some_and(|n| best.contains(&n.as_str())));
                nodes = explanation.nodes;
                nodes.retain(|report| explain && names.contains(&Some(&report.node)));
            }
        }
        let instead = recorded.as_ref().map(|r| r.result.clone()).filter(|r| *r != decision.result);
        let judged = Judged { decision, recorded, nodes, tie };
        if let Some(decisions) = &mut self.decisions {
            decisions.judged.push(judged);
        }
        instead
    }

    /// A node was chosen.
    pub(super) fn chosen(&mut self, now: Time, pod: Pod, placement: Placement, out: &mut Vec<Effect>) {
        match self.told(&pod, || Ok(placement.name.clone())) {
            None => {
                self.scheduler.assume(pod.clone(), placement.node);
                self.reserve(now, pod, placement.name, out);
            }
            Some(instead) => self.recalled(now, pod, instead, BTreeSet::new(), out),
        }
    }

    /// There is no node.
    pub(super) fn rejected(&mut self, now: Time, pod: &Pod, way: NoWay, out: &mut Vec<Effect>) {
        match self.told(pod, || Err(way.told())) {
            None => self.carry_out(now, pod, way, out),
            Some(instead) => self.recalled(now, pod.clone(), instead, way.plugins, out),
        }
    }

    /// Does what was recorded instead of what was decided, as far as it can be done.
    fn recalled(
        &mut self,
        now: Time,
        pod: Pod,
        recorded: Result<String, NoNode>,
        own: BTreeSet<&'static str>,
        out: &mut Vec<Effect>,
    ) {
        let none = match recorded {
            Ok(name) => match self.scheduler.cluster().node_id(&name) {
                Some(node) => {
                    self.scheduler.assume(pod.clone(), node);
                    self.reserve(now, pod, name, out);
                    return;
                }
                None => NoNode::default(),
            },
            Err(none) => none,
        };
        let NoNode { message, plugins, victims, nominated } = none;
        // A plugin that is not there any more may have waited for anything.
        let known = |name: &String| {
            let own = own.iter().copied().find(|n| n == name);
            own.or_else(|| self.scheduler.plugin_named(name)).unwrap_or("")
        };
        let plugins = plugins.iter().map(known).collect();
        let victims: Vec<Pod> =
            victims.iter().filter_map(|key| self.scheduler.cluster().pod(key).cloned()).collect();
        let node = nominated.as_deref().and_then(|name| self.scheduler.cluster().node_id(name));
        let preemption = match (node, &nominated) {
            (Some(node), Some(name)) if !victims.is_empty() => {
                Some(Preemption { node, name: name.clone(), victims, violations: 0 })
            }
            _ => None,
        };
        self.carry_out(now, &pod, NoWay { message, plugins, preemption, nominated }, out);
    }
}

/// So small that a machine without a recorder does not notice.
pub(super) type Kept = Option<Box<Decisions>>;
