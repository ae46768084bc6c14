//! The node agent (kubelet) as machines: one serial machine per pod, behind one runtime port.
//!
//! | module | what |
//! |---|---|
//! | [`runtime`] | the port to what runs containers: calls and events as data, streams for `kubectl logs` and `exec` |
//! | [`backend`] | runtimes behind the port |
#![no_std]
extern crate alloc;
#[cfg(feature = "std")]
extern crate std;

pub mod backend;
pub mod runtime;
