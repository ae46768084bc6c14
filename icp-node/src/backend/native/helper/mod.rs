//! The helper: a process with one thread that does what cannot be done in a process with many.
//!
//! The agent runs its own program again with [`HELPER_ARG`] as the first argument. The helper reads a plan, enters or
//! makes namespaces, and either answers one line and stays (the holder of a sandbox, the shim of a container) or carries
//! the streams of one process (exec).

mod container;
mod exec;
mod probe;
mod process;
mod pump;
mod rootfs;
mod sandbox;
mod sys;

use alloc::format;
use alloc::string::String;
use std::ffi::OsString;
use std::io::Write;
use std::os::fd::AsFd;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::{SystemTime, UNIX_EPOCH};

use icp_core::base::Time;
use rustix::fs::{Mode, OFlags};
use serde::Serialize;

use super::record::{Answer, Failure};
pub(super) use sys::signal_of;

/// The first argument of a program that shall be the helper.
pub const HELPER_ARG: &str = "--icp-native-helper";

/// Does the work of the helper if the arguments ask for it, and `None` otherwise. A program that uses the native runtime
/// calls it at the beginning of `main`, before any thread exists.
///
/// ```
/// let ordinary = ["program".into(), "--flag".into()];
/// assert!(icp_node::backend::native::helper_main(ordinary).is_none());
/// ```
pub fn helper_main(args: impl IntoIterator<Item = OsString>) -> Option<ExitCode> {
    let mut args = args.into_iter().skip(1);
    if args.next()? != HELPER_ARG {
        return None;
    }
    let mode = args.next().unwrap_or_default();
    let path = PathBuf::from(args.next().unwrap_or_default());
    let result = match mode.to_str() {
        Some("probe") => probe::run(&path),
        Some("sandbox") => sandbox::run(&path),
        Some("container") => container::run(&path),
        Some("exec") => exec::run(&path),
        _ => Err(Failure::Other(format!("unknown work {}", mode.display()))),
    };
    Some(match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(failure) => {
            answer(&Answer::<()>::Err(failure));
            ExitCode::FAILURE
        }
    })
}

/// Answers the agent; a agent that is gone does not hear it.
fn answer<T: Serialize>(answer: &Answer<T>) {
    let mut line = serde_json::to_vec(answer).unwrap_or_default();
    line.push(b'\n');
    let mut out = std::io::stdout();
    let _ = out.write_all(&line).and_then(|()| out.flush());
}

/// Lets go of the agent: its pipes, its folder, its session.
fn detach() {
    let flags = OFlags::RDWR | OFlags::CLOEXEC;
    if let Ok(null) = rustix::fs::open("/dev/null", flags, Mode::empty()) {
        let _ = rustix::stdio::dup2_stdin(&null);
        let _ = rustix::stdio::dup2_stdout(&null);
    }
    let _ = rustix::process::chdir("/");
}

/// The time with the nanoseconds of its second.
#[expect(clippy::disallowed_methods, reason = "a shell: log lines carry the time they were read at")]
fn now() -> (Time, u32) {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    (Time::ZERO + now, now.subsec_nanos())
}

/// Says what was done when something failed.
trait Doing<T> {
    fn doing(self, what: impl FnOnce() -> String) -> Result<T, Failure>;
}

impl<T, E: core::fmt::Display> Doing<T> for Result<T, E> {
    fn doing(self, what: impl FnOnce() -> String) -> Result<T, Failure> {
        self.map_err(|e| Failure::Other(format!("{}: {e}", what())))
    }
}

fn read_plan<T: serde::de::DeserializeOwned>(path: &Path) -> Result<T, Failure> {
    let data = std::fs::read(path).doing(|| format!("read {}", path.display()))?;
    serde_json::from_slice(&data).doing(|| format!("read {}", path.display()))
}

/// Joins control groups by writing "this process" to their lists.
fn join_cgroups(procs: &[PathBuf]) -> Result<(), Failure> {
    for file in procs {
        std::fs::write(file, "0").doing(|| format!("join {}", file.display()))?;
    }
    Ok(())
}

/// Sets `oom_score_adj`; a process without the privilege to lower it keeps its own.
fn set_oom_score(adj: i32) {
    let _ = std::fs::write("/proc/self/oom_score_adj", format!("{adj}"));
}

fn set_nonblocking(fd: impl AsFd) -> Result<(), Failure> {
    let set = |fd: std::os::fd::BorrowedFd<'_>| {
        let flags = rustix::fs::fcntl_getfl(fd)?;
        rustix::fs::fcntl_setfl(fd, flags | OFlags::NONBLOCK)
    };
    set(fd.as_fd()).doing(|| "set non-blocking".into())
}
