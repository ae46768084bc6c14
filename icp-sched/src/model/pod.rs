//! Pods.

use alloc::collections::BTreeMap;
use alloc::string::{String, ToString};
use alloc::sync::Arc;
use alloc::vec;
use alloc::vec::Vec;

use icp_core::api::Object;
use icp_core::api::labels::{Op, Requirement, Selector};
use icp_core::base::Time;
use icp_core::client::ObjectKey;
use serde_json::Value;

use super::raw::{self, Container, RawNodeTerm, RawPodTerm, RawRequirement};
use super::{
    AffinityTerm, ModelError, NodeTerm, PreferredNodeTerm, Resources, SpreadConstraint, Toleration,
    TolerationOp, VolumeSource, WeightedAffinityTerm, requests, volumes,
};

/// A port of the host that a pod wants for itself.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct HostPort {
    /// The address; `0.0.0.0` for all.
    pub ip: String,
    /// `TCP`, `UDP` or `SCTP`.
    pub protocol: String,
    /// The port.
    pub port: i32,
}

impl HostPort {
    /// Whether both cannot be had on one node (`HostPortInfo.CheckConflict`).
    #[must_use]
    pub fn conflicts(&self, other: &Self) -> bool {
        self.port == other.port
            && self.protocol == other.protocol
            && (self.ip == "0.0.0.0" || other.ip == "0.0.0.0" || self.ip == other.ip)
    }
}

/// Everything about a pod that decides where it may run and how it weighs on the placement of others. Pods with
/// equal specs are interchangeable.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub struct PodSpec {
    /// The namespace.
    pub namespace: String,
    /// The labels.
    pub labels: BTreeMap<String, String>,
    /// Deletion was asked for; topology spread does not count the pod.
    pub terminating: bool,
    /// The priority.
    pub priority: i32,
    /// Never evicts others (`preemptionPolicy: Never`).
    pub never_preempts: bool,
    /// What the pod asks for.
    pub requests: Resources,
    /// What it is taken for when nodes are scored: CPU in thousandths.
    pub non_zero_cpu: i64,
    /// The same for memory, in bytes.
    pub non_zero_memory: i64,
    /// Ports of the host, without 0.
    pub host_ports: Vec<HostPort>,
    /// Taints that it bears.
    pub tolerations: Vec<Toleration>,
    /// Labels that its node has (`nodeSelector`).
    pub node_selector: Option<BTreeMap<String, String>>,
    /// Nodes that it may run on: one term matches. `None` for all, no term for none.
    pub node_terms: Option<Vec<NodeTerm>>,
    /// Nodes that it rather runs on; `None` if the field is absent.
    pub node_preferences: Option<Vec<PreferredNodeTerm>>,
    /// Hard spread constraints (`DoNotSchedule`).
    pub spread_hard: Vec<SpreadConstraint>,
    /// Soft spread constraints (`ScheduleAnyway`).
    pub spread_soft: Vec<SpreadConstraint>,
    /// Pods to be with.
    pub affinity: Vec<AffinityTerm>,
    /// Pods not to be with.
    pub anti_affinity: Vec<AffinityTerm>,
    /// Pods rather to be with.
    pub affinity_preferences: Vec<WeightedAffinityTerm>,
    /// Pods rather not to be with.
    pub anti_affinity_preferences: Vec<WeightedAffinityTerm>,
    /// Images of all containers, init containers first, in the form that nodes name them.
    pub images: Vec<String>,
    /// Volumes that matter.
    pub volumes: Vec<VolumeSource>,
    /// What the pod is managed by: kind and name, for default spreading.
    pub controller: Option<(String, String)>,
    /// Claims to devices, which this scheduler does not allocate.
    pub device_claims: bool,
    /// Features that nodes have to declare for the pod, inferred from its spec.
    pub features: Vec<&'static str>,
}

