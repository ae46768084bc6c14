//! What a runtime reports.

use alloc::string::String;
use alloc::vec::Vec;
use core::net::IpAddr;

use bytes::Bytes;
use icp_core::base::Time;

use super::{CallId, ContainerKey, PodUid, RuntimeError};

/// What a runtime reports to the machines.
#[derive(Clone, Debug, PartialEq)]
#[non_exhaustive]
pub enum RuntimeEvent {
    /// A call was done.
    Done {
        /// The call.
        call: CallId,
        /// The pod of the call.
        pod: PodUid,
        /// What came of it.
        result: Result<Outcome, RuntimeError>,
    },
    /// The first process of a container ended; nothing of that attempt runs any more.
    ContainerExited {
        /// The pod.
        pod: PodUid,
        /// Which try.
        container: ContainerKey,
        /// How it ended.
        exit: Exit,
    },
    /// A sandbox is gone without being removed; its containers are gone with it.
    SandboxDied {
        /// The pod.
        pod: PodUid,
        /// Why, for people.
        message: String,
    },
}

/// What came of a call that succeeded.
#[derive(Clone, Debug, PartialEq)]
#[non_exhaustive]
pub enum Outcome {
    /// Done, nothing to tell.
    Done,
    /// An image is usable.
    Image(Image),
    /// A sandbox is there.
    Sandbox {
        /// The addresses of the pod, the primary one first; the node's own for a pod in the host network.
        ips: Vec<IpAddr>,
        /// When it was made.
        at: Time,
    },
    /// A container runs (or ran: a fast exit comes as its own event).
    Started {
        /// The runtime's id of the container, such as `native://0f2c/web/0`.
        id: String,
        /// When it was started.
        at: Time,
    },
    /// A command ran to its end.
    Exec(ExecOutput),
    /// A probe got an answer or was refused.
    Probe(ProbeOutcome),
    /// All that there is.
    Listed(Vec<PodListing>),
    /// All images.
    Images(Vec<ImageInfo>),
    /// What is used and free on the node.
    Usage(NodeUsage),
}

/// An image that is usable.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Image {
    /// What goes into `imageID` of a container status.
    pub id: String,
    /// The user of the image config: empty (root), a number, `number:number` or a name.
    pub user: String,
    /// Whether it had to be fetched.
    pub pulled: bool,
    /// Bytes on disk.
    pub size_bytes: u64,
}

/// How a container ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Exit {
    /// The exit code; 128 + signal if a signal ended it.
    pub code: i32,
    /// The signal that ended it.
    pub signal: Option<i32>,
    /// Whether the kernel killed it for want of memory.
    pub oom_killed: bool,
    /// When it was started.
    pub started_at: Time,
    /// When it ended.
    pub finished_at: Time,
    /// The termination message (at most 4096 bytes; from the log, 2048), as the spec's policy says.
    pub message: String,
}

/// What a command wrote and how it ended.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ExecOutput {
    /// The exit code; 128 + signal if a signal ended it.
    pub code: i32,
    /// What it wrote to stdout and stderr, at most 10 KiB.
    pub output: Bytes,
}

/// The answer to an HTTP or TCP probe.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ProbeOutcome {
    /// Whether the probe counts as a success.
    pub success: bool,
    /// What was answered or why it failed, for people; at most 1 KiB.
    pub message: String,
}

/// A pod that the runtime knows.
#[derive(Clone, Debug, PartialEq)]
pub struct PodListing {
    /// The pod.
    pub uid: PodUid,
    /// Its namespace.
    pub namespace: String,
    /// Its name.
    pub name: String,
    /// Its sandbox, if it has one.
    pub sandbox: Option<SandboxListing>,
    /// Its containers, all attempts that were not removed.
    pub containers: Vec<ContainerListing>,
}

/// A sandbox that the runtime knows.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SandboxListing {
    /// The addresses of the pod.
    pub ips: Vec<IpAddr>,
    /// When it was made.
    pub created_at: Time,
}

/// A container that the runtime knows.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ContainerListing {
    /// Which try.
    pub key: ContainerKey,
    /// The runtime's id of the container.
    pub id: String,
    /// What goes into `imageID` of a container status.
    pub image_id: String,
    /// What it does.
    pub state: ContainerState,
}

/// What a container does.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ContainerState {
    /// It runs.
    Running {
        /// Since when.
        started_at: Time,
    },
    /// It ended.
    Exited(Exit),
}

/// An image on the node.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ImageInfo {
    /// The image's id.
    pub id: String,
    /// All names of the image: tags and digests.
    pub names: Vec<String>,
    /// Bytes on disk.
    pub size_bytes: u64,
    /// When a container was last started from it, if known.
    pub last_used: Option<Time>,
    /// Whether it may not be removed (the sandbox image, `host`).
    pub pinned: bool,
}

/// What is used and free on the node. An entry is `None` where the runtime cannot tell.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct NodeUsage {
    /// Memory that can be given out without reclaim, in bytes.
    pub memory_available_bytes: Option<u64>,
    /// Memory of the machine, in bytes.
    pub memory_capacity_bytes: Option<u64>,
    /// Free bytes of the file system that volumes and logs are on.
    pub nodefs_available_bytes: Option<u64>,
    /// Size of that file system, in bytes.
    pub nodefs_capacity_bytes: Option<u64>,
    /// Free inodes of that file system.
    pub nodefs_inodes_free: Option<u64>,
    /// Inodes of that file system.
    pub nodefs_inodes: Option<u64>,
    /// Free bytes of the file system that images are on.
    pub imagefs_available_bytes: Option<u64>,
    /// Size of that file system, in bytes.
    pub imagefs_capacity_bytes: Option<u64>,
    /// Process ids that are free.
    pub pids_available: Option<u64>,
    /// Most process ids.
    pub pids_capacity: Option<u64>,
    /// Working set of each pod, in bytes.
    pub pod_memory_bytes: Vec<(PodUid, u64)>,
}
