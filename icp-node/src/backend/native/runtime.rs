//! The runtime: calls to pods, containers, images and probes.
#![expect(clippy::disallowed_methods, reason = "a shell: it reads the clock and starts tasks")]

use alloc::boxed::Box;
use alloc::collections::BTreeMap;
use alloc::format;
use alloc::string::{String, ToString};
use alloc::sync::Arc;
use alloc::vec::Vec;
use core::net::SocketAddr;
use core::time::Duration;
use std::fs::File;
use std::io;
use std::os::fd::OwnedFd;
use std::path::Path;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{SystemTime, UNIX_EPOCH};

use async_trait::async_trait;
use bytes::Bytes;
use icp_core::base::Time;
use serde::de::DeserializeOwned;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::process::Command;
use tokio::sync::mpsc;
use tokio::time::timeout;

use super::ask::{ask, hold};
use super::cgroup::{Cgroups, Limits};
use super::container::Container;
use super::image::{ImageStore, Reference};
use super::log::{Cut, follow, last_lines, log_files};
use super::plan::Facts;
use super::pod::Pod;
use super::record::{Failure, PodDir};
use super::session::Received;
use super::{HELPER_ARG, NativeConfig, netprobe};
use crate::runtime::{
    ByteSink, ByteStream, Duplex, ExecOutput, ExecRequest, ExecSession, LogOptions, NodeUsage, Outcome,
    PodUid, PullPolicy, Runtime, RuntimeCall, RuntimeError, RuntimeEvent, RuntimeEvents, RuntimeOp,
};

/// Events that wait for a slow subscriber; then the tasks that watch containers wait.
const EVENTS: usize = 4096;
/// Most output of a command that is kept.
const EXEC_OUTPUT_MAX: usize = 10 * 1024;

/// Why the native runtime cannot be used on this machine.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum NativeError {
    /// Its folder cannot be used.
    #[error("{path}: {source}")]
    Folder {
        /// The folder or file.
        path: String,
        /// Why.
        source: io::Error,
    },
    /// The helper program did not answer.
    #[error("helper {program}: {message}")]
    Helper {
        /// The program.
        program: String,
        /// What it said, or why it could not be run.
        message: String,
    },
    /// The kernel refuses what containers need.
    #[error("{message}")]
    Kernel {
        /// What it refuses, and what would help.
        message: String,
    },
}

pub(super) fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// The wall clock.
pub(super) fn now() -> Time {
    Time::ZERO + SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default()
}

/// What all parts of a runtime share.
pub(super) struct Inner {
    pub(super) config: NativeConfig,
    pub(super) facts: Facts,
    pub(super) images: ImageStore,
    pub(super) cgroups: Cgroups,
    pub(super) pods: Mutex<BTreeMap<PodUid, Arc<Pod>>>,
    subscribers: Mutex<Vec<mpsc::Sender<RuntimeEvent>>>,
    /// Locked as long as this runtime lives: two would start everything twice.
    _lock: File,
}

/// Runs work that blocks beside the other tasks.
pub(super) async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> T + Send + 'static,
) -> Result<T, RuntimeError> {
    let failed = |e| RuntimeError::Unavailable { message: format!("a task was lost: {e}") };
    tokio::task::spawn_blocking(work).await.map_err(failed)
}

impl Inner {
    /// Tells every subscriber; waits for the slow ones.
    pub(super) async fn emit(&self, event: RuntimeEvent) {
        let list = lock(&self.subscribers).clone();
        for subscriber in &list {
            let _ = subscriber.send(event.clone()).await;
        }
        lock(&self.subscribers).retain(|s| !s.is_closed());
    }

    pub(super) fn pod(&self, uid: &PodUid) -> Option<Arc<Pod>> {
        lock(&self.pods).get(uid).cloned()
    }

    /// A command that runs the helper.
    pub(super) fn helper(&self, mode: &str, path: &Path) -> Command {
        let mut command = Command::new(&self.config.helper);
        command.arg0(format!("icp-{mode}")).arg(HELPER_ARG).arg(mode).arg(path);
        command
    }

    /// Runs the helper and waits for its answer. What it writes to stderr goes to `errors`.
    pub(super) async fn ask<T: DeserializeOwned>(
        &self,
        mode: &str,
        path: &Path,
        errors: &Path,
    ) -> Result<T, Failure> {
        ask(self.helper(mode, path), errors).await
    }
}

