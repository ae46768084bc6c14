//! Simulated nodes in one process with the API server: `kubectl logs` and `exec` without a socket.

use alloc::boxed::Box;
use alloc::collections::BTreeMap;
use alloc::format;
use alloc::string::{String, ToString};
use alloc::sync::Arc;
use alloc::vec::Vec;
use std::sync::{Mutex, OnceLock, PoisonError};

use async_trait::async_trait;
use bytes::Bytes;
use http::{Request, Response};
use icp_core::api::{Object, Status, reason};
use icp_core::client::{Client, ClientEffect};
use icp_core::server::{Body, NodeProxy, ProxyTarget};
use icp_core::shell::host::Host;
use tokio::sync::watch;

use super::ask::{Asked, Handle};
use super::sim_streams::{Look, LookAt, SimStreams};
use crate::agent::Kubelet;
use crate::api::NodeApi;
use crate::api::view::{NodeCounts, NodeView, PodView};
use crate::backend::memory::Fleet;
use crate::runtime::{
    ByteStream, Duplex, ExecRequest, ExecSession, LogOptions, NodeUsage, Outcome, PodUid, Runtime,
    RuntimeCall, RuntimeError, RuntimeEvents, RuntimeOp,
};

/// The way to the nodes of a [`Fleet`] in this process: cheap to clone. It is made before the fleet runs, because the
/// API server needs it and the fleet needs the API server.
///
/// ```no_run
/// # use std::sync::Arc;
/// use icp_core::server::{ApiServer, InProcessClient};
/// use icp_node::backend::memory::Fleet;
/// use icp_node::shell::SimNodes;
/// # async fn example(
/// #     storage: Arc<dyn icp_core::storage::Storage>, fleet: Fleet, stop: tokio::sync::watch::Receiver<bool>,
/// # ) {
/// let nodes = SimNodes::new();
/// let server = ApiServer::builder(storage).nodes(Arc::new(nodes.clone())).build();
/// nodes.run(fleet, Arc::new(InProcessClient::new(server)), stop).await;
/// # }
/// ```
#[derive(Clone, Debug, Default)]
pub struct SimNodes(Arc<Inner>);

#[derive(Debug, Default)]
struct Inner {
    fleet: OnceLock<Handle<Fleet>>,
    /// The API of each node that was asked, which counts the node's streams.
    apis: Mutex<BTreeMap<String, NodeApi>>,
}

impl SimNodes {
    /// No nodes: every request is refused until a fleet runs.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Runs a fleet until the value of `stop` becomes true or its sender is dropped. The nodes that are reached are
    /// those of the first fleet.
    pub async fn run(&self, fleet: Fleet, client: Arc<dyn Client>, stop: watch::Receiver<bool>) {
        let host = Host::new(Asked(fleet), client).stop_when(stop);
        // A second fleet runs as well, out of reach.
        let _ = self.0.fleet.set(Handle::new(host.mailbox()));
        host.run(|effect: ClientEffect, _| Some(effect)).await;
    }

    /// The fleet, once it runs: sends it events and asks it questions.
    #[must_use]
    pub fn fleet(&self) -> Option<&Handle<Fleet>> {
        self.0.fleet.get()
    }
}

#[async_trait]
impl NodeProxy for SimNodes {
    async fn forward(&self, target: ProxyTarget, request: Request<Bytes>) -> Result<Response<Body>, Status> {
        let unavailable = |why: String| Status::failure(503, reason::SERVICE_UNAVAILABLE, why);
        let (node, address, port) = match target {
            ProxyTarget::Kubelet { node, address, port } => (node, address, port),
            ProxyTarget::Address { host, port, .. } => {
                let dial = format!("dial tcp {host}:{port}: connect: no route to host");
                let why = format!("error trying to reach service: {dial}: simulated pods have no network");
                return Err(unavailable(why));
            }
        };
        let fleet = self.0.fleet.get().ok_or_else(|| unavailable("no simulated node runs yet".into()))?;
        let name = node.clone();
        let on = fleet.ask(move |_, fleet, _| fleet.node(&name).is_some()).await;
        if on != Some(true) {
            let host = format!("{}:{port}", address.unwrap_or(node.clone()));
            let dial = format!("dial tcp {host}: connect: no route to host");
            let why = format!(
                "Get \"https://{host}{}\": {dial}: simulated node {node} has no power",
                request.uri()
            );
            return Err(Status::failure(500, "", why));
        }
        let api = self
            .0
            .apis
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .entry(node)
            .or_insert_with_key(|name| {
                let node = Arc::new(Node { fleet: fleet.clone(), name: name.clone() });
                let streams = SimStreams(node.clone());
                NodeApi::new(node, Arc::new(NodeRuntime(streams)))
            })
            .clone();
        Ok(api.handle(request).await)
    }
}

/// One node of the fleet.
struct Node {
    fleet: Handle<Fleet>,
    name: String,
}

impl Node {
    async fn kubelet<T: Send + 'static>(
        &self,
        question: impl FnOnce(&Kubelet) -> T + Send + 'static,
    ) -> Option<T> {
        let name = self.name.clone();
        self.fleet.ask(move |_, fleet, _| Some(question(fleet.node(&name)?.kubelet()))).await.flatten()
    }
}

#[async_trait]
impl NodeView for Node {
    async fn pod(&self, namespace: &str, name: &str) -> Option<PodView> {
        let (namespace, name) = (namespace.to_string(), name.to_string());
        self.kubelet(move |kubelet| PodView::of(kubelet, &namespace, &name)).await.flatten()
    }

    async fn pods(&self) -> Vec<Arc<Object>> {
        self.kubelet(|kubelet| kubelet.pod_objects().cloned().collect()).await.unwrap_or_default()
    }

    async fn counts(&self) -> NodeCounts {
        self.kubelet(NodeCounts::of).await.unwrap_or_default()
    }
}

#[async_trait]
impl LookAt for Node {
    async fn look(&self, look: Look) {
        let name = self.name.clone();
        self.fleet.ask(move |now, fleet, _| look(now, fleet.node(&name).map(|n| n.runtime()))).await;
    }
}

/// The streams of a node of the fleet as a runtime. Calls are its machine's own affair: they are refused.
struct NodeRuntime(SimStreams);

#[async_trait]
impl Runtime for NodeRuntime {
    async fn perform(&self, call: RuntimeCall) -> Result<Outcome, RuntimeError> {
        match call.op {
            RuntimeOp::Usage => Ok(Outcome::Usage(NodeUsage::default())),
            _ => Err(RuntimeError::Unsupported { what: "calls to a simulated node from outside".into() }),
        }
    }

    fn events(&self) -> RuntimeEvents {
        Box::pin(futures_util::stream::empty())
    }

    async fn logs(
        &self,
        pod: &PodUid,
        container: &str,
        options: LogOptions,
    ) -> Result<ByteStream, RuntimeError> {
        self.0.logs(pod, container, options).await
    }

    async fn exec(
        &self,
        pod: &PodUid,
        container: &str,
        request: ExecRequest,
    ) -> Result<ExecSession, RuntimeError> {
        self.0.exec(pod, container, request).await
    }

    async fn attach(
        &self,
        pod: &PodUid,
        container: &str,
        request: ExecRequest,
    ) -> Result<ExecSession, RuntimeError> {
        self.0.attach(pod, container, request).await
    }

    async fn port_forward(&self, pod: &PodUid, port: u16) -> Result<Duplex, RuntimeError> {
        self.0.port_forward(pod, port).await
    }
}
