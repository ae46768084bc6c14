//! The plan.

use alloc::collections::BTreeMap;
use alloc::format;
use alloc::string::{String, ToString};
use alloc::sync::Arc;
use alloc::vec::Vec;

use serde::Deserialize;
use serde_json::{Map, Value};

use super::Scale;
use crate::api::labels::Selector;
use crate::api::{Object, budget, resources};
use crate::base::{Duration, Time};
use crate::controllers::support::{IntOrPercent, is_ready};
use crate::controllers::{Action, Note, Plan};

/// How long an eviction counts that is not seen to have deleted its pod (`DeletionTimeout` upstream).
pub const DELETION_TIMEOUT: Duration = Duration::from_secs(120);

/// The controller of a pod, as far as it is known how many pods it is to have.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Owner {
    /// It is to have so many.
    Scaled(Scale),
    /// It is gone, or another one of its name is there.
    Missing,
    /// It could not be found out; the reason.
    Unknown(String),
}

/// What the plan is made from.
#[derive(Clone, Debug)]
pub struct Observed {
    /// The PodDisruptionBudget.
    pub budget: Arc<Object>,
    /// The pods of its namespace that its selector matches.
    pub pods: Vec<Arc<Object>>,
    /// The controllers of the pods, by the uid that the pods name; not read if the budget is `minAvailable` of a
    /// plain number.
    pub owners: BTreeMap<String, Owner>,
}

/// The status fields that the plan reads.
#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
struct Status {
    disrupted_pods: BTreeMap<String, Time>,
}

/// `spec.minAvailable` or `spec.maxUnavailable`, as far as it is set.
fn limit(budget: &Object, field: &str) -> Result<Option<IntOrPercent>, String> {
    match budget.at(&format!("/spec/{field}")) {
        None | Some(Value::Null) => Ok(None),
        Some(value) => match IntOrPercent::deserialize(value) {
            Ok(limit) => Ok(Some(limit)),
            Err(_) => Err("invalid value for IntOrString: invalid type: neither int nor percentage".into()),
        },
    }
}

/// Whether the budget is a share of the pods that their controllers are to have, so that these must be known.
pub(super) fn needs_scale(budget: &Object) -> bool {
    match (limit(budget, "maxUnavailable"), limit(budget, "minAvailable")) {
        (Ok(Some(_)), _) => true,
        (Ok(None), Ok(Some(min))) => matches!(min, IntOrPercent::Percent(_)),
        _ => false,
    }
}

/// How many pods are expected, and how many of them must be healthy.
#[derive(Debug, Default, PartialEq, Eq)]
struct Figures {
    expected: i64,
    desired: i64,
    /// Whether there are pods without a controller, which the figures leave out.
    unmanaged: bool,
}

/// `getExpectedPodCount` upstream. Percentages round up, so that `maxUnavailable: 1%` lets one pod go.
fn figures(observed: &Observed) -> Result<Figures, String> {
    let Observed { budget, pods, .. } = observed;
    let portion = |limit: &IntOrPercent, expected: i64| {
        let wrong = "invalid value for IntOrString: invalid type: string is not a percentage";
        limit.checked(expected, true).ok_or_else(|| String::from(wrong))
    };
    if let Some(max) = limit(budget, "maxUnavailable")? {
        let mut figures = expected_scale(observed)?;
        figures.desired = figures.expected.saturating_sub(portion(&max, figures.expected)?).max(0);
        return Ok(figures);
    }
    match limit(budget, "minAvailable")? {
        None => Ok(Figures::default()),
        Some(IntOrPercent::Int(min)) => {
            let expected = i64::try_from(pods.len()).unwrap_or(i64::MAX);
            Ok(Figures { expected, desired: min, unmanaged: false })
        }
        Some(min) => {
            let mut figures = expected_scale(observed)?;
            figures.desired = portion(&min, figures.expected)?;
            Ok(figures)
        }
    }
}

/// The sum of the replicas of all controllers of the pods, each counted once.
fn expected_scale(observed: &Observed) -> Result<Figures, String> {
    let mut scales: BTreeMap<&str, i64> = BTreeMap::new();
    let mut unmanaged = false;
    for pod in &observed.pods {
        let Some(controller) = pod.controller() else {
            unmanaged = true;
            continue;
        };
        match observed.owners.get(&controller.uid) {
            Some(Owner::Scaled(scale)) => {
                scales.insert(&scale.uid, scale.replicas);
            }
            Some(Owner::Unknown(why)) => return Err(why.clone()),
            Some(Owner::Missing) | None => {
                return Err(format!("found no controllers for pod {:?}", pod.metadata.name));
            }
        }
    }
    let expected = scales.values().fold(0_i64, |sum, n| sum.saturating_add(*n));
    Ok(Figures { expected, desired: 0, unmanaged })
}

/// Evictions that still count.
#[derive(Debug, Default)]
struct Disrupted<'a> {
    /// By the name of the pod, since when.
    pods: BTreeMap<&'a str, Time>,
    /// When the first of them ends to count.
    recheck: Option<Time>,
    /// Pods that were evicted and are still there.
    overdue: Vec<&'a Arc<Object>>,
}

