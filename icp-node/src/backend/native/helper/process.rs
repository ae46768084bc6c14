//! Makes this process the one of a container: ids, capabilities, filter, program.

use alloc::format;
use alloc::string::String;
use core::convert::Infallible;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::Command;

use rustix::fs::{Access, Gid, Uid};
use rustix::io::Errno;
use rustix::process::{Resource, Rlimit, Signal};
use rustix::thread::{CapabilitySet, CapabilitySets};

use super::{Doing, sys};
use crate::backend::native::plan::{Limit, ProcessPlan, seccomp};
use crate::backend::native::record::Failure;

/// The three streams of a process.
pub(super) enum Stdio {
    /// Files or pipes.
    Pipes { stdin: OwnedFd, stdout: OwnedFd, stderr: OwnedFd },
    /// A terminal for all.
    Terminal(OwnedFd),
}

/// Becomes the process. Comes back only with the reason why not.
pub(super) fn become_process(plan: &ProcessPlan, stdio: Stdio) -> Result<Infallible, Failure> {
    let (uid, gid) = (Uid::from_raw(plan.uid), Gid::from_raw(plan.gid));
    let _ = rustix::process::setsid();
    connect(&stdio, uid, gid)?;
    working_directory(&plan.cwd)?;
    limits(&plan.limits);
    let filter = match plan.seccomp {
        false => None,
        true => Some(seccomp::filter(plan.caps).ok_or_else(|| {
            Failure::Config("seccompProfile: RuntimeDefault is not made for this processor".into())
        })?),
    };
    // With the bounding set dropped the program can never get more.
    for cap in 0..64_u32 {
        let one = CapabilitySet::from_bits_retain(1 << cap);
        if plan.caps & (1 << cap) == 0 && rustix::thread::capability_is_in_bounding_set(one).unwrap_or(false)
        {
            rustix::thread::remove_capability_from_bounding_set(one)
                .doing(|| format!("drop capability {cap}"))?;
        }
    }
    let _ = rustix::thread::clear_ambient_capability_set();
    if let (Some(filter), false) = (&filter, plan.no_new_privs) {
        sys::install_filter(filter).doing(|| "install the system call filter".into())?;
    }
    if let Some(groups) = &plan.groups {
        let groups: alloc::vec::Vec<Gid> = groups.iter().map(|g| Gid::from_raw(*g)).collect();
        rustix::thread::set_thread_groups(&groups).doing(|| "set supplemental groups".into())?;
    }
    rustix::thread::set_thread_res_gid(gid, gid, gid).doing(|| format!("set group id {}", plan.gid))?;
    rustix::thread::set_thread_res_uid(uid, uid, uid).doing(|| format!("set user id {}", plan.uid))?;
    // A change of ids forgets this wish.
    rustix::process::set_parent_process_death_signal(Some(Signal::KILL)).doing(|| "prctl".into())?;
    let keep =
        if plan.uid == 0 { CapabilitySet::from_bits_retain(plan.caps) } else { CapabilitySet::empty() };
    let sets = CapabilitySets { effective: keep, permitted: keep, inheritable: CapabilitySet::empty() };
    rustix::thread::set_capabilities(None, sets).doing(|| "set capabilities".into())?;
    if plan.no_new_privs {
        rustix::thread::set_no_new_privs(true).doing(|| "set no_new_privs".into())?;
        if let Some(filter) = &filter {
            sys::install_filter(filter).doing(|| "install the system call filter".into())?;
        }
    }
    let program = find_program(plan)?;
    let (name, args) = plan.argv.split_first().ok_or_else(|| Failure::Start("no command".into()))?;
    let mut command = Command::new(&program);
    command.arg0(name).args(args).env_clear();
    command.envs(plan.env.iter().map(|(n, v)| (n.as_str(), v.as_str())));
    let error = command.exec();
    Err(Failure::Start(format!("exec: {name:?}: {error}")))
}

