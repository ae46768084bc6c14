//! The parts that only need the API.

use std::sync::Arc;
use std::time::{Duration, Instant};

use icp_core::api::{Object, resources, set_at};
use icp_core::client::PatchKind;
use serde_json::{Value, json};

use super::super::api::{Api, ApiFailure};
use super::super::report::Report;
use super::super::sim::SERVICE_NETWORK;
use super::super::view::condition;
use super::{NAMESPACE, wrong};

const LABEL: &str = "app=web";
const REPLICAS: usize = 3;
const SCALED: usize = 6;
const WAIT: Duration = Duration::from_secs(60);

/// What the list's Deployment runs.
#[derive(Clone, Debug)]
pub struct Workload {
    /// The image.
    pub image: &'static str,
    /// The command; empty for the image's.
    pub command: &'static [&'static str],
    /// The node's folder that holds the command; it is mounted at `/icp`.
    pub tools: Option<String>,
}

impl Workload {
    /// The container and the volumes of a pod.
    fn parts(&self, command: &[&str]) -> (Value, Vec<Value>) {
        let mut container = json!({
            "name": "web", "image": self.image,
            "resources": { "requests": { "cpu": "10m", "memory": "16Mi" } },
        });
        let mut volumes = Vec::new();
        if !command.is_empty() {
            set_at(&mut container, &["command"], json!(command));
        }
        if let Some(tools) = &self.tools {
            let mounts = json!([{ "name": "tools", "mountPath": "/icp", "readOnly": true }]);
            set_at(&mut container, &["volumeMounts"], mounts);
            volumes.push(json!({ "name": "tools", "hostPath": { "path": tools } }));
        }
        (container, volumes)
    }

    /// A pod that runs a command to its end.
    #[must_use]
    pub fn pod(&self, name: &str, command: &[&str]) -> Value {
        let (container, volumes) = self.parts(command);
        json!({
            "apiVersion": "v1", "kind": "Pod", "metadata": { "name": name, "namespace": NAMESPACE },
            "spec": {
                "restartPolicy": "Never", "terminationGracePeriodSeconds": 0,
                "containers": [container], "volumes": volumes,
            },
        })
    }

    /// A Deployment of `replicas` pods whose pods leave a lost node after 2 seconds.
    #[must_use]
    pub fn deployment(&self, name: &str, replicas: usize, version: &str) -> Value {
        let (mut container, volumes) = self.parts(self.command);
        set_at(&mut container, &["ports"], json!([{ "name": "http", "containerPort": 8080 }]));
        set_at(&mut container, &["env"], json!([{ "name": "VERSION", "value": version }]));
        if self.tools.is_some() {
            let probe = json!({ "httpGet": { "path": "/", "port": "http" }, "periodSeconds": 1 });
            set_at(&mut container, &["readinessProbe"], probe);
        }
        let leave = |key: &str| json!({ "key": key, "operator": "Exists", "effect": "NoExecute", "tolerationSeconds": 2 });
        json!({
            "apiVersion": "apps/v1", "kind": "Deployment",
            "metadata": { "name": name, "namespace": NAMESPACE },
            "spec": {
                "replicas": replicas,
                "selector": { "matchLabels": { "app": name } },
                "template": {
                    "metadata": { "labels": { "app": name } },
                    "spec": {
                        "terminationGracePeriodSeconds": 2,
                        "containers": [container],
                        "volumes": volumes,
                        "tolerations": [
                            leave("node.kubernetes.io/not-ready"), leave("node.kubernetes.io/unreachable"),
                        ],
                    },
                },
            },
        })
    }
}

/// The pods of a Deployment of the list that are ready and not ending, with their nodes.
///
/// # Errors
/// If the API server does not answer.
pub async fn pods_of(api: &Api, labels: &str) -> Result<Vec<Arc<Object>>, ApiFailure> {
    let pods = api.list(&resources::PODS, NAMESPACE, labels).await?;
    Ok(pods.into_iter().filter(|p| !p.is_terminating() && condition(p, "Ready")).collect())
}

