//! What the API server needs of the world besides its store.

use alloc::boxed::Box;
use alloc::string::String;
use core::pin::Pin;

use async_trait::async_trait;
use bytes::Bytes;

use super::body::Body;
use crate::api::{Status, reason};
use crate::base::Time;

/// A clock with alarms.
pub trait Clock: Send + Sync {
    /// The time now; it never runs backwards.
    fn now(&self) -> Time;

    /// Ends at or after `due`. It may end early; the caller looks at the clock again.
    fn sleep_until(&self, due: Time) -> Pin<Box<dyn Future<Output = ()> + Send>>;
}

/// A clock that stands still and whose alarms never ring, for callers that need no timeouts.
#[derive(Clone, Copy, Debug)]
pub struct FixedClock(pub Time);

impl Clock for FixedClock {
    fn now(&self) -> Time {
        self.0
    }

    fn sleep_until(&self, _due: Time) -> Pin<Box<dyn Future<Output = ()> + Send>> {
        Box::pin(core::future::pending())
    }
}

/// Where a proxied request goes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ProxyTarget {
    /// The kubelet of a node, at a path of its own API (`/exec/NS/POD/CONTAINER`, `/containerLogs/...`, ...).
    Kubelet {
        /// The node's name.
        node: String,
        /// The address in the node's status, if it has one.
        address: Option<String>,
        /// The port in the node's status (`daemonEndpoints.kubeletEndpoint.Port`), else 10250.
        port: u16,
    },
    /// An address in the pod network (the `proxy` subresource of pods and services).
    Address {
        /// `http` or `https`.
        scheme: String,
        /// The address.
        host: String,
        /// The port.
        port: u16,
        /// The node that the pod runs on, for transports that go through it.
        node: String,
    },
}

/// The port to kubelets and pods: exec, attach, logs, port-forward and proxy.
///
/// The request's URI is the target's path and query; its headers are the client's, without credentials. An upgrade
/// (`101 Switching Protocols`) travels as usual in hyper: the request's extensions hold the client's
/// `hyper::upgrade::OnUpgrade`, which the implementation joins with its own connection.
#[async_trait]
pub trait NodeProxy: Send + Sync {
    /// Forwards one request and gives the target's response.
    async fn forward(
        &self,
        target: ProxyTarget,
        request: http::Request<Bytes>,
    ) -> Result<http::Response<Body>, Status>;
}

/// No way to the nodes: every request is answered `503 Service Unavailable`.
#[derive(Clone, Copy, Debug, Default)]
pub struct NoNodes;

#[async_trait]
impl NodeProxy for NoNodes {
    async fn forward(
        &self,
        target: ProxyTarget,
        _request: http::Request<Bytes>,
    ) -> Result<http::Response<Body>, Status> {
        let whom = match target {
            ProxyTarget::Kubelet { node, .. } => alloc::format!("the kubelet of node {node:?}"),
            ProxyTarget::Address { host, port, .. } => alloc::format!("{host}:{port}"),
        };
        Err(Status::failure(
            503,
            reason::SERVICE_UNAVAILABLE,
            alloc::format!("this API server was built without a node proxy and cannot reach {whom}"),
        ))
    }
}
