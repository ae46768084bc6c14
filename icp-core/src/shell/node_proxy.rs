//! The way to kubelets and pods over the network: HTTP/1.1 with TLS, and connections that change their protocol.
//!
//! ```no_run
//! # use std::sync::Arc;
//! use icp_core::shell::node_proxy::{HttpNodeProxy, NodeProxyConfig};
//! # fn example(ca_pem: &str, apiserver: &icp_core::shell::pki::Identity) -> Result<(), icp_core::shell::tls::TlsError> {
//! let tls = icp_core::shell::tls::client(ca_pem, Some(apiserver), &["http/1.1"])?;
//! let nodes = Arc::new(HttpNodeProxy::new(NodeProxyConfig::new(Some(tls))));
//! // `ApiServer::builder(storage).nodes(nodes)`
//! # Ok(())
//! # }
//! ```

use alloc::boxed::Box;
use alloc::format;
use alloc::string::{String, ToString};
use alloc::sync::Arc;
use std::io;

use async_trait::async_trait;
use bytes::Bytes;
use futures_util::StreamExt as _;
use http::header::{
    CONNECTION, HOST, HeaderMap, HeaderName, HeaderValue, TE, TRAILER, TRANSFER_ENCODING, UPGRADE,
};
use http::{Method, Request, Response, StatusCode, Uri, Version};
use http_body_util::{BodyExt as _, Full};
use hyper::body::Incoming;
use hyper::client::conn::http1;
use hyper::upgrade::OnUpgrade;
use hyper_util::rt::TokioIo;
use rustls::ClientConfig;
use rustls_pki_types::ServerName;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpStream;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio_rustls::TlsConnector;

use super::tls;
use crate::api::{Status, reason};
use crate::base::Duration;
use crate::server::{Body, NodeProxy, ProxyTarget, failure};

/// How to reach kubelets and pods.
#[derive(Clone, Debug)]
pub struct NodeProxyConfig {
    /// TLS towards kubelets: the authority of their certificates and the API server's own client certificate, with
    /// `http/1.1` as the only protocol. `None` speaks plain HTTP.
    pub tls: Option<Arc<ClientConfig>>,
    /// How long connecting may take, TLS handshake included.
    pub connect: Duration,
    /// How long the answer may take to begin. Shorter than [`super::listener::Limits::request`], so that the client
    /// is told which side was slow.
    pub answer: Duration,
    /// Most requests and streams at once.
    pub streams_max: usize,
}

impl NodeProxyConfig {
    /// The usual limits.
    #[must_use]
    pub const fn new(tls: Option<Arc<ClientConfig>>) -> Self {
        Self { tls, connect: Duration::from_secs(10), answer: Duration::from_secs(50), streams_max: 2_048 }
    }
}

/// A [`NodeProxy`] that opens a connection for each request.
///
/// Certificates of kubelets are checked for the address that they are reached at. Those of pods and services are
/// not, as `kube-apiserver` does not check them either: their authority is not known.
#[derive(Clone)]
pub struct HttpNodeProxy {
    config: Arc<NodeProxyConfig>,
    unverified: Option<Arc<ClientConfig>>,
    permits: Arc<Semaphore>,
}

impl core::fmt::Debug for HttpNodeProxy {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        f.debug_struct("HttpNodeProxy")
            .field("free", &self.permits.available_permits())
            .finish_non_exhaustive()
    }
}

/// Why a target was not reached, in the words of Go's `net` package, which people know from `kubectl`.
#[derive(Debug)]
enum Failure {
    Dial(String),
    Request(String),
}

impl core::fmt::Display for Failure {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        let (Self::Dial(text) | Self::Request(text)) = self;
        f.write_str(text)
    }
}

fn dial_text(host: &str, port: u16, error: &io::Error) -> String {
    let why = match error.kind() {
        io::ErrorKind::ConnectionRefused => "connect: connection refused".to_string(),
        io::ErrorKind::HostUnreachable => "connect: no route to host".to_string(),
        io::ErrorKind::NetworkUnreachable => "connect: network is unreachable".to_string(),
        io::ErrorKind::TimedOut => "i/o timeout".to_string(),
        _ => error.to_string(),
    };
    format!("dial tcp {}: {why}", join(host, port))
}