/// A pod: who it is, its spec, and how far it is.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Pod {
    /// Namespace and name.
    pub key: ObjectKey,
    /// The uid; may be empty for pods that are made by hand.
    pub uid: String,
    /// What is scheduled.
    pub spec: Arc<PodSpec>,
    /// The node that it is bound to.
    pub node: Option<String>,
    /// The node that others were evicted from for it.
    pub nominated_node: Option<String>,
    /// The scheduler that it asks for.
    pub scheduler_name: String,
    /// What it waits for before it may be scheduled.
    pub gates: Vec<String>,
    /// It succeeded or failed, and weighs on nothing any more.
    pub ended: bool,
    /// When it was created.
    pub created: Option<Time>,
    /// When it was started.
    pub started: Option<Time>,
    /// The PodGroup of its namespace that it belongs to (`spec.schedulingGroup.podGroupName`).
    pub group: Option<Arc<str>>,
}

impl Pod {
    /// A pod of that name with a spec; the namespace is the spec's.
    #[must_use]
    pub fn new(name: &str, spec: Arc<PodSpec>) -> Self {
        Self { key: ObjectKey::new(&spec.namespace, name), spec, ..Self::default() }
    }

    /// Namespace and name of the PodGroup that it belongs to.
    #[must_use]
    pub fn group_key(&self) -> Option<ObjectKey> {
        self.group.as_ref().map(|name| ObjectKey::new(&self.key.namespace, name))
    }

    /// Reads a v1 Pod.
    ///
    /// # Errors
    /// If the object does not have the form of a pod, or a selector in it is not valid.
    pub fn from_object(object: &Object) -> Result<Self, ModelError> {
        let fail = |part: &'static str| {
            move |e: serde_json::Error| ModelError::Decode {
                object: object.key(),
                part,
                message: e.to_string(),
            }
        };
        let spec: raw::Spec = object.view("spec").map_err(fail("spec"))?;
        let status: raw::PodStatus = object.view("status").map_err(fail("status"))?;
        let some = |text: String| (!text.is_empty()).then_some(text);
        Ok(Self {
            key: ObjectKey::of(object),
            uid: object.metadata.uid.clone(),
            node: some(spec.node_name.clone()),
            nominated_node: some(status.nominated_node_name),
            scheduler_name: spec.scheduler_name.clone(),
            gates: spec.scheduling_gates.iter().map(|g| g.name.clone()).collect(),
            ended: matches!(status.phase.as_str(), "Succeeded" | "Failed"),
            created: object.metadata.creation_timestamp,
            started: status.start_time,
            group: group_name(object),
            spec: Arc::new(PodSpec::read(object, &spec)?),
        })
    }

    /// The same pod on its node, with the status that the object tells; `None` if that cannot be read.
    pub(crate) fn bound(&self, object: &Object, node: &str) -> Option<Self> {
        let status: raw::PodStatus = object.view("status").ok()?;
        Some(Self {
            node: Some(node.into()),
            nominated_node: Some(status.nominated_node_name).filter(|n| !n.is_empty()),
            ended: matches!(status.phase.as_str(), "Succeeded" | "Failed"),
            started: status.start_time,
            ..self.clone()
        })
    }

    /// What is known of a pod that cannot be read: it takes a place on its node and nothing else.
    #[must_use]
    pub fn opaque(object: &Object) -> Self {
        let node = object.str_at("/spec/nodeName");
        Self {
            key: ObjectKey::of(object),
            uid: object.metadata.uid.clone(),
            node: (!node.is_empty()).then(|| node.into()),
            scheduler_name: object.str_at("/spec/schedulerName").into(),
            ended: matches!(object.str_at("/status/phase"), "Succeeded" | "Failed"),
            group: group_name(object),
            spec: Arc::new(PodSpec {
                namespace: object.metadata.namespace.clone(),
                labels: object.metadata.labels.clone(),
                terminating: object.is_terminating(),
                ..PodSpec::default()
            }),
            ..Self::default()
        }
    }
}

