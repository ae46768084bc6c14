//! A simulated node: the node agent over a simulated runtime, as one machine.

use alloc::vec::Vec;

use icp_core::base::{Machine, Time};
use icp_core::client::{ClientEffect, ClientEvent};

use super::machine::{MemoryEvent, MemoryRuntime};
use crate::agent::{Kubelet, KubeletEffect, KubeletEvent};
use crate::runtime::RuntimeEvent;

/// The node agent over a simulated runtime, as one machine that talks to an API server.
#[derive(Debug)]
pub struct SimNode {
    kubelet: Kubelet,
    runtime: MemoryRuntime,
    /// Reused between events.
    effects: Vec<KubeletEffect>,
    events: Vec<RuntimeEvent>,
}

impl SimNode {
    /// Joins an agent and a runtime.
    #[must_use]
    pub const fn new(kubelet: Kubelet, runtime: MemoryRuntime) -> Self {
        Self { kubelet, runtime, effects: Vec::new(), events: Vec::new() }
    }

    /// The agent.
    #[must_use]
    pub const fn kubelet(&self) -> &Kubelet {
        &self.kubelet
    }

    /// The runtime.
    #[must_use]
    pub const fn runtime(&self) -> &MemoryRuntime {
        &self.runtime
    }

    /// Does something to the runtime: an exit, a lost sandbox, a reboot.
    pub fn disturb(&mut self, now: Time, event: MemoryEvent, out: &mut Vec<ClientEffect>) {
        self.runtime.on(now, event, &mut self.events);
        self.settle(now, out);
    }

    /// The agent starts anew, as after a crash: it knows nothing but its configuration; containers run on.
    pub fn restart_agent(&mut self) {
        // Answers to the old agent would be taken for answers to the new one, whose calls have the same numbers.
        self.runtime.on(Time::ZERO, MemoryEvent::Disconnect, &mut self.events);
        self.events.clear();
        self.effects.clear();
        self.kubelet = Kubelet::new(self.kubelet.config().clone());
    }

    fn settle(&mut self, now: Time, out: &mut Vec<ClientEffect>) {
        // The runtime answers at `now` at the earliest, so that a chain of calls without latency ends within a few
        // rounds; the bound keeps a broken one from holding the others.
        for _ in 0..10_000 {
            for effect in core::mem::take(&mut self.effects) {
                match effect {
                    KubeletEffect::Client(effect) => out.push(effect),
                    KubeletEffect::Runtime(call) => {
                        self.runtime.on(now, MemoryEvent::Call(call), &mut self.events);
                    }
                }
            }
            if self.events.is_empty() {
                return;
            }
            for event in core::mem::take(&mut self.events) {
                self.kubelet.on(now, KubeletEvent::Runtime(event), &mut self.effects);
            }
        }
    }
}

impl Machine for SimNode {
    type Event = ClientEvent;
    type Effect = ClientEffect;

    fn on(&mut self, now: Time, event: ClientEvent, out: &mut Vec<ClientEffect>) {
        self.kubelet.on(now, KubeletEvent::Client(event), &mut self.effects);
        self.settle(now, out);
    }

    fn wake(&mut self, now: Time, out: &mut Vec<ClientEffect>) {
        self.runtime.wake(now, &mut self.events);
        if self.kubelet.deadline().is_some_and(|due| due <= now) {
            self.kubelet.wake(now, &mut self.effects);
        }
        self.settle(now, out);
    }

    fn deadline(&self) -> Option<Time> {
        match (self.kubelet.deadline(), self.runtime.deadline()) {
            (Some(a), Some(b)) => Some(a.min(b)),
            (a, b) => a.or(b),
        }
    }
}
