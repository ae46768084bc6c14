//! The process between host and lab: makes the namespaces, waits, cleans up.

use std::collections::BTreeSet;
use std::ffi::CString;
use std::fs;
use std::net::{Ipv4Addr, SocketAddr};
use std::os::fd::{AsFd, AsRawFd, OwnedFd, RawFd};
use std::path::PathBuf;
use std::process::{Child, ExitCode};

use ipnet::Ipv4Net;
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::process::{Pid, PidfdFlags, Resource, Rlimit, Signal, pidfd_open};
use rustix::thread::UnshareFlags;
use serde::{Deserialize, Serialize};

use super::cgroup::Cgroups;
use super::wire::{FromRoot, encode, send};
use super::{role, root, sys};

pub(super) const ROLE: &str = "lab-guard";
/// What the kernel calls the process.
pub(super) const COMM: &str = "icp-lab-guard";
/// How long it takes, at most, until the kernel lets go of the control groups of killed processes.
const CLEAN_TRIES_MAX: usize = 100;
const CLEAN_WAIT_MS: i64 = 50;
const FILES_WANTED: u64 = 65_536;

#[derive(Debug, Serialize, Deserialize)]
pub(super) struct Config {
    /// The root's end of the channel to the host.
    pub control: RawFd,
    /// Closed by the host's end, whatever ends it.
    pub lifeline: RawFd,
    /// Listeners of the host, and where their connections go.
    pub relays: Vec<(RawFd, SocketAddr)>,
    /// Held until the lab is gone, so that no other lab takes its directory before.
    pub lock: Option<RawFd>,
    /// `None` to probe and end.
    pub state_dir: Option<PathBuf>,
    pub subnet: Ipv4Net,
    pub gateway: Ipv4Addr,
}

pub(super) fn main(args: Vec<String>) -> ExitCode {
    role::run(ROLE, &args, run)
}

fn run(config: Config) -> Result<ExitCode, String> {
    let fail = |what: &'static str| move |e: std::io::Error| format!("{what}: {e}");
    CString::new(COMM).map(|name| rustix::thread::set_name(&name)).ok();
    let control = sys::inherited(config.control).map_err(fail("channel"))?;
    let lifeline = sys::inherited(config.lifeline).map_err(fail("lifeline"))?;
    let relays: Result<Vec<OwnedFd>, _> = config.relays.iter().map(|(raw, _)| sys::inherited(*raw)).collect();
    let relays = relays.map_err(fail("listener"))?;
    let lock = config.lock.map(sys::inherited).transpose().map_err(fail("lock"))?;
    let signals = sys::Signals::take(&[Signal::TERM, Signal::INT, Signal::HUP]).map_err(fail("signals"))?;

    let cgroups =
        if config.state_dir.is_some() { Cgroups::make(std::process::id()) } else { Cgroups::default() };
    let started = enter().and_then(|()| start_root(&config, &cgroups, &control, &relays));
    let mut child = match started {
        Ok(child) => child,
        Err(reason) => {
            clean(&cgroups);
            let message = FromRoot::Failed { reason: reason.clone() };
            let told = encode(&message).and_then(|bytes| send(control.as_fd(), &bytes, &[]));
            return if told.is_ok() { Ok(ExitCode::FAILURE) } else { Err(reason) };
        }
    };
    drop((control, relays));

    // Without a descriptor for the child its end would go unseen; then only the host's end ends the lab.
    let pidfd = pidfd_open(Pid::from_child(&child), PidfdFlags::empty());
    let mut fds = vec![PollFd::new(&lifeline, PollFlags::IN), PollFd::new(&signals, PollFlags::IN)];
    fds.extend(pidfd.as_ref().ok().map(|fd| PollFd::new(fd, PollFlags::IN)));
    while matches!(poll(&mut fds, None), Err(rustix::io::Errno::INTR)) {}
    let _ = child.kill();
    let ended = child.wait();
    clean(&cgroups);
    drop(lock);
    ended.map_err(fail("waiting for the lab's root"))?;
    Ok(ExitCode::SUCCESS)
}

