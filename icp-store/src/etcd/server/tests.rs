//! What clients send wrong, and what is served beside gRPC: on real connections.
#![allow(clippy::disallowed_methods, reason = "a test owns its tasks")]

use alloc::string::String;
use alloc::sync::Arc;
use alloc::vec::Vec;
use core::time::Duration;

use bytes::Bytes;
use http::Request;
use http_body_util::Full;
use hyper::client::conn::http2::SendRequest;
use hyper_util::rt::{TokioExecutor, TokioIo};
use icp_core::storage::{AlarmKind, Op, PutRequest, Storage, Txn};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::AbortHandle;

use super::{ServerOptions, serve};
use crate::etcd::grpc::{Messages, Status, frame};
use crate::etcd::proto as pb;
use crate::etcd::proto::watch_request::RequestUnion;
use crate::{Config, Memory};

/// A server that ends when it is dropped.
struct Server {
    address: std::net::SocketAddr,
    task: AbortHandle,
}

impl Drop for Server {
    fn drop(&mut self) {
        self.task.abort();
    }
}

async fn server(store: Memory, options: ServerOptions) -> Server {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let task = tokio::spawn(serve(listener, Arc::new(store), options)).abort_handle();
    Server { address, task }
}

async fn http2(server: &Server) -> SendRequest<Full<Bytes>> {
    let stream = TokioIo::new(TcpStream::connect(server.address).await.unwrap());
    let (sender, connection) =
        hyper::client::conn::http2::handshake(TokioExecutor::new(), stream).await.unwrap();
    tokio::spawn(connection);
    sender
}

fn request(path: &str, encoding: &str, body: impl Into<Bytes>) -> Request<Full<Bytes>> {
    let request = Request::post(alloc::format!("http://localhost{path}"))
        .header("content-type", "application/grpc")
        .header("te", "trailers")
        .header("grpc-encoding", encoding);
    request.body(Full::new(body.into())).unwrap()
}

#[tokio::test]
async fn bad_messages_are_refused_with_the_codes_and_words_of_grpc() {
    let server = server(Memory::new(), ServerOptions::default()).await;
    let put = "/etcdserverpb.KV/Put";
    let deep = (0..200).fold(Vec::new(), |inner: Vec<u8>, _| {
        // success { txn { .. } }
        let mut op = alloc::vec![0x22];
        prost::encoding::encode_varint(inner.len() as u64, &mut op);
        op.extend(inner);
        let mut txn = alloc::vec![0x12];
        prost::encoding::encode_varint(op.len() as u64, &mut txn);
        txn.extend(op);
        txn
    });
    let mut deep_frame = alloc::vec![0];
    deep_frame.extend((deep.len() as u32).to_be_bytes());
    deep_frame.extend(deep);
    let cases: [(&str, &str, &[u8], u16, &str); 11] = [
        (put, "", &[0, 0, 0, 0, 9, 1], 13, "unexpected EOF"),
        (put, "", &[0, 0, 0], 13, "unexpected EOF"),
        (put, "", &[], 13, "the body has no message"),
        (put, "identity", &[1, 0, 0, 0, 0], 13, "grpc: compressed flag set with identity or empty encoding"),
        (put, "gzip", &[1, 0, 0, 0, 0], 12, "grpc: Decompressor is not installed for grpc-encoding \"gzip\""),
        (put, "", &[7, 0, 0, 0, 0], 13, "grpc: received unexpected payload format 7"),
        (
            put,
            "",
            &[0, 255, 255, 255, 255, 1],
            8,
            "grpc: received message larger than max (4294967295 vs. 2097152)",
        ),
        (put, "", &[0, 0, 0, 0, 2, 0xff, 0xff], 13, "grpc: error unmarshalling request"),
        (put, "", &[0, 0, 0, 0, 0], 3, "etcdserver: key is not provided"),
        ("/etcdserverpb.KV/Txn", "", &deep_frame, 13, "grpc: error unmarshalling request"),
        ("/v3lockpb.Lock/Lock", "", &[0, 0, 0, 0, 0], 12, "unknown service v3lockpb.Lock"),
    ];
    for (path, encoding, body, code, message) in cases {
        let mut sender = http2(&server).await;
        let response = sender.send_request(request(path, encoding, body.to_vec())).await.unwrap();
        let status = Status::read(response.headers()).unwrap();
        assert!(status.code == code && status.message.starts_with(message), "{path} {body:?}: {status:?}");
    }
    let mut sender = http2(&server).await;
    let get = Request::get("http://localhost/health").body(Full::default()).unwrap();
    assert_eq!(sender.send_request(get).await.unwrap().status(), 200);
    let plain = Request::post("http://localhost/etcdserverpb.KV/Put").body(Full::default()).unwrap();
    assert_eq!(sender.send_request(plain).await.unwrap().status(), 405);
}

