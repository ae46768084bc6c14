//! The default plugins of kube-scheduler, with its names, weights, arithmetic and messages.
//!
//! ```
//! use icp_sched::plugins;
//! let names: Vec<&str> = plugins::defaults().iter().map(|(p, _)| p.name()).collect();
//! assert_eq!(names[..3], ["NodeUnschedulable", "NodeName", "TaintToleration"]);
//! ```

pub(crate) mod balanced;
pub(crate) mod fit;
mod hints;
pub(crate) mod images;
pub(crate) mod interpod;
pub(crate) mod node_affinity;
mod node_features;
mod node_name;
pub(crate) mod node_ports;
pub(crate) mod resources;
pub(crate) mod spread;
pub(crate) mod taints;
pub(crate) mod unschedulable;
pub(crate) mod volumes;

use alloc::boxed::Box;
use alloc::vec;
use alloc::vec::Vec;

pub use balanced::BalancedAllocation;
pub use fit::{ResourcesFit, ScoringStrategy};
pub use images::ImageLocality;
pub use interpod::InterPodAffinity;
pub use node_affinity::NodeAffinity;
pub use node_features::NodeDeclaredFeatures;
pub use node_name::NodeName;
pub use node_ports::NodePorts;
pub use resources::{ResourceWeight, Shape};
pub use spread::{DefaultConstraint, PodTopologySpread};
pub use taints::TaintToleration;
pub use unschedulable::NodeUnschedulable;
pub use volumes::{
    NodeVolumeLimits, Preparation, VolumeBinding, VolumeRestrictions, VolumeZone, preparations,
};

use crate::framework::Plugin;

/// The plugins with their weights, in the order in which they filter: the first that rejects a node is the one that
/// is reported (`getDefaultPlugins`).
#[must_use]
pub fn defaults() -> Vec<(Box<dyn Plugin>, i64)> {
    vec![
        (Box::new(NodeUnschedulable), 0),
        (Box::new(NodeName), 0),
        (Box::new(TaintToleration), 3),
        (Box::new(NodeAffinity::default()), 2),
        (Box::new(NodePorts), 0),
        (Box::new(ResourcesFit::default()), 1),
        (Box::new(VolumeRestrictions), 0),
        (Box::new(NodeVolumeLimits), 0),
        (Box::new(VolumeBinding::default()), 0),
        (Box::new(VolumeZone), 0),
        (Box::new(PodTopologySpread::default()), 2),
        (Box::new(InterPodAffinity::default()), 2),
        (Box::new(NodeDeclaredFeatures), 0),
        (Box::new(BalancedAllocation::default()), 1),
        (Box::new(ImageLocality), 1),
    ]
}
