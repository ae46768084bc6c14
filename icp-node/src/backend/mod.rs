//! Runtimes behind the port [`crate::runtime::Runtime`].

pub mod memory;
