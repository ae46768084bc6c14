//! Figures of a node, under the kubelet's own names for what there is to tell.

use alloc::format;
use alloc::string::String;
use alloc::sync::Arc;
use alloc::vec::Vec;

use icp_core::api::Object;
use icp_core::base::Time;
use serde_json::{Map, Value, json};

use super::view::NodeCounts;
use crate::runtime::{NodeUsage, PodUid};

/// `/metrics` in the Prometheus text format (`pkg/kubelet/metrics/metrics.go`).
#[must_use]
pub fn text(counts: &NodeCounts) -> String {
    let NodeCounts { node, pods, running, exited } = counts;
    format!(
        "# HELP kubelet_node_name [ALPHA] The node's name. The count is always 1.\n\
         # TYPE kubelet_node_name gauge\n\
         kubelet_node_name{{node={node:?}}} 1\n\
         # HELP kubelet_running_containers [ALPHA] Number of containers currently running\n\
         # TYPE kubelet_running_containers gauge\n\
         kubelet_running_containers{{container_state=\"exited\"}} {exited}\n\
         kubelet_running_containers{{container_state=\"running\"}} {running}\n\
         # HELP kubelet_running_pods [ALPHA] Number of pods that have a running pod sandbox\n\
         # TYPE kubelet_running_pods gauge\n\
         kubelet_running_pods {pods}\n"
    )
}

fn filled(fields: &[(&str, Option<u64>)]) -> Value {
    let known = fields.iter().filter_map(|(name, value)| Some(((*name).into(), (*value)?.into())));
    Value::Object(known.collect::<Map<String, Value>>())
}

/// `/stats/summary` (`k8s.io/kubelet/pkg/apis/stats/v1alpha1`), with what the runtime can tell.
#[must_use]
pub fn summary(now: Time, node: &str, usage: &NodeUsage, pods: &[Arc<Object>]) -> Value {
    let used = |capacity: Option<u64>, available: Option<u64>| Some(capacity?.saturating_sub(available?));
    let pods: Vec<Value> = pods
        .iter()
        .map(|pod| {
            let m = &pod.metadata;
            let uid = PodUid::from(m.uid.as_str());
            let memory = usage.pod_memory_bytes.iter().find(|(of, _)| *of == uid).map(|(_, bytes)| *bytes);
            json!({
                "podRef": { "name": m.name, "namespace": m.namespace, "uid": m.uid },
                "memory": filled(&[("workingSetBytes", memory)]),
            })
        })
        .collect();
    let mut memory = filled(&[
        ("availableBytes", usage.memory_available_bytes),
        ("workingSetBytes", used(usage.memory_capacity_bytes, usage.memory_available_bytes)),
    ]);
    if let Some(map) = memory.as_object_mut() {
        map.insert("time".into(), now.to_rfc3339().into());
    }
    json!({
        "node": {
            "nodeName": node,
            "memory": memory,
            "fs": filled(&[
                ("availableBytes", usage.nodefs_available_bytes),
                ("capacityBytes", usage.nodefs_capacity_bytes),
                ("usedBytes", used(usage.nodefs_capacity_bytes, usage.nodefs_available_bytes)),
                ("inodesFree", usage.nodefs_inodes_free),
                ("inodes", usage.nodefs_inodes),
            ]),
            "runtime": { "imageFs": filled(&[
                ("availableBytes", usage.imagefs_available_bytes),
                ("capacityBytes", usage.imagefs_capacity_bytes),
            ]) },
            "rlimit": filled(&[
                ("maxpid", usage.pids_capacity),
                ("curproc", used(usage.pids_capacity, usage.pids_available)),
            ]),
        },
        "pods": pods,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_not_known_is_not_told() {
        let usage = NodeUsage {
            nodefs_capacity_bytes: Some(100),
            nodefs_available_bytes: Some(40),
            pod_memory_bytes: Vec::from([(PodUid::from("u"), 7)]),
            ..NodeUsage::default()
        };
        let mut pod = Object::new("v1", "Pod", "a", "p");
        pod.metadata.uid = "u".into();
        let summary = summary(Time::from_secs(0), "n1", &usage, &[Arc::new(pod)]);
        assert_eq!(
            summary["node"]["fs"],
            json!({ "availableBytes": 40, "capacityBytes": 100, "usedBytes": 60 })
        );
        assert_eq!(summary["node"]["rlimit"], json!({}));
        assert_eq!(summary["pods"][0]["memory"]["workingSetBytes"], 7);
    }
}
