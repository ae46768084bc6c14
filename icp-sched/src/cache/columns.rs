//! Nodes as a structure of arrays.

use alloc::string::String;
use alloc::sync::Arc;
use alloc::vec::Vec;

use smallvec::SmallVec;

use super::topology::Topology;
use super::{Chunks, ClassId};
use crate::model::{HostPort, Node, PodSpec};

/// A node by its row. Rows of nodes that are gone are used again.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct NodeId(pub(crate) u32);

impl NodeId {
    pub(crate) fn of(at: usize) -> Self {
        Self(u32::try_from(at).unwrap_or(u32::MAX))
    }

    /// The row.
    #[must_use]
    pub const fn row(self) -> usize {
        self.0 as usize
    }
}

/// A resource beside CPU, memory and ephemeral storage.
#[derive(Debug)]
pub(crate) struct ScalarColumn {
    pub(crate) name: String,
    pub(crate) allocatable: Chunks<i64>,
    pub(crate) used: Chunks<i64>,
}

/// What the arithmetic of a node needs.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Load {
    pub(crate) cpu: i64,
    pub(crate) memory: i64,
    pub(crate) ephemeral: i64,
    /// CPU and memory with the assumed amounts of pods that ask for none.
    pub(crate) filled_cpu: i64,
    pub(crate) filled_memory: i64,
    pub(crate) pods: i64,
}

impl Load {
    /// Adds a pod (`times` 1), or takes it away (-1).
    pub(crate) fn add(&mut self, spec: &PodSpec, times: i64) {
        let add = |a: &mut i64, b: i64| {
            // Nearly always it is one pod that comes.
            let b = if times == 1 { b } else { b.saturating_mul(times) };
            *a = a.saturating_add(b);
        };
        add(&mut self.cpu, spec.requests.cpu);
        add(&mut self.memory, spec.requests.memory);
        add(&mut self.ephemeral, spec.requests.ephemeral);
        add(&mut self.filled_cpu, spec.non_zero_cpu);
        add(&mut self.filled_memory, spec.non_zero_memory);
        add(&mut self.pods, 1);
    }
}

impl core::ops::SubAssign<&Load> for Load {
    fn sub_assign(&mut self, less: &Self) {
        let sub = |a: &mut i64, b: i64| *a = a.saturating_sub(b);
        sub(&mut self.cpu, less.cpu);
        sub(&mut self.memory, less.memory);
        sub(&mut self.ephemeral, less.ephemeral);
        sub(&mut self.filled_cpu, less.filled_cpu);
        sub(&mut self.filled_memory, less.filled_memory);
        sub(&mut self.pods, less.pods);
    }
}

/// What the pods of one priority take of a node.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Tier {
    pub(crate) priority: i32,
    pub(crate) load: Load,
}

/// The capacity of a node.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub(crate) struct Capacity {
    pub(crate) cpu: i64,
    pub(crate) memory: i64,
    pub(crate) ephemeral: i64,
    pub(crate) pods: i64,
}

/// The columns. A row is a node, or free.
#[derive(Debug, Default)]
pub(crate) struct Columns {
    pub(crate) nodes: Chunks<Option<Arc<Node>>>,
    pub(crate) capacity: Chunks<Capacity>,
    pub(crate) load: Chunks<Load>,
    pub(crate) scalars: Vec<ScalarColumn>,
    /// Host ports in use, as often as they are used.
    pub(crate) ports: Chunks<Vec<HostPort>>,
    /// How many pods of each class.
    pub(crate) classes: Chunks<SmallVec<[(ClassId, u32); 4]>>,
    /// What is taken by priority, the least important first.
    pub(crate) tiers: Chunks<SmallVec<[Tier; 1]>>,
    pub(crate) topology: Topology,
    free: Chunks<u32>,
}

impl Columns {
    /// The same columns for a snapshot.
    pub(super) fn share(&mut self) -> Self {
        let scalar = |s: &mut ScalarColumn| ScalarColumn {
            name: s.name.clone(),
            allocatable: s.allocatable.share(),
            used: s.used.share(),
        };
        Self {
            nodes: self.nodes.share(),
            capacity: self.capacity.share(),
            load: self.load.share(),
            scalars: self.scalars.iter_mut().map(scalar).collect(),
            ports: self.ports.share(),
            classes: self.classes.share(),
            tiers: self.tiers.share(),
            topology: self.topology.share(),
            free: self.free.share(),
        }
    }

