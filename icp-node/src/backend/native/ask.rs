//! Runs the helper for one answer, and keeps the runtime's folder to one runtime.
#![expect(clippy::disallowed_methods, reason = "a shell: it waits for processes and locks")]

use alloc::format;
use alloc::vec::Vec;
use core::time::Duration;
use std::fs::File;
use std::io;
use std::path::Path;
use std::process::Stdio;

use serde::de::DeserializeOwned;
use tokio::io::{AsyncBufReadExt, AsyncReadExt, BufReader};
use tokio::process::Command;
use tokio::time::timeout;

use super::record::{Answer, Failure};

/// A helper that has not answered by then is given up.
const HELPER_WAIT: Duration = Duration::from_secs(60);
/// Most bytes of a helper's answer.
const ANSWER_MAX: u64 = 256 * 1024;

/// Runs a command and reads its answer, a line. What it writes to stderr goes to `errors`.
pub(super) async fn ask<T: DeserializeOwned>(mut command: Command, errors: &Path) -> Result<T, Failure> {
    let other = |e: io::Error| Failure::Other(format!("run the helper: {e}"));
    command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(File::create(errors).map_err(other)?);
    let mut child = command.spawn().map_err(other)?;
    let Some(stdout) = child.stdout.take() else { return Err(Failure::Other("no stdout".into())) };
    let mut line = Vec::new();
    let mut reader = BufReader::new(stdout.take(ANSWER_MAX));
    let read = timeout(HELPER_WAIT, reader.read_until(b'\n', &mut line)).await;
    if read.is_err() {
        let _ = child.start_kill();
    }
    // The process that was run ends at once; those that stay are its children.
    tokio::spawn(async move { child.wait().await });
    match read {
        Err(_) => Err(Failure::Other(format!("the helper gave no answer in {HELPER_WAIT:?}"))),
        Ok(Err(e)) => Err(other(e)),
        Ok(Ok(_)) => match serde_json::from_slice(&line) {
            Ok(Answer::Ok(value)) => Ok(value),
            Ok(Answer::Err(failure)) => Err(failure),
            Err(_) => {
                let said = std::fs::read_to_string(errors).unwrap_or_default();
                let said = said
                    .lines()
                    .next()
                    .unwrap_or("it ended without an answer; does its main call helper_main?");
                Err(Failure::Other(format!("the helper failed: {said}")))
            }
        },
    }
}

/// Takes the lock of a folder; waits a moment for a runtime that is about to go.
pub(super) async fn hold(root: &Path) -> io::Result<File> {
    use rustix::fs::FlockOperation;
    let file = File::options().create(true).truncate(false).write(true).open(root.join("lock"))?;
    for _ in 0..40 {
        match rustix::fs::flock(&file, FlockOperation::NonBlockingLockExclusive) {
            Err(rustix::io::Errno::WOULDBLOCK) => tokio::time::sleep(Duration::from_millis(50)).await,
            other => return other.map(|()| file).map_err(Into::into),
        }
    }
    Err(io::Error::other("another runtime uses this folder"))
}
