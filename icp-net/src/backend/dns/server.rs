//! All sockets of one server.
#![expect(clippy::disallowed_methods, reason = "a shell reads the clock")]

use std::boxed::Box;
use std::io;
use std::sync::Arc;
use std::time::{Duration, Instant};
use std::vec::Vec;

use icp_core::base::{Entropy, Time};
use tokio::net::{TcpListener, UdpSocket};
use tokio::sync::{mpsc, oneshot};
use tokio::task::JoinSet;

use super::cell::SnapshotCell;
use super::{forward, tcp, udp};
use crate::dns::{ForwardConfig, Forwarded, Metrics, Note, Transport};

/// Most questions that wait for the task that forwards; more are answered with REFUSED.
const FORWARD_QUEUE_MAX: usize = 4096;

/// Bounds of the sockets; the defaults are those of CoreDNS.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    /// Most TCP clients at once; who is more waits until one leaves.
    pub connections_max: usize,
    /// How long a TCP client may say nothing between two queries.
    pub idle: Duration,
    /// How long a TCP client may take for one query, and for taking one answer.
    pub transfer: Duration,
}

impl Default for Limits {
    fn default() -> Self {
        Self { connections_max: 1000, idle: Duration::from_secs(10), transfer: Duration::from_secs(5) }
    }
}

/// What [`serve`] serves.
#[derive(Debug)]
#[non_exhaustive]
pub struct DnsServer {
    /// The zone; the shell of [`crate::dns::DnsMachine`] puts what it publishes here.
    pub zone: Arc<SnapshotCell>,
    /// How names of others are asked for.
    pub forward: ForwardConfig,
    /// What is counted.
    pub metrics: Arc<Metrics>,
    /// Bounds of the sockets.
    pub limits: Limits,
}

impl DnsServer {
    /// A server for the zone that forwards all else.
    #[must_use]
    pub fn new(zone: Arc<SnapshotCell>, forward: ForwardConfig) -> Self {
        Self { zone, forward, metrics: Arc::new(Metrics::new("dns://")), limits: Limits::default() }
    }
}

/// Who waits for an upstream's answer.
#[derive(Debug)]
pub(super) enum Client {
    Udp(Arc<UdpSocket>, std::net::SocketAddr),
    /// With whether it came over IPv6.
    Tcp(oneshot::Sender<Vec<u8>>, bool),
}

/// A question on its way to the task that forwards.
pub(super) struct Letter {
    pub(super) client: Client,
    pub(super) query: Forwarded,
}

/// Time for machines that need no date.
#[derive(Clone, Copy, Debug)]
pub(super) struct Clock(Instant);

impl Clock {
    pub(super) fn start() -> Self {
        Self(Instant::now())
    }

    pub(super) fn now(&self) -> Time {
        Time::ZERO + self.0.elapsed()
    }

    pub(super) async fn sleep_until(&self, due: Option<Time>) {
        match due {
            Some(due) => tokio::time::sleep(due.since(self.now())).await,
            None => core::future::pending().await,
        }
    }
}

/// Counts an answer that was given.
pub(super) fn count_reply(metrics: &Metrics, transport: Transport, ipv6: bool, note: &Note) {
    metrics.request(transport, ipv6, note.rtype);
    metrics.response(note);
}

/// Serves until the future is dropped, or a socket is broken for good. The ids of queries to upstream servers come from
/// `entropy`. Several UDP sockets on one address (`SO_REUSEPORT`) spread clients over cores. Answers leave from the
/// address that a socket is bound to: one that is bound to all addresses of a host with several answers some clients
/// from another than they asked.
///
/// # Errors
/// If a socket reports nothing but errors.
pub async fn serve(
    server: DnsServer,
    entropy: Box<dyn Entropy>,
    udp: Vec<UdpSocket>,
    tcp: Vec<TcpListener>,
) -> io::Result<()> {
    let DnsServer { zone, mut forward, metrics, limits } = server;
    forward.own.extend(udp.iter().filter_map(|s| s.local_addr().ok()));
    forward.own.extend(tcp.iter().filter_map(|s| s.local_addr().ok()));
    let (letters, inbox) = mpsc::channel(FORWARD_QUEUE_MAX);
    let mut tasks: JoinSet<io::Result<()>> = JoinSet::new();
    tasks.spawn(forward::run(forward, entropy, Arc::clone(&metrics), inbox));
    for socket in udp {
        tasks.spawn(udp::run(Arc::new(socket), zone.reader(), letters.clone(), Arc::clone(&metrics)));
    }
    for listener in tcp {
        tasks.spawn(tcp::run(listener, zone.reader(), letters.clone(), Arc::clone(&metrics), limits));
    }
    drop(letters);
    while let Some(ended) = tasks.join_next().await {
        ended.map_err(io::Error::other)??;
    }
    Ok(())
}