/// Runs containers on this machine. See the [module](super).
///
/// It is cheap to clone; all clones are the same runtime. Dropping it leaves the containers running.
#[derive(Clone)]
pub struct NativeRuntime {
    inner: Arc<Inner>,
}

impl core::fmt::Debug for NativeRuntime {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        f.debug_struct("NativeRuntime").field("config", &self.inner.config).finish_non_exhaustive()
    }
}

impl NativeRuntime {
    /// Finds out what the machine can do, and what runs in [`NativeConfig::root`] from before.
    ///
    /// # Errors
    /// If the folder cannot be used, the helper does not answer, or the kernel refuses namespaces or mounts.
    pub async fn new(config: NativeConfig) -> Result<Self, NativeError> {
        let folder = |path: &Path| {
            let path = path.display().to_string();
            move |source| NativeError::Folder { path, source }
        };
        let (pods, probe) = (config.root.join("pods"), config.root.join("probe"));
        for dir in [&config.root, &pods, &probe] {
            std::fs::create_dir_all(dir).map_err(folder(dir))?;
        }
        let private = <std::fs::Permissions as std::os::unix::fs::PermissionsExt>::from_mode(0o700);
        std::fs::set_permissions(&pods, private).map_err(folder(&pods))?;
        let mut config = config;
        config.root = std::fs::canonicalize(&config.root).map_err(folder(&config.root))?;
        let held = hold(&config.root).await.map_err(folder(&config.root))?;
        let probe = config.root.join("probe");
        let images = ImageStore::open(config.root.join("images")).map_err(folder(&config.root))?;
        let mut command = Command::new(&config.helper);
        command.arg(HELPER_ARG).arg("probe").arg(&probe);
        let facts: Facts = ask(command, &probe.join("errors")).await.map_err(|e| NativeError::Helper {
            program: config.helper.display().to_string(),
            message: e.to_string(),
        })?;
        if let Some(message) = facts.broken {
            return Err(NativeError::Kernel { message });
        }
        let cgroups = Cgroups::detect(&config.cgroup_parent);
        let inner = Arc::new(Inner {
            config,
            facts,
            images,
            cgroups,
            pods: Mutex::new(BTreeMap::new()),
            subscribers: Mutex::new(Vec::new()),
            _lock: held,
        });
        super::load::load(&inner).await;
        Ok(Self { inner })
    }

    /// Whether limits of pods and containers hold here, and why not.
    #[must_use]
    pub fn limits(&self) -> Limits {
        self.inner.cgroups.limits()
    }

    /// Loads all images of an archive (`docker save`, or an OCI layout as a folder or a tar file, also compressed with
    /// gzip) and answers their complete names.
    ///
    /// # Errors
    /// [`RuntimeError::ImagePull`] if it cannot be read or unpacked; nothing of it is kept then.
    pub async fn load_image(&self, archive: &Path) -> Result<Vec<String>, RuntimeError> {
        let (inner, path) = (self.inner.clone(), archive.to_path_buf());
        let image = archive.display().to_string();
        let result = blocking(move || inner.images.load(&path)).await?;
        result.map_err(|e| RuntimeError::ImagePull { image, message: e.to_string() })
    }

    fn existing(&self, uid: &PodUid) -> Result<Arc<Pod>, RuntimeError> {
        self.inner.pod(uid).ok_or_else(|| RuntimeError::NotFound { what: format!("pod {uid}") })
    }

    /// The pod of a call that may be the first one about it.
    fn pod_of(&self, uid: &PodUid) -> Result<Arc<Pod>, RuntimeError> {
        let dir = PodDir::new(&self.inner.config.root, uid).ok_or_else(|| RuntimeError::Sandbox {
            message: format!("pod uid {:?} cannot be the name of a folder", uid.as_str()),
        })?;
        let mut pods = lock(&self.inner.pods);
        Ok(pods.entry(uid.clone()).or_insert_with(|| Arc::new(Pod::new(uid.clone(), dir))).clone())
    }

