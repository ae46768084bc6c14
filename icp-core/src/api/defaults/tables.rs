//! Defaults that depend on nothing: rows of a path and a JSON value.
//!
//! A path names fields separated by dots. A part that ends with `?` must exist, otherwise the row does not apply;
//! a part that ends with `[]` stands for every item of a list; other parts are made where they are missing.

use serde_json::Value;

use super::{object_at, set};

/// Writes one row into an object.
fn row(object: &mut Value, path: &str, json: &str) {
    match path.split_once('.') {
        None => {
            if let Ok(value) = serde_json::from_str::<Value>(json) {
                set(object, path, value);
            }
        }
        Some((part, rest)) => {
            if let Some(field) = part.strip_suffix("[]") {
                super::each(object, field, |item| row(item, rest, json));
            } else if let Some(field) = part.strip_suffix('?') {
                super::at(object, field, |inner| row(inner, rest, json));
            } else if let Some(inner) = object_at(object, part) {
                row(inner, rest, json);
            }
        }
    }
}

/// Writes the rows of a table into an object.
pub(super) fn fill(object: &mut Value, rows: &[(&str, &str)]) {
    for (path, json) in rows {
        row(object, path, json);
    }
}

type Rows = &'static [(&'static str, &'static str)];

pub(super) const DEPLOYMENT: Rows = &[
    ("spec.replicas", "1"),
    ("spec.strategy.type", "\"RollingUpdate\""),
    ("spec.revisionHistoryLimit", "10"),
    ("spec.progressDeadlineSeconds", "600"),
];
pub(super) const ROLLING: Rows =
    &[("rollingUpdate.maxUnavailable", "\"25%\""), ("rollingUpdate.maxSurge", "\"25%\"")];
pub(super) const REPLICA_SET: Rows = &[("spec.replicas", "1")];
pub(super) const DAEMON_SET: Rows =
    &[("spec.updateStrategy.type", "\"RollingUpdate\""), ("spec.revisionHistoryLimit", "10")];
pub(super) const DAEMON_ROLLING: Rows =
    &[("rollingUpdate.maxUnavailable", "1"), ("rollingUpdate.maxSurge", "0")];
pub(super) const STATEFUL_SET: Rows = &[
    ("spec.replicas", "1"),
    ("spec.podManagementPolicy", "\"OrderedReady\""),
    ("spec.revisionHistoryLimit", "10"),
    ("spec.updateStrategy.type", "\"RollingUpdate\""),
    ("spec.persistentVolumeClaimRetentionPolicy.whenDeleted", "\"Retain\""),
    ("spec.persistentVolumeClaimRetentionPolicy.whenScaled", "\"Retain\""),
];
pub(super) const JOB_SPEC: Rows =
    &[("parallelism", "1"), ("completionMode", "\"NonIndexed\""), ("suspend", "false")];
pub(super) const CRON_JOB: Rows = &[
    ("spec.concurrencyPolicy", "\"Allow\""),
    ("spec.suspend", "false"),
    ("spec.successfulJobsHistoryLimit", "3"),
    ("spec.failedJobsHistoryLimit", "1"),
];
pub(super) const SERVICE: Rows = &[
    ("spec.type", "\"ClusterIP\""),
    ("spec.sessionAffinity", "\"None\""),
    ("spec.ports[].protocol", "\"TCP\""),
];
pub(super) const ENDPOINTS: Rows = &[("subsets[].ports[].protocol", "\"TCP\"")];
pub(super) const ENDPOINT_SLICE: Rows = &[("ports[].protocol", "\"TCP\""), ("ports[].name", "\"\"")];
pub(super) const SECRET: Rows = &[("type", "\"Opaque\"")];
pub(super) const VOLUME: Rows = &[
    ("spec.persistentVolumeReclaimPolicy", "\"Retain\""),
    ("spec.volumeMode", "\"Filesystem\""),
    ("spec.hostPath?.type", "\"\""),
    ("spec.iscsi?.iscsiInterface", "\"default\""),
    ("spec.rbd?.pool", "\"rbd\""),
    ("spec.rbd?.user", "\"admin\""),
    ("spec.rbd?.keyring", "\"/etc/ceph/keyring\""),
    ("spec.azureDisk?.cachingMode", "\"ReadWrite\""),
    ("spec.azureDisk?.kind", "\"Shared\""),
    ("spec.azureDisk?.fsType", "\"ext4\""),
    ("spec.azureDisk?.readOnly", "false"),
];
pub(super) const CLAIM_SPEC: Rows = &[("volumeMode", "\"Filesystem\"")];
pub(super) const STORAGE_CLASS: Rows =
    &[("reclaimPolicy", "\"Delete\""), ("volumeBindingMode", "\"Immediate\"")];
pub(super) const CSI_DRIVER: Rows = &[
    ("spec.attachRequired", "true"),
    ("spec.podInfoOnMount", "false"),
    ("spec.storageCapacity", "false"),
    ("spec.fsGroupPolicy", "\"ReadWriteOnceWithFSType\""),
    ("spec.volumeLifecycleModes", "[\"Persistent\"]"),
    ("spec.requiresRepublish", "false"),
    ("spec.seLinuxMount", "false"),
];
pub(super) const WEBHOOK: Rows = &[
    ("failurePolicy", "\"Fail\""),
    ("matchPolicy", "\"Equivalent\""),
    ("namespaceSelector", "{}"),
    ("objectSelector", "{}"),
    ("timeoutSeconds", "10"),
    ("rules[].scope", "\"*\""),
    ("clientConfig.service?.port", "443"),
];
pub(super) const POLICY: Rows = &[
    ("spec.failurePolicy", "\"Fail\""),
    ("spec.matchConstraints?.matchPolicy", "\"Equivalent\""),
    ("spec.matchConstraints?.namespaceSelector", "{}"),
    ("spec.matchConstraints?.objectSelector", "{}"),
    ("spec.matchConstraints?.resourceRules[].scope", "\"*\""),
    ("spec.matchConstraints?.excludeResourceRules[].scope", "\"*\""),
];
pub(super) const POLICY_BINDING: Rows = &[
    ("spec.matchResources?.matchPolicy", "\"Equivalent\""),
    ("spec.matchResources?.namespaceSelector", "{}"),
    ("spec.matchResources?.objectSelector", "{}"),
];
pub(super) const PRIORITY_CLASS: Rows = &[("preemptionPolicy", "\"PreemptLowerPriority\"")];
pub(super) const FLOW_SCHEMA: Rows = &[("spec.matchingPrecedence", "1000")];
pub(super) const API_SERVICE: Rows = &[("spec.service?.port", "443")];
pub(super) const CRD: Rows = &[
    ("spec.conversion.strategy", "\"None\""),
    ("spec.conversion.webhook?.clientConfig?.service?.port", "443"),
];
pub(super) const AUTOSCALER: Rows = &[("spec.minReplicas", "1")];
pub(super) const INGRESS_CLASS: Rows = &[("spec.parameters?.scope", "\"Cluster\"")];
pub(super) const NETWORK_POLICY_PORTS: Rows =
    &[("spec.ingress[].ports[].protocol", "\"TCP\""), ("spec.egress[].ports[].protocol", "\"TCP\"")];
