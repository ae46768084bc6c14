//! A WebSocket on an upgraded connection: reads messages, answers pings, writes frames.
#![expect(clippy::disallowed_methods, reason = "a shell: it owns tasks and sockets")]

use alloc::vec::Vec;

use bytes::Bytes;
use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _, ReadHalf, WriteHalf};
use tokio::sync::mpsc;

use super::websocket::{Decoder, Message, Opcode, encode, encode_close};

/// Longest message that a client may send, in bytes.
const MESSAGE_BYTES_MAX: usize = 1 << 20;
/// Frames that wait to be written; who has more waits.
const FRAMES_MAX: usize = 16;
/// Bytes that are read at once.
const READ_BYTES: usize = 32 * 1024;

/// The reading side.
pub(super) struct Reader<T> {
    io: ReadHalf<T>,
    decoder: Decoder,
    buffer: Vec<u8>,
    writer: Writer,
}

/// The writing side: cheap to clone, the socket closes when the last one is gone.
#[derive(Clone)]
pub(super) struct Writer(mpsc::Sender<Bytes>);

impl Writer {
    /// Writes a frame; false if the client is gone.
    pub(super) async fn send(&self, frame: Bytes) -> bool {
        self.0.send(frame).await.is_ok()
    }
}

async fn write_all<T: AsyncWrite>(mut io: WriteHalf<T>, mut frames: mpsc::Receiver<Bytes>) {
    while let Some(frame) = frames.recv().await {
        if io.write_all(&frame).await.is_err() {
            return;
        }
        // What comes in a burst is flushed once.
        if frames.is_empty() && io.flush().await.is_err() {
            return;
        }
    }
    // The client is gone if this fails, which is as good.
    let _ = io.shutdown().await;
}

/// Takes over a connection.
pub(super) fn open<T: AsyncRead + AsyncWrite + Send + 'static>(io: T) -> (Reader<T>, Writer) {
    let (read, write) = tokio::io::split(io);
    let (tx, rx) = mpsc::channel(FRAMES_MAX);
    tokio::spawn(write_all(write, rx));
    let writer = Writer(tx);
    let decoder = Decoder::new(MESSAGE_BYTES_MAX);
    let buffer = alloc::vec![0; READ_BYTES];
    (Reader { io: read, decoder, buffer, writer: writer.clone() }, writer)
}

impl<T: AsyncRead + AsyncWrite + Send + 'static> Reader<T> {
    /// The next message with data; `None` when the client closed the connection or broke its rules. Safe to be
    /// dropped while it waits.
    pub(super) async fn next(&mut self) -> Option<Bytes> {
        loop {
            match self.decoder.next_message() {
                Ok(Some(Message::Data(data))) => return Some(data),
                Ok(Some(Message::Ping(payload))) => {
                    // If the line is full of output, the client sees that somebody lives.
                    let _ = self.writer.0.try_send(encode(Opcode::Pong, &payload));
                }
                Ok(Some(Message::Pong)) => {}
                Ok(Some(Message::Close(code))) => {
                    self.writer.send(encode_close(code.unwrap_or(1000))).await;
                    return None;
                }
                Err(error) => {
                    self.writer.send(encode_close(error.close_code())).await;
                    return None;
                }
                Ok(None) => match self.io.read(&mut self.buffer).await {
                    Ok(0) | Err(_) => return None,
                    Ok(n) => self.decoder.feed(self.buffer.get(..n).unwrap_or_default()),
                },
            }
        }
    }
}
