//! A thread that performs effects which may block, for a machine that runs on an async runtime.

use std::string::String;
use std::sync::mpsc;

use icp_core::shell::host::Mailbox;
use tokio::runtime::Handle;

use super::netlink::NetlinkError;

/// Hands effects to the thread. The thread ends when this is dropped.
pub(crate) struct Worker<E> {
    tx: mpsc::Sender<E>,
}

impl<F: Send + 'static> Worker<F> {
    /// Starts a thread, which is in the network namespace of the calling one, and opens a backend in it. `perform` does
    /// what an effect says and returns what the machine is to be told.
    pub(crate) async fn start<B, E: Send + 'static>(
        mailbox: Mailbox<E>,
        open: impl FnOnce() -> Result<B, NetlinkError> + Send + 'static,
        mut perform: impl FnMut(&mut B, &F) -> Option<E> + Send + 'static,
    ) -> Result<Self, NetlinkError> {
        let (tx, rx) = mpsc::channel::<F>();
        let (opened_tx, opened) = tokio::sync::oneshot::channel();
        let runtime = Handle::current();
        let started = std::thread::Builder::new().name(String::from("icp-kernel")).spawn(move || {
            let mut backend = match open() {
                Ok(backend) => backend,
                Err(e) => return drop(opened_tx.send(Err(e))),
            };
            drop(opened_tx.send(Ok(())));
            while let Ok(effect) = rx.recv() {
                if let Some(event) = perform(&mut backend, &effect)
                    && !runtime.block_on(mailbox.send(event))
                {
                    return;
                }
            }
        });
        let failed = || NetlinkError::Missing { object: "the thread that works on the kernel".into() };
        started.map_err(|_| failed())?;
        opened.await.map_err(|_| failed())??;
        Ok(Self { tx })
    }

    /// Hands over an effect. Machines wait for the answer before they ask for more, so that few are under way.
    pub(crate) fn perform(&self, effect: F) {
        // The thread lives as long as this sender, unless the machine is gone, too.
        let _ = self.tx.send(effect);
    }
}
