//! A dialogue with a command on a terminal.

use std::io::{Read as _, Write as _};
use std::os::unix::process::CommandExt as _;
use std::process::Stdio;
use std::sync::mpsc;
use std::time::Instant;

use super::cluster::Cluster;
use super::process::LIMIT;

/// One turn of a dialogue.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Turn {
    /// A line that is typed.
    Type(String),
    /// Something that must then appear.
    See(String),
}

/// Runs `line` on a terminal of its own (by `script` of util-linux) and holds the dialogue; its exit code.
///
/// # Errors
/// What was not seen, with what was.
pub(crate) fn talk(cluster: &Cluster, script: &str, line: &str, turns: &[Turn]) -> Result<i32, String> {
    let quoted = line.replace('\'', "'\\''");
    let mut child = cluster
        .shell(script, &format!("exec script -qefc '{quoted}' /dev/null"))
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .process_group(0)
        .spawn()
        .map_err(|e| e.to_string())?;
    let group = rustix::process::Pid::from_child(&child);
    let (mut stdin, mut stdout) = (child.stdin.take().unwrap(), child.stdout.take().unwrap());
    let (tell, told) = mpsc::channel();
    let reader = std::thread::spawn(move || {
        let mut buffer = [0; 1024];
        while let Ok(n @ 1..) = stdout.read(&mut buffer) {
            let _ = tell.send(String::from_utf8_lossy(&buffer[..n]).into_owned());
        }
    });
    let until = Instant::now() + LIMIT;
    let mut seen = String::new();
    let mut hold = || -> Result<(), String> {
        for turn in turns {
            match turn {
                Turn::Type(text) => {
                    seen.clear();
                    stdin.write_all(format!("{text}\r").as_bytes()).map_err(|e| e.to_string())?;
                }
                Turn::See(text) => {
                    while !seen.contains(text) {
                        let left = until.saturating_duration_since(Instant::now());
                        let more =
                            told.recv_timeout(left).map_err(|_| format!("{seen:?} has no {text:?}"))?;
                        seen.push_str(&more);
                    }
                }
            }
        }
        Ok(())
    };
    let held = hold();
    let mut code = None;
    while held.is_ok() && code.is_none() && Instant::now() < until {
        code = child.try_wait().map_err(|e| e.to_string())?;
        std::thread::park_timeout(std::time::Duration::from_millis(5));
    }
    let _ = rustix::process::kill_process_group(group, rustix::process::Signal::KILL);
    let _ = child.wait();
    drop(stdin);
    let _ = reader.join();
    held?;
    code.and_then(|c| c.code()).ok_or_else(|| "did not end".into())
}
