//! Pods and pod templates (`pkg/apis/core/validation`).

use alloc::collections::BTreeSet;
use alloc::format;
use alloc::string::{String, ToString};
use alloc::vec::Vec;

use serde_json::Value;

use super::{faults, flag, items, join, list, non_negative, number, text};
use crate::api::{FieldError, Quantity, names};

/// Names of volumes that a pod has.
struct Pod<'v> {
    volumes: BTreeSet<&'v str>,
}

pub(super) fn spec(spec: &Value, path: &str, out: &mut Vec<FieldError>) {
    let mut pod = Pod { volumes: BTreeSet::new() };
    for (path, volume) in items(spec, path, "volumes") {
        let name = text(volume, "name");
        if !name.is_empty() {
            faults(out, &join(&path, "name"), name, names::dns1123_label(name));
            if !pod.volumes.insert(name) {
                out.push(FieldError::duplicate(join(&path, "name"), name));
            }
        }
        let sources: Vec<&String> =
            volume.as_object().into_iter().flatten().map(|(k, _)| k).filter(|k| *k != "name").collect();
        for extra in sources.iter().skip(1) {
            out.push(FieldError::forbidden(join(&path, extra), "may not specify more than 1 volume type"));
        }
    }
    if list(spec, "containers").is_empty() {
        out.push(FieldError::required(join(path, "containers"), ""));
    }
    let mut seen = BTreeSet::new();
    for field in ["initContainers", "containers", "ephemeralContainers"] {
        for (path, c) in items(spec, path, field) {
            let name = text(c, "name");
            if !name.is_empty() && !seen.insert(name) {
                out.push(FieldError::duplicate(join(&path, "name"), name));
            }
            container(c, &path, &pod, field, out);
        }
    }
    let mut host_ports = BTreeSet::new();
    for (path, c) in items(spec, path, "containers") {
        for (path, port) in items(c, &path, "ports") {
            let key = (number(port, "hostPort").unwrap_or(0), text(port, "protocol"), text(port, "hostIP"));
            if key.0 != 0 && !host_ports.insert(key) {
                out.push(FieldError::duplicate(join(&path, "hostPort"), format!("{}/{}", key.1, key.0)));
            }
        }
    }
    if let Some(n) = number(spec, "activeDeadlineSeconds").filter(|n| !(1..=i64::from(i32::MAX)).contains(n))
    {
        out.push(FieldError::invalid(
            join(path, "activeDeadlineSeconds"),
            n,
            "must be between 1 and 2147483647, inclusive",
        ));
    }
    non_negative(out, spec, path, &["terminationGracePeriodSeconds"]);
    let host = text(spec, "hostname");
    if !host.is_empty() {
        faults(out, &join(path, "hostname"), host, names::dns1123_label(host));
    }
    let sub = text(spec, "subdomain");
    if !sub.is_empty() {
        faults(out, &join(path, "subdomain"), sub, names::dns1123_label(sub));
    }
    let account = text(spec, "serviceAccountName");
    if !account.is_empty() {
        faults(out, &join(path, "serviceAccountName"), account, names::dns1123_subdomain(account));
    }
    let node = text(spec, "nodeName");
    if !node.is_empty() {
        faults(out, &join(path, "nodeName"), node, names::dns1123_subdomain(node));
    }
    if let Some(group) = spec.get("schedulingGroup") {
        let path = join(path, "schedulingGroup.podGroupName");
        match text(group, "podGroupName") {
            "" => out.push(FieldError::required(path, "")),
            name => faults(out, &path, name, names::dns1123_subdomain(name)),
        }
    }
    super::meta::labels(out, spec.get("nodeSelector"), &join(path, "nodeSelector"));
    for (path, t) in items(spec, path, "tolerations") {
        toleration(t, &path, out);
    }
    for (path, c) in items(spec, path, "topologySpreadConstraints") {
        if number(c, "maxSkew").is_some_and(|n| n <= 0) {
            let n = number(c, "maxSkew").unwrap_or_default();
            out.push(FieldError::invalid(join(&path, "maxSkew"), n, "must be greater than zero"));
        }
    }
}

fn toleration(t: &Value, path: &str, out: &mut Vec<FieldError>) {
    let (key, operator, value) = (text(t, "key"), text(t, "operator"), text(t, "value"));
    if !key.is_empty() {
        faults(out, &join(path, "key"), key, names::qualified_name(key));
    }
    if key.is_empty() && operator != "Exists" {
        let detail =
            "operator must be Exists when `key` is empty, which means \"match all values and all keys\"";
        out.push(FieldError::invalid(join(path, "operator"), operator, detail));
    }
    if operator == "Exists" && !value.is_empty() {
        let detail = "value must be empty when `operator` is 'Exists'";
        out.push(FieldError::invalid(join(path, "operator"), value, detail));
    }
    if t.get("tolerationSeconds").is_some() && text(t, "effect") != "NoExecute" {
        let detail = "effect must be 'NoExecute' when `tolerationSeconds` is set";
        out.push(FieldError::invalid(join(path, "effect"), text(t, "effect"), detail));
    }
}

