//! The decisions of writes, as functions of what was observed.

use alloc::format;
use alloc::string::{String, ToString};
use alloc::vec::Vec;

use serde_json::{Value, json};

use super::codec::{meta_str, metadata_mut};
use super::failure;
use crate::api::table::ResourceInfo;
use crate::api::{FieldError, Status, invalid, set_at};
use crate::base::Time;

/// `metav1.DeleteOptions`, as far as they decide.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct DeleteOptions {
    pub(super) grace_secs: Option<i64>,
    pub(super) uid: Option<String>,
    pub(super) resource_version: Option<String>,
    pub(super) propagation: Option<String>,
    pub(super) dry_run: bool,
}

/// What a deletion does to a stored object.
#[derive(Clone, Debug, PartialEq)]
pub(super) enum Deletion {
    /// It goes.
    Remove,
    /// It stays, marked: finalizers or a grace period hold it.
    Mark(Value),
    /// It is marked already, and nothing changes.
    Keep,
}

/// Gives an object the namespace of the request, and checks that the two agree.
pub(super) fn identify(
    info: &ResourceInfo,
    namespace: &str,
    name: &str,
    object: &mut Value,
) -> Result<(), Status> {
    let Some(meta) = metadata_mut(object) else {
        return Err(failure::bad_request("the object is not a JSON object with metadata"));
    };
    let text = |v: Option<&Value>| v.and_then(Value::as_str).unwrap_or("").to_string();
    let own = text(meta.get("namespace"));
    if info.namespaced {
        if own.is_empty() {
            meta.insert("namespace".into(), namespace.into());
        } else if own != namespace {
            return Err(failure::bad_request(
                "the namespace of the provided object does not match the namespace sent on the request",
            ));
        }
    } else {
        meta.remove("namespace");
    }
    if name.is_empty() {
        return Ok(());
    }
    let own = text(meta.get("name"));
    if own.is_empty() {
        meta.insert("name".into(), name.into());
    } else if own != name {
        return Err(failure::bad_request(format!(
            "the name of the object ({own}) does not match the name on the URL ({name})"
        )));
    }
    Ok(())
}

/// The conditions that a replacing object brings along: its uid and its version.
pub(super) fn preconditions(info: &ResourceInfo, new: &Value, old: &Value, put: bool) -> Result<(), Status> {
    let name = meta_str(old, "name");
    let (uid, version) = (meta_str(new, "uid"), meta_str(new, "resourceVersion"));
    let stored = meta_str(old, "uid");
    if !uid.is_empty() && uid != stored {
        let why = format!("Precondition failed: UID in precondition: {uid}, UID in object meta: {stored}");
        return Err(failure::conflict(info, name, &why));
    }
    if !version.is_empty() && version.parse::<u64>().is_err() {
        let error = FieldError::invalid("metadata.resourceVersion", version, "must be a whole number");
        return Err(invalid(info, name, &[error]));
    }
    if version.is_empty() || version == "0" {
        if put && info.strategy.conditional_update {
            let error = FieldError::invalid("metadata.resourceVersion", 0, "must be specified for an update");
            return Err(invalid(info, name, &[error]));
        }
    } else if version != meta_str(old, "resourceVersion") {
        return Err(failure::conflict(info, name, failure::MODIFIED));
    }
    Ok(())
}

fn finalizers(object: &Value) -> Vec<&str> {
    let list = object.pointer("/metadata/finalizers").and_then(Value::as_array);
    list.into_iter().flatten().filter_map(Value::as_str).collect()
}

fn is_namespace(info: &ResourceInfo) -> bool {
    info.kind == "Namespace" && info.gvr.group.is_empty()
}

/// Whether something still holds an object that is marked for deletion.
fn is_held(info: &ResourceInfo, object: &Value) -> bool {
    let of_spec = object.pointer("/spec/finalizers").and_then(Value::as_array);
    !finalizers(object).is_empty() || (is_namespace(info) && of_spec.is_some_and(|f| !f.is_empty()))
}

/// Whether an updated object goes now, because it was marked for deletion and nothing holds it any more.
pub(super) fn ends(info: &ResourceInfo, object: &Value) -> bool {
    let grace = object.pointer("/metadata/deletionGracePeriodSeconds").and_then(Value::as_i64).unwrap_or(0);
    object.pointer("/metadata/deletionTimestamp").is_some() && grace == 0 && !is_held(info, object)
}

