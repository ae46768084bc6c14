//! The scheduler of a master.

use icp_core::base::Rng;
use icp_core::client::LeaderElectorConfig;
use icp_sched::machine::SchedulerConfig;

pub use icp_sched::machine::{
    Effect as SchedulerEffect, Event as SchedulerEvent, SchedulerMachine as Scheduler,
};

/// A scheduler that seeks leadership as `election` says.
#[must_use]
pub fn scheduler(election: LeaderElectorConfig, rng: Rng) -> Scheduler {
    let instance = election.identity.clone();
    let config = SchedulerConfig { instance, leader_election: Some(election), ..SchedulerConfig::default() };
    Scheduler::new(config, rng)
}
