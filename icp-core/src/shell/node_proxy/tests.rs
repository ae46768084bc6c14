use alloc::vec::Vec;

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpListener;
use tokio::sync::watch;

use super::*;
use crate::server::UserInfo;
use crate::shell::listener::{Handler, Limits, serve};

fn kubelet(port: u16) -> ProxyTarget {
    ProxyTarget::Kubelet { node: "n1".into(), address: Some("127.0.0.1".into()), port }
}

fn get(path: &str) -> Request<Bytes> {
    Request::get(path).body(Bytes::new()).unwrap()
}

/// A port on which nothing listens.
async fn closed_port() -> u16 {
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    listener.local_addr().unwrap().port()
}

#[tokio::test]
async fn an_unreachable_kubelet_is_told_in_the_usual_words() {
    let port = closed_port().await;
    let proxy = HttpNodeProxy::new(NodeProxyConfig::new(None));
    let status = proxy.forward(kubelet(port), get("/containerLogs/a/b/c?follow=true")).await.unwrap_err();
    assert_eq!(
        status.message,
        format!(
            "Get \"http://127.0.0.1:{port}/containerLogs/a/b/c?follow=true\": dial tcp 127.0.0.1:{port}: connect: connection refused"
        )
    );
    assert_eq!((status.code, status.reason.as_str()), (500, ""));
    let address =
        ProxyTarget::Address { scheme: "http".into(), host: "127.0.0.1".into(), port, node: "n1".into() };
    let status = proxy.forward(address, get("/")).await.unwrap_err();
    assert_eq!(status.code, 503);
    assert!(status.message.starts_with("error trying to reach service: dial tcp 127.0.0.1:"));
}

#[tokio::test]
async fn requests_beyond_the_limit_are_refused() {
    let port = closed_port().await;
    let proxy = HttpNodeProxy::new(NodeProxyConfig { streams_max: 0, ..NodeProxyConfig::new(None) });
    assert_eq!(proxy.forward(kubelet(port), get("/")).await.unwrap_err().code, 429);
}

#[test]
fn headers_of_the_connection_stay_behind() {
    let mut request = get("/x");
    let headers = request.headers_mut();
    headers.insert(CONNECTION, HeaderValue::from_static("keep-alive, Upgrade"));
    headers.insert(UPGRADE, HeaderValue::from_static("websocket"));
    headers.insert(TE, HeaderValue::from_static("trailers"));
    assert!(wants_upgrade(headers));
    let with = outgoing(request.clone(), "::1", 10, true).unwrap();
    assert_eq!(with.headers().get(UPGRADE).unwrap(), "websocket");
    assert_eq!(with.headers().get(HOST).unwrap(), "[::1]:10");
    let without = outgoing(request, "a", 10, false).unwrap();
    assert!(without.headers().get(UPGRADE).is_none() && without.headers().get(TE).is_none());
}

/// Forwards whatever comes to one target.
#[derive(Clone)]
struct Forward(HttpNodeProxy, ProxyTarget);

#[async_trait]
impl Handler for Forward {
    async fn answer(&self, request: Request<Incoming>, _user: Option<UserInfo>) -> Response<Body> {
        let (parts, body) = request.into_parts();
        let body = body.collect().await.unwrap().to_bytes();
        match self.0.forward(self.1.clone(), Request::from_parts(parts, body)).await {
            Ok(response) => response,
            Err(status) => {
                let mut response = Response::new(Body::from(status.message.into_bytes()));
                *response.status_mut() = StatusCode::from_u16(status.code).unwrap();
                response
            }
        }
    }
}

/// Takes one connection after the other: reads the head of a request, answers with `answer`, then sends back what
/// comes. Each head goes to the channel.
async fn target(answer: &'static str) -> (u16, tokio::sync::mpsc::Receiver<String>) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = listener.local_addr().unwrap().port();
    let (tx, rx) = tokio::sync::mpsc::channel(8);
    tokio::spawn(async move {
        while let Ok((mut stream, _)) = listener.accept().await {
            let (mut head, mut byte) = (Vec::new(), [0]);
            while !head.ends_with(b"\r\n\r\n") && stream.read(&mut byte).await.unwrap() == 1 {
                head.push(byte[0]);
            }
            tx.send(String::from_utf8(head).unwrap()).await.unwrap();
            stream.write_all(answer.as_bytes()).await.unwrap();
            let (mut read, mut write) = stream.split();
            let _ = tokio::io::copy(&mut read, &mut write).await;
        }
    });
    (port, rx)
}

