//! A simulated runtime behind the async port, on the system's clock.

use alloc::boxed::Box;
use alloc::collections::BTreeMap;
use alloc::sync::{Arc, Weak};
use alloc::vec::Vec;
use std::sync::{Mutex, MutexGuard, PoisonError};

use async_trait::async_trait;
use icp_core::base::Machine as _;
use icp_core::server::Clock as _;
use icp_core::shell::SystemClock;
use tokio::sync::{Notify, mpsc, oneshot};

use super::sim_streams::{Look, LookAt, SimStreams};
use crate::backend::memory::{MemoryEvent, MemoryRuntime};
use crate::runtime::{
    ByteStream, CallId, Duplex, ExecRequest, ExecSession, LogOptions, Outcome, PodUid, Runtime, RuntimeCall,
    RuntimeError, RuntimeEvent, RuntimeEvents,
};

/// Events that wait for a reader; who is so far behind is cut off.
const EVENTS_MAX: usize = 4_096;

struct State {
    machine: MemoryRuntime,
    waiting: BTreeMap<CallId, oneshot::Sender<Result<Outcome, RuntimeError>>>,
    readers: Vec<mpsc::Sender<RuntimeEvent>>,
    out: Vec<RuntimeEvent>,
}

struct Inner {
    state: Mutex<State>,
    changed: Notify,
}

/// A [`MemoryRuntime`] as a [`Runtime`]: cheap to clone. Its clock runs as long as one of them lives.
///
/// ```
/// use icp_node::backend::memory::{MemoryRuntime, SimRules};
/// use icp_node::runtime::{CallId, Outcome, PodUid, Runtime as _, RuntimeCall, RuntimeOp};
/// use icp_node::shell::SimRuntime;
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() {
/// let runtime = SimRuntime::new(MemoryRuntime::new(SimRules::default(), "10.1.0.0/24".parse().unwrap()));
/// let call = RuntimeCall { id: CallId(1), pod: PodUid::from(""), generation: 0, op: RuntimeOp::Relist };
/// assert_eq!(runtime.perform(call).await, Ok(Outcome::Listed(Vec::new())));
/// # }
/// ```
#[derive(Clone)]
pub struct SimRuntime {
    inner: Arc<Inner>,
    streams: SimStreams,
}

impl core::fmt::Debug for SimRuntime {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        f.debug_struct("SimRuntime").field("running", &self.inner.lock().machine.running()).finish()
    }
}

impl Inner {
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn on(&self, event: MemoryEvent) {
        let mut state = self.lock();
        let State { machine, out, .. } = &mut *state;
        machine.on(SystemClock.now(), event, out);
        state.tell();
        drop(state);
        self.changed.notify_one();
    }
}

impl State {
    fn tell(&mut self) {
        for event in self.out.drain(..) {
            match event {
                RuntimeEvent::Done { call, result, .. } => {
                    if let Some(caller) = self.waiting.remove(&call) {
                        // Who called may have gone.
                        let _ = caller.send(result);
                    }
                }
                event => self.readers.retain(|reader| reader.try_send(event.clone()).is_ok()),
            }
        }
    }
}

#[async_trait]
impl LookAt for Inner {
    async fn look(&self, look: Look) {
        look(SystemClock.now(), Some(&self.lock().machine));
    }
}

/// Wakes the machine when it is due, until nobody holds it.
async fn drive(inner: Weak<Inner>) {
    loop {
        let Some(strong) = inner.upgrade() else { return };
        let due = strong.lock().machine.deadline();
        // The longest wait, so that a machine that nobody holds is given up.
        let due = due.unwrap_or(SystemClock.now() + core::time::Duration::from_secs(1));
        tokio::select! {
            () = SystemClock.sleep_until(due) => {}
            () = strong.changed.notified() => continue,
        }
        let mut state = strong.lock();
        let State { machine, out, .. } = &mut *state;
        machine.wake(SystemClock.now(), out);
        state.tell();
    }
}

impl SimRuntime {
    /// Runs a machine on the tokio runtime that this is called in.
    #[must_use]
    pub fn new(machine: MemoryRuntime) -> Self {
        let state = State { machine, waiting: BTreeMap::new(), readers: Vec::new(), out: Vec::new() };
        let inner = Arc::new(Inner { state: Mutex::new(state), changed: Notify::new() });
        tokio::spawn(drive(Arc::downgrade(&inner)));
        let streams = SimStreams(inner.clone());
        Self { inner, streams }
    }

    /// Does something to the runtime: an exit, a lost sandbox, a reboot.
    pub fn disturb(&self, event: MemoryEvent) {
        if event == MemoryEvent::Reboot {
            // Calls under way are lost with the machine.
            self.inner.lock().waiting.clear();
        }
        self.inner.on(event);
    }
}

#[async_trait]
impl Runtime for SimRuntime {
    async fn perform(&self, call: RuntimeCall) -> Result<Outcome, RuntimeError> {
        let (tx, rx) = oneshot::channel();
        self.inner.lock().waiting.insert(call.id, tx);
        self.inner.on(MemoryEvent::Call(call));
        let message = "the simulated machine restarted".into();
        rx.await.unwrap_or(Err(RuntimeError::Unavailable { message }))
    }

    fn events(&self) -> RuntimeEvents {
        let (tx, rx) = mpsc::channel(EVENTS_MAX);
        self.inner.lock().readers.push(tx);
        Box::pin(futures_util::stream::unfold(rx, |mut rx| async {
            let event = rx.recv().await?;
            Some((event, rx))
        }))
    }

    async fn logs(
        &self,
        pod: &PodUid,
        container: &str,
        options: LogOptions,
    ) -> Result<ByteStream, RuntimeError> {
        self.streams.logs(pod, container, options).await
    }

    async fn exec(
        &self,
        pod: &PodUid,
        container: &str,
        request: ExecRequest,
    ) -> Result<ExecSession, RuntimeError> {
        self.streams.exec(pod, container, request).await
    }

    async fn attach(
        &self,
        pod: &PodUid,
        container: &str,
        request: ExecRequest,
    ) -> Result<ExecSession, RuntimeError> {
        self.streams.attach(pod, container, request).await
    }

    async fn port_forward(&self, pod: &PodUid, port: u16) -> Result<Duplex, RuntimeError> {
        self.streams.port_forward(pod, port).await
    }
}
