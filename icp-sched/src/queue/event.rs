//! What happens in the cluster, and for which rejections it matters.

use icp_core::client::ObjectKey;

use crate::cache::Cluster;
use crate::model::{Node, Pod};

/// The plugin that holds the pods of a gang back until they can run together.
pub const GANG_SCHEDULING: &str = "GangScheduling";

/// A change of the cluster that may give a rejected pod a chance.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[non_exhaustive]
pub enum ClusterEvent {
    /// A node came.
    NodeAdded,
    /// A node has more room or other images.
    NodeAllocatable,
    /// Labels of a node changed.
    NodeLabels,
    /// Taints of a node changed, or it was uncordoned.
    NodeTaints,
    /// A node declares other features.
    NodeFeatures,
    /// A node went.
    NodeRemoved,
    /// A pod was bound to a node.
    PodBound,
    /// A bound pod changed its labels, or asks for less.
    PodChanged,
    /// A bound pod went, ended, or is about to.
    PodRemoved,
    /// A namespace came, or changed its labels.
    NamespaceChanged,
    /// A claim came or changed.
    ClaimChanged,
    /// A volume came or changed.
    VolumeChanged,
    /// A storage class came or changed.
    StorageClassChanged,
    /// How many volumes a node takes changed (CSINode).
    CsiNodeChanged,
    /// A driver counts capacity, or does not any more (CSIDriver).
    CsiDriverChanged,
    /// There is capacity of a class somewhere, or more or less of it (CSIStorageCapacity).
    CapacityChanged,
    /// A Service or another thing that selects pods for default spreading changed.
    SelectorChanged,
}

impl ClusterEvent {
    /// The name in metrics.
    #[must_use]
    pub const fn label(self) -> &'static str {
        match self {
            Self::NodeAdded => "NodeAdd",
            Self::NodeAllocatable => "NodeUpdateNodeAllocatable",
            Self::NodeLabels => "NodeUpdateNodeLabel",
            Self::NodeTaints => "NodeUpdateNodeTaint",
            Self::NodeFeatures => "NodeUpdateNodeDeclaredFeature",
            Self::NodeRemoved => "NodeDelete",
            Self::PodBound => "AssignedPodAdd",
            Self::PodChanged => "AssignedPodUpdate",
            Self::PodRemoved => "AssignedPodDelete",
            Self::NamespaceChanged => "NamespaceUpdate",
            Self::ClaimChanged => "PersistentVolumeClaimUpdate",
            Self::VolumeChanged => "PersistentVolumeUpdate",
            Self::StorageClassChanged => "StorageClassUpdate",
            Self::CsiNodeChanged => "CSINodeUpdate",
            Self::CsiDriverChanged => "CSIDriverUpdate",
            Self::CapacityChanged => "CSIStorageCapacityUpdate",
            Self::SelectorChanged => "SelectorUpdate",
        }
    }

    /// Whether a pod that `plugin` rejected may fare better now (`EventsToRegister`). Plugins that are not known are
    /// asked again after anything.
    #[must_use]
    pub fn matters_to(self, plugin: &str) -> bool {
        use ClusterEvent as E;
        match plugin {
            "NodeUnschedulable" | "TaintToleration" => matches!(self, E::NodeAdded | E::NodeTaints),
            "NodeName" => matches!(self, E::NodeAdded),
            "NodeAffinity" => matches!(self, E::NodeAdded | E::NodeLabels),
            "NodePorts" => matches!(self, E::NodeAdded | E::PodRemoved),
            "NodeResourcesFit" => {
                matches!(self, E::NodeAdded | E::NodeAllocatable | E::PodRemoved | E::PodChanged)
            }
            "PodTopologySpread" => matches!(
                self,
                E::NodeAdded
                    | E::NodeLabels
                    | E::NodeTaints
                    | E::NodeRemoved
                    | E::PodBound
                    | E::PodChanged
                    | E::PodRemoved
                    | E::SelectorChanged
            ),
            "InterPodAffinity" => matches!(
                self,
                E::NodeAdded
                    | E::NodeLabels
                    | E::NodeRemoved
                    | E::PodBound
                    | E::PodChanged
                    | E::PodRemoved
                    | E::NamespaceChanged
            ),
            "NodeDeclaredFeatures" => matches!(self, E::NodeAdded | E::NodeFeatures),
            "VolumeBinding" => matches!(
                self,
                E::NodeAdded
                    | E::NodeLabels
                    | E::ClaimChanged
                    | E::VolumeChanged
                    | E::StorageClassChanged
                    | E::CsiNodeChanged
                    | E::CsiDriverChanged
                    | E::CapacityChanged
            ),
            "VolumeZone" => matches!(
                self,
                E::NodeAdded | E::NodeLabels | E::ClaimChanged | E::VolumeChanged | E::StorageClassChanged
            ),
            "NodeVolumeLimits" => {
                matches!(self, E::NodeAdded | E::PodRemoved | E::ClaimChanged | E::CsiNodeChanged)
            }
            // A gang waits for its pods and its PodGroup: nothing else helps it, and whoever sees those tells it.
            GANG_SCHEDULING => false,
            "VolumeRestrictions" => matches!(self, E::NodeAdded | E::PodRemoved | E::ClaimChanged),
            _ => true,
        }
    }
}

