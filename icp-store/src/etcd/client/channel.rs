//! One connection to one of several endpoints.
#![expect(clippy::disallowed_methods, reason = "a shell: a connection is driven by a task")]

use alloc::string::{String, ToString};
use alloc::sync::Arc;
use alloc::vec::Vec;
use core::fmt;

use bytes::Bytes;
use http::{HeaderValue, Request, Uri};
use hyper::client::conn::http2::{Builder, SendRequest};
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use icp_core::storage::StorageError;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpStream;
use tokio::sync::{Mutex, mpsc};
use tokio_rustls::TlsConnector;

use super::{ClientOptions, invalid};
use crate::etcd::grpc::{GrpcBody, Messages, OK, Status, UNAVAILABLE, frame};
use crate::etcd::proto as pb;

/// What a watch's request stream is fed through.
pub(super) type Requests = mpsc::Sender<Result<Bytes, Status>>;

struct Endpoint {
    /// `scheme://host:port`.
    base: String,
    host: String,
    port: u16,
    tls: bool,
}

pub(super) struct Channel {
    endpoints: Vec<Endpoint>,
    options: ClientOptions,
    connection: Mutex<Connection>,
    /// The watches that want to be told how far they are.
    progress: std::sync::Mutex<Vec<Requests>>,
}

#[derive(Default)]
struct Connection {
    sender: Option<(usize, SendRequest<GrpcBody>)>,
    next: usize,
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
        let (connection, progress) = (Mutex::default(), std::sync::Mutex::default());
        Ok(Self { endpoints: parsed, options, connection, progress })
    }

    pub(super) fn options(&self) -> &ClientOptions {
        &self.options
    }

    /// Registers a watch for progress requests.
    pub(super) fn register(&self, requests: Requests) {
        let mut progress = self.progress.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
        progress.retain(|r| !r.is_closed());
        progress.push(requests);
    }

    pub(super) fn request_progress(&self) {
        use pb::watch_request::RequestUnion;
        let request = pb::WatchRequest { request_union: Some(RequestUnion::Progress(pb::Empty {})) };
        let message = frame(&request);
        let mut progress = self.progress.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
        progress.retain(|r| !r.is_closed());
        for requests in progress.iter() {
            // A full queue holds a progress request already.
            let _ = requests.try_send(Ok(message.clone()));
        }
    }

    pub(super) fn watches(&self) -> usize {
        let progress = self.progress.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
        progress.iter().filter(|r| !r.is_closed()).count()
    }

    /// Sends a request and returns the messages of its response.
    pub(super) async fn send(&self, path: &'static str, body: GrpcBody) -> Result<Messages, Status> {
        let unavailable = |e: &dyn fmt::Display| Status::new(UNAVAILABLE, alloc::format!("{path}: {e}"));
        let (endpoint, mut sender) = self.sender().await?;
        let base = self.endpoints.get(endpoint).map_or("", |e| e.base.as_str());
        let mut request = Request::new(body);
        *request.method_mut() = http::Method::POST;
        *request.uri_mut() = alloc::format!("{base}{path}").parse().map_err(|e| unavailable(&e))?;
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

    async fn sender(&self) -> Result<(usize, SendRequest<GrpcBody>), Status> {
        let mut connection = self.connection.lock().await;
        if let Some((endpoint, sender)) = &connection.sender
            && !sender.is_closed()
        {
            return Ok((*endpoint, sender.clone()));
        }
        connection.sender = None;
        let mut detail = String::new();
        for _ in 0..self.endpoints.len() {
            let at = connection.next % self.endpoints.len();
            connection.next = at + 1;
            let Some(endpoint) = self.endpoints.get(at) else { continue };
            match tokio::time::timeout(self.options.connect_timeout, self.connect(endpoint)).await {
                Ok(Ok(sender)) => {
                    // The endpoint that works is kept.
                    connection.next = at;
                    connection.sender = Some((at, sender.clone()));
                    return Ok((at, sender));
                }
                Ok(Err(e)) => detail = alloc::format!("{}: {e}", endpoint.base),
                Err(_) => detail = alloc::format!("{}: no connection in time", endpoint.base),
            }
        }
        connection.next += 1;
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
            .adaptive_window(true)
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
    let base = alloc::format!("{}://{host}:{port}", if tls { "https" } else { "http" });
    let host = host.trim_start_matches('[').trim_end_matches(']').to_string();
    Ok(Endpoint { base, host, port, tls })
}
