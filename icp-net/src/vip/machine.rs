//! The step function.

use alloc::collections::BTreeMap;
use alloc::vec::Vec;
use core::net::Ipv4Addr;

use icp_core::base::{Machine, Time};

use super::config::interval;
use super::{Advertisement, VipConfig, gratuitous_arp};

/// Most sources whose counters are remembered.
const SOURCES_MAX: usize = 255;

/// What happens to a host that shares an address.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum VipEvent {
    /// An IPv4 packet of protocol 112 came in, without its Ethernet header.
    Packet(Vec<u8>),
    /// The link works.
    LinkUp,
    /// The link does not work: the address is given up.
    LinkDown,
    /// Something this host needs does not work (the API server behind the address, say): while it lasts,
    /// advertise with at least this skew; 255 also gives the address up to any other host.
    Demote(u8),
    /// The host is about to stop: hand the address over now.
    Shutdown,
}

/// What a host must do. In the order in which they are emitted: an address is released before it is disowned on the
/// wire, and claimed before it is advertised.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum VipEffect {
    /// Send this Ethernet frame.
    Send(Vec<u8>),
    /// Add the shared address to the interface.
    Claim,
    /// Remove it.
    Release,
}

/// CARP's states.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum VipState {
    /// No link, or stopped.
    Init,
    /// Another host owns the address, or nobody yet.
    Backup,
    /// This host owns the address.
    Master,
}

/// One host's part in sharing an address.
#[derive(Clone, Debug)]
pub struct VipMachine {
    config: VipConfig,
    state: VipState,
    demotion: u8,
    counter: u64,
    ip_id: u16,
    /// Next advertisement as owner, or the end of waiting as backup.
    due: Option<Time>,
    /// Advertisements until the gratuitous ARP is repeated.
    arp_repeat_in: Option<u8>,
    last_counter: BTreeMap<Ipv4Addr, u64>,
}

impl VipMachine {
    /// A host without a link. `counter` is the first counter: random in production, so that an old recording does
    /// not continue it.
    #[must_use]
    pub fn new(config: VipConfig, counter: u64) -> Self {
        Self {
            config,
            state: VipState::Init,
            demotion: 0,
            counter,
            ip_id: 0,
            due: None,
            arp_repeat_in: None,
            last_counter: BTreeMap::new(),
        }
    }

    /// The state.
    #[must_use]
    pub const fn state(&self) -> VipState {
        self.state
    }

    fn skew(&self) -> u8 {
        self.config.advskew.max(self.demotion)
    }

    fn advertise(&mut self, advbase_secs: u8, advskew: u8, out: &mut Vec<VipEffect>) {
        self.counter = self.counter.wrapping_add(1);
        self.ip_id = self.ip_id.wrapping_add(1);
        let ad = Advertisement {
            source: self.config.source,
            vhid: self.config.vhid,
            advbase_secs,
            advskew,
            counter: self.counter,
        };
        out.push(VipEffect::Send(ad.frame(self.config.vip, self.config.key(), self.ip_id)));
    }

    fn become_master(&mut self, now: Time, out: &mut Vec<VipEffect>) {
        self.state = VipState::Master;
        out.push(VipEffect::Claim);
        self.advertise(self.config.advbase_secs, self.skew(), out);
        out.push(VipEffect::Send(gratuitous_arp(self.config.vip, self.config.mac)));
        // UCarp repeats it two advertisements later, for switches that missed the first.
        self.arp_repeat_in = Some(2);
        self.due = Some(now + self.config.interval(self.skew()));
    }

    fn become_backup(&mut self, now: Time, out: &mut Vec<VipEffect>) {
        if self.state == VipState::Master {
            out.push(VipEffect::Release);
        }
        self.state = VipState::Backup;
        self.arp_repeat_in = None;
        self.due = Some(now + self.config.dead_after(self.skew()));
    }

    fn stop(&mut self, out: &mut Vec<VipEffect>) {
        if self.state == VipState::Master {
            out.push(VipEffect::Release);
        }
        self.state = VipState::Init;
        self.arp_repeat_in = None;
        self.due = None;
    }

    fn heard(&mut self, now: Time, ad: &Advertisement, out: &mut Vec<VipEffect>) {
        if ad.source == self.config.source {
            return;
        }
        if self.config.reject_replays {
            if self.last_counter.get(&ad.source).is_some_and(|last| ad.counter <= *last) {
                return;
            }
            if self.last_counter.len() < SOURCES_MAX || self.last_counter.contains_key(&ad.source) {
                self.last_counter.insert(ad.source, ad.counter);
            }
        }
        let (ours, theirs) = (self.config.interval(self.skew()), interval(ad.advbase_secs, ad.advskew));
        match self.state {
            VipState::Init => {}
            VipState::Master => {
                if theirs < ours || (theirs == ours && ad.source < self.config.source) {
                    self.counter = ad.counter;
                    self.become_backup(now, out);
                } else {
                    // A slower owner: tell the switches again whose the address is.
                    out.push(VipEffect::Send(gratuitous_arp(self.config.vip, self.config.mac)));
                }
            }
            VipState::Backup => {
                self.counter = ad.counter;
                let slower = theirs > ours;
                // So slow that it would time out before it speaks again: a bow-out, or a demoted owner.
                let hopeless = self.config.dead_after(self.skew()) < theirs;
                if (self.config.preempt && slower) || hopeless {
                    self.become_master(now, out);
                } else {
                    self.due = Some(now + self.config.dead_after(self.skew()));
                }
            }
        }
    }
}

