//! The server.
#![expect(clippy::disallowed_methods, reason = "a shell: it owns the tasks of its connections and streams")]

mod calls;
mod cluster;
mod endpoints;
mod lease;
mod maintenance;
mod metrics;
mod process;
mod route;
mod watch;

#[cfg(test)]
mod tests;

use alloc::string::String;
use alloc::sync::Arc;
use alloc::vec::Vec;
use core::convert::Infallible;
use std::io;

use http::{Request, Response, Version};
use hyper::body::Incoming;
use hyper::server::conn::{http1, http2};
use hyper::service::service_fn;
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use icp_core::base::Duration;
use icp_core::storage::Storage;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Semaphore;
use tokio::task::JoinSet;
use tokio_rustls::TlsAcceptor;

use super::SyncTimes;
use super::convert;
use super::grpc::{GrpcBody, Messages, OK, Status, failed, response};
use super::proto as pb;
use metrics::Metrics;
use route::Method;

/// Settings of a server.
#[derive(Clone, Debug)]
pub struct ServerOptions {
    /// The member's name.
    pub name: String,
    /// Where clients are told to connect.
    pub client_urls: Vec<String>,
    /// What is told as the address for other members; nobody connects there.
    pub peer_urls: Vec<String>,
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
    /// How long the syncs of the store's log take, if it is known: see [`SyncTimes::files`].
    pub sync_times: Option<SyncTimes>,
    /// Serve TLS; give it a client verifier for mutual TLS. The protocol `h2` is set by the server.
    pub tls: Option<Arc<rustls::ServerConfig>>,
}

impl Default for ServerOptions {
    fn default() -> Self {
        Self {
            name: "default".into(),
            client_urls: Vec::new(),
            peer_urls: Vec::new(),
            cluster_id: 0x1c9_0000,
            member_id: 0x1c9_0001,
            version: "3.5.21".into(),
            message_bytes_max: icp_core::base::limits::OBJECT_BYTES_MAX + 512 * 1024,
            progress_interval: Duration::from_secs(600),
            connections_max: 4_096,
            streams_max: 10_000,
            handshake_timeout: Duration::from_secs(5),
            sync_times: None,
            tls: None,
        }
    }
}

/// What all connections share.
struct Server {
    storage: Arc<dyn Storage>,
    options: ServerOptions,
    metrics: Arc<Metrics>,
}

type Answer = Result<GrpcBody, Status>;

/// Serves `storage` until the future is dropped; all connections end with it.
///
/// gRPC is served over HTTP/2; `/health`, `/version` and `/metrics` over HTTP/1.1 and HTTP/2 on the same port, and by
/// [`serve_with_metrics`] on one of their own.
///
/// # Errors
/// Never because of a client; only if the listener is broken for good.
pub async fn serve(
    listener: TcpListener,
    storage: Arc<dyn Storage>,
    options: ServerOptions,
) -> io::Result<()> {
    serve_with_metrics(listener, None, storage, options).await
}

/// As [`serve`], and serves `/health`, `/version` and `/metrics` on a second listener, without TLS.
///
/// # Errors
/// As [`serve`].
pub async fn serve_with_metrics(
    listener: TcpListener,
    metrics_listener: Option<TcpListener>,
    storage: Arc<dyn Storage>,
    options: ServerOptions,
) -> io::Result<()> {
    let tls = options.tls.as_ref().map(|config| {
        let mut config = rustls::ServerConfig::clone(config);
        config.alpn_protocols = alloc::vec![b"h2".to_vec(), b"http/1.1".to_vec()];
        TlsAcceptor::from(Arc::new(config))
    });
    let metrics = Arc::new(Metrics::new());
    metrics.leases_before.add(storage.leases().await.map_or(0, |leases| leases.len() as u64));
    let server = Arc::new(Server { storage, options, metrics });
    let clients = accept(&server, listener, tls, handle_any);
    let scrapers = async {
        let Some(listener) = metrics_listener else { return core::future::pending().await };
        let handle = |server, request| async move { endpoints::handle(&server, &request).await };
        accept(&server, listener, None, handle).await
    };
    tokio::select! {
        done = clients => done,
        done = scrapers => done,
        () = progress(&server) => Ok(()),
    }
}

/// Accepts connections and answers their requests.
async fn accept<F, R>(
    server: &Arc<Server>,
    listener: TcpListener,
    tls: Option<TlsAcceptor>,
    handle: F,
) -> io::Result<()>
where
    F: Fn(Arc<Server>, Request<Incoming>) -> R + Copy + Send + Sync + 'static,
    R: Future<Output = Response<GrpcBody>> + Send + 'static,
{
    let slots = Arc::new(Semaphore::new(server.options.connections_max));
    // Dropped with this future, which ends all tasks in it.
    let mut tasks = JoinSet::new();
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
            let metrics = server.metrics.clone();
            let _open = metrics.connections.enter();
            let timeout = server.options.handshake_timeout;
            match tls {
                None => {
                    if let Ok(Ok(http2)) = tokio::time::timeout(timeout, speaks_http2(&stream)).await {
                        connection(server, stream, http2, handle).await;
                    }
                }
                Some(tls) => {
                    if let Ok(Ok(stream)) = tokio::time::timeout(timeout, tls.accept(stream)).await {
                        let http2 = stream.get_ref().1.alpn_protocol() != Some(b"http/1.1");
                        connection(server, stream, http2, handle).await;
                    }
                }
            }
        });
    }
}

