//! The sockets of cluster DNS.
//!
//! Each UDP socket is a task that answers from the current snapshot without a lock; a client over TCP is a task too.
//! One more task owns the [`ForwardMachine`](crate::dns::forward::ForwardMachine) and its exchanges.

mod cell;
mod exchange;
mod forward;
mod server;
mod tcp;
#[cfg(test)]
mod tests;
mod udp;

pub use cell::{SnapshotCell, SnapshotReader};
pub use server::{DnsServer, Limits, serve};
