//! A pod: its sandbox, and the containers in it.
#![expect(clippy::disallowed_methods, reason = "a shell: it starts tasks that watch processes")]

use alloc::collections::BTreeMap;
use alloc::format;
use alloc::string::ToString;
use alloc::sync::{Arc, Weak};
use alloc::vec::Vec;
use core::net::IpAddr;
use core::sync::atomic::AtomicU64;
use core::time::Duration;
use std::fs;
use std::io;
use std::os::fd::OwnedFd;
use std::path::PathBuf;
use std::sync::Mutex;

use icp_core::base::Time;
use rustix::fs::{CWD, Mode, OFlags};
use rustix::process::Signal;

use super::container::{Container, open_process};
use super::plan::{SandboxPlan, sandbox_plan};
use super::record::{self, PodDir, PodRecord, ProcessRecord};
use super::runtime::{Inner, blocking, lock, now};
use super::volume;
use super::wait::ended;
use crate::runtime::{
    ContainerKey, Network, Outcome, PodListing, PodUid, RuntimeError, RuntimeEvent, SandboxListing,
    SandboxSpec,
};

/// How long killed containers and holders are waited for.
const KILL_WAIT: Duration = Duration::from_secs(20);
/// Bytes of a pod's `/dev/shm` (`containerd/pkg/cri`).
const SHM_BYTES: u64 = 64 << 20;

#[derive(Default)]
pub(super) struct State {
    record: Option<PodRecord>,
    pub(super) containers: BTreeMap<ContainerKey, Arc<Container>>,
    /// The sandbox is taken down on purpose: its end is no news.
    stopping: bool,
}

/// A pod that the runtime knows.
pub(super) struct Pod {
    pub(super) uid: PodUid,
    pub(super) dir: PodDir,
    /// Held by calls that change the sandbox, its volumes, or which containers there are.
    pub(super) gate: tokio::sync::Mutex<()>,
    pub(super) state: Mutex<State>,
    pub(super) execs: AtomicU64,
}

pub(super) fn sandbox_error(what: impl core::fmt::Display) -> RuntimeError {
    RuntimeError::Sandbox { message: what.to_string() }
}

pub(super) fn unavailable(what: impl core::fmt::Display) -> RuntimeError {
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
}

fn netns_path(holder: ProcessRecord) -> PathBuf {
    format!("/proc/{}/ns/net", holder.pid).into()
}
