//! The node's API on a socket, spoken to byte by byte: what kubectl does not do, or does only when something fails.
#![cfg(feature = "api")]
#![allow(
    clippy::disallowed_methods,
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::indexing_slicing,
    reason = "tests own the runtime and its tasks, and fail by panicking"
)]

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use http::{Request, Response};
use http_body_util::BodyExt as _;
use hyper::body::Incoming;
use icp_core::api::Object;
use icp_core::server::{Body, UserInfo};
use icp_core::shell::listener::{Handler, Limits, serve};
use icp_node::api::view::{ContainerView, NodeCounts, NodeView, PodView, Standing};
use icp_node::api::{Guard, NodeApi};
use icp_node::backend::memory::{MemoryEvent, MemoryRuntime, SimRules};
use icp_node::runtime::{
    CallId, ContainerKey, ContainerSpec, PodUid, Runtime as _, RuntimeCall, RuntimeOp, SandboxSpec,
};
use icp_node::shell::SimRuntime;
use serde_json::Value;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;

const LIMIT: Duration = Duration::from_secs(20);

struct View;

#[async_trait]
impl NodeView for View {
    async fn pod(&self, namespace: &str, name: &str) -> Option<PodView> {
        let of =
            |name: &str, standing, has_previous| ContainerView { name: name.into(), standing, has_previous };
        (namespace == "default" && name == "web").then(|| PodView {
            uid: PodUid::from("u"),
            name: name.into(),
            containers: vec![
                of("main", Standing::Running, false),
                of("late", Standing::Waiting("ContainerCreating".into()), false),
            ],
        })
    }

    async fn pods(&self) -> Vec<Arc<Object>> {
        Vec::new()
    }

    async fn counts(&self) -> NodeCounts {
        NodeCounts { node: "n1".into(), pods: 1, running: 1, exited: 2 }
    }
}

/// The API without a guard.
#[derive(Clone)]
struct Open(NodeApi);

#[async_trait]
impl Handler for Open {
    async fn answer(&self, request: Request<Incoming>, _user: Option<UserInfo>) -> Response<Body> {
        let (parts, body) = request.into_parts();
        let body = body.collect().await.unwrap().to_bytes();
        self.0.handle(Request::from_parts(parts, body)).await
    }
}

struct Node {
    runtime: SimRuntime,
    port: u16,
    _stop: watch::Sender<bool>,
}

impl Node {
    /// A node with a pod whose container `main` runs this script.
    async fn start(script: &str, guarded: bool) -> Self {
        let machine = MemoryRuntime::new(SimRules::default(), "10.1.0.0/24".parse().unwrap());
        let runtime = SimRuntime::new(machine);
        let spec = ContainerSpec {
            command: ["sh", "-c", script].map(String::from).to_vec(),
            ..ContainerSpec::default()
        };
        let sandbox = SandboxSpec { hostname: "web".into(), ..SandboxSpec::default() };
        let start =
            RuntimeOp::StartContainer { container: ContainerKey::new("main", 0), spec: Arc::new(spec) };
        for (n, op) in [(1, RuntimeOp::CreateSandbox(Arc::new(sandbox))), (2, start)] {
            let call = RuntimeCall { id: CallId(n), pod: PodUid::from("u"), generation: 1, op };
            runtime.perform(call).await.unwrap();
        }
        let api = NodeApi::new(Arc::new(View), Arc::new(runtime.clone()));
        let socket = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let port = socket.local_addr().unwrap().port();
        let (stop, stopped) = watch::channel(false);
        if guarded {
            tokio::spawn(serve(socket, Guard::new(api), None, Limits::default(), stopped));
        } else {
            tokio::spawn(serve(socket, Open(api), None, Limits::default(), stopped));
        }
        Self { runtime, port, _stop: stop }
    }

    async fn connect(&self, path: &str, headers: &str) -> Wire {
        let mut stream = TcpStream::connect(("127.0.0.1", self.port)).await.unwrap();
        let head = format!("GET {path} HTTP/1.1\r\nHost: node\r\n{headers}\r\n");
        stream.write_all(head.as_bytes()).await.unwrap();
        Wire { stream, buffer: Vec::new() }
    }

    /// The whole answer to a request, head and body.
    async fn get(&self, path: &str, headers: &str) -> String {
        let mut wire = self.connect(path, &format!("Connection: close\r\n{headers}")).await;
        let mut all = Vec::new();
        tokio::time::timeout(LIMIT, wire.stream.read_to_end(&mut all)).await.unwrap().unwrap();
        String::from_utf8_lossy(&all).into_owned()
    }

