//! The API server: a `tower::Service` over a [`Storage`](crate::storage::Storage).
//!
//! A request is a conversation: an `async fn` over the ports ([`Storage`](crate::storage::Storage), [`Clock`],
//! [`NodeProxy`]) that sequences pure plans. The watch cache is a machine ([`cacher`]). Nothing here knows a
//! runtime: who polls the response future and the response body drives the server, and each body of a watch drives
//! the one storage watch of its resource.
//!
//! ```
//! use std::sync::Arc;
//! use icp_core::base::{Rng, Time};
//! use icp_core::server::{ApiServer, FixedClock};
//! # fn example(storage: Arc<dyn icp_core::storage::Storage>) {
//! let server = ApiServer::builder(storage).clock(FixedClock(Time::ZERO)).rng(Rng::new(7)).build();
//! // `kube::Client::new(server.clone(), "default")` works on it, as does `InProcessClient::new(server)`.
//! # }
//! ```

mod admission;
mod allocate;
mod api_server;
mod authn;
mod authz;
mod bind;
mod body;
mod bootstrap;
mod config;
mod context;
mod custom;
mod delete;
mod eviction;
mod input;
mod nodes;
mod nonresource;
mod options;
mod plan;
mod ports;
mod read;
mod request;
mod reviews;
mod route;
mod store;
mod subresource;
mod version;
mod watch;
mod write;

pub mod auth;
pub mod cacher;
pub mod client;
pub mod codec;
pub mod failure;
pub mod negotiate;

pub use api_server::{ApiServer, Builder, ResponseFuture};
pub use auth::UserInfo;
pub use authn::AuthnMode;
pub use body::{Body, Chunks};
pub use client::InProcessClient;
pub use config::Options;
pub use ports::{Clock, FixedClock, NoNodes, NodeProxy, ProxyTarget};
pub use request::{Query, RequestInfo, percent_decode};
