//! From a configuration to a scheduler.

use alloc::boxed::Box;
use alloc::collections::BTreeMap;
use alloc::string::String;
use alloc::vec::Vec;
use core::fmt;

use icp_core::api::FieldError;
use icp_core::client::LeaderElectorConfig;
use serde_json::Value;

use super::args::{self, Args};
use super::plugins::BUILT_IN;
use super::read::{Faults, Fields};
use super::{ConfigErrors, ProfileConfiguration, SchedulerConfiguration};
use crate::framework::{Plugin, Point, Points};
use crate::machine::SchedulerConfig;
use crate::plugins::{self, ResourcesFit, ScoringStrategy};
use crate::{Scheduler, SchedulerBuilder};

/// Makes a plugin from its arguments, or says what is wrong with them.
type Make = Box<dyn Fn(Option<&Value>) -> Result<Box<dyn Plugin>, String> + Send + Sync>;

/// Plugins of one's own, which configuration files name.
#[derive(Default)]
pub struct Registry {
    entries: BTreeMap<String, (Points, Make)>,
}

impl fmt::Debug for Registry {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_set().entries(self.entries.keys()).finish()
    }
}

impl Registry {
    /// Adds a plugin by its name, with the points at which it has a say, and what makes it from its arguments.
    #[must_use]
    pub fn with(
        mut self,
        name: &str,
        points: &[Point],
        make: impl Fn(Option<&Value>) -> Result<Box<dyn Plugin>, String> + Send + Sync + 'static,
    ) -> Self {
        self.entries.insert(name.into(), (Points::of(points), Box::new(make)));
        self
    }

    pub(super) fn points(&self, name: &str) -> Option<Points> {
        self.entries.get(name).map(|(points, _)| *points)
    }
}

impl SchedulerConfiguration {
    /// A scheduler with these profiles. It asks no extenders; the machine that is made with [`Self::machine`] does.
    ///
    /// # Errors
    /// If the arguments of a plugin of one's own are wrong, or an extender cannot be reached as the file says.
    pub fn scheduler(&self, registry: &Registry) -> Result<SchedulerBuilder, ConfigErrors> {
        let faults = Faults::default();
        let mut profiles =
            self.profiles.iter().enumerate().map(|(i, p)| self.profile(i, p, registry, &faults));
        let mut builder = profiles.next().unwrap_or_else(Scheduler::builder);
        for profile in profiles {
            builder = builder.profile(profile);
        }
        for (at, extender) in self.extenders.iter().enumerate() {
            if let Some((field, value, detail)) = extender.fault() {
                faults.add(FieldError::invalid(alloc::format!("extenders[{at}].{field}"), value, detail));
            }
        }
        let faults = faults.into_list();
        if faults.is_empty() { Ok(builder) } else { Err(ConfigErrors(faults)) }
    }

    /// What the machine needs to know; `instance` is the host name, and `identity` unique among candidates.
    #[must_use]
    pub fn machine(&self, instance: &str, identity: &str) -> SchedulerConfig {
        let election = &self.leader_election;
        SchedulerConfig {
            scheduler_name: self.profiles.first().map(|p| p.scheduler_name.clone()).unwrap_or_default(),
            instance: instance.into(),
            leader_election: election.elect.then(|| LeaderElectorConfig {
                namespace: election.namespace.clone(),
                name: election.name.clone(),
                identity: identity.into(),
                lease_duration: election.lease_duration,
                renew_deadline: election.renew_deadline,
                retry_period: election.retry_period,
            }),
            backoff_initial: self.backoff_initial,
            backoff_max: self.backoff_max,
            extenders: self.extenders.clone(),
            volumes_timeout: self.profiles.iter().map(|p| p.volumes_timeout).max().unwrap_or_default(),
            ..SchedulerConfig::default()
        }
    }

    /// Resources of which an extender keeps count instead of NodeResourcesFit.
    fn ignored(&self) -> Vec<String> {
        let managed = self.extenders.iter().flat_map(|e| &e.managed_resources);
        managed.filter(|r| r.ignored_by_scheduler).map(|r| r.name.clone()).collect()
    }