async fn wait_ready(api: &Api, name: &str, replicas: usize) -> Result<(), ApiFailure> {
    let what = format!("{replicas} ready pods of {name}");
    api.wait(&what, WAIT, async |api| {
        let Some(deployment) = api.get(&resources::DEPLOYMENTS, NAMESPACE, name).await? else {
            return Ok(Err("the Deployment is gone".into()));
        };
        let number = |field: &str| deployment.at(field).and_then(Value::as_u64).unwrap_or(0);
        let (ready, updated) = (number("/status/readyReplicas"), number("/status/updatedReplicas"));
        let observed = number("/status/observedGeneration") >= deployment.metadata.generation.unsigned_abs();
        let total = number("/status/replicas");
        let want = replicas as u64;
        let done = observed && ready == want && updated == want && total == want;
        Ok(if done { Ok(()) } else { Err(format!("{ready} ready, {updated} of the newest, {total} in all")) })
    })
    .await
}

/// Create, read, change, refuse what is stale, delete.
pub(super) async fn api_part(api: &Api) -> Result<String, ApiFailure> {
    api.apply(json!({ "apiVersion": "v1", "kind": "Namespace", "metadata": { "name": NAMESPACE } }), "")
        .await?;
    let map = |value: &str| {
        json!({ "apiVersion": "v1", "kind": "ConfigMap",
                "metadata": { "name": "greeting", "namespace": NAMESPACE }, "data": { "hello": value } })
    };
    let started = Instant::now();
    let first = api.apply(map("world"), NAMESPACE).await?;
    let took = started.elapsed();
    let patch = json!({ "data": { "hello": "again" } });
    let second = api.patch(&resources::CONFIG_MAPS, NAMESPACE, "greeting", PatchKind::Merge, patch).await?;
    let stale = json!({ "metadata": { "resourceVersion": first.metadata.resource_version } , "data": {} });
    match api.patch(&resources::CONFIG_MAPS, NAMESPACE, "greeting", PatchKind::Merge, stale).await {
        Err(ApiFailure::Api { source, .. }) if source.is("Conflict") => {}
        other => return Err(wrong("a stale resourceVersion", format!("was not refused: {other:?}"))),
    }
    let read = api.get(&resources::CONFIG_MAPS, NAMESPACE, "greeting").await?;
    let read = read.ok_or_else(|| wrong("greeting", "is gone"))?;
    if read.str_at("/data/hello") != "again" || read.metadata.uid != second.metadata.uid {
        return Err(wrong("greeting", "is not what was written"));
    }
    api.delete(&resources::CONFIG_MAPS, NAMESPACE, "greeting").await?;
    Ok(format!("create, read, patch, conflict, delete; create took {:.1} ms", took.as_secs_f64() * 1e3))
}

/// Roll out, scale, roll to a new version.
pub(super) async fn pods_part(api: &Api, web: &Workload, report: &Report) -> Result<String, ApiFailure> {
    let started = Instant::now();
    api.apply(web.deployment("web", REPLICAS, "1"), NAMESPACE).await?;
    wait_ready(api, "web", REPLICAS).await?;
    let up = started.elapsed();
    let scale = json!({ "spec": { "replicas": SCALED } });
    api.patch(&resources::DEPLOYMENTS, NAMESPACE, "web", PatchKind::Merge, scale).await?;
    wait_ready(api, "web", SCALED).await?;
    let before = pods_of(api, LABEL).await?;
    api.apply(web.deployment("web", SCALED, "2"), NAMESPACE).await?;
    wait_ready(api, "web", SCALED).await?;
    let after = pods_of(api, LABEL).await?;
    if after.iter().any(|p| before.iter().any(|b| b.metadata.uid == p.metadata.uid)) {
        return Err(wrong("the new version", "is served by a pod of the old one"));
    }
    report.figure("three pods from apply to ready", &json!(up.as_millis() as u64), "ms");
    let nodes: std::collections::BTreeSet<&str> = after.iter().map(|p| p.str_at("/spec/nodeName")).collect();
    Ok(format!("{REPLICAS} up, scaled to {SCALED}, rolled to version 2, on {} nodes", nodes.len()))
}

