//! One UDP socket.

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::vec::Vec;

use tokio::net::UdpSocket;
use tokio::sync::mpsc;

use super::cell::SnapshotReader;
use super::server::{Client, Letter, count_reply};
use crate::dns::forward::refuse;
use crate::dns::wire::{ExtendedError, MESSAGE_BYTES_MAX, rcode};
use crate::dns::{Metrics, Note, Outcome, Transport, answer};

/// Most packets that are answered before other tasks get their turn.
const BATCH_MAX: usize = 64;
/// So many errors in a row mean that the socket is broken; single ones come from clients that are gone.
const ERRORS_MAX: usize = 100;

pub(super) async fn run(
    socket: Arc<UdpSocket>,
    mut zone: SnapshotReader,
    letters: mpsc::Sender<Letter>,
    metrics: Arc<Metrics>,
) -> io::Result<()> {
    let mut packet = std::vec![0; MESSAGE_BYTES_MAX];
    let mut out = Vec::with_capacity(4096);
    let mut errors = 0;
    loop {
        let mut received = socket.recv_from(&mut packet).await;
        for _ in 0..BATCH_MAX {
            match received {
                Ok((length, from)) => {
                    errors = 0;
                    let query = packet.get(..length).unwrap_or_default();
                    take(&socket, zone.current(), &letters, &metrics, query, from, &mut out);
                }
                Err(e) if e.kind() == io::ErrorKind::WouldBlock => break,
                Err(e) => {
                    errors += 1;
                    if errors >= ERRORS_MAX {
                        return Err(e);
                    }
                }
            }
            received = socket.try_recv_from(&mut packet);
        }
        tokio::task::yield_now().await;
    }
}

fn take(
    socket: &Arc<UdpSocket>,
    zone: &crate::dns::Snapshot,
    letters: &mpsc::Sender<Letter>,
    metrics: &Metrics,
    query: &[u8],
    from: SocketAddr,
    out: &mut Vec<u8>,
) {
    let reply = |packet: &[u8], note: &Note| {
        count_reply(metrics, Transport::Udp, from.is_ipv6(), note);
        // A full buffer loses the answer, as the network may; the client asks again.
        let _ = socket.try_send_to(packet, from);
    };
    match answer(zone, query, Transport::Udp, out) {
        Outcome::Reply(note) => reply(out, &note),
        Outcome::Drop => metrics.drop_packet(),
        Outcome::Forward(query) => {
            let client = Client::Udp(Arc::clone(socket), from);
            if let Err(full) = letters.try_send(Letter { client, query }) {
                let (packet, note) =
                    refuse(&full.into_inner().query, rcode::REFUSED, ExtendedError::Prohibited);
                reply(&packet, &note);
            }
        }
    }
}
