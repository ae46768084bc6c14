//! The simulated runtime.

use alloc::collections::{BTreeMap, BTreeSet};
use alloc::format;
use alloc::string::{String, ToString};
use alloc::sync::Arc;
use alloc::vec::Vec;
use core::net::{IpAddr, Ipv4Addr};

use icp_core::base::{Duration, Machine, Time};
use ipnet::IpNet;

use super::behaviour::{Behaviour, SimRules};
use super::log::{Life, LogCursor, LogPage, SimLog};
use super::process::{ContainerWorld, SimProcess};
use super::script;
use crate::runtime::{
    CallId, ContainerKey, ContainerListing, ContainerSpec, ContainerState, ExecOutput, ExecRequest, Exit,
    Image, ImageInfo, LogOptions, Network, NodeUsage, Outcome, PodListing, PodUid, ProbeOutcome, PullPolicy,
    RuntimeCall, RuntimeError, RuntimeEvent, RuntimeOp, SandboxListing, SandboxSpec, VolumeContent,
};

/// What happens to a simulated runtime.
#[derive(Clone, Debug, PartialEq)]
#[non_exhaustive]
pub enum MemoryEvent {
    /// A call.
    Call(RuntimeCall),
    /// The newest attempt of a container ends now with a code.
    Exit {
        /// The pod.
        pod: PodUid,
        /// The container.
        container: String,
        /// The exit code.
        code: i32,
    },
    /// A sandbox is lost with all that runs in it.
    LoseSandbox {
        /// The pod.
        pod: PodUid,
    },
    /// The machine restarts: sandboxes and containers are gone, and nobody is told.
    Reboot,
    /// The agent is gone: the answers that it waits for reach nobody. Containers run on.
    Disconnect,
}

#[derive(Clone, Debug)]
struct SimContainer {
    started_at: Time,
    exit: Option<Exit>,
    behaviour: Behaviour,
    log: SimLog,
    world: Arc<ContainerWorld>,
    /// Tells a planned end of this container from one of an earlier plan.
    plan: u64,
}

impl SimContainer {
    const fn life(&self) -> Life<'_> {
        Life { log: &self.log, started_at: self.started_at, exit: self.exit.as_ref() }
    }
}

#[derive(Clone, Debug)]
struct SimPod {
    sandbox: Option<(Arc<SandboxSpec>, Vec<IpAddr>, Time)>,
    namespace: String,
    name: String,
    containers: BTreeMap<ContainerKey, SimContainer>,
}

#[derive(Clone, Debug)]
enum Pending {
    Answer(RuntimeEvent),
    Exit { pod: PodUid, container: ContainerKey, plan: u64, code: i32, oom: bool },
}

/// A runtime of which nothing is real: sandboxes with addresses, containers that run and end on a virtual clock.
#[derive(Clone, Debug)]
pub struct MemoryRuntime {
    rules: Arc<SimRules>,
    pod_cidr: IpNet,
    host_ips: Vec<IpAddr>,
    used_ips: BTreeSet<IpAddr>,
    next_ip: u32,
    pods: BTreeMap<PodUid, SimPod>,
    volumes: BTreeMap<PodUid, BTreeMap<Arc<str>, Arc<VolumeContent>>>,
    images: BTreeSet<String>,
    pending: BTreeMap<(Time, u64), Pending>,
    seq: u64,
}

impl MemoryRuntime {
    /// A runtime that gives pods addresses of `pod_cidr`.
    #[must_use]
    pub fn new(rules: SimRules, pod_cidr: IpNet) -> Self {
        Self::with_shared_rules(Arc::new(rules), pod_cidr)
    }

    /// The same with rules that many runtimes share.
    #[must_use]
    pub fn with_shared_rules(rules: Arc<SimRules>, pod_cidr: IpNet) -> Self {
        Self {
            rules,
            pod_cidr,
            host_ips: Vec::new(),
            used_ips: BTreeSet::new(),
            next_ip: 0,
            pods: BTreeMap::new(),
            volumes: BTreeMap::new(),
            images: BTreeSet::new(),
            pending: BTreeMap::new(),
            seq: 0,
        }
    }

    /// The same with the addresses of pods in the node's network.
    #[must_use]
    pub fn with_host_ips(mut self, ips: Vec<IpAddr>) -> Self {
        self.host_ips = ips;
        self
    }

