//! GPUs that pods share: what is free of each device, and the plugin that looks at it.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use icp_sched::cache::NodeId;
use icp_sched::framework::{Cycle, FilterPlan, Plugin, Rejected};
use icp_sched::model::PodSpec;

use super::{GPU_COUNT, GPU_MILLI, NodeRow, PodRow};

/// What is free on a node.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Free {
    /// CPU, in thousandths.
    pub cpu_milli: i64,
    /// Memory, in MiB.
    pub memory_mib: i64,
    /// Thousandths of each device.
    pub gpus: Vec<i64>,
}

/// What a pod asks for.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct Ask {
    /// CPU, in thousandths.
    pub cpu_milli: i64,
    /// Memory, in MiB.
    pub memory_mib: i64,
    /// Devices.
    pub gpus: usize,
    /// Thousandths of each device.
    pub gpu_milli: i64,
}

impl Ask {
    /// What a pod of the trace asks for.
    #[must_use]
    pub const fn of(pod: &PodRow) -> Self {
        let PodRow { cpu_milli, memory_mib, gpus, gpu_milli, .. } = *pod;
        Self { cpu_milli, memory_mib, gpus, gpu_milli }
    }

    /// What a pod of the scheduler asks for.
    #[must_use]
    pub fn of_spec(pod: &PodSpec) -> Self {
        let all = pod.requests.scalars.get(GPU_MILLI).copied().unwrap_or(0);
        let gpus = pod.labels.get(GPU_COUNT).and_then(|n| n.parse().ok()).unwrap_or(0_usize);
        Self {
            cpu_milli: pod.requests.cpu,
            memory_mib: pod.requests.memory >> 20,
            gpus,
            gpu_milli: all / i64::try_from(gpus.max(1)).unwrap_or(1),
        }
    }
}

impl Free {
    /// An empty node.
    #[must_use]
    pub fn of(node: &NodeRow) -> Self {
        Self { cpu_milli: node.cpu_milli, memory_mib: node.memory_mib, gpus: vec![1_000; node.gpus] }
    }

    /// Thousandths of GPUs that are free.
    #[must_use]
    pub fn gpu_milli(&self) -> i64 {
        self.gpus.iter().sum()
    }

    /// The devices that a pod would get: those with the least room that suffices. `None` if there are too few.
    #[must_use]
    pub fn devices(&self, ask: &Ask) -> Option<Vec<usize>> {
        let room = self.gpus.iter().enumerate().filter(|(_, free)| **free >= ask.gpu_milli);
        let mut fit: Vec<(i64, usize)> = room.map(|(d, free)| (*free, d)).collect();
        if fit.len() < ask.gpus {
            return None;
        }
        fit.sort_unstable();
        Some(fit.into_iter().take(ask.gpus).map(|(_, d)| d).collect())
    }

    /// Whether the pod has room, in all.
    #[must_use]
    pub fn fits(&self, ask: &Ask) -> bool {
        self.cpu_milli >= ask.cpu_milli
            && self.memory_mib >= ask.memory_mib
            && self.gpus.iter().filter(|free| **free >= ask.gpu_milli).count() >= ask.gpus
    }

    /// Takes room for the pod on these devices, or gives it back (`sign` -1).
    pub fn take(&mut self, ask: &Ask, devices: &[usize], sign: i64) {
        self.cpu_milli -= sign * ask.cpu_milli;
        self.memory_mib -= sign * ask.memory_mib;
        for (_, free) in self.gpus.iter_mut().enumerate().filter(|(d, _)| devices.contains(d)) {
            *free -= sign * ask.gpu_milli;
        }
    }
}

/// All nodes with what is free on them.
#[derive(Debug, Default)]
pub struct Fleet {
    at: BTreeMap<NodeId, usize>,
    nodes: Vec<Free>,
}

impl Fleet {
    /// Adds an empty node.
    pub fn add(&mut self, id: NodeId, node: &NodeRow) {
        self.at.insert(id, self.nodes.len());
        self.nodes.push(Free::of(node));
    }

    /// The number of a node, in the order in which they were added.
    #[must_use]
    pub fn number(&self, id: NodeId) -> Option<usize> {
        self.at.get(&id).copied()
    }

    /// What is free on the nodes.
    #[must_use]
    pub fn nodes(&self) -> &[Free] {
        &self.nodes
    }

    /// What is free on the node of that number.
    pub fn node_mut(&mut self, number: usize) -> Option<&mut Free> {
        self.nodes.get_mut(number)
    }

    /// What is free on a node.
    #[must_use]
    pub fn get(&self, id: NodeId) -> Option<&Free> {
        self.nodes.get(self.number(id)?)
    }
}

/// The fleet, as the plugins and the replay share it.
pub type SharedFleet = Arc<Mutex<Fleet>>;

/// Looks into the fleet.
pub fn lock(fleet: &SharedFleet) -> MutexGuard<'_, Fleet> {
    fleet.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Keeps pods off nodes without devices that have enough room each.
#[derive(Clone, Debug)]
pub struct GpuShare(pub SharedFleet);

impl Plugin for GpuShare {
    fn name(&self) -> &'static str {
        "GpuShare"
    }

    fn filter<'a>(&'a self, cycle: Cycle<'a>) -> FilterPlan<'a> {
        let ask = Ask::of_spec(cycle.pod);
        if ask.gpus == 0 {
            return FilterPlan::Skip;
        }
        FilterPlan::Each(Box::new(move |id| {
            let fits = lock(&self.0).get(id).is_some_and(|free| free.devices(&ask).is_some());
            (!fits).then(|| Rejected::unschedulable("no GPU with enough room for a share"))
        }))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_share_lies_on_one_device_and_on_the_fullest_that_has_room() {
        let mut free = Free { cpu_milli: 9_000, memory_mib: 9_000, gpus: vec![1_000, 400, 600] };
        let half = Ask { cpu_milli: 1, memory_mib: 1, gpus: 1, gpu_milli: 500 };
        assert_eq!(free.devices(&half), Some(vec![2]));
        assert_eq!(
            free.devices(&Ask { gpus: 2, gpu_milli: 1_000, ..half }),
            None,
            "2000 are free, on three devices"
        );
        free.take(&half, &[2], 1);
        assert_eq!((free.gpu_milli(), free.cpu_milli), (1_500, 8_999));
        assert!(free.fits(&half) && !free.fits(&Ask { gpus: 2, ..half }));
        free.take(&half, &[2], -1);
        assert_eq!(free.gpus, [1_000, 400, 600]);
    }
}
