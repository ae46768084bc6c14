//! Some of the nodes on which room can be made, for those who do not want all of them looked at.

use alloc::vec::Vec;

use super::{Cost, NodeId, Preemption, Statuses};
use crate::framework::Code;
use crate::model::Pod;
use crate::scheduler::Scheduler;

/// How many candidates are enough (`minCandidateNodesPercentage`, `minCandidateNodesAbsolute`).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Candidates {
    /// In percent of the nodes on which evicting pods could help.
    pub(crate) percent: u8,
    /// At least so many, as far as there are.
    pub(crate) absolute: usize,
}

impl Default for Candidates {
    /// Upstream's.
    fn default() -> Self {
        Self { percent: 10, absolute: 100 }
    }
}

impl Candidates {
    /// Of so many nodes (`calculateNumCandidates`).
    const fn of(self, nodes: usize) -> usize {
        let part = nodes.saturating_mul(self.percent as usize) / 100;
        let wanted = if part < self.absolute { self.absolute } else { part };
        if wanted > nodes { nodes } else { wanted }
    }
}

impl Preemption {
    /// The one that costs least; of equals, the first.
    pub(crate) fn cheapest(candidates: Vec<Self>) -> Option<Self> {
        let costed =
            candidates.into_iter().filter_map(|c| Some((Cost::of(c.violations, c.victims.iter())?, c)));
        costed.min_by_key(|(cost, _)| *cost).map(|(_, candidate)| candidate)
    }
}

impl Scheduler {
    /// Looks at nodes that evicting pods could help, from a drawn one on, until there are enough candidates and one of
    /// them breaks no budget (`DryRunPreemption`, one node after the other).
    pub(super) fn some_candidates(
        &mut self,
        pod: &Pod,
        limits: Candidates,
        statuses: &mut Statuses,
        tried: &mut usize,
    ) -> Vec<Preemption> {
        let rows = self.cluster.columns().rows();
        let mut nodes: Vec<NodeId> =
            (0..rows).map(NodeId::of).filter(|id| self.cluster.node(*id).is_some()).collect();
        nodes.retain(|id| self.reject(pod, *id).is_some_and(|r| r.code == Code::Unschedulable));
        *tried = nodes.len();
        let wanted = limits.of(nodes.len());
        let start = self.ties.start(nodes.len()).min(nodes.len());
        nodes.rotate_left(start);
        let (mut kind, mut harsh) = (Vec::new(), Vec::new());
        for id in nodes {
            match self.try_node(pod, id) {
                Ok(None) => {}
                Ok(Some(candidate)) if candidate.violations == 0 => kind.push(candidate),
                Ok(Some(candidate)) if harsh.len() < wanted => harsh.push(candidate),
                Ok(Some(_)) => {}
                Err(reasons) => {
                    for reason in reasons {
                        *statuses.entry(reason).or_default() += 1;
                    }
                }
            }
            if !kind.is_empty() && kind.len() + harsh.len() >= wanted {
                break;
            }
        }
        kind.append(&mut harsh);
        kind
    }

    /// What making room on a node takes; nothing if nobody has to go.
    fn try_node(&mut self, pod: &Pod, id: NodeId) -> Result<Option<Preemption>, Vec<alloc::string::String>> {
        let tried = match self.try_by_counts(pod, id) {
            Some(tried) => tried.map_err(|r| r.into_iter().map(alloc::borrow::Cow::into_owned).collect()),
            None => self.victims_on(pod, id).map(|(cost, victims)| Some((cost?.violations, victims))),
        };
        Ok(tried?.map(|(violations, victims)| self.preemption(id, victims, violations)))
    }
}

#[cfg(test)]
mod tests {
    use alloc::format;
    use alloc::string::String;
    use alloc::sync::Arc;

    use icp_core::api::labels::Selector;
    use icp_core::base::Rng;
    use icp_core::client::ObjectKey;

    use super::*;
    use crate::framework::{Cycle, FilterPlan, Plugin};
    use crate::model::{Node, PodSpec};
    use crate::{DisruptionBudget, SchedulerBuilder, TieBreak};

    #[test]
    fn how_many_are_enough() {
        for (percent, absolute, nodes, want) in [
            (10, 100, 5000, 500),
            (10, 100, 500, 100),
            (10, 100, 50, 50),
            (0, 1, 5000, 1),
            (100, 0, 7, 7),
            (33, 0, 10, 3),
            (1, 0, 10, 0),
            (100, usize::MAX, 5000, 5000),
        ] {
            let candidates = Candidates { percent, absolute };
            assert_eq!(candidates.of(nodes), want, "{percent} % or {absolute} of {nodes}");
        }
    }

