//! The server as a value and as a service.

use alloc::boxed::Box;
use alloc::collections::BTreeMap;
use alloc::string::{String, ToString};
use alloc::sync::Arc;
use core::convert::Infallible;
use core::fmt;
use core::pin::Pin;
use core::sync::atomic::{AtomicBool, Ordering};
use core::task::{Context as TaskContext, Poll};
use std::sync::{Mutex, MutexGuard, OnceLock, PoisonError};

use bytes::Bytes;
use http::header::{CACHE_CONTROL, CONTENT_TYPE, RETRY_AFTER};
use http::{HeaderValue, Request, Response, StatusCode};
use http_body_util::{BodyExt as _, LengthLimitError, Limited};

use super::auth::token::TokenKey;
use super::cacher::Hub;
use super::{Body, Clock, FixedClock, NoNodes, NodeProxy, Options, failure, negotiate};
use crate::api::Status;
use crate::base::{Entropy, Rng, SeededEntropy, Time};
use crate::storage::{Revision, Storage};

/// What the server remembers of a namespace, so that a create needs no look at it; every use is checked by the
/// transaction.
#[derive(Clone, Copy, Debug)]
pub(super) struct NamespaceState {
    pub(super) revision: Revision,
    pub(super) terminating: bool,
}

pub(super) struct Inner {
    pub(super) storage: Arc<dyn Storage>,
    pub(super) clock: Arc<dyn Clock>,
    pub(super) nodes: Arc<dyn NodeProxy>,
    pub(super) options: Options,
    pub(super) rng: Mutex<Rng>,
    pub(super) entropy: Mutex<Box<dyn Entropy>>,
    pub(super) hubs: Mutex<BTreeMap<String, Arc<Hub>>>,
    pub(super) namespaces: Mutex<BTreeMap<String, NamespaceState>>,
    pub(super) token_key: OnceLock<Option<TokenKey>>,
    pub(super) booted: AtomicBool,
}

/// A Kubernetes API server in this process: cheap to clone, cheap to make, ready at once.
///
/// It is a `tower_service::Service<http::Request<B>>` that never fails: every failure is a response. Two servers
/// over one store behave as two API servers over one etcd do.
#[derive(Clone)]
pub struct ApiServer(pub(super) Arc<Inner>);

impl fmt::Debug for ApiServer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ApiServer").field("options", &self.0.options).finish_non_exhaustive()
    }
}

/// Makes an [`ApiServer`].
pub struct Builder {
    storage: Arc<dyn Storage>,
    clock: Arc<dyn Clock>,
    nodes: Arc<dyn NodeProxy>,
    options: Options,
    rng: Rng,
    entropy: Option<Box<dyn Entropy>>,
}

impl fmt::Debug for Builder {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Builder").field("options", &self.options).finish_non_exhaustive()
    }
}

impl Builder {
    /// The clock; without, time stands still at the epoch and no watch times out.
    #[must_use]
    pub fn clock(mut self, clock: impl Clock + 'static) -> Self {
        self.clock = Arc::new(clock);
        self
    }

    /// Where uids and generated names come from.
    #[must_use]
    pub fn rng(mut self, rng: Rng) -> Self {
        self.rng = rng;
        self
    }

    /// Where secrets come from; without, from the seed of [`Builder::rng`], which is for tests alone.
    #[must_use]
    pub fn entropy(mut self, entropy: impl Entropy + 'static) -> Self {
        self.entropy = Some(Box::new(entropy));
        self
    }

    /// The way to kubelets and pods.
    #[must_use]
    pub fn nodes(mut self, nodes: Arc<dyn NodeProxy>) -> Self {
        self.nodes = nodes;
        self
    }

    /// The options.
    #[must_use]
    pub fn options(mut self, options: Options) -> Self {
        self.options = options;
        self
    }

    /// The server. It touches the store at its first request.
    #[must_use]
    pub fn build(self) -> ApiServer {
        let entropy = self.entropy.unwrap_or_else(|| Box::new(SeededEntropy::new(self.rng.child("entropy"))));
        ApiServer(Arc::new(Inner {
            storage: self.storage,
            clock: self.clock,
            nodes: self.nodes,
            booted: AtomicBool::new(!self.options.bootstrap),
            options: self.options,
            rng: Mutex::new(self.rng.child("apiserver")),
            entropy: Mutex::new(entropy),
            hubs: Mutex::default(),
            namespaces: Mutex::default(),
            token_key: OnceLock::new(),
        }))
    }
}

