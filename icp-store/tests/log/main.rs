//! The log: what a disk can do to it, what a directory can hold, and the bytes of its format.
#![cfg(feature = "std")]
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::disallowed_methods,
    unreachable_pub,
    reason = "test code, which starts processes and reads its environment"
)]

#[path = "../peer/mod.rs"]
mod peer;

mod corpus;
mod damage;
mod directory;
mod faults;
mod properties;
mod workload;