impl Machine for VipMachine {
    type Event = VipEvent;
    type Effect = VipEffect;

    fn on(&mut self, now: Time, event: VipEvent, out: &mut Vec<VipEffect>) {
        match event {
            VipEvent::Packet(packet) => {
                let parsed =
                    Advertisement::parse(&packet, self.config.vhid, self.config.vip, self.config.key());
                if let Ok(ad) = parsed {
                    self.heard(now, &ad, out);
                }
            }
            VipEvent::LinkUp => {
                if self.state == VipState::Init {
                    self.become_backup(now, out);
                }
            }
            VipEvent::LinkDown => self.stop(out),
            VipEvent::Demote(skew) => {
                self.demotion = skew;
                if self.state == VipState::Master && skew == u8::MAX {
                    self.become_backup(now, out);
                    self.advertise(u8::MAX, u8::MAX, out);
                }
            }
            VipEvent::Shutdown => {
                let owned = self.state == VipState::Master;
                self.stop(out);
                if owned {
                    // OpenBSD's bow-out: an interval so long that every backup takes over at once.
                    self.advertise(u8::MAX, u8::MAX, out);
                }
            }
        }
    }

    fn wake(&mut self, now: Time, out: &mut Vec<VipEffect>) {
        if self.due.is_none_or(|due| due > now) {
            return;
        }
        match self.state {
            VipState::Init => self.due = None,
            VipState::Backup => self.become_master(now, out),
            VipState::Master => {
                self.advertise(self.config.advbase_secs, self.skew(), out);
                self.arp_repeat_in = match self.arp_repeat_in {
                    Some(0 | 1) => {
                        out.push(VipEffect::Send(gratuitous_arp(self.config.vip, self.config.mac)));
                        None
                    }
                    Some(n) => Some(n - 1),
                    None => None,
                };
                self.due = Some(now + self.config.interval(self.skew()));
            }
        }
    }

    fn deadline(&self) -> Option<Time> {
        self.due
    }
}

#[cfg(test)]
mod tests {
    use alloc::vec;
    use core::time::Duration;

    use icp_core::base::Rng;
    use proptest::prelude::*;

    use super::*;
    use crate::vip::DeadTime;

    const VIP: Ipv4Addr = Ipv4Addr::new(10, 0, 0, 100);

    fn host(n: u8, skew: u8, preempt: bool) -> VipMachine {
        let mut c = VipConfig::new(1, "pw", VIP, Ipv4Addr::new(10, 0, 0, n), [2, 0, 0, 0, 0, n]).unwrap();
        c.advskew = skew;
        c.preempt = preempt;
        c.dead_time = DeadTime::Scaled;
        VipMachine::new(c, u64::from(n) << 32)
    }

    /// A network of hosts with virtual time: a frame arrives `latency` later, unless its link is cut.
    struct Net {
        hosts: Vec<Option<VipMachine>>,
        owns: Vec<bool>,
        flight: Vec<(Time, usize, Vec<u8>)>,
        cut: Vec<bool>,
        now: Time,
        latency: Duration,
    }

    impl Net {
        fn new(hosts: Vec<VipMachine>) -> Self {
            let n = hosts.len();
            let mut net = Self {
                hosts: hosts.into_iter().map(Some).collect(),
                owns: vec![false; n],
                flight: Vec::new(),
                cut: vec![false; n],
                now: Time::ZERO,
                latency: Duration::from_millis(1),
            };
            for i in 0..n {
                net.event(i, VipEvent::LinkUp);
            }
            net
        }

        fn event(&mut self, i: usize, event: VipEvent) {
            let mut out = Vec::new();
            if let Some(host) = &mut self.hosts[i] {
                host.on(self.now, event, &mut out);
            }
            self.perform(i, out);
        }

        fn perform(&mut self, from: usize, effects: Vec<VipEffect>) {
            for effect in effects {
                match effect {
                    VipEffect::Claim => self.owns[from] = true,
                    VipEffect::Release => self.owns[from] = false,
                    VipEffect::Send(frame) if frame[12..14] == [8, 0] && !self.cut[from] => {
                        for to in (0..self.hosts.len()).filter(|to| *to != from && !self.cut[*to]) {
                            self.flight.push((self.now + self.latency, to, frame[14..].to_vec()));
                        }
                    }
                    VipEffect::Send(_) => {}
                }
            }
        }

