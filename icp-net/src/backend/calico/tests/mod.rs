//! Pods on machines, all of them network namespaces.

mod api;
mod cluster;
mod lab;
mod pods;
#[cfg(feature = "shell")]
mod shells;
