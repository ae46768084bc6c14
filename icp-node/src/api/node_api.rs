//! Answers the requests of the node's HTTP API.
#![expect(clippy::disallowed_methods, reason = "a shell: it starts a task for each upgraded connection")]

use alloc::format;
use alloc::string::{String, ToString};
use alloc::sync::Arc;
use alloc::vec::Vec;
use core::sync::atomic::{AtomicU64, Ordering};

use bytes::Bytes;
use futures_util::StreamExt as _;
use http::header::{CONNECTION, CONTENT_TYPE, HeaderMap, HeaderValue, UPGRADE};
use http::{Method, Request, Response, StatusCode};
use hyper::upgrade::OnUpgrade;
use hyper_util::rt::TokioIo;
use icp_core::server::{Body, Clock as _, Query};
use icp_core::shell::SystemClock;
use serde_json::json;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use super::channel::Protocol;
use super::request::{Route, Target, exec_request, log_options};
use super::view::{NodeView, PodView, Standing};
use super::websocket::accept_key;
use super::{metrics, port_forward, session};
use crate::runtime::{
    CallId, ExecRequest, NodeUsage, Outcome, PodUid, Runtime, RuntimeCall, RuntimeError, RuntimeOp,
};

/// Most streams (exec, attach, port-forward) at once.
const STREAMS_MAX: usize = 1_024;
/// Set in the ids of calls that the API makes; a pod's machine counts from 1, the agent from `1 << 63`.
const API_CALL: u64 = 1 << 62;

struct Inner {
    view: Arc<dyn NodeView>,
    runtime: Arc<dyn Runtime>,
    streams: Arc<Semaphore>,
    calls: AtomicU64,
}

/// The HTTP API of a node (`kubelet`, port 10250): cheap to clone.
///
/// It answers requests of any transport. Who calls it has authenticated the client: on a socket that is
/// [`super::Guard`], in one process with the API server there is nothing to check.
#[derive(Clone)]
pub struct NodeApi(Arc<Inner>);

impl core::fmt::Debug for NodeApi {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        f.debug_struct("NodeApi").field("streams_free", &self.0.streams.available_permits()).finish()
    }
}

pub(super) fn text(code: StatusCode, text: impl Into<Vec<u8>>) -> Response<Body> {
    let mut response = Response::new(Body::from(text.into()));
    *response.status_mut() = code;
    response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static("text/plain; charset=utf-8"));
    response
}

fn json_response(value: &serde_json::Value) -> Response<Body> {
    let mut response = text(StatusCode::OK, serde_json::to_vec(value).unwrap_or_default());
    response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
    response
}

/// The key of a WebSocket handshake, if the request is one (RFC 6455, 4.2.1).
fn websocket_key(headers: &HeaderMap) -> Option<&str> {
    let is = |name: &str, word: &str| {
        headers.get(name).and_then(|v| v.to_str().ok()).is_some_and(|v| v.eq_ignore_ascii_case(word))
    };
    if !is("upgrade", "websocket") || !is("sec-websocket-version", "13") {
        return None;
    }
    headers.get("sec-websocket-key")?.to_str().ok()
}

/// The protocols that a client offers.
fn offered(headers: &HeaderMap) -> String {
    let all: Vec<&str> =
        headers.get_all("sec-websocket-protocol").iter().filter_map(|v| v.to_str().ok()).collect();
    all.join(",")
}

/// A handshake that was checked and can be accepted.
struct Handshake {
    upgrade: OnUpgrade,
    permit: OwnedSemaphorePermit,
    response: Response<Body>,
}

impl NodeApi {
    /// The API of the node whose pods `view` tells and `runtime` runs.
    #[must_use]
    pub fn new(view: Arc<dyn NodeView>, runtime: Arc<dyn Runtime>) -> Self {
        let streams = Arc::new(Semaphore::new(STREAMS_MAX));
        Self(Arc::new(Inner { view, runtime, streams, calls: AtomicU64::new(API_CALL) }))
    }

