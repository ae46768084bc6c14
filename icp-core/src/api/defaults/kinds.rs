//! Defaults of each kind.

use serde_json::{Value, json};

use super::tables::{self, fill};
use super::{at, each, object_at, pod, set, set_text, text};
use crate::api::table::ResourceInfo;

fn template(spec: &mut Value) {
    at(spec, "template", |t| at(t, "spec", pod::spec));
}

/// Labels of the template stand in for a selector and labels that are missing (ReplicationController only).
fn from_template(object: &mut Value) {
    let labels = object.pointer("/spec/template/metadata/labels").cloned();
    if let Some(labels) = labels.filter(|l| l.as_object().is_some_and(|m| !m.is_empty())) {
        at(object, "spec", |s| set(s, "selector", labels.clone()));
        if let Some(meta) = object_at(object, "metadata") {
            set(meta, "labels", labels);
        }
    }
}

fn job_spec(spec: &mut Value) {
    // Neither completions nor parallelism: one pod.
    if spec.get("completions").is_none() && spec.get("parallelism").is_none() {
        set(spec, "completions", 1);
    }
    let per_index = spec.get("backoffLimitPerIndex").is_some();
    set(spec, "backoffLimit", if per_index { i32::MAX } else { 6 });
    fill(spec, tables::JOB_SPEC);
    let has_failure_policy = spec.get("podFailurePolicy").is_some();
    set(spec, "podReplacementPolicy", if has_failure_policy { "Failed" } else { "TerminatingOrFailed" });
    at(spec, "podFailurePolicy", |p| {
        each(p, "rules", |r| each(r, "onPodConditions", |c| set_text(c, "status", "True")));
    });
    template(spec);
}

pub(super) fn apply(info: &ResourceInfo, object: &mut Value) {
    match info.kind.as_str() {
        "Pod" => {
            pod::of_pod(object);
            at(object, "spec", pod::spec);
        }
        "PodTemplate" => at(object, "template", |t| at(t, "spec", pod::spec)),
        "ReplicationController" => {
            from_template(object);
            fill(object, tables::REPLICA_SET);
            at(object, "spec", template);
        }
        "ReplicaSet" => {
            fill(object, tables::REPLICA_SET);
            at(object, "spec", template);
        }
        "Deployment" => {
            fill(object, tables::DEPLOYMENT);
            at(object, "spec", |s| {
                at(s, "strategy", |st| {
                    if text(st, "type") == "RollingUpdate" {
                        fill(st, tables::ROLLING);
                    }
                });
                template(s);
            });
        }
        "DaemonSet" => {
            fill(object, tables::DAEMON_SET);
            at(object, "spec", |s| {
                at(s, "updateStrategy", |st| {
                    if text(st, "type") == "RollingUpdate" {
                        fill(st, tables::DAEMON_ROLLING);
                    }
                });
                template(s);
            });
        }
        "StatefulSet" => stateful_set(object),
        "Job" => {
            if let Some(spec) = object_at(object, "spec") {
                job_spec(spec);
            }
            // Labels of the template stand in for labels that are missing.
            let labels = object.pointer("/spec/template/metadata/labels").cloned();
            if let (Some(labels), Some(meta)) = (labels, object_at(object, "metadata")) {
                set(meta, "labels", labels);
            }
        }
        "CronJob" => {
            fill(object, tables::CRON_JOB);
            at(object, "spec", |s| at(s, "jobTemplate", |j| at(j, "spec", job_spec)));
        }
        "Service" => service(object),
        "Endpoints" => fill(object, tables::ENDPOINTS),
        "EndpointSlice" => fill(object, tables::ENDPOINT_SLICE),
        "Secret" => secret(object),
        "Namespace" => {
            let name = object.pointer("/metadata/name").and_then(Value::as_str).unwrap_or_default();
            let name = Value::from(name);
            let named = name.as_str().is_some_and(|n| !n.is_empty());
            if let Some(meta) = object_at(object, "metadata").filter(|_| named)
                && let Some(labels) = object_at(meta, "labels").and_then(Value::as_object_mut)
            {
                labels.insert("kubernetes.io/metadata.name".into(), name);
            }
        }
        "Node" => {
            let capacity = object.pointer("/status/capacity").cloned();
            if let Some(capacity) = capacity {
                at(object, "status", |s| set(s, "allocatable", capacity));
            }
        }
        "PersistentVolume" => fill(object, tables::VOLUME),
        "PersistentVolumeClaim" => {
            if let Some(spec) = object_at(object, "spec") {
                fill(spec, tables::CLAIM_SPEC);
                for source in ["dataSource", "dataSourceRef"] {
                    at(spec, source, |s| set(s, "apiGroup", ""));
                }
            }
        }
        "StorageClass" => fill(object, tables::STORAGE_CLASS),
        "CSIDriver" => fill(object, tables::CSI_DRIVER),
        "LimitRange" => at(object, "spec", |s| each(s, "limits", limit_item)),
        "NetworkPolicy" => network_policy(object),
        "IngressClass" => fill(object, tables::INGRESS_CLASS),
        "RoleBinding" | "ClusterRoleBinding" => role_binding(object),
        "MutatingWebhookConfiguration" | "ValidatingWebhookConfiguration" => {
            let mutating = info.kind.starts_with('M');
            each(object, "webhooks", |w| {
                fill(w, tables::WEBHOOK);
                if mutating {
                    set(w, "reinvocationPolicy", "Never");
                }
            });
        }
        "ValidatingAdmissionPolicy" | "MutatingAdmissionPolicy" => fill(object, tables::POLICY),
        "ValidatingAdmissionPolicyBinding" | "MutatingAdmissionPolicyBinding" => {
            fill(object, tables::POLICY_BINDING);
        }
        "PriorityClass" => fill(object, tables::PRIORITY_CLASS),
        "HorizontalPodAutoscaler" => autoscaler(info, object),
        "FlowSchema" => fill(object, tables::FLOW_SCHEMA),
        "APIService" => fill(object, tables::API_SERVICE),
        "CustomResourceDefinition" => crd(object),
        _ => {}
    }
}

