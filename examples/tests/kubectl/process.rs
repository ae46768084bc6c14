//! Processes that must end.

use std::io::Read;
use std::os::unix::process::{CommandExt as _, ExitStatusExt as _};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

/// How long a command may take.
pub(crate) const LIMIT: Duration = Duration::from_secs(60);

/// How a command ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Ended {
    pub(crate) stdout: String,
    pub(crate) stderr: String,
    /// Its exit code; 128 and more is a signal.
    pub(crate) code: i32,
}

fn read(mut from: impl Read) -> String {
    let mut all = Vec::new();
    let _ = from.read_to_end(&mut all);
    String::from_utf8_lossy(&all).into_owned()
}

/// Runs a command, with all that it starts, to its end or the limit.
pub(crate) fn run(command: &mut Command) -> Ended {
    let mut child = command
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .process_group(0)
        .spawn()
        .unwrap();
    let group = rustix::process::Pid::from_child(&child);
    let (out, err) = (child.stdout.take().unwrap(), child.stderr.take().unwrap());
    std::thread::scope(|scope| {
        let (stdout, stderr) = (scope.spawn(|| read(out)), scope.spawn(|| read(err)));
        let until = Instant::now() + LIMIT;
        let status = loop {
            if let Some(status) = child.try_wait().unwrap() {
                break status;
            }
            if Instant::now() > until {
                let _ = rustix::process::kill_process_group(group, rustix::process::Signal::KILL);
                break child.wait().unwrap();
            }
            std::thread::park_timeout(Duration::from_millis(5));
        };
        // What it left in the background would keep the pipes open.
        let _ = rustix::process::kill_process_group(group, rustix::process::Signal::KILL);
        let code = status.code().unwrap_or_else(|| 128 + status.signal().unwrap_or(0));
        Ended { stdout: stdout.join().unwrap(), stderr: stderr.join().unwrap(), code }
    })
}
