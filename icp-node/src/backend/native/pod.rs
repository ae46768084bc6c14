//! A pod: its sandbox, and the containers in it.
#![expect(clippy::disallowed_methods, reason = "a shell: it starts tasks that watch processes")]

use alloc::collections::BTreeMap;
use alloc::format;
use alloc::string::{String, ToString};
use alloc::sync::{Arc, Weak};
use alloc::vec::Vec;
use core::net::IpAddr;
use core::sync::atomic::{AtomicU64, Ordering};
use core::time::Duration;
use std::fs;
use std::io;
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::sync::Mutex;

use icp_core::base::Time;
use rustix::fs::{CWD, Mode, OFlags};
use rustix::process::Signal;

use super::cgroup;
use super::container::{Container, open_process};
use super::image::{Reference, copy_tree};
use super::plan::{
    ContainerInput, ContainerPlan, ExecPlan, Rootfs, SandboxPlan, container_plan, exec_plan, sandbox_plan,
    signal_number,
};
use super::record::{self, ContainerRecord, Failure, PodDir, PodRecord, ProcessRecord, ShimRecord};
use super::runtime::{Inner, blocking, lock, now};
use super::wait::ended;
use super::{session, volume};
use crate::runtime::{
    ContainerKey, ContainerSpec, ExecRequest, ExecSession, Network, Outcome, PodListing, PodUid,
    RuntimeError, RuntimeEvent, SandboxListing, SandboxSpec,
};

/// How long killed containers and holders are waited for.
const KILL_WAIT: Duration = Duration::from_secs(20);
/// Bytes of a pod's `/dev/shm` (`containerd/pkg/cri`).
const SHM_BYTES: u64 = 64 << 20;

#[derive(Default)]
struct State {
    record: Option<PodRecord>,
    containers: BTreeMap<ContainerKey, Arc<Container>>,
    /// The sandbox is taken down on purpose: its end is no news.
    stopping: bool,
}

/// A pod that the runtime knows.
pub(super) struct Pod {
    pub(super) uid: PodUid,
    pub(super) dir: PodDir,
    /// Held by calls that change the sandbox, its volumes, or which containers there are.
    pub(super) gate: tokio::sync::Mutex<()>,
    state: Mutex<State>,
    execs: AtomicU64,
}

fn sandbox_error(what: impl core::fmt::Display) -> RuntimeError {
    RuntimeError::Sandbox { message: what.to_string() }
}

fn start_error(failure: Failure) -> RuntimeError {
    match failure {
        Failure::Config(message) => RuntimeError::Config { message },
        Failure::Start(message) | Failure::Other(message) => RuntimeError::Start { message },
    }
}

fn unavailable(what: impl core::fmt::Display) -> RuntimeError {
    RuntimeError::Unavailable { message: what.to_string() }
}

impl Pod {
    pub(super) fn new(uid: PodUid, dir: PodDir) -> Self {
        Self {
            uid,
            dir,
            gate: tokio::sync::Mutex::new(()),
            state: Mutex::new(State::default()),
            execs: AtomicU64::new(0),
        }
    }

    /// Takes what was found on the disk.
    pub(super) fn adopt(&self, record: Option<PodRecord>, containers: Vec<Arc<Container>>) {
        let mut state = lock(&self.state);
        state.record = record;
        state.containers = containers.into_iter().map(|c| (c.key.clone(), c)).collect();
    }

    pub(super) fn record(&self) -> Option<PodRecord> {
        lock(&self.state).record.clone()
    }

    /// All containers by name and attempt.
    pub(super) fn containers(&self) -> Vec<Arc<Container>> {
        lock(&self.state).containers.values().cloned().collect()
    }

    pub(super) fn container(&self, key: &ContainerKey) -> Option<Arc<Container>> {
        lock(&self.state).containers.get(key).cloned()
    }

    fn not_running(what: impl core::fmt::Display) -> RuntimeError {
        RuntimeError::NotFound { what: format!("running container {what}") }
    }

    pub(super) fn running(&self, key: &ContainerKey) -> Result<Arc<Container>, RuntimeError> {
        self.container(key).filter(|c| c.is_running()).ok_or_else(|| Self::not_running(key))
    }

    pub(super) fn newest_running(&self, name: &str) -> Result<Arc<Container>, RuntimeError> {
        let all = self.containers();
        let found = all.into_iter().rfind(|c| *c.key.name == *name && c.is_running());
        found.ok_or_else(|| Self::not_running(name))
    }

