//! What the server is told.

use alloc::vec::Vec;
use core::net::{IpAddr, SocketAddr};

use icp_core::base::Duration;

use super::hosts::Hosts;
use super::wire::Name;

/// How names like `10-0-0-7.ns.pod.cluster.local` are answered (the option `pods` of CoreDNS).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum PodMode {
    /// There are none.
    Disabled,
    /// Any address that the name spells, in any namespace that exists.
    Insecure,
    /// Only if a pod of the namespace has the address; all pods are followed then.
    Verified,
}

/// Configuration of [`super::DnsMachine`].
#[derive(Clone, Debug, PartialEq)]
pub struct DnsConfig {
    /// The domain of the cluster, such as `cluster.local`.
    pub cluster_domain: Name,
    /// How long clients may keep the cluster's records and their absence, in seconds (CoreDNS: 5).
    pub ttl_secs: u32,
    /// Records of pods.
    pub pods: PodMode,
    /// Endpoints without a host name go by the name of their pod instead of by their address
    /// (`endpoint_pod_names`).
    pub endpoint_pod_names: bool,
    /// The addresses of `ns.dns.<cluster domain>`, which the zone names as its server.
    pub nameservers: Vec<IpAddr>,
    /// Names of a hosts file, that go before all others.
    pub hosts: Hosts,
    /// The largest answer over UDP, in bytes, however much the client takes: what crosses links without being cut
    /// to fragments (1232, DNS flag day 2020).
    pub udp_bytes_max: u16,
}

impl DnsConfig {
    /// What CoreDNS does in a cluster that kubeadm made: TTL 5 s, pods insecure.
    #[must_use]
    pub fn new(cluster_domain: Name) -> Self {
        Self {
            cluster_domain,
            ttl_secs: 5,
            pods: PodMode::Insecure,
            endpoint_pod_names: false,
            nameservers: Vec::new(),
            hosts: Hosts::default(),
            udp_bytes_max: 1232,
        }
    }
}

/// Which upstream server a query goes to first (the option `policy` of CoreDNS).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Policy {
    /// Any.
    Random,
    /// One after the other.
    RoundRobin,
    /// The first, while it works.
    Sequential,
}

/// Configuration of [`super::forward::ForwardMachine`]; the defaults are those of CoreDNS.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ForwardConfig {
    /// The servers; more than [`ForwardConfig::UPSTREAMS_MAX`] are left out, and so are those among
    /// [`ForwardConfig::own`].
    pub upstreams: Vec<SocketAddr>,
    /// The addresses at which this very server answers.
    pub own: Vec<SocketAddr>,
    /// Which server comes first.
    pub policy: Policy,
    /// Most different questions that are under way at once; more are refused.
    pub in_flight_max: usize,
    /// Most clients that wait at once; more are refused.
    pub clients_max: usize,
    /// How long one server has for its answer.
    pub attempt: Duration,
    /// How long all servers together have.
    pub total: Duration,
    /// After how many failed probes a server counts as down; 0 for never.
    pub fails_max: u32,
    /// How often a server that failed is probed.
    pub probe_interval: Duration,
    /// What is kept of answers.
    pub cache: CacheConfig,
}

impl ForwardConfig {
    /// Most servers.
    pub const UPSTREAMS_MAX: usize = 15;

    /// Forwards to these servers.
    #[must_use]
    pub fn new(upstreams: Vec<SocketAddr>) -> Self {
        Self {
            upstreams,
            own: Vec::new(),
            policy: Policy::Random,
            in_flight_max: 1000,
            clients_max: 10_000,
            attempt: Duration::from_secs(2),
            total: Duration::from_secs(5),
            fails_max: 2,
            probe_interval: Duration::from_millis(500),
            cache: CacheConfig::default(),
        }
    }
}

/// Configuration of the cache; the defaults are those of CoreDNS, but that stale answers are served.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CacheConfig {
    /// Most answers that say what is.
    pub success_max: usize,
    /// Most answers that say that something is not.
    pub denial_max: usize,
    /// Most bytes of both together.
    pub bytes_max: usize,
    /// Longest and shortest time that an answer is kept, in seconds.
    pub success_ttl_secs: (u32, u32),
    /// The same for denials.
    pub denial_ttl_secs: (u32, u32),
    /// How long a SERVFAIL answer is kept, in seconds.
    pub failure_ttl_secs: u32,
    /// How long after its end an answer is given if no server can be reached (RFC 8767), in seconds; 0 for never.
    pub stale_secs: u32,
}

impl Default for CacheConfig {
    fn default() -> Self {
        Self {
            success_max: 9984,
            denial_max: 9984,
            bytes_max: 32 * 1024 * 1024,
            success_ttl_secs: (3600, 5),
            denial_ttl_secs: (1800, 5),
            failure_ttl_secs: 5,
            stale_secs: 3600,
        }
    }
}
