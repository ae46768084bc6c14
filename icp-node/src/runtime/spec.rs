//! How a sandbox, a container and a volume shall be.

use alloc::collections::BTreeMap;
use alloc::string::String;
use alloc::sync::Arc;
use alloc::vec::Vec;
use core::net::IpAddr;
use core::time::Duration;

use bytes::Bytes;

/// When to go to a registry (`imagePullPolicy`).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PullPolicy {
    /// Before every start.
    Always,
    /// If the image is not there.
    IfNotPresent,
    /// Never.
    Never,
}

/// Credentials for a registry, from a pull secret.
#[derive(Clone, PartialEq, Eq)]
pub struct RegistryAuth {
    /// The registry (and path prefix) that they are for.
    pub registry: String,
    /// The user.
    pub username: String,
    /// The password or token.
    pub password: String,
}

impl core::fmt::Debug for RegistryAuth {
    /// Without the password.
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        f.debug_struct("RegistryAuth")
            .field("registry", &self.registry)
            .field("username", &self.username)
            .finish_non_exhaustive()
    }
}

/// The network of a pod.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Network {
    /// Its own namespace, set up by the cluster's network.
    #[default]
    Pod,
    /// The node's (`hostNetwork: true`).
    Host,
}

/// Quality of service (`status.qosClass`); it decides the parent cgroup and the OOM score.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum QosClass {
    /// Every container has limits equal to its requests for cpu and memory.
    Guaranteed,
    /// Some container has a request or limit.
    Burstable,
    /// None has.
    #[default]
    BestEffort,
}

impl QosClass {
    /// The name as it stands in `status.qosClass`.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Guaranteed => "Guaranteed",
            Self::Burstable => "Burstable",
            Self::BestEffort => "BestEffort",
        }
    }
}

/// The content of `/etc/resolv.conf`.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct DnsConfig {
    /// `nameserver` lines.
    pub servers: Vec<String>,
    /// The `search` line.
    pub searches: Vec<String>,
    /// The `options` line.
    pub options: Vec<String>,
}

/// A port of the node that leads to the pod.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PortMapping {
    /// `TCP`, `UDP` or `SCTP`.
    pub protocol: String,
    /// The port in the pod.
    pub container_port: u16,
    /// The port of the node.
    pub host_port: u16,
    /// The node's address; `None` for all.
    pub host_ip: Option<IpAddr>,
}

/// How a pod's sandbox shall be.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct SandboxSpec {
    /// The pod's namespace.
    pub namespace: String,
    /// The pod's name.
    pub name: String,
    /// The host name inside.
    pub hostname: String,
    /// The resolver configuration; `None` leaves the runtime's own.
    pub dns: Option<DnsConfig>,
    /// The network.
    pub network: Network,
    /// Use the node's process ids.
    pub host_pid: bool,
    /// Use the node's System V IPC.
    pub host_ipc: bool,
    /// All containers see each other's processes.
    pub share_process_namespace: bool,
    /// Ports of the node that lead here.
    pub ports: Vec<PortMapping>,
    /// Labels of the pod.
    pub labels: BTreeMap<String, String>,
    /// Annotations of the pod.
    pub annotations: BTreeMap<String, String>,
    /// Kernel parameters of the pod's namespaces.
    pub sysctls: BTreeMap<String, String>,
    /// Quality of service.
    pub qos: QosClass,
    /// Limits of the whole pod.
    pub resources: Resources,
    /// The runtime class's handler; empty for the default.
    pub runtime_handler: String,
}

/// What a container is to its pod.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum ContainerKind {
    /// Runs to its end before the next one starts.
    Init,
    /// An init container that keeps running (`restartPolicy: Always`, KEP-753).
    Sidecar,
    /// Under `spec.containers`.
    #[default]
    Regular,
    /// Added while the pod runs (`kubectl debug`).
    Ephemeral,
}

/// Limits. 0 means none.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Resources {
    /// The request that decides the weight, in thousandths of a core.
    pub cpu_request_millis: u64,
    /// The ceiling, in thousandths of a core.
    pub cpu_limit_millis: u64,
    /// The request, in bytes.
    pub memory_request_bytes: u64,
    /// The ceiling, in bytes.
    pub memory_limit_bytes: u64,
    /// Most processes.
    pub pids_limit: u64,
}

/// Where a mount comes from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum MountSource {
    /// A volume of the pod that [`super::RuntimeOp::WriteVolume`] made.
    Volume {
        /// Its name in the pod spec.
        name: Arc<str>,
        /// A path inside of it, without `..` and not absolute; empty for all of it.
        sub_path: String,
    },
}

/// Whether mounts made on one side are seen on the other (`mountPropagation`).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum MountPropagation {
    /// No.
    #[default]
    None,
    /// The node's are seen in the container.
    HostToContainer,
    /// Both ways; privileged containers only.
    Bidirectional,
}

/// A mount of a container.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Mount {
    /// Where it is seen in the container.
    pub path: String,
    /// Where it comes from.
    pub source: MountSource,
    /// Whether writing is refused.
    pub read_only: bool,
    /// Propagation.
    pub propagation: MountPropagation,
}

