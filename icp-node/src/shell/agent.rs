//! Runs the agent of one node over a runtime and a client.

use alloc::string::{String, ToString};
use alloc::sync::Arc;
use alloc::vec::Vec;

use futures_util::StreamExt as _;
use icp_core::base::Duration;
use icp_core::client::{Client, ClientEffect};
use icp_core::shell::host::Host;
use tokio::sync::{Semaphore, watch};

use super::ask::{Asked, Handle};
use crate::agent::{Kubelet, KubeletEffect, KubeletEvent, NodeCondition};
use crate::runtime::{Runtime, RuntimeCall, RuntimeError, RuntimeEvent, RuntimeOp};

/// Most calls of each kind that the runtime has to do at once: what waits for a registry or for a probe holds up
/// nothing else.
const PULLS_MAX: usize = 4;
const PROBES_MAX: usize = 64;
const CALLS_MAX: usize = 32;
/// Between tries to follow the runtime's events.
const RETRY: Duration = Duration::from_secs(1);

/// The way to a running agent: sends it events and reads its pods.
pub type AgentHandle = Handle<Kubelet>;

/// The agent of a node, ready to run.
///
/// ```no_run
/// # use std::sync::Arc;
/// use icp_node::agent::{Kubelet, KubeletConfig};
/// use icp_node::shell::Agent;
/// # async fn example(
/// #     runtime: Arc<dyn icp_node::runtime::Runtime>, client: Arc<dyn icp_core::client::Client>,
/// #     stop: tokio::sync::watch::Receiver<bool>,
/// # ) {
/// let kubelet = Kubelet::new(KubeletConfig::new("n1", "192.168.0.1".parse().unwrap()));
/// let agent = Agent::new(kubelet, runtime, client, stop);
/// let handle = agent.handle();
/// tokio::spawn(agent.run());
/// let pods = handle.ask(|_now, kubelet, _out| kubelet.pods().count()).await;
/// # }
/// ```
pub struct Agent {
    host: Host<Asked<Kubelet>>,
    runtime: Arc<dyn Runtime>,
}

impl core::fmt::Debug for Agent {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        f.debug_struct("Agent").field("host", &self.host).finish_non_exhaustive()
    }
}

#[derive(Clone)]
struct Limits {
    pulls: Arc<Semaphore>,
    probes: Arc<Semaphore>,
    calls: Arc<Semaphore>,
}

impl Limits {
    fn of(&self, op: &RuntimeOp) -> Arc<Semaphore> {
        match op {
            RuntimeOp::EnsureImage { .. } => self.pulls.clone(),
            RuntimeOp::Exec { .. }
            | RuntimeOp::HttpGet(_)
            | RuntimeOp::TcpConnect { .. }
            | RuntimeOp::GrpcHealth { .. } => self.probes.clone(),
            _ => self.calls.clone(),
        }
    }
}

impl Agent {
    /// An agent that runs until the value of `stop` becomes true or its sender is dropped. Its containers run on.
    #[must_use]
    pub fn new(
        kubelet: Kubelet,
        runtime: Arc<dyn Runtime>,
        client: Arc<dyn Client>,
        stop: watch::Receiver<bool>,
    ) -> Self {
        let host = Host::new(Asked(kubelet), client).stop_when(stop);
        Self { host, runtime }
    }

    /// A way to the agent, for its HTTP API and for conditions that others find.
    #[must_use]
    pub fn handle(&self) -> AgentHandle {
        Handle::new(self.host.mailbox())
    }

    /// Runs it.
    pub async fn run(self) {
        let handle = self.handle();
        let Self { host, runtime } = self;
        // Subscribed before the first look at what runs, so that no exit falls in between.
        let events = runtime.events();
        let follow = tokio::spawn(follow(runtime.clone(), events, handle.clone()));
        let limits = Limits {
            pulls: Arc::new(Semaphore::new(PULLS_MAX)),
            probes: Arc::new(Semaphore::new(PROBES_MAX)),
            calls: Arc::new(Semaphore::new(CALLS_MAX)),
        };
        let serve = host.run(move |effect, _mailbox| match effect {
            KubeletEffect::Client(effect) => Some::<ClientEffect>(effect),
            KubeletEffect::Runtime(call) => {
                tokio::spawn(perform(runtime.clone(), call, limits.clone(), handle.clone()));
                None
            }
        });
        serve.await;
        follow.abort();
    }
}

/// Runs the agent of a node until the value of `stop` becomes true or its sender is dropped.
pub async fn run_agent(
    kubelet: Kubelet,
    runtime: Arc<dyn Runtime>,
    client: Arc<dyn Client>,
    stop: watch::Receiver<bool>,
) {
    Agent::new(kubelet, runtime, client, stop).run().await;
}

/// Does one call and reports it. A call that breaks the runtime counts as failed: the machine waits for an answer.
async fn perform(runtime: Arc<dyn Runtime>, call: RuntimeCall, limits: Limits, agent: AgentHandle) {
    let (id, pod) = (call.id, call.pod.clone());
    let Ok(_permit) = limits.of(&call.op).acquire_owned().await else { return };
    let done = tokio::spawn(async move { runtime.perform(call).await });
    let result = done.await.unwrap_or_else(|e| Err(RuntimeError::Unavailable { message: e.to_string() }));
    agent.send(RuntimeEvent::Done { call: id, pod, result }.into()).await;
}

fn ready(holds: bool) -> KubeletEvent {
    let (reason, message): (&str, String) = if holds {
        ("KubeletReady", "kubelet is posting ready status".into())
    } else {
        ("KubeletNotReady", "container runtime is down: it tells no events".into())
    };
    let reason = reason.into();
    KubeletEvent::Condition(NodeCondition { kind: "Ready".into(), holds, reason, message })
}

/// Tells the agent what happens in the runtime. While the runtime tells nothing, the node is not ready.
async fn follow(runtime: Arc<dyn Runtime>, mut events: crate::runtime::RuntimeEvents, agent: AgentHandle) {
    loop {
        while let Some(event) = events.next().await {
            if !agent.send(event.into()).await {
                return;
            }
        }
        if !agent.send(ready(false)).await {
            return;
        }
        let mut early: Vec<RuntimeEvent> = Vec::new();
        loop {
            tokio::time::sleep(RETRY).await;
            events = runtime.events();
            // A stream that ends at once is no stream.
            match tokio::time::timeout(RETRY, events.next()).await {
                Ok(None) => {}
                Ok(Some(event)) => {
                    early.push(event);
                    break;
                }
                Err(_) => break,
            }
        }
        if !agent.send(ready(true)).await {
            return;
        }
        for event in early {
            agent.send(event.into()).await;
        }
    }
}
