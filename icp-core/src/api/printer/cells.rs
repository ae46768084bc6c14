//! The row of each kind.

use alloc::format;
use alloc::string::{String, ToString};
use alloc::vec::Vec;

use serde_json::Value;

use super::format::{NONE, UNKNOWN, View, access_modes, first_three, human_duration, or_none};
use super::{pod, workloads};
use crate::api::table::ResourceInfo;

macro_rules! row {
    ($($cell:expr),* $(,)?) => { alloc::vec![$(Value::from($cell)),*] };
}

/// The cells of an object, one a column.
pub(super) fn of(info: &ResourceInfo, v: &View<'_>) -> Vec<Value> {
    let mut cells = built_in(info, v);
    // A column without a cell would shift what follows.
    cells.resize(super::columns::of(info).split(',').count(), Value::Null);
    cells
}

fn built_in(info: &ResourceInfo, v: &View<'_>) -> Vec<Value> {
    match info.kind.as_str() {
        "Pod" => pod::cells(v),
        "ReplicationController" | "ReplicaSet" => workloads::replicas(v),
        "DaemonSet" => workloads::daemon_set(v),
        "StatefulSet" => workloads::stateful_set(v),
        "Deployment" => workloads::deployment(v),
        "Job" => workloads::job(v),
        "CronJob" => workloads::cron_job(v),
        "HorizontalPodAutoscaler" => workloads::autoscaler(v),
        "PodTemplate" => {
            let [names, images] = v.containers("template.spec");
            row![v.name(), names, images, v.pairs("template.metadata.labels")]
        }
        "PodDisruptionBudget" => row![
            v.name(),
            v.scalar("spec.minAvailable", "N/A"),
            v.scalar("spec.maxUnavailable", "N/A"),
            v.int("status.disruptionsAllowed"),
            v.age(),
        ],
        "Service" => service(v),
        "Ingress" => ingress(v),
        "IngressClass" => {
            let p = v.part("spec.parameters");
            let kind = if p.text("apiGroup").is_empty() {
                p.text("kind").to_string()
            } else {
                format!("{}.{}", p.text("kind"), p.text("apiGroup"))
            };
            let parameters = if p.has("name") { format!("{kind}/{}", p.text("name")) } else { NONE.into() };
            row![v.name(), v.text("spec.controller"), parameters, v.age()]
        }
        "Endpoints" => row![v.name(), endpoints(v), v.age()],
        "EndpointSlice" => endpoint_slice(v),
        "Node" => node(v),
        "Event" => event(v),
        "Namespace" => row![v.name(), v.text("status.phase"), v.age()],
        "Secret" => row![v.name(), v.text("type"), v.len("data"), v.age()],
        "ConfigMap" => row![v.name(), v.len("data") + v.len("binaryData"), v.age()],
        "ServiceAccount" => row![v.name(), v.len("secrets"), v.age()],
        "PersistentVolume" => volume(v),
        "PersistentVolumeClaim" => claim(v),
        "NetworkPolicy" => row![v.name(), v.selector("spec.podSelector"), v.age()],
        "RoleBinding" | "ClusterRoleBinding" => binding(v),
        "CertificateSigningRequest" => signing_request(v),
        "Lease" => row![v.name(), v.text("spec.holderIdentity"), v.age()],
        "StorageClass" => {
            let default = v
                .at("metadata.annotations")
                .and_then(|a| a.get("storageclass.kubernetes.io/is-default-class"));
            let mark = if default.and_then(Value::as_str) == Some("true") { " (default)" } else { "" };
            row![
                format!("{}{mark}", v.name()),
                v.text("provisioner"),
                v.text_or("reclaimPolicy", "Delete"),
                v.text_or("volumeBindingMode", "Immediate"),
                v.flag("allowVolumeExpansion").to_string(),
                v.age(),
            ]
        }
        "ControllerRevision" => {
            let owner = v.list("metadata.ownerReferences").find(|o| o.flag("controller"));
            let owner = owner.map(|o| {
                let group = o.text("apiVersion").split_once('/').map_or("", |(g, _)| g);
                let kind = o.text("kind").to_ascii_lowercase();
                if group.is_empty() {
                    format!("{kind}/{}", o.text("name"))
                } else {
                    format!("{kind}.{group}/{}", o.text("name"))
                }
            });
            row![v.name(), owner.unwrap_or_else(|| NONE.into()), v.int("revision"), v.age()]
        }
        "ResourceQuota" => quota(v),
        "PodGroup" => pod_group(v),
        "Workload" => row![v.name(), v.age()],
        "PriorityClass" => row![
            v.name(),
            v.int("value"),
            v.flag("globalDefault").to_string(),
            v.age(),
            v.text_or("preemptionPolicy", "PreemptLowerPriority"),
        ],
        "RuntimeClass" => row![v.name(), v.text("handler"), v.age()],
        "VolumeAttachment" => row![
            v.name(),
            v.text("spec.attacher"),
            v.text("spec.source.persistentVolumeName"),
            v.text("spec.nodeName"),
            v.flag("status.attached").to_string(),
            v.age(),
        ],
        "CSINode" => row![v.name(), v.len("spec.drivers"), v.age()],
        "CSIDriver" => {
            let audiences: Vec<&str> = v.list("spec.tokenRequests").map(|t| t.text("audience")).collect();
            let tokens = if audiences.is_empty() { "<unset>".to_string() } else { audiences.join(",") };
            let modes = v.texts("spec.volumeLifecycleModes").join(",");
            row![
                v.name(),
                v.at("spec.attachRequired").and_then(Value::as_bool).unwrap_or(true).to_string(),
                v.flag("spec.podInfoOnMount").to_string(),
                v.flag("spec.storageCapacity").to_string(),
                tokens,
                v.flag("spec.requiresRepublish").to_string(),
                or_none(modes),
                v.age(),
            ]
        }
        "CSIStorageCapacity" => row![v.name(), v.text("storageClassName"), v.scalar("capacity", "<unset>")],
        "MutatingWebhookConfiguration" | "ValidatingWebhookConfiguration" => {
            row![v.name(), v.len("webhooks"), v.age()]
        }
        "ValidatingAdmissionPolicy" | "MutatingAdmissionPolicy" => {
            let rules = if info.kind.starts_with('V') { "spec.validations" } else { "spec.mutations" };
            let p = v.part("spec.paramKind");
            let kind = format!("{}/{}", p.text("apiVersion"), p.text("kind"));
            row![v.name(), v.len(rules), if p.has("kind") { kind } else { "<unset>".into() }, v.age()]
        }
        "ValidatingAdmissionPolicyBinding" | "MutatingAdmissionPolicyBinding" => {
            let p = v.part("spec.paramRef");
            let reference = match (p.text("namespace"), p.text("name")) {
                (_, "") if p.has("selector") => p.selector("selector"),
                (_, "") => "<unset>".into(),
                ("", name) => format!("*/{name}"),
                (ns, name) => format!("{ns}/{name}"),
            };
            row![v.name(), v.text("spec.policyName"), reference, v.age()]
        }
        "FlowSchema" => {
            let missing = v.condition("Dangling").map_or("?", |c| c.text("status"));
            row![
                v.name(),
                v.text("spec.priorityLevelConfiguration.name"),
                v.int("spec.matchingPrecedence"),
                v.text_or("spec.distinguisherMethod.type", NONE),
                v.age(),
                missing,
            ]
        }
        "PriorityLevelConfiguration" => {
            let limited = v.part("spec.limited");
            let queuing = limited.part("limitResponse.queuing");
            row![
                v.name(),
                v.text("spec.type"),
                limited.scalar("nominalConcurrencyShares", NONE),
                queuing.scalar("queues", NONE),
                queuing.scalar("handSize", NONE),
                queuing.scalar("queueLengthLimit", NONE),
                v.age(),
            ]
        }
        "IPAddress" => {
            let p = v.part("spec.parentRef");
            let parts = ["group", "resource", "namespace", "name"].map(|f| p.text(f));
            let parts: Vec<&str> = parts.into_iter().filter(|s| !s.is_empty()).collect();
            row![v.name(), parts.join("/"), v.age()]
        }
        "ServiceCIDR" => row![v.name(), v.texts("spec.cidrs").join(","), v.age()],
        "ResourceClaim" => {
            let mut states = Vec::new();
            if v.has("metadata.deletionTimestamp") {
                states.push("deleted");
            }
            states.push(if v.has("status.allocation") { "allocated" } else { "pending" });
            if v.len("status.reservedFor") > 0 {
                states.push("reserved");
            }
            row![v.name(), states.join(","), v.age()]
        }
        "ResourceClaimTemplate" | "DeviceClass" => row![v.name(), v.age()],
        "ResourceSlice" => row![
            v.name(),
            v.text_or("spec.nodeName", "<unset>"),
            v.text("spec.driver"),
            v.text("spec.pool.name"),
            v.age(),
        ],
        "APIService" => {
            let s = v.part("spec.service");
            let service = if s.has("name") {
                format!("{}/{}", s.text("namespace"), s.text("name"))
            } else {
                "Local".into()
            };
            let available = match v.condition("Available") {
                Some(c) if c.text("status") == "True" => "True".to_string(),
                Some(c) => format!("{} ({})", c.text("status"), c.text("reason")),
                None => "Unknown".to_string(),
            };
            row![v.name(), service, available, v.age()]
        }
        "VolumeAttributesClass" => row![v.name(), v.text("driverName"), v.age()],
        _ if info.is_custom() => row![v.name(), v.age()],
        _ => row![v.name(), v.text("metadata.creationTimestamp")],
    }
}