    /// How many containers run.
    #[must_use]
    pub fn running(&self) -> usize {
        self.pods.values().flat_map(|p| p.containers.values()).filter(|c| c.exit.is_none()).count()
    }

    /// The newest attempt of a container, or the one before.
    fn attempt(
        &self,
        pod: &PodUid,
        container: &str,
        previous: bool,
    ) -> Result<(u32, &SimContainer), RuntimeError> {
        let attempts = self.pods.get(pod).into_iter().flat_map(|p| &p.containers);
        let mut attempts = attempts.filter(|(key, _)| *key.name == *container).rev();
        let newest = attempts.next();
        let found = if previous { attempts.next() } else { newest };
        found.map(|(key, c)| (key.attempt, c)).ok_or_else(|| {
            let what = if previous { "previous terminated container" } else { "container" };
            RuntimeError::NotFound { what: format!("{what} {container:?}") }
        })
    }

    /// Opens the log of a container.
    ///
    /// # Errors
    /// [`RuntimeError::NotFound`] if there is no such container, or no previous one.
    pub fn open_log(
        &self,
        now: Time,
        pod: &PodUid,
        container: &str,
        options: &LogOptions,
    ) -> Result<LogCursor, RuntimeError> {
        let (attempt, container) = self.attempt(pod, container, options.previous)?;
        Ok(container.life().open(now, attempt, options))
    }

    /// Reads on in the log of a container; the cursor moves.
    ///
    /// # Errors
    /// [`RuntimeError::NotFound`] if the container was removed.
    pub fn read_log(
        &self,
        now: Time,
        pod: &PodUid,
        container: &str,
        cursor: &mut LogCursor,
    ) -> Result<LogPage, RuntimeError> {
        let key = ContainerKey::new(container, cursor.attempt);
        let found = self.pods.get(pod).and_then(|p| p.containers.get(&key));
        let found = found.ok_or_else(|| RuntimeError::NotFound { what: format!("container {key}") })?;
        Ok(found.life().read(now, cursor))
    }

    /// Starts a simulated process in a running container.
    ///
    /// # Errors
    /// [`RuntimeError::NotFound`] if the container does not run.
    pub fn exec(
        &self,
        pod: &PodUid,
        container: &str,
        request: &ExecRequest,
    ) -> Result<SimProcess, RuntimeError> {
        match self.attempt(pod, container, false)? {
            (attempt, c) if c.exit.is_none() => {
                let key = ContainerKey::new(container, attempt);
                let mut world = ContainerWorld::clone(&c.world);
                // Volumes may have changed since it was started.
                if let Some(volumes) = self.volumes.get(pod) {
                    world.volumes.clone_from(volumes);
                }
                Ok(SimProcess::new(key, request, Arc::new(world), c.behaviour.fail_exec))
            }
            _ => Err(RuntimeError::NotFound { what: format!("a running container {container:?}") }),
        }
    }

    /// The exit code of an attempt: `None` while it runs.
    ///
    /// # Errors
    /// [`RuntimeError::NotFound`] if it was removed.
    pub fn exit_code(&self, pod: &PodUid, container: &ContainerKey) -> Result<Option<i32>, RuntimeError> {
        match self.pods.get(pod).and_then(|p| p.containers.get(container)) {
            Some(c) => Ok(c.exit.as_ref().map(|e| e.code)),
            None => Err(RuntimeError::NotFound { what: format!("container {container}") }),
        }
    }

    /// The pods that have a sandbox, with its addresses.
    pub fn addresses(&self) -> impl Iterator<Item = (&PodUid, &[IpAddr])> {
        self.pods.iter().filter_map(|(uid, pod)| Some((uid, pod.sandbox.as_ref()?.1.as_slice())))
    }

    fn later(&mut self, at: Time, what: Pending) {
        self.seq += 1;
        self.pending.insert((at, self.seq), what);
    }

    fn answer(&mut self, at: Time, pod: &PodUid, call: CallId, result: Result<Outcome, RuntimeError>) {
        self.later(at, Pending::Answer(RuntimeEvent::Done { call, pod: pod.clone(), result }));
    }