    pub(crate) fn rows(&self) -> usize {
        self.nodes.len()
    }

    pub(super) fn take_row(&mut self) -> NodeId {
        if let Some(row) = self.free.pop() {
            return NodeId(row);
        }
        self.nodes.push(None);
        self.capacity.push(Capacity::default());
        self.load.push(Load::default());
        self.ports.push(Vec::new());
        self.classes.push(SmallVec::new());
        self.tiers.push(SmallVec::new());
        let rows = self.nodes.len();
        for s in &mut self.scalars {
            s.allocatable.grow(rows, || 0);
            s.used.grow(rows, || 0);
        }
        NodeId::of(rows - 1)
    }

    pub(super) fn free_row(&mut self, id: NodeId) {
        self.set(id, None);
        self.free.push(id.0);
    }

    /// Writes what a node has; what is taken stays.
    pub(super) fn set(&mut self, id: NodeId, node: Option<Arc<Node>>) {
        let row = id.row();
        let allocatable = node.as_ref().map(|n| n.allocatable.clone()).unwrap_or_default();
        if let Some(capacity) = self.capacity.get_mut(row) {
            *capacity = Capacity {
                cpu: allocatable.cpu,
                memory: allocatable.memory,
                ephemeral: allocatable.ephemeral,
                pods: node.as_ref().map_or(0, |n| n.pods_max),
            };
        }
        for name in allocatable.scalars.keys() {
            self.scalar(name);
        }
        for s in &mut self.scalars {
            if let Some(slot) = s.allocatable.get_mut(row) {
                *slot = allocatable.scalars.get(&s.name).copied().unwrap_or(0);
            }
        }
        self.topology.set_node(row, node.as_deref());
        if let Some(slot) = self.nodes.get_mut(row) {
            *slot = node;
        }
    }

    fn scalar(&mut self, name: &str) -> usize {
        if let Some(at) = self.scalars.iter().position(|s| s.name == name) {
            return at;
        }
        let (mut allocatable, mut used) = (Chunks::default(), Chunks::default());
        allocatable.grow(self.nodes.len(), || 0);
        used.grow(self.nodes.len(), || 0);
        // In order of name, so that reasons are.
        let at = self.scalars.iter().position(|s| s.name.as_str() > name).unwrap_or(self.scalars.len());
        self.scalars.insert(at, ScalarColumn { name: name.into(), allocatable, used });
        at
    }

    /// Puts a pod of a class on a node (`times` 1), or takes it away (-1).
    pub(super) fn weigh(&mut self, id: NodeId, class: ClassId, spec: &PodSpec, times: i64) {
        let row = id.row();
        if let Some(load) = self.load.get_mut(row) {
            load.add(spec, times);
        }
        self.weigh_tier(row, spec, times);
        for (name, amount) in &spec.requests.scalars {
            let at = self.scalar(name);
            if let Some(used) = self.scalars.get_mut(at).and_then(|s| s.used.get_mut(row)) {
                *used = used.saturating_add(amount.saturating_mul(times));
            }
        }
        if let Some(ports) = self.ports.get_mut(row).filter(|_| !spec.host_ports.is_empty()) {
            for port in &spec.host_ports {
                if times > 0 {
                    ports.push(port.clone());
                } else if let Some(at) = ports.iter().position(|p| p == port) {
                    ports.swap_remove(at);
                }
            }
        }
        let Some(classes) = self.classes.get_mut(row) else { return };
        match classes.iter().position(|(c, _)| *c == class) {
            Some(at) => {
                if let Some((_, count)) = classes.get_mut(at) {
                    *count = count.saturating_add_signed(if times > 0 { 1 } else { -1 });
                    if *count == 0 {
                        classes.swap_remove(at);
                    }
                }
            }
            None if times > 0 => classes.push((class, 1)),
            None => {}
        }
    }

    fn weigh_tier(&mut self, row: usize, spec: &PodSpec, times: i64) {
        let Some(tiers) = self.tiers.get_mut(row) else { return };
        let at = tiers.iter().position(|t| t.priority >= spec.priority).unwrap_or(tiers.len());
        match tiers.get_mut(at).filter(|t| t.priority == spec.priority) {
            Some(tier) => {
                tier.load.add(spec, times);
                if tier.load.pods <= 0 {
                    tiers.remove(at);
                }
            }
            None if times > 0 => {
                let mut load = Load::default();
                load.add(spec, times);
                tiers.insert(at, Tier { priority: spec.priority, load });
            }
            None => {}
        }
    }
}