    async fn websocket(&self, path: &str, protocol: &str) -> Wire {
        let protocol = match protocol {
            "" => String::new(),
            name => format!("Sec-WebSocket-Protocol: {name}\r\n"),
        };
        let mut wire = self.connect(path, &format!("{UPGRADE}{protocol}")).await;
        let head = wire.head().await;
        assert!(head.starts_with("HTTP/1.1 101 "), "{head}");
        assert!(head.contains("sec-websocket-accept: s3pPLMBiTxaQ9kYGzzhZRbK+xOo="), "{head}");
        wire
    }
}

/// The handshake of RFC 6455, 1.3.
const UPGRADE: &str = "Connection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Version: 13\r\n\
                       Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n";

/// A client's side of a connection.
struct Wire {
    stream: TcpStream,
    buffer: Vec<u8>,
}

impl Wire {
    async fn fill(&mut self) {
        let mut chunk = [0; 4096];
        let n = tokio::time::timeout(LIMIT, self.stream.read(&mut chunk)).await.unwrap().unwrap();
        assert!(n > 0, "the node closed the connection");
        self.buffer.extend_from_slice(&chunk[..n]);
    }

    async fn take(&mut self, n: usize) -> Vec<u8> {
        while self.buffer.len() < n {
            self.fill().await;
        }
        self.buffer.drain(..n).collect()
    }

    async fn head(&mut self) -> String {
        loop {
            if let Some(end) = self.buffer.windows(4).position(|w| w == b"\r\n\r\n") {
                return String::from_utf8(self.take(end + 4).await).unwrap();
            }
            self.fill().await;
        }
    }

    /// A frame of the node: its opcode and payload.
    async fn frame(&mut self) -> (u8, Vec<u8>) {
        let head = self.take(2).await;
        assert_eq!(head[0] & 0xf0, 0x80, "whole frames");
        assert_eq!(head[1] & 0x80, 0, "a server does not mask");
        let len = match head[1] {
            126 => {
                let len = self.take(2).await;
                usize::from(u16::from_be_bytes([len[0], len[1]]))
            }
            127 => panic!("a message of the node is short"),
            len => usize::from(len),
        };
        (head[0] & 0x0f, self.take(len).await)
    }

    async fn send(&mut self, opcode: u8, payload: &[u8]) {
        assert!(payload.len() < 126);
        let mask = [7, 77, 177, 9];
        let mut out = vec![0x80 | opcode, 0x80 | payload.len() as u8];
        out.extend_from_slice(&mask);
        out.extend(payload.iter().zip(mask.iter().cycle()).map(|(b, m)| b ^ m));
        self.stream.write_all(&out).await.unwrap();
    }

    /// What comes on each channel until the node closes.
    async fn channels(&mut self) -> [String; 4] {
        let mut all: [Vec<u8>; 4] = Default::default();
        loop {
            match self.frame().await {
                (2, payload) => all[usize::from(payload[0])].extend_from_slice(&payload[1..]),
                (8, code) => {
                    assert_eq!(code, 1000_u16.to_be_bytes());
                    self.send(8, &code).await;
                    return all.map(|bytes| String::from_utf8(bytes).unwrap());
                }
                other => panic!("{other:?}"),
            }
        }
    }
}

#[tokio::test]
async fn each_version_tells_the_end_in_its_way() {
    let node = Node::start("sleep 1000", false).await;
    let path = |code: u8| {
        format!(
            "/exec/default/web/main?command=sh&command=-c&command=echo+out%3Becho+err+%3E%262%3Bexit+{code}&output=1&error=1"
        )
    };
    for protocol in ["v5.channel.k8s.io", "v4.channel.k8s.io"] {
        let [_, out, err, end] = node.websocket(&path(3), protocol).await.channels().await;
        assert_eq!((out.as_str(), err.as_str()), ("out\n", "err\n"));
        let end: Value = serde_json::from_str(&end).unwrap();
        assert_eq!(end["reason"], "NonZeroExitCode");
        assert_eq!(end["details"]["causes"][0], serde_json::json!({ "reason": "ExitCode", "message": "3" }));
        let [.., end] = node.websocket(&path(0), protocol).await.channels().await;
        assert_eq!(serde_json::from_str::<Value>(&end).unwrap()["status"], "Success");
    }
    // The first version says nothing when all went well, as the conformance tests of exec want it.
    for protocol in ["channel.k8s.io", ""] {
        let [_, out, _, end] = node.websocket(&path(0), protocol).await.channels().await;
        assert_eq!((out.as_str(), end.as_str()), ("out\n", ""));
        let [.., end] = node.websocket(&path(3), protocol).await.channels().await;
        assert_eq!(end, "command terminated with non-zero exit code: exit status 3");
    }
}

