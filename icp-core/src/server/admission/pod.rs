//! What admission does to pods, nodes and definitions, as functions.

use alloc::format;
use alloc::string::{String, ToString};
use alloc::vec::Vec;

use serde_json::{Value, json};

use crate::api::set_at;
use crate::base::Time;

/// Where containers find the token.
const TOKEN_PATH: &str = "/var/run/secrets/kubernetes.io/serviceaccount";
/// How long a pod stays on a node that is not ready or not reachable.
const TOLERATION_SECS: i64 = 300;
/// Life of a projected token, in seconds, with a minute of slack for rotation (`serviceaccount/admission.go`).
const PROJECTED_TOKEN_SECS: i64 = 3_607;

fn array<'a>(object: &'a Value, pointer: &str) -> impl Iterator<Item = &'a Value> {
    object.pointer(pointer).and_then(Value::as_array).into_iter().flatten()
}

/// The name of a pod's service account, set to `default` if there is none.
pub(super) fn service_account_name(pod: &mut Value) -> String {
    let named = pod.pointer("/spec/serviceAccountName").or_else(|| pod.pointer("/spec/serviceAccount"));
    let name = named.and_then(Value::as_str).filter(|n| !n.is_empty()).unwrap_or("default").to_string();
    if let Some(spec) = pod.get_mut("spec").and_then(Value::as_object_mut) {
        spec.insert("serviceAccountName".into(), name.as_str().into());
        spec.insert("serviceAccount".into(), name.as_str().into());
    }
    name
}

/// Mounts a projected token into every container that mounts nothing at its place, unless the pod or the account
/// says not to.
pub(super) fn mount_token(pod: &mut Value, account: Option<&Value>, suffix: &str) {
    let auto =
        |v: Option<&Value>| v.and_then(|v| v.get("automountServiceAccountToken")).and_then(Value::as_bool);
    if !auto(pod.get("spec")).or_else(|| auto(account)).unwrap_or(true) {
        return;
    }
    if let Some(secrets) = account
        .and_then(|a| a.get("imagePullSecrets"))
        .filter(|s| s.as_array().is_some_and(|l| !l.is_empty()))
        && array(pod, "/spec/imagePullSecrets").next().is_none()
    {
        set_at(pod, &["spec", "imagePullSecrets"], secrets.clone());
    }
    let existing = array(pod, "/spec/volumes")
        .filter_map(|v| v.get("name").and_then(Value::as_str))
        .find(|n| n.starts_with("kube-api-access-"))
        .map(ToString::to_string);
    let volume = existing.clone().unwrap_or_else(|| format!("kube-api-access-{suffix}"));
    let mut mounted = false;
    for field in ["initContainers", "containers"] {
        let list = pod.pointer_mut(&format!("/spec/{field}")).and_then(Value::as_array_mut);
        for container in list.into_iter().flatten() {
            if array(container, "/volumeMounts")
                .any(|m| m.get("mountPath").and_then(Value::as_str) == Some(TOKEN_PATH))
            {
                continue;
            }
            let mount = json!({ "name": volume, "readOnly": true, "mountPath": TOKEN_PATH });
            let mut mounts: Vec<Value> = array(container, "/volumeMounts").cloned().collect();
            mounts.push(mount);
            set_at(container, &["volumeMounts"], mounts);
            mounted = true;
        }
    }
    if mounted && existing.is_none() {
        let mut volumes: Vec<Value> = array(pod, "/spec/volumes").cloned().collect();
        volumes.push(json!({ "name": volume, "projected": { "defaultMode": 420, "sources": [
            { "serviceAccountToken": { "expirationSeconds": PROJECTED_TOKEN_SECS, "path": "token" } },
            { "configMap": { "name": "kube-root-ca.crt", "items": [{ "key": "ca.crt", "path": "ca.crt" }] } },
            { "downwardAPI": { "items": [
                { "path": "namespace", "fieldRef": { "apiVersion": "v1", "fieldPath": "metadata.namespace" } },
            ] } },
        ] } }));
        set_at(pod, &["spec", "volumes"], volumes);
    }
}