/// The seconds that a pod is given (`registry/core/pod/strategy.go` `CheckGracefulDelete`).
fn pod_grace(object: &Value, asked: Option<i64>) -> i64 {
    let text = |p| object.pointer(p).and_then(Value::as_str).unwrap_or("");
    if text("/spec/nodeName").is_empty() || matches!(text("/status/phase"), "Succeeded" | "Failed") {
        return 0;
    }
    let own = object.pointer("/spec/terminationGracePeriodSeconds").and_then(Value::as_i64);
    let secs = asked.or(own).unwrap_or(30);
    // A negative period counts as one second, as upstream.
    if secs < 0 { 1 } else { secs }
}

/// Decides a deletion (`registry/generic/registry/store.go` `Delete`, `rest.BeforeDelete`).
pub(super) fn delete(
    info: &ResourceInfo,
    old: &Value,
    options: &DeleteOptions,
    now: Time,
) -> Result<Deletion, Status> {
    let name = meta_str(old, "name");
    let check = |asked: &Option<String>, field: &str, word: &str| match asked {
        Some(asked) if asked != meta_str(old, field) => Err(failure::conflict(
            info,
            name,
            &format!(
                "Precondition failed: {word} in precondition: {asked}, {word} in object meta: {}",
                meta_str(old, field)
            ),
        )),
        _ => Ok(()),
    };
    check(&options.uid, "uid", "UID")?;
    check(&options.resource_version, "resourceVersion", "ResourceVersion")?;

    let marked = old.pointer("/metadata/deletionTimestamp").is_some();
    let mut new = old.clone();
    let mut kept = finalizers(old);
    if let Some(policy) = options.propagation.as_deref() {
        kept.retain(|f| !matches!(*f, "orphan" | "foregroundDeletion"));
        match policy {
            "Orphan" => kept.push("orphan"),
            "Foreground" => kept.push("foregroundDeletion"),
            "Background" => {}
            other => {
                let error = FieldError::not_supported(
                    "propagationPolicy",
                    other,
                    &["Foreground", "Background", "Orphan"],
                );
                return Err(failure::bad_request(format!("{error}")));
            }
        }
    }
    let list: Value = kept.iter().map(ToString::to_string).collect::<Vec<_>>().into();
    let Some(meta) = metadata_mut(&mut new) else { return Ok(Deletion::Remove) };
    if list.as_array().is_some_and(Vec::is_empty) {
        meta.remove("finalizers");
    } else {
        meta.insert("finalizers".into(), list);
    }

    let had = old.pointer("/metadata/deletionGracePeriodSeconds").and_then(Value::as_i64);
    let grace = if info.strategy.graceful { pod_grace(old, options.grace_secs) } else { 0 };
    let (due, grace) = match (marked, had) {
        // A period that runs may be shortened, not lengthened.
        (true, Some(had)) if !info.strategy.graceful || options.grace_secs.is_none() || grace >= had => {
            (None, had)
        }
        (true, Some(had)) => {
            let old_due = meta_str(old, "deletionTimestamp").parse::<Time>().unwrap_or(now);
            let asked_at = Time::from_secs(old_due.as_secs() - had);
            (Some(Time::from_secs(asked_at.as_secs() + grace)), grace)
        }
        _ => (Some(Time::from_secs(now.as_secs() + grace)), grace),
    };
    if let (Some(due), Some(meta)) = (due, metadata_mut(&mut new)) {
        meta.insert("deletionTimestamp".into(), due.to_rfc3339().into());
        meta.insert("deletionGracePeriodSeconds".into(), grace.into());
        if !marked && info.strategy.generation {
            let generation = meta.get("generation").and_then(Value::as_i64).unwrap_or(0);
            if generation > 0 {
                meta.insert("generation".into(), (generation + 1).into());
            }
        }
    }
    if is_namespace(info) {
        set_at(&mut new, &["status"], json!({ "phase": "Terminating" }));
        if let Some(conditions) = old.pointer("/status/conditions") {
            set_at(&mut new, &["status", "conditions"], conditions.clone());
        }
    }
    if grace == 0 && !is_held(info, &new) {
        return Ok(Deletion::Remove);
    }
    Ok(if new == *old { Deletion::Keep } else { Deletion::Mark(new) })
}

