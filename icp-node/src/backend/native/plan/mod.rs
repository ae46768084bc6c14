//! What the helper shall do, as data: computed from specs by functions without I/O, written to a file, and done by a
//! process that decides nothing.

mod caps;
mod container;
pub(crate) mod seccomp;
mod signal;
#[cfg(test)]
mod tests;
mod user;

use alloc::string::String;
use alloc::vec::Vec;
use std::path::PathBuf;

use serde::{Deserialize, Serialize};

pub(crate) use caps::{ALL_CAPS, capability_set};
pub(crate) use container::{ContainerInput, container_plan, exec_plan, sandbox_plan};
pub(crate) use signal::signal_number;
pub(crate) use user::{resolve_user, unmapped};

/// A run of ids of the node's user namespace that exist inside of it (a line of `/proc/self/uid_map`).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct IdRange {
    /// The first id.
    pub first: u32,
    /// How many.
    pub count: u32,
}

/// How a writable layer is put above an image.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) enum Overlay {
    /// Not at all: the image is copied.
    #[default]
    None,
    /// By overlayfs with its privileged attributes.
    Trusted,
    /// By overlayfs with attributes that need no privilege (`userxattr`).
    User,
}

/// What the node can do, found by trying it.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Facts {
    /// Why nothing can run here at all, if so.
    pub broken: Option<String>,
    /// User ids that exist.
    pub uids: Vec<IdRange>,
    /// Group ids that exist.
    pub gids: Vec<IdRange>,
    /// Whether supplemental groups can be set.
    pub setgroups: bool,
    /// How writable layers are made.
    pub overlay: Overlay,
    /// Whether a pod can have its own view of `/sys`; else it sees the node's, read-only.
    pub sysfs: bool,
    /// The same for a pod in the node's network, whose devices `/sys` shows.
    pub sysfs_host_network: bool,
    /// Whether POSIX message queues can be mounted.
    pub mqueue: bool,
    /// Whether terminals can belong to group 5 (`tty`).
    pub tty_group: bool,
    /// Whether control group namespaces can be made.
    pub cgroup_namespace: bool,
    /// Whether the unified control groups can be mounted.
    pub cgroup2: bool,
    /// Capabilities that can be given, a bit each.
    pub caps: u64,
}

/// The holder of a pod's namespaces.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct SandboxPlan {
    /// Unshare the network, and put up its loopback interface.
    pub new_net: bool,
    /// Unshare System V IPC and POSIX message queues.
    pub new_ipc: bool,
    /// Unshare the host name.
    pub new_uts: bool,
    /// Be the first process of a namespace that all containers of the pod join.
    pub new_pid: bool,
    /// The host name, unless the node's is used.
    pub hostname: Option<String>,
    /// Kernel parameters with dots, and their values.
    pub sysctls: Vec<(String, String)>,
    /// Files of control groups to write the own process id to.
    pub cgroup_procs: Vec<PathBuf>,
    /// Unlikely to be killed for want of memory.
    pub oom_score_adj: i32,
}

/// Which process ids a container sees.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) enum PidMode {
    /// Its own; its first process is number 1.
    #[default]
    Own,
    /// Those of its pod.
    Pod,
    /// Those of the node.
    Host,
}

/// The namespaces of a sandbox that a process joins.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Join {
    /// The holder.
    pub holder: i32,
    /// Its network.
    pub net: bool,
    /// Its IPC.
    pub ipc: bool,
    /// Its host name.
    pub uts: bool,
}

/// Where the root file system comes from.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) enum Rootfs {
    /// A writable layer above an image.
    Overlay {
        /// The image.
        lower: PathBuf,
        /// The writable layer.
        upper: PathBuf,
        /// Work space of overlayfs.
        work: PathBuf,
        /// Use attributes that need no privilege.
        user: bool,
    },
    /// A folder of the container's own, copied from the image before the start.
    Copy {
        /// The image.
        from: PathBuf,
        /// The folder.
        to: PathBuf,
    },
    /// An empty file system on memory (the `host` image is put together in it).
    Memory {
        /// Most bytes.
        size_bytes: u64,
    },
}

/// Propagation of a mount.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) enum Propagation {
    /// None.
    #[default]
    Private,
    /// From the node.
    Slave,
    /// Both ways.
    Shared,
}