/// What came, changed or went, as far as it is known.
#[derive(Clone, Copy, Debug)]
#[non_exhaustive]
pub enum Changed<'a> {
    /// Nothing is known of it.
    Unknown,
    /// A node: as it was, and as it is.
    Node {
        /// Nothing if it came.
        old: Option<&'a Node>,
        /// Nothing if it went.
        new: Option<&'a Node>,
    },
    /// A pod that is on a node: as it was, and as it is.
    Pod {
        /// Nothing if it came.
        old: Option<&'a Pod>,
        /// Nothing if it went.
        new: Option<&'a Pod>,
    },
    /// A claim.
    Claim(&'a ObjectKey),
}

/// Something that happened, for plugins to say for which pods it matters.
#[derive(Clone, Copy, Debug)]
pub struct Happened<'a> {
    /// What kind of thing.
    pub event: ClusterEvent,
    /// To what.
    pub what: Changed<'a>,
    /// The cluster, as it is after it.
    pub cluster: &'a Cluster,
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What upstream registers for each plugin, with hints on (`EventsToRegister`, v1.34), and what had to be added because
    /// this scheduler observes more or less than it.
    #[test]
    fn each_plugin_hears_of_what_matters_to_it() {
        use ClusterEvent as E;
        const ALL: [E; 17] = [
            E::NodeAdded,
            E::NodeAllocatable,
            E::NodeLabels,
            E::NodeTaints,
            E::NodeFeatures,
            E::NodeRemoved,
            E::PodBound,
            E::PodChanged,
            E::PodRemoved,
            E::NamespaceChanged,
            E::ClaimChanged,
            E::VolumeChanged,
            E::StorageClassChanged,
            E::CsiNodeChanged,
            E::CsiDriverChanged,
            E::CapacityChanged,
            E::SelectorChanged,
        ];
        let table: [(&str, &[E]); 15] = [
            (GANG_SCHEDULING, &[]),
            ("NodeUnschedulable", &[E::NodeAdded, E::NodeTaints]),
            ("NodeName", &[E::NodeAdded]),
            ("TaintToleration", &[E::NodeAdded, E::NodeTaints]),
            ("NodeAffinity", &[E::NodeAdded, E::NodeLabels]),
            ("NodePorts", &[E::NodeAdded, E::PodRemoved]),
            ("NodeResourcesFit", &[E::NodeAdded, E::NodeAllocatable, E::PodChanged, E::PodRemoved]),
            ("VolumeRestrictions", &[E::NodeAdded, E::PodRemoved, E::ClaimChanged]),
            // A new node that has no CSINode yet takes any number of volumes here.
            ("NodeVolumeLimits", &[E::NodeAdded, E::PodRemoved, E::ClaimChanged, E::CsiNodeChanged]),
            (
                "VolumeBinding",
                &[
                    E::NodeAdded,
                    E::NodeLabels,
                    E::ClaimChanged,
                    E::VolumeChanged,
                    E::StorageClassChanged,
                    E::CsiNodeChanged,
                    E::CsiDriverChanged,
                    E::CapacityChanged,
                ],
            ),
            (
                "VolumeZone",
                &[E::NodeAdded, E::NodeLabels, E::ClaimChanged, E::VolumeChanged, E::StorageClassChanged],
            ),
            (
                "PodTopologySpread",
                &[
                    E::NodeAdded,
                    E::NodeLabels,
                    E::NodeTaints,
                    E::NodeRemoved,
                    E::PodBound,
                    E::PodChanged,
                    E::PodRemoved,
                    // Default constraints count what Services and controllers select.
                    E::SelectorChanged,
                ],
            ),
            (
                "InterPodAffinity",
                &[
                    E::NodeAdded,
                    E::NodeLabels,
                    // Pods of a node that is gone repel nobody.
                    E::NodeRemoved,
                    E::PodBound,
                    E::PodChanged,
                    E::PodRemoved,
                    // Namespace selectors.
                    E::NamespaceChanged,
                ],
            ),
            ("NodeDeclaredFeatures", &[E::NodeAdded, E::NodeFeatures]),
            // Nobody knows what a plugin of one's own looks at, but itself.
            ("Mine", &ALL),
        ];
        for (plugin, events) in table {
            for event in ALL {
                assert_eq!(event.matters_to(plugin), events.contains(&event), "{plugin}: {event:?}");
            }
        }
    }
}
