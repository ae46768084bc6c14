//! A handler of requests, such as the API server, behind a TCP listener: HTTP/1.1 and HTTP/2, with TLS and client
//! certificates.

use alloc::boxed::Box;
use alloc::string::{String, ToString};
use alloc::sync::Arc;
use alloc::vec::Vec;
use core::convert::Infallible;
use std::io;

use async_trait::async_trait;
use http::{Request, Response};
use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use hyper_util::server::conn::auto;
use rustls::ServerConfig;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{Semaphore, watch};
use tokio_rustls::TlsAcceptor;

use crate::api::{Status, reason};
use crate::base::Duration;
use crate::server::{ApiServer, AuthnMode, Body, UserInfo};

/// Limits of a listener.
#[derive(Clone, Copy, Debug)]
pub struct Limits {
    /// Most connections at once; who comes later waits to be accepted.
    pub connections_max: usize,
    /// How long a TLS handshake may take.
    pub handshake: Duration,
    /// How long the header of a request may take (HTTP/1.1).
    pub header: Duration,
    /// How long an answer may take to begin; watches begin at once.
    pub request: Duration,
    /// Most requests at once on one connection (HTTP/2).
    pub streams_max: u32,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            connections_max: 4_096,
            handshake: Duration::from_secs(5),
            header: Duration::from_secs(10),
            request: Duration::from_secs(60),
            streams_max: 250,
        }
    }
}

/// Largest header of a request, in bytes.
const HEADER_BYTES_MAX: u32 = 64 * 1024;
/// Most fields of a header.
const HEADER_FIELDS_MAX: usize = 100;

/// The user that a client certificate names (`x509.CommonNameUserConversion`).
#[must_use]
pub fn user_of_certificate(der: &[u8]) -> Option<UserInfo> {
    let (_, certificate) = x509_parser::parse_x509_certificate(der).ok()?;
    let subject = certificate.subject();
    let name = subject.iter_common_name().next()?.as_str().ok()?;
    let groups: Vec<&str> = subject.iter_organization().filter_map(|o| o.as_str().ok()).collect();
    (!name.is_empty()).then(|| UserInfo::new(name, &groups))
}

/// What answers the requests of a listener.
#[async_trait]
pub trait Handler: Clone + Send + Sync + 'static {
    /// Answers one request. `user` is whom the client certificate names; the request's extensions hold the
    /// `hyper::upgrade::OnUpgrade` of its connection.
    async fn answer(&self, request: Request<Incoming>, user: Option<UserInfo>) -> Response<Body>;
}

#[async_trait]
impl Handler for ApiServer {
    async fn answer(&self, mut request: Request<Incoming>, user: Option<UserInfo>) -> Response<Body> {
        request.extensions_mut().insert(AuthnMode::Network);
        if let Some(user) = user {
            request.extensions_mut().insert(user);
        }
        self.handle(request).await
    }
}

/// Serves `server` on `listener` until `stop` becomes true or its sender is dropped; then open connections finish
/// their requests. Without `tls` the connection is plain, and every request is anonymous unless it carries a token.
///
/// # Errors
/// If accepting fails for good.
pub async fn serve(
    listener: TcpListener,
    server: impl Handler,
    tls: Option<Arc<ServerConfig>>,
    limits: Limits,
    mut stop: watch::Receiver<bool>,
) -> io::Result<()> {
    let permits = Arc::new(Semaphore::new(limits.connections_max));
    let acceptor = tls.map(TlsAcceptor::from);
    loop {
        let Ok(permit) = permits.clone().acquire_owned().await else { return Ok(()) };
        let (stream, _) = tokio::select! {
            () = stopped(&mut stop) => return Ok(()),
            accepted = listener.accept() => match accepted {
                Ok(accepted) => accepted,
                // The peer went away, or files ran out for a moment: the listener lives on.
                Err(e) if is_passing(&e) => {
                    tokio::time::sleep(Duration::from_millis(20)).await;
                    continue;
                }
                Err(e) => return Err(e),
            },
        };
        let (server, acceptor, stop) = (server.clone(), acceptor.clone(), stop.clone());
        tokio::spawn(async move {
            // A connection that breaks is the peer's affair; the next one is served.
            let _ = connection(stream, server, acceptor, limits, stop).await;
            drop(permit);
        });
    }
}

