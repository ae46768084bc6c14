//! The pods behind a Service.

use alloc::string::{String, ToString};
use alloc::sync::Arc;
use alloc::vec::Vec;
use core::net::IpAddr;

use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::api::Object;
use crate::controllers::support::{PodPhase, is_ready};

/// One port of a slice.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Port {
    #[serde(default)]
    pub(super) name: String,
    pub(super) protocol: String,
    pub(super) port: i64,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) app_protocol: Option<String>,
}

/// One pod with one address.
#[derive(Clone, Debug)]
pub(super) struct Backend {
    pub(super) pod: Arc<Object>,
    pub(super) address: IpAddr,
    pub(super) ports: Vec<Port>,
    pub(super) serving: bool,
    pub(super) terminating: bool,
    pub(super) hostname: String,
}

#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub(super) struct ServiceSpec {
    #[serde(rename = "type")]
    kind: String,
    ports: Vec<ServicePort>,
    selector: Option<Value>,
    #[serde(rename = "clusterIP")]
    pub(super) cluster_ip: String,
    ip_families: Vec<String>,
    pub(super) publish_not_ready_addresses: bool,
}

#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
struct ServicePort {
    name: String,
    protocol: String,
    port: i64,
    target_port: Value,
    app_protocol: Option<String>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
struct PodSpec {
    containers: Vec<Container>,
    init_containers: Vec<Container>,
    hostname: String,
    subdomain: String,
}

#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
struct Container {
    ports: Vec<ContainerPort>,
    restart_policy: String,
}

#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
struct ContainerPort {
    name: String,
    container_port: i64,
    protocol: String,
}

#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
struct PodStatus {
    #[serde(rename = "podIP")]
    pod_ip: String,
    #[serde(rename = "podIPs")]
    pod_ips: Vec<PodIp>,
}

#[derive(Debug, Default, Deserialize)]
struct PodIp {
    ip: String,
}

fn protocol(text: &str) -> &str {
    if text.is_empty() { "TCP" } else { text }
}

impl ServiceSpec {
    pub(super) fn of(service: &Object) -> Self {
        service.view("spec").unwrap_or_default()
    }

    /// Whether the Service chooses its backends by a selector.
    pub(super) fn selects(&self) -> bool {
        self.kind != "ExternalName"
            && self.selector.as_ref().is_some_and(|s| s.as_object().is_some_and(|m| !m.is_empty()))
    }

    pub(super) fn is_headless(&self) -> bool {
        self.cluster_ip == "None"
    }

    /// `IPv4` and `IPv6`, as the Service wants them; IPv4 if it does not say.
    pub(super) fn families(&self) -> Vec<String> {
        if !self.ip_families.is_empty() {
            return self.ip_families.clone();
        }
        let v6 = matches!(self.cluster_ip.parse(), Ok(IpAddr::V6(_)));
        alloc::vec![if v6 { "IPv6" } else { "IPv4" }.to_string()]
    }

    /// The ports of the Service on a pod; a named target port that the pod does not have is left out.
    fn ports_on(&self, pod: &PodSpec) -> Vec<Port> {
        let mut ports: Vec<Port> = self
            .ports
            .iter()
            .filter_map(|p| {
                let number = match &p.target_port {
                    Value::Number(n) => n.as_i64().filter(|n| *n > 0).or(Some(p.port)),
                    Value::String(name) => pod.named_port(name, protocol(&p.protocol)),
                    _ => Some(p.port),
                }?;
                let protocol = protocol(&p.protocol).to_string();
                Some(Port {
                    name: p.name.clone(),
                    protocol,
                    port: number,
                    app_protocol: p.app_protocol.clone(),
                })
            })
            .collect();
        ports.sort();
        ports
    }

    /// The pods of `pods` that have an address of `family` and are not finished.
    pub(super) fn backends(&self, service: &Object, pods: &[Arc<Object>], family: &str) -> Vec<Backend> {
        pods.iter().filter_map(|pod| self.backend(service, pod, family)).collect()
    }

    fn backend(&self, service: &Object, pod: &Arc<Object>, family: &str) -> Option<Backend> {
        if PodPhase::of(pod).is_finished() {
            return None;
        }
        let status: PodStatus = pod.view("status").ok()?;
        let spec: PodSpec = pod.view("spec").ok()?;
        let address = status
            .pod_ips
            .iter()
            .map(|p| p.ip.as_str())
            .chain([status.pod_ip.as_str()])
            .filter_map(|ip| ip.parse::<IpAddr>().ok())
            .find(|ip| ip.is_ipv6() == (family == "IPv6"))?;
        let ports = self.ports_on(&spec);
        if ports.is_empty() && !self.ports.is_empty() {
            return None;
        }
        // The name under which DNS finds the pod.
        let named = spec.subdomain == service.metadata.name;
        Some(Backend {
            address,
            ports,
            serving: is_ready(pod),
            terminating: pod.is_terminating(),
            hostname: if named { spec.hostname } else { String::new() },
            pod: Arc::clone(pod),
        })
    }
}

impl PodSpec {
    fn named_port(&self, name: &str, wanted: &str) -> Option<i64> {
        let sidecars = self.init_containers.iter().filter(|c| c.restart_policy == "Always");
        self.containers
            .iter()
            .chain(sidecars)
            .flat_map(|c| &c.ports)
            .find(|p| p.name == name && protocol(&p.protocol) == wanted)
            .map(|p| p.container_port)
    }
}
