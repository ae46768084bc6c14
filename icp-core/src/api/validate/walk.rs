//! One walk over an object by its schema: required fields and values of fixed sets.

use alloc::format;
use alloc::string::String;
use alloc::vec::Vec;

use serde_json::Value;

use super::join;
use crate::api::FieldError;
use crate::api::schema::{Schema, Shape};
use crate::api::table::ResourceInfo;

/// Fields that the definitions call required, although their zero value is valid or code tells it better.
const OPTIONAL: &[(&str, &str)] = &[
    ("v1.Role", "rules"),
    ("v1.ClusterRole", "rules"),
    ("v1.EndpointSlice", "endpoints"),
    ("v1.PriorityClass", "value"),
    ("v1.ControllerRevision", "revision"),
    ("v1.StatefulSetSpec", "serviceName"),
    ("v1.CSINodeSpec", "drivers"),
    ("v1.NetworkPolicySpec", "podSelector"),
    ("v1.PodSpec", "containers"),
    ("v1.HorizontalPodAutoscalerSpec", "maxReplicas"),
    ("v2.HorizontalPodAutoscalerSpec", "maxReplicas"),
    ("v1.ContainerPort", "containerPort"),
    ("v1.ServicePort", "port"),
    ("v1.CronJobSpec", "schedule"),
    ("v1.HTTPIngressPath", "pathType"),
    ("v1.GRPCAction", "port"),
    ("v1.HTTPGetAction", "port"),
    ("v1.TCPSocketAction", "port"),
    ("v1.SelfSubjectRulesReview", "spec"),
    ("v1beta1.GangSchedulingPolicy", "minCount"),
    ("v1beta1.PodGroupTemplate", "name"),
];

/// Type, field and the values it may have; the empty text is left to the rules of required fields.
const VALUES: &[(&str, &str, &[&str])] = &[
    ("v1.Container", "imagePullPolicy", &["Always", "IfNotPresent", "Never"]),
    ("v1.Container", "terminationMessagePolicy", &["FallbackToLogsOnError", "File"]),
    ("v1.EphemeralContainer", "imagePullPolicy", &["Always", "IfNotPresent", "Never"]),
    ("v1.ContainerPort", "protocol", &["SCTP", "TCP", "UDP"]),
    ("v1.ServicePort", "protocol", &["SCTP", "TCP", "UDP"]),
    ("v1.EndpointPort", "protocol", &["SCTP", "TCP", "UDP"]),
    ("v1.NetworkPolicyPort", "protocol", &["SCTP", "TCP", "UDP"]),
    ("v1.PodSpec", "restartPolicy", &["Always", "Never", "OnFailure"]),
    ("v1.PodSpec", "dnsPolicy", &["ClusterFirst", "ClusterFirstWithHostNet", "Default", "None"]),
    ("v1.PodSpec", "preemptionPolicy", &["Never", "PreemptLowerPriority"]),
    ("v1.PodOS", "name", &["linux", "windows"]),
    ("v1.HTTPGetAction", "scheme", &["HTTP", "HTTPS"]),
    ("v1.SeccompProfile", "type", &["Localhost", "RuntimeDefault", "Unconfined"]),
    ("v1.Toleration", "effect", &["NoExecute", "NoSchedule", "PreferNoSchedule"]),
    ("v1.Toleration", "operator", &["Equal", "Exists", "Gt", "Lt"]),
    ("v1.Taint", "effect", &["NoExecute", "NoSchedule", "PreferNoSchedule"]),
    ("v1.TopologySpreadConstraint", "whenUnsatisfiable", &["DoNotSchedule", "ScheduleAnyway"]),
    ("v1.TopologySpreadConstraint", "nodeAffinityPolicy", &["Honor", "Ignore"]),
    ("v1.TopologySpreadConstraint", "nodeTaintsPolicy", &["Honor", "Ignore"]),
    ("v1.ServiceSpec", "type", &["ClusterIP", "ExternalName", "LoadBalancer", "NodePort"]),
    ("v1.ServiceSpec", "sessionAffinity", &["ClientIP", "None"]),
    ("v1.ServiceSpec", "externalTrafficPolicy", &["Cluster", "Local"]),
    ("v1.ServiceSpec", "internalTrafficPolicy", &["Cluster", "Local"]),
    ("v1.ServiceSpec", "ipFamilyPolicy", &["PreferDualStack", "RequireDualStack", "SingleStack"]),
    ("v1.ServiceSpec", "ipFamilies", &["IPv4", "IPv6"]),
    ("v1.DeploymentStrategy", "type", &["Recreate", "RollingUpdate"]),
    ("v1.DaemonSetUpdateStrategy", "type", &["OnDelete", "RollingUpdate"]),
    ("v1.StatefulSetUpdateStrategy", "type", &["OnDelete", "RollingUpdate"]),
    ("v1.StatefulSetSpec", "podManagementPolicy", &["OrderedReady", "Parallel"]),
    ("v1.JobSpec", "completionMode", &["Indexed", "NonIndexed"]),
    ("v1.JobSpec", "podReplacementPolicy", &["Failed", "TerminatingOrFailed"]),
    ("v1.CronJobSpec", "concurrencyPolicy", &["Allow", "Forbid", "Replace"]),
    ("v1.PodDisruptionBudgetSpec", "unhealthyPodEvictionPolicy", &["AlwaysAllow", "IfHealthyBudget"]),
    ("v1.PersistentVolumeSpec", "persistentVolumeReclaimPolicy", &["Delete", "Recycle", "Retain"]),
    ("v1.PersistentVolumeSpec", "volumeMode", &["Block", "Filesystem"]),
    ("v1.PersistentVolumeSpec", "accessModes", ACCESS_MODES),
    ("v1.PersistentVolumeClaimSpec", "volumeMode", &["Block", "Filesystem"]),
    ("v1.PersistentVolumeClaimSpec", "accessModes", ACCESS_MODES),
    ("v1.StorageClass", "volumeBindingMode", &["Immediate", "WaitForFirstConsumer"]),
    ("v1.StorageClass", "reclaimPolicy", &["Delete", "Retain"]),
    ("v1.PriorityClass", "preemptionPolicy", &["Never", "PreemptLowerPriority"]),
    ("v1.HTTPIngressPath", "pathType", &["Exact", "ImplementationSpecific", "Prefix"]),
    ("v1.NetworkPolicySpec", "policyTypes", &["Egress", "Ingress"]),
    ("v1.EndpointSlice", "addressType", &["FQDN", "IPv4", "IPv6"]),
    ("v1.MutatingWebhook", "failurePolicy", &["Fail", "Ignore"]),
    ("v1.MutatingWebhook", "matchPolicy", &["Equivalent", "Exact"]),
    ("v1.MutatingWebhook", "sideEffects", &["None", "NoneOnDryRun"]),
    ("v1.MutatingWebhook", "reinvocationPolicy", &["IfNeeded", "Never"]),
    ("v1.ValidatingWebhook", "failurePolicy", &["Fail", "Ignore"]),
    ("v1.ValidatingWebhook", "matchPolicy", &["Equivalent", "Exact"]),
    ("v1.ValidatingWebhook", "sideEffects", &["None", "NoneOnDryRun"]),
    ("v1.CustomResourceDefinitionSpec", "scope", &["Cluster", "Namespaced"]),
    ("v1.CustomResourceConversion", "strategy", &["None", "Webhook"]),
    ("v2.MetricSpec", "type", &["ContainerResource", "External", "Object", "Pods", "Resource"]),
    ("v2.MetricTarget", "type", &["AverageValue", "Utilization", "Value"]),
    (
        "v1.HostPathVolumeSource",
        "type",
        &["BlockDevice", "CharDevice", "Directory", "DirectoryOrCreate", "File", "FileOrCreate", "Socket"],
    ),
    ("v1.NodeSelectorRequirement", "operator", &["DoesNotExist", "Exists", "Gt", "In", "Lt", "NotIn"]),
];

