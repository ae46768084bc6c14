//! The node's own object and Lease.

use alloc::collections::BTreeMap;
use alloc::string::{String, ToString};
use alloc::sync::Arc;
use alloc::vec::Vec;

use icp_core::api::{Object, Quantity, resources};
use icp_core::base::Time;
use icp_core::client::{ApiRequest, Operation, PatchKind};
use serde_json::{Map, Value, json};

use super::{KubeletConfig, NodeCondition};
use crate::runtime::ImageInfo;

/// The namespace of node Leases (KEP-589).
const LEASE_NAMESPACE: &str = "kube-node-lease";
/// Most images and names of an image that the status tells (`nodeStatusMaxImages`, `MaxNamesPerImageInNodeStatus`).
const IMAGES_MAX: usize = 50;
const IMAGE_NAMES_MAX: usize = 5;

/// The conditions of the node with the time of their last change.
#[derive(Debug, Default)]
pub(super) struct NodeConditions(Vec<(NodeCondition, Time)>);

impl NodeConditions {
    /// Sets a condition and says whether anything but its time changed.
    pub(super) fn set(&mut self, now: Time, condition: NodeCondition) -> bool {
        match self.0.iter_mut().find(|(c, _)| c.kind == condition.kind) {
            Some((old, _)) if *old == condition => false,
            Some((old, since)) => {
                if old.holds != condition.holds {
                    *since = now;
                }
                *old = condition;
                true
            }
            None => {
                self.0.push((condition, now));
                true
            }
        }
    }

    /// Whether the node's object says of each condition what this agent says.
    pub(super) fn agrees(&self, node: &Object) -> bool {
        let told = node.at("/status/conditions").and_then(Value::as_array);
        let told: BTreeMap<&str, &str> = told
            .into_iter()
            .flatten()
            .filter_map(|c| Some((c.get("type")?.as_str()?, c.get("status")?.as_str()?)))
            .collect();
        let status = |holds| if holds { "True" } else { "False" };
        self.0.iter().all(|(c, _)| told.get(&*c.kind) == Some(&status(c.holds)))
    }

    fn to_json(&self, now: Time) -> Value {
        let all = self.0.iter().map(|(c, since)| {
            json!({
                "type": c.kind,
                "status": if c.holds { "True" } else { "False" },
                "reason": c.reason,
                "message": c.message,
                "lastHeartbeatTime": now.to_rfc3339(),
                "lastTransitionTime": since.to_rfc3339(),
            })
        });
        all.collect()
    }
}

/// The conditions of a node that is well, and those of its configuration.
pub(super) fn usual_conditions(config: &KubeletConfig) -> Vec<NodeCondition> {
    let condition = |kind: &str, holds, reason: &str, message: &str| NodeCondition {
        kind: kind.into(),
        holds,
        reason: reason.into(),
        message: message.into(),
    };
    let mut all = Vec::from([
        condition(
            "MemoryPressure",
            false,
            "KubeletHasSufficientMemory",
            "kubelet has sufficient memory available",
        ),
        condition("DiskPressure", false, "KubeletHasNoDiskPressure", "kubelet has no disk pressure"),
        condition("PIDPressure", false, "KubeletHasSufficientPID", "kubelet has sufficient PID available"),
        condition("Ready", true, "KubeletReady", "kubelet is posting ready status"),
    ]);
    all.extend(config.conditions.iter().cloned());
    all
}