fn group_name(pod: &Object) -> Option<Arc<str>> {
    let name = pod.str_at("/spec/schedulingGroup/podGroupName");
    (!name.is_empty()).then(|| name.into())
}

impl PodSpec {
    /// A spec that asks for so much CPU (thousandths) and memory (bytes), in the namespace `default`.
    #[must_use]
    pub fn asking(cpu: i64, memory: i64) -> Self {
        Self {
            namespace: "default".into(),
            requests: Resources { cpu, memory, ..Resources::default() },
            non_zero_cpu: cpu,
            non_zero_memory: memory,
            ..Self::default()
        }
    }

    /// The topology keys that the pod names, some more than once.
    pub(crate) fn topology_keys(&self) -> impl Iterator<Item = &str> {
        let spread = self.spread_hard.iter().chain(&self.spread_soft).map(|c| &c.topology_key);
        let hard = self.affinity.iter().chain(&self.anti_affinity).map(|t| &t.topology_key);
        let soft = self.affinity_preferences.iter().chain(&self.anti_affinity_preferences);
        spread.chain(hard).chain(soft.map(|t| &t.term.topology_key)).map(String::as_str)
    }

    fn read(object: &Object, spec: &raw::Spec) -> Result<Self, ModelError> {
        let read = Reader { object };
        let (requests, non_zero_cpu, non_zero_memory) = requests::of_pod(spec);
        let node = &spec.affinity.node_affinity;
        let (mut spread_hard, mut spread_soft) = (Vec::new(), Vec::new());
        for c in &spec.topology_spread_constraints {
            let list =
                if c.when_unsatisfiable == "ScheduleAnyway" { &mut spread_soft } else { &mut spread_hard };
            list.push(read.spread(c)?);
        }
        let terms = |list: &[RawPodTerm]| list.iter().map(|t| read.pod_term(t)).collect::<Result<_, _>>();
        let weighted = |list: &[raw::RawWeightedTerm]| {
            list.iter()
                .map(|t| {
                    let term = read.pod_term(&t.pod_affinity_term)?;
                    Ok(WeightedAffinityTerm { weight: t.weight, term })
                })
                .collect::<Result<_, ModelError>>()
        };
        let (with, without) = (&spec.affinity.pod_affinity, &spec.affinity.pod_anti_affinity);
        let containers = || spec.init_containers.iter().chain(&spec.containers);
        Ok(Self {
            namespace: object.metadata.namespace.clone(),
            labels: object.metadata.labels.clone(),
            terminating: object.is_terminating(),
            priority: spec.priority,
            never_preempts: spec.preemption_policy == "Never",
            requests,
            non_zero_cpu,
            non_zero_memory,
            host_ports: host_ports(spec),
            tolerations: spec.tolerations.iter().map(toleration).collect(),
            node_selector: spec.node_selector.clone().filter(|s| !s.is_empty()),
            node_terms: match &node.required {
                Some(s) => {
                    Some(s.node_selector_terms.iter().map(|t| read.node_term(t)).collect::<Result<_, _>>()?)
                }
                None => None,
            },
            node_preferences: match &node.preferred {
                Some(list) => Some(
                    list.iter()
                        .map(|p| {
                            Ok(PreferredNodeTerm { weight: p.weight, term: read.node_term(&p.preference)? })
                        })
                        .collect::<Result<_, ModelError>>()?,
                ),
                None => None,
            },
            spread_hard,
            spread_soft,
            affinity: terms(&with.required)?,
            anti_affinity: terms(&without.required)?,
            affinity_preferences: weighted(&with.preferred)?,
            anti_affinity_preferences: weighted(&without.preferred)?,
            images: containers().map(|c| image_name(&c.image)).collect(),
            volumes: volumes::of(&spec.volumes, &object.metadata.name),
            controller: object.controller().map(|o| (o.kind.clone(), o.name.clone())),
            device_claims: !spec.resource_claims.is_empty(),
            features: spec.features(),
        })
    }
}

