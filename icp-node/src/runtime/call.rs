//! What a machine wants of a runtime.

use alloc::string::String;
use alloc::sync::Arc;
use alloc::vec::Vec;
use core::fmt;
use core::net::IpAddr;
use core::time::Duration;

use super::{ContainerSpec, HttpGet, PullPolicy, RegistryAuth, SandboxSpec, VolumeContent};

/// The uid of a pod: cheap to clone.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct PodUid(Arc<str>);

impl PodUid {
    /// The uid as text.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl From<&str> for PodUid {
    fn from(uid: &str) -> Self {
        Self(uid.into())
    }
}

impl fmt::Display for PodUid {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// Names one try of one container within a pod. Attempts count from 0 and never repeat.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ContainerKey {
    /// The container's name in the pod spec.
    pub name: Arc<str>,
    /// How many times the container was started before.
    pub attempt: u32,
}

impl ContainerKey {
    /// Names a try.
    #[must_use]
    pub fn new(name: &str, attempt: u32) -> Self {
        Self { name: name.into(), attempt }
    }
}

impl fmt::Display for ContainerKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.name, self.attempt)
    }
}

/// Names a call of one machine, so that it knows the answer. Never repeats within a run of the agent.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct CallId(pub u64);

/// One call.
#[derive(Clone, Debug, PartialEq)]
pub struct RuntimeCall {
    /// Chosen by the machine.
    pub id: CallId,
    /// The pod that it is about; empty for calls about the node ([`RuntimeOp::Relist`], images, usage).
    pub pod: PodUid,
    /// `metadata.generation` of the pod that it was decided from.
    pub generation: i64,
    /// What to do.
    pub op: RuntimeOp,
}

/// What to do.
#[derive(Clone, Debug, PartialEq)]
#[non_exhaustive]
pub enum RuntimeOp {
    /// Make an image usable as `policy` says; answered by [`super::Outcome::Image`].
    EnsureImage {
        /// The reference as it stands in the pod spec.
        image: String,
        /// When to go to a registry.
        policy: PullPolicy,
        /// Credentials to try, in order; then without any.
        auth: Vec<RegistryAuth>,
    },
    /// Make the pod's sandbox (namespaces, network, cgroup); answered by [`super::Outcome::Sandbox`].
    CreateSandbox(Arc<SandboxSpec>),
    /// Make or update a volume of the pod; the pod's containers name it in their mounts. Answered by
    /// [`super::Outcome::Done`]. An update of files is atomic: readers see the old set or the new one
    /// (`k8s.io/kubernetes/pkg/volume/util/atomic_writer.go`: a timestamped folder and a `..data` link).
    WriteVolume {
        /// The volume's name in the pod spec.
        volume: Arc<str>,
        /// What is in it.
        content: Arc<VolumeContent>,
    },
    /// Create and start a container in the pod's sandbox; answered by [`super::Outcome::Started`].
    StartContainer {
        /// Which try.
        container: ContainerKey,
        /// How.
        spec: Arc<ContainerSpec>,
    },
    /// Ask a container to stop and kill it after `grace`; answered by [`super::Outcome::Done`] at once. The end
    /// comes as [`super::RuntimeEvent::ContainerExited`]. A later call with a shorter grace shortens the wait; a
    /// container that does not run is no error.
    StopContainer {
        /// Which try.
        container: ContainerKey,
        /// Between the stop signal and the kill; zero kills at once.
        grace: Duration,
    },
    /// Forget a container that does not run, with its log and writable layer.
    RemoveContainer {
        /// Which try.
        container: ContainerKey,
    },
    /// Kill whatever still runs in the pod, and give back its network, cgroup and volumes. What is known of its
    /// containers and their logs stays (`kubectl logs` of a completed pod).
    StopSandbox,
    /// The same, and forget the containers and their logs; a pod that is not known is no error.
    RemoveSandbox,
    /// Run a command in a container and wait for it; answered by [`super::Outcome::Exec`].
    Exec {
        /// Which try.
        container: ContainerKey,
        /// The program and its arguments.
        command: Vec<String>,
        /// Kill it after this time; answered by [`super::RuntimeError::Timeout`].
        timeout: Duration,
    },
    /// Send an HTTP GET from the node; answered by [`super::Outcome::Probe`]. Success is a status of 200 to 399.
    HttpGet(Arc<HttpGet>),
    /// Open a TCP connection from the node; answered by [`super::Outcome::Probe`].
    TcpConnect {
        /// The address; `None` is the pod's own.
        host: Option<IpAddr>,
        /// The port.
        port: u16,
        /// Give up after this time.
        timeout: Duration,
    },
    /// Ask the pod's gRPC health service (`grpc.health.v1.Health/Check`) in plain text; answered by
    /// [`super::Outcome::Probe`]. Success is `SERVING`.
    GrpcHealth {
        /// The port of the pod's own address.
        port: u16,
        /// The service to ask for; empty for the whole server.
        service: String,
        /// Give up after this time.
        timeout: Duration,
    },
    /// Tell all pods and containers; answered by [`super::Outcome::Listed`].
    Relist,
    /// Tell all images; answered by [`super::Outcome::Images`].
    ListImages,
    /// Remove an image that no container uses.
    RemoveImage {
        /// The image's id as [`super::ImageInfo::id`] tells it.
        id: String,
    },
    /// Tell what is used and free on the node; answered by [`super::Outcome::Usage`].
    Usage,
}

impl RuntimeOp {
    /// The container that the call is about.
    #[must_use]
    pub const fn container(&self) -> Option<&ContainerKey> {
        match self {
            Self::StartContainer { container, .. }
            | Self::StopContainer { container, .. }
            | Self::RemoveContainer { container }
            | Self::Exec { container, .. } => Some(container),
            _ => None,
        }
    }
}
