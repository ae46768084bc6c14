//! What the scheduler knows of pods and nodes: a thin model, read from API objects or filled in by hand.
//!
//! A [`Pod`] is an identity and a shared [`PodSpec`]; pods made from one template have equal specs, and equal specs
//! are one equivalence class in the cluster's columns.
//!
//! ```
//! use icp_core::api::Object;
//! use icp_sched::model::Pod;
//! let text = r#"{"metadata":{"name":"web","namespace":"default"},
//!     "spec":{"containers":[{"name":"c","resources":{"requests":{"cpu":"250m"}}}]}}"#;
//! let object: Object = serde_json::from_str(text).unwrap();
//! let pod = Pod::from_object(&object).unwrap();
//! assert_eq!(pod.spec.requests.cpu, 250);
//! assert_eq!(pod.spec.non_zero_memory, 200 << 20); // what an empty request is taken for
//! ```

mod affinity;
mod error;
mod node;
mod pod;
mod raw;
mod requests;
mod spread;
mod storage;
mod taints;
mod volumes;

pub use affinity::{AffinityTerm, NodeTerm, PreferredNodeTerm, WeightedAffinityTerm};
pub use error::ModelError;
pub use node::{Image, Node};
pub(crate) use pod::node_affinity;
pub use pod::{HostPort, Pod, PodSpec};
pub use requests::Resources;
pub use spread::SpreadConstraint;
pub(crate) use storage::SELECTED_NODE;
pub use storage::{Claim, StorageCapacity, StorageClass, Volume};
pub use taints::{Effect, Taint, Toleration, TolerationOp};
pub use volumes::VolumeSource;
