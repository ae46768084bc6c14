//! Runs a machine: time from the clock, API requests through a [`Client`], everything else by the caller.

use alloc::collections::BTreeMap;
use alloc::sync::Arc;
use alloc::vec::Vec;

use futures_util::StreamExt as _;
use tokio::sync::{Semaphore, mpsc, watch};
use tokio::task::JoinHandle;

use super::clock::SystemClock;
use crate::base::Machine;
use crate::client::{ApiError, ApiRequest, Client, ClientEffect, ClientEvent, RequestId, WatchEvent};
use crate::server::Clock as _;

/// Most requests of one machine that are under way at once.
pub const REQUESTS_MAX: usize = 64;
/// Most events that wait for one machine; who sends more waits.
pub const MAILBOX_MAX: usize = 4096;

enum Letter<E> {
    Event(E),
    Client(ClientEvent),
    Watch { id: RequestId, opened: u64, event: Result<WatchEvent, Option<ApiError>> },
}

/// Sends events to a machine that a [`Host`] runs.
pub struct Mailbox<E> {
    tx: mpsc::Sender<Letter<E>>,
}

impl<E> Clone for Mailbox<E> {
    fn clone(&self) -> Self {
        Self { tx: self.tx.clone() }
    }
}

impl<E> core::fmt::Debug for Mailbox<E> {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        f.debug_struct("Mailbox").field("capacity", &self.tx.capacity()).finish()
    }
}

impl<E> Mailbox<E> {
    /// Sends an event and waits while the box is full; false if the machine runs no more.
    pub async fn send(&self, event: E) -> bool {
        self.tx.send(Letter::Event(event)).await.is_ok()
    }

    /// Sends an event, or gives it back if the box is full or the machine runs no more.
    ///
    /// # Errors
    /// The event that was not sent.
    pub fn try_send(&self, event: E) -> Result<(), E> {
        self.tx.try_send(Letter::Event(event)).map_err(|e| match e.into_inner() {
            Letter::Event(event) => event,
            Letter::Client(_) | Letter::Watch { .. } => unreachable!("only an event was sent"),
        })
    }
}

/// A machine, its client and its mailbox.
///
/// The host is a loop on one task: it takes the next event or deadline, calls the machine, and performs the
/// effects. Requests run beside it, at most [`REQUESTS_MAX`] at once, in the order in which the machine asked; each
/// watch is a task that ends with the host. After `CloseWatch` no event of that watch reaches the machine.
///
/// ```no_run
/// # use std::sync::Arc;
/// # use icp_core::base::{Machine, Time};
/// # use icp_core::client::{Client, ClientEffect, ClientEvent};
/// # use icp_core::shell::host::Host;
/// # enum Event { Client(ClientEvent), Poke }
/// # impl From<ClientEvent> for Event { fn from(e: ClientEvent) -> Self { Self::Client(e) } }
/// # enum Effect { Client(ClientEffect), Print(String) }
/// # struct My;
/// # impl Machine for My { type Event = Event; type Effect = Effect;
/// #   fn on(&mut self, _: Time, _: Event, _: &mut Vec<Effect>) {} }
/// # async fn run(client: Arc<dyn Client>) {
/// let host = Host::new(My, client);
/// let mailbox = host.mailbox();
/// tokio::spawn(host.run(|effect, _mailbox| match effect {
///     Effect::Client(effect) => Some(effect),
///     Effect::Print(line) => {
///         println!("{line}");
///         None
///     }
/// }));
/// mailbox.send(Event::Poke).await;
/// # }
/// ```
pub struct Host<M: Machine> {
    machine: M,
    client: Arc<dyn Client>,
    clock: SystemClock,
    tx: mpsc::Sender<Letter<M::Event>>,
    rx: mpsc::Receiver<Letter<M::Event>>,
    requests: Arc<Semaphore>,
    watches: BTreeMap<RequestId, (u64, JoinHandle<()>)>,
    opened: u64,
    stop: Option<watch::Receiver<bool>>,
}

impl<M: Machine> core::fmt::Debug for Host<M> {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        f.debug_struct("Host").field("watches", &self.watches.len()).finish_non_exhaustive()
    }
}

impl<M: Machine> Drop for Host<M> {
    fn drop(&mut self) {
        for (_, task) in self.watches.values() {
            task.abort();
        }
    }
}

