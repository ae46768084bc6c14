//! `icp-vip`: the virtual IP manager on one machine.

use std::net::{IpAddr, Ipv4Addr};
use std::os::fd::{AsFd as _, BorrowedFd, OwnedFd};
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use icp_core::base::{Machine as _, Rng};
use icp_core::server::Clock as _;
use icp_core::shell::{HttpClient, SystemClock};
use icp_net::backend::rtnl::Rtnl;
use icp_net::vip::shell::VipSockets;
use icp_net::vip::{DeadTime, VipConfig, VipEffect, VipEvent, VipMachine, VipState};
use ipnet::{IpNet, Ipv4Net};
use serde::{Deserialize, Serialize};

use super::{Access, DaemonError, Stop, stopped, wait};

/// What the virtual IP manager is told.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Config {
    /// The interface that gets the address.
    pub interface: String,
    /// The shared address.
    pub vip: Ipv4Addr,
    /// This machine's own address on the interface.
    pub source: Ipv4Addr,
    /// Virtual host id, 1 to 255.
    pub vhid: u8,
    /// The password, 1 to 19 bytes.
    pub password: String,
    /// Base of the advertisement interval, in seconds.
    pub advbase_secs: u8,
    /// What is added to it, in 1/256 seconds; the smallest sum wins.
    pub advskew: u8,
    /// The API server of this machine: while it is not ready, the address is left to others.
    pub healthy_if: Option<Access>,
}

/// Between two looks at the API server.
const HEALTH_EVERY: Duration = Duration::from_millis(500);
/// How long it may take to answer.
const HEALTH_TIMEOUT: Duration = Duration::from_millis(1500);
/// Packets read at one wake.
const PACKETS_MAX: usize = 64;

struct Node {
    machine: VipMachine,
    sockets: VipSockets,
    link: u32,
    vip: Ipv4Addr,
    rtnl: Rtnl,
}

impl Node {
    fn open(config: &Config) -> Result<Self, DaemonError> {
        let sockets =
            VipSockets::open(&config.interface).map_err(DaemonError::io("opening the CARP sockets"))?;
        let field =
            |field| move |e: icp_net::vip::VipError| DaemonError::Field { field, detail: e.to_string() };
        let mut carp =
            VipConfig::new(config.vhid, &config.password, config.vip, config.source, sockets.mac())
                .map_err(field("vip"))?;
        carp.advbase_secs = config.advbase_secs;
        carp.advskew = config.advskew;
        carp.dead_time = DeadTime::Scaled;
        carp.check().map_err(field("advbase_secs"))?;
        let mut rtnl = Rtnl::open().map_err(super::netlink("addresses"))?;
        let link = rtnl.link(&config.interface).map_err(super::netlink("interface"))?.index;
        let counter = Rng::new(super::seed()).next_u64();
        let mut node = Self { machine: VipMachine::new(carp, counter), sockets, link, vip: config.vip, rtnl };
        // What a killed predecessor left behind would answer beside the new owner.
        node.remove();
        Ok(node)
    }

    fn address(&self) -> IpNet {
        IpNet::V4(Ipv4Net::new_assert(self.vip, 32))
    }

    fn remove(&mut self) {
        let has = |a: &icp_net::backend::rtnl::Address| a.net.addr() == IpAddr::V4(self.vip);
        let found = self.rtnl.addresses(Some(self.link)).unwrap_or_default().into_iter().find(has);
        if let Some(found) = found
            && let Err(e) = self.rtnl.delete_address(self.link, found.net)
        {
            eprintln!("vip: removing {}: {e}", self.vip);
        }
    }