    /// The pod's first address.
    pub(super) fn ip(&self) -> Option<IpAddr> {
        lock(&self.state).record.as_ref().filter(|r| r.up)?.ips.first().copied()
    }

    /// The network namespace of the sandbox.
    pub(super) fn netns(&self) -> Result<OwnedFd, RuntimeError> {
        let none = || RuntimeError::NotFound { what: format!("sandbox of pod {}", self.uid) };
        let record = self.record().filter(|r| r.up && r.holder.is_there()).ok_or_else(none)?;
        let flags = OFlags::RDONLY | OFlags::CLOEXEC;
        rustix::fs::openat(CWD, netns_path(record.holder), flags, Mode::empty()).map_err(|_| none())
    }

    /// What the runtime tells of the pod; `None` if there is nothing to tell. Of a pod whose volumes are all that was
    /// made the name is not known.
    pub(super) fn listing(&self) -> Option<PodListing> {
        let state = lock(&self.state);
        if state.record.is_none() && !self.dir.path().exists() {
            return None;
        }
        let record = state.record.clone().unwrap_or_default();
        Some(PodListing {
            uid: self.uid.clone(),
            namespace: record.namespace.clone(),
            name: record.name.clone(),
            sandbox: record.up.then(|| SandboxListing {
                ips: record.ips.clone(),
                created_at: Time::from_micros(record.created_micros),
            }),
            containers: state.containers.values().map(|c| c.listing()).collect(),
        })
    }

    fn save(&self, change: impl FnOnce(&mut PodRecord)) -> io::Result<()> {
        let mut state = lock(&self.state);
        match &mut state.record {
            Some(r) => {
                change(r);
                record::write(&self.dir.record(), r)
            }
            None => Ok(()),
        }
    }

    // ---- the sandbox ----------------------------------------------------------------------------------------

    pub(super) async fn create_sandbox(
        self: &Arc<Self>,
        inner: &Arc<Inner>,
        spec: &SandboxSpec,
    ) -> Result<Outcome, RuntimeError> {
        let _gate = self.gate.lock().await;
        if let Some(r) = self.record().filter(|r| r.up && r.holder.is_there()) {
            return Ok(Outcome::Sandbox { ips: r.ips, at: Time::from_micros(r.created_micros) });
        }
        // What an attempt that was cut short, or a sandbox that died, has left.
        self.tear_down(inner, false).await?;
        let plan = sandbox_plan(spec)?;
        fs::create_dir_all(self.dir.path().join("containers")).map_err(sandbox_error)?;
        let created = now();
        let record = PodRecord::new(spec, created);
        lock(&self.state).record = Some(record);
        let made = self.bring_up(inner, spec, plan).await;
        if let Err(error) = made {
            if let Err(then) = self.tear_down(inner, false).await {
                return Err(sandbox_error(format!("{error}; and then: {then}")));
            }
            return Err(error);
        }
        let record = self.record().unwrap_or_default();
        self.watch_holder(inner, record.holder);
        Ok(Outcome::Sandbox { ips: record.ips, at: created })
    }

    async fn bring_up(
        &self,
        inner: &Arc<Inner>,
        spec: &SandboxSpec,
        mut plan: SandboxPlan,
    ) -> Result<(), RuntimeError> {
        let (cgroups, uid, qos, limits) =
            (inner.cgroups.clone(), self.uid.to_string(), spec.qos, spec.resources);
        let group = blocking(move || cgroups.make_pod(qos, &uid, &limits)).await?.map_err(sandbox_error)?;
        plan.cgroup_procs = group.procs;
        let (dir, shm, host_ipc) = (self.dir.path().to_path_buf(), self.dir.shm(), spec.host_ipc);
        let prepare = move || -> io::Result<()> {
            if !host_ipc {
                volume::empty(&shm, true, SHM_BYTES, None)?;
                let mode = <fs::Permissions as std::os::unix::fs::PermissionsExt>::from_mode(0o1777);
                fs::set_permissions(&shm, mode)?;
            }
            record::write(&dir.join("sandbox.json"), &plan)
        };
        blocking(prepare).await?.map_err(sandbox_error)?;
        let errors = self.dir.path().join("holder.errors");
        let holder: ProcessRecord =
            inner.ask("sandbox", self.dir.path(), &errors).await.map_err(sandbox_error)?;
        let attach = spec.network == Network::Pod;
        self.save(|r| {
            r.holder = holder;
            r.attached = attach;
        })
        .map_err(sandbox_error)?;
        let ips = if attach {
            let netns = netns_path(holder);
            inner.config.network.attach(&self.uid, &netns, spec).await.map_err(sandbox_error)?
        } else {
            inner.config.host_ips.clone()
        };
        let up = |r: &mut PodRecord| {
            r.ips = ips;
            r.up = true;
        };
        self.save(up).map_err(sandbox_error)
    }