/// Ends when the value is true or its sender is gone.
async fn stopped(stop: &mut watch::Receiver<bool>) {
    drop(stop.wait_for(|on| *on).await);
}

fn is_passing(error: &io::Error) -> bool {
    use io::ErrorKind::{ConnectionAborted, ConnectionReset, Interrupted};
    // EMFILE and ENFILE: too many open files.
    matches!(error.kind(), ConnectionAborted | ConnectionReset | Interrupted)
        || matches!(error.raw_os_error(), Some(23 | 24))
}

type BoxError = Box<dyn core::error::Error + Send + Sync>;

async fn connection(
    stream: TcpStream,
    server: impl Handler,
    acceptor: Option<TlsAcceptor>,
    limits: Limits,
    stop: watch::Receiver<bool>,
) -> Result<(), BoxError> {
    stream.set_nodelay(true)?;
    let Some(acceptor) = acceptor else { return http(stream, server, None, limits, stop).await };
    let stream = tokio::time::timeout(limits.handshake, acceptor.accept(stream)).await??;
    let (_, session) = stream.get_ref();
    let user = session.peer_certificates().and_then(|chain| user_of_certificate(chain.first()?));
    http(stream, server, user, limits, stop).await
}

async fn http(
    stream: impl AsyncRead + AsyncWrite + Unpin + Send + 'static,
    server: impl Handler,
    user: Option<UserInfo>,
    limits: Limits,
    mut stop: watch::Receiver<bool>,
) -> Result<(), BoxError> {
    let service = service_fn(move |request: Request<Incoming>| {
        let (server, user) = (server.clone(), user.clone());
        async move { Ok::<_, Infallible>(answer(server, request, user, limits.request).await) }
    });
    let mut builder = auto::Builder::new(TokioExecutor::new());
    builder
        .http1()
        .timer(TokioTimer::new())
        .header_read_timeout(limits.header)
        .max_headers(HEADER_FIELDS_MAX)
        .max_buf_size(HEADER_BYTES_MAX as usize);
    builder
        .http2()
        .timer(TokioTimer::new())
        .max_concurrent_streams(limits.streams_max)
        .max_header_list_size(HEADER_BYTES_MAX)
        .keep_alive_interval(Duration::from_secs(30))
        .keep_alive_timeout(Duration::from_secs(15));
    let connection = builder.serve_connection_with_upgrades(TokioIo::new(stream), service);
    tokio::pin!(connection);
    tokio::select! {
        done = connection.as_mut() => return done,
        () = stopped(&mut stop) => connection.as_mut().graceful_shutdown(),
    }
    // Watches have no end of their own: after a while the connection is cut.
    tokio::time::timeout(Duration::from_secs(2), connection).await.unwrap_or(Ok(()))
}

async fn answer(
    server: impl Handler,
    request: Request<Incoming>,
    user: Option<UserInfo>,
    timeout: Duration,
) -> Response<Body> {
    match tokio::time::timeout(timeout, server.answer(request, user)).await {
        Ok(response) => response,
        Err(_) => {
            let status = Status::failure(
                504,
                reason::TIMEOUT,
                "Timeout: request did not complete within the allotted timeout",
            );
            let mut response = Response::new(Body::from(serde_json::to_vec(&status).unwrap_or_default()));
            *response.status_mut() = http::StatusCode::GATEWAY_TIMEOUT;
            response.headers_mut().insert("content-type", http::HeaderValue::from_static("application/json"));
            response
        }
    }
}

/// The names that the serving certificate of an API server needs besides its own addresses: those of the
/// `kubernetes` service.
#[must_use]
pub fn service_names(cluster_domain: &str) -> Vec<String> {
    let svc = "kubernetes.default.svc".to_string();
    let full = alloc::format!("{svc}.{cluster_domain}");
    ["kubernetes".to_string(), "kubernetes.default".to_string(), svc, full, "localhost".to_string()].to_vec()
}
