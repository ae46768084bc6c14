//! The port to the cluster's network.

use alloc::boxed::Box;
use alloc::string::String;
use alloc::vec::Vec;
use core::net::{IpAddr, Ipv4Addr};
use std::path::Path;

use async_trait::async_trait;

use crate::runtime::{PodUid, SandboxSpec};

/// Why a pod could not be connected.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{message}")]
pub struct NetworkError {
    /// What failed.
    pub message: String,
}

/// Connects pods to the cluster's network and takes them off again.
///
/// Both calls are idempotent. They are not made for pods in the node's network.
#[async_trait]
pub trait PodNetwork: Send + Sync {
    /// Gives a pod its interfaces, routes and host ports. `netns` is a path (below `/proc`) that can be opened for the
    /// network namespace; its loopback interface is up already. Answers the pod's addresses, the primary one first.
    ///
    /// # Errors
    /// Says what failed; the sandbox is taken down then, and [`PodNetwork::detach`] called.
    async fn attach(
        &self,
        pod: &PodUid,
        netns: &Path,
        spec: &SandboxSpec,
    ) -> Result<Vec<IpAddr>, NetworkError>;

    /// Gives everything back. `netns` is `None` if the namespace is gone (its interfaces are gone with it then).
    ///
    /// # Errors
    /// Says what failed; the call is made again.
    async fn detach(&self, pod: &PodUid, netns: Option<&Path>) -> Result<(), NetworkError>;
}

/// No network but the loopback interface of each pod.
#[derive(Clone, Copy, Debug, Default)]
pub struct LoopbackNetwork;

#[async_trait]
impl PodNetwork for LoopbackNetwork {
    async fn attach(&self, _: &PodUid, _: &Path, _: &SandboxSpec) -> Result<Vec<IpAddr>, NetworkError> {
        Ok(Vec::from([IpAddr::V4(Ipv4Addr::LOCALHOST)]))
    }

    async fn detach(&self, _: &PodUid, _: Option<&Path>) -> Result<(), NetworkError> {
        Ok(())
    }
}
