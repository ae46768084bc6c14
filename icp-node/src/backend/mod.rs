//! Runtimes behind the port [`crate::runtime::Runtime`].

pub mod memory;
#[cfg(feature = "native")]
pub mod native;
