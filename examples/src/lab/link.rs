//! The host's side of one machine that is on.

use std::collections::BTreeMap;
use std::fmt;
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use rustix::process::Signal;
use serde::Serialize;
use serde::de::DeserializeOwned;
use tokio::io::unix::AsyncFd;
use tokio::sync::{broadcast, oneshot, watch};

use super::handle::LabEvent;
use super::process::Exit;
use super::wire::{self, FromInit, Start, ToInit};
use super::{LabError, sys};

/// A channel of messages under tokio.
#[derive(Debug)]
pub(super) struct Channel(AsyncFd<OwnedFd>);

impl Channel {
    /// # Panics
    /// Outside of a runtime with I/O.
    pub(super) fn new(socket: OwnedFd) -> io::Result<Self> {
        rustix::io::ioctl_fionbio(&socket, true)?;
        Ok(Self(sys::registered(socket)?))
    }

    pub(super) async fn send<T: Serialize>(&self, message: &T, fds: &[BorrowedFd<'_>]) -> io::Result<()> {
        let bytes = wire::encode(message)?;
        loop {
            let mut ready = self.0.writable().await?;
            if let Ok(done) = ready.try_io(|fd| wire::send(fd.as_fd(), &bytes, fds)) {
                return done;
            }
        }
    }

    /// The next message; `None` when the other side is gone.
    pub(super) async fn receive<T: DeserializeOwned>(&self) -> io::Result<Option<(T, Vec<OwnedFd>)>> {
        loop {
            let mut ready = self.0.readable().await?;
            if let Ok(done) = ready.try_io(|fd| wire::receive(fd.as_fd())) {
                return done;
            }
        }
    }
}

pub(super) fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// A machine from power-on to power-off.
#[derive(Debug)]
pub(super) struct Link {
    pub(super) machine: String,
    channel: Channel,
    state: Mutex<State>,
    off: watch::Sender<bool>,
}

#[derive(Debug, Default)]
struct State {
    last_id: u64,
    off: bool,
    starting: BTreeMap<u64, oneshot::Sender<Result<u32, String>>>,
    running: BTreeMap<u64, watch::Sender<Option<Exit>>>,
    names: BTreeMap<String, Process>,
}

impl Link {
    pub(super) fn new(machine: String, channel: Channel) -> Arc<Self> {
        Arc::new(Self { machine, channel, state: Mutex::default(), off: watch::Sender::new(false) })
    }

    /// Takes the messages of the machine until it is off.
    pub(super) async fn listen(self: Arc<Self>, events: broadcast::Sender<LabEvent>) {
        while let Ok(Some((message, _))) = self.channel.receive::<FromInit>().await {
            match message {
                FromInit::Started { id, pid } => self.started(id, Ok(pid)),
                FromInit::NotStarted { id, reason } => self.started(id, Err(reason)),
                FromInit::Exited { id, exit } => self.exited(id, exit, &events),
                FromInit::Ready | FromInit::Failed { .. } => {}
            }
        }
        let running: Vec<u64> = {
            let mut state = lock(&self.state);
            state.off = true;
            state.starting.clear();
            state.running.keys().copied().collect()
        };
        for id in running {
            self.exited(id, Exit::PowerOff, &events);
        }
        // The names keep processes, which keep this link.
        lock(&self.state).names.clear();
        self.off.send_replace(true);
    }

    fn started(&self, id: u64, result: Result<u32, String>) {
        let mut state = lock(&self.state);
        if result.is_err() {
            state.running.remove(&id);
        }
        if let Some(waiting) = state.starting.remove(&id) {
            let _ = waiting.send(result);
        }
    }

    fn exited(&self, id: u64, exit: Exit, events: &broadcast::Sender<LabEvent>) {
        let mut state = lock(&self.state);
        let Some(sender) = state.running.remove(&id) else { return };
        let name = state.names.iter().find(|(_, p)| p.id == id).map(|(name, _)| name.clone());
        drop(state);
        sender.send_replace(Some(exit));
        if let Some(process) = name {
            let _ = events.send(LabEvent::Exited { machine: self.machine.clone(), process, exit });
        }
    }

    pub(super) async fn wait_off(&self) {
        let _ = self.off.subscribe().wait_for(|off| *off).await;
    }

    pub(super) fn process(&self, name: &str) -> Option<Process> {
        lock(&self.state).names.get(name).cloned()
    }

