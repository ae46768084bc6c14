//! Arguments of the built-in plugins (`kubescheduler.config.k8s.io/v1`, kinds `*Args`).

use alloc::boxed::Box;
use alloc::collections::BTreeSet;
use alloc::format;
use alloc::string::String;
use alloc::vec::Vec;

use icp_core::api::{FieldError, names};

use super::read::Fields;
use crate::framework::Plugin;
use crate::model::node_affinity;
use crate::plugins::{
    BalancedAllocation, DefaultConstraint, InterPodAffinity, NodeAffinity, PodTopologySpread, ResourceWeight,
    ResourcesFit, ScoringStrategy, Shape, VolumeBinding,
};

/// What the arguments of one plugin come to.
pub(super) enum Args {
    /// Nothing that a plugin without arguments would not do.
    Default,
    /// A plugin that takes the place of the default one.
    Plugin(Box<dyn Plugin>),
    /// How long a pod waits for its volumes, and the plugin if it scores.
    Volumes { timeout_seconds: i64, plugin: Option<Box<dyn Plugin>> },
    /// On how many nodes room is looked for: a part in percent, and at least so many.
    Candidates { percent: u8, absolute: usize },
}

/// Reads the arguments of a built-in plugin.
pub(super) fn read(plugin: &str, fields: Fields<'_>) -> Args {
    if let Some(kind) = fields.text("kind")
        && kind != format!("{plugin}Args")
    {
        fields.invalid("kind", kind, "has to match plugin args");
    }
    if let Some(version) = fields.text("apiVersion")
        && version != super::VERSION
    {
        fields.invalid("apiVersion", version, format!("must be {:?}", super::VERSION));
    }
    let args = match plugin {
        "NodeResourcesFit" => fit(&fields),
        "NodeResourcesBalancedAllocation" => balanced(&fields),
        "PodTopologySpread" => spread(&fields),
        "InterPodAffinity" => interpod(&fields),
        "NodeAffinity" => affinity(&fields),
        "DefaultPreemption" => preemption(&fields),
        "VolumeBinding" => volumes(&fields),
        // The others take none: whatever stands there is a field that is not known.
        _ => Args::Default,
    };
    fields.end();
    args
}

fn resources(fields: &Fields<'_>, weight_max: i64) -> Vec<ResourceWeight> {
    let mut list = Vec::new();
    for item in fields.objects("resources") {
        let name = item.text("name").unwrap_or_default();
        let weight = match item.int("weight") {
            None | Some(0) => 1,
            Some(weight) => weight,
        };
        if weight_max == 1 && weight != 1 {
            item.invalid("weight", weight, "must be 1");
        } else if !(1..=weight_max).contains(&weight) {
            let detail = format!("resource weight of {name} not in valid range (0, {weight_max}]");
            item.invalid("weight", weight, detail);
        }
        list.push(ResourceWeight::new(name, weight));
        item.end();
    }
    if list.is_empty() { ResourceWeight::defaults() } else { list }
}

fn shape(fields: &Fields<'_>) -> Shape {
    let mut points: Vec<(i64, i64)> = Vec::new();
    let items = fields.objects("shape");
    if items.is_empty() {
        fields.faults.add(FieldError::required(fields.at("shape"), "at least one point must be specified"));
    }
    let mut sorted = true;
    for item in items {
        let (at, score) = (item.int("utilization").unwrap_or(0), item.int("score").unwrap_or(0));
        if sorted && points.last().is_some_and(|(before, _)| *before >= at) {
            sorted = false;
            item.invalid("utilization", at, "values must be sorted in increasing order");
        }
        if !(0..=100).contains(&at) {
            item.invalid("utilization", at, "not in valid range [0, 100]");
        }
        if !(0..=10).contains(&score) {
            item.invalid("score", score, "not in valid range [0, 10]");
        }
        points.push((at, score));
        item.end();
    }
    Shape::new(&points)
}

/// The NodeResourcesFit that arguments ask for, if it is not the default one.
pub(super) fn fit_of(fields: Fields<'_>) -> Option<ResourcesFit> {
    fit_plugin(&fields)
}

fn fit(fields: &Fields<'_>) -> Args {
    fit_plugin(fields).map_or(Args::Default, |plugin| Args::Plugin(Box::new(plugin)))
}