fn connect(stdio: &Stdio, uid: Uid, gid: Gid) -> Result<(), Failure> {
    let what = || "connect stdio".into();
    match stdio {
        Stdio::Pipes { stdin, stdout, stderr } => {
            for fd in [stdin, stdout, stderr] {
                // So that a program may open /dev/stdout again; other files than pipes belong to somebody.
                let is_pipe = rustix::fs::fstat(fd)
                    .is_ok_and(|s| rustix::fs::FileType::from_raw_mode(s.st_mode).is_fifo());
                if is_pipe {
                    let _ = rustix::fs::fchown(fd, Some(uid), Some(gid));
                }
            }
            rustix::stdio::dup2_stdin(stdin).doing(what)?;
            rustix::stdio::dup2_stdout(stdout).doing(what)?;
            rustix::stdio::dup2_stderr(stderr).doing(what)
        }
        Stdio::Terminal(fd) => {
            sys::controlling_terminal(fd.as_fd()).doing(|| "take the terminal".into())?;
            let _ = rustix::fs::fchown(fd, Some(uid), None);
            rustix::stdio::dup2_stdin(fd).doing(what)?;
            rustix::stdio::dup2_stdout(fd).doing(what)?;
            rustix::stdio::dup2_stderr(fd).doing(what)
        }
    }
}

fn working_directory(cwd: &str) -> Result<(), Failure> {
    if !cwd.starts_with('/') {
        return Err(Failure::Config(format!("workingDir: {cwd:?} is not absolute")));
    }
    // As Docker does; where it cannot be made, chdir says why.
    let _ = std::fs::create_dir_all(cwd);
    rustix::process::chdir(cwd).map_err(|e| Failure::Start(format!("chdir to {cwd:?}: {e}")))
}

fn limits(limits: &[Limit]) {
    for limit in limits {
        let (resource, most) = match limit {
            Limit::OpenFiles(n) => (Resource::Nofile, *n),
            Limit::Core(n) => (Resource::Core, *n),
        };
        let hard = rustix::process::getrlimit(resource).maximum.map_or(most, |h| h.min(most));
        // A process without the privilege to raise a limit keeps what it has.
        let _ = rustix::process::setrlimit(resource, Rlimit { current: Some(hard), maximum: Some(hard) });
    }
}

/// Finds the program as a shell does, with the messages of Go's `os/exec` that users know from other runtimes.
fn find_program(plan: &ProcessPlan) -> Result<PathBuf, Failure> {
    let name = plan.argv.first().map(String::as_str).unwrap_or_default();
    let fail = |why: &str| Failure::Start(format!("exec: {name:?}: {why}"));
    let check = |path: &Path| -> Result<(), Errno> {
        let meta = std::fs::metadata(path).map_err(|e| Errno::from_io_error(&e).unwrap_or(Errno::NOENT))?;
        if meta.is_dir() {
            return Err(Errno::ISDIR);
        }
        rustix::fs::access(path, Access::EXEC_OK)
    };
    if name.contains('/') {
        return match check(Path::new(name)) {
            Ok(()) => Ok(name.into()),
            Err(Errno::NOENT) => Err(fail("stat: no such file or directory")),
            Err(Errno::ISDIR) => Err(fail("is a directory")),
            Err(Errno::ACCESS) => Err(fail("permission denied")),
            Err(error) => Err(fail(&format!("{error}"))),
        };
    }
    let path = plan.env.iter().find(|(n, _)| n == "PATH").map_or("", |(_, v)| v.as_str());
    let mut denied = false;
    for dir in path.split(':') {
        let file = Path::new(if dir.is_empty() { "." } else { dir }).join(name);
        match check(&file) {
            Ok(()) => return Ok(file),
            Err(Errno::ACCESS) => denied |= !file.as_os_str().as_bytes().is_empty() && file.is_file(),
            Err(_) => {}
        }
    }
    Err(fail(if denied { "permission denied" } else { "executable file not found in $PATH" }))
}
