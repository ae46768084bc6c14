//! What would happen if.
//!
//! A [`WhatIf`] is a scheduler that goes its own way from a moment of another one: nodes and pods are added to it and
//! taken from it, and pods are placed, and the original knows nothing of it. Autoscalers ask which new nodes would make
//! all pending pods fit, deschedulers whether a node could be emptied.

use alloc::collections::{BTreeMap, BTreeSet};
use alloc::string::String;
use alloc::vec::Vec;

use icp_core::client::ObjectKey;

use super::profile::Profile;
use super::{Scheduler, TieBreak, Unschedulable};
use crate::model::{Node, Pod};

/// A pod that found no node.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Unplaced {
    /// The pod.
    pub pod: ObjectKey,
    /// Why.
    pub reason: Unschedulable,
}

/// What became of pods.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Outlook {
    /// Where pods go, in the order in which they were placed.
    pub placed: Vec<(ObjectKey, String)>,
    /// Pods that found no node.
    pub unplaced: Vec<Unplaced>,
}

impl Outlook {
    /// Whether every pod found a node.
    #[must_use]
    pub fn all_fit(&self) -> bool {
        self.unplaced.is_empty()
    }

    /// The nodes that pods go to, with how many go there.
    #[must_use]
    pub fn nodes_used(&self) -> BTreeMap<&str, usize> {
        let mut used = BTreeMap::new();
        for (_, node) in &self.placed {
            *used.entry(node.as_str()).or_default() += 1;
        }
        used
    }
}

/// A scheduler that goes its own way; see [`Scheduler::what_if`].
///
/// ```
/// use std::sync::Arc;
/// use icp_sched::Scheduler;
/// use icp_sched::model::{Node, Pod, PodSpec};
///
/// let mut scheduler = Scheduler::default();
/// scheduler.cluster_mut().set_node(Node::new("n0", 1_000, 1 << 30, 110));
/// let pods: Vec<Pod> =
///     (0..3).map(|n| Pod::new(&format!("p{n}"), Arc::new(PodSpec::asking(600, 1 << 20)))).collect();
///
/// // Which of two kinds of node makes all pods fit?
/// let fits = |cpu| {
///     let mut what_if = scheduler.what_if();
///     what_if.add_node(Node::new("new", cpu, 1 << 30, 110));
///     what_if.schedule_all(pods.clone()).all_fit()
/// };
/// assert_eq!([600, 1_200].map(fits), [false, true]);
/// assert_eq!(scheduler.cluster().node_count(), 1);
/// ```
#[derive(Debug)]
pub struct WhatIf {
    scheduler: Scheduler,
}

impl Scheduler {
    /// A copy that goes its own way from here: cluster, nominations, budgets and the state of the ties are those of now,
    /// plugins are shared, with whatever state those of one's own keep. It can go to another thread.
    ///
    /// It costs what [`Cluster::snapshot`](crate::cache::Cluster::snapshot) costs. What is kept to decide fast is not
    /// taken along: the first decision of the copy looks at all nodes once, and the first of each class of pods as it
    /// does in the original.
    #[must_use]
    pub fn snapshot(&mut self) -> Self {
        Self {
            cluster: self.cluster.snapshot(),
            nominated: self.nominated.share(),
            ties: self.ties.clone(),
            budgets: self.budgets.share(),
            profile: self.profile.share(),
            names: self.names.clone(),
            others: self.others.iter().map(Profile::share).collect(),
        }
    }

    /// Where the draws of ties are.
    pub(crate) fn ties(&self) -> TieBreak {
        self.ties.clone()
    }

    /// Goes back to draws of before.
    pub(crate) fn set_ties(&mut self, ties: TieBreak) {
        self.ties = ties;
    }

    /// Asks what would happen if things were different; nothing that is done to the answer changes the original.
    #[must_use]
    pub fn what_if(&mut self) -> WhatIf {
        WhatIf { scheduler: self.snapshot() }
    }
}

impl WhatIf {
    /// The scheduler as it would be: for explanations, preemption and all else.
    pub const fn scheduler(&mut self) -> &mut Scheduler {
        &mut self.scheduler
    }

    /// Adds a node, or replaces what is known of it.
    pub fn add_node(&mut self, node: Node) {
        self.scheduler.cluster.set_node(node);
    }

    /// Takes a node away with its pods, which are handed out in order of their names; `None` if there is none of that
    /// name.
    pub fn remove_node(&mut self, name: &str) -> Option<Vec<Pod>> {
        let pods = self.take_pods(name)?;
        self.scheduler.cluster.remove_node(name);
        Some(pods)
    }

    /// Closes a node to new pods and takes its pods off, which are handed out unbound in order of their names; `None` if
    /// there is none of that name. Pods of DaemonSets stay, as with `kubectl drain --ignore-daemonsets`.
    pub fn drain(&mut self, name: &str) -> Option<Vec<Pod>> {
        let id = self.scheduler.cluster.node_id(name)?;
        let mut node = Node::clone(self.scheduler.cluster.node(id)?);
        node.unschedulable = true;
        self.scheduler.cluster.set_node(node);
        let pods = self.take_pods(name)?;
        let of_daemon = |p: &Pod| p.spec.controller.as_ref().is_some_and(|(kind, _)| kind == "DaemonSet");
        let (stay, go): (Vec<Pod>, Vec<Pod>) = pods.into_iter().partition(of_daemon);
        for mut pod in stay {
            pod.node = Some(name.into());
            self.scheduler.cluster.set_pod(pod);
        }
        Some(go)
    }

    fn take_pods(&mut self, name: &str) -> Option<Vec<Pod>> {
        let id = self.scheduler.cluster.node_id(name)?;
        let keys: BTreeSet<ObjectKey> = self.scheduler.cluster.pods_on(id).map(|p| p.key.clone()).collect();
        let taken = keys.iter().filter_map(|key| self.scheduler.cluster.remove_pod(key));
        Some(taken.map(|pod| Pod { node: None, ..pod }).collect())
    }

    /// Puts a bound pod on its node, or replaces what is known of it.
    pub fn add_pod(&mut self, pod: Pod) {
        self.scheduler.cluster.set_pod(pod);
    }

    /// Takes a pod off its node.
    pub fn remove_pod(&mut self, key: &ObjectKey) -> Option<Pod> {
        self.scheduler.cluster.remove_pod(key)
    }

    /// Places pods one after the other, in this order, without evicting any.
    pub fn schedule_all(&mut self, pods: impl IntoIterator<Item = Pod>) -> Outlook {
        let mut outlook = Outlook::default();
        for pod in pods {
            let key = pod.key.clone();
            match self.scheduler.schedule(&pod) {
                Ok(placement) => {
                    self.scheduler.assume(pod, placement.node);
                    outlook.placed.push((key, placement.name));
                }
                Err(reason) => outlook.unplaced.push(Unplaced { pod: key, reason }),
            }
        }
        outlook
    }

    /// Whether a node could be emptied: where its pods would go. The node is closed afterwards. `None` if there is none
    /// of that name.
    pub fn empty_node(&mut self, name: &str) -> Option<Outlook> {
        let pods = self.drain(name)?;
        Some(self.schedule_all(pods))
    }
}
