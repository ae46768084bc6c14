//! Which plugins a profile has, at which points.

use alloc::borrow::ToOwned as _;
use alloc::collections::{BTreeMap, BTreeSet};
use alloc::format;
use alloc::string::String;
use alloc::vec::Vec;

use icp_core::api::FieldError;

use super::read::Fields;
use crate::framework::{Point, Points};

/// Plugins that were taken out of upstream: a file that enables one is refused.
const REMOVED: [&str; 4] = ["AzureDiskLimits", "CinderLimits", "EBSLimits", "GCEPDLimits"];

/// Plugins of upstream that are not built here. They can be disabled, which changes nothing.
const NOT_BUILT: [&str; 5] = [
    "DynamicResources",
    "GangScheduling",
    "DeferredPodScheduling",
    "TopologyPlacementGenerator",
    "PodGroupPodsCount",
];

use Point as P;

/// The plugins that are enabled everywhere unless told otherwise, in order, with their weights and points
/// (`getDefaultPlugins`).
pub(super) const BUILT_IN: [(&str, i64, Points); 19] = [
    ("SchedulingGates", 0, Points::of(&[P::PreEnqueue])),
    ("PrioritySort", 0, Points::of(&[P::QueueSort])),
    ("NodeUnschedulable", 0, Points::of(&[P::Filter])),
    ("NodeName", 0, Points::of(&[P::Filter])),
    ("TaintToleration", 3, Points::of(&[P::Filter, P::PreScore, P::Score])),
    ("NodeAffinity", 2, Points::of(&[P::PreFilter, P::Filter, P::PreScore, P::Score])),
    ("NodePorts", 0, Points::of(&[P::PreFilter, P::Filter])),
    ("NodeResourcesFit", 1, Points::of(&[P::PreFilter, P::Filter, P::PreScore, P::Score])),
    ("VolumeRestrictions", 0, Points::of(&[P::PreFilter, P::Filter])),
    ("NodeVolumeLimits", 0, Points::of(&[P::PreFilter, P::Filter])),
    (
        "VolumeBinding",
        0,
        Points::of(&[P::PreFilter, P::Filter, P::Reserve, P::PreBind, P::PreScore, P::Score]),
    ),
    ("VolumeZone", 0, Points::of(&[P::PreFilter, P::Filter])),
    ("PodTopologySpread", 2, Points::of(&[P::PreFilter, P::Filter, P::PreScore, P::Score])),
    ("InterPodAffinity", 2, Points::of(&[P::PreFilter, P::Filter, P::PreScore, P::Score])),
    ("DefaultPreemption", 0, Points::of(&[P::PostFilter])),
    ("NodeResourcesBalancedAllocation", 1, Points::of(&[P::PreScore, P::Score])),
    ("ImageLocality", 1, Points::of(&[P::Score])),
    ("DefaultBinder", 0, Points::of(&[P::Bind])),
    ("NodeDeclaredFeatures", 0, Points::of(&[P::PreFilter, P::Filter])),
];

/// Where a built-in plugin has the first of these points, it needs the second, if it has that at all.
const NEEDS: [(Point, Point); 6] = [
    (P::Filter, P::PreFilter),
    (P::Score, P::PreScore),
    (P::Filter, P::Reserve),
    (P::Filter, P::PreBind),
    (P::Reserve, P::Filter),
    (P::PreBind, P::Filter),
];

/// A plugin that a profile has.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct EnabledPlugin {
    /// The name.
    pub name: String,
    /// The weight of its points; without effect unless it scores.
    pub weight: i64,
    /// Where it has a say.
    pub points: Points,
}

/// Plugins that a file enables at one point, with the paths of their names.
#[derive(Clone, Debug, Default)]
struct Set {
    enabled: Vec<(String, Option<i64>, String)>,
    disabled: BTreeSet<String>,
}

impl Set {
    fn read(fields: Fields<'_>, known: &dyn Fn(&str) -> Option<Points>) -> Self {
        let mut set = Self::default();
        for item in fields.objects("enabled") {
            let weight = item.int("weight");
            if let Some(weight) = weight.filter(|w| *w < 0 || *w > i64::from(i32::MAX)) {
                item.invalid("weight", weight, "not in valid range [0, 2147483647]");
            }
            let path = item.at("name");
            match item.text("name") {
                None => item.faults.add(FieldError::required(path, "")),
                Some(name) => {
                    if REMOVED.contains(&name) {
                        item.invalid("name", name, "was removed from kube-scheduler");
                    } else if NOT_BUILT.contains(&name) {
                        item.invalid("name", name, "is not built here");
                    } else if known(name).is_none() {
                        item.invalid("name", name, format!("plugin {name:?} does not exist"));
                    } else {
                        set.enabled.push((name.into(), weight, path));
                    }
                }
            }
            item.end();
        }
        for item in fields.objects("disabled") {
            // A weight means nothing here, but may stand there.
            item.int("weight");
            match item.text("name") {
                None => item.faults.add(FieldError::required(item.at("name"), "")),
                Some(name) => {
                    let harmless = name == "*" || REMOVED.contains(&name) || NOT_BUILT.contains(&name);
                    if !harmless && known(name).is_none() {
                        item.invalid("name", name, format!("plugin {name:?} does not exist"));
                    }
                    set.disabled.insert(name.into());
                }
            }
            item.end();
        }
        fields.end();
        set
    }
}

