//! The list for a cluster of machines.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use bytes::Bytes;
use icp_core::api::resources;
use icp_core::shell::HttpClient;
use serde_json::{Value, json};

use super::super::api::{Api, ApiFailure};
use super::super::real::{MASTER_VIP, RealCluster};
use super::super::report::{Report, percentile};
use super::super::view::condition;
use super::{NAMESPACE, Tally, Workload, workload, wrong};
use crate::lab::{Place, Signal, Spawn};

const WAIT: Duration = Duration::from_secs(60);
/// Pods that are started one after the other for the figures.
const STARTS: usize = 10;
/// Calls of the Service for the figures.
const CALLS: usize = 200;
/// Writes under way while the store is killed.
const WRITERS: usize = 8;
/// Writes that are acknowledged before the store is killed.
const WRITES_BEFORE: usize = 50;

/// Walks the list.
pub async fn run(cluster: &RealCluster, report: &Report) -> bool {
    let mut tally = Tally::default();
    let api = &cluster.api;
    let tools = cluster.state.path().join("bin").display().to_string();
    let web = Workload { image: "host", command: &["/icp/icp", "tool", "serve", "8080"], tools: Some(tools) };
    tally.part(report, ".api", workload::api_part(api)).await;
    let pods = tally.part(report, ".pods", workload::pods_part(api, &web, report)).await;
    if pods {
        tally.part(report, ".starts", starts(api, &web, report)).await;
        tally.part(report, ".service", service(cluster, &web, report)).await;
        tally.part(report, ".logs", logs(cluster)).await;
    } else {
        tally.left_out(report, ".starts, .service, .logs, .worker", "no pods run");
    }
    tally.not_yet(report, ".policy", "NetworkPolicy is stored but not enforced");
    if cluster.masters.len() > 1 {
        tally.part(report, ".vip", vip(cluster, report)).await;
    } else {
        tally.left_out(report, ".vip", "there is no other master");
    }
    if cluster.lab.process("store", "etcd").is_some() {
        tally.part(report, ".store", store(cluster, report)).await;
    } else {
        tally.left_out(report, ".store", "the store is outside of this cluster");
    }
    if pods && cluster.workers.len() > 1 {
        tally.part(report, ".worker", worker(cluster, report)).await;
    } else if pods {
        tally.left_out(report, ".worker", "there is no other");
    }
    tally.part(report, ".clean", workload::clean(api)).await;
    memory(&cluster.state.path().join("etc"), report);
    tally.finish(report)
}

async fn text(client: &HttpClient, path: &str) -> Result<String, ApiFailure> {
    let request = http::Request::get(path).body(Bytes::new()).map_err(|e| wrong(path, e.to_string()))?;
    let answer = client.raw(request).await;
    let (status, body) =
        answer.map_err(|source| ApiFailure::Api { what: path.into(), source: Box::new(source) })?;
    let body = String::from_utf8_lossy(&body).into_owned();
    if status.is_success() { Ok(body) } else { Err(wrong(path, format!("{status}: {body}"))) }
}

async fn log_of(cluster: &RealCluster, pod: &str) -> Result<String, ApiFailure> {
    let client = cluster.access.http_client("admin", "full-cluster");
    let client = client.map_err(|e| wrong("certificates", e.to_string()))?;
    text(&client, &format!("/api/v1/namespaces/{NAMESPACE}/pods/{pod}/log")).await
}

/// Runs a pod of the tools to its end and gives its log.
async fn run_pod(
    cluster: &RealCluster,
    web: &Workload,
    name: &str,
    command: &[&str],
) -> Result<String, ApiFailure> {
    let api = &cluster.api;
    api.apply(web.pod(name, command), NAMESPACE).await?;
    let phase = api
        .wait(&format!("pod {name} to end"), WAIT, async |api| {
            let pod = api.get(&resources::PODS, NAMESPACE, name).await?;
            let phase = pod.map(|p| p.str_at("/status/phase").to_string()).unwrap_or_default();
            Ok(match phase.as_str() {
                "Succeeded" | "Failed" => Ok(phase),
                _ => Err(phase),
            })
        })
        .await?;
    let log = log_of(cluster, name).await?;
    api.delete(&resources::PODS, NAMESPACE, name).await?;
    if phase == "Succeeded" { Ok(log) } else { Err(wrong(name, log.trim().to_string())) }
}