/// Writes the value of a priority class into a pod or a pod group (`plugin/pkg/admission/priority`).
pub(super) fn set_priority_value(
    object: &mut Value,
    class: Option<&Value>,
    what: &str,
) -> Result<(), String> {
    let value = class.and_then(|c| c.get("value")).and_then(Value::as_i64).unwrap_or(0);
    let asked = object.pointer("/spec/priority").and_then(Value::as_i64);
    if asked.is_some_and(|asked| asked != value) {
        return Err(format!(
            "the integer value of priority ({}) must not be provided in {what} spec; priority admission controller computed {value} from the given PriorityClass name",
            asked.unwrap_or(0)
        ));
    }
    if let Some(spec) = object.get_mut("spec").and_then(Value::as_object_mut) {
        spec.insert("priority".into(), value.into());
        if let Some(class) = class {
            spec.insert("priorityClassName".into(), crate::server::codec::meta_str(class, "name").into());
        }
    }
    Ok(())
}

/// Writes a priority class into a pod.
pub(super) fn set_priority(pod: &mut Value, class: Option<&Value>) -> Result<(), String> {
    let policy = class.and_then(|c| c.get("preemptionPolicy")).and_then(Value::as_str);
    let policy = policy.unwrap_or("PreemptLowerPriority").to_string();
    set_priority_value(pod, class, "pod")?;
    let own = pod.pointer("/spec/preemptionPolicy").and_then(Value::as_str);
    if own.is_some_and(|own| own != policy) {
        return Err(format!(
            "the string value of PreemptionPolicy ({}) must not be provided in pod spec; priority admission controller computed {policy} from the given PriorityClass name",
            own.unwrap_or("")
        ));
    }
    if let Some(spec) = pod.get_mut("spec").and_then(Value::as_object_mut) {
        spec.insert("preemptionPolicy".into(), policy.into());
    }
    Ok(())
}

/// Lets a pod stay five minutes on a node that is not ready or not reachable, unless it says otherwise.
pub(super) fn default_tolerations(pod: &mut Value) {
    let mut tolerations: Vec<Value> = array(pod, "/spec/tolerations").cloned().collect();
    for key in ["node.kubernetes.io/not-ready", "node.kubernetes.io/unreachable"] {
        let covers = |t: &Value| {
            let text = |f: &str| t.get(f).and_then(Value::as_str).unwrap_or("");
            (text("key") == key || text("key").is_empty()) && matches!(text("effect"), "" | "NoExecute")
        };
        if !tolerations.iter().any(covers) {
            tolerations.push(json!({
                "key": key, "operator": "Exists", "effect": "NoExecute", "tolerationSeconds": TOLERATION_SECS,
            }));
        }
    }
    set_at(pod, &["spec", "tolerations"], tolerations);
}

/// A new node takes no pods until it says that it is ready (`TaintNodesByCondition`).
pub(super) fn taint_new_node(node: &mut Value) {
    let key = "node.kubernetes.io/not-ready";
    let mut taints: Vec<Value> = array(node, "/spec/taints").cloned().collect();
    if !taints.iter().any(|t| t.get("key").and_then(Value::as_str) == Some(key)) {
        taints.push(json!({ "key": key, "effect": "NoSchedule" }));
        set_at(node, &["spec", "taints"], taints);
    }
}