fn fit_plugin(fields: &Fields<'_>) -> Option<ResourcesFit> {
    let (ignored, groups) = (fields.texts("ignoredResources"), fields.texts("ignoredResourceGroups"));
    for (i, name) in ignored.iter().enumerate() {
        for fault in names::qualified_name(name) {
            fields.invalid(&format!("ignoredResources[{i}]"), name.as_str(), fault);
        }
    }
    for (i, name) in groups.iter().enumerate() {
        let field = format!("ignoredResourceGroups[{i}]");
        if name.contains('/') {
            fields.invalid(&field, name.as_str(), "resource group name can't contain '/'");
        }
        for fault in names::qualified_name(name) {
            fields.invalid(&field, name.as_str(), fault);
        }
    }
    let strategy = fields.object("scoringStrategy");
    let set = fields.raw("scoringStrategy").is_some();
    let list = resources(&strategy, 100);
    let kind = strategy.text("type").unwrap_or(if set { "" } else { "LeastAllocated" });
    let ratio = strategy.raw("requestedToCapacityRatio").is_some();
    if ratio && kind != "RequestedToCapacityRatio" {
        let field = strategy.at("requestedToCapacityRatio");
        let detail = "must be nil when type is not RequestedToCapacityRatio";
        strategy.faults.add(FieldError::forbidden(field, detail));
    }
    let scoring = match kind {
        "MostAllocated" => ScoringStrategy::MostAllocated(list),
        "RequestedToCapacityRatio" => {
            let inner = strategy.object("requestedToCapacityRatio");
            if !ratio {
                let detail = "must be specified when type is RequestedToCapacityRatio";
                strategy.faults.add(FieldError::required(inner.path.clone(), detail));
                return None;
            }
            let shape = shape(&inner);
            inner.end();
            ScoringStrategy::RequestedToCapacityRatio(list, shape)
        }
        other => {
            if other != "LeastAllocated" {
                let known = ["LeastAllocated", "MostAllocated", "RequestedToCapacityRatio"];
                strategy.faults.add(FieldError::not_supported(strategy.at("type"), other, &known));
            }
            ScoringStrategy::LeastAllocated(list)
        }
    };
    strategy.end();
    if scoring == ScoringStrategy::default() && ignored.is_empty() && groups.is_empty() {
        return None;
    }
    Some(ResourcesFit::new(scoring).ignoring(&ignored, &groups))
}

fn balanced(fields: &Fields<'_>) -> Args {
    let list = resources(fields, 1);
    let mut seen = BTreeSet::new();
    for (i, resource) in list.iter().enumerate() {
        if !seen.insert(&resource.name) {
            let field = fields.at(&format!("resources[{i}].name"));
            fields.faults.add(FieldError::duplicate(field, resource.name.as_str()));
        }
    }
    if list == ResourceWeight::defaults() {
        return Args::Default;
    }
    let names: Vec<String> = list.into_iter().map(|r| r.name).collect();
    Args::Plugin(Box::new(BalancedAllocation::of(&names)))
}

