//! What touches the world: the clock, the runtime, sockets, TLS and certificates.
#![expect(clippy::disallowed_methods, reason = "shells own the clock, the runtime and its tasks")]

pub mod clock;
pub mod host;
