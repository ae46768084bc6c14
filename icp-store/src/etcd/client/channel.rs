//! One connection to one of several endpoints.
#![expect(clippy::disallowed_methods, reason = "a shell: a connection is driven by a task")]

use alloc::string::{String, ToString};
use alloc::sync::Arc;
use alloc::vec::Vec;
use core::fmt;
use core::sync::atomic::{AtomicUsize, Ordering};
use std::sync::PoisonError;

use bytes::Bytes;
use http::uri::{Authority, PathAndQuery, Scheme};
use http::{HeaderValue, Request, Uri};
use hyper::client::conn::http2::{Builder, SendRequest};
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use icp_core::storage::StorageError;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpStream;
use tokio::sync::{Mutex, mpsc, watch as signal};
use tokio_rustls::TlsConnector;

use super::{ClientOptions, invalid};
use crate::etcd::grpc::{GrpcBody, Messages, OK, Status, UNAVAILABLE, frame};
use crate::etcd::proto as pb;

/// What a server may send ahead of what is read: a large range in few round trips. Windows that adapt themselves cost a
/// ping for every few messages.
const STREAM_WINDOW_BYTES: u32 = 4 << 20;
const CONNECTION_WINDOW_BYTES: u32 = 16 << 20;
/// Calls that were dropped and whose answers may still arrive.
const RESET_STREAMS_MAX: usize = 10_000;

/// What a watch's request stream is fed through.
pub(super) type Requests = mpsc::Sender<Result<Bytes, Status>>;

struct Endpoint {
    /// `scheme://host:port`.
    base: String,
    authority: Authority,
    host: String,
    port: u16,
    tls: bool,
}

pub(super) struct Channel {
    endpoints: Vec<Endpoint>,
    options: ClientOptions,
    connections: Vec<Connection>,
    /// The connection for the next call.
    next: AtomicUsize,
    /// The endpoint that worked last, or the next to try.
    endpoint: AtomicUsize,
    /// The watches that want to be told how far they are.
    progress: std::sync::Mutex<Vec<Requests>>,
    /// Each open watch holds a receiver.
    pub(super) watches: signal::Sender<()>,
}

/// The endpoint of a connection, and what sends on it.
type Sender = (usize, SendRequest<GrpcBody>);

#[derive(Default)]
struct Connection {
    open: std::sync::Mutex<Option<Sender>>,
    /// Held by the one who connects.
    connecting: Mutex<()>,
}

impl Connection {
    fn open(&self) -> Option<Sender> {
        let open = self.open.lock().unwrap_or_else(PoisonError::into_inner);
        open.as_ref().filter(|(_, sender)| !sender.is_closed()).cloned()
    }
}

impl fmt::Debug for Channel {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let endpoints: Vec<&str> = self.endpoints.iter().map(|e| e.base.as_str()).collect();
        f.debug_struct("Channel").field("endpoints", &endpoints).finish_non_exhaustive()
    }
}

impl Channel {
    pub(super) fn new(endpoints: &[impl AsRef<str>], options: ClientOptions) -> Result<Self, StorageError> {
        let parsed: Vec<Endpoint> = endpoints.iter().map(|e| parse(e.as_ref())).collect::<Result<_, _>>()?;
        if parsed.is_empty() {
            return Err(invalid("none is given"));
        }
        if options.tls.is_none()
            && let Some(secure) = parsed.iter().find(|e| e.tls)
        {
            return Err(invalid(alloc::format!("{} needs TLS settings", secure.base)));
        }
        let connections = (0..options.connections.max(1)).map(|_| Connection::default()).collect();
        let (next, endpoint) = (AtomicUsize::new(0), AtomicUsize::new(0));
        let progress = std::sync::Mutex::default();
        let watches = signal::Sender::new(());
        Ok(Self { endpoints: parsed, options, connections, next, endpoint, progress, watches })
    }

    pub(super) fn options(&self) -> &ClientOptions {
        &self.options
    }

    /// Registers a watch for progress requests.
    pub(super) fn register(&self, requests: Requests) {
        let mut progress = self.progress.lock().unwrap_or_else(PoisonError::into_inner);
        progress.retain(|r| !r.is_closed());
        progress.push(requests);
    }

    pub(super) fn request_progress(&self) {
        use pb::watch_request::RequestUnion;
        let request = pb::WatchRequest { request_union: Some(RequestUnion::Progress(pb::Empty {})) };
        let message = frame(&request);
        let mut progress = self.progress.lock().unwrap_or_else(PoisonError::into_inner);
        progress.retain(|r| !r.is_closed());
        for requests in progress.iter() {
            // A full queue holds a progress request already.
            let _ = requests.try_send(Ok(message.clone()));
        }
    }

    pub(super) fn watches(&self) -> usize {
        self.watches.receiver_count()
    }

    /// Sends a request and returns the messages of its response.
    pub(super) async fn send(&self, path: &'static str, body: GrpcBody) -> Result<Messages, Status> {
        let unavailable = |e: &dyn fmt::Display| Status::new(UNAVAILABLE, alloc::format!("{path}: {e}"));
        let (endpoint, mut sender) = self.sender().await?;
        let mut request = Request::new(body);
        *request.method_mut() = http::Method::POST;
        *request.uri_mut() = self.uri(endpoint, path).map_err(|e| unavailable(&e))?;
        *request.version_mut() = http::Version::HTTP_2;
        request.headers_mut().insert("content-type", HeaderValue::from_static("application/grpc"));
        request.headers_mut().insert("te", HeaderValue::from_static("trailers"));
        let response = sender.send_request(request).await.map_err(|e| unavailable(&e))?;
        let (parts, body) = response.into_parts();
        if let Some(status) = Status::read(&parts.headers)
            && status.code != OK
        {
            return Err(status);
        }
        if parts.status != http::StatusCode::OK {
            return Err(unavailable(&parts.status));
        }
        Ok(Messages::new(body, self.options.message_bytes_max))
    }

