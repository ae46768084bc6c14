//! A simulated runtime, and simulated nodes with the full node logic.
//!
//! [`MemoryRuntime`] is a machine: it takes [`RuntimeCall`]s and gives [`RuntimeEvent`]s, in virtual time.
//! [`SimNode`] joins it with a [`Kubelet`]; [`Fleet`] joins thousands of those behind one client, so that a
//! cluster of simulated nodes lives in one process: same pod machines, probes, back-offs, Leases and statuses as a
//! real node, no processes.
//!
//! What a container does is told by its pod's annotations, by its command, or by [`SimRules`]:
//!
//! | annotation (or `NAME.` before the last part for one container) | meaning |
//! |---|---|
//! | `sim.icp/run-for` | seconds until it ends; without it, a container runs until it is stopped |
//! | `sim.icp/exit-code` | the code it ends with (0) |
//! | `sim.icp/oom` | `true`: it ends for want of memory |
//! | `sim.icp/log` | the text of its log |
//! | `sim.icp/fail` | which of `exec`, `http`, `tcp`, `grpc`, `start`, `sandbox` fail, separated by commas |
//!
//! Of commands, `echo`, `sleep`, `true`, `false`, `cat` and a few more are understood, and scripts of `sh -c` made of
//! them with `&&`, `||`, `for` and `while true`; what they write is the container's log. Behind any other command no
//! process runs, and the log says so. An init container that says nothing ends well at once. [`SimProcess`] is what
//! `kubectl exec` starts: the same few commands, and a shell that reads them.
//!
//! ```
//! use icp_core::base::{Machine, Time, drive};
//! use icp_node::backend::memory::{MemoryEvent, MemoryRuntime, SimRules};
//! use icp_node::runtime::{CallId, Outcome, PodUid, RuntimeCall, RuntimeEvent, RuntimeOp};
//! let mut runtime = MemoryRuntime::new(SimRules::default(), "10.1.0.0/24".parse().unwrap());
//! let mut out = Vec::new();
//! let op = RuntimeOp::Relist;
//! let call = RuntimeCall { id: CallId(1), pod: PodUid::from(""), generation: 0, op };
//! runtime.on(Time::ZERO, MemoryEvent::Call(call), &mut out);
//! drive(&mut runtime, Time::from_secs(1), 10, &mut out);
//! assert!(matches!(&out[0], RuntimeEvent::Done { result: Ok(Outcome::Listed(pods)), .. } if pods.is_empty()));
//! ```
//!
//! [`Kubelet`]: crate::agent::Kubelet
//! [`RuntimeCall`]: crate::runtime::RuntimeCall
//! [`RuntimeEvent`]: crate::runtime::RuntimeEvent

mod behaviour;
mod fleet;
mod log;
mod machine;
mod node;
mod process;
mod script;
#[cfg(test)]
mod tests;

pub use behaviour::{Behaviour, SimRules};
pub use fleet::{Fleet, FleetEvent};
pub use log::{LogCursor, LogPage};
pub use machine::{MemoryEvent, MemoryRuntime};
pub use node::SimNode;
pub use process::{LineEvent, LineInput, Program, SimProcess};
pub use script::{End, Run, Stream, Write};
