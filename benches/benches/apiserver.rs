//! The API server as a value: from nothing to an answer, requests one after the other, and a thousand servers at once.
//!
//! Figures to hold beside: an envtest environment (etcd and kube-apiserver as processes) starts in about 7 s
//! (servicebinding/runtime#47), a kwok cluster in about 5 s (kubernetes-sigs/kwok#335).
#![allow(missing_docs, clippy::unwrap_used, clippy::disallowed_methods, reason = "a bench")]

use std::pin::pin;
use std::sync::Arc;
use std::task::{Context, Poll, Waker};
use std::time::{Duration, Instant};

use bytes::Bytes;
use criterion::{Criterion, Throughput, criterion_group, criterion_main};
use http::{Method, Request};
use http_body_util::{BodyExt as _, Full};
use icp_core::base::{Rng, Time};
use icp_core::server::{ApiServer, FixedClock};
use icp_store::Memory;
use serde_json::json;

/// What the peers need from nothing to the first answer.
const ENVTEST_START: Duration = Duration::from_secs(7);
const KWOK_START: Duration = Duration::from_secs(5);
const SERVERS: usize = 1_000;

/// Polls a future that never waits for the world: a server over a store in memory needs no runtime.
fn now<F: Future>(future: F) -> F::Output {
    match pin!(future).poll(&mut Context::from_waker(Waker::noop())) {
        Poll::Ready(out) => out,
        Poll::Pending => panic!("the server waits"),
    }
}

fn server() -> ApiServer {
    let clock = FixedClock(Time::from_secs(1_795_000_000));
    ApiServer::builder(Arc::new(Memory::new())).clock(clock).rng(Rng::new(7)).build()
}

fn send(api: &ApiServer, method: Method, path: &str, body: impl Into<Bytes>) -> Bytes {
    let request = Request::builder().method(method).uri(path).body(Full::new(body.into())).unwrap();
    let response = now(api.handle(request));
    assert!(response.status().is_success(), "{path}: {}", response.status());
    now(response.into_body().collect()).unwrap().to_bytes()
}

const CONFIG_MAPS: &str = "/api/v1/namespaces/test/configmaps";

fn config_map(name: &str) -> String {
    json!({ "apiVersion": "v1", "kind": "ConfigMap", "metadata": { "name": name }, "data": { "key": "value" } })
        .to_string()
}

/// A namespace and an object in it, written and read.
fn first_answer(api: &ApiServer) {
    send(api, Method::POST, "/api/v1/namespaces", r#"{"metadata":{"name":"test"}}"#);
    send(api, Method::POST, CONFIG_MAPS, config_map("a"));
    let read = send(api, Method::GET, "/api/v1/namespaces/test/configmaps/a", Bytes::new());
    assert!(read.windows(7).any(|w| w == br#""value""#));
}

/// Bytes of this process that are in memory.
fn resident_bytes() -> Option<u64> {
    let status = std::fs::read_to_string("/proc/self/status").ok()?;
    let line = status.lines().find_map(|l| l.strip_prefix("VmRSS:"))?;
    Some(line.trim().trim_end_matches(" kB").parse::<u64>().ok()? * 1024)
}

/// Figures that are counted once, in a process that has done nothing else.
fn counted(_: &mut Criterion) {
    let first = Instant::now();
    first_answer(&server());
    let first = first.elapsed();
    println!(
        "first server of the process, from nothing to an object read: {first:.1?} \
         (envtest about {ENVTEST_START:?}: {:.0} times; kwok about {KWOK_START:?}: {:.0} times)",
        ENVTEST_START.as_secs_f64() / first.as_secs_f64(),
        KWOK_START.as_secs_f64() / first.as_secs_f64(),
    );
    // What all servers share (tables of kinds, parsed schemas) is in memory now.
    let before = resident_bytes();
    let began = Instant::now();
    let servers: Vec<ApiServer> = (0..SERVERS).map(|_| server()).collect();
    for api in &servers {
        first_answer(api);
    }
    let took = began.elapsed();
    match (before, resident_bytes()) {
        (Some(before), Some(after)) => println!(
            "{SERVERS} servers alive, each with its namespaces, roles and one object: {took:.1?}, \
             {} KiB resident each, {} MiB in all",
            after.saturating_sub(before) / 1024 / SERVERS as u64,
            after / 1024 / 1024,
        ),
        _ => println!("{SERVERS} servers alive in {took:.1?}; skipped: needs /proc for the resident memory"),
    }
    for api in &servers {
        send(api, Method::GET, "/api/v1/namespaces/test/configmaps/a", Bytes::new());
    }
}

fn start(c: &mut Criterion) {
    let mut group = c.benchmark_group("apiserver/start");
    group.sample_size(20).measurement_time(Duration::from_secs(3));
    group.bench_function("to the first object read", |b| b.iter(|| first_answer(&server())));
    group.finish();
}

fn requests(c: &mut Criterion) {
    let mut group = c.benchmark_group("apiserver/request");
    group.throughput(Throughput::Elements(1)).sample_size(20).measurement_time(Duration::from_secs(2));
    let api = server();
    first_answer(&api);
    let mut n = 0_u64;
    group.bench_function("create a configmap", |b| {
        b.iter(|| {
            n += 1;
            send(&api, Method::POST, CONFIG_MAPS, config_map(&format!("c-{n}")))
        });
    });
    let path = format!("{CONFIG_MAPS}/a");
    group.bench_function("get a configmap", |b| b.iter(|| send(&api, Method::GET, &path, Bytes::new())));
    let body = config_map("a");
    let mut version = 0_u64;
    group.bench_function("update a configmap", |b| {
        b.iter(|| {
            version += 1;
            send(&api, Method::PUT, &path, body.replace("value", &version.to_string()))
        });
    });
    group.finish();
    let mut group = c.benchmark_group("apiserver/list");
    let api = server();
    first_answer(&api);
    for n in 0..999 {
        send(&api, Method::POST, CONFIG_MAPS, config_map(&format!("c-{n}")));
    }
    group.throughput(Throughput::Elements(1_000)).sample_size(20).measurement_time(Duration::from_secs(2));
    group.bench_function("1,000 configmaps", |b| {
        b.iter(|| send(&api, Method::GET, CONFIG_MAPS, Bytes::new()));
    });
    group.finish();
}

criterion_group!(benches, counted, start, requests);
criterion_main!(benches);
