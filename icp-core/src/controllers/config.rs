//! What the manager needs to know.

use alloc::boxed::Box;
use alloc::string::String;
use alloc::vec::Vec;

use super::{
    Controller, cronjob, daemonset, deployment, disruption, endpointslice, gc, job, namespace, node, podgc,
    replicaset, serviceaccount, statefulset,
};
use crate::api::{Gvr, table};
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

/// What the manager needs to know; the defaults are those of kube-controller-manager, but for
/// [`NodeLifecycleConfig`](node::NodeLifecycleConfig).
#[derive(Clone, Debug)]
pub struct ManagerConfig {
    /// Who this is in Events: the host name.
    pub instance: String,
    /// The Lease by which one of several managers is elected; without it the manager acts at once.
    pub leader_election: Option<LeaderElectorConfig>,
    /// What the namespace controller deletes and the garbage collector watches, besides custom resources.
    pub resources: Vec<ResourceKind>,
    /// The certificates of `kube-root-ca.crt` (PEM); empty publishes none.
    pub root_ca: String,
    /// Gives nodes their podCIDRs; empty leaves that to somebody else.
    pub cluster_cidrs: Vec<node::CidrAllocator>,
    /// How long silent nodes are borne.
    pub node_lifecycle: node::NodeLifecycleConfig,
    /// Pods that ended and are kept at most; 0 keeps all.
    pub finished_pods_max: usize,
}

impl Default for ManagerConfig {
    fn default() -> Self {
        Self {
            instance: String::new(),
            leader_election: None,
            resources: Self::builtin_resources(),
            root_ca: String::new(),
            cluster_cidrs: Vec::new(),
            node_lifecycle: node::NodeLifecycleConfig::default(),
            finished_pods_max: 12_500,
        }
    }
}

impl ManagerConfig {
    /// The built-in resources that can be listed, watched and deleted, each in one version; without Events, which depend on
    /// nothing.
    #[must_use]
    pub fn builtin_resources() -> Vec<ResourceKind> {
        let mut resources: Vec<ResourceKind> = Vec::new();
        for info in table::builtin() {
            let usable = ["list", "watch", "delete"].iter().all(|verb| info.has_verb(verb));
            let known = resources.iter().any(|r| r.gvr.group == info.gvr.group && r.kind == info.kind);
            if usable && !known && info.kind != "Event" {
                resources.push(ResourceKind {
                    gvr: info.gvr.clone(),
                    kind: info.kind.clone(),
                    namespaced: info.namespaced,
                });
            }
        }
        resources
    }

    /// The built-in controllers.
    pub(super) fn controllers(&self) -> Vec<Box<dyn Controller>> {
        let mut namespaced = self.resources.clone();
        // Events are deleted with their namespace.
        namespaced.push(ResourceKind {
            gvr: crate::api::resources::CORE_EVENTS,
            kind: "Event".into(),
            namespaced: true,
        });
        let mut controllers: Vec<Box<dyn Controller>> = alloc::vec![
            Box::new(cronjob::CronJobs::new()),
            Box::new(daemonset::DaemonSets),
            Box::new(deployment::Deployments),
            Box::new(disruption::DisruptionBudgets::new(self.resources.clone())),
            Box::new(disruption::StaleDisruptions),
            Box::new(endpointslice::EndpointSlices),
            Box::new(endpointslice::Endpoints),
            Box::new(gc::GarbageCollector::new(self.resources.clone())),
            Box::new(job::Jobs),
            Box::new(namespace::Namespaces::new(namespaced)),
            Box::new(node::NodeLifecycle::new(self.node_lifecycle)),
            Box::new(node::TaintEviction),
            Box::new(podgc::PodGc::new(self.finished_pods_max)),
            Box::new(replicaset::ReplicaSets::new()),
            Box::new(replicaset::ReplicaSets::replication_controllers()),
            Box::new(serviceaccount::ServiceAccounts),
            Box::new(statefulset::StatefulSets),
        ];
        if !self.root_ca.is_empty() {
            controllers.push(Box::new(serviceaccount::RootCaPublisher::new(self.root_ca.clone())));
        }
        if !self.cluster_cidrs.is_empty() {
            controllers.push(Box::new(node::NodeIpam::new(self.cluster_cidrs.clone())));
        }
        controllers
    }
}
