//! The heart of icp: a Kubernetes cluster taken apart into machines.
//!
//! A *machine* takes an event and the current time, changes its own state, and appends effects (data) to a
//! buffer the caller owns ([`base::Machine`]). A *conversation* is an `async fn` over ports alone that sequences
//! pure plans; the API server is one. Nothing in this crate's default build knows a socket, a file, a thread, a
//! clock, a random source or a runtime; the features `std`, `server` and `shell` add the parts that do.
//!
//! | module | what |
//! |---|---|
//! | [`base`] | time, seeded generators, machines and effects, backoff, timing wheel, limits |
//! | [`api`] | the Kubernetes object model: resources, metadata, selectors, quantities, patches, tables |
//! | [`storage`] | the port to an etcd-shaped store |
//! | [`client`] | the port to an API server, informers and work queues |
//! | `sim` | the deterministic simulator (feature `sim`) |
#![no_std]
extern crate alloc;
#[cfg(feature = "std")]
extern crate std;

pub mod api;
pub mod base;
pub mod client;
pub mod controllers;
pub mod storage;

#[cfg(feature = "server")]
pub mod server;
#[cfg(feature = "shell")]
pub mod shell;
#[cfg(feature = "sim")]
pub mod sim;