/// A listener that forwards to a target, and the bytes that a client gets for `sent`, up to `until`.
async fn through(port: u16, sent: &str, until: &str) -> String {
    let socket = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = socket.local_addr().unwrap();
    let (_stop, stopped) = watch::channel(false);
    let handler = Forward(HttpNodeProxy::new(NodeProxyConfig::new(None)), kubelet(port));
    tokio::spawn(serve(socket, handler, None, Limits::default(), stopped));
    let mut stream = TcpStream::connect(address).await.unwrap();
    stream.write_all(sent.as_bytes()).await.unwrap();
    let (mut seen, mut buffer) = (Vec::new(), [0; 4096]);
    loop {
        let read = tokio::time::timeout(Duration::from_secs(20), stream.read(&mut buffer)).await;
        let n = read.expect("an answer in time").unwrap();
        seen.extend_from_slice(&buffer[..n]);
        let text = String::from_utf8_lossy(&seen).into_owned();
        if n == 0 || text.contains(until) {
            return text;
        }
    }
}

#[tokio::test]
async fn an_answer_streams_before_it_ends() {
    // The target never ends its body.
    let (port, mut heads) =
        target("HTTP/1.1 200 OK\r\nX-Mine: 1\r\nKeep-Alive: timeout=9\r\nTransfer-Encoding: chunked\r\n\r\n4\r\nline\r\n").await;
    let sent =
        "GET /containerLogs/a/b/c?follow=true HTTP/1.1\r\nHost: api\r\nTE: trailers\r\nX-Asked: 2\r\n\r\n";
    let seen = through(port, sent, "line").await;
    assert!(seen.starts_with("HTTP/1.1 200 OK\r\n") && seen.contains("x-mine: 1"), "{seen}");
    assert!(!seen.contains("keep-alive"), "{seen}");
    let head = heads.recv().await.unwrap().to_lowercase();
    assert!(head.starts_with("get /containerlogs/a/b/c?follow=true http/1.1\r\n"), "{head}");
    assert!(
        head.contains("x-asked: 2") && head.contains(&alloc::format!("host: 127.0.0.1:{port}")),
        "{head}"
    );
    assert!(!head.contains("te: "), "{head}");
}

#[tokio::test]
async fn an_upgraded_connection_is_joined_in_both_directions() {
    let (port, mut heads) =
        target("HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: echo\r\n\r\nfirst ")
            .await;
    let sent = "GET /exec HTTP/1.1\r\nHost: api\r\nConnection: Upgrade\r\nUpgrade: echo\r\n\r\nsecond";
    let seen = through(port, sent, "first second").await;
    assert!(seen.starts_with("HTTP/1.1 101 ") && seen.contains("upgrade: echo"), "{seen}");
    assert!(heads.recv().await.unwrap().to_lowercase().contains("upgrade: echo"));
    // An upgrade that nobody asked for goes nowhere.
    let seen = through(port, "GET / HTTP/1.1\r\nHost: api\r\nConnection: close\r\n\r\n", "never").await;
    assert!(seen.starts_with("HTTP/1.1 500 "), "{seen}");
}

#[tokio::test]
async fn a_target_that_says_nothing_is_given_up() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = listener.local_addr().unwrap().port();
    let answer = Duration::from_millis(50);
    let proxy = HttpNodeProxy::new(NodeProxyConfig { answer, ..NodeProxyConfig::new(None) });
    let status = proxy.forward(kubelet(port), get("/pods")).await.unwrap_err();
    assert!(status.message.ends_with("net/http: timeout awaiting response headers"), "{}", status.message);
}