fn join(host: &str, port: u16) -> String {
    if host.contains(':') { format!("[{host}]:{port}") } else { format!("{host}:{port}") }
}

trait Stream: AsyncRead + AsyncWrite + Unpin + Send {}
impl<T: AsyncRead + AsyncWrite + Unpin + Send> Stream for T {}

/// Headers that belong to one connection (RFC 9110, 7.6.1); `Connection` and `Upgrade` go on with an upgrade.
fn strip_hop_by_hop(headers: &mut HeaderMap, upgrade: bool) {
    for name in [TE, TRAILER, TRANSFER_ENCODING, HeaderName::from_static("keep-alive")] {
        headers.remove(name);
    }
    headers.remove("proxy-connection");
    if !upgrade {
        headers.remove(CONNECTION);
        headers.remove(UPGRADE);
    }
}

/// Whether a request wants to change the protocol of its connection.
fn wants_upgrade(headers: &HeaderMap) -> bool {
    let asks = |value: &HeaderValue| {
        value.to_str().is_ok_and(|v| v.split(',').any(|token| token.trim().eq_ignore_ascii_case("upgrade")))
    };
    headers.contains_key(UPGRADE) && headers.get_all(CONNECTION).iter().any(asks)
}

impl HttpNodeProxy {
    /// A proxy of this configuration.
    #[must_use]
    pub fn new(config: NodeProxyConfig) -> Self {
        let permits = Arc::new(Semaphore::new(config.streams_max));
        Self { config: Arc::new(config), unverified: tls::client_unverified(&["http/1.1"]).ok(), permits }
    }

    async fn connect(
        &self,
        host: &str,
        port: u16,
        tls: Option<Arc<ClientConfig>>,
    ) -> Result<Box<dyn Stream>, Failure> {
        let dial = |e: &io::Error| Failure::Dial(dial_text(host, port, e));
        let open = async {
            let stream = TcpStream::connect((host, port)).await.map_err(|e| dial(&e))?;
            stream.set_nodelay(true).map_err(|e| dial(&e))?;
            let Some(tls) = tls else { return Ok(Box::new(stream) as Box<dyn Stream>) };
            let name = ServerName::try_from(host.to_string())
                .map_err(|e| Failure::Dial(format!("tls: {host:?}: {e}")))?;
            let stream = TlsConnector::from(tls).connect(name, stream).await;
            stream
                .map(|s| Box::new(s) as Box<dyn Stream>)
                .map_err(|e| Failure::Dial(format!("tls: handshake with {}: {e}", join(host, port))))
        };
        tokio::time::timeout(self.config.connect, open)
            .await
            .unwrap_or_else(|_| Err(dial(&io::Error::from(io::ErrorKind::TimedOut))))
    }

    async fn exchange(
        &self,
        stream: Box<dyn Stream>,
        request: Request<Full<Bytes>>,
    ) -> Result<Response<Incoming>, Failure> {
        let broken = |e: hyper::Error| Failure::Request(e.to_string());
        let (mut send, connection) = http1::handshake(TokioIo::new(stream)).await.map_err(broken)?;
        // It lives as long as the answer's body, or becomes the upgraded stream.
        tokio::spawn(connection.with_upgrades());
        match tokio::time::timeout(self.config.answer, send.send_request(request)).await {
            Ok(answer) => answer.map_err(broken),
            Err(_) => Err(Failure::Request("net/http: timeout awaiting response headers".into())),
        }
    }

    fn permit(&self) -> Result<OwnedSemaphorePermit, Status> {
        self.permits.clone().try_acquire_owned().map_err(|_| {
            let max = self.config.streams_max;
            failure::too_many_requests(format!("{max} requests to nodes and pods are under way"), 1)
        })
    }
}

/// A request as it goes to the target: its own `Host`, HTTP/1.1, and no header of the client's connection.
fn outgoing(
    request: Request<Bytes>,
    host: &str,
    port: u16,
    upgrade: bool,
) -> Result<Request<Full<Bytes>>, Status> {
    let (mut parts, body) = request.into_parts();
    let path = parts.uri.path_and_query().map_or("/", |p| p.as_str()).to_string();
    parts.uri = path.parse::<Uri>().map_err(|e| failure::bad_request(e.to_string()))?;
    parts.version = Version::HTTP_11;
    parts.extensions = http::Extensions::new();
    strip_hop_by_hop(&mut parts.headers, upgrade);
    let authority =
        HeaderValue::from_str(&join(host, port)).map_err(|e| failure::bad_request(e.to_string()))?;
    parts.headers.insert(HOST, authority);
    Ok(Request::from_parts(parts, Full::new(body)))
}

