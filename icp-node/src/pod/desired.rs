//! A pod as the API server has it, decoded once.

use alloc::collections::BTreeMap;
use alloc::string::{String, ToString};
use alloc::sync::Arc;
use alloc::vec::Vec;

use icp_core::api::Object;
use icp_core::base::{Duration, Time};
use serde::Deserialize;

use super::spec::{Container, PodSpec, without_nulls};
use crate::runtime::{ContainerKind, PodUid};

/// A pod object does not have the shape of a pod.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("pod {pod}: {field} cannot be read: {message}")]
pub struct PodDecodeError {
    /// `namespace/name`.
    pub pod: String,
    /// `spec` or `status`.
    pub field: &'static str,
    /// Which part, and why.
    pub message: String,
}

/// That a pod shall go.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Deletion {
    /// `metadata.deletionTimestamp`: when the grace period ends.
    pub at: Time,
    /// `metadata.deletionGracePeriodSeconds`.
    pub grace: Duration,
}

/// A condition of a pod or node.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct Condition {
    /// The type.
    #[serde(rename = "type")]
    pub kind: String,
    /// `True`, `False` or `Unknown`.
    pub status: String,
    /// For programs.
    pub reason: String,
    /// For people.
    pub message: String,
    /// When the status changed.
    pub last_transition_time: Option<Time>,
}

/// What the API server remembers of a container: all that is left of it after a loss of the runtime's state.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct RememberedContainer {
    /// The container.
    pub name: String,
    /// How often it was restarted.
    pub restart_count: u32,
    /// The runtime's id, if it was ever started.
    #[serde(rename = "containerID")]
    pub container_id: String,
    /// What it did.
    pub state: RememberedState,
    /// What it did before.
    pub last_state: RememberedState,
}

/// `ContainerState`, as far as it matters after a restart.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct RememberedState {
    /// It had ended.
    pub terminated: Option<RememberedEnd>,
}

/// `ContainerStateTerminated`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct RememberedEnd {
    /// The exit code.
    pub exit_code: i32,
    /// Such as `Completed`.
    pub reason: String,
    /// For people.
    pub message: String,
    /// When it started.
    pub started_at: Option<Time>,
    /// When it ended.
    pub finished_at: Option<Time>,
    /// The runtime's id.
    #[serde(rename = "containerID")]
    pub container_id: String,
}

#[derive(Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
struct StatusView {
    phase: String,
    reason: String,
    message: String,
    start_time: Option<Time>,
    conditions: Vec<Condition>,
    init_container_statuses: Vec<RememberedContainer>,
    container_statuses: Vec<RememberedContainer>,
    ephemeral_container_statuses: Vec<RememberedContainer>,
}

/// What the API server remembers of a pod.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Remembered {
    /// The phase.
    pub phase: String,
    /// Why it failed.
    pub reason: String,
    /// Why it failed, for people.
    pub message: String,
    /// When the node first saw it.
    pub start_time: Option<Time>,
    /// Its conditions, those that others set among them.
    pub conditions: Vec<Condition>,
    /// Its containers of all kinds.
    pub containers: Vec<RememberedContainer>,
}

/// A pod as the API server has it.
///
/// ```
/// use icp_core::api::Object;
/// use icp_node::pod::Pod;
/// let text = r#"{"apiVersion":"v1","kind":"Pod","metadata":{"name":"web","namespace":"default","uid":"u1"},
///     "spec":{"containers":[{"name":"c","image":"nginx"}],"volumes":null}}"#;
/// let object: Object = serde_json::from_str(text).unwrap();
/// let pod = Pod::from_object(&object).unwrap();
/// assert_eq!(pod.spec.containers[0].image, "nginx");
/// ```
#[derive(Clone, Debug, PartialEq)]
pub struct Pod {
    /// Its uid.
    pub uid: PodUid,
    /// Its namespace.
    pub namespace: String,
    /// Its name.
    pub name: String,
    /// Counts changes of its spec.
    pub generation: i64,
    /// The version of the object.
    pub resource_version: String,
    /// Labels.
    pub labels: BTreeMap<String, String>,
    /// Annotations.
    pub annotations: BTreeMap<String, String>,
    /// Set if the pod shall go.
    pub deletion: Option<Deletion>,
    /// The spec.
    pub spec: PodSpec,
    /// What the API server remembers of its status.
    pub remembered: Remembered,
}

impl Pod {
    /// Decodes what the node reads of a pod object.
    ///
    /// # Errors
    /// If spec or status do not have the shape of a pod's.
    pub fn from_object(object: &Object) -> Result<Self, PodDecodeError> {
        let fail = |field, error: serde_json::Error| PodDecodeError {
            pod: object.key(),
            field,
            message: error.to_string(),
        };
        let part = |name: &str| without_nulls(object.at(name).unwrap_or(&serde_json::Value::Null));
        let spec = match part("/spec") {
            serde_json::Value::Null => PodSpec::default(),
            value => PodSpec::deserialize(value).map_err(|e| fail("spec", e))?,
        };
        let status = match part("/status") {
            serde_json::Value::Null => StatusView::default(),
            value => StatusView::deserialize(value).map_err(|e| fail("status", e))?,
        };
        let meta = &object.metadata;
        let mut containers = status.init_container_statuses;
        containers.extend(status.container_statuses);
        containers.extend(status.ephemeral_container_statuses);
        Ok(Self {
            uid: PodUid::from(meta.uid.as_str()),
            namespace: meta.namespace.clone(),
            name: meta.name.clone(),
            generation: meta.generation,
            resource_version: meta.resource_version.clone(),
            labels: meta.labels.clone(),
            annotations: meta.annotations.clone(),
            deletion: meta
                .deletion_timestamp
                .map(|at| Deletion { at, grace: seconds(meta.deletion_grace_period_seconds.unwrap_or(0)) }),
            spec,
            remembered: Remembered {
                phase: status.phase,
                reason: status.reason,
                message: status.message,
                start_time: status.start_time,
                conditions: status.conditions,
                containers,
            },
        })
    }

    /// All containers with their kinds: init containers and sidecars in order, regular ones, ephemeral ones.
    pub fn containers(&self) -> impl Iterator<Item = (ContainerKind, &Container)> {
        let init = self
            .spec
            .init_containers
            .iter()
            .map(|c| (if c.is_sidecar() { ContainerKind::Sidecar } else { ContainerKind::Init }, c));
        let regular = self.spec.containers.iter().map(|c| (ContainerKind::Regular, c));
        let ephemeral = self.spec.ephemeral_containers.iter().map(|c| (ContainerKind::Ephemeral, c));
        init.chain(regular).chain(ephemeral)
    }

    /// The container of a name.
    #[must_use]
    pub fn container(&self, name: &str) -> Option<&Container> {
        self.containers().map(|(_, c)| c).find(|c| c.name == name)
    }

    /// How long containers get between stop and kill: the deletion's, or the spec's.
    #[must_use]
    pub fn grace(&self) -> Duration {
        match self.deletion {
            Some(deletion) => deletion.grace,
            None => seconds(self.spec.termination_grace_period_seconds.unwrap_or(30)),
        }
    }

    /// `namespace/name`.
    #[must_use]
    pub fn key(&self) -> String {
        alloc::format!("{}/{}", self.namespace, self.name)
    }
}

/// Whole seconds; none if negative.
pub(crate) fn seconds(n: i64) -> Duration {
    Duration::from_secs(u64::try_from(n).unwrap_or(0))
}

/// Shared between the machines of a pod.
pub type PodRef = Arc<Pod>;
