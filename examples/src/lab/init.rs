//! The first process of a machine: prepares its mounts, starts programs for the host, reaps.

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::fs::{self, File};
use std::io;
use std::os::fd::{OwnedFd, RawFd};
use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode};

use rustix::event::{PollFd, PollFlags, poll};
use rustix::process::{Pid, Signal, WaitOptions, kill_process, kill_process_group, wait};
use serde::{Deserialize, Serialize};

use super::process::{Exit, Program};
use super::root::{STATE, bind, mount_proc, mount_tmpfs};
use super::wire::{FromInit, Port, Start, ToInit};
use super::{role, sys};

pub(super) const ROLE: &str = "lab-init";
/// The most programs that run at once for the host; their children do not count.
const PROCESSES_MAX: usize = 1024;
/// Where a machine keeps what outlives power-off.
const STATE_IN_MACHINE: &str = "/var/lib/icp";
/// Where the tools of an administrator are, which a plain user's `PATH` often leaves out.
const SYSTEM_PATH: [&str; 4] = ["/usr/sbin", "/usr/bin", "/sbin", "/bin"];

#[derive(Debug, Serialize, Deserialize)]
pub(super) struct Config {
    pub name: String,
    pub channel: RawFd,
}

pub(super) fn main(args: Vec<String>) -> ExitCode {
    role::run(ROLE, &args, run)
}

fn run(config: Config) -> Result<ExitCode, String> {
    let fail = |what: &'static str| move |e: io::Error| format!("{what}: {e}");
    sys::become_child(c"icp-init").map_err(fail("process"))?;
    let mut host = Port::new(sys::inherited(config.channel).map_err(fail("channel"))?);
    let signals = [Signal::CHILD, Signal::TERM, Signal::INT, Signal::HUP, Signal::USR1, Signal::USR2];
    let signals = sys::Signals::take(&signals).map_err(fail("signals"))?;
    if let Err(reason) = prepare(&config.name) {
        host.send(&FromInit::Failed { reason }, None).map_err(fail("channel"))?;
        return Ok(ExitCode::FAILURE);
    }
    host.send(&FromInit::Ready, None).map_err(fail("channel"))?;
    let init = Init { name: config.name, host, signals, running: BTreeMap::new() };
    init.serve().map_err(fail("channel")).map(|()| ExitCode::SUCCESS)
}

/// The machine's own file systems and name.
fn prepare(name: &str) -> Result<(), String> {
    mount_proc()?;
    // Opened before /run, where it lies, is covered.
    let state = File::open(Path::new(STATE).join(name)).map_err(|e| format!("the state directory: {e}"))?;
    mount_tmpfs("/run")?;
    mount_tmpfs("/var/lib")?;
    for dir in [STATE_IN_MACHINE, "/run/lock"] {
        fs::create_dir(dir).map_err(|e| format!("cannot make {dir}: {e}"))?;
    }
    bind(&state, Path::new(STATE_IN_MACHINE))?;
    rustix::system::sethostname(name.as_bytes()).map_err(|e| format!("cannot set the host name: {e}"))
}

#[derive(Debug)]
struct Init {
    name: String,
    host: Port,
    signals: sys::Signals,
    /// What the host started, by process.
    running: BTreeMap<i32, u64>,
}

impl Init {
    /// Works until the host is gone; the machine goes with this process.
    fn serve(mut self) -> io::Result<()> {
        loop {
            let out = if self.host.is_behind() { PollFlags::OUT } else { PollFlags::empty() };
            let mut fds =
                [PollFd::new(&self.host, PollFlags::IN | out), PollFd::new(&self.signals, PollFlags::IN)];
            match poll(&mut fds, None) {
                Ok(_) | Err(rustix::io::Errno::INTR) => {}
                Err(e) => return Err(e.into()),
            }
            self.host.flush()?;
            loop {
                match self.host.receive::<ToInit>() {
                    Ok(Some((ToInit::Start(start), fds))) => {
                        let message = self.start(start, fds);
                        self.host.send(&message, None)?;
                    }
                    Ok(Some((ToInit::Signal { id, signal, group }, _))) => self.signal(id, signal, group),
                    Ok(None) => return Ok(()),
                    Err(e) if e.kind() == io::ErrorKind::WouldBlock => break,
                    Err(e) => return Err(e),
                }
            }
            while let Some(signal) = self.signals.next() {
                if signal != Signal::CHILD.as_raw() {
                    self.running.values().copied().collect::<Vec<_>>().into_iter().for_each(|id| {
                        self.signal(id, signal, false);
                    });
                }
            }
            self.reap()?;
        }
    }

    fn start(&mut self, start: Start, fds: Vec<OwnedFd>) -> FromInit {
        let id = start.id;
        if self.running.len() >= PROCESSES_MAX {
            let reason = format!("{PROCESSES_MAX} programs run in this machine already");
            return FromInit::NotStarted { id, reason };
        }
        match self.spawn(start, fds) {
            Ok(pid) => {
                self.running.insert(pid.as_raw_nonzero().get(), id);
                FromInit::Started { id, pid: pid.as_raw_nonzero().get().unsigned_abs() }
            }
            Err(e) => FromInit::NotStarted { id, reason: e.to_string() },
        }
    }

    fn spawn(&self, start: Start, fds: Vec<OwnedFd>) -> io::Result<Pid> {
        let mut command = match &start.program {
            Program::Role(name) => role::command(name),
            Program::Path(path) => Command::new(path),
        };
        let Ok([stdin, stdout, stderr]) = <[OwnedFd; 3]>::try_from(fds) else {
            return Err(io::Error::new(io::ErrorKind::InvalidInput, "not three standard streams"));
        };
        command.stdin(stdin).stdout(stdout).stderr(stderr);
        command.args(&start.args).current_dir(start.dir.as_deref().unwrap_or(Path::new("/")));
        command
            .env("HOME", STATE_IN_MACHINE)
            .env("PATH", search_path())
            .env("ICP_MACHINE", &self.name)
            .envs(&start.env);
        sys::prepare(&mut command, sys::Setup::default());
        Ok(Pid::from_child(&command.spawn()?))
    }

    fn signal(&self, id: u64, signal: i32, group: bool) {
        // What is not in the table has ended; its number may by now be another's.
        let pid = self.running.iter().find(|(_, of)| **of == id).and_then(|(pid, _)| Pid::from_raw(*pid));
        if let (Some(pid), Some(signal)) = (pid, Signal::from_named_raw(signal)) {
            let _ = if group { kill_process_group(pid, signal) } else { kill_process(pid, signal) };
        }
    }

    fn reap(&mut self) -> io::Result<()> {
        while let Ok(Some((pid, status))) = wait(WaitOptions::NOHANG) {
            if let Some(id) = self.running.remove(&pid.as_raw_nonzero().get()) {
                let code = status.exit_status().map(Exit::Code);
                let exit = code.or(status.terminating_signal().map(Exit::Signal)).unwrap_or(Exit::PowerOff);
                self.host.send(&FromInit::Exited { id, exit }, None)?;
            }
        }
        Ok(())
    }
}

fn search_path() -> OsString {
    let given = std::env::var_os("PATH").unwrap_or_default();
    let mut dirs: Vec<PathBuf> = std::env::split_paths(&given).collect();
    for dir in SYSTEM_PATH.map(PathBuf::from) {
        if !dirs.contains(&dir) {
            dirs.push(dir);
        }
    }
    std::env::join_paths(dirs).unwrap_or(given)
}