    fn allocate(&mut self) -> Option<IpAddr> {
        let IpNet::V4(net) = self.pod_cidr else {
            // Of an IPv6 range the low 32 bits are enough for any node.
            let IpAddr::V6(base) = self.pod_cidr.network() else { return None };
            self.next_ip = self.next_ip.checked_add(1)?;
            let ip = IpAddr::V6((u128::from(base) + 1 + u128::from(self.next_ip)).into());
            return self.pod_cidr.contains(&ip).then_some(ip);
        };
        // The network address, the gateway and the broadcast address are not for pods.
        let (base, size) = (u32::from(net.network()), 1_u64 << (32 - net.prefix_len()));
        let usable = u32::try_from(size.saturating_sub(3)).unwrap_or(u32::MAX - 2);
        for _ in 0..usable {
            let ip = IpAddr::V4(Ipv4Addr::from(base.wrapping_add(2).wrapping_add(self.next_ip)));
            self.next_ip = (self.next_ip + 1) % usable;
            if self.used_ips.insert(ip) {
                return Some(ip);
            }
        }
        None
    }

    fn stop_pod(&mut self, now: Time, uid: &PodUid) {
        let Some(pod) = self.pods.get_mut(uid) else { return };
        if let Some((_, ips, _)) = pod.sandbox.take() {
            for ip in ips {
                self.used_ips.remove(&ip);
            }
        }
        let live: Vec<_> = pod
            .containers
            .iter()
            .filter(|(_, c)| c.exit.is_none())
            .map(|(k, c)| (k.clone(), c.plan))
            .collect();
        for (container, plan) in live {
            let what = Pending::Exit { pod: uid.clone(), container, plan, code: 137, oom: false };
            self.later(now, what);
        }
    }

    fn exit(
        &mut self,
        now: Time,
        uid: &PodUid,
        key: &ContainerKey,
        code: i32,
        oom: bool,
    ) -> Option<RuntimeEvent> {
        let container = self.pods.get_mut(uid)?.containers.get_mut(key)?;
        if container.exit.is_some() {
            return None;
        }
        let exit = Exit {
            code: if oom { 137 } else { code },
            signal: (code > 128).then(|| code - 128),
            oom_killed: oom,
            started_at: container.started_at,
            finished_at: now,
            message: String::new(),
        };
        container.exit = Some(exit.clone());
        Some(RuntimeEvent::ContainerExited { pod: uid.clone(), container: key.clone(), exit })
    }

    fn start(
        &mut self,
        now: Time,
        uid: &PodUid,
        key: &ContainerKey,
        spec: &Arc<ContainerSpec>,
    ) -> Result<Outcome, RuntimeError> {
        let missing = || RuntimeError::Sandbox { message: "the pod has no sandbox".into() };
        let at = now + self.rules.start_latency;
        let pod = self.pods.get_mut(uid).ok_or_else(missing)?;
        let (sandbox, _, _) = pod.sandbox.as_ref().ok_or_else(missing)?;
        let id = format!("memory://{uid}/{key}");
        if let Some(known) = pod.containers.get(key) {
            return Ok(Outcome::Started { id, at: known.started_at });
        }
        if pod.containers.iter().any(|(k, c)| k.name == key.name && c.exit.is_none()) {
            return Err(RuntimeError::Conflict { container: key.to_string() });
        }
        let world = Arc::new(ContainerWorld {
            spec: spec.clone(),
            hostname: sandbox.hostname.clone(),
            volumes: self.volumes.get(uid).cloned().unwrap_or_default(),
        });
        let command: Vec<String> = spec.command.iter().chain(&spec.args).cloned().collect();
        let run = script::run(&command, &*world);
        let behaviour = Behaviour::of(&self.rules, &sandbox.annotations, &key.name, spec, &run);
        if behaviour.fail_start {
            return Err(RuntimeError::Start { message: "the simulation says so".into() });
        }
        let plan = self.seq + 1;
        // Older attempts than the one before are of no use to anybody.
        let old: Vec<_> = pod
            .containers
            .keys()
            .filter(|k| k.name == key.name && k.attempt.saturating_add(2) <= key.attempt)
            .cloned()
            .collect();
        for key in old {
            pod.containers.remove(&key);
        }
        let log = SimLog::new(behaviour.log.as_deref(), &run, &key.name, &spec.image);
        let container =
            SimContainer { started_at: at, exit: None, behaviour: behaviour.clone(), log, world, plan };
        pod.containers.insert(key.clone(), container);
        if let Some(run_for) = behaviour.run_for {
            let what = Pending::Exit {
                pod: uid.clone(),
                container: key.clone(),
                plan,
                code: behaviour.exit_code,
                oom: behaviour.oom,
            };
            self.later(at + run_for.max(Duration::from_millis(1)), what);
        }
        Ok(Outcome::Started { id, at })
    }