fn container(c: &Value, path: &str, pod: &Pod<'_>, field: &str, out: &mut Vec<FieldError>) {
    let name = text(c, "name");
    if !name.is_empty() {
        faults(out, &join(path, "name"), name, names::dns1123_label(name));
    }
    let image = text(c, "image");
    if image.is_empty() {
        out.push(FieldError::required(join(path, "image"), ""));
    } else if image.trim() != image {
        let detail = "must not have leading or trailing whitespace";
        out.push(FieldError::invalid(join(path, "image"), image, detail));
    }
    ports(c, path, out);
    for (path, e) in items(c, path, "env") {
        env(e, &path, out);
    }
    for (path, e) in items(c, path, "envFrom") {
        let sources = ["configMapRef", "secretRef"].iter().filter(|f| e.get(**f).is_some()).count();
        if sources == 0 {
            out.push(FieldError::invalid(path, "", "must specify one of: `configMapRef` or `secretRef`"));
        }
    }
    let mut mounts = BTreeSet::new();
    for (path, m) in items(c, path, "volumeMounts") {
        let name = text(m, "name");
        if !name.is_empty() && !pod.volumes.contains(name) {
            out.push(FieldError::not_found(join(&path, "name"), name));
        }
        let at = text(m, "mountPath");
        if !at.is_empty() && !mounts.insert(at) {
            out.push(FieldError::invalid(join(&path, "mountPath"), at, "must be unique"));
        }
        let sub = text(m, "subPath");
        if sub.split('/').any(|s| s == "..") {
            out.push(FieldError::invalid(join(&path, "subPath"), sub, "must not contain '..'"));
        } else if sub.starts_with('/') {
            out.push(FieldError::invalid(join(&path, "subPath"), sub, "must be a relative path"));
        }
    }
    let sidecar = text(c, "restartPolicy") == "Always";
    for probe in ["livenessProbe", "readinessProbe", "startupProbe"] {
        let Some(p) = c.get(probe) else { continue };
        let path = join(path, probe);
        if field == "initContainers" && !sidecar {
            out.push(FieldError::forbidden(
                path,
                "may not be set for init containers without restartPolicy=Always",
            ));
            continue;
        }
        handler(p, &path, out);
        let fields = [
            "initialDelaySeconds",
            "timeoutSeconds",
            "periodSeconds",
            "successThreshold",
            "failureThreshold",
        ];
        non_negative(out, p, &path, &fields);
        if probe != "readinessProbe" && number(p, "successThreshold").is_some_and(|n| n != 1) {
            let n = number(p, "successThreshold").unwrap_or_default();
            out.push(FieldError::invalid(join(&path, "successThreshold"), n, "must be 1"));
        }
    }
    for hook in ["postStart", "preStop"] {
        if let Some(h) = c.get("lifecycle").and_then(|l| l.get(hook)) {
            handler(h, &format!("{path}.lifecycle.{hook}"), out);
        }
    }
    if field == "initContainers" && !sidecar && c.get("lifecycle").is_some() {
        out.push(FieldError::forbidden(
            join(path, "lifecycle"),
            "may not be set for init containers without restartPolicy=Always",
        ));
    }
    if let Some(r) = c.get("resources") {
        resources(r, &join(path, "resources"), out);
    }
    if let Some(s) = c.get("securityContext")
        && flag(s, "privileged")
        && s.get("allowPrivilegeEscalation").and_then(Value::as_bool) == Some(false)
    {
        let detail = "cannot set `allowPrivilegeEscalation` to false and `privileged` to true";
        out.push(FieldError::invalid(join(path, "securityContext"), s.clone(), detail));
    }
}

fn ports(c: &Value, path: &str, out: &mut Vec<FieldError>) {
    let mut seen = BTreeSet::new();
    for (path, port) in items(c, path, "ports") {
        let name = text(port, "name");
        if !name.is_empty() {
            let wrong = names::port_name(name);
            if wrong.is_empty() && !seen.insert(name) {
                out.push(FieldError::duplicate(join(&path, "name"), name));
            }
            faults(out, &join(&path, "name"), name, wrong);
        }
        match number(port, "containerPort") {
            None | Some(0) => out.push(FieldError::required(join(&path, "containerPort"), "")),
            Some(n) => {
                out.extend(
                    names::port_number(n)
                        .into_iter()
                        .map(|m| FieldError::invalid(join(&path, "containerPort"), n, m)),
                );
            }
        }
        if let Some(n) = number(port, "hostPort").filter(|n| *n != 0) {
            out.extend(
                names::port_number(n).into_iter().map(|m| FieldError::invalid(join(&path, "hostPort"), n, m)),
            );
        }
    }
}

