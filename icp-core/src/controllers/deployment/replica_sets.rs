//! The ReplicaSets of a Deployment, as the plan sees and changes them.

use alloc::collections::BTreeMap;
use alloc::format;
use alloc::string::{String, ToString};
use alloc::sync::Arc;
use alloc::vec::Vec;

use serde_json::{Value, json};

use crate::api::{Object, resources};
use crate::base::Time;
use crate::controllers::support::{self, template_hash};
use crate::controllers::{Action, Note};

pub(super) const REVISION: &str = "deployment.kubernetes.io/revision";
const REVISION_HISTORY: &str = "deployment.kubernetes.io/revision-history";
const DESIRED_REPLICAS: &str = "deployment.kubernetes.io/desired-replicas";
const MAX_REPLICAS: &str = "deployment.kubernetes.io/max-replicas";
pub(super) const HASH_LABEL: &str = "pod-template-hash";
/// Annotations of the Deployment that its ReplicaSets do not inherit.
const NOT_INHERITED: [&str; 6] = [
    "kubectl.kubernetes.io/last-applied-configuration",
    REVISION,
    REVISION_HISTORY,
    DESIRED_REPLICAS,
    MAX_REPLICAS,
    "deprecated.deployment.rollback.to",
];

/// One ReplicaSet: as observed, and as the plan wants it.
#[derive(Clone, Debug)]
pub(super) struct Rs {
    pub(super) object: Arc<Object>,
    next: Object,
    /// It does not exist yet.
    new: bool,
    pub(super) replicas: i64,
    pub(super) status_replicas: i64,
    pub(super) ready: i64,
    pub(super) available: i64,
}

impl Rs {
    pub(super) fn observed(object: &Arc<Object>) -> Self {
        let int = |pointer| support::int_at(object, pointer);
        Self {
            replicas: int("/spec/replicas").unwrap_or(1),
            status_replicas: int("/status/replicas").unwrap_or(0),
            ready: int("/status/readyReplicas").unwrap_or(0),
            available: int("/status/availableReplicas").unwrap_or(0),
            next: Object::clone(object),
            object: Arc::clone(object),
            new: false,
        }
    }

    /// The ReplicaSet of the Deployment's present template, not created yet.
    pub(super) fn of_template(deployment: &Object, replicas: i64) -> Self {
        let hash = hash_of(deployment);
        let mut object = Object::new(
            "apps/v1",
            "ReplicaSet",
            &deployment.metadata.namespace,
            &format!("{}-{hash}", deployment.metadata.name),
        );
        let mut template = deployment.at("/spec/template").cloned().unwrap_or_else(|| json!({}));
        merge_label(&mut template, &["metadata", "labels"], &hash);
        let mut selector = deployment.at("/spec/selector").cloned().unwrap_or_else(|| json!({}));
        merge_label(&mut selector, &["matchLabels"], &hash);
        if let Some(Value::Object(labels)) = template.pointer("/metadata/labels") {
            object.metadata.labels =
                labels.iter().map(|(k, v)| (k.clone(), v.as_str().unwrap_or_default().to_string())).collect();
        }
        object.metadata.owner_references = alloc::vec![deployment.controller_reference()];
        let mut spec = json!({"replicas": replicas, "selector": selector, "template": template});
        if let (Some(seconds), Some(spec)) = (deployment.at("/spec/minReadySeconds"), spec.as_object_mut()) {
            spec.insert("minReadySeconds".into(), seconds.clone());
        }
        object.rest.insert("spec".into(), spec);
        Self {
            next: object.clone(),
            object: Arc::new(object),
            new: true,
            replicas,
            status_replicas: 0,
            ready: 0,
            available: 0,
        }
    }

    pub(super) const fn is_new(&self) -> bool {
        self.new
    }

    pub(super) fn name(&self) -> &str {
        &self.object.metadata.name
    }

    pub(super) fn revision(&self) -> u64 {
        annotation(&self.object, REVISION).unwrap_or(0)
    }

    pub(super) fn created(&self) -> (Option<Time>, &str) {
        (self.object.metadata.creation_timestamp, &self.object.metadata.name)
    }

    /// The greatest number of pods when the Deployment was last scaled.
    pub(super) fn max_replicas(&self) -> Option<i64> {
        annotation(&self.object, MAX_REPLICAS)
    }

    pub(super) fn desired_replicas(&self) -> Option<i64> {
        annotation(&self.object, DESIRED_REPLICAS)
    }