fn service(v: &View<'_>) -> Vec<Value> {
    let external: Vec<&str> = v.texts("spec.externalIPs");
    let kind = v.text_or("spec.type", "ClusterIP");
    let external = match kind {
        "ExternalName" => v.text("spec.externalName").to_string(),
        "LoadBalancer" => {
            let ingress = v.list("status.loadBalancer.ingress").map(|i| i.text_or("ip", i.text("hostname")));
            let all: Vec<&str> = ingress.chain(external).collect();
            if all.is_empty() { "<pending>".into() } else { all.join(",") }
        }
        _ => or_none(external.join(",")),
    };
    let ports: Vec<String> = v
        .list("spec.ports")
        .map(|p| {
            let protocol = p.text_or("protocol", "TCP");
            match p.int("nodePort") {
                0 => format!("{}/{protocol}", p.int("port")),
                node => format!("{}:{node}/{protocol}", p.int("port")),
            }
        })
        .collect();
    let cluster = v.texts("spec.clusterIPs").first().copied().unwrap_or_else(|| v.text("spec.clusterIP"));
    row![
        v.name(),
        kind,
        or_none(cluster.into()),
        external,
        or_none(ports.join(",")),
        v.age(),
        v.pairs("spec.selector"),
    ]
}

fn ingress(v: &View<'_>) -> Vec<Value> {
    let hosts: Vec<String> =
        v.list("spec.rules").map(|r| r.text("host").to_string()).filter(|h| !h.is_empty()).collect();
    let addresses: Vec<&str> =
        v.list("status.loadBalancer.ingress").map(|i| i.text_or("ip", i.text("hostname"))).collect();
    let ports = if v.len("spec.tls") > 0 { "80, 443" } else { "80" };
    row![
        v.name(),
        v.text_or("spec.ingressClassName", NONE),
        first_three(&hosts, "*"),
        addresses.join(","),
        ports,
        v.age(),
    ]
}

