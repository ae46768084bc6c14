//! What differs between schedulers of several names in one process.

use alloc::string::String;
use alloc::vec::Vec;
use core::mem;

use super::Scheduler;
use super::extras::Extra;
use super::fast::Fast;
use super::preempt::{Candidates, Rooms};
use crate::framework::{Points, Slot};
use crate::model::Pod;
use crate::plugins;

/// The scheduler that pods ask for which name none (`v1.DefaultSchedulerName`).
pub const DEFAULT_SCHEDULER: &str = "default-scheduler";

/// With fewer nodes than this all are looked at (`minFeasibleNodesToFind`).
const SAMPLE_MIN: usize = 100;
/// The least part of the nodes that the adaptive rule looks at, in percent.
const ADAPTIVE_MIN: usize = 5;

/// Of how many nodes one is chosen.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Sampling {
    /// In percent; 0 for a part that shrinks as the cluster grows.
    percent: u8,
    /// The row to begin with.
    next: usize,
}

impl Sampling {
    pub(super) const fn new(percent: u8) -> Self {
        Self { percent, next: 0 }
    }

    /// How many of so many nodes have to be found (`numFeasibleNodesToFind`); `None` for all of them.
    const fn wanted(self, nodes: usize) -> Option<usize> {
        if nodes < SAMPLE_MIN || self.percent >= 100 {
            return None;
        }
        let percent = match self.percent {
            0 => {
                let adaptive = 50_usize.saturating_sub(nodes / 125);
                if adaptive < ADAPTIVE_MIN { ADAPTIVE_MIN } else { adaptive }
            }
            fixed => fixed as usize,
        };
        let wanted = nodes.saturating_mul(percent) / 100;
        Some(if wanted < SAMPLE_MIN { SAMPLE_MIN } else { wanted })
    }
}

/// What a scheduler of one name has for itself.
pub(super) struct Profile {
    pub(super) name: String,
    pub(super) slots: Vec<Slot>,
    pub(super) fast: Fast,
    pub(super) rooms: Rooms,
    /// The plugins are the default ones, with whatever weights: `fast` gives their outcome.
    pub(super) fast_plugins: bool,
    /// `fast` gives the outcome of all plugins but those that are on top.
    pub(super) fast_on: bool,
    pub(super) extras: Vec<Extra>,
    /// Of how many nodes one is chosen.
    pub(super) sampling: Sampling,
    /// Whether others are evicted for pods that find no node.
    pub(super) preempts: bool,
    /// How many nodes are looked at for that; all of them if nothing is said.
    pub(super) candidates: Option<Candidates>,
    /// Whether pods wait for their scheduling gates to go.
    pub(super) gates: bool,
    /// Whether pods are bound by the default binder.
    pub(super) binds: bool,
    /// Whether there is a plugin that is not one of the default ones.
    pub(super) has_own: bool,
}

impl Profile {
    /// Forgets what is kept of the cluster.
    pub(super) fn forget(&mut self) {
        self.fast = self.fast.anew();
        self.rooms = Rooms::default();
    }

    /// The same, for a scheduler that goes its own way: what is kept to decide fast is not taken along.
    pub(super) fn share(&self) -> Self {
        Self {
            name: self.name.clone(),
            slots: self.slots.clone(),
            fast: self.fast.anew(),
            rooms: Rooms::default(),
            extras: self.extras.clone(),
            ..*self
        }
    }
}

impl Scheduler {
    /// The names of the profiles, the first one first.
    pub fn profiles(&self) -> impl Iterator<Item = &str> {
        self.names.iter().map(String::as_str)
    }

    /// The profile that decides about pods that ask for a scheduler of this name; an empty name is
    /// [`DEFAULT_SCHEDULER`].
    #[must_use]
    pub fn profile(&self, scheduler_name: &str) -> Option<&str> {
        let wanted = if scheduler_name.is_empty() { DEFAULT_SCHEDULER } else { scheduler_name };
        self.profiles().find(|name| *name == wanted)
    }