    /// Tells when the sandbox dies without being taken down.
    pub(super) fn watch_holder(self: &Arc<Self>, inner: &Arc<Inner>, holder: ProcessRecord) {
        let (this, inner): (Weak<Self>, Weak<Inner>) = (Arc::downgrade(self), Arc::downgrade(inner));
        tokio::spawn(async move {
            if let Some(process) = open_process(holder) {
                let _ = ended(process).await;
            }
            let (Some(this), Some(inner)) = (this.upgrade(), inner.upgrade()) else { return };
            {
                let mut state = lock(&this.state);
                let stopping = state.stopping;
                match &mut state.record {
                    Some(r) if r.up && r.holder == holder && !stopping => r.up = false,
                    _ => return,
                }
            }
            let _ = this.save(|_| {});
            this.kill_containers().await;
            let message = "the process that holds the pod's namespaces ended".into();
            inner.emit(RuntimeEvent::SandboxDied { pod: this.uid.clone(), message }).await;
        });
    }

    /// Kills all containers and waits for their ends; answers those that do not end.
    async fn kill_containers(&self) -> Vec<ContainerKey> {
        let running: Vec<_> = self.containers().into_iter().filter(|c| c.is_running()).collect();
        running.iter().for_each(|c| c.kill());
        let mut left = Vec::new();
        for container in running {
            if !container.wait(KILL_WAIT).await {
                left.push(container.key.clone());
            }
        }
        left
    }

    /// Gives everything back that the sandbox has. With `volumes` the pod's volumes go too.
    async fn tear_down(&self, inner: &Arc<Inner>, volumes: bool) -> Result<(), RuntimeError> {
        lock(&self.state).stopping = true;
        let result = self.tear_down_steps(inner, volumes).await;
        lock(&self.state).stopping = false;
        result
    }

    async fn tear_down_steps(&self, inner: &Arc<Inner>, volumes: bool) -> Result<(), RuntimeError> {
        let left = self.kill_containers().await;
        if let Some(key) = left.first() {
            return Err(unavailable(format!("container {key} does not end")));
        }
        // A pod may have volumes and no sandbox yet.
        let record = self.record().unwrap_or_default();
        let holder = open_process(record.holder);
        if record.attached {
            let netns = holder.as_ref().map(|_| netns_path(record.holder));
            inner.config.network.detach(&self.uid, netns.as_deref()).await.map_err(unavailable)?;
        }
        if let Some(holder) = holder {
            let _ = rustix::process::pidfd_send_signal(&holder, Signal::KILL);
            let over = tokio::time::timeout(KILL_WAIT, ended(holder)).await;
            if over.is_err() {
                return Err(unavailable("the holder of the pod's namespaces does not end"));
            }
        }
        let (cgroups, uid, qos) = (inner.cgroups.clone(), self.uid.to_string(), record.qos());
        let (shm, dir) = (self.dir.shm(), self.dir.volumes());
        let give_back = move || -> io::Result<()> {
            volume::unmount(&shm)?;
            if volumes {
                volume::remove_all(&dir)?;
            }
            cgroups.remove_pod(qos, &uid)
        };
        blocking(give_back).await?.map_err(unavailable)?;
        let down = |r: &mut PodRecord| {
            r.up = false;
            r.attached = false;
            r.holder = ProcessRecord::default();
        };
        self.save(down).map_err(unavailable)
    }

    pub(super) async fn stop_sandbox(&self, inner: &Arc<Inner>) -> Result<Outcome, RuntimeError> {
        let _gate = self.gate.lock().await;
        self.tear_down(inner, true).await?;
        Ok(Outcome::Done)
    }

    pub(super) async fn remove_sandbox(&self, inner: &Arc<Inner>) -> Result<Outcome, RuntimeError> {
        let _gate = self.gate.lock().await;
        self.tear_down(inner, true).await?;
        let dir = self.dir.path().to_path_buf();
        let remove = move || match fs::remove_dir_all(&dir) {
            Err(e) if e.kind() != io::ErrorKind::NotFound => Err(e),
            _ => Ok(()),
        };
        blocking(remove).await?.map_err(unavailable)?;
        *lock(&self.state) = State::default();
        lock(&inner.pods).remove(&self.uid);
        Ok(Outcome::Done)
    }

