//! The eviction subresource of pods, with disruption budgets.
#![expect(clippy::unwrap_used, clippy::indexing_slicing, reason = "test code outside of a test function")]

mod server;

use serde_json::{Value, json};
use server::Server;

const PODS: &str = "/api/v1/namespaces/default/pods";
const BUDGETS: &str = "/apis/policy/v1/namespaces/default/poddisruptionbudgets";

/// A pod on a node with this phase.
fn pod(s: &Server, name: &str, phase: &str, ready: bool) {
    let body = json!({"metadata": {"name": name, "labels": {"app": "web"}},
        "spec": {"nodeName": "w1", "containers": [{"name": "c", "image": "i"}]}});
    assert_eq!(s.post(PODS, &body).0, 201);
    let ready = if ready { "True" } else { "False" };
    let status = json!({"status": {"phase": phase, "conditions": [{"type": "Ready", "status": ready}]}});
    assert_eq!(s.merge(&format!("{PODS}/{name}/status"), &status).0, 200);
}

/// A budget whose status allows this.
fn budget(s: &Server, name: &str, spec: Value, allowed: i64, current: i64, desired: i64) {
    let mut spec = spec;
    if spec.get("selector").is_none() {
        spec["selector"] = json!({"matchLabels": {"app": "web"}});
    }
    let (code, made) = s.post(BUDGETS, &json!({"metadata": {"name": name}, "spec": spec}));
    assert_eq!(code, 201, "{made}");
    let status = json!({"status": {"observedGeneration": made["metadata"]["generation"], "disruptionsAllowed": allowed,
        "currentHealthy": current, "desiredHealthy": desired, "expectedPods": current}});
    assert_eq!(s.merge(&format!("{BUDGETS}/{name}/status"), &status).0, 200);
}

fn evict_with(s: &Server, name: &str, options: Value, query: &str) -> (u16, Value) {
    let body = json!({"apiVersion": "policy/v1", "kind": "Eviction", "metadata": {"name": name}, "deleteOptions": options});
    s.post(&format!("{PODS}/{name}/eviction{query}"), &body)
}

fn evict(s: &Server, name: &str) -> (u16, Value) {
    evict_with(s, name, json!({}), "")
}

fn is_going(s: &Server, name: &str) -> bool {
    s.get(&format!("{PODS}/{name}")).1.pointer("/metadata/deletionTimestamp").is_some()
}

fn allowed(s: &Server) -> (i64, Vec<String>) {
    let status = s.get(&format!("{BUDGETS}/b")).1["status"].clone();
    let pods = status["disruptedPods"].as_object().map(|m| m.keys().cloned().collect()).unwrap_or_default();
    (status["disruptionsAllowed"].as_i64().unwrap(), pods)
}

#[test]
fn a_budget_is_spent_pod_by_pod() {
    let s = Server::new();
    ["p", "q", "r"].iter().for_each(|name| pod(&s, name, "Running", true));
    budget(&s, "b", json!({"maxUnavailable": 1}), 1, 3, 2);
    let (code, done) = evict(&s, "p");
    assert_eq!((code, &done["status"], &done["code"]), (201, &json!("Success"), &json!(201)));
    assert!(is_going(&s, "p"));
    assert_eq!(allowed(&s), (0, vec!["p".into()]));
    let conditions = s.get(&format!("{BUDGETS}/b")).1["status"]["conditions"].clone();
    assert_eq!(
        (&conditions[0]["status"], &conditions[0]["reason"]),
        (&json!("False"), &json!("InsufficientPods"))
    );
    let target = s.get(&format!("{PODS}/p")).1["status"]["conditions"][1].clone();
    assert_eq!(
        (&target["type"], &target["status"], &target["reason"], &target["message"]),
        (
            &json!("DisruptionTarget"),
            &json!("True"),
            &json!("EvictionByEvictionAPI"),
            &json!("Eviction API: evicting")
        )
    );
    let (code, refused) = evict(&s, "q");
    assert_eq!(code, 429);
    assert_eq!(refused["message"], "Cannot evict pod as it would violate the pod's disruption budget.");
    assert_eq!(refused["reason"], "TooManyRequests");
    let cause = &refused["details"]["causes"][0];
    assert_eq!(cause["reason"], "DisruptionBudget");
    assert_eq!(cause["message"], "The disruption budget b needs 2 healthy pods and has 3 currently");
    assert!(!is_going(&s, "q"));
    // A pod that is on its way out is not guarded any more.
    assert_eq!(evict(&s, "p").0, 201);
    assert_eq!(allowed(&s), (0, vec!["p".into()]));
}

#[test]
fn a_changed_budget_refuses_until_it_is_computed_anew() {
    let s = Server::new();
    pod(&s, "p", "Running", true);
    budget(&s, "b", json!({"maxUnavailable": 1}), 1, 3, 2);
    assert_eq!(s.merge(&format!("{BUDGETS}/b"), &json!({"spec": {"maxUnavailable": 0}})).0, 200);
    let body = json!({"metadata": {"name": "p"}}).to_string();
    let refused = s.raw("POST", &format!("{PODS}/p/eviction"), "application/json", body);
    assert_eq!(refused.failure().0, 429);
    assert_eq!(refused.headers["retry-after"], "10");
    let causes = &refused.json()["details"]["causes"];
    assert_eq!(causes[0]["message"], "The disruption budget b is still being processed by the server.");
    assert!(!is_going(&s, "p"));
}