pub(super) fn lock<T: ?Sized>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl ApiServer {
    /// A server over `storage`.
    #[must_use]
    pub fn builder(storage: Arc<dyn Storage>) -> Builder {
        Builder {
            storage,
            clock: Arc::new(FixedClock(Time::ZERO)),
            nodes: Arc::new(NoNodes),
            options: Options::default(),
            rng: Rng::new(0),
            entropy: None,
        }
    }

    /// The options it was built with.
    #[must_use]
    pub fn options(&self) -> &Options {
        &self.0.options
    }

    /// The time of the server's clock.
    #[must_use]
    pub fn now(&self) -> Time {
        self.0.clock.now()
    }

    pub(super) fn storage(&self) -> &dyn Storage {
        &*self.0.storage
    }

    pub(super) fn uuid(&self) -> String {
        lock(&self.0.rng).uuid()
    }

    /// A name for a token that nobody can guess.
    pub(super) fn token_id(&self) -> String {
        let mut seed = [0; 16];
        lock(&self.0.entropy).fill(&mut seed);
        let [a, b] = [0, 8]
            .map(|at| seed.iter().skip(at).take(8).fold(0_u64, |word, byte| (word << 8) | u64::from(*byte)));
        alloc::format!("{a:016x}{b:016x}")
    }

    /// The key that signs service account tokens; made at first use.
    pub(super) fn token_key(&self) -> Option<&TokenKey> {
        let make = || {
            let document = match &self.0.options.service_account_key {
                Some(document) => document.clone(),
                None => TokenKey::generate().ok()?,
            };
            TokenKey::from_pkcs8(&document).ok()
        };
        self.0.token_key.get_or_init(make).as_ref()
    }

    /// The watch cache of a storage prefix.
    pub(super) fn hub(&self, prefix: &str) -> Arc<Hub> {
        let mut hubs = lock(&self.0.hubs);
        if let Some(hub) = hubs.get(prefix) {
            return hub.clone();
        }
        let storage = self.0.storage.clone();
        let hub = Hub::new(storage, prefix.to_string().into_bytes(), self.0.options.cacher);
        hubs.insert(prefix.to_string(), hub.clone());
        hub
    }

    /// Answers one request. The future and the body of the response are driven by whoever polls them.
    pub async fn handle<B>(&self, request: Request<B>) -> Response<Body>
    where
        B: http_body::Body<Data = Bytes>,
        B::Error: Into<Box<dyn core::error::Error + Send + Sync>>,
    {
        let (parts, body) = request.into_parts();
        let body = match Limited::new(body, self.0.options.body_bytes_max).collect().await {
            Ok(collected) => collected.to_bytes(),
            Err(e) if e.is::<LengthLimitError>() => {
                return respond_status(&failure::too_large(self.0.options.body_bytes_max));
            }
            Err(e) => return respond_status(&failure::bad_request(alloc::format!("reading the body: {e}"))),
        };
        match self.serve(Request::from_parts(parts, body)).await {
            Ok(response) => response,
            Err(status) => respond_status(&status),
        }
    }

    async fn serve(&self, request: Request<Bytes>) -> Result<Response<Body>, Status> {
        let request = negotiate::from_protobuf(request)?;
        self.boot().await?;
        self.route(request).await
    }

    /// Writes what a new cluster has, before the first request is answered.
    pub(super) async fn boot(&self) -> Result<(), Status> {
        if !self.0.booted.load(Ordering::Acquire) {
            self.bootstrap().await?;
            self.0.booted.store(true, Ordering::Release);
        }
        Ok(())
    }
}

/// A failure as a response.
pub(super) fn respond_status(status: &Status) -> Response<Body> {
    let body = serde_json::to_vec(status).unwrap_or_default();
    let mut response = Response::new(Body::from(body));
    *response.status_mut() = StatusCode::from_u16(status.code).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
    let headers = response.headers_mut();
    headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
    headers.insert(CACHE_CONTROL, HeaderValue::from_static("no-cache, private"));
    if let Some(after) = status.details.as_ref().map(|d| d.retry_after_seconds).filter(|s| *s > 0) {
        headers.insert(RETRY_AFTER, HeaderValue::from(after));
    }
    response
}

/// The future of a response.
pub type ResponseFuture = Pin<Box<dyn Future<Output = Result<Response<Body>, Infallible>> + Send>>;

impl<B> tower_service::Service<Request<B>> for ApiServer
where
    B: http_body::Body<Data = Bytes> + Send + 'static,
    B::Error: Into<Box<dyn core::error::Error + Send + Sync>>,
{
    type Response = Response<Body>;
    type Error = Infallible;
    type Future = ResponseFuture;

    fn poll_ready(&mut self, _cx: &mut TaskContext<'_>) -> Poll<Result<(), Infallible>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: Request<B>) -> ResponseFuture {
        let server = self.clone();
        Box::pin(async move { Ok(server.handle(request).await) })
    }
}