/// From the creation of a pod to its readiness, as a client sees it.
async fn starts(api: &Api, web: &Workload, report: &Report) -> Result<String, ApiFailure> {
    let mut times = Vec::new();
    for i in 0..STARTS {
        let name = format!("start-{i}");
        let started = Instant::now();
        api.apply(web.pod(&name, web.command), NAMESPACE).await?;
        api.wait(&format!("pod {name}"), WAIT, async |api| {
            let pod = api.get(&resources::PODS, NAMESPACE, &name).await?;
            let state = pod.as_deref().map(super::super::view::pod_state).unwrap_or_default();
            Ok(if state == "Running" { Ok(()) } else { Err(state) })
        })
        .await?;
        times.push(u64::try_from(started.elapsed().as_millis()).unwrap_or(u64::MAX));
        api.delete(&resources::PODS, NAMESPACE, &name).await?;
    }
    times.sort_unstable();
    let (p50, p99) = (percentile(&times, 50), percentile(&times, 99));
    report.figure("pod start p50", &json!(p50), "ms");
    report.figure("pod start p99", &json!(p99), "ms");
    Ok(format!("{STARTS} pods, one after the other: p50 {p50} ms, p99 {p99} ms"))
}

/// A pod resolves the Service by name and calls it.
async fn service(cluster: &RealCluster, web: &Workload, report: &Report) -> Result<String, ApiFailure> {
    let objects = workload::service_objects(&cluster.api).await?;
    let (host, count) = ("web", CALLS.to_string());
    let log = run_pod(cluster, web, "probe", &["/icp/icp", "tool", "probe", host, "80", &count]).await?;
    let line = log.lines().last().unwrap_or("");
    let figures: Value = serde_json::from_str(line).map_err(|e| wrong("probe", format!("{e}: {log}")))?;
    let answers = figures.get("answers").and_then(Value::as_object).map_or(0, serde_json::Map::len);
    let of = |key: &str| figures.get(key).cloned().unwrap_or(Value::Null);
    report.figure("DNS round trip p50", &of("dns_p50_us"), "us");
    report.figure("DNS round trip p99", &of("dns_p99_us"), "us");
    report.figure("Service round trip p50", &of("call_p50_us"), "us");
    report.figure("Service round trip p99", &of("call_p99_us"), "us");
    if answers < 2 {
        return Err(wrong("web", format!("{CALLS} calls were answered by {answers} pod")));
    }
    Ok(format!("{objects}; {CALLS} calls by name were answered by {answers} pods"))
}

/// The log of a pod comes through the API server and the kubelet.
async fn logs(cluster: &RealCluster) -> Result<String, ApiFailure> {
    let pods = workload::pods_of(&cluster.api, "app=web").await?;
    let pod = pods.first().ok_or_else(|| wrong("web", "has no ready pods"))?;
    let log = log_of(cluster, &pod.metadata.name).await?;
    match log.lines().next() {
        Some("serving on 8080") => Ok(format!("{} lines of {}", log.lines().count(), pod.metadata.name)),
        other => Err(wrong("log", format!("begins with {other:?}"))),
    }
}

async fn holder(cluster: &RealCluster) -> Result<String, ApiFailure> {
    for name in cluster.masters.iter().filter(|m| cluster.lab.is_on(m)) {
        let tool = Spawn::role("tool").arg("addresses");
        let Ok(output) = cluster.lab.exec(name, tool, Duration::from_secs(5)).await else { continue };
        if output.text().lines().any(|l| l == MASTER_VIP.to_string()) {
            return Ok(name.clone());
        }
    }
    Err(wrong("virtual address", "no master has it"))
}

