//! One JSON document to a server that is no API server, and its answer: webhooks of a component, such as the extenders of
//! a scheduler.

use alloc::format;
use alloc::string::{String, ToString};
use alloc::sync::Arc;
use alloc::vec::Vec;
use core::convert::Infallible;

use bytes::Bytes;
use http::header::{CONTENT_TYPE, HOST, HeaderValue};
use http::{Method, Request, Uri};
use http_body_util::{BodyExt as _, Full, Limited};
use hyper::client::conn::http1;
use hyper_util::rt::TokioIo;
use rustls::ClientConfig;
use rustls_pki_types::ServerName;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;

use crate::base::Duration;

/// Largest answer that is read into memory, in bytes.
pub const ANSWER_BYTES_MAX: usize = 64 * 1024 * 1024;

/// Posts a JSON document over plain HTTP/1.1, on a connection of its own; answers with the status code and the body.
///
/// ```no_run
/// # async fn example() -> Result<(), String> {
/// use core::time::Duration;
/// let url = "http://127.0.0.1:8888/filter";
/// let (code, body) = icp_core::shell::post::json(url, b"{}".to_vec(), Duration::from_secs(5)).await?;
/// # Ok(())
/// # }
/// ```
///
/// # Errors
/// If the address is none of plain HTTP, the server is not reached, no whole answer comes in time, or the answer is larger
/// than [`ANSWER_BYTES_MAX`].
pub async fn json(url: &str, body: Vec<u8>, timeout: Duration) -> Result<(u16, Vec<u8>), String> {
    json_over(url, body, timeout, None).await
}

/// How a server is reached whose address begins with `https://`.
#[derive(Clone)]
pub struct Tls {
    /// Whom to trust and what to show ([`super::tls::client`]).
    pub config: Arc<ClientConfig>,
    /// The name that the server's certificate must carry; `None`: the host of the address.
    pub server_name: Option<String>,
}

impl core::fmt::Debug for Tls {
    /// Leaves keys out.
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        f.debug_struct("Tls").field("server_name", &self.server_name).finish_non_exhaustive()
    }
}

/// The same, over TLS if the address begins with `https://`.
///
/// # Errors
/// As [`json`], and if the address asks for TLS and `tls` says nothing of it, or the two do not agree on it.
pub async fn json_over(
    url: &str,
    body: Vec<u8>,
    timeout: Duration,
    tls: Option<&Tls>,
) -> Result<(u16, Vec<u8>), String> {
    match tokio::time::timeout(timeout, exchange(url, body, tls)).await {
        Ok(answer) => answer.map_err(|e| format!("Post {url:?}: {e}")),
        Err(_) => Err(format!("Post {url:?}: no answer in {timeout:?}")),
    }
}

fn text(e: impl core::fmt::Display) -> String {
    e.to_string()
}

async fn exchange(url: &str, body: Vec<u8>, tls: Option<&Tls>) -> Result<(u16, Vec<u8>), String> {
    let uri: Uri = url.parse().map_err(text)?;
    let tls = match (uri.scheme_str(), tls) {
        (Some("http"), _) => None,
        (Some("https"), Some(tls)) => Some(tls),
        (Some("https"), None) => return Err("nothing is known of TLS to this server".into()),
        _ => return Err("the address does not begin with http:// or https://".into()),
    };
    let authority = uri.authority().ok_or("the address names no host")?;
    let host = authority.host().trim_matches(['[', ']']);
    let port = authority.port_u16().unwrap_or(if tls.is_some() { 443 } else { 80 });
    let stream = TcpStream::connect((host, port)).await.map_err(text)?;
    stream.set_nodelay(true).map_err(text)?;
    let request = Request::builder()
        .method(Method::POST)
        .uri(uri.path_and_query().map_or("/", |p| p.as_str()))
        .header(HOST, authority.as_str())
        .header(CONTENT_TYPE, HeaderValue::from_static("application/json"))
        .body(Full::new(body.into()))
        .map_err(text)?;
    let Some(tls) = tls else { return converse(stream, request).await };
    let name = tls.server_name.as_deref().unwrap_or(host).to_string();
    let name = ServerName::try_from(name).map_err(text)?;
    let stream = TlsConnector::from(Arc::clone(&tls.config)).connect(name, stream).await.map_err(text)?;
    converse(stream, request).await
}

async fn converse(
    stream: impl AsyncRead + AsyncWrite + Unpin,
    request: Request<Full<Bytes>>,
) -> Result<(u16, Vec<u8>), String> {
    let (mut send, connection) =
        http1::handshake::<_, Full<Bytes>>(TokioIo::new(stream)).await.map_err(text)?;
    let answer = async {
        let answer = send.send_request(request).await.map_err(text)?;
        let code = answer.status().as_u16();
        let body = Limited::new(answer.into_body(), ANSWER_BYTES_MAX).collect().await;
        Ok((code, body.map_err(text)?.to_bytes().to_vec()))
    };
    // The connection lives as long as the exchange, and ends with it when nobody waits any more.
    let connection = async {
        drop(connection.await);
        core::future::pending::<Infallible>().await
    };
    tokio::select! {
        answer = answer => answer,
        never = connection => match never {},
    }
}
