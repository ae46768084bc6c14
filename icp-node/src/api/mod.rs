//! The node's HTTP API (kubelet, port 10250): logs, exec, attach, port-forward, and a few figures.
//!
//! [`NodeApi`] answers requests over the ports [`NodeView`](view::NodeView) (the agent) and
//! [`Runtime`](crate::runtime::Runtime) (the containers), whatever the transport: [`Guard`] puts it behind
//! [`icp_core::shell::listener::serve`] with client certificates, and a simulated node calls it in process. Streams
//! run over WebSocket: [`websocket`] and [`channel`] are codecs without I/O, [`spdy`] is what `port-forward` tunnels.
//!
//! Not served, with a clear refusal: SPDY upgrades (the protocol before KEP-4006).
//!
//! ```no_run
//! # use std::sync::Arc;
//! use icp_core::shell::listener::{Limits, serve};
//! use icp_node::api::{Guard, NodeApi};
//! # async fn example(
//! #     agent: icp_node::shell::AgentHandle, runtime: Arc<dyn icp_node::runtime::Runtime>,
//! #     identity: &icp_core::shell::pki::Identity, ca_pem: &str, stop: tokio::sync::watch::Receiver<bool>,
//! # ) -> Result<(), Box<dyn std::error::Error>> {
//! let api = NodeApi::new(Arc::new(agent), runtime);
//! let socket = tokio::net::TcpListener::bind("127.0.0.1:10250").await?;
//! let tls = icp_core::shell::tls::server(identity, Some(ca_pem))?;
//! serve(socket, Guard::new(api), Some(tls), Limits::default(), stop).await?;
//! # Ok(())
//! # }
//! ```

pub mod channel;
mod guard;
pub mod metrics;
mod node_api;
mod port_forward;
mod request;
mod session;
mod socket;
pub mod spdy;
pub mod view;
pub mod websocket;

pub use guard::Guard;
pub use node_api::NodeApi;
pub use request::{Route, Target, exec_request, log_options};