fn endpoints(v: &View<'_>) -> String {
    let mut all = Vec::new();
    for subset in v.list("subsets") {
        let ports: Vec<i64> = subset.list("ports").map(|p| p.int("port")).collect();
        for address in subset.list("addresses") {
            let ip = address.text("ip");
            if ports.is_empty() {
                all.push(ip.to_string());
            }
            let host = if ip.contains(':') { format!("[{ip}]") } else { ip.into() };
            all.extend(ports.iter().map(|p| format!("{host}:{p}")));
        }
    }
    first_three(&all, NONE)
}

fn endpoint_slice(v: &View<'_>) -> Vec<Value> {
    let ports: Vec<String> = v
        .list("ports")
        .map(|p| if p.has("port") { p.int("port").to_string() } else { p.text_or("name", "*").to_string() })
        .collect();
    let addresses: Vec<String> =
        v.list("endpoints").flat_map(|e| e.texts("addresses")).map(ToString::to_string).collect();
    row![
        v.name(),
        v.text("addressType"),
        first_three(&ports, "<unset>"),
        first_three(&addresses, "<unset>"),
        v.age()
    ]
}

fn node(v: &View<'_>) -> Vec<Value> {
    let ready = match v.condition("Ready").map(|c| c.text("status") == "True") {
        Some(true) => "Ready",
        Some(false) => "NotReady",
        None => "Unknown",
    };
    let status =
        if v.flag("spec.unschedulable") { format!("{ready},SchedulingDisabled") } else { ready.into() };
    let labels = v.at("metadata.labels").and_then(Value::as_object);
    let mut roles: Vec<&str> = labels
        .into_iter()
        .flatten()
        .filter_map(|(k, value)| match k.strip_prefix("node-role.kubernetes.io/") {
            Some(role) => Some(role),
            None if k == "kubernetes.io/role" => value.as_str(),
            None => None,
        })
        .filter(|r| !r.is_empty())
        .collect();
    roles.sort_unstable();
    roles.dedup();
    let address = |kind: &str| {
        let found = v.list("status.addresses").find(|a| a.text("type") == kind);
        found.map_or(NONE, |a| a.text("address"))
    };
    let info = v.part("status.nodeInfo");
    row![
        v.name(),
        status,
        or_none(roles.join(",")),
        v.age(),
        info.text("kubeletVersion"),
        address("InternalIP"),
        address("ExternalIP"),
        info.text_or("osImage", UNKNOWN),
        info.text_or("kernelVersion", UNKNOWN),
        info.text_or("containerRuntimeVersion", UNKNOWN),
    ]
}

