//! The scheduler end to end, in one process: the API server over a store in memory, the scheduler's machine with its
//! informers, and a watcher of its own. Pods are created through the API; then the scheduler starts, and the clock runs
//! from the moment at which its informers have listed everything until the watcher has seen every pod's binding. What is
//! counted is the whole process: decisions, bindings with their transactions, watches, Events.
//!
//! A table stands before criterion's figures: each scenario's rate beside the gate to which upstream's own CI holds
//! kube-scheduler end to end (`test/integration/scheduler_perf/*/performance-config.yaml`, average pods/s, API server and
//! etcd in one process), and for 100,000 nodes beside 258 pods/s of kube-scheduler 1.32 (bchess/k8s-1m). Every node is
//! scored here; upstream scores a tenth of 5,000. `wall` is of a machine that others may use; `cpu` is of this process.
//!
//! `E2E=SchedulingBasic/5000Nodes cargo bench -p benches --bench scheduler_e2e` runs the scenarios whose names contain
//! the text once each, and leaves criterion out: for a profiler.
#![allow(
    missing_docs,
    clippy::unwrap_used,
    clippy::indexing_slicing,
    clippy::disallowed_methods,
    reason = "a bench"
)]

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, OnceLock};
use std::time::{Duration, Instant};

use bytes::Bytes;
use criterion::{BenchmarkId, Criterion, SamplingMode, Throughput, criterion_group, criterion_main};
use futures_util::StreamExt as _;
use http::{Method, Request};
use http_body_util::{BodyExt as _, Full};
use icp_core::base::{Machine, Rng, Time};
use icp_core::server::client::InProcessClient;
use icp_core::server::{ApiServer, Body};
use icp_core::shell::clock::SystemClock;
use icp_core::shell::host::Host;
use icp_sched::machine::{Effect, Event, SchedulerConfig, SchedulerMachine};
use icp_store::Memory;
use rustix::time::{ClockId, clock_gettime};
use serde_json::{Value, json};
use tokio::sync::{Notify, watch};

const HOSTNAME: &str = "kubernetes.io/hostname";
const ZONE: &str = "topology.kubernetes.io/zone";
const PODS: &str = "/api/v1/namespaces/default/pods";
/// A run that takes longer has lost pods.
const RUN_MAX: Duration = Duration::from_secs(300);
/// No further Event is waited for longer.
const EVENTS_PAUSE_MAX: Duration = Duration::from_secs(3);

/// CPU time of this process.
fn cpu() -> Duration {
    let t = clock_gettime(ClockId::ProcessCPUTime);
    Duration::new(t.tv_sec as u64, t.tv_nsec as u32)
}

struct Scenario {
    name: &'static str,
    nodes: usize,
    zones: usize,
    pods: usize,
    make: fn() -> Value,
    /// What is said of kube-scheduler, in pods/s.
    peer: u32,
}

/// The pod of `scheduler_perf`: 100m of CPU, 500Mi of memory.
fn basic() -> Value {
    json!({
        "metadata": { "generateName": "pod-", "labels": { "color": "blue" } },
        "spec": { "containers": [{
            "name": "pause", "image": "registry.k8s.io/pause:3.10", "ports": [{ "containerPort": 80 }],
            "resources": {
                "limits": { "cpu": "100m", "memory": "500Mi" }, "requests": { "cpu": "100m", "memory": "500Mi" },
            },
        }] },
    })
}

fn spread() -> Value {
    let mut pod = basic();
    pod["spec"]["topologySpreadConstraints"] = json!([{
        "maxSkew": 5, "topologyKey": ZONE, "whenUnsatisfiable": "DoNotSchedule",
        "labelSelector": { "matchLabels": { "color": "blue" } },
    }]);
    pod
}

fn anti_affinity() -> Value {
    let mut pod = basic();
    pod["spec"]["affinity"]["podAntiAffinity"]["requiredDuringSchedulingIgnoredDuringExecution"] = json!([
        { "topologyKey": HOSTNAME, "labelSelector": { "matchLabels": { "color": "blue" } } }
    ]);
    pod
}

const SCENARIOS: [Scenario; 4] = [
    Scenario { name: "SchedulingBasic", nodes: 5_000, zones: 0, pods: 10_000, make: basic, peer: 680 },
    Scenario { name: "TopologySpreading", nodes: 5_000, zones: 3, pods: 5_000, make: spread, peer: 460 },
    Scenario {
        name: "SchedulingPodAntiAffinity",
        nodes: 5_000,
        zones: 0,
        pods: 2_000,
        make: anti_affinity,
        peer: 60,
    },
    Scenario { name: "SchedulingBasic", nodes: 100_000, zones: 0, pods: 100_000, make: basic, peer: 258 },
];