    /// Lets the pod's profile decide; the first one if the pod asks for none of them.
    pub(super) fn turn_to(&mut self, pod: &Pod) {
        if self.others.is_empty() {
            return;
        }
        let wanted = self.profile(&pod.scheduler_name).or_else(|| self.profiles().next());
        let Some(wanted) = wanted.filter(|name| *name != self.profile.name).map(String::from) else { return };
        let Some(other) = self.others.iter_mut().find(|p| p.name == wanted) else { return };
        mem::swap(&mut self.profile, other);
    }

    /// Whether pods of a profile wait for their scheduling gates to go.
    #[must_use]
    pub fn minds_gates(&self, profile: &str) -> bool {
        let other = self.others.iter().find(|p| p.name == profile);
        other.map_or(self.profile.gates, |p| p.gates)
    }

    /// Whether the plugins are the default ones, so that decisions follow changes.
    #[cfg(test)]
    pub(crate) const fn is_usual(&self) -> bool {
        self.profile.fast_plugins
    }

    /// Whether any profile has a plugin that is not one of the default ones.
    pub(crate) fn has_own_plugins(&self) -> bool {
        self.profile.has_own || self.others.iter().any(|p| p.has_own)
    }

    /// Whether the profile that decided last has a plugin, at any point.
    pub(crate) fn has_plugin(&self, name: &str) -> bool {
        self.profile.slots.iter().any(|s| s.plugin.name() == name && s.points != Points::NONE)
    }

    /// The plugin of that name, of any profile, or else of the default ones.
    pub(crate) fn plugin_named(&self, name: &str) -> Option<&'static str> {
        let mut profiles = core::iter::once(&self.profile).chain(&self.others);
        let own = profiles.find_map(|p| p.slots.iter().map(|s| s.plugin.name()).find(|n| *n == name));
        own.or_else(|| plugins::defaults().iter().map(|(p, _)| p.name()).find(|n| *n == name))
    }

    /// How many nodes have to be found that will do; `None` for all.
    pub(super) fn sample(&self) -> Option<usize> {
        self.profile.sampling.wanted(self.cluster.node_count())
    }

    /// Where the sample begins.
    pub(super) const fn sample_start(&self) -> usize {
        self.profile.sampling.next
    }

    /// Where the next sample begins.
    pub(super) const fn sampled_to(&mut self, row: usize) {
        self.profile.sampling.next = row;
    }

    /// Makes columns for the labels that plugins ask for.
    pub(super) fn follow_topologies(&mut self) {
        let others = self.others.iter().flat_map(|p| &p.slots);
        let keys = self.profile.slots.iter().chain(others).flat_map(|s| s.plugin.topology_keys());
        for key in keys {
            self.cluster.follow_topology(&key);
        }
    }
}

#[cfg(test)]
mod tests {
    use alloc::collections::BTreeSet;
    use alloc::format;
    use alloc::string::ToString;
    use alloc::sync::Arc;

    use super::*;
    use crate::framework::{Cycle, FilterPlan, Plugin, Rejected};
    use crate::model::{Node, PodSpec};
    use crate::plugins::{
        DefaultConstraint, PodTopologySpread, ResourceWeight, ResourcesFit, ScoringStrategy,
    };

    #[test]
    fn how_many_nodes_are_enough() {
        for (percent, nodes, want) in [
            (100, 5000, None),
            (0, 99, None),
            (0, 100, Some(100)),
            (0, 1000, Some(420)),
            (0, 5000, Some(500)),
            (0, 100_000, Some(5000)),
            (30, 5000, Some(1500)),
            (1, 5000, Some(100)),
        ] {
            assert_eq!(Sampling::new(percent).wanted(nodes), want, "{percent} % of {nodes}");
        }
    }

    fn pod(name: &str, scheduler: &str) -> Pod {
        let mut pod = Pod::new(name, Arc::new(PodSpec::asking(100, 1 << 20)));
        pod.scheduler_name = scheduler.into();
        pod
    }

