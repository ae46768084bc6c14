//! The host's side of a lab, as far as it needs no runtime.

use std::collections::BTreeMap;
use std::fs;
use std::net::{SocketAddr, TcpListener};
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::path::{Path, PathBuf};
use std::process::{Child, Stdio};
use std::sync::Arc;

use ipnet::Ipv4Net;
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::fs::{FlockOperation, flock};
use rustix::process::{Pid, PidfdFlags, pidfd_open};

use super::config::{LabConfig, MachineSpec};
use super::guard::{self, kept_variables};
use super::handle::LabHandle;
use super::wire::{self, FromRoot};
use super::{LabError, role, sys};

/// How long the lab's own processes have to come up or to go, in seconds. They take milliseconds on an idle system.
const START_SECONDS_MAX: i64 = 30;
const STOP_SECONDS_MAX: i64 = 10;

/// Listens for the host's clients, to be given to a [`super::Relay`].
///
/// # Errors
/// [`LabError::Busy`] if another program listens there.
pub fn listen(address: SocketAddr) -> Result<TcpListener, LabError> {
    TcpListener::bind(address).map_err(|source| match source.kind() {
        std::io::ErrorKind::AddrInUse => LabError::Busy { address },
        _ => LabError::Io { what: format!("listening on {address}"), source },
    })
}

/// Finds out whether labs work here, by making one with all that a node needs and letting it go.
///
/// # Errors
/// [`LabError::Unsupported`], whose text is one line that says what was refused.
pub fn probe() -> Result<(), LabError> {
    let config = LabConfig::new("");
    Lab::launch(&config, None)?.stop()
}

/// What both faces of the host know of the lab.
#[derive(Debug)]
pub(super) struct Plan {
    pub state_dir: PathBuf,
    pub log: PathBuf,
    pub subnet: Ipv4Net,
    pub machines: BTreeMap<String, MachineSpec>,
}

impl Plan {
    pub(super) fn gone(&self) -> LabError {
        LabError::Gone { log: self.log.display().to_string() }
    }
}

/// A running lab. When it is dropped, or its process ends in any way, all of the lab ends.
#[derive(Debug)]
pub struct Lab {
    guard: Child,
    lifeline: Option<OwnedFd>,
    control: Option<OwnedFd>,
    plan: Arc<Plan>,
}

impl Lab {
    /// Makes the lab's network, with all machines off. This works with or without threads and runtimes around it.
    ///
    /// # Errors
    /// [`LabError::Config`], also if another lab uses the state directory; [`LabError::Unsupported`]; [`LabError::Io`]
    /// for the state directory.
    pub fn start(config: LabConfig) -> Result<Self, LabError> {
        config.check()?;
        let logs = config.state_dir.join("logs");
        fs::create_dir_all(&logs).map_err(LabError::io(format!("making {}", logs.display())))?;
        let state = fs::canonicalize(&config.state_dir);
        let state = state.map_err(LabError::io(format!("finding {}", config.state_dir.display())))?;
        let lock = append(&state.join("lock"))?;
        flock(&lock, FlockOperation::NonBlockingLockExclusive).map_err(|e| match e {
            rustix::io::Errno::WOULDBLOCK => {
                LabError::Config { detail: format!("another lab uses {}", state.display()) }
            }
            e => LabError::io(format!("locking {}", state.display()))(e),
        })?;
        Self::launch(&config, Some((&state, lock)))
    }

