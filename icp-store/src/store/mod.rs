//! The store as one pure machine: keys, watches and leases.
//!
//! [`Store`] has a method for each request, for handles that call it; and it is an [`icp_core::base::Machine`] for hosts
//! that speak in events and effects. What a write changes is queued as [`Entry`]s for a log; watchers and reads of
//! the newest state see a write only after [`Store::publish`], which a durable handle calls after the log's sync.
//!
//! ```
//! use icp_core::base::{Machine, Time};
//! use icp_core::storage::{KeyRange, Op, PutRequest, Txn, WatchRequest};
//! use icp_store::store::{Answer, Config, Effect, Event, Request, Store};
//!
//! let (mut store, mut out) = (Store::new(Config::default()), Vec::new());
//! let put = Txn { success: vec![Op::Put(PutRequest::new("k", "v"))], ..Txn::default() };
//! store.on(Time::ZERO, Event::Request { id: 1, request: Request::Txn(put) }, &mut out);
//! assert!(matches!(&out[..], [Effect::Append { .. }, Effect::Answer { id: 1, answer: Ok(Answer::Txn(_)), .. }]));
//! ```

mod alarm;
mod config;
mod copy;
mod effect;
mod entry;
mod event;
mod machine;
mod view;

#[cfg(test)]
mod copy_tests;
#[cfg(test)]
mod model;
#[cfg(test)]
mod tests;

pub use config::Config;
pub use copy::SnapshotHead;
pub use effect::{Answer, Effect};
pub use entry::Entry;
pub use event::{Event, Request};
pub use machine::Store;
pub use view::{HashView, StoreView, ViewHead};
