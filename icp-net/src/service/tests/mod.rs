//! The machine in memory, and its tables in a kernel.

mod fixture;
#[cfg(feature = "netlink")]
mod kernel;
mod machine;