    /// Starts the guard and waits until the network stands; without a locked state directory it probes instead.
    fn launch(config: &LabConfig, state: Option<(&Path, fs::File)>) -> Result<Self, LabError> {
        let (state, lock) = state.unzip();
        let plan = Plan {
            state_dir: state.unwrap_or(Path::new("")).to_owned(),
            log: state.unwrap_or(Path::new("")).join("logs/lab.log"),
            subnet: config.subnet,
            machines: config.machines.iter().map(|m| (m.name.clone(), m.clone())).collect(),
        };
        let log = match state {
            Some(_) => Stdio::from(append(&plan.log)?),
            None => Stdio::null(),
        };
        let (control, theirs) = wire::pair().map_err(LabError::io("making a socket pair"))?;
        let pipe = rustix::pipe::pipe_with(rustix::pipe::PipeFlags::CLOEXEC);
        let (reader, lifeline) = pipe.map_err(LabError::io("making a pipe"))?;
        let relays = config.relays.iter().map(|r| (r.listener.as_raw_fd(), r.to)).collect();
        let guard = guard::Config {
            control: theirs.as_raw_fd(),
            lifeline: reader.as_raw_fd(),
            relays,
            lock: lock.as_ref().map(AsRawFd::as_raw_fd),
            state_dir: state.map(Into::into),
            subnet: config.subnet,
            gateway: config.gateway(),
        };
        let mut command =
            role::configured(guard::ROLE, &guard).map_err(LabError::io("the lab's command line"))?;
        let kept = kept_variables();
        command
            .env_clear()
            .envs(std::env::vars_os().filter(|(n, _)| n.to_str().is_some_and(|n| kept.contains(n))));
        command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(log).current_dir("/");
        let own = [guard.control, guard.lifeline].into_iter().chain(guard.lock);
        let inherit = guard.relays.iter().map(|(raw, _)| *raw).chain(own).collect();
        sys::prepare(&mut command, sys::Setup { inherit, ..sys::Setup::default() });
        let guard = command.spawn().map_err(LabError::io("starting this executable again"))?;
        drop((theirs, reader, lock));
        let mut lab = Self { guard, lifeline: Some(lifeline), control: None, plan: Arc::new(plan) };
        lab.await_ready(&control)?;
        lab.control = Some(control);
        Ok(lab)
    }

    fn await_ready(&self, control: &OwnedFd) -> Result<(), LabError> {
        let mut fds = [PollFd::new(control, PollFlags::IN)];
        let ready = poll(&mut fds, Some(&Timespec { tv_sec: START_SECONDS_MAX, tv_nsec: 0 }));
        if ready.map_err(LabError::io("waiting for the lab"))? == 0 {
            let reason = format!("the lab did not come up within {START_SECONDS_MAX} s");
            return Err(LabError::Unsupported { reason });
        }
        match wire::receive::<FromRoot>(control.as_fd()).map_err(LabError::io("reading from the lab"))? {
            Some((FromRoot::Ready, _)) => Ok(()),
            Some((FromRoot::Failed { reason }, _)) => Err(LabError::Unsupported { reason }),
            _ => Err(self.plan.gone()),
        }
    }

    /// The face for asynchronous programs; it must be called in a tokio runtime. All handles are clones of one.
    ///
    /// When the runtime ends, so does the lab.
    ///
    /// # Errors
    /// [`LabError::Gone`] if it was called before.
    ///
    /// # Panics
    /// Outside of a runtime with I/O.
    pub fn connect(&mut self) -> Result<LabHandle, LabError> {
        let control = self.control.take().ok_or_else(|| self.plan.gone())?;
        LabHandle::new(control, self.plan.clone())
    }

    /// The number of the guard's process.
    #[must_use]
    pub fn guard_pid(&self) -> u32 {
        self.guard.id()
    }

    /// Ends the lab and waits until nothing of it is left.
    ///
    /// # Errors
    /// [`LabError::Refused`] if it does not end within 10 s; its guard is then killed, and with it the lab.
    pub fn stop(mut self) -> Result<(), LabError> {
        self.end()
    }

    fn end(&mut self) -> Result<(), LabError> {
        self.control = None;
        if self.lifeline.take().is_none() {
            return Ok(());
        }
        let pidfd = pidfd_open(Pid::from_child(&self.guard), PidfdFlags::empty());
        let pidfd = pidfd.map_err(LabError::io("finding the lab's guard"))?;
        let mut fds = [PollFd::new(&pidfd, PollFlags::IN)];
        let limit = Timespec { tv_sec: STOP_SECONDS_MAX, tv_nsec: 0 };
        let in_time = poll(&mut fds, Some(&limit)).is_ok_and(|n| n > 0);
        if !in_time {
            let _ = self.guard.kill();
        }
        self.guard.wait().map_err(LabError::io("waiting for the lab's guard"))?;
        if in_time {
            return Ok(());
        }
        let reason = format!("it took more than {STOP_SECONDS_MAX} s and was killed");
        Err(LabError::Refused { what: "ending the lab".into(), reason })
    }
}

impl Drop for Lab {
    fn drop(&mut self) {
        // Whoever wants to know calls `stop`.
        let _ = self.end();
    }
}

/// Opens a log to be written at its end.
pub(super) fn append(path: &Path) -> Result<fs::File, LabError> {
    let file = fs::OpenOptions::new().create(true).append(true).open(path);
    file.map_err(LabError::io(format!("opening {}", path.display())))
}
