//! `icp-scheduler`: the scheduler under one elected leader.

use std::sync::Arc;

use icp_core::base::Rng;
use icp_core::client::Client;
use icp_sched::machine::{Event, SchedulerConfig, SchedulerMachine};
use serde::{Deserialize, Serialize};

use super::{Access, DaemonError, Stop};

/// What the scheduler is told.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Config {
    /// How the API servers are reached.
    pub access: Access,
    /// Who this is among several: the machine's name.
    pub identity: String,
    /// Wait for leadership before acting.
    pub leader_election: bool,
}

/// Schedules against any client until `stop`.
pub async fn drive(config: &Config, seed: u64, client: Arc<dyn Client>, stop: Stop) {
    let machine = SchedulerConfig {
        instance: config.identity.clone(),
        leader_election: config
            .leader_election
            .then(|| super::controller_manager::election("kube-scheduler", &config.identity)),
        ..SchedulerConfig::default()
    };
    let identity = config.identity.clone();
    let machine = SchedulerMachine::new(machine, Rng::new(seed));
    let log = move |other| eprintln!("scheduler {identity}: {other:?}");
    super::drive_candidate(machine, client, stop, (Event::Start, Event::Stop), log).await;
}

/// Runs until `stop`.
///
/// # Errors
/// If a certificate cannot be used.
pub async fn run(config: Config, stop: Stop) -> Result<(), DaemonError> {
    let client = config.access.client("scheduler", "kube-scheduler")?;
    drive(&config, super::seed(), client, stop).await;
    Ok(())
}
