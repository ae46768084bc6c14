//! The cluster.

use alloc::collections::{BTreeMap, BTreeSet};
use alloc::string::String;
use alloc::sync::Arc;
use alloc::vec::Vec;

use icp_core::api::labels::Selector;
use icp_core::client::ObjectKey;

use super::classes::Classes;
use super::images::Images;
use super::pods::{Placed, Pods};
use super::{Change, ChangeLog, ClassId, Columns, Index, NodeId, Selectors, Shared, Storage};
use crate::model::{Node, Pod, PodSpec};

/// The topology keys of default spreading.
const DEFAULT_TOPOLOGIES: [&str; 2] = ["kubernetes.io/hostname", "topology.kubernetes.io/zone"];

/// Nodes, the pods on them, and namespaces.
#[derive(Debug, Default)]
pub struct Cluster {
    columns: Columns,
    by_name: Index<64>,
    classes: Classes,
    pods: Pods,
    /// Pods whose node is not known, by its name.
    homeless: Shared<BTreeMap<String, BTreeSet<ObjectKey>>>,
    namespaces: Shared<BTreeMap<String, BTreeMap<String, String>>>,
    images: Images,
    selectors: Shared<Selectors>,
    changes: ChangeLog,
    storage: Shared<Storage>,
}

impl Cluster {
    /// A copy that goes its own way from here. It takes a few instructions for each chunk of 512 nodes or 64 pods; both
    /// sides copy a chunk when they first write to it. The first write on either side to one of these copies the whole
    /// of it: namespaces, names of images, what selects pods, storage objects, pods whose node is not known.
    #[must_use]
    pub fn snapshot(&mut self) -> Self {
        Self {
            columns: self.columns.share(),
            by_name: self.by_name.share(),
            classes: self.classes.share(),
            pods: self.pods.share(),
            homeless: self.homeless.share(),
            namespaces: self.namespaces.share(),
            images: self.images.share(),
            selectors: self.selectors.share(),
            changes: self.changes.tail(),
            storage: self.storage.share(),
        }
    }

    /// How many nodes there are.
    #[must_use]
    pub fn node_count(&self) -> usize {
        self.by_name.len()
    }

    /// How many pods weigh on nodes.
    #[must_use]
    pub fn pod_count(&self) -> usize {
        self.pods.len()
    }

    /// The node of that name.
    #[must_use]
    pub fn node_id(&self, name: &str) -> Option<NodeId> {
        let is = |row: u32| self.node(NodeId(row)).is_some_and(|n| n.name == name);
        self.by_name.find(self.by_name.hash(name), is).map(NodeId)
    }

    /// The node in that row.
    #[must_use]
    pub fn node(&self, id: NodeId) -> Option<&Arc<Node>> {
        self.columns.nodes.get(id.row())?.as_ref()
    }

    /// All nodes, in order of row.
    pub fn nodes(&self) -> impl Iterator<Item = (NodeId, &Arc<Node>)> {
        self.columns.nodes.iter().enumerate().filter_map(|(at, n)| Some((NodeId::of(at), n.as_ref()?)))
    }

    /// The pods on a node.
    pub fn pods_on(&self, id: NodeId) -> impl Iterator<Item = &Pod> {
        self.pods.on(id).map(|p| &p.pod)
    }

    /// The same with their classes.
    pub(crate) fn placed_on(&self, id: NodeId) -> impl Iterator<Item = (&Pod, ClassId)> {
        self.pods.on(id).map(|p| (&p.pod, p.class))
    }

    /// The pod of that name, if it weighs on a node.
    #[must_use]
    pub fn pod(&self, key: &ObjectKey) -> Option<&Pod> {
        self.pods.get(key).map(|p| &p.pod)
    }

    /// Whether the pod was assumed, and not confirmed.
    #[must_use]
    pub fn is_assumed(&self, key: &ObjectKey) -> bool {
        self.pods.get(key).is_some_and(|p| p.assumed)
    }

    /// The spec of a class; `None` when no pod holds it any more.
    #[must_use]
    pub fn spec(&self, class: ClassId) -> Option<&Arc<PodSpec>> {
        self.classes.spec(class)
    }

    /// The labels of a namespace, if it is known.
    #[must_use]
    pub fn namespace(&self, name: &str) -> Option<&BTreeMap<String, String>> {
        self.namespaces.get().get(name)
    }

    pub(crate) const fn columns(&self) -> &Columns {
        &self.columns
    }

    pub(crate) const fn images(&self) -> &Images {
        &self.images
    }