    fn profile(
        &self,
        at: usize,
        profile: &ProfileConfiguration,
        registry: &Registry,
        faults: &Faults,
    ) -> SchedulerBuilder {
        let builder = Scheduler::builder()
            .named(&profile.scheduler_name)
            .percentage_of_nodes(profile.percentage_of_nodes);
        let has =
            |name: &str, point| profile.plugins.iter().any(|p| p.name == name && p.points.contains(point));
        let builder =
            if has("DefaultPreemption", Point::PostFilter) { builder } else { builder.without_preemption() };
        let preemption = profile.arguments.get("DefaultPreemption");
        let builder = match args::read("DefaultPreemption", Fields::new("", preemption, &Faults::default())) {
            Args::Candidates { percent, absolute } => builder.preemption_candidates(percent, absolute),
            _ => builder,
        };
        let builder =
            if has("SchedulingGates", Point::PreEnqueue) { builder } else { builder.without_gates() };
        let builder = if has("DefaultBinder", Point::Bind) { builder } else { builder.without_binder() };
        let mut usual: BTreeMap<&str, Box<dyn Plugin>> =
            plugins::defaults().into_iter().map(|(p, _)| (p.name(), p)).collect();
        let mut changed = false;
        let mut list: Vec<(Box<dyn Plugin>, i64, Points)> = Vec::new();
        for enabled in &profile.plugins {
            let arguments = profile.arguments.get(&enabled.name);
            let default = usual.remove(enabled.name.as_str());
            let plugin = if let Some((_, make)) = registry.entries.get(&enabled.name) {
                match make(arguments) {
                    Ok(plugin) => {
                        changed = true;
                        plugin
                    }
                    Err(detail) => {
                        let field = alloc::format!("profiles[{at}].pluginConfig");
                        let value = arguments.cloned().unwrap_or_default();
                        faults.add(FieldError::invalid(
                            field,
                            value,
                            alloc::format!("{}: {detail}", enabled.name),
                        ));
                        continue;
                    }
                }
            } else {
                // The engine itself is SchedulingGates, PrioritySort, DefaultPreemption and DefaultBinder.
                let Some(default) = default else { continue };
                match args::read(&enabled.name, Fields::new("", arguments, &Faults::default())) {
                    Args::Plugin(plugin) | Args::Volumes { plugin: Some(plugin), .. } => {
                        changed = true;
                        plugin
                    }
                    Args::Default | Args::Volumes { plugin: None, .. } | Args::Candidates { .. } => default,
                }
            };
            list.push((plugin, enabled.weight, enabled.points));
        }
        let ignored = self.ignored();
        if !ignored.is_empty()
            && let Some((fit, ..)) = list.iter_mut().find(|(p, ..)| p.name() == "NodeResourcesFit")
        {
            let arguments = profile.arguments.get("NodeResourcesFit");
            let plugin = args::fit_of(Fields::new("", arguments, &Faults::default()));
            *fit = Box::new(
                plugin
                    .unwrap_or_else(|| ResourcesFit::new(ScoringStrategy::default()))
                    .ignoring(&ignored, &[]),
            );
            changed = true;
        }
        let as_usual = BUILT_IN.iter().all(|(name, weight, points)| {
            let found = profile.plugins.iter().find(|p| p.name == *name);
            // A built-in plugin whose weight is not set scores with one, if it scores at all.
            let weight = if points.contains(Point::Score) { (*weight).max(1) } else { *weight };
            found.is_some_and(|p| {
                p.points == *points && (p.weight == weight || !points.contains(Point::Score))
            })
        });
        let defaults = plugins::defaults();
        let in_order = list.len() == defaults.len()
            && list.iter().zip(&defaults).all(|((a, ..), (b, _))| a.name() == b.name());
        if as_usual && in_order && !changed { builder } else { builder.only_at(list) }
    }
}
