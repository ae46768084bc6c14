//! What the machine needs to know.

use alloc::string::String;
use alloc::vec::Vec;

use icp_core::base::Duration;
use icp_core::client::LeaderElectorConfig;

use crate::config::ExtenderConfiguration;

/// What the machine needs to know; the defaults are those of kube-scheduler.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SchedulerConfig {
    /// The name of the scheduler in Events, and of its profile if it has one alone and default plugins.
    pub scheduler_name: String,
    /// Who this is in Events: the host name.
    pub instance: String,
    /// The Lease by which one of several schedulers is elected; without it the machine acts at once.
    pub leader_election: Option<LeaderElectorConfig>,
    /// Bindings under way at once; further pods wait. A gang is bound at once, and may go beyond.
    pub bindings_max: usize,
    /// Pods that one event or wake decides on at most, so that renewals of the Lease are never late. A gang is decided
    /// on whole.
    pub decisions_max: usize,
    /// The first pause of a pod that found no node; it doubles with each try (`podInitialBackoffSeconds`).
    pub backoff_initial: Duration,
    /// The longest pause (`podMaxBackoffSeconds`).
    pub backoff_max: Duration,
    /// A pod whose volumes are not bound by then tries again (`bindTimeoutSeconds`).
    pub volumes_timeout: Duration,
    /// The extenders, in the order in which they are asked.
    pub extenders: Vec<ExtenderConfiguration>,
}

impl Default for SchedulerConfig {
    fn default() -> Self {
        Self {
            scheduler_name: "default-scheduler".into(),
            instance: String::new(),
            leader_election: None,
            bindings_max: 512,
            decisions_max: 64,
            backoff_initial: Duration::from_secs(1),
            backoff_max: Duration::from_secs(10),
            volumes_timeout: Duration::from_secs(600),
            extenders: Vec::new(),
        }
    }
}