    #[test]
    fn samples_go_round_and_find_what_there_is() {
        let mut s = Scheduler::builder().percentage_of_nodes(50).build();
        for n in 0..300 {
            s.cluster_mut().set_node(Node::new(&format!("n{n:03}"), 1000, 1 << 30, 110));
        }
        // Half of 300 nodes will do, so that three decisions in a row choose among the first, second and first half.
        let mut names = BTreeSet::new();
        for p in 0..3 {
            let pod = pod(&format!("p{p}"), "");
            let placement = s.schedule(&pod).unwrap();
            assert_eq!(placement.feasible, 150);
            names.insert(placement.name.clone());
            s.assume(pod, placement.node);
        }
        assert_eq!(names.into_iter().collect::<Vec<_>>(), ["n000", "n001", "n150"]);
        // A pod that one node alone takes finds it wherever the sample begins.
        let mut picky = pod("picky", "");
        Arc::make_mut(&mut picky.spec).node_selector =
            Some([("kubernetes.io/hostname".to_string(), "n042".to_string())].into());
        for _ in 0..3 {
            assert_eq!(s.schedule(&picky).unwrap().name, "n042");
        }
        Arc::make_mut(&mut picky.spec).node_selector = Some([("a".to_string(), "b".to_string())].into());
        let why = "0/300 nodes are available: 300 node(s) didn't match Pod's node affinity/selector.";
        assert_eq!(s.schedule(&picky).unwrap_err().to_string(), why);
    }

    struct Never;
    impl Plugin for Never {
        fn name(&self) -> &'static str {
            "Never"
        }
        fn filter<'a>(&'a self, _: Cycle<'a>) -> FilterPlan<'a> {
            FilterPlan::Reject(Rejected::unresolvable("never"))
        }
    }

    #[test]
    fn each_pod_is_decided_on_by_its_profile() {
        let packing = ScoringStrategy::MostAllocated(ResourceWeight::defaults());
        let mut s = Scheduler::builder()
            .profile(Scheduler::builder().named("packing").replace(ResourcesFit::new(packing)))
            .profile(Scheduler::builder().named("closed").plugin(Never, 0).without_preemption())
            .build();
        assert_eq!(s.profiles().collect::<Vec<_>>(), ["default-scheduler", "packing", "closed"]);
        assert_eq!((s.profile(""), s.profile("other")), (Some("default-scheduler"), None));
        for n in ["n0", "n1"] {
            s.cluster_mut().set_node(Node::new(n, 1000, 1 << 30, 110));
        }
        let first = pod("first", "");
        let at = s.schedule(&first).unwrap();
        s.assume(first, at.node);
        for (scheduler, want) in
            [("packing", "n0"), ("", "n1"), ("packing", "n0"), ("default-scheduler", "n1")]
        {
            assert_eq!(s.schedule(&pod("next", scheduler)).unwrap().name, want, "{scheduler}");
        }
        let closed = pod("next", "closed");
        let none = s.schedule(&closed).unwrap_err();
        assert_eq!(none.to_string(), "0/2 nodes are available: never.");
        assert_eq!(s.preempt(&closed, &none).unwrap_err(), "");
    }

    #[test]
    fn defaults_from_a_list_hold_for_what_is_selected() {
        let spread = PodTopologySpread::defaulting(alloc::vec![DefaultConstraint::new("rack", 1, true)]);
        let mut s = Scheduler::builder().replace(spread).build();
        for (name, rack) in [("n0", "a"), ("n1", "a"), ("n2", "b")] {
            s.cluster_mut().set_node(Node::new(name, 1000, 1 << 30, 110).with_label("rack", rack));
        }
        let web = |name: &str| {
            let mut pod = pod(name, "");
            Arc::make_mut(&mut pod.spec).labels.insert("app".into(), "web".into());
            pod
        };
        // Nothing selects the pods: they are spread over nothing.
        let mut racks = BTreeSet::new();
        for round in 0..2 {
            for n in 0..4 {
                let pod = web(&format!("w{round}{n}"));
                let feasible = s.schedule(&pod).unwrap();
                racks.insert((round, n, feasible.feasible));
                s.assume(pod, feasible.node);
            }
            s.cluster_mut().set_service("default", "web", Some([("app".into(), "web".into())].into()));
        }
        let feasible: Vec<usize> = racks.into_iter().map(|(.., n)| n).collect();
        assert_eq!(feasible[..4], [3, 3, 3, 3]);
        // Three pods are in rack a and one in rack b: both racks will do again once b has as many.
        assert_eq!(feasible[4..], [1, 1, 3, 1]);
    }
}
