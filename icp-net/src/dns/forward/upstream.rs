//! What is known of upstream servers, and which is asked next.

use alloc::boxed::Box;
use alloc::format;
use alloc::vec::Vec;
use core::fmt;
use core::net::SocketAddr;

use icp_core::base::{Entropy, Time};

use crate::dns::config::{ForwardConfig, Policy};
use crate::dns::wire::Name;

/// The secrets of this machine.
pub(super) struct Secrets(pub(super) Box<dyn Entropy>);

impl fmt::Debug for Secrets {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Secrets")
    }
}

impl Secrets {
    pub(super) fn u64(&mut self) -> u64 {
        let mut bytes = [0; 8];
        self.0.fill(&mut bytes);
        u64::from_ne_bytes(bytes)
    }

    pub(super) fn u16(&mut self) -> u16 {
        let mut bytes = [0; 2];
        self.0.fill(&mut bytes);
        u16::from_ne_bytes(bytes)
    }
}

/// Whether a server is looked after.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Probing {
    No,
    Due(Time),
    Running,
}

#[derive(Debug)]
pub(super) struct Upstream {
    pub(super) address: SocketAddr,
    pub(super) probing: Probing,
    pub(super) probe_fails: u32,
    /// A name that nobody else knows: if a question for it comes in, the server sends queries back here.
    pub(super) token: Name,
    pub(super) loop_checked: bool,
    pub(super) looping: bool,
}

#[derive(Debug)]
pub(super) struct Upstreams {
    pub(super) all: Vec<Upstream>,
    policy: Policy,
    fails_max: u32,
    next: usize,
}

impl Upstreams {
    pub(super) fn new(config: &ForwardConfig, secrets: &mut Secrets) -> Self {
        let addresses = config.upstreams.iter().filter(|a| !config.own.contains(a));
        let upstream = |address: &SocketAddr| {
            let text = format!("{:016x}.{:016x}", secrets.u64(), secrets.u64());
            Upstream {
                address: *address,
                probing: Probing::No,
                probe_fails: 0,
                token: text.parse().unwrap_or_else(|_| Name::root()),
                loop_checked: false,
                looping: false,
            }
        };
        Self {
            all: addresses.take(ForwardConfig::UPSTREAMS_MAX).map(upstream).collect(),
            policy: config.policy,
            fails_max: config.fails_max,
            next: 0,
        }
    }

    pub(super) fn get(&mut self, index: usize) -> Option<&mut Upstream> {
        self.all.get_mut(index)
    }

    /// Whether any server may be asked.
    pub(super) fn usable(&self) -> bool {
        self.all.iter().any(|u| !u.looping)
    }

    /// The server that is asked next, of those that are not in `tried`; and whether all that are left are down, so
    /// that it is a guess.
    pub(super) fn choose(&mut self, tried: u16, secrets: &mut Secrets) -> Option<(usize, bool)> {
        let left =
            |(index, u): (usize, &Upstream)| (!u.looping && tried & (1 << index) == 0).then_some(index);
        let left: Vec<usize> = self.all.iter().enumerate().filter_map(left).collect();
        let up = |index: &usize| {
            self.fails_max == 0 || self.all.get(*index).is_some_and(|u| u.probe_fails < self.fails_max)
        };
        let working: Vec<usize> = left.iter().copied().filter(up).collect();
        let (guess, among) = if working.is_empty() { (true, left) } else { (false, working) };
        let place = match self.policy {
            _ if among.is_empty() => return None,
            Policy::Sequential if !guess => 0,
            Policy::RoundRobin if !guess => {
                self.next = self.next.wrapping_add(1);
                self.next % among.len()
            }
            _ => usize::from(secrets.u16()) % among.len(),
        };
        among.get(place).map(|index| (*index, guess))
    }
}