/// A Service gets an address and its endpoints.
pub(super) async fn service_objects(api: &Api) -> Result<String, ApiFailure> {
    let service = json!({
        "apiVersion": "v1", "kind": "Service", "metadata": { "name": "web", "namespace": NAMESPACE },
        "spec": { "selector": { "app": "web" }, "ports": [{ "name": "http", "port": 80, "targetPort": "http" }] },
    });
    let service = api.apply(service, NAMESPACE).await?;
    let ip = service.str_at("/spec/clusterIP").to_string();
    if !ip.parse().is_ok_and(|ip: std::net::IpAddr| SERVICE_NETWORK.contains(&ip)) {
        return Err(wrong("web", format!("has the ClusterIP {ip:?}, which is not of {SERVICE_NETWORK}")));
    }
    let pods = pods_of(api, LABEL).await?;
    if pods.is_empty() {
        return Err(wrong("web", "has no ready pods"));
    }
    let mut want: Vec<String> = pods.iter().map(|p| p.str_at("/status/podIP").to_string()).collect();
    want.sort();
    api.wait("the endpoints of web", WAIT, async |api| {
        let slices =
            api.list(&resources::ENDPOINT_SLICES, NAMESPACE, "kubernetes.io/service-name=web").await?;
        let mut have: Vec<String> = slices
            .iter()
            .filter_map(|s| s.at("/endpoints").and_then(Value::as_array))
            .flatten()
            .filter(|e| e.pointer("/conditions/ready") == Some(&Value::Bool(true)))
            .filter_map(|e| e.pointer("/addresses/0").and_then(Value::as_str).map(str::to_string))
            .collect();
        have.sort();
        Ok(if have == want { Ok(()) } else { Err(format!("{} of {}", have.len(), want.len())) })
    })
    .await?;
    Ok(format!("web has ClusterIP {ip} and {} endpoints", want.len()))
}

/// The node with the most ready pods of the list.
pub(super) async fn busiest_node(api: &Api) -> Result<String, ApiFailure> {
    let mut count = std::collections::BTreeMap::<String, usize>::new();
    for pod in pods_of(api, LABEL).await? {
        *count.entry(pod.str_at("/spec/nodeName").to_string()).or_default() += 1;
    }
    let most = count.into_iter().max_by_key(|(_, n)| *n);
    most.map(|(node, _)| node).ok_or_else(|| wrong("web", "has no ready pods"))
}

/// Waits until all pods of the list run on other nodes than `lost`, and tells how many are there.
pub(super) async fn moved_from(api: &Api, lost: &str) -> Result<usize, ApiFailure> {
    let limit = Duration::from_secs(90);
    api.wait("pods elsewhere", limit, async |api| {
        let pods = pods_of(api, LABEL).await?;
        let elsewhere = pods.iter().filter(|p| p.str_at("/spec/nodeName") != lost).count();
        let still = pods.len() - elsewhere;
        Ok(if elsewhere == SCALED && still == 0 {
            Ok(elsewhere)
        } else {
            Err(format!("{elsewhere} elsewhere, {still} still counted on {lost}"))
        })
    })
    .await
}

/// The namespace goes with all that is in it. Pods of a lost node never end by themselves; they are forgotten as an
/// administrator would (`kubectl delete --force`).
pub(super) async fn clean(api: &Api) -> Result<String, ApiFailure> {
    let nodes = api.list(&resources::NODES, "", "").await?;
    for pod in api.list(&resources::PODS, NAMESPACE, "").await? {
        let on = pod.str_at("/spec/nodeName");
        if nodes.iter().any(|n| n.metadata.name == on && !condition(n, "Ready")) {
            api.force_delete(&resources::PODS, NAMESPACE, &pod.metadata.name).await?;
        }
    }
    api.delete(&resources::NAMESPACES, "", NAMESPACE).await?;
    api.wait("the namespace to go", WAIT, async |api| {
        let there = api.get(&resources::NAMESPACES, "", NAMESPACE).await?;
        let pods = api.list(&resources::PODS, NAMESPACE, "").await?.len();
        Ok(if there.is_none() { Ok(()) } else { Err(format!("{pods} pods are left")) })
    })
    .await?;
    Ok("the namespace and all in it are gone".into())
}