    fn probe(&self, uid: &PodUid, fails: impl Fn(&Behaviour) -> bool) -> Outcome {
        let pod = self.pods.get(uid).filter(|p| p.sandbox.is_some());
        let mut live =
            pod.into_iter().flat_map(|p| p.containers.values()).filter(|c| c.exit.is_none()).peekable();
        let success = live.peek().is_some() && !live.any(|c| fails(&c.behaviour));
        let message = if success { "ok" } else { "connect: connection refused" };
        Outcome::Probe(ProbeOutcome { success, message: message.into() })
    }

    fn list(&self) -> Vec<PodListing> {
        let state = |c: &SimContainer| match &c.exit {
            Some(exit) => ContainerState::Exited(exit.clone()),
            None => ContainerState::Running { started_at: c.started_at },
        };
        self.pods
            .iter()
            .map(|(uid, pod)| PodListing {
                uid: uid.clone(),
                namespace: pod.namespace.clone(),
                name: pod.name.clone(),
                sandbox: pod
                    .sandbox
                    .as_ref()
                    .map(|(_, ips, at)| SandboxListing { ips: ips.clone(), created_at: *at }),
                containers: pod
                    .containers
                    .iter()
                    .map(|(key, c)| ContainerListing {
                        key: key.clone(),
                        id: format!("memory://{uid}/{key}"),
                        image_id: c.world.spec.image.clone(),
                        state: state(c),
                    })
                    .collect(),
            })
            .collect()
    }

    fn call(&mut self, now: Time, call: RuntimeCall) {
        let RuntimeCall { id, pod: uid, op, .. } = call;
        let mut at = now;
        let result = match op {
            RuntimeOp::EnsureImage { image, policy, .. } => {
                let present = self.images.contains(&image);
                if !present || policy == PullPolicy::Always {
                    at = now + self.rules.pull_latency;
                }
                if self.rules.absent_images.contains(&image) {
                    let message = "not found".into();
                    match policy {
                        PullPolicy::Never => Err(RuntimeError::ImageNeverPull { image }),
                        _ => Err(RuntimeError::ImagePull { image, message }),
                    }
                } else {
                    self.images.insert(image.clone());
                    let pulled = !present;
                    Ok(Outcome::Image(Image { id: image, user: String::new(), pulled, size_bytes: 1 << 20 }))
                }
            }
            RuntimeOp::CreateSandbox(spec) => {
                at = now + self.rules.sandbox_latency;
                self.sandbox(at, &uid, spec)
            }
            RuntimeOp::StartContainer { container, spec } => {
                at = now + self.rules.start_latency;
                self.start(now, &uid, &container, &spec)
            }
            RuntimeOp::StopContainer { container, grace } => {
                let after = grace.min(self.rules.stop_latency);
                let plan = self.pods.get(&uid).and_then(|p| p.containers.get(&container)).map(|c| c.plan);
                if let Some(plan) = plan {
                    let code = if grace.is_zero() { 137 } else { 143 };
                    let what = Pending::Exit { pod: uid.clone(), container, plan, code, oom: false };
                    self.later(now + after, what);
                }
                Ok(Outcome::Done)
            }
            RuntimeOp::RemoveContainer { container } => {
                if let Some(pod) = self.pods.get_mut(&uid) {
                    pod.containers.retain(|key, c| *key != container || c.exit.is_none());
                }
                Ok(Outcome::Done)
            }
            RuntimeOp::StopSandbox => {
                self.stop_pod(now, &uid);
                Ok(Outcome::Done)
            }
            RuntimeOp::RemoveSandbox => {
                self.stop_pod(now, &uid);
                self.pods.remove(&uid);
                self.volumes.remove(&uid);
                Ok(Outcome::Done)
            }
            RuntimeOp::Exec { container, .. } => {
                match self.pods.get(&uid).and_then(|p| p.containers.get(&container)) {
                    Some(c) if c.exit.is_none() => Ok(Outcome::Exec(ExecOutput {
                        code: i32::from(c.behaviour.fail_exec),
                        ..ExecOutput::default()
                    })),
                    _ => Err(RuntimeError::NotFound { what: format!("container {container}") }),
                }
            }
            RuntimeOp::HttpGet(_) => Ok(self.probe(&uid, |b| b.fail_http)),
            RuntimeOp::TcpConnect { .. } => Ok(self.probe(&uid, |b| b.fail_tcp)),
            RuntimeOp::GrpcHealth { .. } => Ok(self.probe(&uid, |b| b.fail_grpc)),
            RuntimeOp::Relist => Ok(Outcome::Listed(self.list())),
            RuntimeOp::ListImages => Ok(Outcome::Images(
                self.images
                    .iter()
                    .map(|name| ImageInfo {
                        id: name.clone(),
                        names: Vec::from([name.clone()]),
                        size_bytes: 1 << 20,
                        ..ImageInfo::default()
                    })
                    .collect(),
            )),
            RuntimeOp::RemoveImage { id } => {
                self.images.remove(&id);
                Ok(Outcome::Done)
            }
            RuntimeOp::Usage => Ok(Outcome::Usage(NodeUsage::default())),
            RuntimeOp::WriteVolume { volume, content } => {
                // Volumes come before the sandbox.
                self.volumes.entry(uid.clone()).or_default().insert(volume, content);
                Ok(Outcome::Done)
            }
        };
        self.answer(at, &uid, id, result);
    }

