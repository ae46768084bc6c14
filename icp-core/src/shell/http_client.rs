//! A [`Client`] over HTTP/2, with TLS, several endpoints and reconnection.

use alloc::boxed::Box;
use alloc::format;
use alloc::string::{String, ToString};
use alloc::sync::Arc;
use alloc::vec::Vec;

use async_trait::async_trait;
use bytes::Bytes;
use http::header::{AUTHORIZATION, HOST, HeaderValue, USER_AGENT};
use http::{Request, Response, Uri};
use http_body_util::{BodyExt as _, Full, Limited};
use hyper::body::Incoming;
use hyper::client::conn::http2::{self, SendRequest};
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use rustls::ClientConfig;
use rustls_pki_types::ServerName;
use tokio::net::TcpStream;
use tokio::sync::Mutex;
use tokio_rustls::TlsConnector;

use crate::base::Duration;
use crate::client::{ApiError, ApiRequest, Client, EventStream, Reply};
use crate::server::client::wire;

/// How long connecting to one endpoint may take.
const CONNECT: Duration = Duration::from_secs(3);
/// How long a request may take.
const REQUEST: Duration = Duration::from_secs(70);
/// After how much silence the server is asked whether it lives, and how long it may take to say so.
const KEEP_ALIVE: (Duration, Duration) = (Duration::from_secs(5), Duration::from_secs(5));
/// Largest answer that is read into memory, in bytes.
const ANSWER_BYTES_MAX: usize = 512 * 1024 * 1024;

/// How to reach the API servers.
#[derive(Clone)]
pub struct HttpConfig {
    /// `host:port` of each API server, tried in turn. An address may be virtual.
    pub endpoints: Vec<String>,
    /// TLS; `None` for plain HTTP/2.
    pub tls: Option<Arc<ClientConfig>>,
    /// The name that the server's certificate must carry; `None`: the endpoint's host.
    pub server_name: Option<String>,
    /// A bearer token.
    pub token: Option<String>,
    /// Who calls, for managed fields: the first part up to `/` is the field manager.
    pub user_agent: String,
}

impl core::fmt::Debug for HttpConfig {
    /// Leaves the token out.
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        f.debug_struct("HttpConfig")
            .field("endpoints", &self.endpoints)
            .field("server_name", &self.server_name)
            .field("user_agent", &self.user_agent)
            .finish_non_exhaustive()
    }
}

struct State {
    connection: Option<SendRequest<Full<Bytes>>>,
    next: usize,
}

/// A client that holds one HTTP/2 connection to one of the API servers, and opens another when it breaks.
///
/// A write whose connection breaks is not repeated: [`ApiError::Unreachable`] says that its outcome is not known.
#[derive(Clone)]
pub struct HttpClient {
    config: Arc<HttpConfig>,
    state: Arc<Mutex<State>>,
}

impl core::fmt::Debug for HttpClient {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        f.debug_struct("HttpClient").field("endpoints", &self.config.endpoints).finish_non_exhaustive()
    }
}

fn unreachable_because(e: impl core::fmt::Display) -> ApiError {
    ApiError::Unreachable(e.to_string())
}

impl HttpClient {
    /// A client; it connects at its first request.
    #[must_use]
    pub fn new(config: HttpConfig) -> Self {
        let state = State { connection: None, next: 0 };
        Self { config: Arc::new(config), state: Arc::new(Mutex::new(state)) }
    }

    async fn connect(&self, endpoint: &str) -> Result<SendRequest<Full<Bytes>>, ApiError> {
        let stream = TcpStream::connect(endpoint).await.map_err(unreachable_because)?;
        stream.set_nodelay(true).map_err(unreachable_because)?;
        let mut builder = http2::Builder::new(TokioExecutor::new());
        builder
            .timer(TokioTimer::new())
            .keep_alive_interval(KEEP_ALIVE.0)
            .keep_alive_timeout(KEEP_ALIVE.1)
            .keep_alive_while_idle(true)
            .initial_stream_window_size(4 * 1024 * 1024)
            .initial_connection_window_size(16 * 1024 * 1024);
        let Some(tls) = &self.config.tls else {
            let (send, connection) =
                builder.handshake(TokioIo::new(stream)).await.map_err(unreachable_because)?;
            tokio::spawn(connection);
            return Ok(send);
        };
        let host = match &self.config.server_name {
            Some(name) => name.clone(),
            None => endpoint
                .rsplit_once(':')
                .map_or(endpoint, |(host, _)| host)
                .trim_matches(['[', ']'])
                .to_string(),
        };
        let name = ServerName::try_from(host).map_err(unreachable_because)?;
        let stream =
            TlsConnector::from(tls.clone()).connect(name, stream).await.map_err(unreachable_because)?;
        let (send, connection) =
            builder.handshake(TokioIo::new(stream)).await.map_err(unreachable_because)?;
        tokio::spawn(connection);
        Ok(send)
    }