const ACCESS_MODES: &[&str] = &["ReadOnlyMany", "ReadWriteMany", "ReadWriteOnce", "ReadWriteOncePod"];

/// Checks the content of an object of a built-in kind; metadata and status have rules of their own.
pub(super) fn walk(info: &ResourceInfo, schema: Schema<'_>, object: &Value, out: &mut Vec<FieldError>) {
    // Events and nodes are written by components of any version; upstream hardly checks them.
    if matches!(info.kind.as_str(), "Event" | "Node") {
        return;
    }
    place(schema, object, "", out);
}

fn missing(value: Option<&Value>) -> bool {
    match value {
        None | Some(Value::Null) => true,
        Some(Value::String(s)) => s.is_empty(),
        Some(Value::Array(l)) => l.is_empty(),
        Some(_) => false,
    }
}

fn place(schema: Schema<'_>, value: &Value, path: &str, out: &mut Vec<FieldError>) {
    if out.len() > super::ERRORS_MAX {
        return;
    }
    match (schema.shape(), value) {
        (Shape::Object, Value::Object(map)) => {
            let name = schema.type_name();
            let meta = name == "v1.ObjectMeta";
            for field in schema.field_names() {
                let optional =
                    OPTIONAL.contains(&(name.as_str(), field)) || (path.is_empty() && field == "metadata");
                if schema.requires(field) && !optional && !meta && missing(map.get(field)) {
                    out.push(FieldError::required(join(path, field), ""));
                }
            }
            for (field, allowed) in VALUES.iter().filter(|(t, _, _)| *t == name).map(|(_, f, a)| (*f, *a)) {
                let mut check = |value: &Value, path: String| match value.as_str() {
                    Some(s) if !s.is_empty() && !allowed.contains(&s) => {
                        out.push(FieldError::not_supported(path, s, allowed));
                    }
                    _ => {}
                };
                match map.get(field) {
                    Some(Value::Array(all)) => {
                        let path = join(path, field);
                        all.iter().enumerate().for_each(|(i, v)| check(v, format!("{path}[{i}]")));
                    }
                    Some(one) => check(one, join(path, field)),
                    None => {}
                }
            }
            for (field, inner) in map {
                let root_part = path.is_empty() && matches!(field.as_str(), "metadata" | "status");
                if let Some(sub) = schema.field(field).filter(|_| !root_part && !meta) {
                    place(sub, inner, &join(path, field), out);
                }
            }
        }
        (Shape::Map, Value::Object(map)) => {
            for (key, inner) in map {
                if let Some(sub) = schema.field(key) {
                    place(sub, inner, &format!("{path}[{key}]"), out);
                }
            }
        }
        (Shape::List, Value::Array(list)) => {
            let sub = schema.items();
            list.iter().enumerate().for_each(|(i, inner)| place(sub, inner, &format!("{path}[{i}]"), out));
        }
        _ => {}
    }
}