/// What a server answers to raw bytes until it closes the connection.
async fn raw(server: &Server, bytes: &[u8]) -> String {
    let mut stream = TcpStream::connect(server.address).await.unwrap();
    stream.write_all(bytes).await.unwrap();
    let mut answer = Vec::new();
    let read = tokio::time::timeout(Duration::from_secs(20), stream.read_to_end(&mut answer)).await;
    let _ = read.expect("the server closes the connection");
    String::from_utf8_lossy(&answer).into_owned()
}

#[tokio::test]
async fn connections_that_say_nothing_or_nonsense_are_closed() {
    let options = ServerOptions { handshake_timeout: Duration::from_millis(200), ..ServerOptions::default() };
    let server = server(Memory::new(), options).await;
    for bytes in [&b""[..], b"PRI * HT", b"GET /health HTTP/1.1\r\nhost: x\r\n"] {
        assert_eq!(raw(&server, bytes).await, "", "{bytes:?}");
    }
    assert!(raw(&server, b"nonsense\r\n\r\n").await.starts_with("HTTP/1.1 400"));
    let mut half = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n".to_vec();
    // A frame that is larger than any may be.
    half.extend([0xff, 0xff, 0xff, 0, 0, 0, 0, 0, 0]);
    raw(&server, &half).await;
}

#[tokio::test]
async fn further_connections_wait_until_one_is_free() {
    let server =
        server(Memory::new(), ServerOptions { connections_max: 1, ..ServerOptions::default() }).await;
    let first = http2(&server).await;
    let mut second = TcpStream::connect(server.address).await.unwrap();
    second.write_all(b"GET /version HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n").await.unwrap();
    let mut answer = String::new();
    let waits = tokio::time::timeout(Duration::from_millis(100), second.read_to_string(&mut answer)).await;
    assert!(waits.is_err() && answer.is_empty(), "{answer}");
    drop(first);
    let served = tokio::time::timeout(Duration::from_secs(20), second.read_to_string(&mut answer)).await;
    served.expect("in time").unwrap();
    assert!(answer.ends_with("{\"etcdserver\":\"3.5.21\",\"etcdcluster\":\"3.5.0\"}"), "{answer}");
}

fn put(key: &'static str, bytes: usize) -> Txn {
    let put = PutRequest::new(key, alloc::vec![7; bytes]);
    Txn { success: alloc::vec![Op::Put(put)], ..Txn::default() }
}

