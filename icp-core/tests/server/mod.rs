//! The API server in this process, as tests send to it.
#![expect(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::indexing_slicing,
    reason = "test code outside of a test function"
)]
#![allow(dead_code, unreachable_pub, reason = "each test file uses a part")]

use std::pin::pin;
use std::sync::Arc;
use std::task::{Context, Poll, Waker};

use bytes::Bytes;
use http::{HeaderMap, Request};
use http_body_util::{BodyExt as _, Full};
use icp_core::base::{Rng, Time};
use icp_core::server::{ApiServer, Chunks, FixedClock, Options};
use icp_store::Memory;
use serde_json::Value;

/// Polls a future that never waits for the world.
pub fn now<F: Future>(future: F) -> F::Output {
    let mut future = pin!(future);
    let mut cx = Context::from_waker(Waker::noop());
    for _ in 0..10_000 {
        if let Poll::Ready(out) = future.as_mut().poll(&mut cx) {
            return out;
        }
    }
    panic!("the future waits for something that does not come");
}

/// A server over a store in memory.
pub struct Server {
    pub api: ApiServer,
    pub store: Memory,
}

impl Server {
    pub fn new() -> Self {
        Self::with(Options::default())
    }

    pub fn with(options: Options) -> Self {
        let store = Memory::new();
        let clock = FixedClock(Time::from_secs(1_795_000_000));
        let api = ApiServer::builder(Arc::new(store.clone()))
            .clock(clock)
            .rng(Rng::new(7))
            .options(options)
            .build();
        Self { api, store }
    }

    pub fn send(&self, method: &str, path: &str, headers: &[(&str, &str)], body: &Value) -> (u16, Value) {
        let mut request = Request::builder().method(method).uri(path);
        for (k, v) in headers {
            request = request.header(*k, *v);
        }
        let bytes = if body.is_null() { Bytes::new() } else { Bytes::from(body.to_string()) };
        let answer = self.exchange(request.body(Full::new(bytes)).unwrap());
        (answer.code, serde_json::from_slice(&answer.bytes).unwrap_or(Value::Null))
    }

    /// Sends any bytes.
    pub fn raw(&self, method: &str, path: &str, content_type: &str, body: impl Into<Bytes>) -> Answer {
        let request = Request::builder().method(method).uri(path).header("content-type", content_type);
        self.exchange(request.body(Full::new(body.into())).unwrap())
    }

    fn exchange(&self, request: Request<Full<Bytes>>) -> Answer {
        let (parts, body) = now(self.api.handle(request)).into_parts();
        let bytes = now(body.collect()).unwrap().to_bytes();
        Answer { code: parts.status.as_u16(), headers: parts.headers, bytes }
    }

    pub fn get(&self, path: &str) -> (u16, Value) {
        self.send("GET", path, &[], &Value::Null)
    }

    pub fn post(&self, path: &str, body: &Value) -> (u16, Value) {
        self.send("POST", path, &[], body)
    }

    pub fn put(&self, path: &str, body: &Value) -> (u16, Value) {
        self.send("PUT", path, &[], body)
    }

    pub fn delete(&self, path: &str, body: &Value) -> (u16, Value) {
        self.send("DELETE", path, &[], body)
    }

    pub fn merge(&self, path: &str, body: &Value) -> (u16, Value) {
        self.send("PATCH", path, &[("content-type", "application/merge-patch+json")], body)
    }

    pub fn watch(&self, path: &str) -> Watch {
        let request = Request::builder().uri(path).body(Full::<Bytes>::default()).unwrap();
        let response = now(self.api.handle(request));
        assert_eq!(response.status(), 200);
        Watch(response.into_body().into_stream().expect("a watch is a stream"))
    }
}

/// A whole answer.
pub struct Answer {
    pub code: u16,
    pub headers: HeaderMap,
    pub bytes: Bytes,
}

impl Answer {
    /// The body as JSON.
    pub fn json(&self) -> Value {
        serde_json::from_slice(&self.bytes).unwrap_or_else(|e| panic!("{e}: {}", self.text()))
    }

    /// The body as text.
    pub fn text(&self) -> String {
        String::from_utf8_lossy(&self.bytes).into_owned()
    }

    /// The code, the reason and the message of a failure.
    #[track_caller]
    pub fn failure(&self) -> (u16, String, String) {
        let status = self.json();
        assert_eq!((status["kind"].as_str(), status["status"].as_str()), (Some("Status"), Some("Failure")));
        assert_eq!(status["code"], self.code);
        let text = |field: &str| status[field].as_str().unwrap_or("").to_string();
        (self.code, text("reason"), text("message"))
    }

    /// The texts of the warnings.
    pub fn warnings(&self) -> Vec<String> {
        let text = |value: &http::HeaderValue| {
            let quoted = value.to_str().unwrap().strip_prefix("299 - \"").unwrap().strip_suffix('"').unwrap();
            quoted.replace("\\\"", "\"")
        };
        self.headers.get_all("warning").iter().map(text).collect()
    }
}

/// The body of a watch.
pub struct Watch(Chunks);

impl Watch {
    /// The events that are there now.
    pub fn objects(&mut self) -> Vec<Value> {
        let mut cx = Context::from_waker(Waker::noop());
        let mut text = Vec::new();
        while let Poll::Ready(Some(chunk)) = self.0.as_mut().poll_next(&mut cx) {
            text.extend_from_slice(&chunk);
        }
        let lines = text.split(|b| *b == b'\n').filter(|l| !l.is_empty());
        lines.map(|l| serde_json::from_slice(l).unwrap()).collect()
    }

    /// The events that are there now, as `TYPE name`.
    pub fn events(&mut self) -> Vec<String> {
        let name = |event: &Value| event["object"]["metadata"]["name"].as_str().unwrap_or("-").to_string();
        self.objects()
            .iter()
            .map(|event| format!("{} {}", event["type"].as_str().unwrap(), name(event)))
            .collect()
    }
}