#[test]
fn two_budgets_are_one_too_many() {
    let s = Server::new();
    pod(&s, "p", "Running", true);
    budget(&s, "b", json!({"maxUnavailable": 1}), 1, 3, 2);
    // An empty selector is about every pod; one that is missing about none.
    budget(&s, "all", json!({"maxUnavailable": 1, "selector": {}}), 1, 3, 2);
    let (code, refused) = evict(&s, "p");
    assert_eq!((code, &refused["status"], refused.get("reason")), (500, &json!("Failure"), None));
    assert_eq!(
        refused["message"],
        "This pod has more than one PodDisruptionBudget, which the eviction subresource does not support."
    );
    assert_eq!(s.delete(&format!("{BUDGETS}/all"), &Value::Null).0, 200);
    let (code, none) = s.post(BUDGETS, &json!({"metadata": {"name": "none"}, "spec": {"maxUnavailable": 0}}));
    assert_eq!(code, 201, "{none}");
    assert_eq!(evict(&s, "p").0, 201);
}

#[test]
fn pods_that_do_not_run_and_pods_without_budget_just_go() {
    let s = Server::new();
    budget(&s, "b", json!({"maxUnavailable": 0}), 0, 0, 0);
    for (name, phase) in [("p", "Pending"), ("q", "Succeeded"), ("r", "Failed")] {
        pod(&s, name, phase, false);
        assert_eq!(evict(&s, name).0, 201);
        assert!(is_going(&s, name) || s.get(&format!("{PODS}/{name}")).0 == 404, "{name}");
    }
    pod(&s, "free", "Running", true);
    assert_eq!(evict(&s, "free").0, 429);
    assert_eq!(s.merge(&format!("{PODS}/free"), &json!({"metadata": {"labels": {"app": "other"}}})).0, 200);
    assert_eq!(evict(&s, "free").0, 201);
    assert_eq!(allowed(&s), (0, vec![]));
    assert_eq!(evict(&s, "nothing").0, 404);
}

#[test]
fn unready_pods_go_by_policy_and_are_not_counted() {
    for (policy, current, goes) in [
        (Value::Null, 2, true),
        (Value::Null, 1, false),
        (json!("IfHealthyBudget"), 1, false),
        (json!("AlwaysAllow"), 1, true),
    ] {
        let s = Server::new();
        pod(&s, "p", "Running", false);
        pod(&s, "healthy", "Running", true);
        let mut spec = json!({"maxUnavailable": 1});
        if !policy.is_null() {
            spec["unhealthyPodEvictionPolicy"] = policy.clone();
        }
        budget(&s, "b", spec, 0, current, 2);
        let (code, answer) = evict(&s, "p");
        assert_eq!(code, if goes { 201 } else { 429 }, "{policy} {answer}");
        assert_eq!((is_going(&s, "p"), allowed(&s)), (goes, (0, vec![])), "{policy}");
        // Whatever the policy, a pod that is ready is guarded.
        assert_eq!(evict(&s, "healthy").0, 429);
    }
}

#[test]
fn a_dry_run_judges_and_changes_nothing() {
    let s = Server::new();
    pod(&s, "p", "Running", true);
    budget(&s, "b", json!({"maxUnavailable": 1}), 1, 3, 2);
    let before = (s.get(&format!("{PODS}/p")), s.get(&format!("{BUDGETS}/b")));
    assert_eq!(evict_with(&s, "p", json!({}), "?dryRun=All").0, 201);
    assert_eq!(evict_with(&s, "p", json!({"dryRun": ["All"]}), "").0, 201);
    assert_eq!((s.get(&format!("{PODS}/p")), s.get(&format!("{BUDGETS}/b"))), before);
    let none = json!({"status": {"disruptionsAllowed": 0}});
    assert_eq!(s.merge(&format!("{BUDGETS}/b/status"), &none).0, 200);
    assert_eq!(evict_with(&s, "p", json!({}), "?dryRun=All").0, 429);
}

#[test]
fn preconditions_hold_for_the_pod_that_was_meant() {
    let s = Server::new();
    pod(&s, "p", "Running", true);
    pod(&s, "q", "Pending", false);
    for name in ["p", "q"] {
        let meta = s.get(&format!("{PODS}/{name}")).1["metadata"].clone();
        for wrong in [json!({"uid": "other"}), json!({"resourceVersion": "1"})] {
            let (code, refused) = evict_with(&s, name, json!({"preconditions": wrong}), "");
            assert_eq!((code, &refused["reason"]), (409, &json!("Conflict")), "{refused}");
            assert!(refused["message"].as_str().unwrap().contains("in the precondition"), "{refused}");
            assert!(!is_going(&s, name));
        }
        let right = json!({"uid": meta["uid"], "resourceVersion": meta["resourceVersion"]});
        assert_eq!(evict_with(&s, name, json!({"preconditions": right}), "").0, 201);
    }
}

#[test]
fn an_eviction_names_the_pod_of_its_path() {
    let s = Server::new();
    pod(&s, "p", "Running", true);
    let path = format!("{PODS}/p/eviction");
    for body in [json!({"metadata": {"name": "q"}}), json!({"metadata": {}}), json!({})] {
        let (code, refused) = s.post(&path, &body);
        assert_eq!(
            (code, &refused["message"]),
            (400, &json!("name in URL does not match name in Eviction object"))
        );
    }
    let (code, _) = s.post(&path, &json!({"metadata": {"name": "p", "namespace": "other"}}));
    assert_eq!(code, 400);
    assert!(!is_going(&s, "p"));
}