/// The scheduler's machine, which tells when its informers have listed everything.
struct Told {
    machine: SchedulerMachine,
    synced: Arc<OnceLock<(Instant, Duration)>>,
}

impl Told {
    fn look(&self) {
        if self.synced.get().is_none() && self.machine.synced() {
            let _ = self.synced.set((Instant::now(), cpu()));
        }
    }
}

impl Machine for Told {
    type Event = Event;
    type Effect = Effect;

    fn on(&mut self, now: Time, event: Event, out: &mut Vec<Effect>) {
        self.machine.on(now, event, out);
        self.look();
    }

    fn wake(&mut self, now: Time, out: &mut Vec<Effect>) {
        self.machine.wake(now, out);
        self.look();
    }

    fn deadline(&self) -> Option<Time> {
        self.machine.deadline()
    }
}

async fn call(api: &ApiServer, method: Method, path: &str, body: impl Into<Bytes>) -> http::Response<Body> {
    let request = Request::builder().method(method).uri(path).body(Full::new(body.into())).unwrap();
    let response = api.handle(request).await;
    assert!(response.status().is_success(), "{path}: {}", response.status());
    response
}

async fn create(api: &ApiServer, path: &str, object: &str) -> Bytes {
    call(api, Method::POST, path, object.to_owned()).await.into_body().collect().await.unwrap().to_bytes()
}

async fn count(api: &ApiServer, path: &str) -> usize {
    let list =
        call(api, Method::GET, &format!("{path}?limit=1"), "").await.into_body().collect().await.unwrap();
    let list: Value = serde_json::from_slice(&list.to_bytes()).unwrap();
    let rest = list["metadata"]["remainingItemCount"].as_u64().unwrap_or(0) as usize;
    list["items"].as_array().unwrap().len() + rest
}

/// Counts the pods that a watch shows with a node.
async fn follow(api: ApiServer, from: String, bound: Arc<AtomicUsize>, all: usize, done: Arc<Notify>) {
    let path = format!("{PODS}?watch=true&resourceVersion={from}");
    let mut chunks = call(&api, Method::GET, &path, "").await.into_body().into_stream().unwrap();
    while let Some(chunk) = chunks.next().await {
        assert!(!chunk.starts_with(b"{\"type\":\"ERROR\""), "{}", String::from_utf8_lossy(&chunk));
        let text = std::str::from_utf8(&chunk).unwrap();
        let lines = text.lines().filter(|l| l.starts_with("{\"type\":\"MODIFIED\""));
        let seen = lines.filter(|l| l.contains("\"nodeName\":\"")).count();
        if bound.fetch_add(seen, Ordering::Relaxed) + seen >= all {
            done.notify_one();
        }
    }
}

/// What a run took.
struct Took {
    /// From the start of the scheduler to the end of its lists.
    list: Duration,
    wall: Duration,
    cpu: Duration,
    /// CPU until the Events were written too.
    cpu_all: Duration,
    events: usize,
}

