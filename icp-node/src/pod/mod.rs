//! One serial machine per pod.
//!
//! [`PodMachine`] takes a pod's object, what its calls came to, and what its containers do, and decides what is
//! to be done next: volumes, sandbox, init containers in order, sidecars, containers, hooks, probes, restarts with
//! back-off, and the orderly end. It never has two live attempts of one container, whatever the order in which
//! the runtime's answers and events come.

mod desired;
mod effect;
mod event;
mod machine;
mod plan;
mod slot;
pub(crate) mod spec;
#[cfg(test)]
mod tests;

pub(crate) use desired::seconds;
pub use desired::{
    Condition, Deletion, Pod, PodDecodeError, PodRef, Remembered, RememberedContainer, RememberedEnd,
    RememberedState,
};
pub use effect::{PodEffect, PodNotice};
pub use event::PodEvent;
pub use machine::PodMachine;
pub(crate) use slot::{Ended, Run, Slot};
pub use spec::*;
