//! Evictions: deletions that a disruption budget may refuse (`registry/core/pod/storage/eviction.go`).

use alloc::boxed::Box;
use alloc::format;
use alloc::string::{String, ToString};
use alloc::vec::Vec;

use http::Response;
use serde_json::{Value, json};

use super::context::Context;
use super::input::Input;
use super::plan::{self, DeleteOptions};
use super::write::{Change, TRIES_MAX};
use super::{Body, codec, failure, store};
use crate::api::labels::Selector;
use crate::api::resources::POD_DISRUPTION_BUDGETS;
use crate::api::{Gvk, Status, StatusCause, StatusDetails, budget, reason, set_at};
use crate::base::Time;

/// Most evictions of a budget that its controller may not have seen.
const DISRUPTED_PODS_MAX: usize = 2_000;
/// When to try again while a budget is behind, in seconds.
const RETRY_SECS: u32 = 10;

/// Whether a pod runs no more, or is on its way out.
fn is_over(pod: &Value) -> bool {
    let phase = pod.pointer("/status/phase").and_then(Value::as_str).unwrap_or("");
    matches!(phase, "Succeeded" | "Failed") || pod.pointer("/metadata/deletionTimestamp").is_some()
}

/// Whether a pod may go without a look at budgets: it is over, or never ran.
fn is_free(pod: &Value) -> bool {
    is_over(pod) || pod.pointer("/status/phase").is_some_and(|p| p == "Pending")
}

fn conditions(object: &Value) -> impl Iterator<Item = &Value> {
    object.pointer("/status/conditions").and_then(Value::as_array).into_iter().flatten()
}

fn is_ready(pod: &Value) -> bool {
    conditions(pod)
        .any(|c| c.get("type").is_some_and(|t| t == "Ready") && c.get("status").is_some_and(|s| s == "True"))
}

fn number(budget: &Value, pointer: &str) -> i64 {
    budget.pointer(pointer).and_then(Value::as_i64).unwrap_or(0)
}

/// Whether a pod that is not ready may go without being counted, because it was not counted as healthy either: always
/// if `unhealthyPodEvictionPolicy` says so, else while there are enough healthy pods.
fn lets_unready_go(budget: &Value) -> bool {
    let policy = budget.pointer("/spec/unhealthyPodEvictionPolicy");
    let desired = number(budget, "/status/desiredHealthy");
    policy.is_some_and(|p| p == "AlwaysAllow")
        || (number(budget, "/status/currentHealthy") >= desired && desired > 0)
}

fn refusal(why: String, retry_secs: u32) -> Status {
    let text = "Cannot evict pod as it would violate the pod's disruption budget.";
    let mut status = failure::too_many_requests(text, retry_secs);
    if let Some(details) = &mut status.details {
        details.causes = alloc::vec![StatusCause {
            reason: "DisruptionBudget".into(),
            message: why,
            ..StatusCause::default()
        }];
    }
    status
}

fn still_processed(budget: &str) -> Status {
    refusal(format!("The disruption budget {budget} is still being processed by the server."), RETRY_SECS)
}

fn forbidden(budget: &str, why: &str) -> Status {
    let message = format!("poddisruptionbudget.policy {budget:?} is forbidden: {why}");
    Status {
        details: Some(StatusDetails {
            name: budget.into(),
            group: "policy".into(),
            kind: "poddisruptionbudget".into(),
            ..StatusDetails::default()
        }),
        ..Status::failure(403, reason::FORBIDDEN, message)
    }
}

