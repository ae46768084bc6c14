//! What a server is built with.

use alloc::string::{String, ToString};
use alloc::vec::Vec;
use core::net::{IpAddr, Ipv4Addr};
use core::ops::RangeInclusive;

use ipnet::IpNet;

use super::UserInfo;
use super::cacher::CacherConfig;
use crate::base::{Duration, limits};

/// The options of an [`ApiServer`](super::ApiServer), with the defaults of kube-apiserver where it has them.
#[derive(Clone)]
pub struct Options {
    /// Who a request is from that no shell has authenticated; `None`: anonymous.
    pub in_process_user: Option<UserInfo>,
    /// Whether requests are authorized by RBAC; without, everybody may do everything.
    pub rbac: bool,
    /// Where cluster IPs of services come from (`--service-cluster-ip-range`).
    pub service_cidr: IpNet,
    /// Where node ports of services come from (`--service-node-port-range`).
    pub node_ports: RangeInclusive<u16>,
    /// The addresses of the API servers that the `kubernetes` service leads to; empty: no endpoints.
    pub advertise_addresses: Vec<IpAddr>,
    /// The port of the API servers.
    pub secure_port: u16,
    /// The cluster's CA certificates in PEM, for discovery by clients (`kube-public/cluster-info`).
    pub ca_pem: Option<String>,
    /// Creates the objects that every cluster has: namespaces, priority classes, roles, the `kubernetes` service.
    pub bootstrap: bool,
    /// The issuer of service account tokens.
    pub issuer: String,
    /// The PKCS#8 document of the ES256 key that signs service account tokens; `None`: a key of this process.
    pub service_account_key: Option<Vec<u8>>,
    /// Whether a pod's service account must exist when the pod is created. The token controller makes `default`
    /// accounts; a server without controllers leaves this off.
    pub require_service_accounts: bool,
    /// Largest request body, in bytes.
    pub body_bytes_max: usize,
    /// How long a watch without `timeoutSeconds` lives at least; at most twice as long.
    pub watch_timeout_min: Duration,
    /// How often a watch that asked for bookmarks gets one.
    pub bookmark_every: Duration,
    /// Bounds of each resource's watch cache.
    pub cacher: CacherConfig,
}

impl core::fmt::Debug for Options {
    /// Leaves the key out.
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        let Self {
            in_process_user,
            rbac,
            service_cidr,
            node_ports,
            advertise_addresses,
            secure_port,
            ca_pem,
            bootstrap,
            issuer,
            service_account_key: _,
            require_service_accounts,
            body_bytes_max,
            watch_timeout_min,
            bookmark_every,
            cacher,
        } = self;
        f.debug_struct("Options")
            .field("in_process_user", in_process_user)
            .field("rbac", rbac)
            .field("service_cidr", service_cidr)
            .field("node_ports", node_ports)
            .field("advertise_addresses", advertise_addresses)
            .field("secure_port", secure_port)
            .field("ca_pem", ca_pem)
            .field("bootstrap", bootstrap)
            .field("issuer", issuer)
            .field("require_service_accounts", require_service_accounts)
            .field("body_bytes_max", body_bytes_max)
            .field("watch_timeout_min", watch_timeout_min)
            .field("bookmark_every", bookmark_every)
            .field("cacher", cacher)
            .finish_non_exhaustive()
    }
}

impl Default for Options {
    fn default() -> Self {
        let service_cidr = IpNet::new_assert(IpAddr::V4(Ipv4Addr::new(10, 96, 0, 0)), 16);
        Self {
            in_process_user: Some(UserInfo::admin()),
            rbac: true,
            service_cidr,
            node_ports: 30_000..=32_767,
            advertise_addresses: Vec::new(),
            secure_port: 6443,
            ca_pem: None,
            bootstrap: true,
            issuer: "https://kubernetes.default.svc.cluster.local".to_string(),
            service_account_key: None,
            require_service_accounts: false,
            body_bytes_max: limits::BODY_BYTES_MAX,
            watch_timeout_min: Duration::from_secs(1_800),
            bookmark_every: Duration::from_secs(60),
            cacher: CacherConfig::default(),
        }
    }
}