        fn run(&mut self, span: Duration) {
            let end = self.now + span;
            for _ in 0..100_000 {
                let due = self.hosts.iter().flatten().filter_map(Machine::deadline).min();
                let arrival = self.flight.iter().map(|f| f.0).min();
                let Some(next) = due.into_iter().chain(arrival).min().filter(|t| *t <= end) else { break };
                self.now = next.max(self.now);
                let (arrived, rest) = self.flight.drain(..).partition(|f| f.0 <= self.now);
                self.flight = rest;
                let arrived: Vec<(Time, usize, Vec<u8>)> = arrived;
                for (_, to, packet) in arrived {
                    self.event(to, VipEvent::Packet(packet));
                }
                for i in 0..self.hosts.len() {
                    let mut out = Vec::new();
                    if let Some(host) = &mut self.hosts[i] {
                        host.wake(self.now, &mut out);
                    }
                    self.perform(i, out);
                }
            }
            self.now = end;
        }

        fn kill(&mut self, i: usize) {
            self.hosts[i] = None;
            self.owns[i] = false;
        }

        fn owners(&self) -> Vec<usize> {
            (0..self.owns.len()).filter(|i| self.owns[*i]).collect()
        }
    }

    #[test]
    fn fastest_owns_and_next_takes_over() {
        let mut net = Net::new(vec![host(1, 0, false), host(2, 50, false), host(3, 100, false)]);
        net.run(Duration::from_secs(10));
        assert_eq!(net.owners(), [0]);
        net.kill(0);
        net.run(Duration::from_millis(2900));
        assert!(net.owners().is_empty(), "not before three intervals of silence");
        net.run(Duration::from_millis(900));
        assert_eq!(net.owners(), [1]);
    }

    #[test]
    fn shutdown_hands_over_within_one_delivery() {
        let mut net = Net::new(vec![host(1, 0, false), host(2, 50, false)]);
        net.run(Duration::from_secs(10));
        net.event(0, VipEvent::Shutdown);
        assert!(net.owners().is_empty());
        net.run(Duration::from_millis(2));
        assert_eq!(net.owners(), [1]);
    }

    #[test]
    fn demoted_owner_gives_up_at_once_and_preempts_when_well_again() {
        let mut net = Net::new(vec![host(1, 0, true), host(2, 50, true)]);
        net.run(Duration::from_secs(10));
        net.event(0, VipEvent::Demote(255));
        net.run(Duration::from_millis(2));
        assert_eq!(net.owners(), [1]);
        net.run(Duration::from_secs(20));
        assert_eq!(net.owners(), [1], "a demoted host does not come back");
        net.event(0, VipEvent::Demote(0));
        net.run(Duration::from_secs(5));
        assert_eq!(net.owners(), [0]);
    }

    #[test]
    fn replayed_packets_keep_nobody_down_when_they_are_rejected() {
        let mut h = host(2, 0, false);
        h.config.reject_replays = true;
        let ad = Advertisement {
            source: Ipv4Addr::new(10, 0, 0, 1),
            vhid: 1,
            advbase_secs: 1,
            advskew: 0,
            counter: 9,
        };
        let packet = ad.frame(VIP, h.config.key(), 0).split_off(14);
        let mut out = Vec::new();
        h.on(Time::ZERO, VipEvent::LinkUp, &mut out);
        h.on(Time::from_secs(1), VipEvent::Packet(packet.clone()), &mut out);
        let due = h.deadline();
        h.on(Time::from_secs(2), VipEvent::Packet(packet), &mut out);
        assert_eq!(h.deadline(), due);
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(48))]

        /// Crashes and cut cables at random; after it all heals there is exactly one owner.
        #[test]
        fn heals_to_exactly_one_owner(seed in any::<u64>(), n in 2_usize..5, preempt in any::<bool>()) {
            let mut rng = Rng::new(seed);
            let mut net = Net::new((1..=n as u8).map(|i| host(i, (rng.below(3) * 40) as u8, preempt)).collect());
            for _ in 0..12 {
                let i = rng.below(n as u64) as usize;
                match rng.below(4) {
                    0 => net.cut[i] = true,
                    1 => net.cut[i] = false,
                    2 => { net.event(i, VipEvent::LinkDown); net.event(i, VipEvent::LinkUp); }
                    _ => net.event(i, VipEvent::Demote((rng.below(2) * 100) as u8)),
                }
                net.run(Duration::from_millis(rng.below(6_000)));
            }
            net.cut.fill(false);
            for i in 0..n { net.event(i, VipEvent::Demote(0)); }
            net.run(Duration::from_secs(10));
            prop_assert_eq!(net.owners().len(), 1);
        }

        #[test]
        fn no_packet_can_panic_it(bytes in proptest::collection::vec(any::<u8>(), 0..80)) {
            let mut h = host(1, 0, false);
            let mut out = Vec::new();
            h.on(Time::ZERO, VipEvent::LinkUp, &mut out);
            h.on(Time::ZERO, VipEvent::Packet(bytes), &mut out);
            prop_assert!(out.is_empty());
        }
    }
}