/// The budget after one more disruption, or why there may be none.
fn disrupt(budget: &Value, pod: &str, now: Time) -> Result<Value, Status> {
    let name = codec::meta_str(budget, "name");
    let disrupted = budget.pointer("/status/disruptedPods").and_then(Value::as_object).map_or(0, |m| m.len());
    let allowed = number(budget, "/status/disruptionsAllowed");
    if number(budget, "/status/observedGeneration") < number(budget, "/metadata/generation") {
        return Err(still_processed(name));
    }
    if allowed < 0 {
        return Err(forbidden(name, "pdb disruptions allowed is negative"));
    }
    if disrupted > DISRUPTED_PODS_MAX {
        let why = "DisruptedPods map too big - too many evictions not confirmed by PDB controller";
        return Err(forbidden(name, why));
    }
    if allowed == 0 {
        let desired = number(budget, "/status/desiredHealthy");
        let current = number(budget, "/status/currentHealthy");
        let why =
            format!("The disruption budget {name} needs {desired} healthy pods and has {current} currently");
        return Err(refusal(why, 0));
    }
    let mut new = budget.clone();
    set_at(&mut new, &["status", "disruptionsAllowed"], allowed - 1);
    if let Some(status) = new.get_mut("status").and_then(Value::as_object_mut).filter(|_| allowed == 1) {
        budget::tell_allowed(status, now);
    }
    // The controller must not count a pod as healthy that is about to be deleted.
    set_at(&mut new, &["status", "disruptedPods", pod], now.to_rfc3339());
    Ok(new)
}

/// The pod with the condition that says why it is about to go (KEP-3329).
fn targeted(pod: &Value, now: Time) -> Value {
    let mut all: Vec<Value> = conditions(pod).cloned().collect();
    let mut new = json!({
        "type": "DisruptionTarget", "status": "True", "reason": "EvictionByEvictionAPI",
        "message": "Eviction API: evicting", "lastTransitionTime": now.to_rfc3339(),
    });
    match all.iter_mut().find(|c| c.get("type").is_some_and(|t| t == "DisruptionTarget")) {
        Some(old) => {
            if let Some(since) =
                old.get("lastTransitionTime").filter(|_| old.get("status") == new.get("status"))
            {
                let since = since.clone();
                set_at(&mut new, &["lastTransitionTime"], since);
            }
            *old = new;
        }
        None => all.push(new),
    }
    let mut pod = pod.clone();
    set_at(&mut pod, &["status", "conditions"], all);
    pod
}

/// Whether the pod is the one, and of the version, that the options name.
fn preconditions(pod: &Value, options: &DeleteOptions) -> Result<(), Status> {
    let name = codec::meta_str(pod, "name");
    let check = |asked: &Option<String>, field: &str, word: &str, what: &str| {
        let found = codec::meta_str(pod, field);
        let Some(asked) = asked.as_deref().filter(|a| !a.is_empty() && *a != found) else { return Ok(()) };
        let message = format!(
            "Operation cannot be fulfilled on Pod {name:?}: the {word} in the precondition ({asked}) does not match the {word} \
             in record ({found}). The object might have been {what}"
        );
        let details = StatusDetails { name: name.into(), kind: "Pod".into(), ..StatusDetails::default() };
        Err(Status { details: Some(details), ..Status::failure(409, reason::CONFLICT, message) })
    };
    check(&options.uid, "uid", "UID", "deleted and then recreated")?;
    check(&options.resource_version, "resourceVersion", "ResourceVersion", "modified")
}

impl Context {
    pub(super) async fn evict(&mut self, body: &Input) -> Result<Response<Body>, Status> {
        let mut eviction = self.decode_other(body, &Gvk::new("policy", "v1", "Eviction"))?;
        plan::identify(&self.info, self.namespace(), "", &mut eviction)?;
        if codec::meta_str(&eviction, "name") != self.request.name {
            return Err(failure::bad_request("name in URL does not match name in Eviction object"));
        }
        let options = eviction.get("deleteOptions").cloned().unwrap_or_else(|| json!({}));
        let options =
            self.delete_options(&Input::Bytes(serde_json::to_vec(&options).unwrap_or_default().into()))?;
        self.evict_pod(&options).await?;
        let status = Status { code: 201, ..Status::default() };
        Ok(self.respond_value(201, &serde_json::to_value(status).unwrap_or_default()))
    }

    async fn evict_pod(&self, options: &DeleteOptions) -> Result<(), Status> {
        let mut tries = 1;
        loop {
            let pod = self.current().await?;
            if !is_free(&pod) {
                return self.evict_guarded(&pod, options).await;
            }
            let mut exact = options.clone();
            if !is_over(&pod) && exact.resource_version.is_none() {
                // It may begin to run, and be counted by a budget, before it is deleted.
                exact.resource_version = Some(codec::meta_str(&pod, "resourceVersion").into());
            }
            match self.target_and_remove(exact).await {
                Err(status)
                    if status.is(reason::CONFLICT)
                        && options.resource_version.is_none()
                        && tries < TRIES_MAX =>
                {
                    tries += 1;
                }
                other => return other,
            }
        }
    }

