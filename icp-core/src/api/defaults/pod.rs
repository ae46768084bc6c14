//! Defaults of pod specs, in pods and in templates.

use serde_json::{Map, Value, json};

use super::{at, each, object_at, set, set_number, set_text, text};
use crate::api::Quantity;

/// A pod spec, as `SetDefaults_PodSpec` and those that it leads to.
pub(super) fn spec(spec: &mut Value) {
    if !spec.is_object() {
        return;
    }
    set_text(spec, "dnsPolicy", "ClusterFirst");
    set_text(spec, "restartPolicy", "Always");
    set(spec, "terminationGracePeriodSeconds", 30);
    set_text(spec, "schedulerName", "default-scheduler");
    set(spec, "securityContext", Value::Object(Map::new()));
    // The old name of the field is kept in step.
    let account = text(spec, "serviceAccountName");
    let account = if account.is_empty() { text(spec, "serviceAccount") } else { account };
    if !account.is_empty() {
        let account = Value::from(account);
        set_text(spec, "serviceAccountName", account.as_str().unwrap_or_default());
        set_text(spec, "serviceAccount", account.as_str().unwrap_or_default());
    }
    let host_network = spec.get("hostNetwork").and_then(Value::as_bool) == Some(true);
    for list in ["initContainers", "containers", "ephemeralContainers"] {
        each(spec, list, |c| container(c, host_network && list != "ephemeralContainers"));
    }
    each(spec, "volumes", volume);
    each(spec, "topologySpreadConstraints", |c| {
        set(c, "nodeAffinityPolicy", "Honor");
        set(c, "nodeTaintsPolicy", "Ignore");
    });
}

/// What a pod gets that a template does not: limits become requests, service links are on.
pub(super) fn of_pod(pod: &mut Value) {
    let Some(spec) = object_at(pod, "spec") else { return };
    for list in ["initContainers", "containers"] {
        each(spec, list, |c| at(c, "resources", limits_to_requests));
    }
    at(spec, "resources", limits_to_requests);
    set(spec, "enableServiceLinks", true);
    if spec.get("hostNetwork").and_then(Value::as_bool) == Some(true) {
        for list in ["initContainers", "containers"] {
            each(spec, list, host_ports);
        }
    }
}

fn limits_to_requests(resources: &mut Value) {
    let Some(limits) = resources.get("limits").and_then(Value::as_object).cloned() else { return };
    if let Some(requests) = object_at(resources, "requests") {
        for (name, limit) in limits {
            set(requests, &name, limit);
        }
    }
}

fn host_ports(container: &mut Value) {
    each(container, "ports", |p| {
        if let Some(port) = p.get("containerPort").and_then(Value::as_i64) {
            set_number(p, "hostPort", port);
        }
    });
}

/// Whether an image is named by the moving tag `latest`.
fn is_latest(image: &str) -> bool {
    if image.contains('@') {
        return false;
    }
    let last = image.rsplit('/').next().unwrap_or(image);
    last.split_once(':').is_none_or(|(_, tag)| tag == "latest")
}

fn container(c: &mut Value, host_network: bool) {
    let policy = if is_latest(text(c, "image")) { "Always" } else { "IfNotPresent" };
    set_text(c, "imagePullPolicy", policy);
    set_text(c, "terminationMessagePath", "/dev/termination-log");
    set_text(c, "terminationMessagePolicy", "File");
    set(c, "resources", Value::Object(Map::new()));
    each(c, "ports", |p| set_text(p, "protocol", "TCP"));
    if host_network {
        host_ports(c);
    }
    each(c, "env", |e| {
        at(e, "valueFrom", |v| {
            at(v, "fieldRef", |f| set_text(f, "apiVersion", "v1"));
            at(v, "fileKeyRef", |f| set(f, "optional", false));
        });
    });
    for name in ["livenessProbe", "readinessProbe", "startupProbe"] {
        at(c, name, probe);
    }
    at(c, "lifecycle", |l| {
        for hook in ["postStart", "preStop"] {
            at(l, hook, |h| at(h, "httpGet", http_get));
        }
    });
    at(c, "resources", |r| {
        for list in ["limits", "requests"] {
            at(r, list, round_up);
        }
    });
}

/// Amounts below a thousandth are rounded up to one (`SetDefaults_ResourceList`).
fn round_up(list: &mut Value) {
    for (_, value) in list.as_object_mut().into_iter().flatten() {
        if let Ok(q) = Quantity::from_value(value)
            && q.nanos() % 1_000_000 != 0
        {
            *value = alloc::format!("{}", Quantity::from_millis(q.millis())).into();
        }
    }
}

fn http_get(http: &mut Value) {
    set_text(http, "path", "/");
    set_text(http, "scheme", "HTTP");
}

fn probe(p: &mut Value) {
    set_number(p, "timeoutSeconds", 1);
    set_number(p, "periodSeconds", 10);
    set_number(p, "successThreshold", 1);
    set_number(p, "failureThreshold", 3);
    at(p, "httpGet", http_get);
    at(p, "grpc", |g| set(g, "service", ""));
}

fn volume(v: &mut Value) {
    let sources = v.as_object().map_or(0, |m| m.keys().filter(|k| *k != "name").count());
    if sources == 0 {
        set(v, "emptyDir", Value::Object(Map::new()));
    }
    at(v, "hostPath", |h| set(h, "type", ""));
    at(v, "secret", |s| set(s, "defaultMode", 0o644));
    at(v, "configMap", |s| set(s, "defaultMode", 0o644));
    at(v, "downwardAPI", |s| {
        set(s, "defaultMode", 0o644);
        each(s, "items", |i| at(i, "fieldRef", |f| set_text(f, "apiVersion", "v1")));
    });
    at(v, "projected", |p| {
        set(p, "defaultMode", 0o644);
        each(p, "sources", |s| {
            at(s, "serviceAccountToken", |t| set(t, "expirationSeconds", 3600));
            at(s, "downwardAPI", |d| {
                each(d, "items", |i| at(i, "fieldRef", |f| set_text(f, "apiVersion", "v1")));
            });
        });
    });
    at(v, "iscsi", |i| set_text(i, "iscsiInterface", "default"));
    at(v, "rbd", |r| {
        set_text(r, "pool", "rbd");
        set_text(r, "user", "admin");
        set_text(r, "keyring", "/etc/ceph/keyring");
    });
    at(v, "image", |i| {
        let policy = if is_latest(text(i, "reference")) { "Always" } else { "IfNotPresent" };
        set_text(i, "pullPolicy", policy);
    });
    at(v, "ephemeral", |e| {
        at(e, "volumeClaimTemplate", |t| at(t, "spec", |s| set(s, "volumeMode", json!("Filesystem"))));
    });
}
