//! Cluster IPs and node ports of services, claimed in the transaction that writes the service.
//!
//! An address is an `IPAddress` object (KEP-1880), a node port a key of its own; both must not exist when they are
//! claimed, so that two servers over one store never give out the same one.

use alloc::collections::BTreeSet;
use alloc::format;
use alloc::string::{String, ToString};
use alloc::vec::Vec;
use core::net::IpAddr;

use ipnet::IpNet;
use serde_json::{Value, json};

use super::api_server::lock;
use super::context::Context;
use super::store::Extra;
use super::{codec, store};
use crate::api::{FieldError, Gvr, Status, invalid};
use crate::storage::{KeyRange, RangeRequest};

const IP_ADDRESSES: Gvr = Gvr::new("networking.k8s.io", "v1", "ipaddresses");
const NODE_PORTS: &str = "/registry/icp/nodeports/";
/// Most random draws before the range is searched in order.
const DRAWS_MAX: usize = 32;

fn text<'a>(service: &'a Value, pointer: &str) -> &'a str {
    service.pointer(pointer).and_then(Value::as_str).unwrap_or("")
}

fn wants_cluster_ip(service: &Value) -> bool {
    text(service, "/spec/type") != "ExternalName"
}

fn wants_node_ports(service: &Value) -> bool {
    match text(service, "/spec/type") {
        "NodePort" => true,
        "LoadBalancer" => {
            service.pointer("/spec/allocateLoadBalancerNodePorts").and_then(Value::as_bool).unwrap_or(true)
        }
        _ => false,
    }
}

fn ports(service: &Value) -> Vec<&Value> {
    service.pointer("/spec/ports").and_then(Value::as_array).into_iter().flatten().collect()
}

fn node_port(port: &Value) -> Option<u16> {
    port.get("nodePort").and_then(Value::as_u64).and_then(|p| u16::try_from(p).ok()).filter(|p| *p > 0)
}

/// What a service holds: its address and its node ports.
fn held(service: &Value) -> (Option<IpAddr>, BTreeSet<u16>) {
    let ip = text(service, "/spec/clusterIP").parse().ok();
    let node_ports = ports(service).into_iter().filter_map(node_port).collect();
    (ip, node_ports)
}

fn ip_key(ip: IpAddr) -> String {
    let prefix =
        store::builtin(&IP_ADDRESSES).map_or("/registry/ipaddresses/", |i| i.storage_prefix.as_str());
    format!("{prefix}{ip}")
}

fn port_key(port: u16) -> String {
    format!("{NODE_PORTS}{port}")
}

/// The addresses of a range that services may have: neither the network's own nor the broadcast address.
fn usable(cidr: &IpNet) -> u64 {
    let host_bits = u32::from(cidr.max_prefix_len() - cidr.prefix_len()).min(32);
    (1_u64 << host_bits).saturating_sub(2)
}

fn nth(cidr: &IpNet, n: u64) -> Option<IpAddr> {
    match cidr {
        IpNet::V4(net) => {
            u32::from(net.network()).checked_add(u32::try_from(n + 1).ok()?).map(|a| IpAddr::V4(a.into()))
        }
        IpNet::V6(net) => {
            u128::from(net.network()).checked_add(u128::from(n) + 1).map(|a| IpAddr::V6(a.into()))
        }
    }
}

impl Context {
    fn is_service(&self) -> bool {
        self.info.kind == "Service" && self.info.gvr.group.is_empty()
    }

    /// The object that says who holds an address.
    fn ip_object(&self, ip: IpAddr, service: &Value) -> Value {
        json!({
            "apiVersion": "networking.k8s.io/v1", "kind": "IPAddress",
            "metadata": {
                "name": ip.to_string(), "uid": self.server.uuid(), "creationTimestamp": self.now.to_rfc3339(),
                "labels": {
                    "ipaddress.kubernetes.io/ip-family": if ip.is_ipv4() { "IPv4" } else { "IPv6" },
                    "ipaddress.kubernetes.io/managed-by": "ipallocator.k8s.io",
                },
            },
            "spec": { "parentRef": {
                "group": "", "resource": "services",
                "namespace": self.namespace(), "name": codec::meta_str(service, "name"),
            } },
        })
    }

