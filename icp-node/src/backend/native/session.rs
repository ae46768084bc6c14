//! The streams of an exec or an attach, between the agent's callers and a helper.

use alloc::boxed::Box;
use alloc::format;
use alloc::string::ToString;
use alloc::vec::Vec;
use core::pin::Pin;
use core::task::{Context, Poll};

use async_trait::async_trait;
use bytes::Bytes;
use futures_core::Stream;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::sync::{mpsc, oneshot};

use super::frame::{Decoder, FRAME_MAX, Frame};
use super::record::Failure;
use crate::runtime::{ByteSink, ExecRequest, ExecSession, RuntimeError, Session};

/// Pieces that wait for a slow reader.
const PIECES: usize = 8;

/// What comes out of a channel, as a stream.
pub(crate) struct Received<T>(pub(crate) mpsc::Receiver<T>);

impl<T> Stream for Received<T> {
    type Item = T;

    fn poll_next(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<T>> {
        self.0.poll_recv(cx)
    }
}

struct Stdin(mpsc::Sender<Bytes>);

#[async_trait]
impl ByteSink for Stdin {
    async fn write(&mut self, bytes: Bytes) -> Result<(), RuntimeError> {
        if bytes.is_empty() {
            return Ok(());
        }
        let closed = |_| RuntimeError::Unavailable { message: "the process has ended".into() };
        self.0.send(bytes).await.map_err(closed)
    }
}

struct Control(mpsc::Sender<(u16, u16)>);

#[async_trait]
impl Session for Control {
    async fn resize(&mut self, width: u16, height: u16) {
        let _ = self.0.send((width, height)).await;
    }
}

fn lost(what: impl core::fmt::Display) -> RuntimeError {
    RuntimeError::Unavailable { message: format!("lost the process: {what}") }
}

struct Reader<R> {
    from: R,
    decoder: Decoder,
    buffer: Vec<u8>,
}

impl<R: AsyncRead + Unpin> Reader<R> {
    /// The next frame; `None` at the end of the connection.
    async fn next(&mut self) -> Result<Option<Frame>, RuntimeError> {
        loop {
            if let Some(frame) = self.decoder.next().map_err(lost)? {
                return Ok(Some(frame));
            }
            match self.from.read(&mut self.buffer).await.map_err(lost)? {
                0 => return Ok(None),
                n => self.decoder.push(self.buffer.get(..n).unwrap_or_default()),
            }
        }
    }
}

/// Connects a caller. A process waits while its output is not read, and so does its status; who does not want a stream
/// drops it. `keep` is dropped when the process has ended; with `owned` the process ends when the caller drops
/// the session's control.
///
/// # Errors
/// [`RuntimeError::Start`] if the helper says that the process could not be started.
pub(crate) async fn connect<R, W>(
    from: R,
    to: W,
    request: &ExecRequest,
    owned: bool,
    keep: impl Send + 'static,
) -> Result<ExecSession, RuntimeError>
where
    R: AsyncRead + Send + Unpin + 'static,
    W: AsyncWrite + Send + Unpin + 'static,
{
    let mut reader = Reader { from, decoder: Decoder::default(), buffer: alloc::vec![0; FRAME_MAX] };
    match reader.next().await? {
        Some(Frame::Started) => {}
        Some(Frame::Failed(text)) => {
            return Err(match serde_json::from_str(&text) {
                Ok(Failure::Config(message)) => RuntimeError::Config { message },
                Ok(failure) => RuntimeError::Start { message: failure.to_string() },
                Err(_) => RuntimeError::Start { message: text },
            });
        }
        _ => return Err(lost("it gave no answer")),
    }
    let (stdin, stdin_out) = mpsc::channel(PIECES);
    let (control, control_out) = mpsc::channel(PIECES);
    let (stdout_in, stdout) = mpsc::channel(PIECES);
    let (stderr_in, stderr) = mpsc::channel(PIECES);
    let (status_in, status) = oneshot::channel();
    let (left_in, left) = oneshot::channel::<()>();
    let spawn = tokio::runtime::Handle::current();
    let has_stdin = request.stdin;
    spawn.spawn(async move {
        write_frames(to, stdin_out, control_out, owned, has_stdin).await;
        drop(left_in);
    });
    let want = (request.stdout, request.stderr);
    spawn.spawn(async move {
        let reading = read_frames(reader, want, stdout_in, stderr_in);
        let result = if owned {
            reading.await
        } else {
            tokio::select! {
                result = reading => result,
                _ = left => Err(lost("the caller left")),
            }
        };
        drop(keep);
        let _ = status_in.send(result);
    });
    Ok(ExecSession {
        stdin: request.stdin.then(|| Box::new(Stdin(stdin)) as Box<dyn ByteSink>),
        stdout: request.stdout.then(|| Box::pin(Received(stdout)) as _),
        stderr: (request.stderr && !request.tty).then(|| Box::pin(Received(stderr)) as _),
        control: Box::new(Control(control)),
        status: Box::pin(async move { status.await.unwrap_or_else(|e| Err(lost(e))) }),
    })
}

async fn write_frames<W: AsyncWrite + Unpin>(
    mut to: W,
    mut stdin: mpsc::Receiver<Bytes>,
    mut control: mpsc::Receiver<(u16, u16)>,
    owned: bool,
    // Who has no stdin does not end that of others either.
    mut open: bool,
) {
    loop {
        let mut out = Vec::new();
        let mut last = false;
        tokio::select! {
            bytes = stdin.recv(), if open => match bytes {
                Some(bytes) => Frame::Stdin(bytes.into()).encode(&mut out),
                None => {
                    open = false;
                    Frame::Stdin(Vec::new()).encode(&mut out);
                }
            },
            size = control.recv() => match size {
                Some((width, height)) => Frame::Resize { width, height }.encode(&mut out),
                None => {
                    last = true;
                    if owned {
                        Frame::Kill.encode(&mut out);
                    }
                }
            },
        }
        if to.write_all(&out).await.is_err() || to.flush().await.is_err() || last {
            return;
        }
    }
}

async fn read_frames<R: AsyncRead + Unpin>(
    mut reader: Reader<R>,
    (want_out, want_err): (bool, bool),
    stdout: mpsc::Sender<Result<Bytes, RuntimeError>>,
    stderr: mpsc::Sender<Result<Bytes, RuntimeError>>,
) -> Result<i32, RuntimeError> {
    loop {
        match reader.next().await? {
            // Who dropped a stream does not want it; the process goes on.
            Some(Frame::Stdout(data)) if want_out => drop(stdout.send(Ok(data.into())).await),
            Some(Frame::Stderr(data)) if want_err => drop(stderr.send(Ok(data.into())).await),
            Some(Frame::Exit(code)) => return Ok(code),
            Some(_) => {}
            None => return Err(lost("the connection ended")),
        }
    }
}
