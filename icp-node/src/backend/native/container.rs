//! A container that was started: its end, its stop, its streams.
#![expect(clippy::disallowed_methods, reason = "a shell: grace periods are waited for")]

use alloc::format;
use alloc::string::String;
use alloc::sync::{Arc, Weak};
use core::time::Duration;
use std::io;
use std::os::fd::{AsRawFd, OwnedFd};
use std::path::{Path, PathBuf};
use std::sync::Mutex;

use icp_core::base::Time;
use rustix::fs::{CWD, Mode, OFlags};
use rustix::process::{Pid, PidfdFlags, Signal};
use tokio::net::UnixStream;
use tokio::sync::watch;
use tokio::time::Instant;

use super::helper::signal_of;
use super::record::{self, ContainerRecord, ExitRecord, ProcessRecord, ShimRecord};
use super::runtime::{Inner, lock, now};
use super::session;
use super::wait::ended;
use crate::runtime::{
    ContainerKey, ContainerListing, ContainerState, ExecRequest, ExecSession, Exit, PodUid, RuntimeError,
    RuntimeEvent,
};

/// A container, running or ended.
pub(super) struct Container {
    pub(super) key: ContainerKey,
    pub(super) pod: PodUid,
    pub(super) dir: PathBuf,
    pub(super) record: ContainerRecord,
    pub(super) shim: ShimRecord,
    /// Its first process, which no later one can be mistaken for.
    init: Option<OwnedFd>,
    /// How it ended.
    end: watch::Sender<Option<Exit>>,
    /// When it is killed, once it was asked to stop.
    kill_at: Mutex<Option<watch::Sender<Instant>>>,
}

/// Opens a process by its record; `None` if it is gone.
pub(super) fn open_process(process: ProcessRecord) -> Option<OwnedFd> {
    let fd = rustix::process::pidfd_open(Pid::from_raw(process.pid)?, PidfdFlags::empty()).ok()?;
    process.is_there().then_some(fd)
}

impl Container {
    /// A container that was started, or that was found with how it ended.
    pub(super) fn new(
        pod: PodUid,
        key: ContainerKey,
        dir: PathBuf,
        record: ContainerRecord,
        shim: ShimRecord,
        exit: Option<Exit>,
    ) -> Arc<Self> {
        let init = if exit.is_none() { open_process(shim.init) } else { None };
        let end = watch::Sender::new(exit);
        Arc::new(Self { key, pod, dir, record, shim, init, end, kill_at: Mutex::new(None) })
    }

    /// What goes into `containerID` of a container status.
    pub(super) fn id(&self) -> String {
        format!("native://{}/{}", self.pod, self.key)
    }

    pub(super) fn exit(&self) -> Option<Exit> {
        self.end.borrow().clone()
    }

    pub(super) fn is_running(&self) -> bool {
        self.end.borrow().is_none()
    }

    pub(super) fn listing(&self) -> ContainerListing {
        ContainerListing {
            key: self.key.clone(),
            id: self.id(),
            image_id: self.record.image_id.clone(),
            state: match self.exit() {
                Some(exit) => ContainerState::Exited(exit),
                None => ContainerState::Running { started_at: Time::from_micros(self.shim.started_micros) },
            },
        }
    }

    /// Waits for the end of the shim, reads how the container ended, and tells it. Called once.
    pub(super) async fn watch(self: Arc<Self>, inner: Weak<Inner>) {
        if let Some(shim) = open_process(self.shim.shim) {
            let _ = ended(shim).await;
        }
        let exit = Exit::from(read_end(&self.dir, self.shim, &self.init));
        // The kernel ends the first process with its shim; this is for the moment in between.
        self.kill();
        self.end.send_replace(Some(exit.clone()));
        if let Some(inner) = inner.upgrade() {
            let (pod, container) = (self.pod.clone(), self.key.clone());
            inner.emit(RuntimeEvent::ContainerExited { pod, container, exit }).await;
        }
    }

    /// Waits until it has ended, for a time at most; answers whether it has.
    pub(super) async fn wait(&self, time: Duration) -> bool {
        let mut end = self.end.subscribe();
        let over = end.wait_for(Option::is_some);
        tokio::time::timeout(time, over).await.is_ok_and(|r| r.is_ok())
    }

    pub(super) fn kill(&self) {
        self.signal(Signal::KILL);
    }

    fn signal(&self, signal: Signal) {
        if let Some(init) = &self.init {
            let _ = rustix::process::pidfd_send_signal(init, signal);
        }
    }

    /// Asks it to stop, and kills it later; a second call can only shorten the wait.
    pub(super) fn stop(self: &Arc<Self>, grace: Duration) {
        if !self.is_running() {
            return;
        }
        if grace.is_zero() {
            self.kill();
            return;
        }
        let at = Instant::now() + grace;
        let mut kill_at = lock(&self.kill_at);
        if let Some(known) = &*kill_at {
            known.send_if_modified(|old| {
                at < *old && {
                    *old = at;
                    true
                }
            });
            return;
        }
        let (to, mut from) = watch::channel(at);
        *kill_at = Some(to);
        drop(kill_at);
        self.signal(signal_of(self.record.stop_signal).unwrap_or(Signal::TERM));
        let this = self.clone();
        tokio::spawn(async move {
            let mut end = this.end.subscribe();
            loop {
                let due = *from.borrow_and_update();
                tokio::select! {
                    () = tokio::time::sleep_until(due) => {
                        this.kill();
                        return;
                    }
                    changed = from.changed() => if changed.is_err() { return },
                    _ = end.wait_for(Option::is_some) => return,
                }
            }
        });
    }

    /// Connects to the streams of its first process.
    pub(super) async fn attach(&self, request: &ExecRequest) -> Result<ExecSession, RuntimeError> {
        let gone =
            |e: io::Error| RuntimeError::NotFound { what: format!("shim of container {}: {e}", self.key) };
        // The name of the folder may be longer than that of a socket may be.
        let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
        let folder = rustix::fs::openat(CWD, &self.dir, flags, Mode::empty()).map_err(|e| gone(e.into()))?;
        let name = format!("/proc/self/fd/{}/attach.sock", folder.as_raw_fd());
        let stream = UnixStream::connect(name).await.map_err(gone)?;
        let (read, write) = stream.into_split();
        session::connect(read, write, request, false, ()).await
    }
}

/// How a container ended whose shim is gone. A shim that was killed could not write it down.
pub(super) fn read_end(dir: &Path, shim: ShimRecord, init: &Option<OwnedFd>) -> ExitRecord {
    if let Some(record) = record::read(&dir.join("exit.json")) {
        return record;
    }
    if let Some(init) = init {
        let _ = rustix::process::pidfd_send_signal(init, Signal::KILL);
    }
    let end = ExitRecord {
        code: 137,
        signal: Some(9),
        oom_killed: false,
        started_micros: shim.started_micros,
        finished_micros: now().as_micros(),
        message: "the container was lost with the process that looked after it".into(),
    };
    let _ = record::write(&dir.join("exit.json"), &end);
    end
}