    /// The classes of the pods on a node, with how many of each.
    pub(crate) fn classes_on(&self, row: usize) -> impl Iterator<Item = (&Arc<PodSpec>, u32)> {
        let list = self.columns.classes.get(row).map(|l| l.as_slice()).unwrap_or_default();
        list.iter().filter_map(|(class, count)| Some((self.classes.spec(*class)?, *count)))
    }

    /// How many pods of each class run on a node.
    pub(crate) fn class_counts(&self, row: usize) -> impl Iterator<Item = (ClassId, u32)> {
        self.columns.classes.get(row).into_iter().flatten().copied()
    }

    /// What is known of claims, volumes and storage classes.
    #[must_use]
    pub fn storage(&self) -> &Storage {
        self.storage.get()
    }

    /// The same, to write observations into.
    pub fn storage_mut(&mut self) -> &mut Storage {
        self.storage.get_mut()
    }

    pub(crate) fn selectors(&self) -> &Selectors {
        self.selectors.get()
    }

    /// Writes which pods a Service selects, for default spreading; `None` when it is gone. Says whether that is news.
    pub fn set_service(
        &mut self,
        namespace: &str,
        name: &str,
        selector: Option<BTreeMap<String, String>>,
    ) -> bool {
        let changed = self.selectors.get_mut().set_service(namespace, name, selector);
        self.selectors_changed(changed);
        changed
    }

    /// Writes which pods a ReplicaSet, StatefulSet or ReplicationController selects, for default spreading; `None` when
    /// it is gone. Says whether that is news.
    pub fn set_controller(
        &mut self,
        namespace: &str,
        kind: &str,
        name: &str,
        selector: Option<Selector>,
    ) -> bool {
        let changed = self.selectors.get_mut().set_controller(namespace, kind, name, selector);
        self.selectors_changed(changed);
        changed
    }

    fn selectors_changed(&mut self, changed: bool) {
        if changed {
            self.changes.push(Change::Meaning);
        }
        if !self.selectors.get().is_empty() {
            for key in DEFAULT_TOPOLOGIES {
                self.columns.topology.ensure(key, &self.columns.nodes);
            }
        }
    }

    /// Makes columns for the topology keys that a pod names, so that plugins can ask for domains.
    pub(crate) fn prepare(&mut self, pod: &PodSpec) {
        for key in pod.topology_keys() {
            self.columns.topology.ensure(key, &self.columns.nodes);
        }
    }

    /// Makes a column for a label of nodes, so that plugins can ask for domains.
    pub fn follow_topology(&mut self, key: &str) {
        self.columns.topology.ensure(key, &self.columns.nodes);
    }

    fn acquire(&mut self, spec: &Arc<PodSpec>) -> ClassId {
        self.prepare(spec);
        self.classes.acquire(spec)
    }

    /// Adds a node, or replaces what is known of it.
    pub fn set_node(&mut self, node: Node) -> NodeId {
        let node = Arc::new(node);
        let id = match self.node_id(&node.name) {
            Some(id) => {
                if let Some(old) = self.node(id).cloned() {
                    self.images.remove(id, &old);
                }
                id
            }
            None => {
                let id = self.columns.take_row();
                self.by_name.insert(self.by_name.hash(node.name.as_str()), id.0);
                id
            }
        };
        self.images.add(id, &node);
        self.changes.push(Change::Node { row: id.0 });
        let name = node.name.clone();
        self.columns.set(id, Some(node));
        let waiting = if self.homeless.get().contains_key(&name) {
            self.homeless.get_mut().remove(&name)
        } else {
            None
        };
        for key in waiting.unwrap_or_default() {
            if let Some(placed) = self.pods.remove(&key) {
                self.place(placed.pod, placed.class, placed.assumed);
            }
        }
        id
    }

    /// Removes a node; its pods stay known, and weigh again if it comes back.
    pub fn remove_node(&mut self, name: &str) -> bool {
        let Some(id) = self.node_id(name) else { return false };
        self.by_name.remove(self.by_name.hash(name), id.0);
        let keys: Vec<ObjectKey> = self.pods.on(id).map(|p| p.pod.key.clone()).collect();
        for key in keys {
            if let Some(mut placed) = self.pods.remove(&key) {
                if let Some(spec) = self.classes.spec(placed.class).cloned() {
                    self.weigh(id, placed.class, &spec, -1);
                }
                placed.node = None;
                self.homeless.get_mut().entry(name.into()).or_default().insert(key);
                self.pods.insert(placed);
            }
        }
        if let Some(node) = self.node(id).cloned() {
            self.images.remove(id, &node);
        }
        self.columns.free_row(id);
        self.changes.push(Change::Node { row: id.0 });
        true
    }

