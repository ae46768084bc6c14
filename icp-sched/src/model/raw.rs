//! The parts of API objects that are read, as they stand there.

use alloc::collections::BTreeMap;
use alloc::string::String;
use alloc::vec::Vec;

use serde::{Deserialize, Deserializer};
use serde_json::Value;

use super::requests::Amounts;
use super::taints::{Effect, Taint};

/// `null` is the default, as in Go.
pub(super) fn nullable<'de, D: Deserializer<'de>, T: Default + Deserialize<'de>>(
    d: D,
) -> Result<T, D::Error> {
    Ok(Option::<T>::deserialize(d)?.unwrap_or_default())
}

#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub(crate) struct Spec {
    #[serde(deserialize_with = "nullable")]
    pub(crate) node_name: String,
    #[serde(deserialize_with = "nullable")]
    pub(crate) scheduler_name: String,
    #[serde(deserialize_with = "nullable")]
    pub(crate) priority: i32,
    #[serde(deserialize_with = "nullable")]
    pub(crate) preemption_policy: String,
    #[serde(deserialize_with = "nullable")]
    pub(crate) containers: Vec<Container>,
    #[serde(deserialize_with = "nullable")]
    pub(crate) init_containers: Vec<Container>,
    #[serde(deserialize_with = "nullable")]
    pub(crate) overhead: Amounts,
    #[serde(deserialize_with = "nullable")]
    pub(crate) resources: ContainerResources,
    #[serde(deserialize_with = "nullable")]
    pub(crate) tolerations: Vec<RawToleration>,
    pub(crate) node_selector: Option<BTreeMap<String, String>>,
    #[serde(deserialize_with = "nullable")]
    pub(crate) affinity: Affinity,
    #[serde(deserialize_with = "nullable")]
    pub(crate) topology_spread_constraints: Vec<Spread>,
    #[serde(deserialize_with = "nullable")]
    pub(crate) scheduling_gates: Vec<Named>,
    #[serde(deserialize_with = "nullable")]
    pub(crate) volumes: Vec<Value>,
    #[serde(deserialize_with = "nullable")]
    pub(crate) resource_claims: Vec<Value>,
    #[serde(deserialize_with = "nullable")]
    pub(crate) host_network: bool,
    pub(crate) host_users: Option<bool>,
}

impl Spec {
    /// Features that nodes have to declare for this pod (`nodedeclaredfeatures.InferForPodScheduling`), of those that a
    /// v1.37 spec can make use of.
    pub(crate) fn features(&self) -> Vec<&'static str> {
        let mut containers = self.containers.iter().chain(&self.init_containers);
        let restarts =
            containers.any(|c| c.restart_policy_rules.iter().any(|r| r.action == "RestartAllContainers"));
        let inferred = [
            (restarts, "RestartAllContainersOnContainerExits"),
            (self.host_network && self.host_users == Some(false), "UserNamespacesHostNetworkSupport"),
        ];
        inferred.into_iter().filter(|(is, _)| *is).map(|(_, name)| name).collect()
    }
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub(crate) struct Named {
    pub(crate) name: String,
}

#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub(crate) struct Container {
    #[serde(deserialize_with = "nullable")]
    pub(crate) image: String,
    #[serde(deserialize_with = "nullable")]
    pub(crate) restart_policy: String,
    #[serde(deserialize_with = "nullable")]
    pub(crate) resources: ContainerResources,
    #[serde(deserialize_with = "nullable")]
    pub(crate) ports: Vec<Port>,
    #[serde(deserialize_with = "nullable")]
    pub(crate) restart_policy_rules: Vec<RestartRule>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub(crate) struct RestartRule {
    #[serde(deserialize_with = "nullable")]
    pub(crate) action: String,
}

