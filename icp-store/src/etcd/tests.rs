//! Server and client against each other on loopback.
#![allow(clippy::disallowed_methods, reason = "a test owns its server's task")]

use alloc::format;
use alloc::sync::Arc;
use alloc::vec;
use alloc::vec::Vec;
use core::time::Duration;

use futures_util::StreamExt;
use icp_core::storage::{
    Compare, CompareOp, CompareTarget, DeleteRangeRequest, KeyRange, Op, PutRequest, RangeRequest, Storage,
    StorageError, Txn, WatchRequest,
};
use tokio::net::TcpListener;
use tokio::task::JoinHandle;

use super::convert;
use super::server::{ServerOptions, serve};
use super::{Client, ClientOptions};
use crate::Memory;

/// A server at a port of loopback; it ends when it is aborted.
async fn server(port: u16, store: Memory, options: ServerOptions) -> (u16, JoinHandle<std::io::Result<()>>) {
    let mut tries = 0;
    let listener = loop {
        match TcpListener::bind(("127.0.0.1", port)).await {
            Ok(listener) => break listener,
            Err(e) => assert!(tries < 50, "{e}"),
        }
        tries += 1;
        tokio::task::yield_now().await;
    };
    let port = listener.local_addr().unwrap().port();
    (port, tokio::spawn(serve(listener, Arc::new(store), options)))
}

fn client(port: u16) -> Client {
    let options = ClientOptions { request_timeout: Duration::from_secs(5), ..ClientOptions::default() };
    Client::new(&[format!("http://127.0.0.1:{port}")], options).unwrap()
}

fn put(key: &str) -> Txn {
    Txn { success: vec![Op::Put(PutRequest::new(key.as_bytes().to_vec(), "v"))], ..Txn::default() }
}

#[tokio::test]
async fn every_error_arrives_as_itself() {
    let store = Memory::new();
    let (port, server) = server(0, store.clone(), ServerOptions::default()).await;
    let client = client(port);
    for n in 0..4 {
        client.txn(put(&format!("k{n}"))).await.unwrap();
    }
    client.compact(4).await.unwrap();
    let key = || RangeRequest::new(KeyRange::key("k"));
    assert_eq!(client.range(key().at(2)).await, Err(StorageError::Compacted { compacted: 0 }));
    assert_eq!(
        client.range(key().at(9)).await,
        Err(StorageError::FutureRevision { requested: 9, current: 0 })
    );
    assert_eq!(client.lease_revoke(5).await, Err(StorageError::LeaseNotFound(5)));
    client.lease_grant(5, 10).await.unwrap();
    assert_eq!(client.lease_grant(5, 10).await, Err(StorageError::LeaseExists(5)));
    let twice = Txn { success: [put("a").success, put("a").success].concat(), ..Txn::default() };
    let refused = client.txn(twice).await;
    assert!(
        matches!(&refused, Err(StorageError::Invalid { message, .. }) if message.contains("duplicate key"))
    );
    let large = Txn { success: vec![Op::Put(PutRequest::new("k", vec![0; 1_600_000]))], ..Txn::default() };
    assert!(matches!(client.txn(large).await, Err(StorageError::TooLarge { .. })));
    let too_large =
        Txn { success: vec![Op::Put(PutRequest::new("k", vec![0; 3_000_000]))], ..Txn::default() };
    assert!(client.txn(too_large).await.is_err());
    let watch = client.watch(WatchRequest::new(KeyRange::key("k"), 2)).await.unwrap().next().await.unwrap();
    assert_eq!(watch, Err(StorageError::Compacted { compacted: 4 }));
    server.abort();
    assert_eq!(store.revision(), 5);
}

#[tokio::test]
async fn a_watch_resumes_on_a_new_connection_without_a_gap() {
    let store = Memory::new();
    let (port, first) = server(0, store.clone(), ServerOptions::default()).await;
    let client = client(port);
    let mut watch = client.watch(WatchRequest::new(KeyRange::prefix("k"), 0)).await.unwrap();
    client.txn(put("k1")).await.unwrap();
    assert_eq!(watch.next().await.unwrap().unwrap().revision, 2);
    first.abort();
    let _ = first.await;
    // Written while nobody is connected.
    store.txn(put("k2")).await.unwrap();
    store.txn(put("k3")).await.unwrap();
    let (_, second) = server(port, store.clone(), ServerOptions::default()).await;
    let mut seen = Vec::new();
    while seen.len() < 2 {
        let next = tokio::time::timeout(Duration::from_secs(20), watch.next()).await.unwrap();
        seen.extend(next.unwrap().unwrap().events.into_iter().map(|e| e.kv.mod_revision));
    }
    assert_eq!(seen, [3, 4]);
    assert_eq!(client.range(RangeRequest::new(KeyRange::prefix("k"))).await.unwrap().count, 3);
    second.abort();
}