/// A client that does not read its watch gets all that was sent before the cut, without a gap, and then the reason.
#[tokio::test]
async fn a_watch_that_is_not_read_is_cut_and_has_no_gap() {
    let store = Memory::with_config(Config { watch_lag_events_max: 10, ..Config::default() });
    let server = server(store.clone(), ServerOptions::default()).await;
    let mut sender = http2(&server).await;
    let create = pb::WatchCreateRequest { key: "k".into(), start_revision: 2, ..Default::default() };
    let create = pb::WatchRequest { request_union: Some(RequestUnion::Create(create)) };
    let response = sender.send_request(request("/etcdserverpb.Watch/Watch", "", frame(&create))).await;
    let mut messages = Messages::new(response.unwrap().into_body(), 1 << 24);
    let created: pb::WatchResponse = messages.next().await.unwrap().unwrap();
    assert!(created.created);
    for _ in 0..200 {
        store.txn(put("k", 100_000)).await.unwrap();
        tokio::task::yield_now().await;
    }
    let (mut next, mut reason) = (2, None);
    while reason.is_none() {
        let batch: pb::WatchResponse = messages.next().await.unwrap().expect("a reason before the end");
        for event in batch.events {
            assert_eq!(event.kv.unwrap().mod_revision, next);
            next += 1;
        }
        reason = batch.canceled.then_some(batch.cancel_reason);
    }
    assert!(reason.as_ref().is_some_and(|r| r.contains("too slow")) && next < 202, "{reason:?} {next}");
}

#[tokio::test]
async fn health_and_metrics_tell_the_truth() {
    let store = Memory::new();
    let times = crate::etcd::SyncTimes::default();
    let mut files = crate::log::Files::create(&times.files(crate::log::SimFiles::new(1)), "x", 0).unwrap();
    crate::log::File::sync(&mut files).unwrap();
    let options = ServerOptions { sync_times: Some(times), ..ServerOptions::default() };
    let server = server(store.clone(), options).await;
    let get = |path: &str| alloc::format!("GET {path} HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n");
    let url = alloc::format!("http://{}", server.address);
    let client = crate::etcd::Client::new(&[url], crate::etcd::ClientOptions::default()).unwrap();
    for key in ["a", "b", "a"] {
        client.txn(put(key, 10)).await.unwrap();
    }
    client.lease_grant(9, 60).await.unwrap();
    client.lease_revoke(9).await.unwrap();
    assert!(client.lease_revoke(9).await.is_err());
    let text = raw(&server, get("/metrics").as_bytes()).await;
    let sizes = store.status().await.unwrap();
    for line in [
        "etcd_server_has_leader 1",
        "etcd_server_proposals_committed_total 3",
        "etcd_server_proposals_pending 0",
        "etcd_disk_wal_fsync_duration_seconds_bucket{le=\"+Inf\"} 1",
        "etcd_disk_wal_fsync_duration_seconds_count 1",
        "etcd_mvcc_put_total 3",
        "etcd_mvcc_txn_total 3",
        "etcd_debugging_mvcc_keys_total 2",
        "etcd_debugging_mvcc_current_revision 4",
        "etcd_debugging_lease_granted_total 1",
        "etcd_debugging_lease_revoked_total 1",
        "grpc_server_handled_total{grpc_code=\"OK\",grpc_method=\"Txn\",grpc_service=\"etcdserverpb.KV\"} 3",
        "grpc_server_handled_total{grpc_code=\"NotFound\",grpc_method=\"LeaseRevoke\",grpc_service=\"etcdserverpb.Lease\"} 1",
        &alloc::format!("etcd_mvcc_db_total_size_in_bytes {}", sizes.size_bytes),
    ] {
        assert!(text.lines().any(|l| l == line), "{line}\n{text}");
    }
    assert!(text.contains("process_resident_memory_bytes "));

    assert!(raw(&server, get("/health").as_bytes()).await.ends_with("{\"health\":\"true\",\"reason\":\"\"}"));
    client.set_alarm(AlarmKind::NoSpace, true).await.unwrap();
    let ill = raw(&server, get("/health").as_bytes()).await;
    assert!(ill.starts_with("HTTP/1.1 503") && ill.contains("ALARM NOSPACE"), "{ill}");
    assert!(raw(&server, get("/health?exclude=NOSPACE").as_bytes()).await.contains("\"true\""));
    assert!(raw(&server, get("/nothing").as_bytes()).await.starts_with("HTTP/1.1 404"));
}
