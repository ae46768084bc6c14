//! One pod, all nodes, all plugins.

use alloc::collections::BTreeSet;
use alloc::format;
use alloc::sync::Arc;
use alloc::vec::Vec;

use super::{Check, Cycle, FilterPlan, Plugin, Point, Points, Rejected, Rejection};
use crate::cache::NodeId;

/// A plugin with its weight.
#[derive(Clone)]
pub(crate) struct Slot {
    pub(crate) plugin: Arc<dyn Plugin>,
    pub(crate) weight: i64,
    /// Where it has a say.
    pub(crate) points: Points,
}

impl Slot {
    /// Whether it has a say there.
    pub(crate) const fn at(&self, point: Point) -> bool {
        self.points.contains(point)
    }
}

/// What the filters say.
#[derive(Debug, Default)]
pub(crate) struct Survey {
    /// A plugin is against all nodes.
    pub(crate) prefilter: Option<Rejection>,
    /// Nodes in order of row.
    pub(crate) feasible: Vec<NodeId>,
    pub(crate) rejected: Vec<(NodeId, Rejection)>,
}

/// The checks of one cycle, in order of the plugins.
pub(crate) struct Checks<'a> {
    checks: Vec<(&'static str, Check<'a>)>,
    only: Option<(BTreeSet<NodeId>, Vec<&'static str>)>,
}

impl<'a> Checks<'a> {
    /// Lets each plugin look at the pod.
    pub(crate) fn plan(
        slots: impl IntoIterator<Item = &'a Slot>,
        cycle: Cycle<'a>,
    ) -> Result<Self, Rejection> {
        let mut checks = Vec::new();
        let mut only: Option<(BTreeSet<NodeId>, Vec<&'static str>)> = None;
        for slot in slots {
            let name = slot.plugin.name();
            let (whole, single) = (slot.at(Point::PreFilter), slot.at(Point::Filter));
            if !whole && !single {
                continue;
            }
            match slot.plugin.filter(cycle) {
                FilterPlan::Skip => {}
                FilterPlan::Reject(r) => return Err(r.by(name)),
                FilterPlan::Each(check) if single => checks.push((name, check)),
                FilterPlan::Each(_) => {}
                FilterPlan::Only(nodes, check) => {
                    let nodes: BTreeSet<NodeId> = nodes.into_iter().collect();
                    only = Some(match only {
                        None => (nodes, alloc::vec![name]),
                        Some((before, mut names)) => {
                            names.push(name);
                            (before.intersection(&nodes).copied().collect(), names)
                        }
                    });
                    if single {
                        checks.push((name, check));
                    }
                }
            }
        }
        Ok(Self { checks, only })
    }

    /// Whether nobody has anything against any node.
    pub(crate) const fn are_none(&self) -> bool {
        self.checks.is_empty() && self.only.is_none()
    }

    /// The first rejection of a node.
    pub(crate) fn check(&self, id: NodeId) -> Option<Rejection> {
        if let Some((nodes, names)) = &self.only
            && !nodes.contains(&id)
        {
            let reason = format!("node(s) didn't satisfy plugin(s) [{}]", names.join(" "));
            return Some(Rejected::unresolvable(reason).by(""));
        }
        self.checks.iter().find_map(|(name, check)| Some(check(id)?.by(name)))
    }
}

/// Filters all nodes.
pub(crate) fn survey(slots: &[Slot], cycle: Cycle<'_>) -> Survey {
    let mut survey = Survey::default();
    match Checks::plan(slots, cycle) {
        Err(rejection) => survey.prefilter = Some(rejection),
        Ok(checks) => {
            for (id, _) in cycle.cluster.nodes() {
                match checks.check(id) {
                    None => survey.feasible.push(id),
                    Some(rejection) => survey.rejected.push((id, rejection)),
                }
            }
        }
    }
    survey
}

/// Filters nodes in order of row from `start` on, around the end, until `wanted` will do; with the row to go on from.
/// `hidden` nodes will not do, whatever the plugins say.
pub(crate) fn survey_some(
    slots: &[Slot],
    cycle: Cycle<'_>,
    start: usize,
    wanted: usize,
    hidden: &[(NodeId, Rejection)],
) -> (Survey, usize) {
    let mut survey = Survey::default();
    let rows = cycle.cluster.columns().rows();
    let start = if start < rows { start } else { 0 };
    let checks = match Checks::plan(slots, cycle) {
        Ok(checks) => checks,
        Err(rejection) => {
            survey.prefilter = Some(rejection);
            return (survey, start);
        }
    };
    let mut next = start;
    for row in (start..rows).chain(0..start) {
        if survey.feasible.len() >= wanted {
            break;
        }
        next = if row + 1 < rows { row + 1 } else { 0 };
        let id = NodeId::of(row);
        if cycle.cluster.node(id).is_none() {
            continue;
        }
        let crowded = || hidden.iter().find(|(h, _)| *h == id).map(|(_, r)| r.clone());
        match crowded().or_else(|| checks.check(id)) {
            None => survey.feasible.push(id),
            Some(rejection) => survey.rejected.push((id, rejection)),
        }
    }
    survey.feasible.sort_unstable();
    (survey, next)
}
