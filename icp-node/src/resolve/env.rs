//! Environments.

use alloc::format;
use alloc::string::{String, ToString};
use alloc::sync::Arc;
use alloc::vec::Vec;
use core::net::IpAddr;

use icp_core::api::Object;
use serde::Deserialize;

use super::downward::{field_value, resource_value};
use super::{NodeFacts, ResolveError, Sources, field_error, lookup};
use crate::pod::{Container, KeyRef, Pod};
use crate::volume::{config_map_data, secret_data};

/// Replaces `$(NAME)` by what `get` gives; a name that it does not know stays as it is, and `$$` becomes `$`
/// (`k8s.io/kubernetes/third_party/forked/golang/expansion`).
#[must_use]
pub fn expand(text: &str, get: &dyn Fn(&str) -> Option<String>) -> String {
    let mut out = String::with_capacity(text.len());
    let mut rest = text;
    while let Some(at) = rest.find('$') {
        let (before, tail) = rest.split_at(at);
        out.push_str(before);
        if let Some(after) = tail.strip_prefix("$$") {
            out.push('$');
            rest = after;
        } else if let Some((name, after)) = tail.strip_prefix("$(").and_then(|t| t.split_once(')')) {
            match get(name) {
                Some(value) => out.push_str(&value),
                None => {
                    out.push_str("$(");
                    out.push_str(name);
                    out.push(')');
                }
            }
            rest = after;
        } else {
            out.push('$');
            rest = tail.strip_prefix('$').unwrap_or_default();
        }
    }
    out.push_str(rest);
    out
}

/// The environment of a container: its own variables in order, then those of services that it does not set
/// (`makeEnvironmentVariables`).
///
/// # Errors
/// If an object or key that is not optional is missing, or a field cannot be read.
pub fn environment(
    pod: &Pod,
    container: &Container,
    ips: &[IpAddr],
    node: &NodeFacts,
    sources: &dyn Sources,
) -> Result<Vec<(String, String)>, ResolveError> {
    let links = pod.spec.enable_service_links.unwrap_or(true);
    let mut services = sources.services(&pod.namespace);
    if !links {
        services.clear();
    }
    if !(links && pod.namespace == "default") {
        services.extend(sources.services("default").into_iter().filter(|s| s.metadata.name == "kubernetes"));
    }
    let service_vars = service_variables(&services);

    let mut env: Vec<(String, String)> = Vec::new();
    let set = |env: &mut Vec<(String, String)>, name: String, value: String| match env
        .iter_mut()
        .find(|(n, _)| *n == name)
    {
        Some((_, old)) => *old = value,
        None => env.push((name, value)),
    };
    for from in &container.env_from {
        let data = if let Some(r) = &from.config_map_ref {
            let source = sources.config_map(&pod.namespace, &r.name);
            let object = lookup(source, "configmap", &pod.namespace, &r.name, r.optional)?;
            object.map(|o| config_map_data(&o))
        } else if let Some(r) = &from.secret_ref {
            let source = sources.secret(&pod.namespace, &r.name);
            let object = lookup(source, "secret", &pod.namespace, &r.name, r.optional)?;
            object.map(|o| secret_data(&o))
        } else {
            None
        };
        for (key, value) in data.into_iter().flatten() {
            // What is no text cannot stand in an environment; upstream skips it as well.
            if let Ok(value) = String::from_utf8(value.to_vec()) {
                set(&mut env, format!("{}{key}", from.prefix), value);
            }
        }
    }
    for var in &container.env {
        let value = match &var.value_from {
            None => {
                let get = |name: &str| {
                    let own = env.iter().find(|(n, _)| n == name);
                    own.or_else(|| service_vars.iter().find(|(n, _)| n == name)).map(|(_, v)| v.clone())
                };
                Some(expand(&var.value, &get))
            }
            Some(from) => {
                if let Some(r) = &from.field_ref {
                    Some(field_value(pod, &r.field_path, ips, node)?)
                } else if let Some(r) = &from.resource_field_ref {
                    Some(resource_value(pod, container, r, node)?)
                } else if let Some(r) = &from.config_map_key_ref {
                    key_value(pod, r, "ConfigMap", sources)?
                } else if let Some(r) = &from.secret_key_ref {
                    key_value(pod, r, "Secret", sources)?
                } else {
                    return Err(field_error(format!("env {}", var.name), "valueFrom names no source"));
                }
            }
        };
        if let Some(value) = value {
            set(&mut env, var.name.clone(), value);
        }
    }
    for (name, value) in service_vars {
        if !env.iter().any(|(n, _)| *n == name) {
            env.push((name, value));
        }
    }
    Ok(env)
}