    fn pod(name: &str, cpu: i64, priority: i32) -> Pod {
        let mut spec = PodSpec { priority, ..PodSpec::asking(cpu, 1 << 20) };
        spec.labels.insert("app".into(), name.into());
        Pod::new(name, Arc::new(spec))
    }

    /// Ten nodes; the pods on the later ones are less important, and the first four are full of pods that cannot be
    /// evicted.
    fn cluster(builder: SchedulerBuilder) -> Scheduler {
        let mut s = builder.build();
        for n in 0..10 {
            s.cluster_mut().set_node(Node::new(&format!("n{n}"), 1000, 1 << 30, 10));
            let mut there = pod(&format!("p{n}"), 900, if n < 4 { 100 } else { 50 - n });
            there.node = Some(format!("n{n}"));
            s.cluster_mut().set_pod(there);
        }
        s
    }

    fn preempt(s: &mut Scheduler) -> String {
        let x = pod("x", 500, 90);
        let none = s.schedule(&x).unwrap_err();
        s.preempt(&x, &none).unwrap().name
    }

    /// Has nothing against any node, but has to be asked.
    struct Nosy;
    impl Plugin for Nosy {
        fn name(&self) -> &'static str {
            "Nosy"
        }
        fn filter<'a>(&'a self, _: Cycle<'a>) -> FilterPlan<'a> {
            FilterPlan::Each(alloc::boxed::Box::new(|_| None))
        }
    }

    #[test]
    fn so_many_candidates_are_looked_at_and_no_more() {
        for nosy in [false, true] {
            let of = |percent, absolute| {
                let builder = Scheduler::builder().preemption_candidates(percent, absolute);
                preempt(&mut cluster(if nosy { builder.plugin(Nosy, 0) } else { builder }))
            };
            // Nodes without victims are looked at, but are no candidates: the first is n4.
            assert_eq!(of(0, 1), "n4");
            assert_eq!(of(0, 3), "n6");
            assert_eq!(of(20, 1), "n5");
            assert_eq!(of(20, 4), "n7");
            assert_eq!(of(100, 0), "n9");
            assert_eq!(of(10, 100), "n9");
            // Enough is one that breaks no budget.
            let builder = Scheduler::builder().preemption_candidates(0, 1);
            let mut s = cluster(if nosy { builder.plugin(Nosy, 0) } else { builder });
            for app in ["p4", "p5"] {
                let selector = Selector::parse(&format!("app={app}")).unwrap();
                let budget = DisruptionBudget { selector, allowed: 0, ..DisruptionBudget::default() };
                s.set_budget(ObjectKey::new("default", app), Some(budget));
            }
            assert_eq!(preempt(&mut s), "n6");
            for app in ["p6", "p7", "p8", "p9"] {
                let selector = Selector::parse(&format!("app={app}")).unwrap();
                let budget = DisruptionBudget { selector, allowed: 0, ..DisruptionBudget::default() };
                s.set_budget(ObjectKey::new("default", app), Some(budget));
            }
            // One that breaks a budget is kept, as many as are wanted.
            assert_eq!(preempt(&mut s), "n4");
        }
        assert_eq!(preempt(&mut cluster(Scheduler::builder())), "n9");
    }

    #[test]
    fn the_first_one_is_drawn() {
        let mut seen = alloc::collections::BTreeSet::new();
        for seed in 0..40 {
            let ties = TieBreak::Seeded(Rng::new(seed));
            let builder = || Scheduler::builder().ties(ties.clone()).preemption_candidates(0, 1);
            let name = preempt(&mut cluster(builder()));
            assert_eq!(name, preempt(&mut cluster(builder())), "the same seed, the same node");
            seen.insert(name);
        }
        assert_eq!(seen.into_iter().collect::<Vec<_>>(), ["n4", "n5", "n6", "n7", "n8", "n9"]);
    }

    #[test]
    fn in_vain_it_says_why() {
        let mut s = cluster(Scheduler::builder().preemption_candidates(0, 1));
        let x = pod("x", 500, 10);
        let none = s.schedule(&x).unwrap_err();
        let all = "preemption: 0/10 nodes are available: 10 No preemption victims found for incoming pod.";
        assert_eq!(s.preempt(&x, &none).unwrap_err(), all);
    }
}
