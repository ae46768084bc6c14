//! An embeddable etcd: MVCC, watches, leases and a durable log.
//!
//! The logic is one pure machine, [`Store`]: requests and the time go in, answers, log entries and watch batches come
//! out. It knows no clock, socket, file, thread or runtime. What stands behind the port
//! [`icp_core::storage::Storage`] is a handle around it:
//!
//! | handle | where the data is | feature |
//! |---|---|---|
//! | `Memory` | this process | `std` |
//! | `Disk` | a checksummed, group-committed log | `std` |
//! | `etcd::Client` | an etcd server, real or `etcd::server` | `etcd` |
//! | `etcd::foreign::Client` | the same, through the crate `etcd-client` | `etcd-client` |
//!
//! ```
//! use icp_core::base::Time;
//! use icp_core::storage::{KeyRange, Op, PutRequest, RangeRequest, Txn};
//! use icp_store::{Config, Store};
//!
//! let mut store = Store::new(Config::default());
//! let put = Op::Put(PutRequest::new("/registry/pods/default/web", "{}"));
//! let written = store.txn(Time::ZERO, &Txn { success: vec![put], ..Txn::default() })?;
//! store.publish_all();
//! let pods = store.range(&RangeRequest::new(KeyRange::prefix("/registry/pods/")))?;
//! assert_eq!((written.revision, pods.revision, pods.count), (2, 2, 1));
//! # Ok::<(), icp_core::storage::StorageError>(())
//! ```
#![no_std]
extern crate alloc;
#[cfg(feature = "std")]
extern crate std;

pub mod lease;
#[cfg(feature = "std")]
pub mod log;
pub mod mvcc;
pub mod store;
pub mod watch;

#[cfg(feature = "etcd")]
pub mod etcd;
#[cfg(feature = "std")]
pub mod handle;

pub use store::{Config, Entry, Store};

#[cfg(feature = "std")]
pub use handle::{Disk, DiskOptions, Memory};
