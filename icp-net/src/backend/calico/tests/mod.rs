//! Pods on machines, all of them network namespaces.

mod lab;
mod pods;