/// Accepts the names of a custom resource definition and declares it established.
pub(super) fn establish(definition: &mut Value, now: Time) {
    let mut names = definition.pointer("/spec/names").cloned().unwrap_or_else(|| json!({}));
    let kind = names.get("kind").and_then(Value::as_str).unwrap_or("").to_string();
    if let Some(map) = names.as_object_mut() {
        map.entry("listKind").or_insert_with(|| format!("{kind}List").into());
        map.entry("singular").or_insert_with(|| kind.to_lowercase().into());
    }
    set_at(definition, &["spec", "names"], names.clone());
    let at = now.to_rfc3339();
    let known = array(definition, "/status/conditions").cloned().collect::<Vec<_>>();
    let since = |kind: &str| {
        let of = known.iter().find(|c| c.get("type").and_then(Value::as_str) == Some(kind));
        of.and_then(|c| c.get("lastTransitionTime")).and_then(Value::as_str).unwrap_or(&at).to_string()
    };
    let condition = |kind: &str, reason: &str, message: &str| json!({ "type": kind, "status": "True", "reason": reason, "message": message, "lastTransitionTime": since(kind) });
    // A version that was stored once may still be in the store: it stays in the list.
    let mut stored: Vec<Value> = array(definition, "/status/storedVersions").cloned().collect();
    let storing =
        array(definition, "/spec/versions").filter(|v| v.get("storage") == Some(&Value::Bool(true)));
    for name in storing.filter_map(|v| v.get("name")) {
        if !stored.contains(name) {
            stored.push(name.clone());
        }
    }
    let mut conditions = alloc::vec![
        condition("NamesAccepted", "NoConflicts", "no conflicts found"),
        condition("Established", "InitialNamesAccepted", "the initial names have been accepted"),
    ];
    let is_new = |c: &&Value| conditions.iter().all(|own| own.get("type") != c.get("type"));
    let others: Vec<Value> = known.iter().filter(is_new).cloned().collect();
    conditions.extend(others);
    set_at(
        definition,
        &["status"],
        json!({ "acceptedNames": names, "storedVersions": stored, "conditions": conditions }),
    );
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pod() -> Value {
        json!({"metadata":{"name":"p"},"spec":{"containers":[{"name":"c"}]}})
    }

    #[test]
    fn the_token_is_mounted_once_and_only_if_wanted() {
        let mut p = pod();
        assert_eq!(service_account_name(&mut p), "default");
        mount_token(&mut p, None, "abcde");
        assert_eq!(p["spec"]["containers"][0]["volumeMounts"][0]["mountPath"], TOKEN_PATH);
        assert_eq!(p["spec"]["volumes"].as_array().unwrap().len(), 1);
        let once = p.clone();
        mount_token(&mut p, None, "fghij");
        assert_eq!(p, once);
        let mut off = pod();
        mount_token(&mut off, Some(&json!({"automountServiceAccountToken":false})), "x");
        assert!(off["spec"].get("volumes").is_none());
    }

    #[test]
    fn priorities_come_from_the_class_alone() {
        let class = json!({"metadata":{"name":"high"},"value":1000,"preemptionPolicy":"Never"});
        let mut p = pod();
        set_priority(&mut p, Some(&class)).unwrap();
        assert_eq!(p["spec"]["priority"], 1000);
        assert_eq!(p["spec"]["preemptionPolicy"], "Never");
        let mut asks = pod();
        asks["spec"]["priority"] = 5.into();
        assert!(set_priority(&mut asks, None).is_err());
    }

    #[test]
    fn tolerations_are_added_where_none_covers() {
        let mut p = pod();
        p["spec"]["tolerations"] =
            json!([{"key":"node.kubernetes.io/not-ready","operator":"Exists","effect":"NoExecute"}]);
        default_tolerations(&mut p);
        let list = p["spec"]["tolerations"].as_array().unwrap();
        assert_eq!(list.len(), 2);
        assert_eq!(list[1]["key"], "node.kubernetes.io/unreachable");
        let mut all = pod();
        all["spec"]["tolerations"] = json!([{"operator":"Exists"}]);
        default_tolerations(&mut all);
        assert_eq!(all["spec"]["tolerations"].as_array().unwrap().len(), 1);
    }
}
