//! Services, ingresses and network policies.

use alloc::collections::BTreeSet;
use alloc::format;
use alloc::vec::Vec;
use core::net::IpAddr;

use serde_json::Value;

use super::{faults, items, join, list, number, text};
use crate::api::{FieldError, names};

const IP_TEXT: &str = "must be a valid IP address, (e.g. 10.9.8.7 or 2001:db8::ffff)";

pub(super) fn service(object: &Value, out: &mut Vec<FieldError>) {
    let Some(spec) = object.get("spec") else { return };
    let kind = text(spec, "type");
    let headless = text(spec, "clusterIP") == "None";
    if list(spec, "ports").is_empty() && kind != "ExternalName" && !headless {
        out.push(FieldError::required("spec.ports", ""));
    }
    if kind == "ExternalName" {
        let name = text(spec, "externalName");
        if name.is_empty() {
            out.push(FieldError::required("spec.externalName", ""));
        } else {
            faults(out, "spec.externalName", name, names::dns1123_subdomain(name.trim_end_matches('.')));
        }
    }
    let many = list(spec, "ports").len() > 1;
    let (mut by_name, mut by_port) = (BTreeSet::new(), BTreeSet::new());
    for (path, port) in items(spec, "spec", "ports") {
        let name = text(port, "name");
        if name.is_empty() {
            if many {
                out.push(FieldError::required(join(&path, "name"), ""));
            }
        } else {
            let wrong = names::dns1123_label(name);
            if wrong.is_empty() && !by_name.insert(name) {
                out.push(FieldError::duplicate(join(&path, "name"), name));
            }
            faults(out, &join(&path, "name"), name, wrong);
        }
        let n = number(port, "port").unwrap_or(0);
        out.extend(names::port_number(n).into_iter().map(|m| FieldError::invalid(join(&path, "port"), n, m)));
        match port.get("targetPort") {
            Some(Value::Number(t)) => {
                let t = t.as_i64().unwrap_or_default();
                let at = join(&path, "targetPort");
                out.extend(names::port_number(t).into_iter().map(|m| FieldError::invalid(at.as_str(), t, m)));
            }
            Some(Value::String(t)) => faults(out, &join(&path, "targetPort"), t, names::port_name(t)),
            _ => {}
        }
        let node_port = number(port, "nodePort").unwrap_or(0);
        if node_port != 0 && matches!(kind, "ClusterIP" | "ExternalName") {
            out.push(FieldError::forbidden(
                join(&path, "nodePort"),
                format!("may not be used when `type` is '{kind}'"),
            ));
        }
        if !by_port.insert((n, text(port, "protocol"))) {
            out.push(FieldError::duplicate(path, port.clone()));
        }
    }
    let ip = text(spec, "clusterIP");
    if !ip.is_empty() && ip != "None" && ip.parse::<IpAddr>().is_err() {
        out.push(FieldError::invalid("spec.clusterIPs[0]", ip, IP_TEXT));
    }
    if kind == "ExternalName" && !ip.is_empty() {
        out.push(FieldError::forbidden("spec.clusterIPs[0]", "may not be set for ExternalName services"));
    }
    if kind == "LoadBalancer" && headless {
        out.push(FieldError::invalid(
            "spec.clusterIPs[0]",
            "None",
            "may not be set to 'None' for LoadBalancer services",
        ));
    }
    for (path, ip) in items(spec, "spec", "externalIPs") {
        let ip = ip.as_str().unwrap_or_default();
        if ip.parse::<IpAddr>().is_err() {
            out.push(FieldError::invalid(path, ip, IP_TEXT));
        }
    }
    super::meta::labels(out, spec.get("selector"), "spec.selector");
    let seconds = spec.pointer("/sessionAffinityConfig/clientIP/timeoutSeconds").and_then(Value::as_i64);
    if let Some(n) = seconds.filter(|n| !(1..=86_400).contains(n)) {
        let path = "spec.sessionAffinityConfig.clientIP.timeoutSeconds";
        out.push(FieldError::invalid(path, n, "must be greater than 0 and less than 86400"));
    }
}