    /// Answers one request. For a request that upgrades its connection, the extensions hold the connection's
    /// [`OnUpgrade`].
    pub async fn handle(&self, mut request: Request<Bytes>) -> Response<Body> {
        let Some(route) = Route::parse(request.uri().path()) else {
            return text(StatusCode::NOT_FOUND, "404 page not found\n");
        };
        let query = Query::parse(request.uri().query().unwrap_or(""));
        if !matches!(*request.method(), Method::GET | Method::HEAD | Method::POST) {
            return text(StatusCode::METHOD_NOT_ALLOWED, "Method Not Allowed\n");
        }
        let answer = match route {
            Route::Health => Ok(text(StatusCode::OK, "ok")),
            Route::Pods => Ok(self.pods().await),
            Route::Metrics => Ok(text(StatusCode::OK, metrics::text(&self.0.view.counts().await))),
            Route::Summary => self.summary().await,
            Route::Logs(target) => self.logs(&target, &query, &mut request).await,
            Route::Exec(target) => match exec_request(&query, true) {
                Ok(exec) => self.exec(&target, exec, false, &mut request).await,
                Err(e) => Err(text(StatusCode::BAD_REQUEST, e)),
            },
            Route::Attach(target) => match exec_request(&query, false) {
                Ok(exec) => self.exec(&target, exec, true, &mut request).await,
                Err(e) => Err(text(StatusCode::BAD_REQUEST, e)),
            },
            Route::PortForward(target) => self.port_forward(&target, &mut request).await,
        };
        answer.unwrap_or_else(|refusal| refusal)
    }

    async fn pods(&self) -> Response<Body> {
        let pods = self.0.view.pods().await;
        let items: Vec<_> = pods.iter().filter_map(|p| serde_json::to_value(&**p).ok()).collect();
        json_response(&json!({ "kind": "PodList", "apiVersion": "v1", "metadata": {}, "items": items }))
    }

    async fn summary(&self) -> Result<Response<Body>, Response<Body>> {
        let id = CallId(self.0.calls.fetch_add(1, Ordering::Relaxed));
        let call = RuntimeCall { id, pod: PodUid::from(""), generation: 0, op: RuntimeOp::Usage };
        let usage = match self.0.runtime.perform(call).await {
            Ok(Outcome::Usage(usage)) => usage,
            Ok(_) | Err(RuntimeError::Unsupported { .. }) => NodeUsage::default(),
            Err(e) => return Err(text(StatusCode::INTERNAL_SERVER_ERROR, e.to_string())),
        };
        let (counts, pods) = (self.0.view.counts().await, self.0.view.pods().await);
        Ok(json_response(&metrics::summary(SystemClock.now(), &counts.node, &usage, &pods)))
    }

    async fn pod(&self, target: &Target) -> Result<PodView, Response<Body>> {
        let pod = self.0.view.pod(&target.namespace, &target.pod).await;
        pod.ok_or_else(|| text(StatusCode::NOT_FOUND, "pod does not exist"))
    }

    async fn logs(
        &self,
        target: &Target,
        query: &Query,
        request: &mut Request<Bytes>,
    ) -> Result<Response<Body>, Response<Body>> {
        let refuse = |why: String| text(StatusCode::BAD_REQUEST, why);
        let mut options = log_options(query, SystemClock.now()).map_err(refuse)?;
        let pod = self.pod(target).await?;
        pod.check_log(&target.container, options.previous).map_err(refuse)?;
        let waiting =
            pod.container(&target.container).is_some_and(|c| matches!(c.standing, Standing::Waiting(_)));
        // Of a container that waits for its next attempt, the log is that of the last one, which has ended.
        options.follow &= !options.previous && !waiting;
        options.previous &= !waiting;
        let stream = self.0.runtime.logs(&pod.uid, &target.container, options).await;
        let stream = stream.map_err(|e| match e {
            RuntimeError::NotFound { .. } => refuse(e.to_string()),
            _ => text(StatusCode::INTERNAL_SERVER_ERROR, e.to_string()),
        })?;
        if websocket_key(request.headers()).is_some() {
            let names = offered(request.headers());
            let plain = names.is_empty() || names.split(',').any(|n| n.trim() == "binary.k8s.io");
            if !plain {
                return Err(refuse(format!("unable to upgrade: none of {names:?} is binary.k8s.io")));
            }
            let name = if names.is_empty() { "" } else { "binary.k8s.io" };
            let handshake = self.handshake(request, name)?;
            return Ok(handshake.accept(|io| session::send_stream(io, stream)));
        }
        // The status is out when an error comes: the log ends there.
        let chunks = stream.map_while_ok();
        let mut response = text(StatusCode::OK, Vec::new());
        *response.body_mut() = Body::stream(chunks);
        Ok(response)
    }

