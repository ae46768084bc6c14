//! Bytes of any kind as requests of the etcd API: decoded or refused, never a panic, never much memory, always an answer.
//!
//! `ICP_FUZZ` is the number of cases of each property, 200 by default.
#![cfg(feature = "etcd")]
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::disallowed_methods,
    reason = "test code"
)]

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http_body_util::{BodyExt, Full};
use hyper_util::rt::{TokioExecutor, TokioIo};
use icp_store::Memory;
use icp_store::etcd::proto as pb;
use icp_store::etcd::server::{ServerOptions, serve};
use proptest::prelude::*;
use prost::Message;

fn cases() -> ProptestConfig {
    let cases = std::env::var_os("ICP_FUZZ").and_then(|n| n.to_str()?.parse().ok()).unwrap_or(200);
    ProptestConfig { failure_persistence: None, ..ProptestConfig::with_cases(cases) }
}

/// What is decoded is what its encoding is decoded to.
fn stable<M: Message + Default + PartialEq + std::fmt::Debug>(bytes: &[u8]) {
    if let Ok(message) = M::decode(bytes) {
        assert_eq!(M::decode(&message.encode_to_vec()[..]).unwrap(), message);
    }
}

fn all_stable(bytes: &[u8]) {
    stable::<pb::RangeRequest>(bytes);
    stable::<pb::PutRequest>(bytes);
    stable::<pb::DeleteRangeRequest>(bytes);
    stable::<pb::TxnRequest>(bytes);
    stable::<pb::CompactionRequest>(bytes);
    stable::<pb::WatchRequest>(bytes);
    stable::<pb::WatchResponse>(bytes);
    stable::<pb::RangeResponse>(bytes);
    stable::<pb::TxnResponse>(bytes);
    stable::<pb::LeaseGrantRequest>(bytes);
}

/// A transaction with all kinds of operations, one in another.
fn txn(key: &[u8], value: &[u8], depth: u32) -> pb::TxnRequest {
    use pb::request_op::Request;
    let op = |request| pb::RequestOp { request: Some(request) };
    let key = Bytes::copy_from_slice(key);
    let put = pb::PutRequest { key: key.clone(), value: Bytes::copy_from_slice(value), ..Default::default() };
    let range =
        pb::RangeRequest { key: key.clone(), range_end: Bytes::from_static(&[0]), ..Default::default() };
    let delete = pb::DeleteRangeRequest { key: key.clone(), ..Default::default() };
    let mut success = vec![op(Request::Put(put)), op(Request::Range(range))];
    if depth > 0 {
        success.push(op(Request::Txn(txn(b"other", value, depth - 1))));
    }
    pb::TxnRequest { success, failure: vec![op(Request::DeleteRange(delete))], ..Default::default() }
}

proptest! {
    #![proptest_config(cases())]

    #[test]
    fn arbitrary_bytes_are_decoded_or_refused(bytes in prop::collection::vec(any::<u8>(), 0..200)) {
        all_stable(&bytes);
    }

    #[test]
    fn mutated_messages_are_decoded_or_refused(
        key in prop::collection::vec(any::<u8>(), 0..20),
        value in prop::collection::vec(any::<u8>(), 0..50),
        depth in 0..40_u32,
        changes in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 0..6),
    ) {
        let mut bytes = txn(&key, &value, depth).encode_to_vec();
        for (at, byte) in changes {
            let at = at.index(bytes.len());
            bytes[at] = byte;
        }
        all_stable(&bytes);
    }
}

const METHODS: [&str; 8] = [
    "/etcdserverpb.KV/Range",
    "/etcdserverpb.KV/Put",
    "/etcdserverpb.KV/DeleteRange",
    "/etcdserverpb.KV/Txn",
    "/etcdserverpb.KV/Compact",
    "/etcdserverpb.Lease/LeaseGrant",
    "/etcdserverpb.Lease/LeaseRevoke",
    "/etcdserverpb.Maintenance/Status",
];

/// Sends bodies as they are to a server, and returns the grpc status of each, in headers or trailers.
async fn statuses(requests: Vec<(&'static str, Vec<u8>)>) -> Vec<Option<String>> {
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let server = tokio::spawn(serve(listener, Arc::new(Memory::new()), ServerOptions::default()));
    let mut statuses = Vec::new();
    let stream = tokio::net::TcpStream::connect(address).await.unwrap();
    let (mut send, connection) =
        hyper::client::conn::http2::handshake(TokioExecutor::new(), TokioIo::new(stream)).await.unwrap();
    tokio::spawn(connection);
    for (method, body) in requests {
        let request = http::Request::post(format!("http://{address}{method}"))
            .header("content-type", "application/grpc")
            .header("te", "trailers")
            .body(Full::new(Bytes::from(body)))
            .unwrap();
        let answer = async {
            let response = send.send_request(request).await.unwrap();
            let status = response.headers().get("grpc-status").cloned();
            let trailers = response.into_body().collect().await.ok().and_then(|b| b.trailers().cloned());
            let status = status.or_else(|| trailers?.get("grpc-status").cloned());
            status.and_then(|s| s.to_str().ok().map(String::from))
        };
        statuses.push(tokio::time::timeout(Duration::from_secs(20), answer).await.expect("an answer"));
    }
    server.abort();
    statuses
}

fn framed(message: &[u8]) -> Vec<u8> {
    [&[0][..], &(message.len() as u32).to_be_bytes(), message].concat()
}

fn block_on<F: Future>(future: F) -> F::Output {
    tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .enable_all()
        .build()
        .unwrap()
        .block_on(future)
}

proptest! {
    #![proptest_config(ProptestConfig { cases: cases().cases.div_ceil(10), ..cases() })]

    #[test]
    fn every_request_is_answered(
        bodies in prop::collection::vec(
            (0..METHODS.len(), prop::collection::vec(any::<u8>(), 0..60), any::<bool>()),
            1..20,
        ),
    ) {
        let requests = bodies
            .into_iter()
            .map(|(method, body, frame)| (METHODS[method], if frame { framed(&body) } else { body }))
            .collect();
        for status in block_on(statuses(requests)) {
            prop_assert!(status.is_some());
        }
    }
}

/// A length that is claimed and not sent costs no memory, and is refused.
#[test]
fn a_claimed_length_is_not_allocated() {
    let peak_kib = || {
        let status = std::fs::read_to_string("/proc/self/status").unwrap();
        let line = status.lines().find(|l| l.starts_with("VmPeak:")).unwrap().to_string();
        line.split_whitespace().nth(1).unwrap().parse::<u64>().unwrap()
    };
    let mut claims = Vec::new();
    for length in [u32::MAX, 1 << 31, 1 << 30] {
        claims.push((METHODS[3], [&[0][..], &length.to_be_bytes(), b"short"].concat()));
    }
    // Inside of a message: a key of 4 GB.
    claims.push((METHODS[1], framed(&[0x0a, 0xff, 0xff, 0xff, 0xff, 0x0f, 1, 2, 3])));
    let before = peak_kib();
    let answers = block_on(statuses(claims));
    let grown = peak_kib() - before;
    assert!(answers.iter().all(|s| s.as_deref().is_some_and(|s| s != "0")), "{answers:?}");
    assert!(grown < 900 << 10, "{grown} KiB");
}
