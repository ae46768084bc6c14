//! Handles: the port [`icp_core::storage::Storage`] around a [`Store`](crate::Store).

mod clock;
mod committer;
mod disk;
mod memory;
mod queue;
mod shared;

#[cfg(test)]
mod tests;

pub use disk::{Disk, DiskOptions, DiskStats};
pub use memory::Memory;