    // ---- containers -----------------------------------------------------------------------------------------

    pub(super) async fn start_container(
        self: &Arc<Self>,
        inner: &Arc<Inner>,
        key: ContainerKey,
        spec: &ContainerSpec,
    ) -> Result<Outcome, RuntimeError> {
        let _gate = self.gate.lock().await;
        if let Some(known) = self.container(&key) {
            return Ok(Outcome::Started { id: known.id(), at: Time::from_micros(known.shim.started_micros) });
        }
        let same_name = |c: &Arc<Container>| c.key.name == key.name;
        if self.containers().iter().any(|c| same_name(c) && c.is_running()) {
            return Err(RuntimeError::Conflict { container: key.to_string() });
        }
        let record = self
            .record()
            .filter(|r| r.up && r.holder.is_there())
            .ok_or_else(|| sandbox_error("the pod has no sandbox"))?;
        let bad_name = || RuntimeError::Config { message: format!("container name {:?}", key.name) };
        let dir = self.dir.container(&key).ok_or_else(bad_name)?;
        let result = self.launch(inner, &key, spec, &record, &dir).await;
        let (shim, kept) = match result {
            Ok(started) => started,
            Err(error) => {
                let (cgroups, group) = (inner.cgroups.clone(), group_name(&key));
                let (qos, uid) = (record.qos(), self.uid.to_string());
                let clean = move || {
                    let _ = fs::remove_dir_all(&dir);
                    if let Ok(group) = cgroups.make_container(qos, &uid, &group, &Default::default()) {
                        group.folders.iter().for_each(|f| drop(cgroup::remove(f)));
                    }
                };
                blocking(clean).await?;
                return Err(error);
            }
        };
        let container = Container::new(self.uid.clone(), key.clone(), dir, kept, shim, None);
        let started =
            Outcome::Started { id: container.id(), at: Time::from_micros(container.shim.started_micros) };
        lock(&self.state).containers.insert(key.clone(), container.clone());
        tokio::spawn(container.watch(Arc::downgrade(inner)));
        // Attempts before the previous one are of no use to anybody.
        for old in self.containers() {
            if old.key.name == key.name && old.key.attempt.saturating_add(2) <= key.attempt {
                self.forget(&old).await?;
            }
        }
        Ok(started)
    }

    async fn launch(
        &self,
        inner: &Arc<Inner>,
        key: &ContainerKey,
        spec: &ContainerSpec,
        record: &PodRecord,
        dir: &Path,
    ) -> Result<(ShimRecord, ContainerRecord), RuntimeError> {
        let reference = Reference::parse(&spec.image)
            .map_err(|message| RuntimeError::InvalidImageName { image: spec.image.clone(), message })?;
        let image = inner.images.view(&reference, now()).map_err(unavailable)?.ok_or_else(|| {
            RuntimeError::ImagePull { image: spec.image.clone(), message: "it is not on this node".into() }
        })?;
        let stop_signal = [&spec.stop_signal, &image.stop_signal].into_iter().find(|s| !s.is_empty());
        let stop_signal = match stop_signal {
            None => 15,
            Some(name) => signal_number(name).ok_or_else(|| RuntimeError::Config {
                message: format!("lifecycle.stopSignal: {name:?} is not a signal"),
            })?,
        };
        let (cgroups, uid, name) = (inner.cgroups.clone(), self.uid.to_string(), group_name(key));
        let (qos, limits) = (record.qos(), spec.resources);
        let made = blocking(move || cgroups.make_container(qos, &uid, &name, &limits)).await?;
        let group = made.map_err(|e| RuntimeError::Start { message: format!("control group: {e}") })?;
        let volumes = self.dir.volumes();
        let shm = if record.host_ipc { PathBuf::from("/dev/shm") } else { self.dir.shm() };
        let plan = container_plan(&ContainerInput {
            facts: &inner.facts,
            sandbox: &record.spec(),
            spec,
            image: &image,
            holder: record.holder.pid,
            dir,
            shm: &shm,
            volume: &|name| volume::path(&volumes, name),
            cgroup_procs: group.procs,
            oom_file: group.oom_file,
            log_max_bytes: inner.config.log_max_bytes,
            log_max_files: inner.config.log_max_files,
        })?;
        let kept = ContainerRecord {
            image: reference.to_string(),
            image_id: image.id,
            stop_signal,
            cgroups: group.folders,
        };
        let files: Vec<_> = spec.files.iter().map(|f| (f.path.clone(), f.data.clone(), f.mode)).collect();
        let (dir, saved) = (dir.to_path_buf(), kept.clone());
        let place = dir.clone();
        let prepare = move || prepare(&place, &plan, &saved, &files);
        blocking(prepare).await?.map_err(|e| RuntimeError::Start { message: e.to_string() })?;
        let shim = inner.ask("container", &dir, &dir.join("shim.errors")).await.map_err(start_error)?;
        Ok((shim, kept))
    }

