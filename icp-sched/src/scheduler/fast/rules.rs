//! Which of the default plugins take part, with what weights and arguments.

use alloc::string::String;
use alloc::vec::Vec;

use super::index::POINTS_MAX;
use crate::cache::Columns;
use crate::framework::{Kept, Part, Point, Slot};
use crate::model::PodSpec;
use crate::plugins::{ScoringStrategy, balanced, fit};

/// Weights by plugin, 0 for those that do not score, and what fit and balance look at.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(in crate::scheduler) struct Rules {
    pub(super) taints: i64,
    pub(super) affinity: i64,
    pub(super) fit: i64,
    pub(super) spread: i64,
    pub(super) interpod: i64,
    pub(super) balanced: i64,
    pub(super) images: i64,
    /// Another strategy than the usual one.
    pub(super) strategy: Option<ScoringStrategy>,
    /// Other resources to balance than the usual ones.
    pub(super) balance_of: Option<Vec<String>>,
    /// Points for what a pod does to the balance.
    pub(super) improvement: bool,
}

impl Default for Rules {
    /// The weights of upstream (`getDefaultPlugins`).
    fn default() -> Self {
        Self { taints: 3, affinity: 2, fit: 1, spread: 2, interpod: 2, balanced: 1, images: 1, ..Self::NONE }
    }
}

/// Weights above this are left to the plugins.
const WEIGHT_MAX: i64 = 50;

impl Rules {
    const NONE: Self = Self {
        taints: 0,
        affinity: 0,
        fit: 0,
        spread: 0,
        interpod: 0,
        balanced: 0,
        images: 0,
        strategy: None,
        balance_of: None,
        improvement: false,
    };

    /// The rules of these plugins; `None` if they are not those that are known here. Plugins that are asked on top are
    /// not looked at.
    pub(in crate::scheduler) fn of<'p>(slots: impl Iterator<Item = &'p Slot>) -> Option<Self> {
        let mut rules = Self::NONE;
        let mut filters = FILTERS.iter();
        let (mut balanced, mut images) = (false, false);
        for slot in slots {
            let Some(Kept(part)) = slot.plugin.kept() else { continue };
            if part == Part::OnTop {
                continue;
            }
            let weight = if slot.at(Point::Score) { slot.weight } else { 0 };
            let name = slot.plugin.name();
            match name {
                "NodeResourcesBalancedAllocation" if !core::mem::replace(&mut balanced, true) => {
                    rules.balanced = weight;
                }
                "ImageLocality" if !core::mem::replace(&mut images, true) => rules.images = weight,
                // Every filter takes part, in the usual order: who rejects a node first is told.
                _ if filters.next() != Some(&name) || !slot.at(Point::Filter) => {
                    return None;
                }
                "TaintToleration" => rules.taints = weight,
                "NodeAffinity" => rules.affinity = weight,
                "NodeResourcesFit" => rules.fit = weight,
                "PodTopologySpread" => rules.spread = weight,
                "InterPodAffinity" => rules.interpod = weight,
                _ => {}
            }
            match part {
                Part::Fit(strategy) if strategy != ScoringStrategy::default() => {
                    rules.strategy = Some(strategy)
                }
                Part::Balance { of, improvement } => {
                    rules.balance_of = of;
                    rules.improvement = improvement;
                }
                Part::Fit(_) | Part::Usual | Part::OnTop => {}
            }
        }
        let fine = filters.next().is_none() && rules.all().iter().all(|w| (0..=WEIGHT_MAX).contains(w));
        fine.then_some(rules)
    }

    const fn all(&self) -> [i64; 7] {
        [self.taints, self.affinity, self.fit, self.spread, self.interpod, self.balanced, self.images]
    }

    /// Whether fit and balance are what a sweep works out.
    pub(super) const fn can_sweep(&self) -> bool {
        self.strategy.is_none() && self.balance_of.is_none() && !self.improvement
    }

    /// The points of balance, given those with the pod and without it.
    fn improved(&self, points: impl Fn(bool) -> i64) -> i64 {
        let with = points(true);
        if self.improvement { balanced::improvement(with, points(false)) } else { with }
    }

    /// The points of fit and balance of a row, if the index can hold them.
    pub(super) fn local(&self, columns: &Columns, spec: &PodSpec, row: usize) -> Option<i64> {
        let (have, load) = (columns.capacity.get(row)?, columns.load.get(row)?);
        let fit = match &self.strategy {
            None => fit::least_allocated(have, load, spec),
            Some(strategy) => strategy.points(columns, spec, row),
        };
        let balance = match &self.balance_of {
            None if balanced::cares(spec) => self.improved(|with| {
                let (cpu, memory) = if with { (spec.requests.cpu, spec.requests.memory) } else { (0, 0) };
                balanced::points(have, load, cpu, memory)
            }),
            Some(names) if balanced::cares_of(spec, names) => {
                self.improved(|with| balanced::points_of(columns, spec, row, names, with))
            }
            _ => 0,
        };
        let points = fit.saturating_mul(self.fit).saturating_add(balance.saturating_mul(self.balanced));
        usize::try_from(points).ok().filter(|p| *p <= POINTS_MAX)?;
        Some(points)
    }
}