    fn ensure_image(&self, image: String, policy: PullPolicy) -> Result<Outcome, RuntimeError> {
        let reference = match Reference::parse(&image) {
            Ok(reference) => reference,
            Err(message) => return Err(RuntimeError::InvalidImageName { image, message }),
        };
        match (self.inner.images.image(&reference), policy) {
            (Some(found), _) => Ok(Outcome::Image(found)),
            (None, PullPolicy::Never) => Err(RuntimeError::ImageNeverPull { image }),
            (None, _) => {
                let message = format!(
                    "{reference} is not on this node, and this runtime cannot pull from registries yet: load it from \
                     an archive (docker save or an OCI layout)"
                );
                Err(RuntimeError::ImagePull { image, message })
            }
        }
    }

    async fn remove_image(&self, id: String) -> Result<Outcome, RuntimeError> {
        let pods: Vec<Arc<Pod>> = lock(&self.inner.pods).values().cloned().collect();
        for pod in pods {
            if let Some(user) = pod.containers().into_iter().find(|c| c.record.image_id == id) {
                let message = format!("image {id} is used by container {} of pod {}", user.key, pod.uid);
                return Err(RuntimeError::Config { message });
            }
        }
        let inner = self.inner.clone();
        let result = blocking(move || inner.images.remove(&id)).await?;
        result.map_err(|e| RuntimeError::Unavailable { message: format!("remove the image: {e}") })?;
        Ok(Outcome::Done)
    }

    async fn exec_and_wait(
        &self,
        pod: &Pod,
        container: &Arc<Container>,
        command: Vec<String>,
        wait: Duration,
    ) -> Result<Outcome, RuntimeError> {
        let request = ExecRequest { command, stdout: true, stderr: true, ..ExecRequest::default() };
        let run = async {
            let mut session = pod.exec(&self.inner, container, &request).await?;
            let mut output = Vec::new();
            let (mut stdout, mut stderr) = (session.stdout.take(), session.stderr.take());
            loop {
                let piece = tokio::select! {
                    Some(piece) = next(&mut stdout), if stdout.is_some() => piece,
                    Some(piece) = next(&mut stderr), if stderr.is_some() => piece,
                    else => break,
                };
                let data = piece?;
                let room = EXEC_OUTPUT_MAX.saturating_sub(output.len());
                output.extend_from_slice(data.get(..room.min(data.len())).unwrap_or_default());
            }
            let code = session.status.await?;
            Ok(Outcome::Exec(ExecOutput { code, output: output.into() }))
        };
        // What is dropped at the end of the time kills the process.
        timeout(wait, run).await.unwrap_or_else(|_| {
            Err(RuntimeError::Timeout { millis: u64::try_from(wait.as_millis()).unwrap_or(u64::MAX) })
        })
    }

    fn usage(&self) -> NodeUsage {
        let statvfs = rustix::fs::statvfs(&self.inner.config.root).ok();
        let fs = |pick: &dyn Fn(&rustix::fs::StatVfs) -> u64| statvfs.as_ref().map(pick);
        let meminfo = std::fs::read_to_string("/proc/meminfo").unwrap_or_default();
        let memory = |name: &str| {
            let line = meminfo.lines().find_map(|l| l.strip_prefix(name))?;
            line.split_ascii_whitespace().next()?.parse::<u64>().ok().map(|kib| kib * 1024)
        };
        let pids_capacity =
            std::fs::read_to_string("/proc/sys/kernel/pid_max").ok().and_then(|t| t.trim().parse().ok());
        let threads = std::fs::read_to_string("/proc/loadavg")
            .ok()
            .and_then(|t| t.split_ascii_whitespace().nth(3)?.split_once('/')?.1.parse::<u64>().ok());
        let pods: Vec<Arc<Pod>> = lock(&self.inner.pods).values().cloned().collect();
        let memory_of = |pod: Arc<Pod>| {
            let qos = pod.record()?.qos();
            Some((pod.uid.clone(), self.inner.cgroups.pod_memory(qos, pod.uid.as_str())?))
        };
        NodeUsage {
            memory_available_bytes: memory("MemAvailable:"),
            memory_capacity_bytes: memory("MemTotal:"),
            nodefs_available_bytes: fs(&|s| s.f_bavail.saturating_mul(s.f_frsize)),
            nodefs_capacity_bytes: fs(&|s| s.f_blocks.saturating_mul(s.f_frsize)),
            nodefs_inodes_free: fs(&|s| s.f_favail),
            nodefs_inodes: fs(&|s| s.f_files),
            imagefs_available_bytes: fs(&|s| s.f_bavail.saturating_mul(s.f_frsize)),
            imagefs_capacity_bytes: fs(&|s| s.f_blocks.saturating_mul(s.f_frsize)),
            pids_available: pids_capacity.zip(threads).map(|(c, t): (u64, u64)| c.saturating_sub(t)),
            pids_capacity,
            pod_memory_bytes: pods.into_iter().filter_map(memory_of).collect(),
        }
    }
}

