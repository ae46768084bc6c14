//! The port to what runs containers: calls and events as data for machines, an async trait for shells.
//!
//! A machine emits a [`RuntimeCall`]; a shell hands it to a [`Runtime`] and feeds the answer back as
//! [`RuntimeEvent::Done`] of the same call id. What happens without being asked for (a container exits, a sandbox
//! dies) comes from [`Runtime::events`]. The names follow the Container Runtime Interface
//! (`k8s.io/cri-api/pkg/apis/runtime/v1`), except that a container is named by pod uid, container name and attempt
//! instead of by an id the runtime draws; that makes every call idempotent: a backend that has done it before
//! answers again with what is.
//!
//! ```
//! use icp_node::runtime::{CallId, ContainerKey, PodUid, RuntimeCall, RuntimeOp};
//! let call = RuntimeCall {
//!     id: CallId(1),
//!     pod: PodUid::from("0f2c"),
//!     generation: 1,
//!     op: RuntimeOp::StopContainer {
//!         container: ContainerKey::new("web", 0),
//!         grace: core::time::Duration::from_secs(30),
//!     },
//! };
//! assert_eq!(call.op.container().unwrap().to_string(), "web/0");
//! ```

mod call;
mod error;
mod event;
mod spec;
mod stream;

pub use call::{CallId, ContainerKey, PodUid, RuntimeCall, RuntimeOp};
pub use error::RuntimeError;
pub use event::{
    ContainerListing, ContainerState, ExecOutput, Exit, Image, ImageInfo, NodeUsage, Outcome, PodListing,
    ProbeOutcome, RuntimeEvent, SandboxListing,
};
pub use spec::{
    ContainerKind, ContainerSpec, DnsConfig, GeneratedFile, HostPathType, HttpGet, Mount, MountPropagation,
    MountSource, Network, PortMapping, PullPolicy, QosClass, RegistryAuth, Resources, SandboxSpec, Seccomp,
    SecurityContext, TerminationMessagePolicy, VolumeContent, VolumeFile,
};
pub use stream::{
    ByteSink, ByteStream, Duplex, ExecRequest, ExecSession, LogOptions, RuntimeEvents, Session, StatusFuture,
};

use alloc::boxed::Box;

use async_trait::async_trait;

/// What runs containers: the native executor, a CRI daemon, or a simulation.
///
/// Every method may be called at the same time as any other; calls of one pod are made one after the other by the
/// pod's machine wherever order matters.
#[async_trait]
pub trait Runtime: Send + Sync {
    /// Does one call and returns what came of it.
    ///
    /// A call is idempotent: started twice, a container runs once; stopped twice, it is stopped. Starting an
    /// attempt while another attempt of the same container runs is refused with
    /// [`RuntimeError::Conflict`].
    ///
    /// # Errors
    /// Says what failed and carries the reason that goes into the container's status.
    async fn perform(&self, call: RuntimeCall) -> Result<Outcome, RuntimeError>;

    /// What happens without being asked for, from now on: [`RuntimeEvent::ContainerExited`] (exactly once per
    /// attempt) and [`RuntimeEvent::SandboxDied`]. What happened before is in the answer to
    /// [`RuntimeOp::Relist`].
    fn events(&self) -> RuntimeEvents;

    /// The log of a container as lines `RFC3339NANO stdout|stderr F|P text` already cut to what `options` ask
    /// for; with timestamps only if asked for.
    ///
    /// # Errors
    /// [`RuntimeError::NotFound`] if there is no such container (or no previous one).
    async fn logs(
        &self,
        pod: &PodUid,
        container: &str,
        options: LogOptions,
    ) -> Result<ByteStream, RuntimeError>;

    /// Starts a process in a running container and connects its streams.
    ///
    /// # Errors
    /// [`RuntimeError::NotFound`] if the container does not run, [`RuntimeError::Start`] if the program cannot
    /// be started.
    async fn exec(
        &self,
        pod: &PodUid,
        container: &str,
        request: ExecRequest,
    ) -> Result<ExecSession, RuntimeError>;

    /// Connects to the streams of a running container's first process.
    ///
    /// # Errors
    /// [`RuntimeError::NotFound`] if the container does not run.
    async fn attach(
        &self,
        pod: &PodUid,
        container: &str,
        request: ExecRequest,
    ) -> Result<ExecSession, RuntimeError>;

    /// Connects to a TCP port on the pod's loopback address.
    ///
    /// # Errors
    /// [`RuntimeError::NotFound`] if the pod has no sandbox, [`RuntimeError::Unavailable`] if nothing listens.
    async fn port_forward(&self, pod: &PodUid, port: u16) -> Result<Duplex, RuntimeError>;
}