    /// Wants `replicas` pods, and notes the size of the whole Deployment.
    pub(super) fn scale(&mut self, replicas: i64, desired: i64, max: i64) {
        self.replicas = replicas;
        support::set(&mut self.next, "spec", "replicas", json!(replicas));
        self.next.metadata.annotations.insert(DESIRED_REPLICAS.into(), desired.to_string());
        self.next.metadata.annotations.insert(MAX_REPLICAS.into(), max.to_string());
    }

    /// Takes over the Deployment's annotations, revision and minReadySeconds (`SetNewReplicaSetAnnotations`).
    pub(super) fn inherit(&mut self, deployment: &Object, revision: u64) {
        let annotations = &mut self.next.metadata.annotations;
        for (key, value) in &deployment.metadata.annotations {
            if !NOT_INHERITED.contains(&key.as_str()) {
                annotations.insert(key.clone(), value.clone());
            }
        }
        let old = annotations.get(REVISION).cloned().unwrap_or_default();
        if old.parse::<u64>().unwrap_or(0) < revision {
            annotations.insert(REVISION.into(), revision.to_string());
            if !old.is_empty() {
                let history = annotations.entry(REVISION_HISTORY.into()).or_default();
                if !history.is_empty() {
                    history.push(',');
                }
                history.push_str(&old);
            }
        }
        let seconds = deployment.at("/spec/minReadySeconds").cloned();
        if seconds.as_ref().and_then(Value::as_i64).unwrap_or(0)
            != support::int_at(&self.next, "/spec/minReadySeconds").unwrap_or(0)
        {
            support::set(&mut self.next, "spec", "minReadySeconds", seconds.unwrap_or_else(|| json!(0)));
        }
    }

    /// The revision as the plan wants it.
    pub(super) fn next_revision(&self) -> Option<&String> {
        self.next.metadata.annotations.get(REVISION)
    }

    /// What makes the ReplicaSet as the plan wants it.
    pub(super) fn action(&self, deployment: &Arc<Object>) -> Option<Action> {
        let before = if self.new { 0 } else { support::int_at(&self.object, "/spec/replicas").unwrap_or(1) };
        let word = if self.replicas > before { "up" } else { "down" };
        let text = format!("Scaled {word} replica set {} from {before} to {}", self.name(), self.replicas);
        let action = if self.new {
            Action::create(&resources::REPLICA_SETS, self.next.clone()).told_failure(Note::warning(
                deployment,
                "ReplicaSetCreateError",
                "Failed to create new replica set: ",
            ))
        } else if self.next == *self.object {
            return None;
        } else {
            Action::update(&resources::REPLICA_SETS, self.next.clone())
        };
        if self.replicas == before {
            return Some(action);
        }
        Some(action.told(Note::normal(deployment, "ScalingReplicaSet", text)))
    }
}

fn annotation<T: core::str::FromStr>(object: &Object, key: &str) -> Option<T> {
    object.metadata.annotations.get(key)?.parse().ok()
}

fn merge_label(value: &mut Value, path: &[&str], hash: &str) {
    let mut at = value;
    for step in path {
        if !at.is_object() {
            *at = json!({});
        }
        let Some(map) = at.as_object_mut() else { return };
        at = map.entry(*step).or_insert_with(|| json!({}));
    }
    if !at.is_object() {
        *at = json!({});
    }
    if let Some(map) = at.as_object_mut() {
        map.insert(HASH_LABEL.into(), json!(hash));
    }
}

pub(super) fn hash_of(deployment: &Object) -> String {
    let template = deployment.at("/spec/template").unwrap_or(&Value::Null);
    template_hash(template, support::int_at(deployment, "/status/collisionCount"))
}

/// Whether the ReplicaSet has the Deployment's template, but for the hash label (`EqualIgnoreHash`).
pub(super) fn has_template(rs: &Object, deployment: &Object) -> bool {
    let strip = |o: &Object| {
        let mut template = o.at("/spec/template").cloned().unwrap_or_else(|| json!({}));
        if let Some(Value::Object(labels)) = template.pointer_mut("/metadata/labels") {
            labels.remove(HASH_LABEL);
        }
        if let Some(Value::Object(meta)) = template.pointer_mut("/metadata") {
            meta.retain(|_, v| !v.is_null() && v.as_object().is_none_or(|m| !m.is_empty()));
        }
        template
    };
    strip(rs) == strip(deployment)
}

/// Pods of each of the sets, by the uid of the set.
pub(super) type PodsOf = BTreeMap<String, Vec<Arc<Object>>>;
