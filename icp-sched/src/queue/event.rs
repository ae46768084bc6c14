//! What happens in the cluster, and for which rejections it matters.

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
    /// A claim, volume, storage class or limit of volumes came or changed.
    StorageChanged,
    /// A Service or another thing that selects pods for default spreading changed.
    SelectorChanged,
}

impl ClusterEvent {
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
            ),
            "InterPodAffinity" => matches!(
                self,
                E::NodeAdded
                    | E::NodeLabels
                    | E::PodBound
                    | E::PodChanged
                    | E::PodRemoved
                    | E::NamespaceChanged
            ),
            "VolumeBinding" | "VolumeZone" => {
                matches!(self, E::NodeAdded | E::NodeLabels | E::StorageChanged)
            }
            "NodeVolumeLimits" => matches!(self, E::NodeAdded | E::PodRemoved | E::StorageChanged),
            "VolumeRestrictions" => matches!(self, E::NodeAdded | E::PodRemoved | E::StorageChanged),
            _ => true,
        }
    }
}
