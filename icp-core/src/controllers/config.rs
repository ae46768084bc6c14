//! What the manager needs to know.

use alloc::boxed::Box;
use alloc::string::String;
use alloc::vec::Vec;

use super::{Controller, deployment, replicaset};
use crate::api::Gvr;
use crate::client::LeaderElectorConfig;

/// A resource with its kind.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct ResourceKind {
    /// The resource.
    pub gvr: Gvr,
    /// The kind of its objects.
    pub kind: String,
    /// Whether objects live in namespaces.
    pub namespaced: bool,
}

/// What the manager needs to know; the defaults are those of kube-controller-manager.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct ManagerConfig {
    /// Who this is in Events: the host name.
    pub instance: String,
    /// The Lease by which one of several managers is elected; without it the manager acts at once.
    pub leader_election: Option<LeaderElectorConfig>,
}

impl ManagerConfig {
    /// The built-in controllers.
    pub(super) fn controllers(&self) -> Vec<Box<dyn Controller>> {
        alloc::vec![
            Box::new(deployment::Deployments),
            Box::new(replicaset::ReplicaSets::new()),
            Box::new(replicaset::ReplicaSets::replication_controllers()),
        ]
    }
}
