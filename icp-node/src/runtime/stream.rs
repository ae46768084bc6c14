//! The streaming part of the port: what `kubectl logs`, `exec`, `attach` and `port-forward` need.

use alloc::boxed::Box;
use alloc::string::String;
use alloc::vec::Vec;
use core::future::Future;
use core::pin::Pin;

use async_trait::async_trait;
use bytes::Bytes;
use futures_core::Stream;
use icp_core::base::Time;

use super::{RuntimeError, RuntimeEvent};

/// Bytes as they come; ends after the last one or after an `Err`.
pub type ByteStream = Pin<Box<dyn Stream<Item = Result<Bytes, RuntimeError>> + Send>>;

/// What happens without being asked for.
pub type RuntimeEvents = Pin<Box<dyn Stream<Item = RuntimeEvent> + Send>>;

/// The end of a process: its exit code.
pub type StatusFuture = Pin<Box<dyn Future<Output = Result<i32, RuntimeError>> + Send>>;

/// Where bytes go. Dropping it closes the other side.
#[async_trait]
pub trait ByteSink: Send {
    /// Writes all of `bytes`; waits while the other side does not read.
    ///
    /// # Errors
    /// If the other side is closed.
    async fn write(&mut self, bytes: Bytes) -> Result<(), RuntimeError>;
}

/// Which part of a log (`PodLogOptions`).
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct LogOptions {
    /// Keep waiting for more until the container ends.
    pub follow: bool,
    /// The log of the attempt before the newest.
    pub previous: bool,
    /// Only the last so many lines.
    pub tail_lines: Option<u64>,
    /// Only what was written at or after this time.
    pub since: Option<Time>,
    /// Begin each line with its time (RFC 3339 with nanoseconds).
    pub timestamps: bool,
    /// At most so many bytes.
    pub limit_bytes: Option<u64>,
}

/// Which process, and which of its streams.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ExecRequest {
    /// The program and its arguments; empty for attach.
    pub command: Vec<String>,
    /// Connect stdin.
    pub stdin: bool,
    /// Connect stdout.
    pub stdout: bool,
    /// Connect stderr; never together with `tty`.
    pub stderr: bool,
    /// Allocate a terminal.
    pub tty: bool,
}

/// The streams of a process.
pub struct ExecSession {
    /// Its stdin, if asked for.
    pub stdin: Option<Box<dyn ByteSink>>,
    /// Its stdout, if asked for; both outputs if it has a terminal.
    pub stdout: Option<ByteStream>,
    /// Its stderr, if asked for.
    pub stderr: Option<ByteStream>,
    /// Changes it while it runs. Dropping it kills an exec process, and leaves an attached one.
    pub control: Box<dyn Session>,
    /// Its end.
    pub status: StatusFuture,
}

/// Changes a process while it runs.
#[async_trait]
pub trait Session: Send {
    /// Sets the size of its terminal, in characters; no effect without one.
    async fn resize(&mut self, width: u16, height: u16);
}

/// Two directions of bytes.
pub struct Duplex {
    /// From the other side.
    pub read: ByteStream,
    /// To the other side.
    pub write: Box<dyn ByteSink>,
}
