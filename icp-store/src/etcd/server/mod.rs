//! The server.
#![expect(clippy::disallowed_methods, reason = "a shell: it owns the tasks of its connections and streams")]

mod calls;
mod watch;

use alloc::string::String;
use alloc::sync::Arc;
use alloc::vec::Vec;
use core::convert::Infallible;
use std::io;

use http::{Request, Response};
use hyper::body::Incoming;
use hyper::server::conn::http2;
use hyper::service::service_fn;
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use icp_core::base::Duration;
use icp_core::storage::Storage;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpListener;
use tokio::sync::Semaphore;
use tokio::task::JoinSet;
use tokio_rustls::TlsAcceptor;

use super::grpc::{GrpcBody, Messages, Status, UNIMPLEMENTED, failed, response};
use super::proto as pb;

/// Settings of a server.
#[derive(Clone, Debug)]
pub struct ServerOptions {
    /// The member's name.
    pub name: String,
    /// Where clients are told to connect.
    pub client_urls: Vec<String>,
    /// The cluster's id; it stands in every answer.
    pub cluster_id: u64,
    /// The member's id.
    pub member_id: u64,
    /// The version that clients are told; they choose features by it.
    pub version: String,
    /// Largest request, in bytes, beyond which a connection is not read (etcd allows 512 KiB over its limit too).
    pub message_bytes_max: usize,
    /// How often watches that ask for it are told how far they are.
    pub progress_interval: Duration,
    /// Most connections at a time; further ones wait to be accepted.
    pub connections_max: usize,
    /// Most streams of a connection at a time.
    pub streams_max: u32,
    /// How long a client has for its TLS handshake.
    pub handshake_timeout: Duration,
    /// Serve TLS; give it a client verifier for mutual TLS. The protocol `h2` is set by the server.
    pub tls: Option<Arc<rustls::ServerConfig>>,
}

impl Default for ServerOptions {
    fn default() -> Self {
        Self {
            name: "default".into(),
            client_urls: Vec::new(),
            cluster_id: 0x1c9_0000,
            member_id: 0x1c9_0001,
            version: "3.5.21".into(),
            message_bytes_max: icp_core::base::limits::OBJECT_BYTES_MAX + 512 * 1024,
            progress_interval: Duration::from_secs(600),
            connections_max: 4_096,
            streams_max: 10_000,
            handshake_timeout: Duration::from_secs(5),
            tls: None,
        }
    }
}

/// What all connections share.
struct Server {
    storage: Arc<dyn Storage>,
    options: ServerOptions,
}

/// Serves `storage` until the future is dropped; all connections end with it.
///
/// # Errors
/// Never because of a client; only if the listener is broken for good.
pub async fn serve(
    listener: TcpListener,
    storage: Arc<dyn Storage>,
    options: ServerOptions,
) -> io::Result<()> {
    let tls = options.tls.as_ref().map(|config| {
        let mut config = rustls::ServerConfig::clone(config);
        config.alpn_protocols = alloc::vec![b"h2".to_vec()];
        TlsAcceptor::from(Arc::new(config))
    });
    let slots = Arc::new(Semaphore::new(options.connections_max));
    let server = Arc::new(Server { storage, options });
    // Dropped with this future, which ends all tasks in it.
    let mut tasks = JoinSet::new();
    tasks.spawn(progress(server.clone()));
    let mut failures = 0;
    loop {
        while tasks.try_join_next().is_some() {}
        let Ok(slot) = slots.clone().acquire_owned().await else { return Ok(()) };
        let (stream, _) = match listener.accept().await {
            Ok(accepted) => accepted,
            // A connection that broke before it was accepted, or no file descriptors for a moment.
            Err(e) if failures > 100 => return Err(e),
            Err(_) => {
                failures += 1;
                tokio::time::sleep(Duration::from_millis(50)).await;
                continue;
            }
        };
        failures = 0;
        // Answers are small and awaited: none waits for more bytes to share a packet.
        let _ = stream.set_nodelay(true);
        let (server, tls) = (server.clone(), tls.clone());
        tasks.spawn(async move {
            let _slot = slot;
            match tls {
                None => connection(server, stream).await,
                Some(tls) => {
                    let handshake =
                        tokio::time::timeout(server.options.handshake_timeout, tls.accept(stream));
                    if let Ok(Ok(stream)) = handshake.await {
                        connection(server, stream).await;
                    }
                }
            }
        });
    }
}

async fn progress(server: Arc<Server>) {
    loop {
        tokio::time::sleep(server.options.progress_interval).await;
        if server.storage.request_progress().await.is_err() {
            return;
        }
    }
}

async fn connection(server: Arc<Server>, stream: impl AsyncRead + AsyncWrite + Unpin + Send + 'static) {
    let streams_max = server.options.streams_max;
    let service = service_fn(move |request| {
        let server = server.clone();
        async move { Ok::<_, Infallible>(handle(server, request).await) }
    });
    // A client that breaks its connection off is no concern of the server.
    let _ = http2::Builder::new(TokioExecutor::new())
        .timer(TokioTimer::new())
        .max_concurrent_streams(streams_max)
        .keep_alive_interval(Some(Duration::from_secs(30)))
        .keep_alive_timeout(Duration::from_secs(20))
        .adaptive_window(true)
        .serve_connection(TokioIo::new(stream), service)
        .await;
}

async fn handle(server: Arc<Server>, request: Request<Incoming>) -> Response<GrpcBody> {
    let (parts, body) = request.into_parts();
    let mut messages = Messages::new(body, server.options.message_bytes_max);
    let path = parts.uri.path();
    let answer = match path {
        "/etcdserverpb.Watch/Watch" => return response(watch::serve(server, messages)),
        "/etcdserverpb.Lease/LeaseKeepAlive" => return response(calls::keep_alive(server, messages)),
        _ => calls::unary(&server, path, &mut messages).await,
    };
    match answer {
        Ok(body) => response(body),
        Err(status) => failed(&status),
    }
}

impl Server {
    fn header(&self, revision: i64) -> Option<pb::ResponseHeader> {
        Some(pb::ResponseHeader {
            cluster_id: self.options.cluster_id,
            member_id: self.options.member_id,
            revision,
            raft_term: 1,
        })
    }
}

fn unknown(path: &str) -> Status {
    Status::new(UNIMPLEMENTED, alloc::format!("{path} is not served"))
}