    /// Evicts a pod that a budget may guard.
    async fn evict_guarded(&self, pod: &Value, options: &DeleteOptions) -> Result<(), Status> {
        let mut options = options.clone();
        // The budget that lets the pod go as it is and not once it is ready.
        let mut as_it_is = None;
        match self.budgets(pod).await?.as_slice() {
            [] => {}
            [budget] if !is_ready(pod) && lets_unready_go(budget) => {
                if options.resource_version.is_none() {
                    options.resource_version = Some(codec::meta_str(pod, "resourceVersion").into());
                    as_it_is = Some(codec::meta_str(budget, "name").to_string());
                }
            }
            [budget] => {
                self.charge(budget, options.dry_run).await?;
                // The pod that was counted is the pod that goes.
                options.uid.get_or_insert_with(|| codec::meta_str(pod, "uid").into());
            }
            _ => {
                return Err(Status::failure(
                    500,
                    "",
                    "This pod has more than one PodDisruptionBudget, which the eviction subresource does not support.",
                ));
            }
        }
        match (self.target_and_remove(options).await, as_it_is) {
            (Err(status), Some(budget)) if status.is(reason::CONFLICT) => Err(still_processed(&budget)),
            (result, _) => result,
        }
    }

    /// Gives the pod its condition and deletes it.
    async fn target_and_remove(&self, mut options: DeleteOptions) -> Result<(), Status> {
        let name = &self.request.name;
        if !options.dry_run {
            let (asked, now) = (options.clone(), self.now);
            let mut context = Self::internal(&self.server, &self.info, self.namespace(), name);
            context.request.subresource = "status".into();
            let change = Change::With(Box::new(move |old| {
                preconditions(old, &asked)?;
                Ok(targeted(old, now))
            }));
            let written = context.change(&change).await?;
            // It is this write itself that made a new version.
            options.resource_version = options.resource_version.map(|_| written.revision.to_string());
        }
        self.remove(name, &options).await.map(|_| ())
    }

    async fn budgets(&self, pod: &Value) -> Result<Vec<Value>, Status> {
        let budgets = self.server.objects(&POD_DISRUPTION_BUDGETS, Some(self.namespace())).await?;
        let selects = |budget: &Value| {
            budget.pointer("/spec/selector").is_some_and(|s| {
                Selector::from_label_selector(s).is_ok_and(|selector| selector.matches_object(pod))
            })
        };
        Ok(budgets.into_iter().filter(selects).collect())
    }