    fn uri(&self, endpoint: usize, path: &'static str) -> Result<Uri, http::Error> {
        let mut uri = Uri::builder().path_and_query(PathAndQuery::from_static(path));
        if let Some(endpoint) = self.endpoints.get(endpoint) {
            let scheme = if endpoint.tls { Scheme::HTTPS } else { Scheme::HTTP };
            uri = uri.scheme(scheme).authority(endpoint.authority.clone());
        }
        uri.build()
    }

    /// What sends on one of the connections, in turn; it is connected first if it must be.
    async fn sender(&self) -> Result<Sender, Status> {
        let turn = self.next.fetch_add(1, Ordering::Relaxed) % self.connections.len().max(1);
        let Some(connection) = self.connections.get(turn) else {
            return Err(Status::new(UNAVAILABLE, "there is no connection"));
        };
        if let Some(sender) = connection.open() {
            return Ok(sender);
        }
        let _connecting = connection.connecting.lock().await;
        if let Some(sender) = connection.open() {
            return Ok(sender);
        }
        let mut detail = String::new();
        for _ in 0..self.endpoints.len() {
            let at = self.endpoint.load(Ordering::Relaxed) % self.endpoints.len();
            let Some(endpoint) = self.endpoints.get(at) else { continue };
            match tokio::time::timeout(self.options.connect_timeout, self.connect(endpoint)).await {
                Ok(Ok(sender)) => {
                    let mut open = connection.open.lock().unwrap_or_else(PoisonError::into_inner);
                    *open = Some((at, sender.clone()));
                    return Ok((at, sender));
                }
                Ok(Err(e)) => detail = alloc::format!("{}: {e}", endpoint.base),
                Err(_) => detail = alloc::format!("{}: no connection in time", endpoint.base),
            }
            // The endpoint that works is kept; one that does not is left, unless another connection has done so.
            let _ = self.endpoint.compare_exchange(at, at + 1, Ordering::Relaxed, Ordering::Relaxed);
        }
        Err(Status::new(UNAVAILABLE, detail))
    }

    async fn connect(&self, endpoint: &Endpoint) -> Result<SendRequest<GrpcBody>, String> {
        let stream = TcpStream::connect((endpoint.host.as_str(), endpoint.port)).await;
        let stream = stream.map_err(|e| e.to_string())?;
        // Requests are small and awaited.
        let _ = stream.set_nodelay(true);
        match &self.options.tls {
            Some(config) if endpoint.tls => {
                let mut config = rustls::ClientConfig::clone(config);
                config.alpn_protocols = alloc::vec![b"h2".to_vec()];
                let name = rustls::pki_types::ServerName::try_from(endpoint.host.clone());
                let name = name.map_err(|e| e.to_string())?;
                let tls = TlsConnector::from(Arc::new(config)).connect(name, stream).await;
                self.handshake(tls.map_err(|e| e.to_string())?).await
            }
            _ => self.handshake(stream).await,
        }
    }

    async fn handshake(
        &self,
        stream: impl AsyncRead + AsyncWrite + Unpin + Send + 'static,
    ) -> Result<SendRequest<GrpcBody>, String> {
        let (sender, connection) = Builder::new(TokioExecutor::new())
            .timer(TokioTimer::new())
            .keep_alive_interval(Some(self.options.keep_alive_interval))
            .keep_alive_timeout(self.options.keep_alive_interval)
            .initial_stream_window_size(STREAM_WINDOW_BYTES)
            .initial_connection_window_size(CONNECTION_WINDOW_BYTES)
            .max_concurrent_reset_streams(RESET_STREAMS_MAX)
            // Answers that come long after their call was dropped: the server is slow, not hostile.
            .max_local_error_reset_streams(None)
            .handshake(TokioIo::new(stream))
            .await
            .map_err(|e| e.to_string())?;
        // It ends when the connection breaks or when no sender is left; both are seen by the sender.
        tokio::spawn(connection);
        Ok(sender)
    }
}

/// The status of a response that ended without the message that was awaited.
pub(super) fn ended(messages: &Messages) -> Status {
    match messages.status() {
        Some(status) if status.code != OK => status,
        _ => Status::new(UNAVAILABLE, "the response ended early"),
    }
}

fn parse(endpoint: &str) -> Result<Endpoint, StorageError> {
    let uri: Uri = endpoint.parse().map_err(|e| invalid(alloc::format!("{endpoint:?}: {e}")))?;
    let tls = match uri.scheme_str() {
        Some("http") => false,
        Some("https") => true,
        _ => return Err(invalid(alloc::format!("{endpoint:?} must begin with http:// or https://"))),
    };
    let host = uri.host().ok_or_else(|| invalid(alloc::format!("{endpoint:?} names no host")))?;
    let port = uri.port_u16().unwrap_or(2379);
    let authority = alloc::format!("{host}:{port}");
    let base = alloc::format!("{}://{authority}", if tls { "https" } else { "http" });
    let authority: Authority = authority.parse().map_err(|e| invalid(alloc::format!("{endpoint:?}: {e}")))?;
    let host = host.trim_start_matches('[').trim_end_matches(']').to_string();
    Ok(Endpoint { base, authority, host, port, tls })
}