    fn perform(&mut self, effects: &mut Vec<VipEffect>) {
        for effect in effects.drain(..) {
            match effect {
                VipEffect::Send(frame) => {
                    // A full queue loses an advertisement; the next one follows.
                    if let Err(e) = self.sockets.send(&frame) {
                        eprintln!("vip: sending: {e}");
                    }
                }
                VipEffect::Claim => {
                    let address = self.address();
                    if let Err(e) = self.rtnl.replace_address(self.link, address) {
                        eprintln!("vip: adding {}: {e}", self.vip);
                    }
                    eprintln!("vip: {} is here", self.vip);
                }
                VipEffect::Release => {
                    self.remove();
                    eprintln!("vip: {} is given up", self.vip);
                }
                _ => {}
            }
        }
    }
}

async fn healthy(client: &HttpClient) -> bool {
    let request = http::Request::get("/readyz").body(Bytes::new());
    let Ok(request) = request else { return false };
    let answer = tokio::time::timeout(HEALTH_TIMEOUT, client.raw(request)).await;
    matches!(answer, Ok(Ok((status, _))) if status.is_success())
}

fn duplicate(fd: BorrowedFd<'_>) -> Result<OwnedFd, DaemonError> {
    fd.try_clone_to_owned().map_err(DaemonError::io("duplicating a socket"))
}

/// Runs until `stop`; the address is handed over at the end.
///
/// # Errors
/// If the sockets cannot be opened or the configuration cannot be used.
pub async fn run(config: Config, stop: Stop) -> Result<(), DaemonError> {
    let mut node = Node::open(&config)?;
    let readable =
        wait::readable(duplicate(node.sockets.as_fd())?).map_err(DaemonError::io("waiting on a socket"))?;
    let health = match &config.healthy_if {
        Some(access) => Some(Arc::new(access.anonymous("icp-vip")?)),
        None => None,
    };
    let (tell, mut demotion) = tokio::sync::watch::channel(if health.is_some() { 255_u8 } else { 0 });
    let checking = async move {
        let Some(client) = health else { return std::future::pending().await };
        loop {
            let demote = if healthy(&client).await { 0 } else { 255 };
            tell.send_if_modified(|was| std::mem::replace(was, demote) != demote);
            tokio::time::sleep(HEALTH_EVERY).await;
        }
    };
    let clock = SystemClock;
    let mut effects = Vec::new();
    let first = *demotion.borrow_and_update();
    node.machine.on(clock.now(), VipEvent::Demote(first), &mut effects);
    if first == 0 {
        node.machine.on(clock.now(), VipEvent::LinkUp, &mut effects);
    }
    let ending = stopped(stop);
    tokio::pin!(ending, checking);
    loop {
        node.perform(&mut effects);
        let due = node.machine.deadline();
        let timer = async {
            match due {
                Some(due) => clock.sleep_until(due).await,
                None => std::future::pending().await,
            }
        };
        tokio::select! {
            () = ending.as_mut() => break,
            () = checking.as_mut() => {}
            () = timer => node.machine.wake(clock.now(), &mut effects),
            changed = demotion.changed() => {
                let demote = if changed.is_ok() { *demotion.borrow_and_update() } else { 255 };
                eprintln!("vip: demotion {demote}");
                node.machine.on(clock.now(), VipEvent::Demote(demote), &mut effects);
                // A machine that was never healthy has not joined yet.
                if demote == 0 && node.machine.state() == VipState::Init {
                    node.machine.on(clock.now(), VipEvent::LinkUp, &mut effects);
                }
            }
            ready = readable.readable() => {
                let mut guard = ready.map_err(DaemonError::io("waiting on a socket"))?;
                guard.clear_ready();
                for _ in 0..PACKETS_MAX {
                    match node.sockets.receive() {
                        Ok(Some(packet)) => {
                            node.machine.on(clock.now(), VipEvent::Packet(packet), &mut effects);
                        }
                        Ok(None) => break,
                        Err(e) => return Err(DaemonError::Io { what: "receiving".into(), source: e }),
                    }
                }
            }
        }
    }
    node.machine.on(clock.now(), VipEvent::Shutdown, &mut effects);
    node.perform(&mut effects);
    Ok(())
}
