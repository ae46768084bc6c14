//! Shared parts of the examples: the reference daemons, the cluster that they make, and its certificates.

pub mod cluster;
pub mod daemon;
pub mod pki;
