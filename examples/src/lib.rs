//! Shared parts of the examples: the reference daemons, the cluster that they make, its certificates, and the machines
//! that they run on.

pub mod cluster;
pub mod daemon;
#[cfg(target_os = "linux")]
pub mod lab;
pub mod oracle;
pub mod pki;
pub mod sched_replay;
pub mod simulate;
pub mod store_vs_etcd;
pub mod tool;
pub mod trace;
