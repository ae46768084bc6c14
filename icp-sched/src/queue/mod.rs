//! Pods that wait for a node: those that are ready, those that pause after a failure, and those that nothing can be
//! done for until the cluster changes.
//!
//! ```
//! use std::sync::Arc;
//! use icp_core::base::Time;
//! use icp_sched::model::{Pod, PodSpec};
//! use icp_sched::queue::{ClusterEvent, Queue};
//! let mut queue = Queue::default();
//! let web = Pod::new("web", Arc::new(PodSpec::asking(500, 1 << 30)));
//! queue.set(Time::ZERO, web.clone());
//! assert_eq!(queue.pop(Time::ZERO).unwrap().key, web.key);
//! // No node had room: it waits for a node.
//! queue.unschedulable(Time::ZERO, &web.key, ["NodeResourcesFit"].into());
//! assert!(queue.pop(Time::from_secs(60)).is_none());
//! queue.happened(Time::from_secs(60), ClusterEvent::NodeAdded);
//! assert!(queue.pop(Time::from_secs(60)).is_some());
//! ```

mod event;
mod line;

pub use event::{Changed, ClusterEvent, GANG_SCHEDULING, Happened};
pub use line::{Queue, QueueSizes};