    async fn exec(
        &self,
        target: &Target,
        exec: ExecRequest,
        attach: bool,
        request: &mut Request<Bytes>,
    ) -> Result<Response<Body>, Response<Body>> {
        let pod = self.pod(target).await?;
        let container = &target.container;
        let missing =
            || text(StatusCode::INTERNAL_SERVER_ERROR, format!("container not found ({container:?})"));
        if pod.container(container).is_none_or(|c| c.standing != Standing::Running) {
            return Err(missing());
        }
        let names = offered(request.headers());
        let Some(protocol) = Protocol::choose(&names) else {
            let why =
                format!("unable to upgrade: none of the protocols {names:?} is one of {}", Protocol::ALL);
            return Err(text(StatusCode::FORBIDDEN, why));
        };
        let named = if names.is_empty() { "" } else { protocol.name() };
        let handshake = self.handshake(request, named)?;
        let (started, what) = if attach {
            (self.0.runtime.attach(&pod.uid, container, exec).await, "attaching to container")
        } else {
            (self.0.runtime.exec(&pod.uid, container, exec).await, "executing command in container")
        };
        match started {
            Ok(session) => Ok(handshake.accept(move |io| session::run(io, protocol, session, what))),
            Err(RuntimeError::NotFound { .. }) => Err(missing()),
            Err(error) => Ok(handshake.accept(move |io| session::refuse(io, protocol, error, what))),
        }
    }

    async fn port_forward(
        &self,
        target: &Target,
        request: &mut Request<Bytes>,
    ) -> Result<Response<Body>, Response<Body>> {
        let pod = self.pod(target).await?;
        let names = offered(request.headers());
        if !names.split(',').any(|n| n.trim() == port_forward::PROTOCOL) {
            let why =
                format!("unable to upgrade: none of the protocols {names:?} is {}", port_forward::PROTOCOL);
            return Err(text(StatusCode::FORBIDDEN, why));
        }
        let handshake = self.handshake(request, port_forward::PROTOCOL)?;
        let (runtime, uid) = (self.0.runtime.clone(), pod.uid);
        Ok(handshake.accept(move |io| port_forward::run(io, runtime, uid)))
    }

    /// Checks a WebSocket handshake and takes the connection out of the request.
    fn handshake(&self, request: &mut Request<Bytes>, protocol: &str) -> Result<Handshake, Response<Body>> {
        let refuse = |why: &str| text(StatusCode::BAD_REQUEST, format!("unable to upgrade: {why}"));
        let Some(key) = websocket_key(request.headers()).map(accept_key) else {
            return Err(refuse("this node streams over WebSocket (RFC 6455) alone, not over SPDY"));
        };
        let Some(upgrade) = request.extensions_mut().remove::<OnUpgrade>() else {
            return Err(refuse("this connection cannot change its protocol"));
        };
        let permit = self.0.streams.clone().try_acquire_owned().map_err(|_| {
            text(StatusCode::TOO_MANY_REQUESTS, format!("{STREAMS_MAX} streams are open on this node"))
        })?;
        let mut response = Response::new(Body::empty());
        *response.status_mut() = StatusCode::SWITCHING_PROTOCOLS;
        let headers = response.headers_mut();
        headers.insert(UPGRADE, HeaderValue::from_static("websocket"));
        headers.insert(CONNECTION, HeaderValue::from_static("Upgrade"));
        if let Ok(key) = HeaderValue::from_str(&key) {
            headers.insert("sec-websocket-accept", key);
        }
        if let Ok(protocol) = HeaderValue::from_str(protocol)
            && !protocol.is_empty()
        {
            headers.insert("sec-websocket-protocol", protocol);
        }
        Ok(Handshake { upgrade, permit, response })
    }
}

impl Handshake {
    /// The response, after which `run` has the connection.
    fn accept<F>(
        self,
        run: impl FnOnce(TokioIo<hyper::upgrade::Upgraded>) -> F + Send + 'static,
    ) -> Response<Body>
    where
        F: Future<Output = ()> + Send + 'static,
    {
        let Self { upgrade, permit, response } = self;
        tokio::spawn(async move {
            if let Ok(upgraded) = upgrade.await {
                run(TokioIo::new(upgraded)).await;
            }
            drop(permit);
        });
        response
    }
}

trait MapWhileOk {
    fn map_while_ok(self) -> icp_core::server::Chunks;
}

impl MapWhileOk for crate::runtime::ByteStream {
    fn map_while_ok(self) -> icp_core::server::Chunks {
        alloc::boxed::Box::pin(futures_util::stream::unfold(self, |mut stream| async {
            let chunk = stream.next().await?.ok()?;
            Some((chunk, stream))
        }))
    }
}
