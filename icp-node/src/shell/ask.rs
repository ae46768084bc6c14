//! Questions to a machine that a host runs.

use alloc::boxed::Box;
use alloc::vec::Vec;

use icp_core::base::{Machine, Time};
use icp_core::client::ClientEvent;
use icp_core::shell::host::Mailbox;
use tokio::sync::oneshot;

/// Looks at a machine between two of its events.
type Question<M> = Box<dyn FnOnce(Time, &mut M, &mut Vec<<M as Machine>::Effect>) + Send>;

/// What happens to a machine that can be asked.
pub enum AskEvent<M: Machine> {
    /// An event of its own.
    Event(M::Event),
    /// A question.
    Ask(Question<M>),
}

impl<M: Machine> core::fmt::Debug for AskEvent<M>
where
    M::Event: core::fmt::Debug,
{
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        match self {
            Self::Event(event) => f.debug_tuple("Event").field(event).finish(),
            Self::Ask(_) => f.write_str("Ask"),
        }
    }
}

impl<M: Machine> From<ClientEvent> for AskEvent<M>
where
    M::Event: From<ClientEvent>,
{
    fn from(event: ClientEvent) -> Self {
        Self::Event(event.into())
    }
}

/// A machine that can be asked while a host runs it: it is the machine itself, but for the questions.
#[derive(Clone, Debug)]
pub struct Asked<M>(pub M);

impl<M: Machine> Machine for Asked<M> {
    type Event = AskEvent<M>;
    type Effect = M::Effect;

    fn on(&mut self, now: Time, event: AskEvent<M>, out: &mut Vec<M::Effect>) {
        match event {
            AskEvent::Event(event) => self.0.on(now, event, out),
            AskEvent::Ask(question) => question(now, &mut self.0, out),
        }
    }

    fn wake(&mut self, now: Time, out: &mut Vec<M::Effect>) {
        self.0.wake(now, out);
    }

    fn deadline(&self) -> Option<Time> {
        self.0.deadline()
    }
}

/// The way to a machine that can be asked.
pub struct Handle<M: Machine>(Mailbox<AskEvent<M>>);

impl<M: Machine> Clone for Handle<M> {
    fn clone(&self) -> Self {
        Self(self.0.clone())
    }
}

impl<M: Machine> core::fmt::Debug for Handle<M> {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        f.debug_tuple("Handle").field(&self.0).finish()
    }
}

impl<M: Machine + 'static> Handle<M> {
    /// A handle of the mailbox of a host.
    #[must_use]
    pub const fn new(mailbox: Mailbox<AskEvent<M>>) -> Self {
        Self(mailbox)
    }

    /// Sends an event; false if the machine runs no more.
    pub async fn send(&self, event: M::Event) -> bool {
        self.0.send(AskEvent::Event(event)).await
    }

    /// Asks a question and waits for the answer; `None` if the machine runs no more. The question may change the
    /// machine, and adds to its effects then.
    pub async fn ask<T: Send + 'static>(
        &self,
        question: impl FnOnce(Time, &mut M, &mut Vec<M::Effect>) -> T + Send + 'static,
    ) -> Option<T> {
        let (tx, rx) = oneshot::channel();
        let question: Question<M> = Box::new(move |now, machine, out| {
            // Who asked may have gone.
            let _ = tx.send(question(now, machine, out));
        });
        self.0.send(AskEvent::Ask(question)).await;
        rx.await.ok()
    }
}
