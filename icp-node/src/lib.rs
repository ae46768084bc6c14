//! The node agent (kubelet) as machines: one serial machine per pod, behind one runtime port.
//!
//! | module | what |
//! |---|---|
//! | [`runtime`] | the port to what runs containers: calls and events as data, streams for `kubectl logs` and `exec` |
//! | [`agent`] | the machine of one node: registration, Lease, statuses, what pods refer to |
//! | [`pod`] | the machine of one pod: from its object to calls of the runtime and a status |
//! | [`probe`] | when to probe, and what a row of answers means |
//! | [`resolve`] | environments, generated files, resolver configuration, users |
//! | [`volume`] | what is in a pod's volumes |
//! | [`status`] | what a pod's status says |
//! | [`backend`] | runtimes behind the port |
#![no_std]
extern crate alloc;
#[cfg(feature = "std")]
extern crate std;

pub mod agent;
#[cfg(feature = "api")]
pub mod api;
pub mod backend;
pub mod pod;
pub mod probe;
pub mod resolve;
pub mod runtime;
#[cfg(feature = "shell")]
pub mod shell;
pub mod status;
pub mod volume;
