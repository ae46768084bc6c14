//! `icp-scheduler`: the scheduler under one elected leader.

use std::fs::File;
use std::io::Write as _;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Instant;

use icp_core::base::{Duration, Machine, Time};
use icp_core::client::Client;
use icp_sched::config::{ConfigErrors, Registry, SchedulerConfiguration};
use icp_sched::framework::Stopwatch;
use icp_sched::machine::{Effect, Event, SchedulerConfig, SchedulerMachine};
use icp_sched::record::{Recorder, Settings};
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
    /// A file that is made, and gets the history of what is decided; `sched-replay` reads it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub record: Option<PathBuf>,
}

/// Where a scheduler that is told nothing else serves its metrics: kube-scheduler's port, on this machine alone.
pub const METRICS: SocketAddr = SocketAddr::new(IpAddr::V4(Ipv4Addr::LOCALHOST), 10_259);
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
            record: None,
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

    /// How the machine is made, with draws from `seed`.
    ///
    /// # Errors
    /// If there is a configuration file that cannot be read or is not valid.
    pub fn settings(&self, seed: u64) -> Result<Settings, DaemonError> {
        let configuration = self.configuration()?;
        let machine = match &configuration {
            Some(file) => file.machine(&self.identity, &format!("{}_{seed:016x}", self.identity)),
            None => SchedulerConfig {
                instance: self.identity.clone(),
                leader_election: self
                    .leader_election
                    .then(|| super::controller_manager::election("kube-scheduler", &self.identity)),
                ..SchedulerConfig::default()
            },
        };
        Ok(Settings { seed, machine, configuration })
    }

    /// The machine, with draws from `seed`.
    ///
    /// # Errors
    /// If there is a configuration file that cannot be read or is not valid.
    pub fn machine(&self, seed: u64) -> Result<SchedulerMachine, DaemonError> {
        self.settings(seed)?.scheduler(&Registry::default()).map_err(|e| self.wrong(e))
    }

    fn wrong(&self, e: ConfigErrors) -> DaemonError {
        let path = self.configuration.clone().unwrap_or_default();
        DaemonError::Config { path, detail: e.to_string() }
    }

    /// The file of the history, if one is wanted: a new one, so that nothing that was recorded is lost.
    fn history(&self) -> Result<Option<File>, DaemonError> {
        let create = |path: &PathBuf| {
            let file = File::options().write(true).create_new(true).open(path);
            file.map_err(DaemonError::io(format!("creating the history {}", path.display())))
        };
        self.record.as_ref().map(create).transpose()
    }
}

/// A scheduler, with or without a history.
enum Driven {
    Plain(Box<SchedulerMachine>),
    Recorded(Box<Recorder>),
}

impl Machine for Driven {
    type Event = Event;
    type Effect = Effect;

    fn on(&mut self, now: Time, event: Event, out: &mut Vec<Effect>) {
        match self {
            Self::Plain(machine) => machine.on(now, event, out),
            Self::Recorded(machine) => machine.on(now, event, out),
        }
    }

    fn wake(&mut self, now: Time, out: &mut Vec<Effect>) {
        match self {
            Self::Plain(machine) => machine.wake(now, out),
            Self::Recorded(machine) => machine.wake(now, out),
        }
    }

    fn deadline(&self) -> Option<Time> {
        match self {
            Self::Plain(machine) => machine.deadline(),
            Self::Recorded(machine) => machine.deadline(),
        }
    }
}

/// Appends to the history. A history with a gap is worth nothing: it ends with the first write that fails.
fn record(history: &Mutex<Option<File>>, text: &str) {
    let mut history = history.lock().unwrap_or_else(PoisonError::into_inner);
    if let Some(file) = history.as_mut()
        && let Err(e) = file.write_all(text.as_bytes())
    {
        eprintln!("scheduler: the history ends here: {e}");
        *history = None;
    }
}

/// How long the daemon runs.
struct Running(Instant);
impl Stopwatch for Running {
    fn read(&self) -> Duration {
        self.0.elapsed()
    }
}

/// Schedules against any client until `stop`.
///
/// # Errors
/// If there is a configuration file that cannot be read or is not valid, a certificate for an extender cannot be used, the
/// file of the history cannot be made, or the address for metrics is taken.
pub async fn drive(
    config: &Config,
    seed: u64,
    client: Arc<dyn Client>,
    stop: Stop,
) -> Result<(), DaemonError> {
    let (history, extenders) = (config.history()?, config.extenders()?);
    let machine = match history {
        None => {
            let machine = config.machine(seed)?;
            Driven::Plain(Box::new(match config.listen_metrics {
                Some(_) => machine.with_stopwatch(Arc::new(Running(Instant::now()))),
                None => machine,
            }))
        }
        Some(_) => {
            let recorder = Recorder::new(&config.settings(seed)?, &Registry::default());
            Driven::Recorded(Box::new(recorder.map_err(|e| config.wrong(e))?))
        }
    };
    let history = Mutex::new(history);
    let identity = config.identity.clone();
    let (counted, _) = watch::channel(String::new());
    // The machine has no more calls open than it has extenders and bindings under way.
    let (calls, mut called) = mpsc::unbounded_channel();
    let log = {
        let counted = counted.clone();
        move |effect| match effect {
            Effect::AskExtender(call) => drop(calls.send(call)),
            Effect::Metrics(text) => drop(counted.send_replace(text)),
            Effect::Recorded(text) => record(&history, &text),
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