    pub(super) async fn remove_container(&self, key: &ContainerKey) -> Result<Outcome, RuntimeError> {
        let _gate = self.gate.lock().await;
        let Some(container) = self.container(key) else { return Ok(Outcome::Done) };
        if container.is_running() {
            return Err(RuntimeError::Conflict { container: key.to_string() });
        }
        self.forget(&container).await?;
        Ok(Outcome::Done)
    }

    async fn forget(&self, container: &Container) -> Result<(), RuntimeError> {
        let (dir, groups) = (container.dir.clone(), container.record.cgroups.clone());
        let remove = move || -> io::Result<()> {
            groups.iter().try_for_each(|g| cgroup::remove(g))?;
            match fs::remove_dir_all(&dir) {
                Err(e) if e.kind() != io::ErrorKind::NotFound => Err(e),
                _ => Ok(()),
            }
        };
        blocking(remove).await?.map_err(unavailable)?;
        lock(&self.state).containers.remove(&container.key);
        Ok(())
    }

    /// Starts a process in a container and connects its streams.
    pub(super) async fn exec(
        &self,
        inner: &Arc<Inner>,
        container: &Arc<Container>,
        request: &ExecRequest,
    ) -> Result<ExecSession, RuntimeError> {
        let lost = || RuntimeError::NotFound { what: format!("plan of container {}", container.key) };
        let plan: ContainerPlan = record::read(&container.dir.join("plan.json")).ok_or_else(lost)?;
        let exec = ExecPlan {
            init: container.shim.init.pid,
            init_start: container.shim.init.start,
            cgroup_procs: plan.cgroup_procs,
            process: exec_plan(&plan.process, &request.command, request.tty)?,
            tty: request.tty,
            stdin: request.stdin,
        };
        let n = self.execs.fetch_add(1, Ordering::Relaxed);
        let file = container.dir.join(format!("exec-{}-{n}.json", std::process::id()));
        record::write(&file, &exec).map_err(unavailable)?;
        let mut command = inner.helper("exec", &file);
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::null()).kill_on_drop(true);
        let mut child = command.spawn().map_err(unavailable)?;
        let (Some(to), Some(from)) = (child.stdin.take(), child.stdout.take()) else {
            return Err(unavailable("the helper has no pipes"));
        };
        session::connect(from, to, request, true, child).await
    }
}

/// The control group of a container, within that of its pod.
fn group_name(key: &ContainerKey) -> String {
    format!("{}-{}", key.name, key.attempt)
}

fn netns_path(holder: ProcessRecord) -> PathBuf {
    format!("/proc/{}/ns/net", holder.pid).into()
}

/// Makes the files of a container. Blocks.
fn prepare(
    dir: &Path,
    plan: &ContainerPlan,
    kept: &ContainerRecord,
    files: &[(String, bytes::Bytes, u32)],
) -> io::Result<()> {
    use std::os::unix::fs::PermissionsExt;
    if dir.exists() {
        // Left by an attempt of that number that was cut short.
        fs::remove_dir_all(dir)?;
    }
    for folder in ["root", "upper", "work", "log", "files"] {
        fs::create_dir_all(dir.join(folder))?;
    }
    for (path, data, mode) in files {
        let file = dir.join("files").join(path.trim_start_matches('/').replace('/', "_"));
        fs::write(&file, data)?;
        fs::set_permissions(&file, fs::Permissions::from_mode(*mode))?;
    }
    fs::write(dir.join("message"), "")?;
    fs::set_permissions(dir.join("message"), fs::Permissions::from_mode(0o666))?;
    if let Rootfs::Copy { from, to } = &plan.rootfs {
        copy_tree(from, to)?;
    }
    if let Rootfs::Overlay { lower, upper, .. } = &plan.rootfs {
        // The root folder of an overlay is that of its upper layer.
        let meta = fs::metadata(lower)?;
        fs::set_permissions(upper, meta.permissions())?;
    }
    record::write(&dir.join("container.json"), kept)?;
    record::write(&dir.join("plan.json"), plan)
}