/// The next piece of a stream; sets it to `None` at its end.
async fn next(stream: &mut Option<ByteStream>) -> Option<Result<Bytes, RuntimeError>> {
    let item = match stream {
        Some(s) => core::future::poll_fn(|cx| s.as_mut().poll_next(cx)).await,
        None => None,
    };
    if item.is_none() {
        *stream = None;
    }
    item
}

#[async_trait]
impl Runtime for NativeRuntime {
    async fn perform(&self, call: RuntimeCall) -> Result<Outcome, RuntimeError> {
        let uid = &call.pod;
        match call.op {
            RuntimeOp::EnsureImage { image, policy, .. } => self.ensure_image(image, policy),
            RuntimeOp::CreateSandbox(spec) => self.pod_of(uid)?.create_sandbox(&self.inner, &spec).await,
            RuntimeOp::WriteVolume { volume, content } => {
                let pod = self.pod_of(uid)?;
                let _gate = pod.gate.lock().await;
                let (dir, gids) = (pod.dir.volumes(), self.inner.facts.gids.clone());
                let write = move || super::volume::write(&dir, &volume, &content, &gids);
                blocking(write).await??;
                Ok(Outcome::Done)
            }
            RuntimeOp::StartContainer { container, spec } => {
                let no_sandbox = || RuntimeError::Sandbox { message: "the pod has no sandbox".into() };
                let pod = self.inner.pod(uid).ok_or_else(no_sandbox)?;
                pod.start_container(&self.inner, container, &spec).await
            }
            RuntimeOp::StopContainer { container, grace } => {
                if let Some(found) = self.inner.pod(uid).and_then(|p| p.container(&container)) {
                    found.stop(grace);
                }
                Ok(Outcome::Done)
            }
            RuntimeOp::RemoveContainer { container } => match self.inner.pod(uid) {
                Some(pod) => pod.remove_container(&container).await,
                None => Ok(Outcome::Done),
            },
            RuntimeOp::StopSandbox => match self.inner.pod(uid) {
                Some(pod) => pod.stop_sandbox(&self.inner).await,
                None => Ok(Outcome::Done),
            },
            RuntimeOp::RemoveSandbox => match self.inner.pod(uid) {
                Some(pod) => pod.remove_sandbox(&self.inner).await,
                None => Ok(Outcome::Done),
            },
            RuntimeOp::Exec { container, command, timeout } => {
                let pod = self.existing(uid)?;
                let found = pod.running(&container)?;
                self.exec_and_wait(&pod, &found, command, timeout).await
            }
            RuntimeOp::HttpGet(get) => {
                let ip = self.inner.pod(uid).and_then(|p| p.ip());
                netprobe::http(&get, ip).await.map(Outcome::Probe)
            }
            RuntimeOp::TcpConnect { host, port, timeout } => {
                let ip = host.or_else(|| self.inner.pod(uid)?.ip());
                let ip =
                    ip.ok_or_else(|| RuntimeError::NotFound { what: format!("address of pod {uid}") })?;
                Ok(Outcome::Probe(netprobe::tcp(SocketAddr::new(ip, port), timeout).await))
            }
            RuntimeOp::GrpcHealth { port, service, timeout } => {
                let ip = self.inner.pod(uid).and_then(|p| p.ip());
                let ip =
                    ip.ok_or_else(|| RuntimeError::NotFound { what: format!("address of pod {uid}") })?;
                let to = SocketAddr::new(ip, port);
                Ok(Outcome::Probe(netprobe::grpc_health(to, &service, timeout).await))
            }
            RuntimeOp::Relist => {
                let pods: Vec<Arc<Pod>> = lock(&self.inner.pods).values().cloned().collect();
                Ok(Outcome::Listed(pods.iter().filter_map(|p| p.listing()).collect()))
            }
            RuntimeOp::ListImages => Ok(Outcome::Images(self.inner.images.list())),
            RuntimeOp::RemoveImage { id } => self.remove_image(id).await,
            RuntimeOp::Usage => {
                let this = self.clone();
                Ok(Outcome::Usage(blocking(move || this.usage()).await?))
            }
        }
    }

