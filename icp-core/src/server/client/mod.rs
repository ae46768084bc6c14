//! The [`Client`](crate::client::Client) port over HTTP messages: how requests are written and answers read, and
//! the client that calls an [`ApiServer`](super::ApiServer) in the same process.

mod direct;
mod in_process;
pub mod wire;

pub use in_process::InProcessClient;
