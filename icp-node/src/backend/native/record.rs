//! What lies on the disk between runs of the agent: records of sandboxes and containers, and the names of their files.
//!
//! ```text
//! ROOT/pods/UID/pod.json                        PodRecord: the sandbox's spec, its addresses; holder gone after a stop
//! ROOT/pods/UID/holder.json                     ProcessRecord of the holder
//! ROOT/pods/UID/shm                             the pod's /dev/shm
//! ROOT/pods/UID/volumes/NAME[.path]             a volume, or the path of the node that it is
//! ROOT/pods/UID/containers/NAME/ATTEMPT/        plan.json, shim.json, exit.json, log/, message, upper/, attach.sock
//! ROOT/images/                                  see the image store
//! ```

use alloc::collections::BTreeMap;
use alloc::format;
use alloc::string::{String, ToString};
use alloc::vec::Vec;
use core::net::IpAddr;
use std::io;
use std::path::{Path, PathBuf};

use icp_core::base::Time;
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

use super::rooted::write_atomically;
use crate::runtime::{ContainerKey, Exit, Network, PodUid, QosClass, SandboxSpec};

/// A process that is not mistaken for a later one with the same number.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct ProcessRecord {
    pub(crate) pid: i32,
    /// When it started, in clock ticks since the machine did.
    pub(crate) start: u64,
}

impl ProcessRecord {
    /// The process with this number now.
    pub(crate) fn of(pid: i32) -> Option<Self> {
        let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
        Some(Self { pid, start: start_of(&stat)? })
    }

    /// Whether it is still there (it may be dead and not waited for).
    pub(crate) fn is_there(self) -> bool {
        self.pid > 0 && Self::of(self.pid) == Some(self)
    }
}

/// The start time in `/proc/PID/stat` of a process that is not a zombie; the program's name may hold anything.
fn start_of(stat: &str) -> Option<u64> {
    let (_, rest) = stat.rsplit_once(')')?;
    let mut fields = rest.split_ascii_whitespace();
    let state = fields.next()?;
    if matches!(state, "Z" | "X") {
        return None;
    }
    fields.nth(18)?.parse().ok()
}

/// The identity of this run of the kernel.
pub(crate) fn boot_id() -> String {
    std::fs::read_to_string("/proc/sys/kernel/random/boot_id").unwrap_or_default().trim().to_string()
}

/// A pod: what is needed of its sandbox's spec, and what was made.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub(crate) struct PodRecord {
    pub(crate) namespace: String,
    pub(crate) name: String,
    pub(crate) hostname: String,
    pub(crate) host_network: bool,
    pub(crate) host_pid: bool,
    pub(crate) host_ipc: bool,
    pub(crate) share_pid: bool,
    pub(crate) qos: u8,
    pub(crate) annotations: BTreeMap<String, String>,
    /// The kernel that it was made under.
    pub(crate) boot: String,
    pub(crate) created_micros: i64,
    /// Whether the sandbox is up; a stopped one keeps its record for the containers' logs.
    pub(crate) up: bool,
    /// Whether the network must be given back.
    pub(crate) attached: bool,
    pub(crate) ips: Vec<IpAddr>,
    pub(crate) holder: ProcessRecord,
}

impl PodRecord {
    pub(crate) fn new(spec: &SandboxSpec, now: Time) -> Self {
        Self {
            namespace: spec.namespace.clone(),
            name: spec.name.clone(),
            hostname: spec.hostname.clone(),
            host_network: spec.network == Network::Host,
            host_pid: spec.host_pid,
            host_ipc: spec.host_ipc,
            share_pid: spec.share_process_namespace,
            qos: match spec.qos {
                QosClass::Guaranteed => 0,
                QosClass::Burstable => 1,
                QosClass::BestEffort => 2,
            },
            annotations: spec.annotations.clone(),
            boot: boot_id(),
            created_micros: now.as_micros(),
            ..Self::default()
        }
    }

    pub(crate) fn qos(&self) -> QosClass {
        match self.qos {
            0 => QosClass::Guaranteed,
            1 => QosClass::Burstable,
            _ => QosClass::BestEffort,
        }
    }

    /// What containers need to know of the sandbox.
    pub(crate) fn spec(&self) -> SandboxSpec {
        SandboxSpec {
            namespace: self.namespace.clone(),
            name: self.name.clone(),
            hostname: self.hostname.clone(),
            network: if self.host_network { Network::Host } else { Network::Pod },
            host_pid: self.host_pid,
            host_ipc: self.host_ipc,
            share_process_namespace: self.share_pid,
            qos: self.qos(),
            annotations: self.annotations.clone(),
            ..SandboxSpec::default()
        }
    }
}

/// A container that was started, written by its shim.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct ShimRecord {
    /// The shim itself.
    pub(crate) shim: ProcessRecord,
    /// The container's first process; 0 as long as it was not started.
    pub(crate) init: ProcessRecord,
    pub(crate) started_micros: i64,
}