/// What `multiPoint` enables, with the default plugins (`mergePluginSet`).
fn multi_point(custom: &Set) -> Vec<(String, Option<i64>, String)> {
    let mut enabled = Vec::new();
    let mut replaced = BTreeSet::new();
    if !custom.disabled.contains("*") {
        for (name, weight, _) in BUILT_IN.iter().filter(|(name, ..)| !custom.disabled.contains(*name)) {
            match custom.enabled.iter().position(|(n, ..)| n == name) {
                Some(at) => {
                    replaced.insert(at);
                    enabled.extend(custom.enabled.get(at).cloned());
                }
                None => enabled.push(((*name).to_owned(), Some(*weight), String::new())),
            }
        }
    }
    let others = custom.enabled.iter().enumerate().filter(|(at, _)| !replaced.contains(at));
    enabled.extend(others.map(|(_, plugin)| plugin.clone()));
    enabled
}

/// Reads `plugins` of a profile: the plugins with their points, in order of filtering and then of scoring
/// (`expandMultiPointPlugins`). `extra` knows the points of plugins that are not built in.
pub(super) fn read(fields: Fields<'_>, extra: &dyn Fn(&str) -> Option<Points>) -> Vec<EnabledPlugin> {
    let known = |name: &str| {
        BUILT_IN.iter().find(|(n, ..)| *n == name).map(|(.., points)| *points).or_else(|| extra(name))
    };
    let faults = fields.faults;
    let multi = multi_point(&Set::read(fields.object("multiPoint"), &known));
    let mut seen = BTreeSet::new();
    for (name, _, path) in &multi {
        if !seen.insert(name) {
            faults.add(FieldError::duplicate(path.clone(), name.as_str()));
        }
    }
    let mut at_point: BTreeMap<Point, Vec<String>> = BTreeMap::new();
    let mut weights: BTreeMap<String, i64> = BTreeMap::new();
    for point in Point::ALL {
        let set = Set::read(fields.object(point.field()), &known);
        let mut own = BTreeSet::new();
        for (name, weight, path) in &set.enabled {
            if !own.insert(name.as_str()) {
                faults.add(FieldError::duplicate(path.clone(), name.as_str()));
            }
            if !known(name).is_some_and(|points| points.contains(point)) {
                let detail = format!("does not extend {}", point.field());
                faults.add(FieldError::invalid(path.clone(), name.as_str(), detail));
            }
            if point == Point::Score {
                weights.entry(name.clone()).or_insert(weight.unwrap_or(0));
            }
        }
        let expands = |name: &str| {
            !set.disabled.contains("*")
                && !set.disabled.contains(name)
                && known(name).is_some_and(|points| points.contains(point))
        };
        let is_multi = |name: &str| multi.iter().any(|(n, ..)| n == name) && expands(name);
        let first = set.enabled.iter().filter(|(n, ..)| is_multi(n)).map(|(n, ..)| n);
        let second = multi.iter().map(|(n, ..)| n).filter(|n| expands(n) && !own.contains(n.as_str()));
        let third = set.enabled.iter().filter(|(n, ..)| !is_multi(n)).map(|(n, ..)| n);
        at_point.insert(point, first.chain(second).chain(third).cloned().collect());
    }
    for (name, weight, _) in &multi {
        weights.entry(name.clone()).or_insert(weight.unwrap_or(0));
    }
    let sorts = at_point.get(&Point::QueueSort).map_or(0, Vec::len);
    if sorts != 1 {
        let detail = format!("one queue sort plugin is needed, but got {sorts}");
        faults.add(FieldError::invalid(fields.at("queueSort"), sorts, detail));
    }
    if at_point.get(&Point::Bind).is_none_or(Vec::is_empty) {
        faults.add(FieldError::required(fields.at("bind"), "at least one bind plugin is needed"));
    }
    // The default binder binds every pod that it is asked for: nobody is asked after it.
    if let Some(binders) = at_point.get_mut(&Point::Bind)
        && let Some(at) = binders.iter().position(|name| name == "DefaultBinder")
    {
        binders.truncate(at + 1);
    }
    let mut plugins: Vec<EnabledPlugin> = Vec::new();
    let order = [Point::Filter, Point::Score].into_iter().chain(Point::ALL);
    for point in order {
        for name in at_point.get(&point).into_iter().flatten() {
            match plugins.iter_mut().find(|p| p.name == *name) {
                Some(plugin) => plugin.points = plugin.points.with(point),
                None => {
                    let weight = weights.get(name).copied().unwrap_or(0);
                    let points = Points::of(&[point]);
                    plugins.push(EnabledPlugin { name: name.clone(), weight, points });
                }
            }
        }
    }
    for plugin in &mut plugins {
        // A weight of zero is not permitted: a plugin that is not to score is disabled there.
        if plugin.points.contains(Point::Score) && plugin.weight == 0 {
            plugin.weight = 1;
        }
        let Some((.., all)) = BUILT_IN.iter().find(|(n, ..)| *n == plugin.name) else { continue };
        for (point, needed) in NEEDS {
            if plugin.points.contains(point) && all.contains(needed) && !plugin.points.contains(needed) {
                let detail = format!("needs {} for {}", needed.field(), point.field());
                faults.add(FieldError::invalid(fields.at(needed.field()), plugin.name.as_str(), detail));
            }
        }
    }
    fields.end();
    plugins
}