    /// Adds a pod that is bound to a node, or replaces what is known of it. A pod without a node, or that ended,
    /// weighs on nothing.
    pub fn set_pod(&mut self, pod: Pod) {
        if let Some(old) = self.pods.get_mut(&pod.key) {
            if old.pod.uid == pod.uid && old.pod.node == pod.node && old.pod.spec == pod.spec && !pod.ended {
                old.assumed = false;
                let started = old.pod.started != pod.started;
                old.pod = pod;
                if let (true, Some(node)) = (started, old.node) {
                    self.changes.push(Change::Started { row: node.0 });
                }
                return;
            }
            self.remove_pod(&pod.key);
        }
        if pod.node.is_some() && !pod.ended {
            let class = self.acquire(&pod.spec);
            self.place(pod, class, false);
        }
    }

    /// Places a pod on a node before the API server shows it there.
    pub fn assume(&mut self, mut pod: Pod, node: NodeId) {
        let Some(name) = self.node(node).map(|n| n.name.clone()) else { return };
        let hash = self.pods.hash(&pod.key);
        if self.pods.has(&pod.key, hash) {
            self.remove_pod(&pod.key);
        }
        pod.node = Some(name);
        let class = self.acquire(&pod.spec);
        self.weigh(node, class, &pod.spec, 1);
        self.pods.insert_hashed(Placed { pod, class, node: Some(node), assumed: true }, hash);
    }

    /// Takes back an assumed pod; says whether there was one.
    pub fn forget(&mut self, key: &ObjectKey) -> bool {
        self.is_assumed(key) && self.remove_pod(key).is_some()
    }

    /// Removes a pod from its node.
    pub fn remove_pod(&mut self, key: &ObjectKey) -> Option<Pod> {
        let placed = self.pods.remove(key)?;
        match (placed.node, &placed.pod.node) {
            (Some(node), _) => self.weigh(node, placed.class, &placed.pod.spec, -1),
            (None, Some(name)) => {
                if let Some(keys) = self.homeless.get_mut().get_mut(name) {
                    keys.remove(key);
                    if keys.is_empty() {
                        self.homeless.get_mut().remove(name);
                    }
                }
            }
            (None, None) => {}
        }
        self.classes.release(placed.class);
        Some(placed.pod)
    }

    fn place(&mut self, pod: Pod, class: ClassId, assumed: bool) {
        let Some(name) = &pod.node else { return };
        let node = self.node_id(name);
        match node {
            Some(id) => self.weigh(id, class, &pod.spec, 1),
            None => {
                self.homeless.get_mut().entry(name.clone()).or_default().insert(pod.key.clone());
            }
        }
        self.pods.insert(Placed { pod, class, node, assumed });
    }

    fn weigh(&mut self, id: NodeId, class: ClassId, spec: &Arc<PodSpec>, times: i8) {
        self.columns.weigh(id, class, spec, i64::from(times));
        let serial = self.classes.serial(class);
        self.changes.push(Change::Pod { row: id.0, spec: Arc::clone(spec), serial, times });
    }

    /// Takes a pod off its node for a while; it keeps its class.
    pub(crate) fn lift(&mut self, key: &ObjectKey) -> Option<Placed> {
        let placed = self.pods.remove(key)?;
        if let Some(node) = placed.node {
            self.weigh(node, placed.class, &placed.pod.spec, -1);
        }
        Some(placed)
    }

    /// Puts a pod back that was lifted.
    pub(crate) fn put_back(&mut self, placed: Placed) {
        if let Some(node) = placed.node {
            self.weigh(node, placed.class, &placed.pod.spec, 1);
        }
        self.pods.insert(placed);
    }

    /// The spec that pods of the class share, if there is one; sharing it makes decisions faster.
    #[must_use]
    pub fn canonical(&self, spec: &PodSpec) -> Option<&Arc<PodSpec>> {
        self.classes.canonical(spec)
    }

    pub(crate) const fn changes(&self) -> &ChangeLog {
        &self.changes
    }

    /// The number of a class that is never used for another; see [`Change::Pod`].
    pub(crate) fn serial(&self, class: ClassId) -> u64 {
        self.classes.serial(class)
    }