pub(super) fn endpoint_slice(object: &Value, out: &mut Vec<FieldError>) {
    let family = text(object, "addressType");
    if list(object, "endpoints").len() > 1000 {
        out.push(FieldError::invalid(
            "endpoints",
            list(object, "endpoints").len(),
            "must have at most 1000 items",
        ));
    }
    for (path, endpoint) in items(object, "", "endpoints") {
        if list(endpoint, "addresses").is_empty() {
            out.push(FieldError::required(join(&path, "addresses"), "must contain at least 1 address"));
        }
        for (path, address) in items(endpoint, &path, "addresses") {
            let address = address.as_str().unwrap_or_default();
            let wrong = match (family, address.parse::<IpAddr>()) {
                ("IPv4", Ok(IpAddr::V4(_))) | ("IPv6", Ok(IpAddr::V6(_))) => None,
                ("IPv4", _) => Some("must be a valid IPv4 address"),
                ("IPv6", _) => Some("must be a valid IPv6 address"),
                _ => None,
            };
            out.extend(wrong.map(|m| FieldError::invalid(path, address, m)));
        }
    }
}

fn peer(peer: &Value, path: &str, out: &mut Vec<FieldError>) {
    let count = peer.as_object().map_or(0, serde_json::Map::len);
    if count == 0 {
        out.push(FieldError::required(path, "must specify a peer"));
    }
    if let Some(block) = peer.get("ipBlock") {
        if count > 1 {
            out.push(FieldError::forbidden(path, "may not specify both ipBlock and another peer"));
        }
        let cidr = text(block, "cidr");
        let outer = cidr.parse::<ipnet::IpNet>();
        if outer.is_err() && !cidr.is_empty() {
            let detail = "must be a valid CIDR value, (e.g. 10.9.8.0/24 or 2001:db8::/64)";
            out.push(FieldError::invalid(format!("{path}.ipBlock.cidr"), cidr, detail));
        }
        for (path, except) in items(block, &join(path, "ipBlock"), "except") {
            let text = except.as_str().unwrap_or_default();
            match (text.parse::<ipnet::IpNet>(), &outer) {
                (Ok(inner), Ok(outer)) if outer.contains(&inner) && outer != &inner => {}
                (Ok(_), Ok(_)) => {
                    out.push(FieldError::invalid(path, text, "must be a strict subset of `cidr`"))
                }
                _ => out.push(FieldError::invalid(
                    path,
                    text,
                    "must be a valid CIDR value, (e.g. 10.9.8.0/24 or 2001:db8::/64)",
                )),
            }
        }
    }
    for field in ["podSelector", "namespaceSelector"] {
        super::workloads::selector(peer.get(field), &join(path, field), out);
    }
}

pub(super) fn network_policy(object: &Value, out: &mut Vec<FieldError>) {
    let Some(spec) = object.get("spec") else { return };
    super::workloads::selector(spec.get("podSelector"), "spec.podSelector", out);
    for (rules, peers) in [("ingress", "from"), ("egress", "to")] {
        for (path, rule) in items(spec, "spec", rules) {
            for (path, p) in items(rule, &path, peers) {
                peer(p, &path, out);
            }
            for (path, p) in items(rule, &path, "ports") {
                let at = join(&path, "port");
                match p.get("port") {
                    Some(Value::Number(n)) => {
                        let n = n.as_i64().unwrap_or_default();
                        out.extend(
                            names::port_number(n).into_iter().map(|m| FieldError::invalid(at.as_str(), n, m)),
                        );
                        if let Some(end) = number(p, "endPort").filter(|end| *end < n) {
                            let detail = "must be greater than or equal to `port`";
                            out.push(FieldError::invalid(join(&path, "endPort"), end, detail));
                        }
                    }
                    Some(Value::String(s)) => faults(out, &at, s, names::port_name(s)),
                    _ => {}
                }
            }
        }
    }
}

pub(super) fn ingress(object: &Value, out: &mut Vec<FieldError>) {
    let Some(spec) = object.get("spec") else { return };
    if spec.get("defaultBackend").is_none() && list(spec, "rules").is_empty() {
        out.push(FieldError::invalid(
            "spec",
            spec.clone(),
            "either `defaultBackend` or `rules` must be specified",
        ));
    }
    for (path, rule) in items(spec, "spec", "rules") {
        let host = text(rule, "host");
        if !host.is_empty() {
            let plain = host.strip_prefix("*.").unwrap_or(host);
            faults(out, &join(&path, "host"), host, names::dns1123_subdomain(plain));
        }
        let Some(http) = rule.get("http") else { continue };
        for (path, p) in items(http, &join(&path, "http"), "paths") {
            let (kind, at) = (text(p, "pathType"), text(p, "path"));
            if kind.is_empty() {
                out.push(FieldError::required(join(&path, "pathType"), "pathType must be specified"));
            }
            if matches!(kind, "Exact" | "Prefix") && !at.starts_with('/') {
                out.push(FieldError::invalid(join(&path, "path"), at, "must be an absolute path"));
            }
        }
    }
}