/// What is put into the root file system.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) enum What {
    /// A folder or file of the node.
    Bind {
        /// The folder or file.
        source: PathBuf,
        /// A path inside of it that is found without leaving it; made as a folder if missing.
        sub_path: String,
        /// With what is mounted below it.
        recursive: bool,
        /// Leave it out if the source is missing.
        optional: bool,
        /// Propagation.
        propagation: Propagation,
    },
    /// A file system of its own.
    Fresh {
        /// `proc`, `sysfs`, `tmpfs`, `devpts`, `mqueue` or `cgroup2`.
        kind: String,
        /// Its options.
        options: Vec<(String, String)>,
    },
    /// A folder with permission bits.
    Folder(u32),
    /// A symbolic link.
    Link(String),
    /// A file with permission bits.
    File(String, u32),
    /// The terminal of the container as a file.
    Terminal,
}

/// What is refused on a mount.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct MountFlags {
    /// Writing.
    pub read_only: bool,
    /// Set-user-id programs.
    pub nosuid: bool,
    /// Device nodes.
    pub nodev: bool,
    /// Programs.
    pub noexec: bool,
}

/// One step of building the root file system.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Step {
    /// Where, as an absolute path inside.
    pub target: String,
    /// What.
    pub what: What,
    /// What is refused there.
    pub flags: MountFlags,
}

/// A limit of a process.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) enum Limit {
    /// Open files: the hard limit, but no more than so many.
    OpenFiles(u64),
    /// Bytes of a core file.
    Core(u64),
}

/// A process in a container.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct ProcessPlan {
    /// The program and its arguments.
    pub argv: Vec<String>,
    /// All of its environment.
    pub env: Vec<(String, String)>,
    /// Its working directory, made if missing.
    pub cwd: String,
    /// User id.
    pub uid: u32,
    /// Group id.
    pub gid: u32,
    /// Supplemental groups; `None` leaves those of the agent (they cannot be set here).
    pub groups: Option<Vec<u32>>,
    /// Capabilities that it may ever have, a bit each.
    pub caps: u64,
    /// It cannot gain privileges.
    pub no_new_privs: bool,
    /// Refuse the system calls of [`seccomp`].
    pub seccomp: bool,
    /// Limits.
    pub limits: Vec<Limit>,
    /// `oom_score_adj`; the own value stays if it is refused.
    pub oom_score_adj: i32,
}

/// How output is kept.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct LogPlan {
    /// The newest file; older ones have a number behind.
    pub path: PathBuf,
    /// Rotate at this size, in bytes.
    pub max_bytes: u64,
    /// Keep so many files.
    pub max_files: u32,
}

/// A container from its start to its end.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct ContainerPlan {
    /// The container's folder on the node.
    pub dir: PathBuf,
    /// The pod's namespaces.
    pub join: Join,
    /// Process ids.
    pub pid_mode: PidMode,
    /// Make a control group namespace.
    pub cgroup_namespace: bool,
    /// Files of control groups to write the own process id to.
    pub cgroup_procs: Vec<PathBuf>,
    /// The file that counts kills for want of memory in a line `oom_kill N`.
    pub oom_file: Option<PathBuf>,
    /// Where the root file system comes from.
    pub rootfs: Rootfs,
    /// What is refused on the root file system in the end.
    pub root_flags: MountFlags,
    /// What is put into it, in order.
    pub steps: Vec<Step>,
    /// Paths that are hidden.
    pub masked: Vec<String>,
    /// Paths that cannot be written to.
    pub read_only: Vec<String>,
    /// The first process.
    pub process: ProcessPlan,
    /// It has a terminal.
    pub tty: bool,
    /// Its stdin stays open for attach.
    pub stdin: bool,
    /// Its stdin is closed when the first attached client closes it.
    pub stdin_once: bool,
    /// Where its output goes.
    pub log: LogPlan,
    /// The file of the termination message, on the node.
    pub message_file: PathBuf,
    /// Take the end of the log if that file is empty and the exit code is not 0.
    pub message_from_log: bool,
}

/// A further process in a running container.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct ExecPlan {
    /// The first process of the container.
    pub init: i32,
    /// When that process started, in clock ticks since the machine did.
    pub init_start: u64,
    /// Files of control groups to write the own process id to.
    pub cgroup_procs: Vec<PathBuf>,
    /// The process.
    pub process: ProcessPlan,
    /// Give it a terminal.
    pub tty: bool,
    /// It reads from the caller.
    pub stdin: bool,
}
