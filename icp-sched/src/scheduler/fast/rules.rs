//! Which of the default plugins take part, and with what weights.

use super::index::POINTS_MAX;
use crate::cache::Columns;
use crate::model::PodSpec;
use crate::plugins::{balanced, fit};

/// Weights by plugin, 0 for those that do not score; and which filter.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(in crate::scheduler) struct Rules {
    pub(super) taints: i64,
    pub(super) affinity: i64,
    pub(super) fit: i64,
    pub(super) spread: i64,
    pub(super) interpod: i64,
    pub(super) balanced: i64,
    pub(super) images: i64,
}

impl Default for Rules {
    /// The weights of upstream (`getDefaultPlugins`).
    fn default() -> Self {
        Self { taints: 3, affinity: 2, fit: 1, spread: 2, interpod: 2, balanced: 1, images: 1 }
    }
}

/// Weights above this are left to the plugins.
const WEIGHT_MAX: i64 = 50;

impl Rules {
    /// The rules of the default plugins with other weights; `None` if they are not those that are known here.
    pub(in crate::scheduler) fn of<'p>(plugins: impl Iterator<Item = (&'p str, i64)>) -> Option<Self> {
        let mut rules =
            Self { taints: 0, affinity: 0, fit: 0, spread: 0, interpod: 0, balanced: 0, images: 0 };
        let mut filters = 0;
        for (name, weight) in plugins {
            let slot = match name {
                "TaintToleration" => &mut rules.taints,
                "NodeAffinity" => &mut rules.affinity,
                "NodeResourcesFit" => &mut rules.fit,
                "PodTopologySpread" => &mut rules.spread,
                "InterPodAffinity" => &mut rules.interpod,
                "NodeResourcesBalancedAllocation" => &mut rules.balanced,
                "ImageLocality" => &mut rules.images,
                "NodeUnschedulable" | "NodeName" | "NodePorts" => {
                    filters += 1;
                    continue;
                }
                // Asked about each node, for pods that have what they look at.
                _ if is_on_top(name) => continue,
                _ => return None,
            };
            *slot = weight;
            filters += usize::from(!matches!(name, "NodeResourcesBalancedAllocation" | "ImageLocality"));
        }
        // Every filter takes part; those that only score may be left out.
        (filters == FILTERS && rules.all().iter().all(|w| (0..=WEIGHT_MAX).contains(w))).then_some(rules)
    }

    const fn all(&self) -> [i64; 7] {
        [self.taints, self.affinity, self.fit, self.spread, self.interpod, self.balanced, self.images]
    }

    /// The points of fit and balance of a row, if the index can hold them.
    pub(super) fn local(&self, columns: &Columns, spec: &PodSpec, row: usize) -> Option<i64> {
        let balance = if balanced::cares(spec) { balanced::points(columns, spec, row) } else { 0 };
        let points = fit::least_allocated(columns, spec, row)
            .saturating_mul(self.fit)
            .saturating_add(balance.saturating_mul(self.balanced));
        usize::try_from(points).ok().filter(|p| *p <= POINTS_MAX)?;
        Some(points)
    }
}

/// How many default plugins filter whatever the pod has.
const FILTERS: usize = 8;

/// Whether a default plugin minds volumes or features, which few pods have.
pub(in crate::scheduler) fn is_on_top(name: &str) -> bool {
    is_for_volumes(name) || name == "NodeDeclaredFeatures"
}

/// Whether a default plugin minds volumes.
pub(in crate::scheduler) fn is_for_volumes(name: &str) -> bool {
    matches!(name, "VolumeRestrictions" | "NodeVolumeLimits" | "VolumeBinding" | "VolumeZone")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::plugins::defaults;

    #[test]
    fn the_default_plugins_have_the_default_rules() {
        let all = defaults();
        let list = || all.iter().map(|(p, weight)| (p.name(), *weight));
        assert_eq!(Rules::of(list()), Some(Rules::default()));
        assert_eq!(Rules::of(list().filter(|(n, _)| *n != "NodeName")), None);
        let without = Rules::of(list().filter(|(n, _)| *n != "ImageLocality")).unwrap();
        assert_eq!(without, Rules { images: 0, ..Rules::default() });
        assert_eq!(Rules::of(list().chain([("Odd", 1)])), None);
        assert_eq!(Rules::of(list().map(|(n, w)| (n, w * 1000))), None);
    }
}
