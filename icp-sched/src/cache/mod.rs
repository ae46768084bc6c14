//! The cluster as columns: what each node has and what is taken, pods by class, and what changed.
//!
//! Pods with equal specs share a class. A node knows how many pods of each class run on it, so that questions about
//! pods (affinity, spreading) are asked once per class and never per pod.
//!
//! All of it is kept in chunks that snapshots share until one side writes to them, see [`Cluster::snapshot`].
//!
//! ```
//! use std::sync::Arc;
//! use icp_sched::cache::Cluster;
//! use icp_sched::model::{Node, Pod, PodSpec};
//! let mut cluster = Cluster::default();
//! cluster.set_node(Node::new("w1", 4_000, 8 << 30, 110));
//! let mut web = Pod::new("web", Arc::new(PodSpec::asking(500, 1 << 30)));
//! web.node = Some("w1".into());
//! cluster.set_pod(web);
//! let w1 = cluster.node_id("w1").unwrap();
//! assert_eq!(cluster.pods_on(w1).count(), 1);
//! ```

mod changes;
mod classes;
mod cluster;
mod columns;
pub(crate) mod domains;
mod images;
mod pods;
mod selectors;
pub(crate) mod shared;
mod storage;
mod topology;

pub use classes::ClassId;
pub use cluster::Cluster;
pub use columns::NodeId;
pub use storage::Storage;

pub(crate) use changes::{Change, ChangeLog, Log};
pub(crate) use columns::{Capacity, Columns, Load};
pub(crate) use selectors::Selectors;
pub(crate) use shared::{Chunks, Index, Shared};
pub(crate) use topology::NO_DOMAIN;

/// A map that hashes the same way on every machine.
pub(crate) type Map<K, V> = hashbrown::HashMap<K, V, foldhash::fast::FixedState>;
