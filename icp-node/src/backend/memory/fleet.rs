//! Many simulated nodes behind one client.

use alloc::collections::BTreeMap;
use alloc::vec::Vec;

use icp_core::base::{Machine, Time, TimingWheel};
use icp_core::client::{ClientEffect, ClientEvent, RequestId};

use super::machine::MemoryEvent;
use super::node::SimNode;

/// What happens to a fleet.
#[derive(Debug)]
#[non_exhaustive]
pub enum FleetEvent {
    /// The API server answered.
    Client(ClientEvent),
    /// A node joins.
    Join(alloc::boxed::Box<SimNode>),
    /// A node loses its power: it says nothing any more.
    PowerOff {
        /// Its name.
        node: alloc::string::String,
    },
    /// Something happens to a node's runtime.
    Disturb {
        /// The node's name.
        node: alloc::string::String,
        /// What.
        event: MemoryEvent,
    },
}

impl From<ClientEvent> for FleetEvent {
    fn from(event: ClientEvent) -> Self {
        Self::Client(event)
    }
}

/// Simulated nodes as one machine. Request ids of the nodes are translated, so that all share one client.
///
/// ```
/// use icp_core::base::{Machine, Time};
/// use icp_node::agent::{Kubelet, KubeletConfig};
/// use icp_node::backend::memory::{Fleet, MemoryRuntime, SimNode, SimRules};
/// let node = |i: u8| {
///     let config = KubeletConfig::new(&format!("n{i}"), [192, 168, 0, i].into());
///     let runtime = MemoryRuntime::new(SimRules::default(), format!("10.1.{i}.0/24").parse().unwrap());
///     SimNode::new(Kubelet::new(config), runtime)
/// };
/// let mut fleet = Fleet::new((1..=3).map(node));
/// let mut out = Vec::new();
/// fleet.wake(fleet.deadline().unwrap(), &mut out);
/// assert!(out.len() >= 6, "each node lists its pods and the services");
/// ```
#[derive(Debug)]
pub struct Fleet {
    nodes: Vec<Option<SimNode>>,
    timers: TimingWheel<usize>,
    /// Ids of the fleet: whose they are, and what they are called there.
    inner: BTreeMap<RequestId, (usize, RequestId)>,
    /// Open watches by node and its own id.
    watches: BTreeMap<(usize, RequestId), RequestId>,
    next: RequestId,
    effects: Vec<ClientEffect>,
}

impl Fleet {
    /// A fleet of nodes.
    #[must_use]
    pub fn new(nodes: impl IntoIterator<Item = SimNode>) -> Self {
        let mut fleet = Self {
            nodes: Vec::new(),
            timers: TimingWheel::new(),
            inner: BTreeMap::new(),
            watches: BTreeMap::new(),
            next: 0,
            effects: Vec::new(),
        };
        for node in nodes {
            fleet.join(node);
        }
        fleet
    }

    /// The nodes that have power.
    pub fn nodes(&self) -> impl Iterator<Item = &SimNode> {
        self.nodes.iter().flatten()
    }

    /// The node of a name, if it has power.
    #[must_use]
    pub fn node(&self, name: &str) -> Option<&SimNode> {
        self.nodes.get(self.find(name)?)?.as_ref()
    }

    fn join(&mut self, node: SimNode) -> usize {
        let i = self.nodes.len();
        if let Some(due) = node.deadline() {
            self.timers.set(i, due);
        }
        self.nodes.push(Some(node));
        i
    }

    fn find(&self, name: &str) -> Option<usize> {
        self.nodes.iter().position(|n| n.as_ref().is_some_and(|n| n.kubelet().config().facts.name == name))
    }

    /// Takes what a node wants of the API server and sets its timer.
    fn collect(&mut self, i: usize, out: &mut Vec<ClientEffect>) {
        for effect in self.effects.drain(..) {
            match effect {
                ClientEffect::Request { id, request } => {
                    self.next += 1;
                    self.inner.insert(self.next, (i, id));
                    out.push(ClientEffect::Request { id: self.next, request });
                }
                ClientEffect::Watch { id, request } => {
                    self.next += 1;
                    self.inner.insert(self.next, (i, id));
                    self.watches.insert((i, id), self.next);
                    out.push(ClientEffect::Watch { id: self.next, request });
                }
                ClientEffect::CloseWatch { id } => {
                    if let Some(outer) = self.watches.remove(&(i, id)) {
                        self.inner.remove(&outer);
                        out.push(ClientEffect::CloseWatch { id: outer });
                    }
                }
                _ => {}
            }
        }
        match self.nodes.get(i).and_then(|n| n.as_ref()).and_then(Machine::deadline) {
            Some(due) => self.timers.set(i, due),
            None => {
                self.timers.cancel(&i);
            }
        }
    }

    fn client(&mut self, now: Time, event: ClientEvent, out: &mut Vec<ClientEffect>) {
        let (i, event) = match event {
            ClientEvent::Reply { id, result } => {
                let Some((i, id)) = self.inner.remove(&id) else { return };
                (i, ClientEvent::Reply { id, result })
            }
            ClientEvent::Watch { id, event } => {
                let Some(&(i, id)) = self.inner.get(&id) else { return };
                (i, ClientEvent::Watch { id, event })
            }
            ClientEvent::WatchClosed { id, error } => {
                let Some((i, id)) = self.inner.remove(&id) else { return };
                self.watches.remove(&(i, id));
                (i, ClientEvent::WatchClosed { id, error })
            }
            _ => return,
        };
        if let Some(Some(node)) = self.nodes.get_mut(i) {
            node.on(now, event, &mut self.effects);
            self.collect(i, out);
        }
    }
}

impl Machine for Fleet {
    type Event = FleetEvent;
    type Effect = ClientEffect;

    fn on(&mut self, now: Time, event: FleetEvent, out: &mut Vec<ClientEffect>) {
        match event {
            FleetEvent::Client(event) => self.client(now, event, out),
            FleetEvent::Join(node) => {
                self.join(*node);
            }
            FleetEvent::PowerOff { node } => {
                let Some(i) = self.find(&node) else { return };
                if let Some(slot) = self.nodes.get_mut(i) {
                    *slot = None;
                }
                self.timers.cancel(&i);
                let open: Vec<_> =
                    self.watches.range((i, 0)..=(i, RequestId::MAX)).map(|(k, v)| (*k, *v)).collect();
                for (key, outer) in open {
                    self.watches.remove(&key);
                    out.push(ClientEffect::CloseWatch { id: outer });
                }
                self.inner.retain(|_, (owner, _)| *owner != i);
            }
            FleetEvent::Disturb { node, event } => {
                let Some(i) = self.find(&node) else { return };
                if let Some(Some(node)) = self.nodes.get_mut(i) {
                    node.disturb(now, event, &mut self.effects);
                    self.collect(i, out);
                }
            }
        }
    }

    fn wake(&mut self, now: Time, out: &mut Vec<ClientEffect>) {
        for i in self.timers.expire(now) {
            if let Some(Some(node)) = self.nodes.get_mut(i) {
                node.wake(now, &mut self.effects);
                self.collect(i, out);
            }
        }
    }

    fn deadline(&self) -> Option<Time> {
        self.timers.deadline()
    }
}