/// Required terms and preferences of a node affinity.
pub(crate) type NodeTerms = (Option<Vec<NodeTerm>>, Vec<PreferredNodeTerm>);

/// Reads a v1 NodeAffinity that is in no pod.
pub(crate) fn node_affinity(value: &Value) -> Result<NodeTerms, String> {
    let raw: raw::NodeAffinity =
        serde::Deserialize::deserialize(value).map_err(|e: serde_json::Error| e.to_string())?;
    let nobody = Object::new("v1", "Pod", "", "");
    let read = Reader { object: &nobody };
    let fault = |e: ModelError| match e {
        ModelError::Selector { message, .. } => message,
        other @ ModelError::Decode { .. } => other.to_string(),
    };
    let required = raw.required.map(|s| s.node_selector_terms.iter().map(|t| read.node_term(t)).collect());
    let preferred = raw.preferred.unwrap_or_default();
    let preferred = preferred.iter().map(|p| {
        if !(1..=100).contains(&p.weight) {
            return Err(alloc::format!("weight {} is not in the range 1-100", p.weight));
        }
        Ok(PreferredNodeTerm { weight: p.weight, term: read.node_term(&p.preference).map_err(fault)? })
    });
    Ok((required.transpose().map_err(fault)?, preferred.collect::<Result<_, String>>()?))
}

struct Reader<'a> {
    object: &'a Object,
}

impl Reader<'_> {
    fn fault(&self, field: &'static str, message: String) -> ModelError {
        ModelError::Selector { object: self.object.key(), field, message }
    }

    fn selector(&self, field: &'static str, value: &Value) -> Result<Selector, ModelError> {
        Selector::from_label_selector(value).map_err(|e| self.fault(field, e.message))
    }

    fn requirement(&self, r: &RawRequirement) -> Result<Requirement, ModelError> {
        const FIELD: &str = "spec.affinity.nodeAffinity";
        let op = match r.operator.as_str() {
            "In" => Op::In,
            "NotIn" => Op::NotIn,
            "Exists" => Op::Exists,
            "DoesNotExist" => Op::DoesNotExist,
            "Gt" => Op::Gt,
            "Lt" => Op::Lt,
            other => {
                return Err(
                    self.fault(FIELD, alloc::format!("{other:?} is not a valid node selector operator"))
                );
            }
        };
        Requirement::new(&r.key, op, r.values.clone()).map_err(|e| self.fault(FIELD, e.message))
    }

    fn node_term(&self, t: &RawNodeTerm) -> Result<NodeTerm, ModelError> {
        let all =
            |list: &[RawRequirement]| list.iter().map(|r| self.requirement(r)).collect::<Result<_, _>>();
        Ok(NodeTerm { labels: all(&t.match_expressions)?, names: all(&t.match_fields)? })
    }

    fn pod_term(&self, t: &RawPodTerm) -> Result<AffinityTerm, ModelError> {
        const FIELD: &str = "spec.affinity.podAffinity";
        let namespace_selector = match &t.namespace_selector {
            Value::Null => None,
            value => Some(self.selector(FIELD, value)?),
        };
        let mut namespaces = t.namespaces.clone();
        if namespaces.is_empty() && namespace_selector.is_none() {
            namespaces.push(self.object.metadata.namespace.clone());
        }
        namespaces.sort();
        namespaces.dedup();
        Ok(AffinityTerm {
            selector: self.selector(FIELD, &t.label_selector)?,
            namespaces,
            namespace_selector,
            topology_key: t.topology_key.clone(),
        })
    }

    fn spread(&self, c: &raw::Spread) -> Result<SpreadConstraint, ModelError> {
        let mut selector = self.selector("spec.topologySpreadConstraints", &c.label_selector)?;
        for key in &c.match_label_keys {
            if let Some(value) = self.object.metadata.labels.get(key) {
                let r = Requirement::new(key, Op::In, vec![value.clone()])
                    .map_err(|e| self.fault("spec.topologySpreadConstraints", e.message))?;
                if !selector.requirements.contains(&r) {
                    selector.requirements.push(r);
                }
            }
        }
        Ok(SpreadConstraint {
            max_skew: c.max_skew,
            topology_key: c.topology_key.clone(),
            selector,
            min_domains: c.min_domains.unwrap_or(1),
            honor_affinity: c.node_affinity_policy.as_deref() != Some("Ignore"),
            honor_taints: c.node_taints_policy.as_deref() == Some("Honor"),
        })
    }
}

