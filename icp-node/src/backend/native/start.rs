//! Starts containers of a pod, forgets them, and runs further processes in them.
#![expect(clippy::disallowed_methods, reason = "a shell: it starts tasks that watch processes")]

use alloc::format;
use alloc::string::{String, ToString};
use alloc::sync::Arc;
use alloc::vec::Vec;
use core::sync::atomic::Ordering;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::process::Stdio;

use icp_core::base::Time;

use super::cgroup;
use super::container::Container;
use super::image::{Reference, copy_tree};
use super::plan::{
    ContainerInput, ContainerPlan, ExecPlan, Rootfs, container_plan, exec_plan, signal_number,
};
use super::pod::{Pod, sandbox_error, unavailable};
use super::record::{self, ContainerRecord, Failure, PodRecord, ShimRecord};
use super::runtime::{Inner, blocking, lock, now};
use super::{session, volume};
use crate::runtime::{ContainerKey, ContainerSpec, ExecRequest, ExecSession, Outcome, RuntimeError};

fn start_error(failure: Failure) -> RuntimeError {
    match failure {
        Failure::Config(message) => RuntimeError::Config { message },
        Failure::Start(message) | Failure::Other(message) => RuntimeError::Start { message },
    }
}

impl Pod {
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
