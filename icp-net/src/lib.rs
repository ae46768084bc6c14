//! The network of a cluster as pure compilers and machines: kube-proxy, cluster DNS, virtual IP, Calico.
//!
//! | module | what |
//! |---|---|
//! | [`backend`] | what talks to a kernel: routes and links, nftables, connection tracking (feature `netlink`) |
//! | [`calico`] | pod addresses, pod interfaces, routes between nodes |
//! | [`dns`] | cluster DNS: Services and EndpointSlices to answers, other names to upstream servers |
//! | [`rules`] | a packet filter as data: tables, chains, sets, maps, and how to change them |
//! | [`service`] | kube-proxy: Services and EndpointSlices to rules |
//! | [`vip`] | the virtual IP manager: CARP, wire-compatible with UCarp |
#![no_std]
extern crate alloc;
#[cfg(feature = "std")]
extern crate std;

pub mod backend;
pub mod calico;
pub mod dns;
pub mod rules;
pub mod service;
pub mod vip;
