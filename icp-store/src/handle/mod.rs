//! Handles: the port [`icp_core::storage::Storage`] around a [`Store`](crate::Store).

mod memory;
mod shared;

pub use memory::Memory;