    /// Completes a service and says what to claim and to give back with it. Other kinds claim nothing.
    pub(super) async fn allocate(&self, service: &mut Value, old: Option<&Value>) -> Result<Extra, Status> {
        let mut extra = Extra::default();
        if !self.is_service() {
            return Ok(extra);
        }
        let (old_ip, old_ports) = old.map(held).unwrap_or_default();
        if wants_cluster_ip(service) {
            self.allocate_ip(service, old_ip, &mut extra).await?;
        } else if let Some(spec) = service.get_mut("spec").and_then(Value::as_object_mut) {
            for field in ["clusterIP", "clusterIPs", "ipFamilies", "ipFamilyPolicy"] {
                spec.remove(field);
            }
        }
        self.allocate_ports(service, &old_ports, &mut extra).await?;
        let (ip, node_ports) = held(service);
        if let Some(gone) = old_ip.filter(|o| Some(*o) != ip) {
            extra.release(&ip_key(gone));
        }
        for gone in old_ports.difference(&node_ports) {
            extra.release(&port_key(*gone));
        }
        Ok(extra)
    }

    async fn allocate_ip(
        &self,
        service: &mut Value,
        old: Option<IpAddr>,
        extra: &mut Extra,
    ) -> Result<(), Status> {
        let asked = match text(service, "/spec/clusterIP") {
            "" => text(service, "/spec/clusterIPs/0").to_string(),
            ip => ip.to_string(),
        };
        if asked == "None" {
            set_ip(service, "None", self.server.options().service_cidr);
            return Ok(());
        }
        let cidr = self.server.options().service_cidr;
        let refuse = |detail: String| {
            let error = FieldError::invalid("spec.clusterIPs", json!([asked]), detail);
            Err(invalid(&self.info, codec::meta_str(service, "name"), &[error]))
        };
        let ip = if asked.is_empty() {
            match old {
                Some(old) => old,
                None => match self.free_ip(&cidr).await? {
                    Some(ip) => ip,
                    None => return refuse("failed to allocate IP: range is full".into()),
                },
            }
        } else {
            let Ok(ip) = asked.parse::<IpAddr>() else {
                return refuse("must be a valid IP address".into());
            };
            if !cidr.contains(&ip) {
                return refuse(format!(
                    "failed to allocate IP {ip}: the provided IP ({ip}) is not in the valid range. The range of valid IPs is {cidr}"
                ));
            }
            if Some(ip) != old && self.server.kv(&ip_key(ip)).await?.is_some() {
                return refuse(format!("failed to allocate IP {ip}: provided IP is already allocated"));
            }
            ip
        };
        if Some(ip) != old {
            extra.claim(&ip_key(ip), codec::encode(&self.ip_object(ip, service)));
        }
        set_ip(service, &ip.to_string(), cidr);
        Ok(())
    }

    async fn free_ip(&self, cidr: &IpNet) -> Result<Option<IpAddr>, Status> {
        let usable = usable(cidr);
        // The first sixteenth (at most 256) is left to those who ask for an address (KEP-3070).
        let lower = (usable / 16).min(256);
        for _ in 0..DRAWS_MAX {
            let n = lower + lock(&self.server.0.rng).below(usable.saturating_sub(lower));
            if let Some(ip) = nth(cidr, n)
                && self.server.kv(&ip_key(ip)).await?.is_none()
            {
                return Ok(Some(ip));
            }
        }
        let taken = self.taken(ip_key(IpAddr::from([0, 0, 0, 0])).trim_end_matches("0.0.0.0")).await?;
        let order = (lower..usable).chain(0..lower);
        Ok(order.filter_map(|n| nth(cidr, n)).find(|ip| !taken.contains(&ip.to_string())))
    }

    /// The names of the keys under a prefix.
    async fn taken(&self, prefix: &str) -> Result<BTreeSet<String>, Status> {
        let mut range = RangeRequest::new(KeyRange::prefix(prefix.to_string().into_bytes()));
        range.keys_only = true;
        let kvs = self.server.storage().range(range).await?.kvs;
        let name = |key: &[u8]| {
            String::from_utf8_lossy(key.strip_prefix(prefix.as_bytes()).unwrap_or(key)).into_owned()
        };
        Ok(kvs.iter().map(|kv| name(&kv.key)).collect())
    }