/// The default plugins that filter whatever the pod has, in order.
const FILTERS: [&str; 8] = [
    "NodeUnschedulable",
    "NodeName",
    "TaintToleration",
    "NodeAffinity",
    "NodePorts",
    "NodeResourcesFit",
    "PodTopologySpread",
    "InterPodAffinity",
];

/// Whether a default plugin minds volumes.
pub(in crate::scheduler) fn is_for_volumes(name: &str) -> bool {
    matches!(name, "VolumeRestrictions" | "NodeVolumeLimits" | "VolumeBinding" | "VolumeZone")
}

#[cfg(test)]
mod tests {
    use alloc::boxed::Box;
    use alloc::sync::Arc;

    use super::*;
    use crate::framework::{Plugin, Points};
    use crate::plugins::{ResourceWeight, ResourcesFit, defaults};

    fn slots(plugins: Vec<(Box<dyn Plugin>, i64)>) -> Vec<Slot> {
        let all = plugins.into_iter();
        all.map(|(plugin, weight)| Slot { plugin: plugin.into(), weight, points: Points::ALL }).collect()
    }

    #[test]
    fn the_default_plugins_have_the_default_rules() {
        let all = slots(defaults());
        let rules = |keep: &dyn Fn(&str) -> bool| Rules::of(all.iter().filter(|s| keep(s.plugin.name())));
        assert_eq!(rules(&|_| true), Some(Rules::default()));
        assert_eq!(rules(&|n| n != "NodeName"), None);
        assert_eq!(rules(&|n| n != "ImageLocality"), Some(Rules { images: 0, ..Rules::default() }));
        assert_eq!(Rules::of(all.iter().chain(&all[..1])), None);
        assert_eq!(Rules::of(all.iter().chain(&all[13..14])), None);
        assert_eq!(Rules::of(all.iter().rev()), None);
        let mut heavy = all.clone();
        heavy.iter_mut().for_each(|s| s.weight *= 1000);
        assert_eq!(Rules::of(heavy.iter()), None);
    }

    #[test]
    fn arguments_and_points_count() {
        let mut all = slots(defaults());
        let packing = ScoringStrategy::MostAllocated(ResourceWeight::defaults());
        all[5].plugin = Arc::new(ResourcesFit::new(packing.clone()));
        all[2].points = Points::of(&[Point::PreFilter, Point::Filter]);
        let want = Rules { taints: 0, strategy: Some(packing), ..Rules::default() };
        assert_eq!(Rules::of(all.iter()), Some(want));
        all[5].plugin = Arc::new(ResourcesFit::default().ignoring(&["a.com/b".into()], &[]));
        assert_eq!(Rules::of(all.iter()), None);
        all[5].plugin = Arc::new(ResourcesFit::default());
        assert!(Rules::of(all.iter()).is_some());
        all[3].points = Points::of(&[Point::Score]);
        assert_eq!(Rules::of(all.iter()), None);
    }
}