    fn events(&self) -> RuntimeEvents {
        let (to, from) = mpsc::channel(EVENTS);
        lock(&self.inner.subscribers).push(to);
        Box::pin(Received(from))
    }

    async fn logs(
        &self,
        pod: &PodUid,
        container: &str,
        options: LogOptions,
    ) -> Result<ByteStream, RuntimeError> {
        let attempts: Vec<Arc<Container>> =
            self.existing(pod)?.containers().into_iter().filter(|c| *c.key.name == *container).collect();
        let mut newest_first = attempts.into_iter().rev();
        let found = if options.previous { newest_first.nth(1) } else { newest_first.next() };
        let found = found.ok_or_else(|| {
            let which = if options.previous { "previous terminated container" } else { "container" };
            RuntimeError::NotFound { what: format!("{which} {container:?}") }
        })?;
        let files = log_files(&found.dir.join("log").join("0.log"));
        let start = match options.tail_lines {
            None => (0, 0),
            Some(lines) => {
                let files = files.clone();
                let failed = |e| RuntimeError::Unavailable { message: format!("cannot read the log: {e}") };
                blocking(move || last_lines(&files, lines)).await?.map_err(failed)?
            }
        };
        let cut = Cut::new(options.since, options.timestamps, options.limit_bytes);
        let (to, from) = mpsc::channel(16);
        let is_over = options.follow.then_some(move || found.exit().is_some());
        tokio::spawn(follow(files, start, cut, is_over, to));
        Ok(Box::pin(Received(from)))
    }

    async fn exec(
        &self,
        pod: &PodUid,
        container: &str,
        request: ExecRequest,
    ) -> Result<ExecSession, RuntimeError> {
        let pod = self.existing(pod)?;
        let found = pod.newest_running(container)?;
        pod.exec(&self.inner, &found, &request).await
    }

    async fn attach(
        &self,
        pod: &PodUid,
        container: &str,
        request: ExecRequest,
    ) -> Result<ExecSession, RuntimeError> {
        let found = self.existing(pod)?.newest_running(container)?;
        found.attach(&request).await
    }

    async fn port_forward(&self, pod: &PodUid, port: u16) -> Result<Duplex, RuntimeError> {
        let netns: OwnedFd = self.existing(pod)?.netns()?;
        let failed =
            |e| RuntimeError::Unavailable { message: format!("connect to port {port} of the pod: {e}") };
        let stream = netprobe::connect_in(netns, port).await.map_err(failed)?;
        let (mut read, write) = stream.into_split();
        let (to, from) = mpsc::channel(8);
        tokio::spawn(async move {
            let mut buffer = alloc::vec![0; 64 * 1024];
            loop {
                let piece = tokio::select! {
                    n = read.read(&mut buffer) => n,
                    () = to.closed() => return,
                };
                let item = match piece {
                    Ok(0) => return,
                    Ok(n) => Ok(Bytes::copy_from_slice(buffer.get(..n).unwrap_or_default())),
                    Err(e) => Err(RuntimeError::Unavailable { message: e.to_string() }),
                };
                let last = item.is_err();
                if to.send(item).await.is_err() || last {
                    return;
                }
            }
        });
        Ok(Duplex { read: Box::pin(Received(from)), write: Box::new(PortSink(write)) })
    }
}

struct PortSink(tokio::net::tcp::OwnedWriteHalf);

#[async_trait]
impl ByteSink for PortSink {
    async fn write(&mut self, bytes: Bytes) -> Result<(), RuntimeError> {
        let closed = |e: io::Error| RuntimeError::Unavailable { message: e.to_string() };
        self.0.write_all(&bytes).await.map_err(closed)
    }
}