    async fn allocate_ports(
        &self,
        service: &mut Value,
        old: &BTreeSet<u16>,
        extra: &mut Extra,
    ) -> Result<(), Status> {
        if !wants_node_ports(service) {
            for port in service.pointer_mut("/spec/ports").and_then(Value::as_array_mut).into_iter().flatten()
            {
                port.as_object_mut().map(|p| p.remove("nodePort"));
            }
            return Ok(());
        }
        let range = self.server.options().node_ports.clone();
        let name = codec::meta_str(service, "name").to_string();
        let owner = format!("{}/{name}", self.namespace());
        let mut used: BTreeSet<u16> = ports(service).into_iter().filter_map(node_port).collect();
        let mut reuse: Vec<u16> = old.difference(&used).copied().collect();
        let count = ports(service).len();
        for i in 0..count {
            let Some(port) = service.pointer(&format!("/spec/ports/{i}")).cloned() else { continue };
            let field = format!("spec.ports[{i}].nodePort");
            let refuse = |value: u16, detail: String| {
                Err(invalid(&self.info, &name, &[FieldError::invalid(field.clone(), value, detail)]))
            };
            let chosen = match node_port(&port) {
                Some(asked) if old.contains(&asked) => continue,
                Some(asked) if !range.contains(&asked) => {
                    return refuse(
                        asked,
                        format!(
                            "provided port is not in the valid range. The range of valid ports is {}-{}",
                            range.start(),
                            range.end()
                        ),
                    );
                }
                Some(asked) => {
                    if self.server.kv(&port_key(asked)).await?.is_some() {
                        return refuse(asked, "provided port is already allocated".into());
                    }
                    asked
                }
                None => match reuse.pop() {
                    Some(port) => port,
                    None => match self.free_port(&used).await? {
                        Some(port) => port,
                        None => return refuse(0, "failed to allocate a nodePort: range is full".into()),
                    },
                },
            };
            if !old.contains(&chosen) {
                extra.claim(&port_key(chosen), owner.clone().into_bytes());
            }
            used.insert(chosen);
            if let Some(port) = service.pointer_mut(&format!("/spec/ports/{i}")) {
                port["nodePort"] = chosen.into();
            }
        }
        Ok(())
    }

    async fn free_port(&self, used: &BTreeSet<u16>) -> Result<Option<u16>, Status> {
        let range = self.server.options().node_ports.clone();
        let size = u64::from(range.end().saturating_sub(*range.start())) + 1;
        for _ in 0..DRAWS_MAX {
            let offset = lock(&self.server.0.rng).below(size);
            let port = range.start().saturating_add(u16::try_from(offset).unwrap_or(0));
            if !used.contains(&port) && self.server.kv(&port_key(port)).await?.is_none() {
                return Ok(Some(port));
            }
        }
        let taken = self.taken(NODE_PORTS).await?;
        Ok(range.into_iter().find(|p| !used.contains(p) && !taken.contains(&p.to_string())))
    }

    /// What a service gives back when it goes.
    pub(super) fn release(&self, service: &Value) -> Extra {
        let mut extra = Extra::default();
        if self.is_service() {
            let (ip, node_ports) = held(service);
            if let Some(ip) = ip {
                extra.release(&ip_key(ip));
            }
            for port in node_ports {
                extra.release(&port_key(port));
            }
        }
        extra
    }
}

fn set_ip(service: &mut Value, ip: &str, cidr: IpNet) {
    let family = if matches!(cidr, IpNet::V4(_)) { "IPv4" } else { "IPv6" };
    if let Some(spec) = service.get_mut("spec").and_then(Value::as_object_mut) {
        spec.insert("clusterIP".into(), ip.into());
        spec.insert("clusterIPs".into(), json!([ip]));
        spec.entry("ipFamilies").or_insert_with(|| json!([family]));
        spec.entry("ipFamilyPolicy").or_insert_with(|| "SingleStack".into());
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn neither_the_network_nor_the_broadcast_address_is_given_out() {
        let cidr: IpNet = "10.96.0.0/29".parse().unwrap();
        assert_eq!(usable(&cidr), 6);
        assert_eq!(nth(&cidr, 0).unwrap().to_string(), "10.96.0.1");
        assert_eq!(nth(&cidr, 5).unwrap().to_string(), "10.96.0.6");
        let six: IpNet = "fd00::/64".parse().unwrap();
        assert_eq!(usable(&six), (1 << 32) - 2);
    }

    #[test]
    fn what_a_service_holds_is_read_from_it() {
        let service = json!({"spec":{"clusterIP":"10.96.0.9","ports":[{"nodePort":30001},{"port":1}]}});
        assert_eq!(held(&service), (Some("10.96.0.9".parse().unwrap()), BTreeSet::from([30001])));
        assert_eq!(held(&json!({"spec":{"clusterIP":"None"}})), (None, BTreeSet::new()));
    }
}
