//! Carries the host's connections to addresses inside the lab, byte for byte, so that TLS stays end to end.
//!
//! A connection whose address nobody holds at the moment is tried again for a while, so that a client that connects
//! during a fail-over waits instead of failing. One whose holder went silent is ended soon, so that the client
//! connects anew.
#![expect(clippy::disallowed_methods, reason = "a shell: it owns a runtime and its timers")]

use std::io;
use std::net::{SocketAddr, TcpListener as StdListener};
use std::os::fd::RawFd;
use std::process::ExitCode;
use std::sync::Arc;
use std::time::Duration;

use rustix::net::sockopt;
use serde::{Deserialize, Serialize};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Semaphore;
use tokio::time::{Instant, sleep, timeout, timeout_at};

use super::{role, sys};

pub(super) const ROLE: &str = "lab-relay";
/// The most connections at once on one listener; the next ones wait unaccepted.
const CONNECTIONS_MAX: usize = 1024;
/// How much is read ahead of the slower side, in each direction.
const BUFFER_BYTES: usize = 32 * 1024;
/// How long a client waits for an address that nobody holds.
const CONNECT_LIMIT: Duration = Duration::from_secs(15);
const CONNECT_TRY: Duration = Duration::from_millis(700);
const CONNECT_PAUSE: Duration = Duration::from_millis(50);
/// A peer that acknowledges nothing for so long is gone.
const SILENCE_LIMIT_MS: u32 = 3_000;
const PROBE_INTERVAL: Duration = Duration::from_secs(1);

#[derive(Debug, Serialize, Deserialize)]
pub(super) struct Config {
    pub relays: Vec<(RawFd, SocketAddr)>,
}

pub(super) fn main(args: Vec<String>) -> ExitCode {
    role::run(ROLE, &args, run)
}

fn run(config: Config) -> Result<ExitCode, String> {
    let fail = |e: io::Error| e.to_string();
    sys::become_child(c"icp-lab-relay").map_err(fail)?;
    let mut listeners = Vec::new();
    for (raw, to) in config.relays {
        let listener = StdListener::from(sys::inherited(raw).map_err(fail)?);
        listener.set_nonblocking(true).map_err(fail)?;
        listeners.push((listener, to));
    }
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().map_err(fail)?;
    runtime.block_on(async {
        let mut serving = tokio::task::JoinSet::new();
        for (listener, to) in listeners {
            serving.spawn(serve(TcpListener::from_std(listener).map_err(fail)?, to));
        }
        while let Some(ended) = serving.join_next().await {
            ended.map_err(|e| e.to_string())?;
        }
        Ok(ExitCode::SUCCESS)
    })
}

/// Accepts for ever.
async fn serve(listener: TcpListener, to: SocketAddr) {
    let slots = Arc::new(Semaphore::new(CONNECTIONS_MAX));
    while let Ok(slot) = slots.clone().acquire_owned().await {
        match listener.accept().await {
            Ok((client, _)) => {
                tokio::spawn(async move {
                    carry(client, to).await;
                    drop(slot);
                });
            }
            // The client went away, or files ran out: the next one may fare better.
            Err(_) => sleep(CONNECT_PAUSE).await,
        }
    }
}

async fn carry(mut client: TcpStream, to: SocketAddr) {
    let Some(mut server) = connect(&client, to).await else { return };
    // A failure is told to neither side but by the end of its connection.
    let _ = watch_over(&client).and_then(|()| watch_over(&server));
    let _ =
        tokio::io::copy_bidirectional_with_sizes(&mut client, &mut server, BUFFER_BYTES, BUFFER_BYTES).await;
}

/// Connects to `to`, again and again until its limit or until the client is gone.
async fn connect(client: &TcpStream, to: SocketAddr) -> Option<TcpStream> {
    let limit = Instant::now() + CONNECT_LIMIT;
    loop {
        if let Ok(Ok(server)) = timeout(CONNECT_TRY, TcpStream::connect(to)).await {
            return Some(server);
        }
        // A client that waits has sent its first bytes; one that has given up shows as an end.
        let mut first = [0];
        match timeout_at(limit, client.peek(&mut first)).await {
            Ok(Ok(read)) if read > 0 => sleep(CONNECT_PAUSE).await,
            _ => return None,
        }
        if Instant::now() >= limit {
            return None;
        }
    }
}

/// Lets the kernel end the connection when the other side has gone without a word.
fn watch_over(stream: &TcpStream) -> io::Result<()> {
    sockopt::set_tcp_nodelay(stream, true)?;
    sockopt::set_socket_keepalive(stream, true)?;
    sockopt::set_tcp_keepidle(stream, PROBE_INTERVAL)?;
    sockopt::set_tcp_keepintvl(stream, PROBE_INTERVAL)?;
    sockopt::set_tcp_user_timeout(stream, SILENCE_LIMIT_MS)?;
    Ok(())
}