/// Whether the connection begins with the preface of HTTP/2; waits for the bytes that tell it.
async fn speaks_http2(stream: &TcpStream) -> io::Result<bool> {
    const PREFACE: &[u8] = b"PRI * HTTP/2.0";
    let mut begin = [0; PREFACE.len()];
    loop {
        let bytes = stream.peek(&mut begin).await?;
        let begun = begin.get(..bytes).unwrap_or_default();
        if begun.is_empty() || !PREFACE.starts_with(begun) {
            return Ok(false);
        }
        if begun.len() == PREFACE.len() {
            return Ok(true);
        }
        // The rest is on its way; a peek does not wait for it.
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}

/// Tells the watches that want to know how far they are; it never ends.
async fn progress(server: &Server) {
    loop {
        tokio::time::sleep(server.options.progress_interval).await;
        // A backend that cannot tell has watches that are never told.
        let _ = server.storage.request_progress().await;
    }
}

async fn connection<F, R>(
    server: Arc<Server>,
    stream: impl AsyncRead + AsyncWrite + Unpin + Send + 'static,
    http2: bool,
    handle: F,
) where
    F: Fn(Arc<Server>, Request<Incoming>) -> R + Copy + Send + Sync + 'static,
    R: Future<Output = Response<GrpcBody>> + Send + 'static,
{
    let (streams_max, timeout) = (server.options.streams_max, server.options.handshake_timeout);
    let service = service_fn(move |request| {
        let answer = handle(server.clone(), request);
        async move { Ok::<_, Infallible>(answer.await) }
    });
    // A client that breaks its connection off is no concern of the server.
    if !http2 {
        let mut http1 = http1::Builder::new();
        http1.timer(TokioTimer::new()).header_read_timeout(timeout).max_buf_size(HTTP1_BYTES_MAX);
        let _ = http1.serve_connection(TokioIo::new(stream), service).await;
        return;
    }
    let _ = http2::Builder::new(TokioExecutor::new())
        .timer(TokioTimer::new())
        .max_concurrent_streams(streams_max)
        .keep_alive_interval(Some(Duration::from_secs(30)))
        .keep_alive_timeout(Duration::from_secs(20))
        .initial_stream_window_size(STREAM_WINDOW_BYTES)
        .initial_connection_window_size(CONNECTION_WINDOW_BYTES)
        .serve_connection(TokioIo::new(stream), service)
        .await;
}

/// What a client may send ahead of what is read. Windows that adapt themselves cost a ping for every few messages.
const STREAM_WINDOW_BYTES: u32 = 1 << 20;
const CONNECTION_WINDOW_BYTES: u32 = 8 << 20;
/// What a request over HTTP/1.1 may take: it has no body.
const HTTP1_BYTES_MAX: usize = 16 * 1024;

async fn handle_any(server: Arc<Server>, request: Request<Incoming>) -> Response<GrpcBody> {
    let content_type = request.headers().get(http::header::CONTENT_TYPE).map(|v| v.as_bytes());
    if request.version() != Version::HTTP_2
        || !content_type.is_some_and(|t| t.starts_with(b"application/grpc"))
    {
        return endpoints::handle(&server, &request).await;
    }
    let (parts, body) = request.into_parts();
    let encoding = parts.headers.get("grpc-encoding").and_then(|v| v.to_str().ok()).unwrap_or_default();
    let mut messages = Messages::new(body, server.options.message_bytes_max).encoded(encoding);
    let path = parts.uri.path();
    let Some(method) = Method::find(path) else { return failed(&route::unknown(path)) };
    let call = server.metrics.call(method);
    match method {
        Method::Watch => return response(watch::serve(server, messages, call)),
        Method::LeaseKeepAlive => return response(lease::keep_alive(server, messages, call)),
        Method::Snapshot => return response(maintenance::snapshot(server, messages, call)),
        _ => {}
    }
    let answer = calls::unary(&server, method, &mut messages).await;
    server.metrics.received_bytes.add(messages.taken_bytes());
    match answer {
        Ok(body) => {
            server.metrics.sent_bytes.add(body.message_bytes());
            call.end(OK);
            response(body)
        }
        Err(status) => {
            call.end(status.code);
            failed(&status)
        }
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

    /// The header with the store's present revision.
    async fn current_header(&self) -> Result<Option<pb::ResponseHeader>, Status> {
        let status = self.storage.status().await.map_err(|e| convert::status(&e))?;
        Ok(self.header(status.revision))
    }

    async fn header_only(&self) -> Answer {
        Ok(GrpcBody::unary(&pb::HeaderResponse { header: self.current_header().await? }))
    }
}
