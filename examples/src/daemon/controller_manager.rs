//! `icp-controller-manager`: the controllers under one elected leader.

use std::sync::Arc;

use icp_core::base::{Duration, Rng};
use icp_core::client::{Client, LeaderElectorConfig};
use icp_core::controllers::{Event, Manager, ManagerConfig, node};
use ipnet::IpNet;
use serde::{Deserialize, Serialize};

use super::{Access, DaemonError, Stop};
use crate::pki::PkiDir;

/// What the controllers are told.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Config {
    /// How the API servers are reached.
    pub access: Access,
    /// Who this is among several: the machine's name.
    pub identity: String,
    /// Wait for leadership before acting.
    pub leader_election: bool,
    /// Where the pod networks of nodes are cut from (`--cluster-cidr`).
    pub cluster_cidr: IpNet,
    /// The prefix length of a node's part of it.
    pub node_cidr_mask: u8,
    /// After its last heartbeat a node counts as alive for so many seconds (`--node-monitor-grace-period`).
    pub node_grace_secs: u64,
}

/// How long a leader's Lease holds in a cluster of this program: shorter than upstream's 15 s, so that a hand-over can
/// be watched.
pub(crate) fn election(name: &str, identity: &str) -> LeaderElectorConfig {
    LeaderElectorConfig {
        lease_duration: Duration::from_secs(6),
        renew_deadline: Duration::from_secs(4),
        retry_period: Duration::from_secs(1),
        ..LeaderElectorConfig::new("kube-system", name, identity)
    }
}

impl Config {
    /// The machine's configuration.
    ///
    /// # Errors
    /// If the pod network cannot be cut as asked.
    pub fn manager(&self, ca_pem: String) -> Result<ManagerConfig, DaemonError> {
        let allocator = node::CidrAllocator::new(self.cluster_cidr, self.node_cidr_mask)
            .map_err(|e| DaemonError::Field { field: "cluster_cidr", detail: e.to_string() })?;
        Ok(ManagerConfig {
            instance: self.identity.clone(),
            leader_election: self
                .leader_election
                .then(|| election("kube-controller-manager", &self.identity)),
            root_ca: ca_pem,
            cluster_cidrs: vec![allocator],
            node_lifecycle: node::NodeLifecycleConfig {
                grace: Duration::from_secs(self.node_grace_secs),
                ..node::NodeLifecycleConfig::default()
            },
            ..ManagerConfig::default()
        })
    }
}

/// Runs the controllers of `config` against any client until `stop`.
pub async fn drive(config: ManagerConfig, seed: u64, client: Arc<dyn Client>, stop: Stop) {
    let identity = config.instance.clone();
    let machine = Manager::new(config, Rng::new(seed));
    let log = move |other| eprintln!("controller-manager {identity}: {other:?}");
    super::drive_candidate(machine, client, stop, (Event::Start, Event::Stop), log).await;
}

/// Runs until `stop`.
///
/// # Errors
/// If the configuration or a certificate cannot be used.
pub async fn run(config: Config, stop: Stop) -> Result<(), DaemonError> {
    let client = config.access.client("controller-manager", "kube-controller-manager")?;
    let ca = PkiDir::open(&config.access.pki).ca_pem()?;
    drive(config.manager(ca)?, super::seed(), client, stop).await;
    Ok(())
}
