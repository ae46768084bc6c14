//! Services and EndpointSlices: the fields that names depend on.

use alloc::string::String;
use alloc::vec::Vec;
use core::net::IpAddr;

use icp_core::api::Object;
use serde::Deserialize;

use super::wire::{LABEL_BYTES_MAX, Name};

/// A service as its names see it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Service {
    /// An alias of a name elsewhere.
    External(Name),
    /// Names its endpoints.
    Headless {
        /// Endpoints that are not ready count too.
        not_ready: bool,
    },
    /// Has addresses of its own; they may still be missing.
    Cluster {
        /// In the order of the object.
        ips: Vec<IpAddr>,
        ports: Vec<Port>,
        not_ready: bool,
    },
}

/// A port with a name that may be empty.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Port {
    /// In lower case.
    pub(crate) name: Vec<u8>,
    /// In lower case.
    pub(crate) protocol: Vec<u8>,
    pub(crate) port: u16,
}

/// What one slice says.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Slice {
    pub(crate) ports: Vec<Port>,
    pub(crate) endpoints: Vec<Endpoint>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Endpoint {
    pub(crate) ips: Vec<IpAddr>,
    /// In lower case; empty without one.
    pub(crate) host_name: Vec<u8>,
    /// The name of the pod behind it, in lower case; empty without one.
    pub(crate) target: Vec<u8>,
    pub(crate) ready: bool,
}

#[derive(Deserialize, Default)]
#[serde(rename_all = "camelCase", default)]
struct ServiceSpec {
    r#type: String,
    #[serde(rename = "clusterIP")]
    cluster_ip: String,
    #[serde(rename = "clusterIPs")]
    cluster_ips: Option<Vec<String>>,
    external_name: String,
    ports: Option<Vec<RawPort>>,
    publish_not_ready_addresses: Option<bool>,
}

#[derive(Deserialize, Default)]
#[serde(default)]
struct RawPort {
    name: Option<String>,
    protocol: Option<String>,
    port: Option<u16>,
}

#[derive(Deserialize, Default)]
#[serde(rename_all = "camelCase", default)]
struct RawEndpoint {
    addresses: Vec<String>,
    conditions: Conditions,
    hostname: Option<String>,
    target_ref: Option<Named>,
}

#[derive(Deserialize, Default)]
#[serde(default)]
struct Conditions {
    ready: Option<bool>,
}

#[derive(Deserialize, Default)]
#[serde(default)]
struct Named {
    name: String,
}

#[derive(Deserialize, Default)]
#[serde(rename_all = "camelCase", default)]
struct PodStatus {
    #[serde(rename = "podIP")]
    pod_ip: String,
    #[serde(rename = "podIPs")]
    pod_ips: Option<Vec<PodIp>>,
    phase: String,
}

#[derive(Deserialize, Default)]
#[serde(default)]
struct PodIp {
    ip: String,
}

/// The text as a label; empty if it is none.
fn label(text: &str) -> Vec<u8> {
    if text.len() > LABEL_BYTES_MAX { Vec::new() } else { text.to_ascii_lowercase().into_bytes() }
}

fn ports(raw: Option<Vec<RawPort>>) -> Vec<Port> {
    let port = |p: RawPort| {
        let protocol = p.protocol.as_deref().filter(|text| !text.is_empty()).unwrap_or("TCP");
        Some(Port {
            name: label(p.name.as_deref().unwrap_or_default()),
            protocol: label(protocol),
            port: p.port?,
        })
    };
    raw.into_iter().flatten().filter_map(port).collect()
}

impl Service {
    /// Reads a service; `None` if it has no names: no shape of a service, or an external name that is an address
    /// or no name (CoreDNS gives no record for it).
    pub(crate) fn of(object: &Object) -> Option<Self> {
        let spec: ServiceSpec = object.view("spec").ok()?;
        if spec.r#type == "ExternalName" {
            if spec.external_name.is_empty() || spec.external_name.parse::<IpAddr>().is_ok() {
                return None;
            }
            return spec.external_name.parse().ok().map(Self::External);
        }
        let not_ready = spec.publish_not_ready_addresses.unwrap_or(false);
        if spec.cluster_ip == "None" {
            return Some(Self::Headless { not_ready });
        }
        let mut ips: Vec<IpAddr> =
            spec.cluster_ips.iter().flatten().filter_map(|text| text.parse().ok()).collect();
        if let (true, Ok(ip)) = (ips.is_empty(), spec.cluster_ip.parse()) {
            ips.push(ip);
        }
        Some(Self::Cluster { ips, ports: ports(spec.ports), not_ready })
    }
}

impl Slice {
    /// Reads a slice; one that names host names instead of addresses is empty.
    pub(crate) fn of(object: &Object) -> Self {
        if object.str_at("/addressType") == "FQDN" {
            return Self::default();
        }
        let raw: Option<Vec<RawEndpoint>> = object.view("endpoints").unwrap_or_default();
        let endpoint = |e: RawEndpoint| Endpoint {
            ips: e.addresses.iter().filter_map(|text| text.parse().ok()).collect(),
            host_name: label(e.hostname.as_deref().unwrap_or_default()),
            target: label(&e.target_ref.unwrap_or_default().name),
            ready: e.conditions.ready.unwrap_or(true),
        };
        Self {
            ports: ports(object.view("ports").unwrap_or_default()),
            endpoints: raw.into_iter().flatten().map(endpoint).collect(),
        }
    }
}

/// The addresses of a pod; none of one that has ended, whose addresses may be another's by now.
pub(crate) fn pod_ips(object: &Object) -> Vec<IpAddr> {
    let status: PodStatus = object.view("status").unwrap_or_default();
    if matches!(status.phase.as_str(), "Succeeded" | "Failed") {
        return Vec::new();
    }
    let all = status.pod_ips.into_iter().flatten().map(|p| p.ip);
    let mut ips: Vec<IpAddr> = all.chain([status.pod_ip]).filter_map(|text| text.parse().ok()).collect();
    ips.sort_unstable();
    ips.dedup();
    ips
}