fn env(e: &Value, path: &str, out: &mut Vec<FieldError>) {
    let name = text(e, "name");
    if !name.is_empty() {
        faults(out, &join(path, "name"), name, names::env_var_name(name));
    }
    let Some(from) = e.get("valueFrom").and_then(Value::as_object) else { return };
    let path = join(path, "valueFrom");
    match from.len() {
        0 => out.push(FieldError::invalid(
            path,
            "",
            "must specify one of: `fieldRef`, `resourceFieldRef`, `configMapKeyRef`, `secretKeyRef` or `fileKeyRef`",
        )),
        1 if text(e, "value").is_empty() => {}
        1 => out.push(FieldError::invalid(path, "", "may not be specified when `value` is not empty")),
        _ => out.push(FieldError::invalid(path, "", "may not have more than one field specified at a time")),
    }
}

/// A port by number or name.
fn port(out: &mut Vec<FieldError>, value: Option<&Value>, path: String) {
    match value {
        Some(Value::Number(n)) => {
            let n = n.as_i64().unwrap_or_default();
            out.extend(names::port_number(n).into_iter().map(|m| FieldError::invalid(path.as_str(), n, m)));
        }
        Some(Value::String(s)) => faults(out, &path, s, names::port_name(s)),
        _ => out.push(FieldError::required(path, "")),
    }
}

fn handler(h: &Value, path: &str, out: &mut Vec<FieldError>) {
    let kinds: Vec<&str> = ["exec", "httpGet", "tcpSocket", "grpc", "sleep"]
        .into_iter()
        .filter(|k| h.get(*k).is_some())
        .collect();
    for extra in kinds.iter().skip(1) {
        out.push(FieldError::forbidden(join(path, extra), "may not specify more than 1 handler type"));
    }
    let Some(kind) = kinds.first() else {
        out.push(FieldError::required(path, "must specify a handler type"));
        return;
    };
    let (inner, path) = (h.get(*kind).unwrap_or(&Value::Null), join(path, kind));
    match *kind {
        "exec" if list(inner, "command").is_empty() => {
            out.push(FieldError::required(join(&path, "command"), ""));
        }
        "httpGet" | "tcpSocket" | "grpc" => port(out, inner.get("port"), join(&path, "port")),
        _ => {}
    }
}

/// Requests and limits.
fn resources(r: &Value, path: &str, out: &mut Vec<FieldError>) {
    let of = |field: &str| r.get(field).and_then(Value::as_object);
    for field in ["limits", "requests"] {
        for (name, value) in of(field).into_iter().flatten() {
            let at = format!("{path}.{field}[{name}]");
            faults(out, &format!("{path}.{field}"), name, names::qualified_name(name));
            let standard = ["cpu", "memory", "storage", "ephemeral-storage"].contains(&name.as_str());
            if !standard && !name.contains('/') && !name.starts_with("hugepages-") {
                let detail = "must be a standard resource type or fully qualified";
                out.push(FieldError::invalid(at.as_str(), name.as_str(), detail));
            }
            match Quantity::from_value(value) {
                Ok(q) if q.is_negative() => {
                    out.push(FieldError::invalid(at, value.clone(), "must be greater than or equal to 0"));
                }
                Ok(_) => {}
                Err(e) => out.push(FieldError::invalid(at, value.clone(), e.to_string())),
            }
        }
    }
    for (name, request) in of("requests").into_iter().flatten() {
        let limit = of("limits").and_then(|l| l.get(name));
        let pair = (Quantity::from_value(request), limit.map(Quantity::from_value));
        let at = format!("{path}.requests");
        let extended = name.contains('/') || name.starts_with("hugepages-");
        match pair {
            (Ok(r), Some(Ok(l))) if extended && r != l => {
                let detail = format!("must be equal to {name} limit of {l}");
                out.push(FieldError::invalid(at, request.clone(), detail));
            }
            (Ok(r), Some(Ok(l))) if r > l => {
                let detail = format!("must be less than or equal to {name} limit of {l}");
                out.push(FieldError::invalid(at, request.clone(), detail));
            }
            (Ok(_), None) if extended => {
                out.push(FieldError::required(
                    format!("{path}.limits"),
                    "Limit must be set for non overcommitable resources",
                ));
            }
            _ => {}
        }
    }
}