/// Of the evictions that `status.disruptedPods` holds, those whose pod is there, is not being deleted yet, and was
/// evicted a short while ago.
fn disrupted<'a>(before: &BTreeMap<String, Time>, pods: &'a [Arc<Object>], now: Time) -> Disrupted<'a> {
    let mut result = Disrupted::default();
    for pod in pods.iter().filter(|p| !p.is_terminating()) {
        let Some(since) = before.get(&pod.metadata.name) else { continue };
        let end = *since + DELETION_TIMEOUT;
        if end < now {
            result.overdue.push(pod);
        } else {
            result.recheck = Some(result.recheck.map_or(end, |first| first.min(end)));
            result.pods.insert(&pod.metadata.name, *since);
        }
    }
    result
}

/// Pods that are ready, not being deleted, and not about to be.
fn count_healthy(pods: &[Arc<Object>], disrupted: &BTreeMap<&str, Time>, now: Time) -> i64 {
    let going = |pod: &Object| {
        pod.is_terminating()
            || disrupted.get(pod.metadata.name.as_str()).is_some_and(|since| *since + DELETION_TIMEOUT > now)
    };
    let healthy = pods.iter().filter(|p| !going(p) && is_ready(p)).count();
    i64::try_from(healthy).unwrap_or(i64::MAX)
}

/// Writes into the status how many pods may be evicted now: the healthy ones beyond those that the budget asks for,
/// and none while no pod is expected. If that cannot be computed, none may, and the condition says why.
#[must_use]
pub fn plan(observed: &Observed, now: Time) -> Plan {
    let Observed { budget, pods, .. } = observed;
    let mut plan = Plan::none();
    let selector = match selector(budget) {
        Ok(selector) => selector,
        Err(why) => {
            plan.notes.push(Note::warning(budget, "NoPods", format!("Failed to get pods: {why}")));
            write(&mut plan, budget, failed(budget, now, &why));
            return plan;
        }
    };
    if pods.is_empty() {
        plan.notes.push(Note::normal(budget, "NoPods", "No matching pods found"));
    }
    let figures = match figures(observed) {
        Ok(figures) => figures,
        Err(why) => {
            let text = format!("Failed to calculate the number of expected pods: {why}");
            plan.notes.push(Note::warning(budget, "CalculateExpectedPodCountFailed", text));
            write(&mut plan, budget, failed(budget, now, &why));
            return plan;
        }
    };
    if figures.unmanaged {
        let text = format!(
            "Pods selected by this PodDisruptionBudget (selector: {selector}) were found to be unmanaged. As a result, the \
             status of the PDB cannot be calculated correctly, which may result in undefined behavior. To account for \
             these pods please set \".spec.minAvailable\" field of the PDB to an integer value."
        );
        plan.notes.push(Note::warning(budget, "UnmanagedPods", text));
    }
    let before: Status = budget.view("status").unwrap_or_default();
    let disrupted = disrupted(&before.disrupted_pods, pods, now);
    for pod in &disrupted.overdue {
        let key = budget.key();
        let text = format!("Pod was expected by PDB {key} to be deleted but it wasn't");
        plan.notes.push(Note::warning(pod, "NotDeleted", text));
    }
    let healthy = count_healthy(pods, &disrupted.pods, now);
    plan.again_at = disrupted.recheck;
    write(&mut plan, budget, status(budget, &figures, healthy, &disrupted.pods, now));
    plan
}

/// The pods that the budget is about: without a selector none, with an empty one all.
pub(super) fn selector(budget: &Object) -> Result<Selector, String> {
    let selector = budget.at("/spec/selector").unwrap_or(&Value::Null);
    Selector::from_label_selector(selector).map_err(|e| e.to_string())
}

fn old_status(budget: &Object) -> Map<String, Value> {
    budget.at("/status").and_then(Value::as_object).cloned().unwrap_or_default()
}

fn status(
    budget: &Object,
    figures: &Figures,
    healthy: i64,
    disrupted: &BTreeMap<&str, Time>,
    now: Time,
) -> Map<String, Value> {
    // A budget that matches no pod yet must not allow the first ones to go before they are counted.
    let spare = if figures.expected <= 0 { 0 } else { healthy.saturating_sub(figures.desired).max(0) };
    let old = old_status(budget);
    let mut status = old.clone();
    for (field, figure) in [
        ("currentHealthy", healthy),
        ("desiredHealthy", figures.desired),
        ("expectedPods", figures.expected),
        ("disruptionsAllowed", spare),
        ("observedGeneration", budget.metadata.generation),
    ] {
        status.insert(field.into(), figure.into());
    }
    let pods: Map<String, Value> =
        disrupted.iter().map(|(name, since)| ((*name).into(), since.to_rfc3339().into())).collect();
    match pods.is_empty() {
        true => status.remove("disruptedPods"),
        false => status.insert("disruptedPods".into(), pods.into()),
    };
    if status != old || !budget::is_told(&status) {
        budget::tell_allowed(&mut status, now);
    }
    status
}

fn failed(budget: &Object, now: Time, why: &str) -> Map<String, Value> {
    let mut status = old_status(budget);
    for field in ["currentHealthy", "desiredHealthy", "expectedPods"] {
        status.entry(field).or_insert_with(|| 0.into());
    }
    status.insert("disruptionsAllowed".into(), 0.into());
    budget::tell_failure(&mut status, now, why);
    status
}

fn write(plan: &mut Plan, budget: &Object, status: Map<String, Value>) {
    if status == old_status(budget) {
        return;
    }
    let mut next = Object::clone(budget);
    next.rest.insert("status".into(), status.into());
    plan.one(Action::update_status(&resources::POD_DISRUPTION_BUDGETS, next));
}

#[cfg(test)]
mod tests;
