//! How the machine of a history is made.

use alloc::string::ToString as _;

use icp_core::base::{Duration, Rng};
use icp_core::client::LeaderElectorConfig;
use serde_json::{Value, json};

use super::VERSION;
use super::error::HistoryError;
use super::line::Fields;
use crate::config::{self, ConfigErrors, Registry, SchedulerConfiguration};
use crate::machine::{SchedulerConfig, SchedulerMachine};
use crate::{Scheduler, TieBreak};

/// How the machine of a history is made: its first line.
#[derive(Clone, Debug, PartialEq)]
pub struct Settings {
    /// From which ties, names and jitter are drawn.
    pub seed: u64,
    /// What the machine needs to know.
    pub machine: SchedulerConfig,
    /// Its profiles; without, there is one with the default plugins.
    pub configuration: Option<SchedulerConfiguration>,
}

impl Settings {
    /// The machine, before its first input.
    ///
    /// # Errors
    /// If the configuration cannot be carried out.
    pub fn scheduler(&self, registry: &Registry) -> Result<SchedulerMachine, ConfigErrors> {
        self.drawing_ties_from(self.seed, registry)
    }

    /// The same, but for ties.
    pub(super) fn drawing_ties_from(
        &self,
        seed: u64,
        registry: &Registry,
    ) -> Result<SchedulerMachine, ConfigErrors> {
        let builder = match &self.configuration {
            Some(configuration) => configuration.scheduler(registry)?,
            None => Scheduler::builder().named(&self.machine.scheduler_name),
        };
        let builder = builder.ties(TieBreak::Seeded(Rng::new(seed).child("ties")));
        Ok(SchedulerMachine::with_scheduler(self.machine.clone(), builder, Rng::new(self.seed)))
    }

    pub(super) fn to_value(&self) -> Value {
        let machine = &self.machine;
        let election = machine.leader_election.as_ref().map(|e| {
            json!({
                "namespace": e.namespace, "name": e.name, "identity": e.identity,
                "leaseMicros": micros(e.lease_duration), "renewMicros": micros(e.renew_deadline),
                "retryMicros": micros(e.retry_period),
            })
        });
        json!({
            "history": "icp-sched",
            "version": VERSION,
            "by": concat!("icp-sched ", env!("CARGO_PKG_VERSION")),
            "seed": self.seed,
            "machine": {
                "schedulerName": machine.scheduler_name,
                "instance": machine.instance,
                "leaderElection": election,
                "bindingsMax": machine.bindings_max,
                "decisionsMax": machine.decisions_max,
                "backoffInitialMicros": micros(machine.backoff_initial),
                "backoffMaxMicros": micros(machine.backoff_max),
                "volumesTimeoutMicros": micros(machine.volumes_timeout),
                "extenders": without_keys(config::extenders_to_value(&machine.extenders)),
            },
            "configuration": self.configuration.as_ref().map(|c| {
                let mut value = c.to_value();
                if let Some(extenders) = value.get_mut("extenders") {
                    *extenders = without_keys(extenders.take());
                }
                value
            }),
        })
    }

    pub(super) fn from_fields(mut fields: Fields, registry: &Registry) -> Result<Self, HistoryError> {
        if fields.optional_text("history")?.as_deref() != Some("icp-sched") {
            return Err(HistoryError::NotAHistory);
        }
        match fields.number("version")? {
            VERSION => {}
            found => return Err(HistoryError::Version { found }),
        }
        fields.text("by")?;
        let seed = fields.number("seed")?;
        let configuration = match fields.take("configuration") {
            None | Some(Value::Null) => None,
            Some(value) => Some(
                SchedulerConfiguration::from_value(&value, registry)
                    .map_err(|e| fields.wrong("configuration", e.to_string()))?,
            ),
        };
        let mut inner = fields.object("machine")?;
        let leader_election = match inner.optional_object("leaderElection")? {
            None => None,
            Some(mut e) => {
                let election = LeaderElectorConfig {
                    namespace: e.text("namespace")?,
                    name: e.text("name")?,
                    identity: e.text("identity")?,
                    lease_duration: e.duration("leaseMicros")?,
                    renew_deadline: e.duration("renewMicros")?,
                    retry_period: e.duration("retryMicros")?,
                };
                e.end()?;
                Some(election)
            }
        };
        let extenders = inner.take("extenders").unwrap_or_else(|| json!([]));
        let extenders =
            config::extenders_from_value(&extenders).map_err(|e| inner.wrong("extenders", e.to_string()))?;
        let machine = SchedulerConfig {
            scheduler_name: inner.text("schedulerName")?,
            instance: inner.text("instance")?,
            leader_election,
            bindings_max: inner.size("bindingsMax")?,
            decisions_max: inner.size("decisionsMax")?,
            backoff_initial: inner.duration("backoffInitialMicros")?,
            backoff_max: inner.duration("backoffMaxMicros")?,
            volumes_timeout: inner.duration("volumesTimeoutMicros")?,
            extenders,
        };
        inner.end()?;
        fields.end()?;
        Ok(Self { seed, machine, configuration })
    }
}

/// Extenders without what proves who one is: nobody is asked in a replay.
fn without_keys(mut extenders: Value) -> Value {
    for extender in extenders.as_array_mut().into_iter().flatten().filter_map(Value::as_object_mut) {
        extender.remove("tlsConfig");
    }
    extenders
}

fn micros(d: Duration) -> u64 {
    u64::try_from(d.as_micros()).unwrap_or(u64::MAX)
}
