//! One exchange with an upstream server.

use std::io;
use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr};
use std::vec::Vec;

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpStream, UdpSocket};
use tokio::sync::mpsc;

use crate::dns::Transport;
use crate::dns::forward::ExchangeId;
use crate::dns::wire::MESSAGE_BYTES_MAX;

/// Most packets of one exchange that are looked at: an attacker who guesses gets no more tries.
const PACKETS_MAX: usize = 64;

/// A packet of an exchange, or that there will be none.
pub(super) type Report = (ExchangeId, io::Result<Vec<u8>>);

/// Sends a packet and reports what comes back, until it is dropped.
pub(super) async fn run(
    exchange: ExchangeId,
    upstream: SocketAddr,
    transport: Transport,
    packet: Vec<u8>,
    reports: mpsc::Sender<Report>,
) {
    let result = match transport {
        Transport::Udp => udp(exchange, upstream, &packet, &reports).await,
        Transport::Tcp => tcp(exchange, upstream, &packet, &reports).await,
    };
    if let Err(e) = result {
        drop(reports.send((exchange, Err(e))).await);
    }
}

/// A socket of its own, so that the kernel picks the port; connected, so that it takes packets of the server alone and
/// tells at once that nobody listens.
async fn udp(
    exchange: ExchangeId,
    upstream: SocketAddr,
    packet: &[u8],
    reports: &mpsc::Sender<Report>,
) -> io::Result<()> {
    let any: SocketAddr = match upstream {
        SocketAddr::V4(_) => (Ipv4Addr::UNSPECIFIED, 0).into(),
        SocketAddr::V6(_) => (Ipv6Addr::UNSPECIFIED, 0).into(),
    };
    let socket = UdpSocket::bind(any).await?;
    socket.connect(upstream).await?;
    socket.send(packet).await?;
    let mut buffer = std::vec![0; MESSAGE_BYTES_MAX];
    for _ in 0..PACKETS_MAX {
        let length = socket.recv(&mut buffer).await?;
        let packet = buffer.get(..length).unwrap_or_default().into();
        drop(reports.send((exchange, Ok(packet))).await);
    }
    Ok(())
}

async fn tcp(
    exchange: ExchangeId,
    upstream: SocketAddr,
    packet: &[u8],
    reports: &mpsc::Sender<Report>,
) -> io::Result<()> {
    let length = u16::try_from(packet.len()).map_err(io::Error::other)?;
    let mut stream = TcpStream::connect(upstream).await?;
    let mut framed = Vec::from(length.to_be_bytes());
    framed.extend_from_slice(packet);
    stream.write_all(&framed).await?;
    let length = stream.read_u16().await?;
    let mut answer = std::vec![0; usize::from(length)];
    stream.read_exact(&mut answer).await?;
    drop(reports.send((exchange, Ok(answer))).await);
    Ok(())
}