    /// Starts a program; with `log` its name is remembered.
    pub(super) async fn start(
        self: &Arc<Self>,
        name: &str,
        mut start: Start,
        streams: [BorrowedFd<'_>; 3],
        log: Option<&Path>,
    ) -> Result<Process, LabError> {
        let (tell, told) = oneshot::channel();
        let (process, id) = {
            let mut state = lock(&self.state);
            if state.off {
                return Err(LabError::Off { name: self.machine.clone() });
            }
            state.last_id += 1;
            let id = state.last_id;
            let exit = watch::Sender::new(None);
            let process = Process {
                link: self.clone(),
                name: name.into(),
                id,
                pid: 0,
                log: log.map(Into::into),
                exit: exit.subscribe(),
            };
            state.starting.insert(id, tell);
            state.running.insert(id, exit);
            if log.is_some() {
                state.names.insert(name.into(), process.clone());
            }
            (process, id)
        };
        start.id = id;
        let refused = |reason: String| {
            let mut state = lock(&self.state);
            state.starting.remove(&id);
            state.running.remove(&id);
            if state.names.get(name).is_some_and(|p| p.id == id) {
                state.names.remove(name);
            }
            LabError::Start { machine: self.machine.clone(), process: name.into(), reason }
        };
        match self.channel.send(&ToInit::Start(start), &streams).await {
            Err(e) if e.kind() == io::ErrorKind::BrokenPipe => {
                return Err(LabError::Off { name: self.machine.clone() });
            }
            sent => sent.map_err(|e| refused(e.to_string()))?,
        }
        match told.await {
            Ok(Ok(pid)) => {
                let process = Process { pid, ..process };
                let mut state = lock(&self.state);
                if let Some(known) = state.names.get_mut(name).filter(|p| p.id == id) {
                    *known = process.clone();
                }
                Ok(process)
            }
            Ok(Err(reason)) => Err(refused(reason)),
            Err(_) => Err(LabError::Off { name: self.machine.clone() }),
        }
    }
}

/// A program that was started in a machine, whether it still runs or not.
#[derive(Clone)]
pub struct Process {
    link: Arc<Link>,
    name: String,
    id: u64,
    pid: u32,
    log: Option<PathBuf>,
    exit: watch::Receiver<Option<Exit>>,
}

impl Process {
    /// Its name.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Its machine.
    #[must_use]
    pub fn machine(&self) -> &str {
        &self.link.machine
    }

    /// Its number inside the machine.
    #[must_use]
    pub const fn pid(&self) -> u32 {
        self.pid
    }

    /// The file where its output goes.
    #[must_use]
    pub fn log(&self) -> Option<&Path> {
        self.log.as_deref()
    }

    /// How it ended; `None` while it runs.
    #[must_use]
    pub fn exit(&self) -> Option<Exit> {
        *self.exit.borrow()
    }

    /// Waits until it ends, by itself or with its machine.
    pub async fn wait(&self) -> Exit {
        let mut exit = self.exit.clone();
        let ended = exit.wait_for(Option::is_some).await.ok().and_then(|e| *e);
        ended.unwrap_or(Exit::PowerOff)
    }

    /// Sends it a signal. A process that has ended gets none, and that is no error.
    ///
    /// # Errors
    /// [`LabError::Off`] if its machine is off.
    pub async fn kill(&self, signal: Signal) -> Result<(), LabError> {
        self.signal(signal, false).await
    }

    /// Sends a signal to it and to those of its children that did not leave its process group.
    ///
    /// # Errors
    /// As [`Process::kill`].
    pub async fn kill_group(&self, signal: Signal) -> Result<(), LabError> {
        self.signal(signal, true).await
    }

    async fn signal(&self, signal: Signal, group: bool) -> Result<(), LabError> {
        let message = ToInit::Signal { id: self.id, signal: signal.as_raw(), group };
        let sent = self.link.channel.send(&message, &[]).await;
        sent.map_err(|_| LabError::Off { name: self.link.machine.clone() })
    }

    /// Asks it to end (SIGTERM), and kills it after `grace`.
    ///
    /// # Errors
    /// As [`Process::kill`].
    pub async fn stop(&self, grace: Duration) -> Result<Exit, LabError> {
        self.kill(Signal::TERM).await?;
        if let Ok(exit) = tokio::time::timeout(grace, self.wait()).await {
            return Ok(exit);
        }
        self.kill(Signal::KILL).await?;
        Ok(self.wait().await)
    }
}

impl fmt::Debug for Process {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { name, pid, .. } = self;
        write!(f, "Process({} {name} {pid} {:?})", self.machine(), self.exit())
    }
}