/// The value of `status` of the node's object.
pub(super) fn node_status(
    config: &KubeletConfig,
    conditions: &NodeConditions,
    images: &[ImageInfo],
    now: Time,
) -> Value {
    let info = &config.info;
    let mut addresses: Vec<Value> = config
        .facts
        .ips
        .iter()
        .map(|ip| json!({ "type": "InternalIP", "address": ip.to_string() }))
        .collect();
    addresses.push(json!({ "type": "Hostname", "address": config.facts.name }));
    let allocatable: BTreeMap<String, String> = config
        .allocatable_millis()
        .into_iter()
        .map(|(name, millis)| {
            let reserved = config.reserved.contains_key(&name);
            let text = match config.capacity.get(&name) {
                Some(text) if !reserved => text.clone(),
                _ if name == "cpu" => Quantity::from_millis(millis).to_string(),
                _ => Quantity::from_bytes(millis / 1000).to_string(),
            };
            (name, text)
        })
        .collect();
    let mut status = json!({
        "capacity": config.capacity,
        "allocatable": allocatable,
        "conditions": conditions.to_json(now),
        "addresses": addresses,
        "daemonEndpoints": { "kubeletEndpoint": { "Port": config.api_port } },
        "nodeInfo": {
            "machineID": info.machine_id,
            "systemUUID": info.system_uuid,
            "bootID": info.boot_id,
            "kernelVersion": info.kernel_version,
            "osImage": info.os_image,
            "containerRuntimeVersion": info.container_runtime_version,
            "kubeletVersion": info.kubelet_version,
            "kubeProxyVersion": "",
            "operatingSystem": info.operating_system,
            "architecture": info.architecture,
        },
    });
    if !images.is_empty()
        && let Some(map) = status.as_object_mut()
    {
        let mut list: Vec<&ImageInfo> = images.iter().collect();
        list.sort_by_key(|i| core::cmp::Reverse(i.size_bytes));
        let list: Vec<Value> = list
            .into_iter()
            .take(IMAGES_MAX)
            .map(|i| {
                let names: Vec<_> = i.names.iter().take(IMAGE_NAMES_MAX).collect();
                json!({ "names": names, "sizeBytes": i.size_bytes })
            })
            .collect();
        map.insert("images".into(), list.into());
    }
    status
}

/// The request that makes the node's object.
pub(super) fn register(config: &KubeletConfig, status: Value) -> ApiRequest {
    let mut node = Object::new("v1", "Node", "", &config.facts.name);
    node.metadata.labels.clone_from(&config.labels);
    node.metadata.annotations.clone_from(&config.annotations);
    let mut spec = Map::new();
    if !config.taints.is_empty() {
        spec.insert("taints".into(), config.taints.clone().into());
    }
    if !config.pod_cidr.is_empty() {
        spec.insert("podCIDR".into(), config.pod_cidr.clone().into());
        spec.insert("podCIDRs".into(), json!([config.pod_cidr]));
    }
    node.rest.insert("spec".into(), Value::Object(spec));
    node.rest.insert("status".into(), status);
    ApiRequest::collection(&resources::NODES, "", Operation::Create(Arc::new(node)))
}

/// The request that puts the agent's labels and annotations onto a node that exists.
pub(super) fn relabel(config: &KubeletConfig) -> ApiRequest {
    let body = json!({ "metadata": { "labels": config.labels, "annotations": config.annotations } });
    let op = Operation::Patch {
        kind: PatchKind::Merge,
        body,
        field_manager: Some("kubelet".into()),
        force: false,
    };
    ApiRequest::object(&resources::NODES, "", &config.facts.name, op)
}

/// The request that writes the node's status.
pub(super) fn write_status(config: &KubeletConfig, status: Value) -> ApiRequest {
    let body = json!({ "status": status });
    let op = Operation::Patch {
        kind: PatchKind::Strategic,
        body,
        field_manager: Some("kubelet".into()),
        force: false,
    };
    ApiRequest::object(&resources::NODES, "", &config.facts.name, op).sub("status")
}

/// The request that renews the Lease.
pub(super) fn renew(config: &KubeletConfig, now: Time) -> ApiRequest {
    let body = json!({ "spec": {
        "holderIdentity": config.facts.name,
        "leaseDurationSeconds": config.lease_seconds,
        "renewTime": now.to_rfc3339_micros(),
    } });
    let op = Operation::Patch {
        kind: PatchKind::Merge,
        body,
        field_manager: Some("kubelet".into()),
        force: false,
    };
    ApiRequest::object(&resources::LEASES, LEASE_NAMESPACE, &config.facts.name, op)
}

/// The request that makes the Lease, owned by the node's object so that it goes with it.
pub(super) fn new_lease(config: &KubeletConfig, node_uid: &str, now: Time) -> ApiRequest {
    let name = &config.facts.name;
    let mut lease = Object::new("coordination.k8s.io/v1", "Lease", LEASE_NAMESPACE, name);
    if !node_uid.is_empty() {
        lease.metadata.owner_references.push(icp_core::api::OwnerReference {
            api_version: "v1".into(),
            kind: "Node".into(),
            name: name.clone(),
            uid: node_uid.into(),
            ..Default::default()
        });
    }
    lease.rest.insert(
        "spec".into(),
        json!({
            "holderIdentity": name,
            "leaseDurationSeconds": config.lease_seconds,
            "renewTime": now.to_rfc3339_micros(),
        }),
    );
    ApiRequest::collection(&resources::LEASES, LEASE_NAMESPACE, Operation::Create(Arc::new(lease)))
}