/// How a container ended, written by its shim.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct ExitRecord {
    pub(crate) code: i32,
    pub(crate) signal: Option<i32>,
    pub(crate) oom_killed: bool,
    pub(crate) started_micros: i64,
    pub(crate) finished_micros: i64,
    pub(crate) message: String,
}

impl From<ExitRecord> for Exit {
    fn from(r: ExitRecord) -> Self {
        Self {
            code: r.code,
            signal: r.signal,
            oom_killed: r.oom_killed,
            started_at: Time::from_micros(r.started_micros),
            finished_at: Time::from_micros(r.finished_micros),
            message: r.message,
        }
    }
}

/// What the agent keeps of a container beside its plan.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct ContainerRecord {
    pub(crate) image: String,
    pub(crate) image_id: String,
    pub(crate) stop_signal: i32,
    /// Folders of control groups that are removed with the container.
    pub(crate) cgroups: Vec<PathBuf>,
}

/// Why the helper could not do what it was told.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, thiserror::Error)]
pub(crate) enum Failure {
    /// The spec asks for what cannot be.
    #[error("{0}")]
    Config(String),
    /// The program cannot be started.
    #[error("{0}")]
    Start(String),
    /// Anything else.
    #[error("{0}")]
    Other(String),
}

/// The one line that a helper answers on its stdout.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) enum Answer<T> {
    Ok(T),
    Err(Failure),
}

/// Reads a record; `None` if there is none or it is not whole.
pub(crate) fn read<T: DeserializeOwned>(path: &Path) -> Option<T> {
    serde_json::from_slice(&std::fs::read(path).ok()?).ok()
}

/// Writes a record whole or not at all. Records may hold secrets: they are for the owner alone.
pub(crate) fn write<T: Serialize>(path: &Path, record: &T) -> io::Result<()> {
    let data = serde_json::to_vec(record).map_err(io::Error::other)?;
    write_atomically(path, &data, 0o600)
}

/// Whether a name can be a part of a path.
pub(crate) fn is_plain(name: &str) -> bool {
    !name.is_empty() && name.len() <= 255 && !name.starts_with('.') && !name.contains(['/', '\0'])
}

/// The files of a pod.
#[derive(Clone, Debug)]
pub(crate) struct PodDir(PathBuf);

impl PodDir {
    /// `None` if the uid cannot be the name of a folder.
    pub(crate) fn new(root: &Path, pod: &PodUid) -> Option<Self> {
        is_plain(pod.as_str()).then(|| Self(root.join("pods").join(pod.as_str())))
    }

    pub(crate) fn path(&self) -> &Path {
        &self.0
    }

    pub(crate) fn record(&self) -> PathBuf {
        self.0.join("pod.json")
    }

    pub(crate) fn shm(&self) -> PathBuf {
        self.0.join("shm")
    }

    pub(crate) fn volumes(&self) -> PathBuf {
        self.0.join("volumes")
    }

    pub(crate) fn container(&self, key: &ContainerKey) -> Option<PathBuf> {
        is_plain(&key.name).then(|| self.0.join("containers").join(&*key.name).join(key.attempt.to_string()))
    }

    /// All attempts of containers that have a folder, in order.
    pub(crate) fn containers(&self) -> Vec<ContainerKey> {
        let mut keys = Vec::new();
        for (name, path) in entries(&self.0.join("containers")) {
            for (attempt, _) in entries(&path) {
                keys.extend(attempt.parse().ok().map(|n| ContainerKey::new(&name, n)));
            }
        }
        keys.sort();
        keys
    }
}

/// The names and paths in a folder; none if it cannot be read.
pub(crate) fn entries(dir: &Path) -> Vec<(String, PathBuf)> {
    let Ok(list) = std::fs::read_dir(dir) else { return Vec::new() };
    list.flatten().filter_map(|e| Some((e.file_name().into_string().ok()?, e.path()))).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn start_times_survive_odd_program_names() {
        let stat = "42 (a) b (c) S 1 42 42 0 -1 4194560 1 2 3 4 5 6 7 8 20 0 1 0 987654 1000 2";
        assert_eq!(start_of(stat), Some(987_654));
        assert_eq!(start_of("42 (x) Z 1 42 42 0 -1 4194560 1 2 3 4 5 6 7 8 20 0 1 0 987654 1000 2"), None);
        assert_eq!(start_of("garbage"), None);
        let me = ProcessRecord::of(std::process::id().cast_signed()).unwrap();
        assert!(me.is_there());
        assert!(!ProcessRecord { start: me.start + 1, ..me }.is_there());
    }

    #[test]
    fn names_that_leave_the_folder_are_refused() {
        for bad in ["", "..", ".hidden", "a/b", "a\0b"] {
            assert!(PodDir::new(Path::new("/r"), &PodUid::from(bad)).is_none(), "{bad:?}");
        }
        let dir = PodDir::new(Path::new("/r"), &PodUid::from("u1")).unwrap();
        assert_eq!(
            dir.container(&ContainerKey::new("web", 3)).unwrap(),
            Path::new("/r/pods/u1/containers/web/3")
        );
        assert!(dir.container(&ContainerKey::new("../x", 3)).is_none());
    }
}
