//! Ports of a pod over one connection (`pkg/kubelet/portforward` upstream): SPDY streams in a WebSocket.
//!
//! The client opens two streams for each connection that it accepted: one that carries an error text, one that
//! carries the bytes. Both name the port and a number that joins them.
#![expect(clippy::disallowed_methods, reason = "a shell: it owns tasks and timers")]

use alloc::collections::BTreeMap;
use alloc::format;
use alloc::string::String;
use alloc::sync::Arc;
use alloc::vec::Vec;

use bytes::Bytes;
use futures_util::StreamExt as _;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::sync::mpsc;
use tokio::task::AbortHandle;

use super::socket::{self, Writer};
use super::spdy::{Decoder, Encoder, Frame, data, pong, reset};
use super::websocket::{Opcode, encode, encode_close};
use crate::runtime::{ByteSink, Duplex, PodUid, Runtime};

/// The WebSocket protocol (KEP-4006).
pub(super) const PROTOCOL: &str = "SPDY/3.1+portforward.k8s.io";
/// Most streams of one connection.
const STREAMS_MAX: usize = 512;
/// Chunks of a stream that wait for the pod to read; the connection waits when there are more.
const CHUNKS_MAX: usize = 16;
/// Status of a reset: the stream is refused.
const REFUSED: u32 = 3;

/// The two streams of one forwarded connection, as far as they were opened.
#[derive(Default)]
struct Pair {
    error: Option<u32>,
    data: Option<u32>,
}

/// A data stream that is forwarded.
struct Flow {
    error: u32,
    to_pod: Option<mpsc::Sender<Bytes>>,
    task: AbortHandle,
}

struct Server {
    writer: Writer,
    runtime: Arc<dyn Runtime>,
    pod: PodUid,
    encoder: Encoder,
    pairs: BTreeMap<(String, String), Pair>,
    flows: BTreeMap<u32, Flow>,
}

impl Drop for Server {
    fn drop(&mut self) {
        for flow in self.flows.values() {
            flow.task.abort();
        }
    }
}

async fn send(writer: &Writer, frame: Bytes) -> bool {
    writer.send(encode(Opcode::Binary, &frame)).await
}

async fn to_pod(mut sink: alloc::boxed::Box<dyn ByteSink>, mut chunks: mpsc::Receiver<Bytes>) {
    while let Some(chunk) = chunks.recv().await {
        if sink.write(chunk).await.is_err() {
            return;
        }
    }
}

/// Ends a task together with the one that started it.
struct AbortOnDrop(AbortHandle);

impl Drop for AbortOnDrop {
    fn drop(&mut self) {
        self.0.abort();
    }
}

/// One forwarded connection: its end is told by closing both streams.
async fn forward(
    writer: Writer,
    runtime: Arc<dyn Runtime>,
    pod: PodUid,
    port: u16,
    (error_stream, data_stream): (u32, u32),
    chunks: mpsc::Receiver<Bytes>,
) {
    let failed = match runtime.port_forward(&pod, port).await {
        Ok(Duplex { mut read, write }) => {
            let up = AbortOnDrop(tokio::spawn(to_pod(write, chunks)).abort_handle());
            let mut failed = None;
            while let Some(chunk) = read.next().await {
                match chunk {
                    Ok(chunk) => {
                        for part in chunk.chunks(32 * 1024) {
                            if !send(&writer, data(data_stream, part, false)).await {
                                return;
                            }
                        }
                    }
                    Err(e) => {
                        failed = Some(e);
                        break;
                    }
                }
            }
            drop(up);
            failed
        }
        Err(e) => Some(e),
    };
    let text = failed.map(|e| {
        format!("an error occurred forwarding {port}: error forwarding port {port} to pod {pod}, uid : {e}")
    });
    send(&writer, data(data_stream, b"", true)).await;
    send(&writer, data(error_stream, text.unwrap_or_default().as_bytes(), true)).await;
}

impl Server {
    async fn open(&mut self, stream: u32, headers: Vec<(String, String)>) -> bool {
        let of = |name: &str| headers.iter().find(|(k, _)| k == name).map_or("", |(_, v)| v.as_str());
        let (kind, port, id) = (of("streamtype"), of("port"), of("requestid"));
        let number = port.parse::<u16>().ok().filter(|p| *p > 0);
        let full = self.flows.len() >= STREAMS_MAX || self.pairs.len() >= STREAMS_MAX;
        let (Some(number), false, "error" | "data") = (number, full, kind) else {
            return send(&self.writer, reset(stream, REFUSED)).await;
        };
        let reply = self.encoder.reply(stream);
        if !send(&self.writer, reply).await {
            return false;
        }
        let key = (id.into(), port.into());
        let pair = self.pairs.entry(key).or_default();
        if kind == "error" {
            pair.error = Some(stream);
        } else {
            pair.data = Some(stream);
        }
        let Pair { error: Some(error), data: Some(data) } = *pair else { return true };
        self.pairs.remove(&(id.into(), port.into()));
        self.flows.retain(|_, flow| !flow.task.is_finished());
        let (tx, rx) = mpsc::channel(CHUNKS_MAX);
        let (writer, runtime, pod) = (self.writer.clone(), self.runtime.clone(), self.pod.clone());
        let task = tokio::spawn(forward(writer, runtime, pod, number, (error, data), rx));
        self.flows.insert(data, Flow { error, to_pod: Some(tx), task: task.abort_handle() });
        true
    }

    /// Does what a frame asks for; false if the client is gone.
    async fn on(&mut self, frame: Frame) -> bool {
        match frame {
            Frame::Open { stream, headers, .. } => return self.open(stream, headers).await,
            Frame::Data { stream, data, fin } => {
                if let Some(flow) = self.flows.get_mut(&stream) {
                    if let Some(tx) = &flow.to_pod
                        && !data.is_empty()
                        && tx.send(data).await.is_err()
                    {
                        flow.to_pod = None;
                    }
                    if fin {
                        flow.to_pod = None;
                    }
                }
            }
            Frame::Reset { stream } => {
                self.pairs.retain(|_, pair| pair.error != Some(stream) && pair.data != Some(stream));
                if let Some(flow) = self.flows.remove(&stream) {
                    flow.task.abort();
                    // The client waits for the end of the other stream.
                    return send(&self.writer, data(flow.error, b"", true)).await;
                }
            }
            Frame::Ping(id) => return send(&self.writer, pong(id)).await,
            Frame::GoAway => return false,
            Frame::Other(_) => {}
        }
        true
    }
}

/// Serves a client until it leaves.
pub(super) async fn run<T>(io: T, runtime: Arc<dyn Runtime>, pod: PodUid)
where
    T: AsyncRead + AsyncWrite + Send + 'static,
{
    let (mut reader, writer) = socket::open(io);
    let mut server = Server {
        writer: writer.clone(),
        runtime,
        pod,
        encoder: Encoder::new(),
        pairs: BTreeMap::new(),
        flows: BTreeMap::new(),
    };
    let mut decoder = Decoder::new();
    while let Some(bytes) = reader.next().await {
        decoder.feed(&bytes);
        loop {
            match decoder.next_frame() {
                Ok(Some(frame)) => {
                    if !server.on(frame).await {
                        return;
                    }
                }
                Ok(None) => break,
                Err(_) => {
                    writer.send(encode_close(1002)).await;
                    return;
                }
            }
        }
    }
}
