//! The pod of an ordinal, and its claims.

use alloc::format;
use alloc::string::{String, ToString};
use alloc::sync::Arc;
use alloc::vec::Vec;

use serde_json::{Value, json};

use crate::api::{Object, reason, resources, set_at};
use crate::base::Rng;
use crate::controllers::support::pod_from_template;
use crate::controllers::{Action, Note};

/// The label of a pod that names its revision.
pub(super) const REVISION: &str = "controller-revision-hash";

/// The ordinal of a pod of the set: the number at the end of its name.
pub(super) fn ordinal_of(set: &Object, pod: &Object) -> Option<i64> {
    pod.metadata.name.strip_prefix(&set.metadata.name)?.strip_prefix('-')?.parse().ok()
}

fn claims(set: &Object) -> impl Iterator<Item = &Value> {
    set.at("/spec/volumeClaimTemplates").and_then(Value::as_array).into_iter().flatten()
}

fn name_of(claim: &Value) -> &str {
    claim.pointer("/metadata/name").and_then(Value::as_str).unwrap_or_default()
}

/// Creates the claims of a pod that are not there yet.
pub(super) fn create_claims(set: &Arc<Object>, pod: &str, exists: impl Fn(&str) -> bool) -> Vec<Action> {
    let one = |claim: &Value| {
        let name = format!("{}-{pod}", name_of(claim));
        if exists(&name) {
            return None;
        }
        let mut object = Object::new("v1", "PersistentVolumeClaim", &set.metadata.namespace, &name);
        let labels = [claim.pointer("/metadata/labels"), set.at("/spec/selector/matchLabels")];
        for (key, value) in labels.into_iter().flatten().filter_map(Value::as_object).flatten() {
            object.metadata.labels.insert(key.clone(), value.as_str().unwrap_or_default().into());
        }
        object.rest.insert("spec".into(), claim.get("spec").cloned().unwrap_or_else(|| json!({})));
        let text = format!("create Claim {name} Pod {pod} in StatefulSet {} success", set.metadata.name);
        let action = Action::create(&resources::PERSISTENT_VOLUME_CLAIMS, object);
        let told = Note::normal(set, "SuccessfulCreate", text);
        Some(action.told(told).tolerating(&[reason::ALREADY_EXISTS]))
    };
    claims(set).filter_map(one).collect()
}

/// Creates the pod of an ordinal from a template of a revision.
pub(super) fn create(set: &Arc<Object>, ordinal: i64, template: Option<&Value>, revision: &str) -> Action {
    let name = format!("{}-{ordinal}", set.metadata.name);
    // The name is given, so nothing of the generated one stays.
    let mut pod = pod_from_template(set, set.controller_reference(), template, "", &mut Rng::new(0));
    pod.metadata.generate_name = String::new();
    pod.metadata.name.clone_from(&name);
    let labels = [
        ("statefulset.kubernetes.io/pod-name", name.clone()),
        ("apps.kubernetes.io/pod-index", ordinal.to_string()),
        (REVISION, revision.to_string()),
    ];
    pod.metadata.labels.extend(labels.map(|(key, value)| (key.into(), value)));
    if let Some(spec) = pod.rest.get_mut("spec") {
        set_at(spec, &["hostname"], name.clone());
        match set.str_at("/spec/serviceName") {
            "" => {}
            service => set_at(spec, &["subdomain"], service),
        }
        let mut volumes: Vec<Value> =
            spec.get("volumes").and_then(Value::as_array).cloned().unwrap_or_default();
        for claim in claims(set) {
            let own = name_of(claim);
            volumes.retain(|v| v.get("name").and_then(Value::as_str) != Some(own));
            let source = json!({"claimName": format!("{own}-{name}")});
            volumes.push(json!({"name": own, "persistentVolumeClaim": source}));
        }
        if !volumes.is_empty() {
            set_at(spec, &["volumes"], volumes);
        }
    }
    let text = |end: &str| format!("create Pod {name} in StatefulSet {} {end}", set.metadata.name);
    let told = Note::normal(set, "SuccessfulCreate", text("successful"));
    let failure = Note::warning(set, "FailedCreate", text("failed error: "));
    Action::create(&resources::PODS, pod).told(told).told_failure(failure)
}

/// Deletes a pod.
pub(super) fn delete(set: &Arc<Object>, pod: &Arc<Object>) -> Action {
    let text = format!("delete Pod {} in StatefulSet {} successful", pod.metadata.name, set.metadata.name);
    let told = Note::normal(set, "SuccessfulDelete", text);
    Action::delete(&resources::PODS, pod, None).told(told).tolerating(&[reason::NOT_FOUND])
}