    /// The connection that lives, or a new one to the first endpoint that answers.
    async fn connection(&self) -> Result<SendRequest<Full<Bytes>>, ApiError> {
        let mut state = self.state.lock().await;
        if let Some(live) = state.connection.as_ref().filter(|c| !c.is_closed()) {
            return Ok(live.clone());
        }
        let mut last = ApiError::Unreachable("no endpoints are configured".into());
        for _ in 0..self.config.endpoints.len() {
            let index = state.next % self.config.endpoints.len();
            let Some(endpoint) = self.config.endpoints.get(index) else { break };
            match tokio::time::timeout(CONNECT, self.connect(endpoint)).await {
                Ok(Ok(connection)) => {
                    state.connection = Some(connection.clone());
                    return Ok(connection);
                }
                Ok(Err(e)) => last = e,
                Err(_) => last = ApiError::Unreachable(format!("{endpoint}: connecting timed out")),
            }
            state.next = state.next.wrapping_add(1);
        }
        Err(last)
    }

    async fn send(&self, request: Request<Bytes>) -> Result<Response<Incoming>, ApiError> {
        let mut request = request.map(Full::new);
        let scheme = if self.config.tls.is_some() { "https" } else { "http" };
        let host = self.config.server_name.as_deref().unwrap_or("kubernetes");
        let path = request.uri().path_and_query().map_or("/", |p| p.as_str()).to_string();
        *request.uri_mut() = Uri::builder()
            .scheme(scheme)
            .authority(host)
            .path_and_query(path)
            .build()
            .map_err(|e| ApiError::Decode(e.to_string()))?;
        let headers = request.headers_mut();
        headers.remove(HOST);
        if let Ok(agent) = HeaderValue::from_str(&self.config.user_agent) {
            headers.insert(USER_AGENT, agent);
        }
        if let Some(token) = &self.config.token {
            let value = HeaderValue::from_str(&format!("Bearer {token}"))
                .map_err(|_| ApiError::Decode("the token cannot stand in a header".into()))?;
            headers.insert(AUTHORIZATION, value);
        }
        let mut connection = self.connection().await?;
        connection.ready().await.map_err(unreachable_because)?;
        let answer = tokio::time::timeout(REQUEST, connection.send_request(request)).await;
        answer
            .map_err(|_| ApiError::Unreachable("the request timed out".into()))?
            .map_err(unreachable_because)
    }

    /// Sends a request of any path and gives the answer with its whole body.
    ///
    /// # Errors
    /// [`ApiError::Unreachable`] if no server answers.
    pub async fn raw(&self, request: Request<Bytes>) -> Result<(http::StatusCode, Bytes), ApiError> {
        let response = self.send(request).await?;
        Ok((response.status(), whole(response.into_body()).await?))
    }
}

/// Reads a body to its end, within the limits of an answer.
async fn whole(body: Incoming) -> Result<Bytes, ApiError> {
    let body = Limited::new(body, ANSWER_BYTES_MAX).collect();
    let body = tokio::time::timeout(REQUEST, body).await;
    let body = body.map_err(|_| ApiError::Unreachable("the answer timed out".into()))?;
    Ok(body.map_err(unreachable_because)?.to_bytes())
}

#[async_trait]
impl Client for HttpClient {
    async fn request(&self, request: ApiRequest) -> Result<Reply, ApiError> {
        let (status, body) = self.raw(wire::encode(&request)?).await?;
        wire::decode(&request, status.as_u16(), &body)
    }

    async fn watch(&self, request: ApiRequest) -> Result<EventStream, ApiError> {
        let response = self.send(wire::encode(&request)?).await?;
        if !response.status().is_success() {
            let code = response.status().as_u16();
            return Err(wire::decode_failure(code, &whole(response.into_body()).await?));
        }
        let chunks = futures_util::stream::unfold(response.into_body(), |mut body| async move {
            loop {
                match body.frame().await? {
                    Ok(frame) => match frame.into_data() {
                        Ok(data) => return Some((Ok(Vec::from(data)), body)),
                        Err(_) => continue,
                    },
                    Err(e) => return Some((Err(unreachable_because(e)), body)),
                }
            }
        });
        Ok(wire::events(chunks))
    }
}