    /// Writes the labels of a namespace.
    pub fn set_namespace(&mut self, name: &str, labels: BTreeMap<String, String>) {
        self.changes.push(Change::Meaning);
        self.namespaces.get_mut().insert(name.into(), labels);
    }

    /// Forgets a namespace.
    pub fn remove_namespace(&mut self, name: &str) {
        self.changes.push(Change::Meaning);
        self.namespaces.get_mut().remove(name);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn pod(name: u8, node: u8, cpu: i64) -> Pod {
        let mut spec = PodSpec::asking(cpu, 10);
        spec.requests.scalars.insert("example.com/gpu".into(), cpu);
        let mut pod = Pod::new(&alloc::format!("p{name}"), Arc::new(spec));
        pod.node = (node > 0).then(|| alloc::format!("n{node}"));
        pod
    }

    /// What a reader sees.
    fn seen(cluster: &Cluster) -> alloc::string::String {
        let nodes = cluster.nodes().map(|(id, n)| {
            let mut pods: Vec<_> = cluster.pods_on(id).collect();
            pods.sort_by_key(|p| &p.key);
            (n, pods, cluster.columns().load.get(id.row()).copied())
        });
        alloc::format!("{:?} {}", nodes.collect::<Vec<_>>(), cluster.pod_count())
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(64))]
        /// A snapshot and what it was taken from go their own ways.
        #[test]
        fn snapshots_are_apart(ops in prop::collection::vec((0..6_u8, any::<bool>(), 0..6_u8, 1..5_u8, 1..4_i64), 0..60)) {
            let mut sides = [Cluster::default(), Cluster::default()];
            for (op, which, name, node, cpu) in ops {
                let [left, right] = &mut sides;
                let (side, other) = if which { (left, right) } else { (right, left) };
                let before = seen(other);
                match op {
                    0 | 1 => { side.set_node(Node::new(&alloc::format!("n{node}"), 100, 100, 10)); }
                    2 => { side.remove_node(&alloc::format!("n{node}")); }
                    3 => side.set_pod(pod(name, node, cpu)),
                    4 => { side.remove_pod(&ObjectKey::new("default", &alloc::format!("p{name}"))); }
                    _ => {
                        *other = side.snapshot();
                        prop_assert_eq!(seen(side), seen(other));
                        continue;
                    }
                }
                prop_assert_eq!(seen(other), before);
            }
        }

        /// Whatever comes and goes in whatever order, a node carries the sum of the pods that name it.
        #[test]
        fn columns_are_sums(ops in prop::collection::vec((0..6_u8, 0..5_u8, 0..4_u8, 1..4_i64), 0..80)) {
            let mut cluster = Cluster::default();
            let mut model: BTreeMap<u8, (u8, i64)> = BTreeMap::new();
            let mut nodes: BTreeSet<u8> = BTreeSet::new();
            for (op, name, node, cpu) in ops {
                let key = ObjectKey::new("default", &alloc::format!("p{name}"));
                match op {
                    0 if node > 0 => { cluster.set_node(Node::new(&alloc::format!("n{node}"), 100, 100, 10)); nodes.insert(node); }
                    1 => { cluster.remove_node(&alloc::format!("n{node}")); nodes.remove(&node); }
                    2 | 3 => {
                        cluster.set_pod(pod(name, node, cpu));
                        if node > 0 { model.insert(name, (node, cpu)); } else { model.remove(&name); }
                    }
                    4 => {
                        if let Some(id) = cluster.node_id(&alloc::format!("n{node}")) {
                            cluster.assume(pod(name, 0, cpu), id);
                            model.insert(name, (node, cpu));
                        }
                    }
                    _ => { cluster.remove_pod(&key); model.remove(&name); }
                }
            }
            prop_assert_eq!(cluster.node_count(), nodes.len());
            prop_assert_eq!(cluster.pod_count(), model.len());
            for (id, node) in cluster.nodes() {
                let mine = model.values().filter(|(n, _)| node.name == alloc::format!("n{n}"));
                let want: i64 = mine.clone().map(|(_, cpu)| cpu).sum();
                let load = *cluster.columns().load.get(id.row()).unwrap();
                prop_assert_eq!(load.cpu, want);
                prop_assert_eq!(load.pods, mine.count() as i64);
                let gpu = cluster.columns().scalars.first().map_or(0, |s| *s.used.get(id.row()).unwrap());
                prop_assert_eq!(gpu, want);
                let counted: u32 = cluster.classes_on(id.row()).map(|(_, n)| n).sum();
                prop_assert_eq!(i64::from(counted), load.pods);
            }
        }
    }
}
