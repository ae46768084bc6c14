//! Evictions: deletions that a disruption budget may refuse (`registry/core/pod/storage/eviction.go`).

use alloc::boxed::Box;
use alloc::format;
use alloc::vec::Vec;

use http::Response;
use serde_json::{Value, json};

use super::context::Context;
use super::plan::DeleteOptions;
use super::write::Change;
use super::{Body, codec, failure, store};
use crate::api::labels::Selector;
use crate::api::resources::POD_DISRUPTION_BUDGETS;
use crate::api::{Gvk, Status, StatusCause, set_at};

/// Most pods that a budget may have under way.
const DISRUPTED_PODS_MAX: usize = 2_000;

/// Whether a pod may go without a look at budgets: it never ran, or runs no more.
fn is_free(pod: &Value) -> bool {
    let phase = pod.pointer("/status/phase").and_then(Value::as_str).unwrap_or("");
    matches!(phase, "Pending" | "Succeeded" | "Failed")
        || pod.pointer("/metadata/deletionTimestamp").is_some()
}

fn is_ready(pod: &Value) -> bool {
    let conditions = pod.pointer("/status/conditions").and_then(Value::as_array);
    conditions.into_iter().flatten().any(|c| {
        c.get("type").and_then(Value::as_str) == Some("Ready")
            && c.get("status").and_then(Value::as_str) == Some("True")
    })
}

/// The budget after one more disruption, or why there may be none.
fn disrupt(budget: &Value, pod: &str, now: &str) -> Result<Value, Status> {
    let number = |p: &str| budget.pointer(p).and_then(Value::as_i64).unwrap_or(0);
    let name = codec::meta_str(budget, "name");
    let disrupted = budget.pointer("/status/disruptedPods").and_then(Value::as_object).map_or(0, |m| m.len());
    let refuse = |cause: alloc::string::String| {
        let mut status = failure::too_many_requests(
            "Cannot evict pod as it would violate the pod's disruption budget.",
            0,
        );
        if let Some(details) = &mut status.details {
            details.causes = alloc::vec![StatusCause {
                reason: "DisruptionBudget".into(),
                message: cause,
                ..StatusCause::default()
            }];
        }
        Err(status)
    };
    if number("/status/observedGeneration") < number("/metadata/generation") {
        return refuse(format!("The disruption budget {name} is still being processed by the server."));
    }
    if number("/status/disruptionsAllowed") <= 0 || disrupted >= DISRUPTED_PODS_MAX {
        return refuse(format!(
            "The disruption budget {name} needs {} healthy pods and has {} currently",
            number("/status/desiredHealthy"),
            number("/status/currentHealthy")
        ));
    }
    let mut new = budget.clone();
    set_at(&mut new, &["status", "disruptionsAllowed"], number("/status/disruptionsAllowed") - 1);
    set_at(&mut new, &["status", "disruptedPods", pod], now);
    Ok(new)
}

impl Context {
    pub(super) async fn evict(&mut self, body: &[u8]) -> Result<Response<Body>, Status> {
        let eviction = self.decode_other(body, &Gvk::new("policy", "v1", "Eviction"))?;
        let options = eviction.get("deleteOptions").cloned().unwrap_or_else(|| json!({}));
        let mut options: DeleteOptions =
            self.delete_options(&serde_json::to_vec(&options).unwrap_or_default())?;
        let pod = self.current().await?;
        let name = self.request.name.clone();
        if !is_free(&pod) {
            let budgets = self.budgets(&pod).await?;
            if budgets.len() > 1 {
                return Err(failure::internal(
                    "This pod has more than one PodDisruptionBudget, which the eviction subresource does not support.",
                ));
            }
            if let Some(budget) = budgets.first() {
                self.charge(budget, &pod, options.dry_run).await?;
                // The pod that was counted is the pod that goes.
                if options.uid.is_none() {
                    options.uid = Some(codec::meta_str(&pod, "uid").into());
                }
            }
        }
        self.remove(&name, &options).await?;
        let status = Status { code: 201, ..Status::default() };
        Ok(self.respond_value(201, &serde_json::to_value(status).unwrap_or_default()))
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

    async fn charge(&self, budget: &Value, pod: &Value, dry_run: bool) -> Result<(), Status> {
        let healthy = |p: &str| budget.pointer(p).and_then(Value::as_i64).unwrap_or(0);
        let always =
            budget.pointer("/spec/unhealthyPodEvictionPolicy").and_then(Value::as_str) == Some("AlwaysAllow");
        let enough = healthy("/status/currentHealthy") >= healthy("/status/desiredHealthy")
            && healthy("/status/desiredHealthy") > 0;
        if !is_ready(pod) && (always || enough) {
            return Ok(());
        }
        let (name, now) = (self.request.name.clone(), self.now.to_rfc3339());
        disrupt(budget, &name, &now)?;
        if dry_run {
            return Ok(());
        }
        let info = store::builtin(&POD_DISRUPTION_BUDGETS).ok_or_else(failure::no_such_path)?;
        let mut context =
            Self::internal(&self.server, info, self.namespace(), codec::meta_str(budget, "name"));
        context.request.subresource = "status".into();
        let change = Change::With(Box::new(move |old| disrupt(old, &name, &now)));
        context.change(&change).await.map(|_| ())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_budget_is_spent_and_then_refuses() {
        let budget = json!({"metadata":{"name":"b","generation":1},
            "status":{"observedGeneration":1,"disruptionsAllowed":1,"desiredHealthy":2,"currentHealthy":3}});
        let spent = disrupt(&budget, "p", "t").unwrap();
        assert_eq!(spent["status"]["disruptionsAllowed"], 0);
        assert_eq!(spent["status"]["disruptedPods"]["p"], "t");
        let refused = disrupt(&spent, "q", "t").unwrap_err();
        assert_eq!(refused.code, 429);
        assert_eq!(
            refused.details.unwrap().causes[0].message,
            "The disruption budget b needs 2 healthy pods and has 3 currently"
        );
        let stale =
            json!({"metadata":{"generation":2},"status":{"observedGeneration":1,"disruptionsAllowed":1}});
        assert!(disrupt(&stale, "p", "t").is_err());
    }
}