    fn sandbox(&mut self, at: Time, uid: &PodUid, spec: Arc<SandboxSpec>) -> Result<Outcome, RuntimeError> {
        if let Some((_, ips, at)) = self.pods.get(uid).and_then(|p| p.sandbox.as_ref()) {
            return Ok(Outcome::Sandbox { ips: ips.clone(), at: *at });
        }
        if spec.annotations.get("sim.icp/fail").is_some_and(|f| f.split(',').any(|w| w.trim() == "sandbox")) {
            return Err(RuntimeError::Sandbox { message: "the simulation says so".into() });
        }
        let ips = match spec.network {
            Network::Host => self.host_ips.clone(),
            Network::Pod => match self.allocate() {
                Some(ip) => Vec::from([ip]),
                None => {
                    let message = format!("no address left in {}", self.pod_cidr);
                    return Err(RuntimeError::Sandbox { message });
                }
            },
        };
        let pod = self.pods.entry(uid.clone()).or_insert_with(|| SimPod {
            sandbox: None,
            namespace: spec.namespace.clone(),
            name: spec.name.clone(),
            containers: BTreeMap::new(),
        });
        pod.sandbox = Some((spec, ips.clone(), at));
        Ok(Outcome::Sandbox { ips, at })
    }
}

impl Machine for MemoryRuntime {
    type Event = MemoryEvent;
    type Effect = RuntimeEvent;

    fn on(&mut self, now: Time, event: MemoryEvent, out: &mut Vec<RuntimeEvent>) {
        match event {
            MemoryEvent::Call(call) => self.call(now, call),
            MemoryEvent::Exit { pod, container, code } => {
                let newest = self
                    .pods
                    .get(&pod)
                    .and_then(|p| p.containers.keys().rfind(|k| *k.name == *container).cloned());
                if let Some(key) = newest {
                    out.extend(self.exit(now, &pod, &key, code, false));
                }
            }
            MemoryEvent::LoseSandbox { pod } => {
                if self.pods.get(&pod).is_some_and(|p| p.sandbox.is_some()) {
                    self.stop_pod(now, &pod);
                    let message = "the simulation says so".into();
                    self.later(now, Pending::Answer(RuntimeEvent::SandboxDied { pod, message }));
                }
            }
            MemoryEvent::Disconnect => self.pending.retain(|_, what| matches!(what, Pending::Exit { .. })),
            MemoryEvent::Reboot => {
                self.pods.clear();
                self.volumes.clear();
                self.used_ips.clear();
                self.pending.clear();
            }
        }
        self.wake(now, out);
    }

    fn wake(&mut self, now: Time, out: &mut Vec<RuntimeEvent>) {
        while let Some(entry) = self.pending.first_entry() {
            if entry.key().0 > now {
                break;
            }
            match entry.remove() {
                Pending::Answer(event) => out.push(event),
                Pending::Exit { pod, container, plan, code, oom } => {
                    let known = self.pods.get(&pod).and_then(|p| p.containers.get(&container));
                    if known.is_some_and(|c| c.plan == plan) {
                        out.extend(self.exit(now, &pod, &container, code, oom));
                    }
                }
            }
        }
    }

    fn deadline(&self) -> Option<Time> {
        self.pending.first_key_value().map(|((at, _), _)| *at)
    }
}