#[tokio::test]
async fn stdin_is_copied_ended_and_pings_are_answered() {
    let node = Node::start("sleep 1000", false).await;
    let path = "/exec/default/web/main?command=cat&input=1&output=1";
    let mut wire = node.websocket(path, "v5.channel.k8s.io").await;
    assert_eq!(wire.frame().await, (2, vec![1]), "an empty message tells that it runs");
    wire.send(2, b"\0hello").await;
    assert_eq!(wire.frame().await, (2, b"\x01hello".to_vec()));
    wire.send(9, b"are you there").await;
    assert_eq!(wire.frame().await, (10, b"are you there".to_vec()));
    // Text messages and what is not understood do no harm.
    wire.send(1, b"\x04{\"Width\":80,\"Height\":24}").await;
    wire.send(2, b"\x09?").await;
    wire.send(2, b"\xff\0").await;
    let [_, out, _, end] = wire.channels().await;
    assert_eq!(out, "");
    assert!(end.contains("Success"), "{end}");
    // A client that breaks the rules is told so: a frame without a mask.
    let mut wire = node.websocket(path, "v5.channel.k8s.io").await;
    wire.frame().await;
    wire.stream.write_all(&[0x82, 1, 0]).await.unwrap();
    assert_eq!(wire.frame().await, (8, 1002_u16.to_be_bytes().to_vec()));
}

#[tokio::test]
async fn a_process_ends_with_its_container() {
    let node = Node::start("sleep 1000", false).await;
    let path = "/exec/default/web/main?command=sleep&command=1000&output=1";
    let mut wire = node.websocket(path, "v4.channel.k8s.io").await;
    node.runtime.disturb(MemoryEvent::Exit { pod: PodUid::from("u"), container: "main".into(), code: 1 });
    let [.., end] = wire.channels().await;
    assert!(end.contains("\"137\""), "{end}");
}

#[tokio::test]
async fn logs_over_http_and_websocket() {
    let node = Node::start("echo one; echo two; sleep 1000", false).await;
    let answer = node.get("/containerLogs/default/web/main?tailLines=1", "").await;
    assert!(
        answer.starts_with("HTTP/1.1 200 ") && answer.contains("two\n") && !answer.contains("one"),
        "{answer}"
    );
    let mut wire = node.websocket("/containerLogs/default/web/main", "binary.k8s.io").await;
    assert_eq!(wire.frame().await, (2, b"one\ntwo\n".to_vec()));
    assert_eq!(wire.frame().await.0, 8);
    // A follower is let go when the container ends.
    let mut wire = node.websocket("/containerLogs/default/web/main?follow=true", "").await;
    assert_eq!(wire.frame().await, (2, b"one\ntwo\n".to_vec()));
    node.runtime.disturb(MemoryEvent::Exit { pod: PodUid::from("u"), container: "main".into(), code: 0 });
    assert_eq!(wire.frame().await.0, 8);
}

#[tokio::test]
async fn what_cannot_be_done_is_refused_with_a_reason() {
    let node = Node::start("sleep 1000", false).await;
    let refused = async |path: &str, headers: &str, code: u16, why: &str| {
        let answer = node.get(path, headers).await;
        assert!(answer.starts_with(&format!("HTTP/1.1 {code} ")) && answer.contains(why), "{path}: {answer}");
    };
    refused("/nope", "", 404, "404 page not found").await;
    refused("/containerLogs/default/gone/main", "", 404, "pod does not exist").await;
    refused("/containerLogs/default/web/late", "", 400, "is waiting to start: ContainerCreating").await;
    refused("/containerLogs/default/web/main?tailLines=x", "", 400, "tailLines: Invalid value").await;
    refused("/exec/default/web/main?output=1", "", 400, "you must specify at least 1 command").await;
    refused("/exec/default/web/late?command=a&output=1", "", 500, "container not found (\"late\")").await;
    let exec = "/exec/default/web/main?command=true&output=1";
    refused(exec, "", 400, "unable to upgrade: this node streams over WebSocket").await;
    refused(exec, "Upgrade: SPDY/3.1\r\n", 400, "not over SPDY").await;
    refused(exec, "Sec-WebSocket-Protocol: v9.channel.k8s.io\r\n", 403, "v9.channel.k8s.io").await;
    refused("/portForward/default/web", "", 403, "SPDY/3.1+portforward.k8s.io").await;
    refused("/healthz", "", 200, "ok").await;
    refused("/metrics", "", 200, "kubelet_running_containers{container_state=\"exited\"} 2").await;

    let node = Node::start("sleep 1000", true).await;
    assert!(node.get("/healthz", "").await.ends_with("ok"));
    for path in ["/pods", exec, "/healthz/../pods", "/healthz/ping"] {
        assert!(node.get(path, "").await.starts_with("HTTP/1.1 401 "), "{path}");
    }
}
