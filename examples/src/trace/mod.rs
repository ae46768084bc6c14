//! Replays the trace of a GPU cluster through [`icp_sched::Scheduler`], in virtual time and once per policy.
//!
//! The trace is that of Weng et al., "Beware of Fragmentation: Scheduling GPU-Sharing Workloads with Fragmentation
//! Gradient Descent" (USENIX ATC '23): nodes with CPU, memory and GPUs, and pods with what they ask for and the seconds
//! of their arrival and departure. Files: `openb_node_list_all_node.csv` and `openb_pod_list_default.csv` of
//! <https://github.com/hkust-adsl/kubernetes-scheduler-simulator> (`data/csv`).
//!
//! **Fractions of GPUs.** Kubernetes counts whole devices. Here a node offers its GPUs in thousandths, as the extended
//! resource [`GPU_MILLI`], which NodeResourcesFit sees as any other; that a share lies on *one* device, and that a pod
//! of several GPUs gets several devices, is a plugin of this example ([`devices::GpuShare`]). On its node a pod gets the
//! devices with the least room that suffices.
//!
//! **Two runs.** [`replay::replay`] follows the arrivals and departures of the trace. [`replay::fill`] lets pods arrive in
//! the order of the trace and none depart, and goes on with pods drawn from it, until the GPUs asked for are 130 % of
//! those there are: the experiment of the paper.
//!
//! **Fragmentation** is that of the paper, [`fragments::Typical`]: the part of the free GPUs that the typical pod, drawn
//! from the trace's pods that ask for GPUs, could not use.

pub mod csv;
pub mod devices;
pub mod fragments;
pub mod policy;
pub mod replay;
pub mod report;
pub mod svg;

use std::path::{Path, PathBuf};

/// The extended resource that a node's GPUs are, in thousandths of a device.
pub const GPU_MILLI: &str = "example.com/gpu-milli";
/// The label of a pod that says over how many devices its share lies.
pub const GPU_COUNT: &str = "example.com/gpu-count";

/// The trace cannot be replayed.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum TraceError {
    /// A file cannot be read or written.
    #[error("{}: {source}", path.display())]
    File {
        /// The file.
        path: PathBuf,
        /// Why.
        source: std::io::Error,
    },
    /// A line of a file does not have the form that it must have.
    #[error("{}: line {line}: {field}: {fault}", path.display())]
    Line {
        /// The file.
        path: PathBuf,
        /// The number of the line, from 1.
        line: usize,
        /// The column.
        field: &'static str,
        /// What is wrong with it.
        fault: String,
    },
    /// A file holds a header alone.
    #[error("{}: there is no line after the header", path.display())]
    Empty {
        /// The file.
        path: PathBuf,
    },
}

/// A node of the trace.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NodeRow {
    /// The name.
    pub name: String,
    /// CPU, in thousandths.
    pub cpu_milli: i64,
    /// Memory, in MiB.
    pub memory_mib: i64,
    /// Devices.
    pub gpus: usize,
    /// The model of the devices; empty without devices.
    pub model: String,
}

/// A pod of the trace.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PodRow {
    /// The name.
    pub name: String,
    /// CPU, in thousandths.
    pub cpu_milli: i64,
    /// Memory, in MiB.
    pub memory_mib: i64,
    /// Devices.
    pub gpus: usize,
    /// Thousandths of each device; 1000 is all of it.
    pub gpu_milli: i64,
    /// Models that will do; empty for all.
    pub models: Vec<String>,
    /// When it arrives, in seconds.
    pub arrives: u64,
    /// When it departs, in seconds.
    pub departs: u64,
}

impl PodRow {
    /// Thousandths of GPUs in all.
    #[must_use]
    pub fn gpu_milli_all(&self) -> i64 {
        self.gpu_milli.saturating_mul(i64::try_from(self.gpus).unwrap_or(i64::MAX))
    }
}

/// A trace.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Trace {
    /// The nodes.
    pub nodes: Vec<NodeRow>,
    /// The pods, in order of arrival.
    pub pods: Vec<PodRow>,
}

impl Trace {
    /// Reads the two files of a folder.
    ///
    /// # Errors
    /// If a file is missing or a line of it is broken.
    pub fn read(folder: &Path) -> Result<Self, TraceError> {
        let nodes = csv::nodes(&folder.join(csv::NODES))?;
        let mut pods = csv::pods(&folder.join(csv::PODS))?;
        pods.sort_by_key(|p| p.arrives);
        Ok(Self { nodes, pods })
    }
}