fn key_value(
    pod: &Pod,
    key_ref: &KeyRef,
    kind: &'static str,
    sources: &dyn Sources,
) -> Result<Option<String>, ResolveError> {
    let KeyRef { name, key, optional } = key_ref;
    let (source, lower) = match kind {
        "Secret" => (sources.secret(&pod.namespace, name), "secret"),
        _ => (sources.config_map(&pod.namespace, name), "configmap"),
    };
    let Some(object) = lookup(source, lower, &pod.namespace, name, *optional)? else { return Ok(None) };
    let mut data = if kind == "Secret" { secret_data(&object) } else { config_map_data(&object) };
    match data.remove(key) {
        Some(value) => String::from_utf8(value.to_vec())
            .map(Some)
            .map_err(|_| field_error(format!("{lower} {name} key {key}"), "is not UTF-8")),
        None if *optional => Ok(None),
        None => Err(ResolveError::NoKey {
            kind,
            namespace: pod.namespace.clone(),
            name: name.clone(),
            key: key.clone(),
        }),
    }
}

#[derive(Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
struct ServiceView {
    #[serde(rename = "clusterIP")]
    cluster_ip: String,
    ports: Vec<ServicePortView>,
}

#[derive(Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
struct ServicePortView {
    name: String,
    protocol: String,
    port: u16,
}

/// The variables that tell a container of services (`k8s.io/kubernetes/pkg/kubelet/envvars/envvars.go`):
/// `NAME_SERVICE_HOST`, `NAME_SERVICE_PORT`, and the older Docker link names.
#[must_use]
pub fn service_variables(services: &[Arc<Object>]) -> Vec<(String, String)> {
    let mut vars = Vec::new();
    for service in services {
        let Ok(view) = service.view::<ServiceView>("spec") else { continue };
        let Some(first) = view.ports.first() else { continue };
        let ip = &view.cluster_ip;
        if ip.is_empty() || ip == "None" {
            continue;
        }
        let upper = |text: &str| text.replace('-', "_").to_ascii_uppercase();
        let name = upper(&service.metadata.name);
        let mut put = |key: String, value: String| vars.push((key, value));
        put(format!("{name}_SERVICE_HOST"), ip.clone());
        put(format!("{name}_SERVICE_PORT"), first.port.to_string());
        for port in view.ports.iter().filter(|p| !p.name.is_empty()) {
            put(format!("{name}_SERVICE_PORT_{}", upper(&port.name)), port.port.to_string());
        }
        for (i, port) in view.ports.iter().enumerate() {
            let protocol = if port.protocol.is_empty() { "TCP" } else { &port.protocol };
            let host = if ip.contains(':') { format!("[{ip}]") } else { ip.clone() };
            let url = format!("{}://{host}:{}", protocol.to_ascii_lowercase(), port.port);
            let prefix = format!("{name}_PORT_{}_{}", port.port, protocol.to_ascii_uppercase());
            if i == 0 {
                put(format!("{name}_PORT"), url.clone());
            }
            put(prefix.clone(), url);
            put(format!("{prefix}_PROTO"), protocol.to_ascii_lowercase());
            put(format!("{prefix}_PORT"), port.port.to_string());
            put(format!("{prefix}_ADDR"), ip.clone());
        }
    }
    vars
}
