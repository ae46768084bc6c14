//! The cluster's zone: what each name has, as one immutable value that is cheap to change into the next.

mod answer;
mod build;
mod entry;
mod lookup;
mod sharded;
mod snapshot;

pub use answer::{Forwarded, Note, Outcome, Source, Transport, answer};
pub(crate) use build::{Reverse, build};
pub(crate) use entry::Entry;
pub use snapshot::Snapshot;