fn event(v: &View<'_>) -> Vec<Value> {
    // The same event in the words of both groups.
    let either = |a: &str, b: &str| v.text_or(a, v.text(b));
    let first = either("firstTimestamp", "deprecatedFirstTimestamp");
    let first = if first.is_empty() { v.text("eventTime") } else { first };
    let last = either("lastTimestamp", "deprecatedLastTimestamp");
    let last = if last.is_empty() { first } else { last };
    let series = v.part("series");
    let (last, count) = if v.has("series") {
        (series.text("lastObservedTime"), series.int("count"))
    } else {
        (last, v.int("count").max(v.int("deprecatedCount")).max(1))
    };
    let object = if v.has("involvedObject") { v.part("involvedObject") } else { v.part("regarding") };
    let kind = object.text("kind").to_ascii_lowercase();
    let target =
        if object.text("name").is_empty() { kind } else { format!("{kind}/{}", object.text("name")) };
    let source = if v.has("source.component") { v.part("source") } else { v.part("deprecatedSource") };
    let component = source.text_or("component", either("reportingComponent", "reportingController"));
    let host = source.text_or("host", v.text("reportingInstance"));
    let source = [component, host].into_iter().filter(|s| !s.is_empty()).collect::<Vec<_>>().join(", ");
    row![
        v.age_of(last),
        v.text("type"),
        v.text("reason"),
        target,
        object.text("fieldPath"),
        source,
        either("message", "note").trim(),
        v.age_of(first),
        count,
        v.name(),
    ]
}

