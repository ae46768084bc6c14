//! How a native runtime shall work.

use alloc::string::String;
use alloc::sync::Arc;
use alloc::vec::Vec;
use core::net::IpAddr;
use std::path::PathBuf;

use super::PodNetwork;

/// How a [`super::NativeRuntime`] shall work.
#[derive(Clone)]
pub struct NativeConfig {
    /// Where everything lies that the runtime keeps: pods with their logs, images. A runtime that opens the directory of
    /// another run finds its pods again. One runtime at a time may use it.
    pub root: PathBuf,
    /// The program that is run with [`super::HELPER_ARG`] as its first argument; its `main` must call
    /// [`super::helper_main`] before any thread exists. By default this program itself.
    pub helper: PathBuf,
    /// Connects pods that do not use the node's network.
    pub network: Arc<dyn PodNetwork>,
    /// The addresses of the node: those of pods in the node's network.
    pub host_ips: Vec<IpAddr>,
    /// The control group below which pods get theirs, relative to the root of each hierarchy. Several nodes on one
    /// kernel need different ones.
    pub cgroup_parent: String,
    /// A log file is rotated when it has reached this size, in bytes (`containerLogMaxSize` of the kubelet).
    pub log_max_bytes: u64,
    /// So many log files of a container are kept (`containerLogMaxFiles` of the kubelet).
    pub log_max_files: u32,
}

impl NativeConfig {
    /// The defaults: this program as helper, control groups below `kubepods`, 5 log files of 10 MiB.
    #[must_use]
    pub fn new(root: impl Into<PathBuf>, network: Arc<dyn PodNetwork>) -> Self {
        Self {
            root: root.into(),
            helper: PathBuf::from("/proc/self/exe"),
            network,
            host_ips: Vec::new(),
            cgroup_parent: "kubepods".into(),
            log_max_bytes: 10 << 20,
            log_max_files: 5,
        }
    }
}

impl core::fmt::Debug for NativeConfig {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        f.debug_struct("NativeConfig")
            .field("root", &self.root)
            .field("helper", &self.helper)
            .field("cgroup_parent", &self.cgroup_parent)
            .finish_non_exhaustive()
    }
}