/// Whether two versions differ in nothing but the times in `managedFields`: such a write changes nothing.
pub(super) fn is_same(new: &Value, old: &Value) -> bool {
    fn bare(object: &Value) -> Value {
        let mut object = object.clone();
        let fields = object.pointer_mut("/metadata/managedFields").and_then(Value::as_array_mut);
        for entry in fields.into_iter().flatten().filter_map(Value::as_object_mut) {
            entry.remove("time");
        }
        object
    }
    new == old || (new.pointer("/metadata/managedFields").is_some() && bare(new) == bare(old))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::api::table;

    const NOW: Time = Time::from_secs(1_000_000);

    fn pod(node: &str, meta: Value) -> Value {
        let mut pod = json!({"metadata":{"name":"p","uid":"u","resourceVersion":"5"},
            "spec":{"nodeName":node,"terminationGracePeriodSeconds":30},"status":{"phase":"Running"}});
        for (k, v) in meta.as_object().unwrap() {
            pod["metadata"][k] = v.clone();
        }
        pod
    }

    fn pods() -> &'static ResourceInfo {
        table::find("", "v1", "pods").unwrap()
    }

    #[test]
    fn unbound_pods_go_at_once_and_bound_ones_are_marked() {
        let options = DeleteOptions::default();
        assert_eq!(delete(pods(), &pod("", json!({})), &options, NOW).unwrap(), Deletion::Remove);
        let Deletion::Mark(marked) = delete(pods(), &pod("w1", json!({})), &options, NOW).unwrap() else {
            panic!("not marked")
        };
        assert_eq!(marked["metadata"]["deletionGracePeriodSeconds"], 30);
        assert_eq!(meta_str(&marked, "deletionTimestamp"), Time::from_secs(1_000_030).to_rfc3339());
        // A second request does not prolong; grace 0 (the kubelet) ends it.
        assert_eq!(delete(pods(), &marked, &options, NOW).unwrap(), Deletion::Keep);
        let zero = DeleteOptions { grace_secs: Some(0), ..options.clone() };
        assert_eq!(delete(pods(), &marked, &zero, NOW).unwrap(), Deletion::Remove);
        let ten = DeleteOptions { grace_secs: Some(10), ..options };
        let Deletion::Mark(shorter) = delete(pods(), &marked, &ten, NOW).unwrap() else {
            panic!("not marked")
        };
        assert_eq!(meta_str(&shorter, "deletionTimestamp"), Time::from_secs(1_000_010).to_rfc3339());
    }

    #[test]
    fn finalizers_hold_and_propagation_adds_them() {
        let info = table::find("apps", "v1", "deployments").unwrap();
        let old = json!({"metadata":{"name":"d","generation":1}});
        let foreground = DeleteOptions { propagation: Some("Foreground".into()), ..DeleteOptions::default() };
        let Deletion::Mark(marked) = delete(info, &old, &foreground, NOW).unwrap() else {
            panic!("not marked")
        };
        assert_eq!(marked["metadata"]["finalizers"], json!(["foregroundDeletion"]));
        assert!(!ends(info, &marked));
        let mut freed = marked.clone();
        freed["metadata"].as_object_mut().unwrap().remove("finalizers");
        assert!(ends(info, &freed));
        let background = DeleteOptions { propagation: Some("Background".into()), ..DeleteOptions::default() };
        assert_eq!(delete(info, &marked, &background, NOW).unwrap(), Deletion::Remove);
    }

    #[test]
    fn namespaces_wait_for_their_own_finalizer() {
        let info = table::find("", "v1", "namespaces").unwrap();
        let old =
            json!({"metadata":{"name":"a"},"spec":{"finalizers":["kubernetes"]},"status":{"phase":"Active"}});
        let Deletion::Mark(marked) = delete(info, &old, &DeleteOptions::default(), NOW).unwrap() else {
            panic!("not marked")
        };
        assert_eq!(marked["status"]["phase"], "Terminating");
        let mut freed = marked;
        freed["spec"]["finalizers"] = json!([]);
        assert!(ends(info, &freed));
    }

    #[test]
    fn preconditions_are_checked() {
        let wrong = DeleteOptions { uid: Some("other".into()), ..DeleteOptions::default() };
        assert_eq!(delete(pods(), &pod("", json!({})), &wrong, NOW).unwrap_err().code, 409);
        let old = pod("", json!({}));
        assert!(preconditions(pods(), &json!({"metadata":{"resourceVersion":"4"}}), &old, true).is_err());
        assert!(preconditions(pods(), &json!({"metadata":{}}), &old, true).is_ok());
        let leases = table::find("coordination.k8s.io", "v1", "leases").unwrap();
        let error = preconditions(leases, &json!({"metadata":{}}), &old, true).unwrap_err();
        assert_eq!(error.code, 422);
    }

    #[test]
    fn the_time_of_a_manager_alone_is_no_change() {
        let at =
            |t: &str, v: i32| json!({"metadata":{"managedFields":[{"manager":"m","time":t}]},"spec":{"a":v}});
        assert!(is_same(&at("1", 1), &at("2", 1)));
        assert!(!is_same(&at("1", 1), &at("2", 2)));
    }
}