#[tokio::test]
async fn progress_is_told_on_request_and_never_ahead() {
    let store = Memory::new();
    let (port, server) = server(0, store.clone(), ServerOptions::default()).await;
    let client = client(port);
    let request = WatchRequest { progress_notify: true, ..WatchRequest::new(KeyRange::prefix("k"), 0) };
    let mut watch = client.watch(request).await.unwrap();
    for n in 0..20 {
        client.txn(put(if n % 2 == 0 { "k" } else { "other" })).await.unwrap();
    }
    client.request_progress().await.unwrap();
    let (mut events, mut complete) = (0, 0);
    while complete < 21 {
        let batch = watch.next().await.unwrap().unwrap();
        assert!(batch.events.iter().all(|e| e.kv.mod_revision > complete));
        events += batch.events.len();
        complete = batch.revision;
    }
    assert_eq!(events, 10);
    server.abort();
}

/// Mutual TLS: a client with a certificate of the authority is served, one without is not.
#[tokio::test]
async fn mutual_tls_lets_in_who_has_a_certificate() {
    use rcgen::{BasicConstraints, CertificateParams, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair};
    use rustls::pki_types::{PrivateKeyDer, PrivatePkcs8KeyDer};

    let authority_key = KeyPair::generate().unwrap();
    let mut params = CertificateParams::new(vec![]).unwrap();
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    let authority = params.self_signed(&authority_key).unwrap();
    let issuer = Issuer::from_params(&params, &authority_key);
    let issue = |usage| {
        let key = KeyPair::generate().unwrap();
        let mut params = CertificateParams::new(vec!["127.0.0.1".into()]).unwrap();
        params.extended_key_usages = vec![usage];
        let certificate = params.signed_by(&key, &issuer).unwrap();
        (vec![certificate.der().clone()], PrivateKeyDer::from(PrivatePkcs8KeyDer::from(key.serialize_der())))
    };
    let mut roots = rustls::RootCertStore::empty();
    roots.add(authority.der().clone()).unwrap();
    let roots = Arc::new(roots);
    let provider = Arc::new(rustls::crypto::ring::default_provider());

    let (chain, key) = issue(ExtendedKeyUsagePurpose::ServerAuth);
    let verifier =
        rustls::server::WebPkiClientVerifier::builder_with_provider(roots.clone(), provider.clone());
    let tls = rustls::ServerConfig::builder_with_provider(provider.clone())
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_client_cert_verifier(verifier.build().unwrap())
        .with_single_cert(chain, key)
        .unwrap();
    let options = ServerOptions { tls: Some(Arc::new(tls)), ..ServerOptions::default() };
    let (port, server) = server(0, Memory::new(), options).await;

    let url = format!("https://127.0.0.1:{port}");
    let base = || {
        rustls::ClientConfig::builder_with_provider(provider.clone())
            .with_safe_default_protocol_versions()
            .unwrap()
            .with_root_certificates(roots.clone())
    };
    let (chain, key) = issue(ExtendedKeyUsagePurpose::ClientAuth);
    let known = base().with_client_auth_cert(chain, key).unwrap();
    let options = |tls| ClientOptions { tls: Some(Arc::new(tls)), ..ClientOptions::default() };
    let client = Client::new(&[&url], options(known)).unwrap();
    assert_eq!(client.txn(put("k")).await.unwrap().revision, 2);

    let unknown = Client::new(&[&url], options(base().with_no_client_auth())).unwrap();
    assert!(matches!(unknown.txn(put("k")).await, Err(StorageError::Unavailable { .. })));
    assert!(matches!(Client::new(&[&url], ClientOptions::default()), Err(StorageError::Invalid { .. })));
    server.abort();
}

#[test]
fn endpoints_are_checked() {
    for bad in ["", "127.0.0.1:2379", "ftp://x:1", "http://"] {
        let refused = Client::new(&[bad], ClientOptions::default());
        assert!(matches!(refused, Err(StorageError::Invalid { field: "endpoint", .. })), "{bad:?}");
    }
    assert!(Client::new(&[] as &[&str], ClientOptions::default()).is_err());
}

#[test]
fn requests_survive_the_way_through_the_messages() {
    let range =
        RangeRequest { limit: 3, keys_only: true, ..RangeRequest::new(KeyRange::between("a", "")).at(7) };
    let nested = Txn {
        compare: vec![Compare {
            range: KeyRange::between("a", "b"),
            op: CompareOp::NotEqual,
            target: CompareTarget::Value("v".into()),
        }],
        success: vec![
            Op::Range(range),
            Op::DeleteRange(DeleteRangeRequest { range: KeyRange::key("x"), prev_kv: true }),
        ],
        failure: vec![Op::Put(PutRequest { lease: 4, prev_kv: true, ..PutRequest::new("k", "v") })],
    };
    let txn =
        Txn { compare: vec![Compare::mod_revision("k", 9)], success: vec![Op::Txn(nested)], failure: vec![] };
    assert_eq!(convert::txn(convert::txn_to(txn.clone())).unwrap(), txn);
    let deep = (0..40).fold(Txn::default(), |t, _| Txn { success: vec![Op::Txn(t)], ..Txn::default() });
    assert!(convert::txn(convert::txn_to(deep)).is_err());
}
