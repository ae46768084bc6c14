//! What touches the world: the clock, the runtime, sockets, TLS and certificates.
//!
//! [`host::Host`] runs a machine over a [`Client`](crate::client::Client); [`listener::serve`] puts an
//! [`ApiServer`](crate::server::ApiServer) on a socket; [`http_client::HttpClient`] is the client on the other side;
//! [`node_proxy::HttpNodeProxy`] goes on to kubelets and pods; [`post`] calls webhooks;
//! [`pki`] makes the certificates of all.
#![expect(clippy::disallowed_methods, reason = "shells own the clock, the runtime and its tasks")]

pub mod clock;
pub mod host;
pub mod http_client;
pub mod listener;
pub mod node_proxy;
pub mod pki;
pub mod post;
pub mod tls;

pub use clock::{SystemClock, SystemEntropy};
pub use http_client::{HttpClient, HttpConfig};
