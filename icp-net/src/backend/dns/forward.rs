//! The task that owns the forwarding machine.

use std::boxed::Box;
use std::collections::BTreeMap;
use std::io;
use std::sync::Arc;
use std::vec::Vec;

use icp_core::base::{Entropy, Machine as _};
use tokio::sync::mpsc;
use tokio::task::{AbortHandle, JoinSet};

use super::exchange::{self, Report};
use super::server::{Client, Clock, Letter, count_reply};
use crate::dns::forward::{ExchangeId, ForwardEffect, ForwardEvent, ForwardMachine};
use crate::dns::{ForwardConfig, Metrics, Transport};

/// Most packets of upstream servers that wait to be looked at; exchanges wait then.
const REPORTS_MAX: usize = 1024;

pub(super) async fn run(
    config: ForwardConfig,
    entropy: Box<dyn Entropy>,
    metrics: Arc<Metrics>,
    mut inbox: mpsc::Receiver<Letter>,
) -> io::Result<()> {
    let clock = Clock::start();
    let mut machine = ForwardMachine::new(config, entropy, Arc::clone(&metrics));
    let (reports, mut reported) = mpsc::channel(REPORTS_MAX);
    let mut shell = Shell { reports, exchanges: BTreeMap::new(), tasks: JoinSet::new(), metrics };
    let mut effects = Vec::new();
    machine.wake(clock.now(), &mut effects);
    loop {
        effects.drain(..).for_each(|effect| shell.perform(effect));
        let event = tokio::select! {
            letter = inbox.recv() => match letter {
                Some(Letter { client, query }) => Some(ForwardEvent::Query { client, query }),
                None => return Ok(()),
            },
            Some((exchange, result)) = reported.recv() => Some(match result {
                Ok(packet) => ForwardEvent::Packet { exchange, packet },
                Err(_) => ForwardEvent::Failed { exchange },
            }),
            () = clock.sleep_until(machine.deadline()) => None,
        };
        let now = clock.now();
        if let Some(event) = event {
            machine.on(now, event, &mut effects);
        }
        // Deadlines are kept even when events never pause.
        if machine.deadline().is_some_and(|due| due <= now) {
            machine.wake(now, &mut effects);
        }
        while shell.tasks.try_join_next().is_some() {}
    }
}

struct Shell {
    reports: mpsc::Sender<Report>,
    exchanges: BTreeMap<ExchangeId, AbortHandle>,
    tasks: JoinSet<()>,
    metrics: Arc<Metrics>,
}

impl Shell {
    fn perform(&mut self, effect: ForwardEffect<Client>) {
        match effect {
            ForwardEffect::Exchange { exchange, upstream, transport, packet } => {
                let task = exchange::run(exchange, upstream, transport, packet, self.reports.clone());
                self.exchanges.insert(exchange, self.tasks.spawn(task));
            }
            ForwardEffect::Abandon { exchange } => {
                if let Some(task) = self.exchanges.remove(&exchange) {
                    task.abort();
                }
            }
            ForwardEffect::Respond { client: Client::Udp(socket, to), packet, note } => {
                count_reply(&self.metrics, Transport::Udp, to.is_ipv6(), &note);
                let _ = socket.try_send_to(&packet, to);
            }
            ForwardEffect::Respond { client: Client::Tcp(waiting, ipv6), packet, note } => {
                count_reply(&self.metrics, Transport::Tcp, ipv6, &note);
                // The client may be gone.
                drop(waiting.send(packet));
            }
            // The machine asks the server no more; answers say why.
            ForwardEffect::Looping { .. } => {}
        }
    }
}