fn spread(fields: &Fields<'_>) -> Args {
    let kind = fields.text("defaultingType").filter(|k| !k.is_empty()).unwrap_or("System");
    let mut list: Vec<DefaultConstraint> = Vec::new();
    for item in fields.objects("defaultConstraints") {
        let skew = item.int("maxSkew").unwrap_or(0);
        if skew <= 0 {
            item.invalid("maxSkew", skew, "not in valid range (0, inf)");
        }
        let key = item.text("topologyKey").unwrap_or_default();
        if key.is_empty() {
            item.faults.add(FieldError::required(item.at("topologyKey"), "can not be empty"));
        } else {
            for fault in names::qualified_name(key) {
                item.invalid("topologyKey", key, fault);
            }
        }
        let action = item.text("whenUnsatisfiable").unwrap_or_default();
        match action {
            "DoNotSchedule" | "ScheduleAnyway" => {}
            "" => item.faults.add(FieldError::required(item.at("whenUnsatisfiable"), "can not be empty")),
            other => {
                let known = ["DoNotSchedule", "ScheduleAnyway"];
                item.faults.add(FieldError::not_supported(item.at("whenUnsatisfiable"), other, &known));
            }
        }
        for selector in ["labelSelector", "matchLabelKeys"] {
            if item.raw(selector).is_some() {
                let detail = "constraint must not define a selector, as they deduced for each pod";
                item.faults.add(FieldError::forbidden(item.at(selector), detail));
            }
        }
        let mut constraint = DefaultConstraint::new(key, skew, action == "DoNotSchedule");
        constraint.min_domains = item.int("minDomains").unwrap_or(1);
        if constraint.min_domains <= 0 {
            item.invalid("minDomains", constraint.min_domains, "must be greater than 0");
        }
        for (name, honor) in [
            ("nodeAffinityPolicy", &mut constraint.honor_affinity),
            ("nodeTaintsPolicy", &mut constraint.honor_taints),
        ] {
            match item.text(name) {
                None => {}
                Some(policy @ ("Honor" | "Ignore")) => *honor = policy == "Honor",
                Some(other) => {
                    item.faults.add(FieldError::not_supported(item.at(name), other, &["Honor", "Ignore"]));
                }
            }
        }
        if list.iter().any(|c| c.topology_key == key && c.hard == constraint.hard) {
            item.faults.add(FieldError::duplicate(item.path.clone(), format!("{{{key}, {action}}}")));
        }
        list.push(constraint);
        item.end();
    }
    match kind {
        "List" => return Args::Plugin(Box::new(PodTopologySpread::defaulting(list))),
        "System" if !list.is_empty() => {
            fields.invalid("defaultingType", kind, "when .defaultConstraints are not empty");
        }
        "System" => {}
        other => {
            let field = fields.at("defaultingType");
            fields.faults.add(FieldError::not_supported(field, other, &["System", "List"]));
        }
    }
    Args::Default
}

fn interpod(fields: &Fields<'_>) -> Args {
    let default = InterPodAffinity::default();
    let hard_weight = fields.int("hardPodAffinityWeight").unwrap_or(default.hard_weight);
    if !(0..=100).contains(&hard_weight) {
        fields.invalid("hardPodAffinityWeight", hard_weight, "not in valid range [0, 100]");
    }
    let ignores = fields.flag("ignorePreferredTermsOfExistingPods").unwrap_or(false);
    if hard_weight == default.hard_weight && !ignores {
        return Args::Default;
    }
    Args::Plugin(Box::new(InterPodAffinity { hard_weight, ignore_preferences_of_existing: ignores }))
}

fn affinity(fields: &Fields<'_>) -> Args {
    let Some(added) = fields.raw("addedAffinity") else { return Args::Default };
    match node_affinity(added) {
        Ok((required, preferred)) => Args::Plugin(Box::new(NodeAffinity::adding(required, preferred))),
        Err(detail) => {
            fields.invalid("addedAffinity", added.clone(), detail);
            Args::Default
        }
    }
}

/// Every node is tried unless a file says otherwise; of two fields, the one that is not named is upstream's default.
fn preemption(fields: &Fields<'_>) -> Args {
    let (percent, absolute) =
        (fields.int("minCandidateNodesPercentage"), fields.int("minCandidateNodesAbsolute"));
    if percent.is_none() && absolute.is_none() {
        return Args::Default;
    }
    let (percent, absolute) = (percent.unwrap_or(10), absolute.unwrap_or(100));
    if !(0..=100).contains(&percent) {
        fields.invalid("minCandidateNodesPercentage", percent, "not in valid range [0, 100]");
    }
    if absolute < 0 {
        fields.invalid("minCandidateNodesAbsolute", absolute, "not in valid range [0, inf)");
    }
    if percent == 0 && absolute == 0 {
        for (field, other) in [
            ("minCandidateNodesPercentage", "minCandidateNodesAbsolute"),
            ("minCandidateNodesAbsolute", "minCandidateNodesPercentage"),
        ] {
            fields.invalid(field, 0, format!("cannot be zero at the same time as {other}"));
        }
    }
    Args::Candidates {
        percent: u8::try_from(percent).unwrap_or_default(),
        absolute: usize::try_from(absolute).unwrap_or_default(),
    }
}

fn volumes(fields: &Fields<'_>) -> Args {
    let timeout_seconds = fields.int("bindTimeoutSeconds").unwrap_or(600);
    if timeout_seconds < 0 {
        let detail = "invalid BindTimeoutSeconds, should not be a negative value";
        fields.invalid("bindTimeoutSeconds", timeout_seconds, detail);
    }
    let plugin =
        fields.raw("shape").map(|_| Box::new(VolumeBinding::scoring(shape(fields))) as Box<dyn Plugin>);
    Args::Volumes { timeout_seconds, plugin }
}