async fn run(scenario: &Scenario) -> Took {
    let api = ApiServer::builder(Arc::new(Memory::new())).clock(SystemClock).rng(Rng::new(7)).build();
    for n in 0..scenario.nodes {
        let mut labels = json!({ HOSTNAME: format!("node-{n}") });
        if scenario.zones > 0 {
            labels[ZONE] = format!("zone-{}", n % scenario.zones).into();
        }
        let capacity = json!({ "cpu": "4", "memory": "32Gi", "pods": "110" });
        let node = json!({
            "metadata": { "name": format!("node-{n}"), "labels": labels },
            "status": { "capacity": capacity, "allocatable": capacity,
                "conditions": [{ "type": "Ready", "status": "True" }], "phase": "Running" },
        });
        // The admission of nodes taints them as not ready, which here nobody would take back.
        let stored = create(&api, "/api/v1/nodes", &node.to_string()).await;
        let mut stored: Value = serde_json::from_slice(&stored).unwrap();
        if stored["spec"]["taints"].take() != Value::Null {
            stored["spec"]["taints"] = json!([]);
            call(&api, Method::PUT, &format!("/api/v1/nodes/node-{n}"), stored.to_string()).await;
        }
    }
    let pod = (scenario.make)().to_string();
    let mut last = Bytes::new();
    for _ in 0..scenario.pods {
        last = create(&api, PODS, &pod).await;
    }
    let last: Value = serde_json::from_slice(&last).unwrap();
    let from = last["metadata"]["resourceVersion"].as_str().unwrap().to_owned();
    let (bound, done) = (Arc::new(AtomicUsize::new(0)), Arc::new(Notify::new()));
    let watcher = tokio::spawn(follow(api.clone(), from, bound.clone(), scenario.pods, done.clone()));

    let synced = Arc::new(OnceLock::new());
    let machine = SchedulerMachine::new(SchedulerConfig::default(), Rng::new(1));
    let (stop, stopped) = watch::channel(false);
    let host =
        Host::new(Told { machine, synced: synced.clone() }, Arc::new(InProcessClient::new(api.clone())));
    let host = host.stop_when(stopped);
    let mailbox = host.mailbox();
    let began = Instant::now();
    let scheduler = tokio::spawn(host.run(|effect, _| effect.try_into().ok()));
    mailbox.send(Event::Start).await;
    let all = tokio::time::timeout(RUN_MAX, done.notified()).await;
    assert!(all.is_ok(), "{} of {} pods were seen bound", bound.load(Ordering::Relaxed), scenario.pods);
    let (ended, cpu_end) = (Instant::now(), cpu());
    // Events may be under way still; some may have been dropped.
    let mut events = 0;
    let mut grown = Instant::now();
    while events < scenario.pods && grown.elapsed() < EVENTS_PAUSE_MAX {
        tokio::time::sleep(Duration::from_millis(100)).await;
        let now = count(&api, "/apis/events.k8s.io/v1/events").await;
        if now > events {
            (events, grown) = (now, Instant::now());
        }
    }
    let cpu_all = cpu();
    stop.send(true).unwrap();
    scheduler.await.unwrap();
    watcher.abort();
    let (start, cpu_start) = *synced.get().unwrap();
    Took {
        list: start - began,
        wall: ended - start,
        cpu: cpu_end - cpu_start,
        cpu_all: cpu_all - cpu_start,
        events,
    }
}

fn measure(scenario: &Scenario) -> Took {
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap();
    // In a task of its own, so that setting up uses the workers and not this thread too.
    let scenario = Scenario { ..*scenario };
    runtime.block_on(async move { tokio::spawn(async move { run(&scenario).await }).await.unwrap() })
}

fn table(only: Option<&str>) {
    println!(
        "{:<44} {:>7} {:>7} {:>9} {:>9} {:>9} {:>10} {:>8} {:>6} {:>6}",
        "scenario (end to end)",
        "pods",
        "list ms",
        "pods/s",
        "us/pod",
        "cpu us",
        "cpu+events",
        "events",
        "peer",
        "times"
    );
    for s in &SCENARIOS {
        let name = format!("{}/{}Nodes", s.name, s.nodes);
        if only.is_some_and(|text| !name.contains(text)) {
            continue;
        }
        let took = measure(s);
        let pods = s.pods as f64;
        let rate = pods / took.wall.as_secs_f64();
        let micros = |d: Duration| 1e6 * d.as_secs_f64() / pods;
        println!(
            "{:<44} {:>7} {:>7} {rate:>9.0} {:>9.1} {:>9.1} {:>10.1} {:>8} {:>6} {:>6.0}",
            name,
            s.pods,
            took.list.as_millis(),
            micros(took.wall),
            micros(took.cpu),
            micros(took.cpu_all),
            took.events,
            s.peer,
            rate / f64::from(s.peer)
        );
    }
}

fn end_to_end(c: &mut Criterion) {
    let only = std::env::var("E2E").ok();
    table(only.as_deref());
    if only.is_some() {
        return;
    }
    let mut group = c.benchmark_group("scheduler/end to end");
    // Setting a cluster up takes longer than the run: one run a sample.
    group.sample_size(10).sampling_mode(SamplingMode::Flat);
    group.warm_up_time(Duration::from_millis(1)).measurement_time(Duration::from_millis(1));
    for s in SCENARIOS.iter().filter(|s| s.nodes <= 5_000) {
        group.throughput(Throughput::Elements(s.pods as u64));
        group.bench_function(BenchmarkId::from_parameter(s.name), |b| {
            b.iter_custom(|iterations| (0..iterations).map(|_| measure(s).wall).sum());
        });
    }
    group.finish();
}

criterion_group!(benches, end_to_end);
criterion_main!(benches);
