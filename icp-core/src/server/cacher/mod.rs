//! The watch cache: one storage watch a resource, shared by all its watchers.
//!
//! [`Cacher`] is the machine: a bounded log of recent changes that every watcher reads by its own revision, so that
//! a watcher costs a number and not a queue. [`Hub`] is its glue: it polls the storage watch on behalf of whichever
//! watcher is polled, and wakes the others.

mod hub;
mod machine;

pub use hub::{Hub, Subscription};
pub use machine::{Cacher, CacherConfig, Change, Effect, Event, Lost};
