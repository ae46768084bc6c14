//! InterPodAffinity: pods that want to be with, or away from, other pods.

mod pulls;

use alloc::boxed::Box;
use alloc::vec::Vec;

use crate::cache::{Cluster, NO_DOMAIN, NodeId};
use crate::framework::{Cycle, FilterPlan, Kept, Part, Plugin, Rejected, SCORE_MAX};
use crate::model::{Pod, PodSpec};
use crate::plugins::hints;
use crate::queue::Happened;

use pulls::HARD_WEIGHT;
pub(crate) use pulls::{Field, Fields, Pull, Pulls, attracts_all, pulls};

pub(crate) const REASON_AFFINITY: &str = "node(s) didn't match pod affinity rules";
pub(crate) const REASON_ANTI: &str = "node(s) didn't match pod anti-affinity rules";
pub(crate) const REASON_EXISTING: &str = "node(s) didn't satisfy existing pods anti-affinity rules";

/// Rejects nodes in places without the pods that the pod has to be with, with pods that it must not be with, or with
/// pods that must not be with it; prefers places by the preferences of both sides.
#[derive(Clone, Copy, Debug)]
pub struct InterPodAffinity {
    /// How much a required affinity of a pod that runs counts in favour of its places, 0 to 100
    /// (`hardPodAffinityWeight`, 1).
    pub hard_weight: i64,
    /// A pod without preferences of its own does not care for those of pods that run
    /// (`ignorePreferredTermsOfExistingPods`, false).
    pub ignore_preferences_of_existing: bool,
}

impl Default for InterPodAffinity {
    fn default() -> Self {
        Self { hard_weight: HARD_WEIGHT, ignore_preferences_of_existing: false }
    }
}

/// Why a node will not do, in the order in which upstream looks.
pub(crate) fn check(cluster: &Cluster, pod: &PodSpec, fields: &Fields, row: usize) -> Option<Rejected> {
    let topology = &cluster.columns().topology;
    let domain = |key: &str| {
        let column = topology.find(key)?;
        let domain = topology.domain(column, row);
        (domain != NO_DOMAIN).then_some((column, domain))
    };
    let mut alone = false;
    for term in &pod.affinity {
        match domain(&term.topology_key) {
            Some((column, domain)) => alone |= fields.get(Field::Affinity, column, domain) <= 0,
            None => return Some(Rejected::unresolvable(REASON_AFFINITY)),
        }
    }
    // The first of a group that wants to be together may go anywhere.
    let first = || fields.entries(Field::Affinity) == 0 && attracts_all(cluster, pod, pod);
    if alone && !first() {
        return Some(Rejected::unresolvable(REASON_AFFINITY));
    }
    for term in &pod.anti_affinity {
        if let Some((column, domain)) = domain(&term.topology_key)
            && fields.get(Field::Anti, column, domain) > 0
        {
            return Some(Rejected::unschedulable(REASON_ANTI));
        }
    }
    let repelled = fields.columns(Field::Existing).any(|(column, counts)| {
        let domain = topology.domain(column, row);
        domain != NO_DOMAIN && counts.get(domain as usize).is_some_and(|n| *n > 0)
    });
    repelled.then(|| Rejected::unschedulable(REASON_EXISTING))
}

/// Whether there is anything that could reject a node.
pub(crate) fn filters(pod: &PodSpec, fields: &Fields) -> bool {
    !pod.affinity.is_empty() || !pod.anti_affinity.is_empty() || fields.entries(Field::Existing) != 0
}

/// The sum of the preferences for a node, before it is normalised.
pub(crate) fn raw_score(cluster: &Cluster, fields: &Fields, row: usize) -> i64 {
    let topology = &cluster.columns().topology;
    let of = |(column, sums): (usize, &[i64])| {
        let domain = topology.domain(column, row);
        if domain == NO_DOMAIN { 0 } else { sums.get(domain as usize).copied().unwrap_or(0) }
    };
    fields.columns(Field::Score).map(of).fold(0, i64::saturating_add)
}

/// Points for a sum between the least and the most (`NormalizeScore`).
pub(crate) fn normalized(sum: i64, least: i64, most: i64) -> i64 {
    let range = most.saturating_sub(least);
    if range <= 0 {
        return 0;
    }
    (SCORE_MAX as f64 * (sum.saturating_sub(least) as f64 / range as f64)) as i64
}

impl Plugin for InterPodAffinity {
    fn name(&self) -> &'static str {
        "InterPodAffinity"
    }

    fn kept(&self) -> Option<Kept> {
        let usual = self.hard_weight == HARD_WEIGHT && !self.ignore_preferences_of_existing;
        usual.then_some(Kept(Part::Usual))
    }

    fn hint(&self, pod: &Pod, happened: &Happened<'_>) -> bool {
        hints::inter_pod_affinity(pod, happened)
    }

    fn filter<'a>(&'a self, cycle: Cycle<'a>) -> FilterPlan<'a> {
        let fields = Fields::build(cycle.cluster, cycle.pod, true, false);
        if !filters(cycle.pod, &fields) {
            return FilterPlan::Skip;
        }
        FilterPlan::Each(Box::new(move |id: NodeId| check(cycle.cluster, cycle.pod, &fields, id.row())))
    }

    fn score(&self, cycle: &Cycle<'_>, feasible: &[NodeId]) -> Option<Vec<i64>> {
        let own =
            !cycle.pod.affinity_preferences.is_empty() || !cycle.pod.anti_affinity_preferences.is_empty();
        if self.ignore_preferences_of_existing && !own {
            return None;
        }
        let fields = Fields::build_with(cycle.cluster, cycle.pod, false, Some(self.hard_weight));
        if fields.entries(Field::Score) == 0 {
            return None;
        }
        let sums: Vec<i64> = feasible.iter().map(|id| raw_score(cycle.cluster, &fields, id.row())).collect();
        let (least, most) = (sums.iter().min().copied()?, sums.iter().max().copied()?);
        Some(sums.into_iter().map(|sum| normalized(sum, least, most)).collect())
    }
}
