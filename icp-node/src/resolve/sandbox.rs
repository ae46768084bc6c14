//! How a pod's sandbox shall be.

use alloc::format;
use alloc::string::String;

use super::{NodeFacts, pod_dns};
use crate::pod::{Pod, ResourceRequirements};
use crate::runtime::{Network, PortMapping, Resources, SandboxSpec};
use crate::status::{cpu_millis, memory_bytes, pod_requests, qos_class};

/// Longest host name (`HOST_NAME_MAX` of Linux less one).
const HOSTNAME_MAX: usize = 63;

/// The host name inside of a pod and its domain (empty if it has none).
#[must_use]
pub fn hostname(pod: &Pod, node: &NodeFacts) -> (String, String) {
    let spec = &pod.spec;
    if spec.host_network {
        return (node.name.clone(), String::new());
    }
    let name = if spec.hostname.is_empty() { &pod.name } else { &spec.hostname };
    let short: String = name.chars().take(HOSTNAME_MAX).collect();
    let short = short.trim_end_matches(['-', '.']);
    let domain = if spec.subdomain.is_empty() {
        String::new()
    } else {
        format!("{}.{}.svc.{}", spec.subdomain, pod.namespace, node.cluster_domain)
    };
    if spec.set_hostname_as_fqdn && !domain.is_empty() {
        (format!("{short}.{domain}"), domain)
    } else {
        (short.into(), domain)
    }
}

pub(super) fn resources(r: &ResourceRequirements) -> Resources {
    let cpu_limit_millis = cpu_millis(&r.limits);
    let memory_limit_bytes = memory_bytes(&r.limits);
    let or = |request: u64, limit: u64| if request == 0 { limit } else { request };
    Resources {
        cpu_request_millis: or(cpu_millis(&r.requests), cpu_limit_millis),
        cpu_limit_millis,
        memory_request_bytes: or(memory_bytes(&r.requests), memory_limit_bytes),
        memory_limit_bytes,
        pids_limit: 0,
    }
}

/// The sandbox of a pod. The pod has limits as a whole if all its containers have, or if its spec says so.
#[must_use]
pub fn sandbox_spec(pod: &Pod, node: &NodeFacts) -> SandboxSpec {
    let spec = &pod.spec;
    let mut limits = resources(&spec.resources);
    let requests = pod_requests(spec);
    let milli = |name: &str| u64::try_from(requests.get(name).copied().unwrap_or(0)).unwrap_or(0);
    if limits.cpu_request_millis == 0 {
        limits.cpu_request_millis = milli("cpu");
    }
    if limits.memory_request_bytes == 0 {
        limits.memory_request_bytes = milli("memory") / 1000;
    }
    let sum = |of: &dyn Fn(&crate::pod::Container) -> u64| {
        let long_lived = spec.containers.iter().chain(spec.init_containers.iter().filter(|c| c.is_sidecar()));
        let all: alloc::vec::Vec<u64> = long_lived.map(of).collect();
        if all.contains(&0) { 0 } else { all.iter().fold(0_u64, |a, b| a.saturating_add(*b)) }
    };
    if limits.cpu_limit_millis == 0 {
        limits.cpu_limit_millis = sum(&|c| cpu_millis(&c.resources.limits));
    }
    if limits.memory_limit_bytes == 0 {
        limits.memory_limit_bytes = sum(&|c| memory_bytes(&c.resources.limits));
    }
    let ports = pod.containers().flat_map(|(_, c)| &c.ports).filter(|p| p.host_port != 0);
    SandboxSpec {
        namespace: pod.namespace.clone(),
        name: pod.name.clone(),
        hostname: hostname(pod, node).0,
        dns: Some(pod_dns(pod, node)),
        network: if spec.host_network { Network::Host } else { Network::Pod },
        host_pid: spec.host_pid,
        host_ipc: spec.host_ipc,
        share_process_namespace: spec.share_process_namespace,
        ports: ports
            .map(|p| PortMapping {
                protocol: if p.protocol.is_empty() { "TCP".into() } else { p.protocol.clone() },
                container_port: p.container_port,
                host_port: p.host_port,
                host_ip: p.host_ip.parse().ok(),
            })
            .collect(),
        labels: pod.labels.clone(),
        annotations: pod.annotations.clone(),
        sysctls: spec.security_context.sysctls.iter().map(|s| (s.name.clone(), s.value.clone())).collect(),
        qos: qos_class(spec),
        resources: limits,
        runtime_handler: spec.runtime_class_name.clone(),
    }
}