fn start_root(
    config: &Config,
    cgroups: &Cgroups,
    control: &OwnedFd,
    relays: &[OwnedFd],
) -> Result<Child, String> {
    let root = root::Config {
        control: control.as_raw_fd(),
        relays: config.relays.clone(),
        state_dir: config.state_dir.clone(),
        subnet: config.subnet,
        gateway: config.gateway,
        cgroups: cgroups.clone(),
    };
    let mut command = role::configured(root::ROLE, &root).map_err(|e| e.to_string())?;
    let inherit = relays.iter().chain([control]).map(AsRawFd::as_raw_fd).collect();
    sys::prepare(&mut command, sys::Setup { inherit, ..sys::Setup::default() });
    command.spawn().map_err(|e| format!("cannot start the first process of a process namespace: {e}"))
}

/// Makes the lab's namespaces, in a user namespace of its own if this process has no rights on the system.
fn enter() -> Result<(), String> {
    raise_limits();
    let (uid, gid) = (rustix::process::geteuid().as_raw(), rustix::process::getegid().as_raw());
    let rest = UnshareFlags::NEWNS
        | UnshareFlags::NEWNET
        | UnshareFlags::NEWUTS
        | UnshareFlags::NEWIPC
        | UnshareFlags::NEWPID;
    let as_root = uid == 0 && sys::unshare(rest).is_ok();
    if !as_root {
        sys::unshare(UnshareFlags::NEWUSER | rest)
            .map_err(|e| format!("cannot make namespaces: {e}{}", hint()))?;
        // A group map needs the group list frozen first (user_namespaces(7)); kernels before 3.19 lack the file.
        let _ = fs::write("/proc/self/setgroups", "deny");
        for (file, id) in [("/proc/self/uid_map", uid), ("/proc/self/gid_map", gid)] {
            fs::write(file, format!("0 {id} 1\n"))
                .map_err(|e| format!("cannot write {file}: {e}{}", hint()))?;
        }
    }
    let private = rustix::mount::MountPropagationFlags::PRIVATE | rustix::mount::MountPropagationFlags::REC;
    rustix::mount::mount_change("/", private)
        .map_err(|e| format!("cannot make mounts private: {e}{}", hint()))
}

/// Which switch of the system is known to forbid this.
fn hint() -> String {
    let is = |name: &str, value: &str| {
        fs::read_to_string(format!("/proc/sys/{name}")).is_ok_and(|text| text.trim() == value)
    };
    for (file, value) in [
        ("kernel/apparmor_restrict_unprivileged_userns", "1"),
        ("kernel/unprivileged_userns_clone", "0"),
        ("user/max_user_namespaces", "0"),
        ("user/max_net_namespaces", "0"),
    ] {
        if is(file, value) {
            return format!(" (sysctl {} is {value})", file.replace('/', "."));
        }
    }
    String::new()
}

/// The relay and the servers of a cluster have many connections. Not more files than that: some programs close all
/// possible descriptors one by one.
fn raise_limits() {
    let limit = rustix::process::getrlimit(Resource::Nofile);
    let wanted = limit.maximum.map_or(FILES_WANTED, |max| max.min(FILES_WANTED));
    if limit.current.is_some_and(|current| current < wanted) {
        let _ = rustix::process::setrlimit(Resource::Nofile, Rlimit { current: Some(wanted), ..limit });
    }
}

/// Removes the lab's control groups, as soon as the kernel lets go of them.
fn clean(cgroups: &Cgroups) {
    for _ in 0..CLEAN_TRIES_MAX {
        if cgroups.remove(None) {
            return;
        }
        wait_ms(CLEAN_WAIT_MS);
    }
    eprintln!("{ROLE}: control groups are left behind");
}

/// Waits for nothing else than time to pass.
fn wait_ms(ms: i64) {
    let _ = poll(&mut [], Some(&Timespec { tv_sec: ms / 1000, tv_nsec: ms % 1000 * 1_000_000 }));
}

/// The variables of the host that reach the lab.
pub(super) fn kept_variables() -> BTreeSet<&'static str> {
    BTreeSet::from(["PATH", "LANG", "RUST_BACKTRACE"])
}