fn stateful_set(object: &mut Value) {
    fill(object, tables::STATEFUL_SET);
    at(object, "spec", |s| {
        at(s, "updateStrategy", |st| {
            if text(st, "type") == "RollingUpdate"
                && let Some(rolling) = object_at(st, "rollingUpdate")
            {
                set(rolling, "partition", 0);
            }
        });
        each(s, "volumeClaimTemplates", |c| {
            set(c, "apiVersion", "v1");
            set(c, "kind", "PersistentVolumeClaim");
            at(c, "spec", |s| fill(s, tables::CLAIM_SPEC));
            if let Some(status) = object_at(c, "status") {
                set(status, "phase", "Pending");
            }
        });
        template(s);
    });
}

fn service(object: &mut Value) {
    fill(object, tables::SERVICE);
    at(object, "spec", |s| {
        let kind = alloc::string::String::from(text(s, "type"));
        each(s, "ports", |p| {
            let port = p.get("port").cloned().unwrap_or(Value::Null);
            let unset = p
                .get("targetPort")
                .is_none_or(|t| t.is_null() || t.as_i64() == Some(0) || t.as_str() == Some(""));
            if let Some(map) = p.as_object_mut().filter(|_| unset && !port.is_null()) {
                map.insert("targetPort".into(), port);
            }
        });
        if text(s, "sessionAffinity") == "ClientIP"
            && let Some(ip) = object_at(s, "sessionAffinityConfig").and_then(|c| object_at(c, "clientIP"))
        {
            set(ip, "timeoutSeconds", 10_800);
        }
        if matches!(kind.as_str(), "NodePort" | "LoadBalancer") {
            set_text(s, "externalTrafficPolicy", "Cluster");
        }
        if kind == "LoadBalancer" {
            set(s, "allocateLoadBalancerNodePorts", true);
        }
        if kind != "ExternalName" {
            set(s, "internalTrafficPolicy", "Cluster");
        }
    });
}

fn secret(object: &mut Value) {
    use base64::Engine as _;
    set_text(object, "type", "Opaque");
    fill(object, tables::SECRET);
    // `stringData` is written only: it moves into `data`.
    let Some(map) = object.as_object_mut() else { return };
    let Some(Value::Object(plain)) = map.remove("stringData") else { return };
    if let Some(data) = object_at(object, "data").and_then(Value::as_object_mut) {
        for (key, value) in plain {
            let bytes = value.as_str().unwrap_or_default().as_bytes();
            data.insert(key, base64::engine::general_purpose::STANDARD.encode(bytes).into());
        }
    }
}

fn limit_item(item: &mut Value) {
    if text(item, "type") != "Container" {
        return;
    }
    let part =
        |item: &Value, name: &str| item.get(name).and_then(Value::as_object).cloned().unwrap_or_default();
    for (to, from) in [("default", "max"), ("defaultRequest", "default"), ("defaultRequest", "min")] {
        let source = part(item, from);
        if source.is_empty() {
            continue;
        }
        if let Some(target) = object_at(item, to) {
            source.into_iter().for_each(|(k, v)| set(target, &k, v));
        }
    }
}

fn network_policy(object: &mut Value) {
    fill(object, tables::NETWORK_POLICY_PORTS);
    if let Some(spec) = object_at(object, "spec") {
        set(spec, "podSelector", json!({}));
        let egress = spec.get("egress").and_then(Value::as_array).is_some_and(|e| !e.is_empty());
        set(spec, "policyTypes", if egress { json!(["Ingress", "Egress"]) } else { json!(["Ingress"]) });
    }
}

fn role_binding(object: &mut Value) {
    const GROUP: &str = "rbac.authorization.k8s.io";
    at(object, "roleRef", |r| set_text(r, "apiGroup", GROUP));
    each(object, "subjects", |s| {
        if matches!(text(s, "kind"), "User" | "Group") {
            set_text(s, "apiGroup", GROUP);
        }
    });
}

fn autoscaler(info: &ResourceInfo, object: &mut Value) {
    fill(object, tables::AUTOSCALER);
    at(object, "spec", |s| {
        if info.gvr.version == "v1" {
            return;
        }
        set(
            s,
            "metrics",
            json!([{ "type": "Resource", "resource": { "name": "cpu",
                "target": { "type": "Utilization", "averageUtilization": 80 } } }]),
        );
        at(s, "behavior", |b| {
            at(b, "scaleUp", |r| {
                set(r, "stabilizationWindowSeconds", 0);
                set(r, "selectPolicy", "Max");
                let policies = json!([{ "type": "Pods", "value": 4, "periodSeconds": 15 },
                    { "type": "Percent", "value": 100, "periodSeconds": 15 }]);
                set(r, "policies", policies);
            });
            at(b, "scaleDown", |r| {
                set(r, "selectPolicy", "Max");
                set(r, "policies", json!([{ "type": "Percent", "value": 100, "periodSeconds": 15 }]));
            });
        });
    });
}

fn crd(object: &mut Value) {
    fill(object, tables::CRD);
    at(object, "spec", |s| {
        at(s, "names", |n| {
            let kind = alloc::string::String::from(text(n, "kind"));
            set_text(n, "singular", &kind.to_ascii_lowercase());
            set_text(n, "listKind", &alloc::format!("{kind}List"));
        });
    });
}