fn toleration(t: &raw::RawToleration) -> Toleration {
    let op = match t.operator.as_str() {
        "" | "Equal" => TolerationOp::Equal,
        "Exists" => TolerationOp::Exists,
        _ => TolerationOp::Unknown,
    };
    Toleration { key: t.key.clone(), op, value: t.value.clone(), effect: t.effect() }
}

fn host_ports(spec: &raw::Spec) -> Vec<HostPort> {
    let sidecars = spec.init_containers.iter().filter(|c| c.is_sidecar());
    let ports = sidecars.chain(&spec.containers).flat_map(|c: &Container| &c.ports);
    let or = |text: &str, default: &str| String::from(if text.is_empty() { default } else { text });
    let mut wanted: Vec<HostPort> = ports
        .filter(|p| p.host_port > 0)
        .map(|p| HostPort {
            ip: or(&p.host_ip, "0.0.0.0"),
            protocol: or(&p.protocol, "TCP"),
            port: p.host_port,
        })
        .collect();
    wanted.sort();
    wanted.dedup();
    wanted
}

/// An image without a tag is `latest` (`imagelocality.normalizedImageName`).
fn image_name(name: &str) -> String {
    if name.rfind(':') <= name.rfind('/') { alloc::format!("{name}:latest") } else { name.into() }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn images_are_named_as_nodes_name_them() {
        for (name, want) in [
            ("nginx", "nginx:latest"),
            ("nginx:1", "nginx:1"),
            ("reg:5000/nginx", "reg:5000/nginx:latest"),
            ("reg:5000/nginx:1", "reg:5000/nginx:1"),
        ] {
            assert_eq!(image_name(name), want);
        }
    }

    #[test]
    fn what_cannot_be_read_says_why() {
        let read = |spec: Value| {
            let mut o = Object::new("v1", "Pod", "ns", "p");
            o.rest.insert("spec".into(), spec);
            Pod::from_object(&o)
        };
        let bad = serde_json::json!({"affinity": {"podAffinity": {"requiredDuringSchedulingIgnoredDuringExecution":
            [{"topologyKey": "z", "labelSelector": {"matchExpressions": [{"key": "a", "operator": "Like"}]}}]}}});
        let error = read(bad).unwrap_err().to_string();
        assert_eq!(error, "ns/p: spec.affinity.podAffinity: \"Like\" is not a valid label selector operator");
        assert!(matches!(
            read(serde_json::json!({"containers": 5})),
            Err(ModelError::Decode { part: "spec", .. })
        ));
        let huge =
            serde_json::json!({"containers": [{"resources": {"requests": {"cpu": "9e18", "memory": "-5"}}}]});
        assert_eq!(read(huge).unwrap().spec.requests.cpu, i64::MAX);
    }

    #[test]
    fn ports_conflict_by_address_and_protocol() {
        let p = |ip: &str, protocol: &str, port| HostPort { ip: ip.into(), protocol: protocol.into(), port };
        assert!(p("0.0.0.0", "TCP", 80).conflicts(&p("10.0.0.1", "TCP", 80)));
        assert!(!p("10.0.0.2", "TCP", 80).conflicts(&p("10.0.0.1", "TCP", 80)));
        assert!(!p("0.0.0.0", "UDP", 80).conflicts(&p("0.0.0.0", "TCP", 80)));
    }
}
