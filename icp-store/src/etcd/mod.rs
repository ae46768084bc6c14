//! The etcd v3 API over gRPC: a server for any [`Storage`](icp_core::storage::Storage) and a client that is one.
//!
//! gRPC is framed over hyper's HTTP/2 directly; the messages are in [`proto`]. Served are KV, Watch, Lease, Maintenance,
//! Cluster with one member, and Auth as etcd answers without users: authentication is by TLS client certificates alone.
//! Beside gRPC there are `/health`, `/version` and `/metrics`. [`snapshot`] moves data to a real etcd and back.
//!
//! ```
//! # tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap().block_on(async {
//! use std::sync::Arc;
//! use icp_core::storage::{KeyRange, Op, PutRequest, RangeRequest, Storage, Txn};
//! use icp_store::{Memory, etcd};
//!
//! let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
//! let url = format!("http://{}", listener.local_addr().unwrap());
//! let server = etcd::server::serve(listener, Arc::new(Memory::new()), etcd::server::ServerOptions::default());
//! let server = tokio::spawn(server);
//!
//! let client = etcd::Client::new(&[&url], etcd::ClientOptions::default())?;
//! let put = Txn { success: vec![Op::Put(PutRequest::new("k", "v"))], ..Txn::default() };
//! assert_eq!(client.txn(put).await?.revision, 2);
//! assert_eq!(client.range(RangeRequest::new(KeyRange::key("k"))).await?.kvs[0].value, "v");
//! server.abort();
//! # Ok::<(), icp_core::storage::StorageError>(()) }).unwrap();
//! ```

pub mod bolt;
pub mod client;
mod convert;
#[cfg(feature = "etcd-client")]
pub mod foreign;
mod grpc;
pub mod proto;
mod resume;
mod rewatch;
pub mod server;
pub mod snapshot;
mod timed;

#[cfg(test)]
mod tests;

pub use client::{Client, ClientOptions};
pub use timed::{SyncTimes, TimedFile, TimedFiles};