/// A file that the agent writes and the container sees (`/etc/hosts`, `/etc/hostname`, `/etc/resolv.conf`).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct GeneratedFile {
    /// Where it is seen in the container.
    pub path: String,
    /// What is in it.
    pub data: Bytes,
    /// Permission bits.
    pub mode: u32,
}

/// System call filter.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum Seccomp {
    /// None.
    #[default]
    Unconfined,
    /// The runtime's own profile.
    RuntimeDefault,
    /// A profile file of the node, relative to its profile folder.
    Localhost(String),
}

/// Who a container runs as and what it may do.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct SecurityContext {
    /// User id; `None` is the image's.
    pub run_as_user: Option<u32>,
    /// Group id; `None` is the image's.
    pub run_as_group: Option<u32>,
    /// Refuse to start as user 0 (the agent checks the image's user too, as far as it is a number).
    pub run_as_non_root: bool,
    /// More groups.
    pub supplemental_groups: Vec<u32>,
    /// All capabilities, all devices, no filter.
    pub privileged: bool,
    /// The root file system cannot be written to.
    pub read_only_root: bool,
    /// Set `no_new_privs` (`allowPrivilegeEscalation: false`).
    pub no_new_privs: bool,
    /// Capabilities beyond the default set, without `CAP_`; `ALL` for all.
    pub cap_add: Vec<String>,
    /// Capabilities to take away; `ALL` for all.
    pub cap_drop: Vec<String>,
    /// System call filter.
    pub seccomp: Seccomp,
    /// Show `/proc` without masks (`procMount: Unmasked`).
    pub proc_unmasked: bool,
}

/// Where a termination message comes from.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum TerminationMessagePolicy {
    /// The file.
    #[default]
    File,
    /// The file, or the end of the log (80 lines, 2048 bytes) if the file is empty and the exit code is not 0.
    FallbackToLogsOnError,
}

/// How a container shall be.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct ContainerSpec {
    /// What it is to its pod.
    pub kind: ContainerKind,
    /// The image reference as it stands in the pod spec.
    pub image: String,
    /// The program; empty for the image's `ENTRYPOINT`. If it is given without `args`, the image's `CMD` is not
    /// used.
    pub command: Vec<String>,
    /// The arguments; empty for the image's `CMD`.
    pub args: Vec<String>,
    /// The environment, resolved, in order; the image's variables stand below it.
    pub env: Vec<(String, String)>,
    /// The working directory; empty for the image's.
    pub working_dir: String,
    /// Mounts.
    pub mounts: Vec<Mount>,
    /// Files that the agent writes.
    pub files: Vec<GeneratedFile>,
    /// Who it runs as.
    pub security: SecurityContext,
    /// Limits.
    pub resources: Resources,
    /// `oom_score_adj`; a backend that may not lower it uses its own value.
    pub oom_score_adj: i32,
    /// Allocate a terminal.
    pub tty: bool,
    /// Keep stdin open for attach.
    pub stdin: bool,
    /// Close stdin after the first attach ends.
    pub stdin_once: bool,
    /// The file of the termination message.
    pub termination_message_path: String,
    /// Where the termination message comes from.
    pub termination_message_policy: TerminationMessagePolicy,
    /// The signal that asks it to stop; empty for the image's, which is `SIGTERM` by default.
    pub stop_signal: String,
}

/// Kind of a `hostPath` volume and what is checked before it is used.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum HostPathType {
    /// No check.
    #[default]
    Unset,
    /// A folder, made (0755) if missing.
    DirectoryOrCreate,
    /// A folder.
    Directory,
    /// A file, made (0644) if missing.
    FileOrCreate,
    /// A file.
    File,
    /// A Unix socket.
    Socket,
    /// A character device.
    CharDevice,
    /// A block device.
    BlockDevice,
}

/// A file of a volume.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct VolumeFile {
    /// Relative, without `..`.
    pub path: String,
    /// What is in it.
    pub data: Bytes,
    /// Permission bits.
    pub mode: u32,
}

/// What is in a volume.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum VolumeContent {
    /// `emptyDir`: an empty folder (mode 0777) that lives as long as the pod.
    Empty {
        /// On memory (`medium: Memory`).
        memory: bool,
        /// Most bytes; 0 for no limit.
        size_limit_bytes: u64,
        /// Group that owns it (set-group-id bit on).
        fs_group: Option<u32>,
    },
    /// Files of a configMap, secret, downwardAPI or projected volume.
    Files {
        /// The whole set; files that are not in it go away.
        files: Vec<VolumeFile>,
        /// Group that owns them.
        fs_group: Option<u32>,
    },
    /// A path of the node.
    HostPath {
        /// The path.
        path: String,
        /// What is checked.
        kind: HostPathType,
    },
}

/// An HTTP GET.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HttpGet {
    /// The address to connect to; `None` is the pod's own.
    pub host: Option<String>,
    /// The port.
    pub port: u16,
    /// The path and query.
    pub path: String,
    /// Use TLS, without a check of the certificate.
    pub https: bool,
    /// More headers, `Host` among them.
    pub headers: Vec<(String, String)>,
    /// Give up after this time.
    pub timeout: Duration,
}