/// What the client is told (`apimachinery/pkg/util/proxy`, `apiserver/pkg/registry/generic/rest`).
fn refusal(target: &ProxyTarget, method: &Method, url: &str, upgrade: bool, error: &Failure) -> Status {
    match (target, error) {
        (ProxyTarget::Address { .. }, _) => Status::failure(
            503,
            reason::SERVICE_UNAVAILABLE,
            format!("error trying to reach service: {error}"),
        ),
        (_, Failure::Dial(_)) if upgrade => {
            Status::failure(500, "", format!("error dialing backend: {error}"))
        }
        _ => {
            let method = method.as_str();
            let (first, rest) = method.split_at_checked(1).unwrap_or((method, ""));
            Status::failure(500, "", format!("{first}{} {url:?}: {error}", rest.to_lowercase()))
        }
    }
}

#[async_trait]
impl NodeProxy for HttpNodeProxy {
    async fn forward(
        &self,
        target: ProxyTarget,
        mut request: Request<Bytes>,
    ) -> Result<Response<Body>, Status> {
        let permit = self.permit()?;
        let (host, port, tls) = match &target {
            ProxyTarget::Kubelet { node, address, port } => match address {
                Some(address) => (address.clone(), *port, self.config.tls.clone()),
                None => {
                    return Err(failure::internal(format!(
                        "no preferred addresses found; known addresses: [] of node {node:?}"
                    )));
                }
            },
            ProxyTarget::Address { scheme, host, port, .. } => {
                let tls = match (scheme.as_str(), &self.unverified) {
                    ("https", None) => return Err(failure::internal("https is not to be had: no TLS")),
                    ("https", tls) => tls.clone(),
                    _ => None,
                };
                (host.clone(), *port, tls)
            }
        };
        let upgrade = wants_upgrade(request.headers());
        let client = request.extensions_mut().remove::<OnUpgrade>();
        if upgrade && client.is_none() {
            return Err(failure::bad_request("this connection cannot change its protocol"));
        }
        let scheme = if tls.is_some() { "https" } else { "http" };
        let url = format!("{scheme}://{}{}", join(&host, port), request.uri());
        let method = request.method().clone();
        let request = outgoing(request, &host, port, upgrade)?;
        let answer = async { self.exchange(self.connect(&host, port, tls).await?, request).await }.await;
        let mut answer = answer.map_err(|e| refusal(&target, &method, &url, upgrade, &e))?;
        if answer.status() == StatusCode::SWITCHING_PROTOCOLS {
            let Some(client) = client.filter(|_| upgrade) else {
                return Err(failure::internal(format!("{url}: an upgrade that was not asked for")));
            };
            let server = hyper::upgrade::on(&mut answer);
            tokio::spawn(splice(client, server, permit));
            let (parts, _) = answer.into_parts();
            return Ok(Response::from_parts(parts, Body::empty()));
        }
        let (mut parts, body) = answer.into_parts();
        strip_hop_by_hop(&mut parts.headers, false);
        let chunks =
            futures_util::stream::unfold((body.into_data_stream(), permit), |(mut body, permit)| async {
                let chunk = body.next().await?.ok()?;
                Some((chunk, (body, permit)))
            });
        Ok(Response::from_parts(parts, Body::stream(Box::pin(chunks))))
    }
}

/// Copies bytes both ways until both sides are done or one breaks.
async fn splice(client: OnUpgrade, server: OnUpgrade, _permit: OwnedSemaphorePermit) {
    let (Ok(client), Ok(server)) = tokio::join!(client, server) else { return };
    let (mut client, mut server) = (TokioIo::new(client), TokioIo::new(server));
    // A side that breaks is its own affair; both connections end here.
    let _ = tokio::io::copy_bidirectional(&mut client, &mut server).await;
}

#[cfg(test)]
mod tests;
