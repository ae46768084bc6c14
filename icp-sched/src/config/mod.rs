//! `KubeSchedulerConfiguration`, version v1: what kube-scheduler reads from `--config`.
//!
//! A document is read strictly, defaulted and validated as upstream does it; every fault names its field. Where this
//! scheduler differs: `percentageOfNodesToScore` is 100 unless the file says otherwise, and room is looked for on all
//! nodes unless the arguments of DefaultPreemption name how many will do; `parallelism`, `clientConnection` but for its
//! kubeconfig, `enableProfiling`, `enableContentionProfiling` and `delayCacheUntilActive` are checked and have no effect,
//! because a decision is one thread's.
//!
//! ```
//! use icp_core::base::Rng;
//! use icp_sched::TieBreak;
//! use icp_sched::config::{Registry, SchedulerConfiguration};
//! use serde_json::json;
//!
//! let file = json!({
//!     "apiVersion": "kubescheduler.config.k8s.io/v1", "kind": "KubeSchedulerConfiguration",
//!     "profiles": [{"schedulerName": "packing", "pluginConfig": [{"name": "NodeResourcesFit", "args":
//!         {"scoringStrategy": {"type": "MostAllocated", "resources": [{"name": "cpu", "weight": 1}]}}}]}],
//! });
//! let registry = Registry::default();
//! let config = SchedulerConfiguration::from_value(&file, &registry).unwrap();
//! let scheduler = config.scheduler(&registry).unwrap().ties(TieBreak::Seeded(Rng::new(1))).build();
//! assert_eq!(scheduler.profiles().collect::<Vec<_>>(), ["packing"]);
//!
//! let wrong = json!({"apiVersion": "kubescheduler.config.k8s.io/v1", "kind": "KubeSchedulerConfiguration",
//!     "profiles": [{"plugins": {"score": {"enabled": [{"name": "Fair"}]}}}]});
//! assert_eq!(SchedulerConfiguration::from_value(&wrong, &registry).unwrap_err().to_string(),
//!     r#"profiles[0].plugins.score.enabled[0].name: Invalid value: "Fair": plugin "Fair" does not exist"#);
//! ```

mod args;
mod build;
mod error;
mod plugins;
mod read;
#[cfg(test)]
mod tests;
mod types;
mod write;

pub use build::Registry;
pub use error::{ConfigError, ConfigErrors};
pub use plugins::EnabledPlugin;
pub use types::{
    ClientConnection, ExtenderConfiguration, LeaderElection, ManagedResource, ProfileConfiguration,
    SchedulerConfiguration, TlsConfig,
};
pub(crate) use write::{extenders_from_value, extenders_to_value};

/// The version that is read.
pub const VERSION: &str = "kubescheduler.config.k8s.io/v1";
/// Its kind.
pub const KIND: &str = "KubeSchedulerConfiguration";
