//! The streams of a process (exec, attach) over a WebSocket.
#![expect(clippy::disallowed_methods, reason = "a shell: it owns tasks and timers")]

use alloc::boxed::Box;

use bytes::Bytes;
use futures_util::StreamExt as _;
use icp_core::base::Duration;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::sync::{mpsc, watch};

use super::channel::{self, Input, Protocol, STDERR, STDOUT, end_message, end_status};
use super::socket::{self, Writer};
use super::websocket::{Opcode, encode, encode_close, encode_prefixed};
use crate::runtime::{ByteSink, ByteStream, ExecSession, RuntimeError};

/// Most bytes of output in one message.
const OUTPUT_BYTES_MAX: usize = 32 * 1024;
/// Messages for stdin that wait for the process to read.
const STDIN_MESSAGES_MAX: usize = 16;
/// How long output may pause after the process ended: what it started may hold its streams open.
const DRAIN: Duration = Duration::from_secs(5);
/// How long the client may take to answer the close frame.
const CLOSING: Duration = Duration::from_secs(3);

/// Sends what a process writes, until its stream ends or `ended` is true and nothing more comes for a while.
async fn output(channel: u8, stream: Option<ByteStream>, writer: Writer, mut ended: watch::Receiver<bool>) {
    let Some(mut stream) = stream else { return };
    loop {
        let silence = async {
            drop(ended.wait_for(|on| *on).await);
            tokio::time::sleep(DRAIN).await;
        };
        let chunk = tokio::select! {
            chunk = stream.next() => chunk,
            () = silence => return,
        };
        let Some(Ok(chunk)) = chunk else { return };
        for part in chunk.chunks(OUTPUT_BYTES_MAX) {
            if !writer.send(encode_prefixed(channel, part)).await {
                return;
            }
        }
    }
}

async fn stdin(mut sink: Box<dyn ByteSink>, mut messages: mpsc::Receiver<Bytes>) {
    while let Some(bytes) = messages.recv().await {
        if sink.write(bytes).await.is_err() {
            return;
        }
    }
}

/// Joins a process with a client until one of them ends. `what` says what was done, for an error.
pub(super) async fn run<T>(io: T, protocol: Protocol, session: ExecSession, what: &str)
where
    T: AsyncRead + AsyncWrite + Send + 'static,
{
    let ExecSession { stdin: sink, stdout, stderr, mut control, mut status } = session;
    let (mut reader, writer) = socket::open(io);
    // An empty message tells the client that the process is there.
    let first = if stdout.is_some() {
        STDOUT
    } else if stderr.is_some() {
        STDERR
    } else {
        channel::ERROR
    };
    writer.send(encode_prefixed(first, b"")).await;
    let mut input = sink.map(|sink| {
        let (tx, rx) = mpsc::channel(STDIN_MESSAGES_MAX);
        tokio::spawn(stdin(sink, rx));
        tx
    });
    let (ended_tx, ended_rx) = watch::channel(false);
    let outputs = async {
        let out = output(STDOUT, stdout, writer.clone(), ended_rx.clone());
        tokio::join!(out, output(STDERR, stderr, writer.clone(), ended_rx.clone()));
    };
    tokio::pin!(outputs);
    let (mut ended, mut drained) = (None, false);
    let end = loop {
        tokio::select! {
            message = reader.next() => {
                // A client that is gone takes its process along: dropping the session kills it.
                let Some(message) = message else { return };
                match channel::input(protocol, &message) {
                    // A process that reads no more closes its end of the channel.
                    Input::Stdin(bytes) => if let Some(tx) = &input && tx.send(bytes).await.is_err() {
                        input = None;
                    },
                    Input::CloseStdin => input = None,
                    Input::Resize(width, height) => control.resize(width, height).await,
                    Input::Nothing => {}
                }
            }
            () = &mut outputs, if !drained => drained = true,
            end = &mut status, if ended.is_none() => {
                ended = Some(end);
                ended_tx.send_replace(true);
            }
        }
        if drained && let Some(end) = ended.take() {
            break end;
        }
    };
    close(&mut reader, &writer, protocol, &end, what).await;
}

/// Sends a stream as binary messages, such as a log (`binary.k8s.io`).
pub(super) async fn send_stream<T>(io: T, mut stream: ByteStream)
where
    T: AsyncRead + AsyncWrite + Send + 'static,
{
    let (mut reader, writer) = socket::open(io);
    loop {
        tokio::select! {
            message = reader.next() => if message.is_none() { return },
            chunk = stream.next() => match chunk {
                Some(Ok(chunk)) => {
                    if !writer.send(encode(Opcode::Binary, &chunk)).await {
                        return;
                    }
                }
                Some(Err(_)) | None => {
                    writer.send(encode_close(1000)).await;
                    return;
                }
            },
        }
    }
}

/// Tells a client that its process could not be started.
pub(super) async fn refuse<T>(io: T, protocol: Protocol, error: RuntimeError, what: &str)
where
    T: AsyncRead + AsyncWrite + Send + 'static,
{
    let (mut reader, writer) = socket::open(io);
    close(&mut reader, &writer, protocol, &Err(error), what).await;
}

/// Tells how it ended and closes the connection.
async fn close<T>(
    reader: &mut socket::Reader<T>,
    writer: &Writer,
    protocol: Protocol,
    end: &Result<i32, RuntimeError>,
    what: &str,
) where
    T: AsyncRead + AsyncWrite + Send + 'static,
{
    if let Some(message) = end_message(protocol, &end_status(end, what)) {
        writer.send(message).await;
    }
    writer.send(encode_close(1000)).await;
    // The client answers with its own close frame.
    let rest = async { while reader.next().await.is_some() {} };
    let _ = tokio::time::timeout(CLOSING, rest).await;
}
