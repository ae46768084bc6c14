//! One JSON document to a server that is no API server, and its answer: webhooks of a component, such as the extenders of
//! a scheduler.

use alloc::format;
use alloc::string::{String, ToString};
use alloc::vec::Vec;
use core::convert::Infallible;

use bytes::Bytes;
use http::header::{CONTENT_TYPE, HOST, HeaderValue};
use http::{Method, Request, Uri};
use http_body_util::{BodyExt as _, Full, Limited};
use hyper::client::conn::http1;
use hyper_util::rt::TokioIo;
use tokio::net::TcpStream;

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
    match tokio::time::timeout(timeout, exchange(url, body)).await {
        Ok(answer) => answer.map_err(|e| format!("Post {url:?}: {e}")),
        Err(_) => Err(format!("Post {url:?}: no answer in {timeout:?}")),
    }
}

async fn exchange(url: &str, body: Vec<u8>) -> Result<(u16, Vec<u8>), String> {
    let text = |e: &dyn core::fmt::Display| e.to_string();
    let uri: Uri = url.parse().map_err(|e| text(&e))?;
    if uri.scheme_str() != Some("http") {
        return Err("the address does not begin with http://".into());
    }
    let authority = uri.authority().ok_or("the address names no host")?;
    let host = authority.host().trim_matches(['[', ']']);
    let stream =
        TcpStream::connect((host, authority.port_u16().unwrap_or(80))).await.map_err(|e| text(&e))?;
    stream.set_nodelay(true).map_err(|e| text(&e))?;
    let (mut send, connection) =
        http1::handshake::<_, Full<Bytes>>(TokioIo::new(stream)).await.map_err(|e| text(&e))?;
    let request = Request::builder()
        .method(Method::POST)
        .uri(uri.path_and_query().map_or("/", |p| p.as_str()))
        .header(HOST, authority.as_str())
        .header(CONTENT_TYPE, HeaderValue::from_static("application/json"))
        .body(Full::new(body.into()))
        .map_err(|e| text(&e))?;
    let answer = async {
        let answer = send.send_request(request).await.map_err(|e| text(&e))?;
        let code = answer.status().as_u16();
        let body = Limited::new(answer.into_body(), ANSWER_BYTES_MAX).collect().await;
        Ok((code, body.map_err(|e| text(&e))?.to_bytes().to_vec()))
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