impl Container {
    pub(crate) fn is_sidecar(&self) -> bool {
        self.restart_policy == "Always"
    }
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub(crate) struct ContainerResources {
    #[serde(deserialize_with = "nullable")]
    pub(crate) requests: Amounts,
    #[serde(deserialize_with = "nullable")]
    pub(crate) limits: Amounts,
}

impl ContainerResources {
    pub(crate) fn is_set(&self) -> bool {
        let counts = |list: &Amounts| {
            list.keys().any(|n| matches!(n.as_str(), "cpu" | "memory") || n.starts_with("hugepages-"))
        };
        counts(&self.requests) || counts(&self.limits)
    }
}

#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub(crate) struct Port {
    pub(crate) host_port: i32,
    #[serde(rename = "hostIP", deserialize_with = "nullable")]
    pub(crate) host_ip: String,
    #[serde(deserialize_with = "nullable")]
    pub(crate) protocol: String,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub(crate) struct RawToleration {
    #[serde(deserialize_with = "nullable")]
    pub(crate) key: String,
    #[serde(deserialize_with = "nullable")]
    pub(crate) operator: String,
    #[serde(deserialize_with = "nullable")]
    pub(crate) value: String,
    #[serde(deserialize_with = "nullable")]
    pub(crate) effect: String,
}

impl RawToleration {
    pub(crate) fn effect(&self) -> Option<Effect> {
        match self.effect.as_str() {
            "" => None,
            "NoSchedule" => Some(Effect::NoSchedule),
            "PreferNoSchedule" => Some(Effect::PreferNoSchedule),
            "NoExecute" => Some(Effect::NoExecute),
            _ => Some(Effect::Unknown),
        }
    }
}

#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub(crate) struct Affinity {
    #[serde(deserialize_with = "nullable")]
    pub(crate) node_affinity: NodeAffinity,
    #[serde(deserialize_with = "nullable")]
    pub(crate) pod_affinity: PodAffinity,
    #[serde(deserialize_with = "nullable")]
    pub(crate) pod_anti_affinity: PodAffinity,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub(crate) struct NodeAffinity {
    #[serde(rename = "requiredDuringSchedulingIgnoredDuringExecution")]
    pub(crate) required: Option<NodeSelector>,
    #[serde(rename = "preferredDuringSchedulingIgnoredDuringExecution")]
    pub(crate) preferred: Option<Vec<Preferred>>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub(crate) struct NodeSelector {
    #[serde(deserialize_with = "nullable")]
    pub(crate) node_selector_terms: Vec<RawNodeTerm>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub(crate) struct Preferred {
    pub(crate) weight: i64,
    #[serde(deserialize_with = "nullable")]
    pub(crate) preference: RawNodeTerm,
}

#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub(crate) struct RawNodeTerm {
    #[serde(deserialize_with = "nullable")]
    pub(crate) match_expressions: Vec<RawRequirement>,
    #[serde(deserialize_with = "nullable")]
    pub(crate) match_fields: Vec<RawRequirement>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub(crate) struct RawRequirement {
    pub(crate) key: String,
    pub(crate) operator: String,
    #[serde(deserialize_with = "nullable")]
    pub(crate) values: Vec<String>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub(crate) struct PodAffinity {
    #[serde(rename = "requiredDuringSchedulingIgnoredDuringExecution", deserialize_with = "nullable")]
    pub(crate) required: Vec<RawPodTerm>,
    #[serde(rename = "preferredDuringSchedulingIgnoredDuringExecution", deserialize_with = "nullable")]
    pub(crate) preferred: Vec<RawWeightedTerm>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub(crate) struct RawWeightedTerm {
    pub(crate) weight: i64,
    #[serde(deserialize_with = "nullable")]
    pub(crate) pod_affinity_term: RawPodTerm,
}

#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub(crate) struct RawPodTerm {
    pub(crate) label_selector: Value,
    #[serde(deserialize_with = "nullable")]
    pub(crate) namespaces: Vec<String>,
    pub(crate) namespace_selector: Value,
    pub(crate) topology_key: String,
    #[serde(deserialize_with = "nullable")]
    pub(crate) match_label_keys: Vec<String>,
    #[serde(deserialize_with = "nullable")]
    pub(crate) mismatch_label_keys: Vec<String>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub(crate) struct Spread {
    pub(crate) max_skew: i64,
    pub(crate) topology_key: String,
    pub(crate) when_unsatisfiable: String,
    pub(crate) label_selector: Value,
    pub(crate) min_domains: Option<i64>,
    pub(crate) node_affinity_policy: Option<String>,
    pub(crate) node_taints_policy: Option<String>,
    #[serde(deserialize_with = "nullable")]
    pub(crate) match_label_keys: Vec<String>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub(crate) struct PodStatus {
    #[serde(deserialize_with = "nullable")]
    pub(crate) phase: String,
    #[serde(deserialize_with = "nullable")]
    pub(crate) nominated_node_name: String,
    pub(crate) start_time: Option<icp_core::base::Time>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub(crate) struct NodeSpec {
    #[serde(deserialize_with = "nullable")]
    pub(crate) unschedulable: bool,
    #[serde(deserialize_with = "nullable")]
    pub(crate) taints: Vec<Taint>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub(crate) struct NodeStatus {
    #[serde(deserialize_with = "nullable")]
    pub(crate) allocatable: Amounts,
    #[serde(deserialize_with = "nullable")]
    pub(crate) images: Vec<RawImage>,
    #[serde(deserialize_with = "nullable")]
    pub(crate) declared_features: Vec<String>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub(crate) struct RawImage {
    #[serde(deserialize_with = "nullable")]
    pub(crate) names: Vec<String>,
    #[serde(deserialize_with = "nullable")]
    pub(crate) size_bytes: i64,
}