/// Whether the API server behind the virtual address takes a connection.
async fn reachable(cluster: &RealCluster) -> bool {
    let to = std::net::SocketAddr::new(MASTER_VIP.into(), 6443);
    let dial = cluster.lab.tcp_connect(Place::Root, to);
    matches!(tokio::time::timeout(Duration::from_millis(150), dial).await, Ok(Ok(_)))
}

/// The master that holds the address loses its power: another takes the address over.
async fn vip(cluster: &RealCluster, report: &Report) -> Result<String, ApiFailure> {
    let first = holder(cluster).await?;
    let lost = Instant::now();
    let off = cluster.lab.power_off(&first).await;
    off.map_err(|e| wrong("power", e.to_string()))?;
    let gap = loop {
        if reachable(cluster).await {
            break lost.elapsed();
        }
        if lost.elapsed() > WAIT {
            return Err(wrong("virtual address", "nobody took it over"));
        }
        tokio::time::sleep(Duration::from_millis(10)).await;
    };
    let second = holder(cluster).await?;
    let api = cluster.api.wait("the API through the new owner", WAIT, async |api| {
        api.list(&resources::NODES, "", "").await.map(|_| Ok(()))
    });
    api.await?;
    let answered = lost.elapsed();
    let gap_ms = u64::try_from(gap.as_millis()).unwrap_or(u64::MAX);
    report.figure("hand-over gap of the virtual address", &json!(gap_ms), "ms");
    report.figure("from power-off to the next answer of the API", &json!(answered.as_millis() as u64), "ms");
    let on = cluster.power_on(&first).await;
    on.map_err(|e| wrong("power", e.to_string()))?;
    Ok(format!("{first} off: {second} has {MASTER_VIP} after {gap_ms} ms"))
}

fn counter(i: usize) -> Value {
    json!({
        "apiVersion": "v1", "kind": "ConfigMap",
        "metadata": { "name": format!("write-{i}"), "namespace": NAMESPACE }, "data": { "n": i.to_string() },
    })
}