fn volume(v: &View<'_>) -> Vec<Value> {
    let claim = v.part("spec.claimRef");
    let claim = if claim.has("name") {
        format!("{}/{}", claim.text("namespace"), claim.text("name"))
    } else {
        String::new()
    };
    let phase = if v.has("metadata.deletionTimestamp") { "Terminating" } else { v.text("status.phase") };
    row![
        v.name(),
        v.scalar("spec.capacity.storage", ""),
        access_modes(&v.texts("spec.accessModes")),
        v.text("spec.persistentVolumeReclaimPolicy"),
        phase,
        claim,
        v.text("spec.storageClassName"),
        v.text_or("spec.volumeAttributesClassName", "<unset>"),
        v.text("status.reason"),
        v.age(),
        v.text_or("spec.volumeMode", "<unset>"),
    ]
}

fn claim(v: &View<'_>) -> Vec<Value> {
    let phase = if v.has("metadata.deletionTimestamp") { "Terminating" } else { v.text("status.phase") };
    let bound = !v.text("spec.volumeName").is_empty();
    let (capacity, modes) = if bound {
        (v.scalar("status.capacity.storage", ""), access_modes(&v.texts("status.accessModes")))
    } else {
        (String::new(), String::new())
    };
    row![
        v.name(),
        phase,
        v.text("spec.volumeName"),
        capacity,
        modes,
        v.text("spec.storageClassName"),
        v.text_or("spec.volumeAttributesClassName", "<unset>"),
        v.age(),
        v.text_or("spec.volumeMode", "<unset>"),
    ]
}

fn binding(v: &View<'_>) -> Vec<Value> {
    let subjects = |kind: &str| {
        let of = v.list("subjects").filter(|s| s.text("kind") == kind);
        let names: Vec<String> = of
            .map(|s| match (kind, s.text("namespace")) {
                ("ServiceAccount", ns) => format!("{ns}/{}", s.text("name")),
                _ => s.text("name").to_string(),
            })
            .collect();
        names.join(", ")
    };
    let role = format!("{}/{}", v.text("roleRef.kind"), v.text("roleRef.name"));
    row![v.name(), role, v.age(), subjects("User"), subjects("Group"), subjects("ServiceAccount")]
}

fn signing_request(v: &View<'_>) -> Vec<Value> {
    let mut states: Vec<&str> = Vec::new();
    let has = |kind: &str| v.condition(kind).is_some();
    if has("Denied") {
        states.push("Denied");
    } else if has("Approved") {
        states.push("Approved");
    } else {
        states.push("Pending");
    }
    if has("Failed") {
        states.push("Failed");
    }
    if !v.text("status.certificate").is_empty() {
        states.push("Issued");
    }
    let seconds = v.at("spec.expirationSeconds").and_then(Value::as_i64);
    row![
        v.name(),
        v.age(),
        v.text_or("spec.signerName", NONE),
        v.text("spec.username"),
        seconds.map_or_else(|| NONE.into(), human_duration),
        states.join(","),
    ]
}

fn quota(v: &View<'_>) -> Vec<Value> {
    let (mut requests, mut limits) = (Vec::new(), Vec::new());
    let hard = v.part("status.hard");
    let used = v.part("status.used");
    for name in v.at("status.hard").and_then(Value::as_object).into_iter().flatten().map(|(k, _)| k) {
        // The names hold dots, so the view's paths do not reach them.
        let value = |of: &View<'_>| {
            let map = of.at_key(name);
            map.and_then(Value::as_str).unwrap_or("0").to_string()
        };
        let text = format!("{name}: {}/{}", value(&used), value(&hard));
        if name.starts_with("limits") { limits.push(text) } else { requests.push(text) }
    }
    row![v.name(), requests.join(", "), limits.join(", "), v.age()]
}

/// The condition is the one that the scheduler writes once a group found its nodes.
fn pod_group(v: &View<'_>) -> Vec<Value> {
    let policy = v.part("spec.schedulingPolicy");
    let (name, min) = match policy.at("gang.minCount").and_then(Value::as_i64) {
        Some(min) => ("Gang", min.to_string()),
        None => ("Basic", NONE.into()),
    };
    let scheduled = v.condition("PodGroupInitiallyScheduled");
    row![v.name(), name, min, scheduled.map_or(UNKNOWN, |c| c.text("status")), v.age()]
}
