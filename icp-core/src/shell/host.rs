//! Runs a machine: time from the clock, API requests through a [`Client`], everything else by the caller.

use alloc::collections::BTreeMap;
use alloc::sync::Arc;
use alloc::vec::Vec;

use futures_util::StreamExt as _;
use futures_util::stream::FuturesUnordered;
use tokio::sync::{Semaphore, mpsc, watch};
use tokio::task::JoinHandle;

use super::clock::SystemClock;
use crate::base::Machine;
use crate::client::{ApiError, ApiRequest, Client, ClientEffect, ClientEvent, Reply, RequestId, WatchEvent};
use crate::server::Clock as _;

/// Most requests of one machine that are under way at once.
pub const REQUESTS_MAX: usize = 64;
/// Most letters that wait for one machine; who sends more waits. A letter is one event of [`Mailbox::send`], or up to
/// [`LETTER_EVENTS_MAX`] answers or events of a watch that were there at once.
pub const MAILBOX_MAX: usize = 1024;
/// Most answers or events of a watch in one letter.
pub const LETTER_EVENTS_MAX: usize = 32;

/// Most letters that are taken before deadlines and the end are looked at.
const LETTERS_AT_ONCE: usize = 16;

#[expect(
    clippy::large_enum_variant,
    reason = "the largest is the end of a watch, which is rare and small enough"
)]
enum Letter<E> {
    Event(E),
    Replies(Vec<(RequestId, Result<Reply, ApiError>)>),
    Watch { id: RequestId, opened: u64, events: Vec<WatchEvent> },
    WatchEnded { id: RequestId, opened: u64, error: Option<ApiError> },
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
            Letter::Replies(_) | Letter::Watch { .. } | Letter::WatchEnded { .. } => {
                unreachable!("only an event was sent")
            }
        })
    }
}

/// A machine, its client and its mailbox.
///
/// The host is a loop on one task: it takes what is there, or waits for the next event or deadline, calls the machine
/// with one event after the other, and performs the effects of each. Requests run beside it, at most [`REQUESTS_MAX`]
/// at once, in the order in which the machine asked; each watch is a task that ends with the host. After `CloseWatch`
/// no event of that watch reaches the machine.
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
    /// What the machine asked for since requests were last sent off.
    asked: Vec<(RequestId, ApiRequest)>,
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
            asked: Vec::new(),
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
        let mut handler = |effect| handler(effect, &mailbox);
        let (mut effects, mut letters) = (Vec::new(), Vec::new());
        let mut stop = self.stop.take();
        // A machine that starts itself does so at its first wake.
        self.machine.wake(self.clock.now(), &mut effects);
        self.perform(&mut effects, &mut handler);
        loop {
            self.send_requests();
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
                some = self.rx.recv_many(&mut letters, LETTERS_AT_ONCE) => {
                    if some == 0 {
                        return;
                    }
                }
                () = timer => {
                    self.machine.wake(self.clock.now(), &mut effects);
                    self.perform(&mut effects, &mut handler);
                }
            }
            for letter in letters.drain(..) {
                self.deliver(letter, &mut effects, &mut handler);
            }
        }
    }

    fn deliver(
        &mut self,
        letter: Letter<M::Event>,
        effects: &mut Vec<M::Effect>,
        handler: &mut impl FnMut(M::Effect) -> Option<ClientEffect>,
    ) {
        match letter {
            Letter::Event(event) => self.tell(event, effects, handler),
            Letter::Replies(replies) => {
                for (id, result) in replies {
                    self.tell(ClientEvent::Reply { id, result }.into(), effects, handler);
                }
            }
            Letter::Watch { id, opened, events } => {
                for event in events {
                    // What the machine made of one event may have closed the watch.
                    if self.is_open(id, opened) {
                        self.tell(ClientEvent::Watch { id, event }.into(), effects, handler);
                    }
                }
            }
            Letter::WatchEnded { id, opened, error } => {
                if self.is_open(id, opened) {
                    self.watches.remove(&id);
                    self.tell(ClientEvent::WatchClosed { id, error }.into(), effects, handler);
                }
            }
        }
    }

    fn is_open(&self, id: RequestId, opened: u64) -> bool {
        self.watches.get(&id).is_some_and(|(current, _)| *current == opened)
    }

    fn tell(
        &mut self,
        event: M::Event,
        effects: &mut Vec<M::Effect>,
        handler: &mut impl FnMut(M::Effect) -> Option<ClientEffect>,
    ) {
        let now = self.clock.now();
        self.machine.on(now, event, effects);
        // Deadlines are kept even when events never pause.
        if self.machine.deadline().is_some_and(|due| due <= now) {
            self.machine.wake(now, effects);
        }
        self.perform(effects, handler);
    }

    fn perform(
        &mut self,
        effects: &mut Vec<M::Effect>,
        handler: &mut impl FnMut(M::Effect) -> Option<ClientEffect>,
    ) {
        for effect in effects.drain(..) {
            match handler(effect) {
                Some(ClientEffect::Request { id, request }) => self.asked.push((id, request)),
                Some(ClientEffect::Watch { id, request }) => self.watch(id, request),
                Some(ClientEffect::CloseWatch { id }) => {
                    if let Some((_, task)) = self.watches.remove(&id) {
                        task.abort();
                    }
                }
                None => {}
            }
        }
    }

    /// Sends off what the machine asked for, several requests by one task: a client in the same process answers most
    /// of them at once, and their answers come in one letter.
    fn send_requests(&mut self) {
        let mut asked = self.asked.drain(..).peekable();
        while asked.peek().is_some() {
            let some: Vec<_> = asked.by_ref().take(LETTER_EVENTS_MAX).collect();
            let (client, tx, permits) = (self.client.clone(), self.tx.clone(), self.requests.clone());
            tokio::spawn(async move {
                let requests = some.into_iter().map(|(id, request)| {
                    let (client, permits) = (&client, &permits);
                    async move {
                        // The semaphore is never closed.
                        let _permit = permits.acquire().await;
                        (id, client.request(request).await)
                    }
                });
                let requests: FuturesUnordered<_> = requests.collect();
                let mut replies = requests.ready_chunks(LETTER_EVENTS_MAX);
                while let Some(replies) = replies.next().await {
                    if tx.send(Letter::Replies(replies)).await.is_err() {
                        return;
                    }
                }
            });
        }
    }

    fn watch(&mut self, id: RequestId, request: ApiRequest) {
        self.opened += 1;
        let (client, tx, opened) = (self.client.clone(), self.tx.clone(), self.opened);
        let task = tokio::spawn(async move {
            let mut error = None;
            match client.watch(request).await {
                Err(e) => error = Some(e),
                Ok(stream) => {
                    let mut chunks = stream.ready_chunks(LETTER_EVENTS_MAX);
                    while let (None, Some(chunk)) = (&error, chunks.next().await) {
                        let mut events = Vec::with_capacity(chunk.len());
                        for item in chunk {
                            match item {
                                Ok(event) => events.push(event),
                                Err(e) => {
                                    error = Some(e);
                                    break;
                                }
                            }
                        }
                        if !events.is_empty() && tx.send(Letter::Watch { id, opened, events }).await.is_err()
                        {
                            return;
                        }
                    }
                }
            }
            drop(tx.send(Letter::WatchEnded { id, opened, error }).await);
        });
        if let Some((_, old)) = self.watches.insert(id, (opened, task)) {
            old.abort();
        }
    }
}