/// The store's process is killed under writes: what was acknowledged is there afterwards.
async fn store(cluster: &RealCluster, report: &Report) -> Result<String, ApiFailure> {
    let (next, acknowledged) = (Arc::new(AtomicUsize::new(0)), Arc::new(std::sync::Mutex::new(Vec::new())));
    let (tell, stop) = tokio::sync::watch::channel(false);
    let mut writers = tokio::task::JoinSet::new();
    for _ in 0..WRITERS {
        let (api, next, acknowledged, stop) =
            (cluster.api.clone(), next.clone(), acknowledged.clone(), stop.clone());
        writers.spawn(async move {
            while !*stop.borrow() {
                let i = next.fetch_add(1, Ordering::Relaxed);
                match api.apply(counter(i), NAMESPACE).await {
                    Ok(_) => acknowledged.lock().unwrap_or_else(std::sync::PoisonError::into_inner).push(i),
                    // The outcome is not known; the name is not used again.
                    Err(_) => tokio::time::sleep(Duration::from_millis(20)).await,
                }
            }
        });
    }
    let started = Instant::now();
    while acknowledged.lock().unwrap_or_else(std::sync::PoisonError::into_inner).len() < WRITES_BEFORE {
        if started.elapsed() > WAIT {
            return Err(wrong(
                "store",
                format!("did not take {WRITES_BEFORE} writes within {} s", WAIT.as_secs()),
            ));
        }
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    let killed = Instant::now();
    let kill = cluster.lab.kill("store", "etcd", Signal::KILL).await;
    kill.map_err(|e| wrong("store", e.to_string()))?;
    let marker = json!({ "apiVersion": "v1", "kind": "ConfigMap", "metadata": { "name": "after", "namespace": NAMESPACE } });
    cluster
        .api
        .wait("writes after the restart", WAIT, async |api| {
            api.apply(marker.clone(), NAMESPACE).await.map(|_| Ok(()))
        })
        .await?;
    let back = killed.elapsed();
    tell.send_replace(true);
    while writers.join_next().await.is_some() {}
    let acknowledged = acknowledged.lock().unwrap_or_else(std::sync::PoisonError::into_inner).clone();
    let there = cluster.api.list(&resources::CONFIG_MAPS, NAMESPACE, "").await?;
    let names: std::collections::BTreeSet<&str> = there.iter().map(|c| c.metadata.name.as_str()).collect();
    let lost: Vec<usize> =
        acknowledged.iter().copied().filter(|i| !names.contains(format!("write-{i}").as_str())).collect();
    report.figure("store restart", &json!(back.as_millis() as u64), "ms");
    if !lost.is_empty() {
        return Err(wrong(
            "store",
            format!("{} of {} acknowledged writes are lost", lost.len(), acknowledged.len()),
        ));
    }
    Ok(format!("kill -9 under {WRITERS} writers: {} acknowledged writes, none lost", acknowledged.len()))
}

/// A worker loses its power: its pods run elsewhere; it comes back.
async fn worker(cluster: &RealCluster, report: &Report) -> Result<String, ApiFailure> {
    let node = workload::busiest_node(&cluster.api).await?;
    let started = Instant::now();
    let off = cluster.lab.power_off(&node).await;
    off.map_err(|e| wrong("power", e.to_string()))?;
    let moved = workload::moved_from(&cluster.api, &node).await?;
    let took = started.elapsed();
    report.figure("worker loss to pods running elsewhere", &json!(took.as_millis() as u64), "ms");
    let on = cluster.power_on(&node).await;
    on.map_err(|e| wrong("power", e.to_string()))?;
    cluster
        .api
        .wait("the worker to come back", WAIT, async |api| {
            let found = api.get(&resources::NODES, "", &node).await?;
            let ready = found.is_some_and(|n| condition(&n, "Ready"));
            Ok(if ready { Ok(()) } else { Err("not ready".into()) })
        })
        .await?;
    Ok(format!("{node} off: {moved} pods run elsewhere after {:.1} s; it came back", took.as_secs_f64()))
}

/// Resident memory of each daemon whose configuration lies in `etc`, by what the configuration is called.
fn memory(etc: &Path, report: &Report) {
    let mut by_role = BTreeMap::<String, Vec<u64>>::new();
    for entry in std::fs::read_dir("/proc").into_iter().flatten().flatten() {
        let path = entry.path();
        let command = std::fs::read(path.join("cmdline")).unwrap_or_default();
        let command = String::from_utf8_lossy(&command).into_owned();
        let words = command.split('\0');
        let Some(file) = words.map(Path::new).find(|w| w.parent() == Some(etc)) else { continue };
        let name = file.file_stem().unwrap_or_default().to_string_lossy();
        let role: String = name
            .split('-')
            .filter(|part| !part.chars().all(|c| c.is_ascii_digit()))
            .skip(1)
            .collect::<Vec<_>>()
            .join("-");
        let status = std::fs::read_to_string(path.join("status")).unwrap_or_default();
        let kib = status
            .lines()
            .find_map(|l| l.strip_prefix("VmRSS:")?.split_whitespace().next()?.parse::<u64>().ok());
        by_role.entry(role).or_default().push(kib.unwrap_or(0));
    }
    for (role, mut sizes) in by_role {
        sizes.sort_unstable();
        let list: Vec<String> = sizes.iter().map(|kib| format!("{:.1}", *kib as f64 / 1024.0)).collect();
        report.figure(&format!("resident memory of {role}"), &json!(list.join(" ")), "MiB");
    }
}
