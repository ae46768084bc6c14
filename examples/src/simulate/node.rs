//! A node: the full node logic over the simulated runtime.

use icp_core::base::{Duration, Machine, Rng, Time};
use icp_core::sim::{HostId, Output, StreamId};
use icp_node::backend::memory::SimNode;

use super::master::master_of;
use super::message::{Component, Payload, Seen};
use super::mutant::Mutant;
use super::port::{Cx, Port, Streams};

/// A request without an answer for so long counts as failed.
const TIMEOUT: Duration = Duration::from_secs(10);
/// Between questions who has the shared address.
const ASK_EVERY: Duration = Duration::from_secs(1);

/// How a host finds the masters' shared address.
#[derive(Debug)]
pub struct Neighbour {
    masters: Vec<HostId>,
    known: Option<HostId>,
    ask_at: Option<Time>,
}

impl Neighbour {
    /// Nothing is known yet.
    #[must_use]
    pub const fn new(masters: Vec<HostId>) -> Self {
        Self { masters, known: None, ask_at: None }
    }

    /// Who is thought to have the address.
    #[must_use]
    pub const fn known(&self) -> Option<HostId> {
        self.known
    }

    /// What was thought did not work.
    pub fn doubt(&mut self) {
        self.known = None;
    }

    /// Learns from an ARP frame.
    pub fn learn(&mut self, frame: &[u8]) -> Option<HostId> {
        let index = master_of(frame)?;
        self.known = self.masters.get(usize::from(index)).copied();
        self.ask_at = None;
        self.known
    }

    /// Asks, if something waits for the answer.
    pub fn ask(&mut self, now: Time, wanted: bool, out: &mut Vec<Output<Payload>>) {
        if !wanted || self.known.is_some() {
            self.ask_at = None;
        } else if self.ask_at.is_none_or(|at| at <= now) {
            self.ask_at = Some(now + ASK_EVERY);
            out.extend(self.masters.iter().map(|m| Output::Packet { to: *m, payload: Payload::WhoHas }));
        }
    }

    /// When it asks again.
    #[must_use]
    pub const fn deadline(&self) -> Option<Time> {
        self.ask_at
    }
}

/// The host of a node.
pub struct NodeHost {
    node: SimNode,
    port: Port,
    streams: Streams,
    neighbour: Neighbour,
    /// For the checkers.
    pub seen: Vec<Seen>,
}

impl NodeHost {
    /// A node that starts at its first wake.
    #[must_use]
    pub fn new(
        host: HostId,
        life: u32,
        masters: Vec<HostId>,
        node: SimNode,
        mutant: Option<Mutant>,
        rng: &Rng,
    ) -> Self {
        Self {
            node,
            port: Port::new(Component::Node, host, life, TIMEOUT, mutant, rng.child("port")),
            streams: Streams::new(host, life),
            neighbour: Neighbour::new(masters),
            seen: Vec::new(),
        }
    }

    /// The node.
    #[must_use]
    pub const fn node(&self) -> &SimNode {
        &self.node
    }

    /// Does something to the node.
    pub fn disturb(
        &mut self,
        now: Time,
        event: icp_node::backend::memory::MemoryEvent,
        out: &mut Vec<Output<Payload>>,
    ) {
        let mut effects = Vec::new();
        self.node.disturb(now, event, &mut effects);
        self.perform(now, effects, out);
        self.settle(now, out);
    }

    fn perform(
        &mut self,
        now: Time,
        effects: Vec<icp_core::client::ClientEffect>,
        out: &mut Vec<Output<Payload>>,
    ) {
        for effect in effects {
            let mut cx = Cx { out, seen: &mut self.seen, streams: &mut self.streams };
            self.port.perform(now, self.neighbour.known(), None, effect, &mut cx);
        }
    }

    fn settle(&mut self, now: Time, out: &mut Vec<Output<Payload>>) {
        loop {
            let events = self.port.take_events();
            if events.is_empty() {
                break;
            }
            for event in events {
                let mut effects = Vec::new();
                self.node.on(now, event, &mut effects);
                self.perform(now, effects, out);
            }
        }
        self.neighbour.ask(now, self.port.is_waiting(), out);
    }

    /// Takes a datagram.
    pub fn on_packet(&mut self, now: Time, payload: &Payload, out: &mut Vec<Output<Payload>>) {
        if let Payload::Frame(frame) = payload
            && let Some(to) = self.neighbour.learn(frame)
        {
            let mut cx = Cx { out, seen: &mut self.seen, streams: &mut self.streams };
            self.port.connected(now, to, &mut cx);
        }
        self.settle(now, out);
    }

    /// Takes a message of a stream.
    pub fn on_stream(
        &mut self,
        now: Time,
        stream: StreamId,
        payload: &Payload,
        end: bool,
        out: &mut Vec<Output<Payload>>,
    ) {
        if matches!(payload, Payload::Refused) {
            self.neighbour.doubt();
        }
        let mut cx = Cx { out, seen: &mut self.seen, streams: &mut self.streams };
        self.port.on_stream(stream, payload, end, &mut cx);
        self.settle(now, out);
    }

    /// A stream is no more.
    pub fn on_closed(&mut self, now: Time, stream: StreamId, out: &mut Vec<Output<Payload>>) {
        let mut cx = Cx { out, seen: &mut self.seen, streams: &mut self.streams };
        if self.port.on_closed(stream, &mut cx) {
            self.neighbour.doubt();
        }
        self.settle(now, out);
    }

    /// Does what is due.
    pub fn wake(&mut self, now: Time, out: &mut Vec<Output<Payload>>) {
        let mut cx = Cx { out, seen: &mut self.seen, streams: &mut self.streams };
        if self.port.wake(now, self.neighbour.known(), &mut cx) {
            self.neighbour.doubt();
        }
        if self.node.deadline().is_some_and(|due| due <= now) {
            let mut effects = Vec::new();
            self.node.wake(now, &mut effects);
            self.perform(now, effects, out);
        }
        self.settle(now, out);
    }

    /// When [`NodeHost::wake`] should be called.
    #[must_use]
    pub fn deadline(&self) -> Option<Time> {
        [self.node.deadline(), self.port.deadline(), self.neighbour.deadline()].into_iter().flatten().min()
    }
}
