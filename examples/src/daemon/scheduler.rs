//! `icp-scheduler`: the scheduler under one elected leader.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use icp_core::base::{Duration, Rng};
use icp_core::client::Client;
use icp_sched::TieBreak;
use icp_sched::config::{Registry, SchedulerConfiguration};
use icp_sched::machine::{Effect, Event, SchedulerConfig, SchedulerMachine};
use serde::{Deserialize, Serialize};
use tokio::sync::{mpsc, watch};

use super::extender::Extenders;
use super::{Access, DaemonError, Stop};

/// What the scheduler is told.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Config {
    /// How the API servers are reached. Without an endpoint: by the kubeconfig that `configuration` names.
    pub access: Access,
    /// Who this is among several: the machine's name.
    pub identity: String,
    /// Wait for leadership before acting. A `configuration` says that itself.
    pub leader_election: bool,
    /// A file with a KubeSchedulerConfiguration.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub configuration: Option<PathBuf>,
    /// Where `/metrics` and `/healthz` are served without TLS.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub listen_metrics: Option<SocketAddr>,
}

/// Where a scheduler that is told nothing else serves its metrics: kube-scheduler's port, on this machine alone.
const METRICS: SocketAddr = SocketAddr::new(IpAddr::V4(Ipv4Addr::LOCALHOST), 10_259);
/// How long a machine may take to say what it counted.
const SCRAPE_MAX: Duration = Duration::from_secs(5);

impl Config {
    /// A scheduler that is told nothing but a KubeSchedulerConfiguration file.
    #[must_use]
    pub fn of_file(path: &Path) -> Self {
        let host = std::fs::read_to_string("/proc/sys/kernel/hostname").unwrap_or_default();
        Self {
            access: Access { endpoints: Vec::new(), pki: PathBuf::new() },
            identity: host.trim().into(),
            leader_election: true,
            configuration: Some(path.into()),
            listen_metrics: Some(METRICS),
        }
    }

    fn configuration(&self) -> Result<Option<SchedulerConfiguration>, DaemonError> {
        let Some(path) = &self.configuration else { return Ok(None) };
        let fail = |detail: String| DaemonError::Config { path: path.clone(), detail };
        let text = std::fs::read_to_string(path).map_err(|e| fail(e.to_string()))?;
        SchedulerConfiguration::from_yaml(&text, &Registry::default())
            .map(Some)
            .map_err(|e| fail(e.to_string()))
    }

    /// How its extenders are reached.
    fn extenders(&self) -> Result<Extenders, DaemonError> {
        let Some(file) = self.configuration()? else { return Ok(Extenders::default()) };
        Extenders::of(&file.extenders, self.configuration.as_deref().unwrap_or(Path::new("")))
    }

    /// The machine, with draws from `seed`.
    ///
    /// # Errors
    /// If there is a configuration file that cannot be read or is not valid.
    pub fn machine(&self, seed: u64) -> Result<SchedulerMachine, DaemonError> {
        let rng = Rng::new(seed);
        let Some(file) = self.configuration()? else {
            let machine = SchedulerConfig {
                instance: self.identity.clone(),
                leader_election: self
                    .leader_election
                    .then(|| super::controller_manager::election("kube-scheduler", &self.identity)),
                ..SchedulerConfig::default()
            };
            return Ok(SchedulerMachine::new(machine, rng));
        };
        let machine = file.machine(&self.identity, &format!("{}_{seed:016x}", self.identity));
        let builder = file.scheduler(&Registry::default()).map_err(|e| DaemonError::Config {
            path: self.configuration.clone().unwrap_or_default(),
            detail: e.to_string(),
        })?;
        let builder = builder.ties(TieBreak::Seeded(rng.child("ties")));
        Ok(SchedulerMachine::with_scheduler(machine, builder, rng))
    }
}

/// Schedules against any client until `stop`.
///
/// # Errors
/// If there is a configuration file that cannot be read or is not valid, a certificate for an extender cannot be used, or
/// the address for metrics is taken.
pub async fn drive(
    config: &Config,
    seed: u64,
    client: Arc<dyn Client>,
    stop: Stop,
) -> Result<(), DaemonError> {
    let (machine, extenders) = (config.machine(seed)?, config.extenders()?);
    let identity = config.identity.clone();
    let (counted, _) = watch::channel(String::new());
    // The machine has no more calls open than it has extenders and bindings under way.
    let (calls, mut called) = mpsc::unbounded_channel();
    let log = {
        let counted = counted.clone();
        move |effect| match effect {
            Effect::AskExtender(call) => drop(calls.send(call)),
            Effect::Metrics(text) => drop(counted.send_replace(text)),
            other => eprintln!("scheduler {identity}: {other:?}"),
        }
    };
    let listener = match config.listen_metrics {
        Some(address) => Some(super::listen(address).await?),
        None => None,
    };
    let ends = (Event::Start, Event::Stop);
    super::drive_beside(machine, client, stop, ends, log, move |mailbox| async move {
        let asking = async {
            while let Some(call) = called.recv().await {
                tokio::spawn(extenders.clone().ask(call, mailbox.clone()));
            }
        };
        let Some(listener) = listener else { return asking.await };
        let mailbox = mailbox.clone();
        let scrape = move || {
            let (mailbox, mut answer) = (mailbox.clone(), counted.subscribe());
            async move {
                mailbox.send(Event::Scrape).await;
                tokio::time::timeout(SCRAPE_MAX, answer.changed()).await.ok()?.ok()?;
                Some(answer.borrow().clone())
            }
        };
        tokio::join!(super::serving::serve(listener, scrape), asking);
    })
    .await;
    Ok(())
}

/// Runs until `stop`.
///
/// # Errors
/// If a certificate cannot be used, or a configuration file cannot be read or is not valid.
pub async fn run(config: Config, stop: Stop) -> Result<(), DaemonError> {
    let client: Arc<dyn Client> = match config.configuration()? {
        Some(file) if config.access.endpoints.is_empty() => {
            Arc::new(super::kubeconfig::client(Path::new(&file.client.kubeconfig), "kube-scheduler")?)
        }
        _ => config.access.client("scheduler", "kube-scheduler")?,
    };
    drive(&config, super::seed(), client, stop).await
}

#[cfg(test)]
mod tests {
    #[test]
    fn a_file_says_what_is_wrong_with_it() {
        let dir = std::env::temp_dir().join(format!("icp-scheduler-config-{}", std::process::id()));
        std::fs::create_dir_all(&dir).unwrap();
        let file = dir.join("scheduler.yaml");
        let write = |more: &str| {
            let head = "apiVersion: kubescheduler.config.k8s.io/v1\nkind: KubeSchedulerConfiguration\n";
            std::fs::write(&file, format!("{head}{more}")).unwrap();
        };
        write("profiles:\n- schedulerName: packing\n");
        let role = super::super::read(&file).unwrap();
        let super::super::Role::Scheduler(config) = role else { panic!("{}", role.name()) };
        let machine = config.machine(1).unwrap();
        assert_eq!(machine.scheduler().profiles().collect::<Vec<_>>(), ["packing"]);
        write("profiles:\n- plugins: {score: {enabled: [{name: Fair}]}}\n");
        let error = config.machine(1).unwrap_err().to_string();
        assert!(
            error.contains("profiles[0].plugins.score.enabled[0].name: Invalid value: \"Fair\""),
            "{error}"
        );
        std::fs::remove_dir_all(&dir).unwrap();
    }
}