impl<M> Host<M>
where
    M: Machine,
    M::Event: From<ClientEvent> + Send + 'static,
{
    /// A host that talks to the API server through `client`.
    pub fn new(machine: M, client: Arc<dyn Client>) -> Self {
        let (tx, rx) = mpsc::channel(MAILBOX_MAX);
        Self {
            machine,
            client,
            clock: SystemClock,
            tx,
            rx,
            requests: Arc::new(Semaphore::new(REQUESTS_MAX)),
            watches: BTreeMap::new(),
            opened: 0,
            stop: None,
        }
    }

    /// Ends [`Host::run`] when the value becomes true or its sender is dropped.
    #[must_use]
    pub fn stop_when(mut self, stop: watch::Receiver<bool>) -> Self {
        self.stop = Some(stop);
        self
    }

    /// A way to send events to the machine.
    #[must_use]
    pub fn mailbox(&self) -> Mailbox<M::Event> {
        Mailbox { tx: self.tx.clone() }
    }

    /// Runs the machine until the stop signal comes, and gives it back. `handler` performs an effect, or returns it
    /// as a [`ClientEffect`] for the host to perform; it must not block (spawn a task and report by the mailbox).
    pub async fn run(mut self, mut handler: impl FnMut(M::Effect, &Mailbox<M::Event>) -> Option<ClientEffect>)
    where
        M: Send,
    {
        let mailbox = self.mailbox();
        let mut effects = Vec::new();
        let mut stop = self.stop.take();
        // A machine that starts itself does so at its first wake.
        self.machine.wake(self.clock.now(), &mut effects);
        loop {
            for effect in effects.drain(..) {
                if let Some(effect) = handler(effect, &mailbox) {
                    self.perform(effect);
                }
            }
            let deadline = self.machine.deadline();
            let timer = async {
                match deadline {
                    Some(due) => self.clock.sleep_until(due).await,
                    None => core::future::pending().await,
                }
            };
            let stopped = async {
                match &mut stop {
                    Some(stop) => drop(stop.wait_for(|on| *on).await),
                    None => core::future::pending().await,
                }
            };
            tokio::select! {
                biased;
                () = stopped => return,
                letter = self.rx.recv() => match letter {
                    Some(letter) => self.deliver(letter, &mut effects),
                    None => return,
                },
                () = timer => self.machine.wake(self.clock.now(), &mut effects),
            }
        }
    }

    fn deliver(&mut self, letter: Letter<M::Event>, effects: &mut Vec<M::Effect>) {
        let now = self.clock.now();
        let event = match letter {
            Letter::Event(event) => event,
            Letter::Client(event) => event.into(),
            Letter::Watch { id, opened, event } => {
                if self.watches.get(&id).is_none_or(|(current, _)| *current != opened) {
                    return;
                }
                match event {
                    Ok(event) => ClientEvent::Watch { id, event }.into(),
                    Err(error) => {
                        self.watches.remove(&id);
                        ClientEvent::WatchClosed { id, error }.into()
                    }
                }
            }
        };
        self.machine.on(now, event, effects);
        // Deadlines are kept even when events never pause.
        if self.machine.deadline().is_some_and(|due| due <= now) {
            self.machine.wake(now, effects);
        }
    }

    fn perform(&mut self, effect: ClientEffect) {
        match effect {
            ClientEffect::Request { id, request } => self.request(id, request),
            ClientEffect::Watch { id, request } => self.watch(id, request),
            ClientEffect::CloseWatch { id } => {
                if let Some((_, task)) = self.watches.remove(&id) {
                    task.abort();
                }
            }
        }
    }

    fn request(&self, id: RequestId, request: ApiRequest) {
        let (client, tx, permits) = (self.client.clone(), self.tx.clone(), self.requests.clone());
        tokio::spawn(async move {
            let Ok(_permit) = permits.acquire_owned().await else { return };
            let result = client.request(request).await;
            drop(tx.send(Letter::Client(ClientEvent::Reply { id, result })).await);
        });
    }

    fn watch(&mut self, id: RequestId, request: ApiRequest) {
        self.opened += 1;
        let (client, tx, opened) = (self.client.clone(), self.tx.clone(), self.opened);
        let task = tokio::spawn(async move {
            let mut error = None;
            match client.watch(request).await {
                Err(e) => error = Some(e),
                Ok(mut stream) => {
                    while let Some(item) = stream.next().await {
                        match item {
                            Ok(event) => {
                                if tx.send(Letter::Watch { id, opened, event: Ok(event) }).await.is_err() {
                                    return;
                                }
                            }
                            Err(e) => {
                                error = Some(e);
                                break;
                            }
                        }
                    }
                }
            }
            drop(tx.send(Letter::Watch { id, opened, event: Err(error) }).await);
        });
        if let Some((_, old)) = self.watches.insert(id, (opened, task)) {
            old.abort();
        }
    }
}
