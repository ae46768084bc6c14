//! One TCP listener.
#![expect(clippy::disallowed_methods, reason = "a shell waits")]

use std::io;
use std::sync::Arc;
use std::vec::Vec;

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{Semaphore, mpsc, oneshot};
use tokio::task::JoinSet;
use tokio::time::{sleep, timeout};

use super::cell::SnapshotReader;
use super::server::{Client, Letter, Limits, count_reply};
use crate::dns::forward::refuse;
use crate::dns::wire::{ExtendedError, MESSAGE_BYTES_MAX, rcode};
use crate::dns::{Metrics, Note, Outcome, Transport, answer};

/// How long to wait after an error of accepting, such as too many open files.
const PAUSE: std::time::Duration = std::time::Duration::from_millis(50);

pub(super) async fn run(
    listener: TcpListener,
    zone: SnapshotReader,
    letters: mpsc::Sender<Letter>,
    metrics: Arc<Metrics>,
    limits: Limits,
) -> io::Result<()> {
    let places = Arc::new(Semaphore::new(limits.connections_max));
    let mut connections = JoinSet::new();
    loop {
        let Ok(place) = Arc::clone(&places).acquire_owned().await else { return Ok(()) };
        // Those that ended are let go.
        while connections.try_join_next().is_some() {}
        let Ok((stream, _)) = listener.accept().await else {
            sleep(PAUSE).await;
            continue;
        };
        let connection = Connection {
            zone: zone.clone(),
            letters: letters.clone(),
            metrics: Arc::clone(&metrics),
            limits,
        };
        connections.spawn(async move {
            // A client that goes or dawdles is nobody's error.
            let _ = connection.run(stream).await;
            drop(place);
        });
    }
}

struct Connection {
    zone: SnapshotReader,
    letters: mpsc::Sender<Letter>,
    metrics: Arc<Metrics>,
    limits: Limits,
}

impl Connection {
    /// Answers query after query, in order.
    async fn run(mut self, mut stream: TcpStream) -> io::Result<()> {
        let ipv6 = stream.peer_addr()?.is_ipv6();
        stream.set_nodelay(true)?;
        let mut packet = Vec::new();
        let mut out = Vec::new();
        loop {
            let length = timeout(self.limits.idle, stream.read_u16()).await??;
            packet.resize(usize::from(length), 0);
            timeout(self.limits.transfer, stream.read_exact(&mut packet)).await??;
            match answer(self.zone.current(), &packet, Transport::Tcp, &mut out) {
                Outcome::Reply(note) => count_reply(&self.metrics, Transport::Tcp, ipv6, &note),
                Outcome::Drop => {
                    // Who sends this over a stream has lost the place in it.
                    self.metrics.drop_packet();
                    return Ok(());
                }
                Outcome::Forward(query) => out = self.forward(query, ipv6).await?,
            }
            let length = u16::try_from(out.len().min(MESSAGE_BYTES_MAX)).unwrap_or(u16::MAX);
            // One write, so that length and message share a segment.
            out.splice(..0, length.to_be_bytes());
            timeout(self.limits.transfer, stream.write_all(&out)).await??;
        }
    }

    async fn forward(&self, query: crate::dns::Forwarded, ipv6: bool) -> io::Result<Vec<u8>> {
        let (answered, waiting) = oneshot::channel();
        match self.letters.try_send(Letter { client: Client::Tcp(answered, ipv6), query }) {
            Ok(()) => waiting.await.map_err(io::Error::other),
            Err(full) => {
                let query = full.into_inner().query;
                let (packet, note): (_, Note) = refuse(&query, rcode::REFUSED, ExtendedError::Prohibited);
                count_reply(&self.metrics, Transport::Tcp, ipv6, &note);
                Ok(packet)
            }
        }
    }
}