    /// Takes one disruption of the budget for the pod of the request.
    async fn charge(&self, budget: &Value, dry_run: bool) -> Result<(), Status> {
        let (name, now) = (self.request.name.clone(), self.now);
        if dry_run {
            return disrupt(budget, &name, now).map(|_| ());
        }
        let info = store::builtin(&POD_DISRUPTION_BUDGETS).ok_or_else(failure::no_such_path)?;
        let mut context =
            Self::internal(&self.server, info, self.namespace(), codec::meta_str(budget, "name"));
        context.request.subresource = "status".into();
        let change = Change::With(Box::new(move |old| disrupt(old, &name, now)));
        context.change(&change).await.map(|_| ())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOW: Time = Time::from_secs(60);

    fn budget(generation: i64, status: Value) -> Value {
        json!({"metadata": {"name": "b", "generation": generation}, "status": status})
    }

    fn cause(status: &Status) -> &str {
        let cause = &status.details.as_ref().unwrap().causes[0];
        assert_eq!((status.code, cause.reason.as_str()), (429, "DisruptionBudget"));
        assert_eq!(status.message, "Cannot evict pod as it would violate the pod's disruption budget.");
        &cause.message
    }

    #[test]
    fn a_budget_is_spent_and_then_refuses() {
        let full = json!({"observedGeneration": 1, "disruptionsAllowed": 2, "desiredHealthy": 2, "currentHealthy": 4,
            "conditions": [{"type": "DisruptionAllowed", "status": "True", "reason": "SufficientPods"}]});
        let spent = disrupt(&budget(1, full), "p", NOW).unwrap();
        assert_eq!(spent["status"]["disruptionsAllowed"], 1);
        assert_eq!(spent["status"]["disruptedPods"], json!({"p": "1970-01-01T00:01:00Z"}));
        assert_eq!(spent["status"]["conditions"][0]["status"], "True");
        let spent = disrupt(&spent, "q", NOW).unwrap();
        assert_eq!(spent["status"]["disruptedPods"].as_object().unwrap().len(), 2);
        let condition = &spent["status"]["conditions"][0];
        assert_eq!(
            (&condition["status"], &condition["reason"]),
            (&json!("False"), &json!("InsufficientPods"))
        );
        let refused = disrupt(&spent, "r", NOW).unwrap_err();
        assert_eq!(cause(&refused), "The disruption budget b needs 2 healthy pods and has 4 currently");
        assert_eq!(refused.details.unwrap().retry_after_seconds, 0);
    }

    #[test]
    fn a_budget_that_is_behind_or_odd_refuses() {
        let refused =
            disrupt(&budget(2, json!({"observedGeneration": 1, "disruptionsAllowed": 1})), "p", NOW)
                .unwrap_err();
        assert_eq!(cause(&refused), "The disruption budget b is still being processed by the server.");
        assert_eq!(refused.details.unwrap().retry_after_seconds, 10);
        // Nothing computed a status yet.
        assert_eq!(disrupt(&budget(1, Value::Null), "p", NOW).unwrap_err().code, 429);
        let negative = disrupt(&budget(0, json!({"disruptionsAllowed": -1})), "p", NOW).unwrap_err();
        assert_eq!(
            (negative.code, negative.message.as_str()),
            (403, "poddisruptionbudget.policy \"b\" is forbidden: pdb disruptions allowed is negative")
        );
        let pods = |n: usize| -> serde_json::Map<String, Value> {
            (0..n).map(|i| (format!("p{i}"), json!("1970-01-01T00:00:00Z"))).collect()
        };
        let with = |n: usize| budget(0, json!({"disruptionsAllowed": 1, "disruptedPods": pods(n)}));
        assert!(disrupt(&with(2_000), "p", NOW).is_ok());
        assert_eq!(disrupt(&with(2_001), "p", NOW).unwrap_err().code, 403);
    }

    #[test]
    fn unready_pods_go_if_the_policy_or_the_figures_let_them() {
        let of = |policy: Option<&str>, current: i64, desired: i64| {
            json!({"spec": {"unhealthyPodEvictionPolicy": policy},
                "status": {"currentHealthy": current, "desiredHealthy": desired}})
        };
        for (policy, current, desired, want) in [
            (None, 3, 3, true),
            (None, 2, 3, false),
            (None, 0, 0, false),
            (Some("IfHealthyBudget"), 3, 3, true),
            (Some("IfHealthyBudget"), 2, 3, false),
            (Some("AlwaysAllow"), 2, 3, true),
            (Some("AlwaysAllow"), 0, 0, true),
        ] {
            assert_eq!(
                lets_unready_go(&of(policy, current, desired)),
                want,
                "{policy:?} {current} {desired}"
            );
        }
    }

    #[test]
    fn a_target_says_why_and_since_when() {
        let pod = json!({"status": {"conditions": [{"type": "Ready", "status": "True"}]}});
        let first = targeted(&pod, NOW);
        assert_eq!(first["status"]["conditions"][0], pod["status"]["conditions"][0]);
        let condition = &first["status"]["conditions"][1];
        assert_eq!(condition["reason"], "EvictionByEvictionAPI");
        assert_eq!(targeted(&first, Time::from_secs(99)), first);
        let mut past = first.clone();
        past["status"]["conditions"][1]["status"] = json!("False");
        let again = targeted(&past, Time::from_secs(99));
        assert_eq!(again["status"]["conditions"][1]["lastTransitionTime"], "1970-01-01T00:01:39Z");
    }
}
