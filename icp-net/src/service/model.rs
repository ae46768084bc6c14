//! Services and EndpointSlices: the fields that routing depends on.

use alloc::string::String;
use alloc::vec::Vec;
use core::net::IpAddr;

use icp_core::api::Object;
use ipnet::IpNet;
use serde::Deserialize;

/// The label on a slice that names its service.
pub const SERVICE_NAME_LABEL: &str = "kubernetes.io/service-name";
/// The label on a service that another proxy serves.
const PROXY_NAME_LABEL: &str = "service.kubernetes.io/service-proxy-name";

/// A transport protocol.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Protocol {
    /// 6.
    Tcp,
    /// 17.
    Udp,
    /// 132.
    Sctp,
}

impl Protocol {
    /// The number in the IP header.
    #[must_use]
    pub const fn number(self) -> u8 {
        match self {
            Self::Tcp => 6,
            Self::Udp => 17,
            Self::Sctp => 132,
        }
    }

    /// Reads the name that objects of the API use; an empty one is TCP.
    #[must_use]
    pub fn parse(text: &str) -> Option<Self> {
        match text {
            "" | "TCP" => Some(Self::Tcp),
            "UDP" => Some(Self::Udp),
            "SCTP" => Some(Self::Sctp),
            _ => None,
        }
    }
}

/// A service that this proxy serves.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Service {
    pub(crate) cluster_ips: Vec<IpAddr>,
    /// `externalIPs` and load balancer addresses.
    pub(crate) external_ips: Vec<IpAddr>,
    /// The load balancer addresses among them, that `source_ranges` guard.
    pub(crate) balancer_ips: Vec<IpAddr>,
    pub(crate) source_ranges: Vec<IpNet>,
    pub(crate) ports: Vec<ServicePort>,
    pub(crate) internal_local: bool,
    pub(crate) external_local: bool,
    /// Seconds; 0 without affinity.
    pub(crate) affinity_secs: u32,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct ServicePort {
    pub(crate) name: String,
    pub(crate) protocol: Protocol,
    pub(crate) port: u16,
    /// 0 without one.
    pub(crate) node_port: u16,
}

/// What one slice says.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Slice {
    pub(crate) ports: Vec<SlicePort>,
    pub(crate) endpoints: Vec<SliceEndpoint>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct SlicePort {
    pub(crate) name: String,
    pub(crate) protocol: Protocol,
    pub(crate) port: u16,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct SliceEndpoint {
    pub(crate) ip: IpAddr,
    pub(crate) ready: bool,
    pub(crate) serving: bool,
    pub(crate) terminating: bool,
    pub(crate) local: bool,
    /// Zones it is meant for; `None` without hints.
    pub(crate) zones: Option<Vec<String>>,
    /// Whether it is meant for this node; `None` without hints.
    pub(crate) for_this_node: Option<bool>,
}

#[derive(Deserialize, Default)]
#[serde(rename_all = "camelCase", default)]
struct ServiceSpec {
    r#type: String,
    #[serde(rename = "clusterIP")]
    cluster_ip: String,
    #[serde(rename = "clusterIPs")]
    cluster_ips: Option<Vec<String>>,
    #[serde(rename = "externalIPs")]
    external_ips: Option<Vec<String>>,
    load_balancer_source_ranges: Option<Vec<String>>,
    ports: Option<Vec<RawPort>>,
    internal_traffic_policy: String,
    external_traffic_policy: String,
    session_affinity: String,
    session_affinity_config: Option<AffinityConfig>,
}

#[derive(Deserialize, Default)]
#[serde(rename_all = "camelCase", default)]
struct RawPort {
    name: Option<String>,
    protocol: Option<String>,
    port: Option<u16>,
    node_port: Option<u16>,
}

#[derive(Deserialize, Default)]
#[serde(rename_all = "camelCase", default)]
struct AffinityConfig {
    #[serde(rename = "clientIP")]
    client_ip: Option<ClientIp>,
}

#[derive(Deserialize, Default)]
#[serde(rename_all = "camelCase", default)]
struct ClientIp {
    timeout_seconds: Option<u32>,
}

#[derive(Deserialize, Default)]
#[serde(rename_all = "camelCase", default)]
struct ServiceStatus {
    load_balancer: LoadBalancer,
}

#[derive(Deserialize, Default)]
#[serde(rename_all = "camelCase", default)]
struct LoadBalancer {
    ingress: Option<Vec<Ingress>>,
}

#[derive(Deserialize, Default)]
#[serde(rename_all = "camelCase", default)]
struct Ingress {
    ip: String,
    ip_mode: Option<String>,
}

#[derive(Deserialize, Default)]
#[serde(rename_all = "camelCase", default)]
struct RawEndpoint {
    addresses: Vec<String>,
    conditions: Conditions,
    node_name: Option<String>,
    hints: Option<Hints>,
}

#[derive(Deserialize, Default)]
#[serde(default)]
struct Conditions {
    ready: Option<bool>,
    serving: Option<bool>,
    terminating: Option<bool>,
}

#[derive(Deserialize, Default)]
#[serde(rename_all = "camelCase", default)]
struct Hints {
    for_zones: Option<Vec<Named>>,
    for_nodes: Option<Vec<Named>>,
}

#[derive(Deserialize, Default)]
#[serde(default)]
struct Named {
    name: String,
}

/// `v1.DefaultClientIPServiceAffinitySeconds`.
const AFFINITY_SECS_DEFAULT: u32 = 10_800;

fn addresses(texts: Option<&Vec<String>>) -> Vec<IpAddr> {
    texts.into_iter().flatten().filter_map(|t| t.parse().ok()).collect()
}

impl Service {
    /// Reads a service; `None` if this proxy does not serve it: headless, `ExternalName`, another proxy's, or not
    /// of the shape of a service.
    pub(crate) fn of(object: &Object) -> Option<Self> {
        if object.metadata.labels.contains_key(PROXY_NAME_LABEL) {
            return None;
        }
        let spec: ServiceSpec = object.view("spec").ok()?;
        let status: ServiceStatus = object.view("status").ok()?;
        if spec.r#type == "ExternalName" || spec.cluster_ip == "None" {
            return None;
        }
        let mut cluster_ips = addresses(spec.cluster_ips.as_ref());
        if let (true, Ok(ip)) = (cluster_ips.is_empty(), spec.cluster_ip.parse()) {
            cluster_ips.push(ip);
        }
        if cluster_ips.is_empty() {
            return None;
        }
        let ingress = status.load_balancer.ingress.into_iter().flatten();
        let balancer_ips: Vec<IpAddr> = ingress
            .filter(|i| i.ip_mode.as_deref() != Some("Proxy"))
            .filter_map(|i| i.ip.parse().ok())
            .collect();
        let mut external_ips = addresses(spec.external_ips.as_ref());
        external_ips.extend(&balancer_ips);
        external_ips.sort_unstable();
        external_ips.dedup();
        let affinity_secs = match (spec.session_affinity.as_str(), spec.session_affinity_config) {
            ("ClientIP", config) => config
                .and_then(|c| c.client_ip)
                .and_then(|c| c.timeout_seconds)
                .filter(|secs| *secs > 0)
                .unwrap_or(AFFINITY_SECS_DEFAULT),
            _ => 0,
        };
        let ports = spec.ports.into_iter().flatten().filter_map(|p| {
            Some(ServicePort {
                name: p.name.unwrap_or_default(),
                protocol: Protocol::parse(p.protocol.as_deref().unwrap_or(""))?,
                port: p.port?,
                node_port: p.node_port.unwrap_or(0),
            })
        });
        Some(Self {
            cluster_ips,
            external_ips,
            balancer_ips,
            source_ranges: spec
                .load_balancer_source_ranges
                .iter()
                .flatten()
                .filter_map(|t| t.trim().parse().ok())
                .collect(),
            ports: ports.collect(),
            internal_local: spec.internal_traffic_policy == "Local",
            external_local: spec.external_traffic_policy == "Local",
            affinity_secs,
        })
    }
}

impl Slice {
    /// Reads a slice as seen from node `node`; a slice that names host names instead of addresses is empty.
    pub(crate) fn of(object: &Object, node: &str) -> Self {
        if object.str_at("/addressType") == "FQDN" {
            return Self::default();
        }
        let ports: Option<Vec<RawPort>> = object.view("ports").unwrap_or_default();
        let endpoints: Option<Vec<RawEndpoint>> = object.view("endpoints").unwrap_or_default();
        let ports = ports.into_iter().flatten().filter_map(|p| {
            Some(SlicePort {
                name: p.name.unwrap_or_default(),
                protocol: Protocol::parse(p.protocol.as_deref().unwrap_or(""))?,
                port: p.port?,
            })
        });
        let endpoints = endpoints.into_iter().flatten().filter_map(|e| {
            // Consumers take the first address only (`discovery/v1 Endpoint.Addresses`).
            let ip = e.addresses.first()?.parse().ok()?;
            let ready = e.conditions.ready.unwrap_or(true);
            let hints = e.hints.unwrap_or_default();
            let named = |list: Vec<Named>| list.into_iter().map(|n| n.name).collect::<Vec<_>>();
            Some(SliceEndpoint {
                ip,
                ready,
                serving: e.conditions.serving.unwrap_or(ready),
                terminating: e.conditions.terminating.unwrap_or(false),
                local: e.node_name.as_deref() == Some(node),
                zones: hints.for_zones.map(named),
                for_this_node: hints.for_nodes.map(|list| list.iter().any(|n| n.name == node)),
            })
        });
        Self { ports: ports.collect(), endpoints: endpoints.collect() }
    }
}
