//! The state of the zone at one time.

use alloc::collections::BTreeSet;
use alloc::sync::Arc;
use core::net::IpAddr;

use super::entry::{Entry, Label, ServiceKey};
use super::sharded::Sharded;
use crate::dns::config::{DnsConfig, PodMode};
use crate::dns::hosts::Hosts;
use crate::dns::wire::{LowerName, Name};

/// What leads from an address back to names, without the zone: labels with lengths.
pub(crate) type Pointers = Arc<[Arc<[u8]>]>;

/// All that answers depend on, at one time. It does not change: readers share it without a lock, and a lookup costs
/// what the name's length costs.
#[derive(Clone, Debug)]
pub struct Snapshot {
    pub(crate) zone: Arc<Zone>,
    /// When the zone last changed, in seconds since 1970: the serial number.
    pub(crate) serial: u32,
    /// Whether all that is to be known of the cluster is known.
    pub(crate) synced: bool,
    pub(crate) namespaces: Arc<BTreeSet<Label>>,
    pub(crate) services: Sharded<ServiceKey, Arc<Entry>>,
    pub(crate) pointers: Sharded<IpAddr, Pointers>,
    /// The namespaces of pods, by address.
    pub(crate) pods: Sharded<IpAddr, Arc<BTreeSet<Label>>>,
    pub(crate) hosts: Arc<Hosts>,
}

/// What does not change.
#[derive(Debug)]
pub(crate) struct Zone {
    /// In lower case.
    pub(crate) name: Name,
    pub(crate) labels: usize,
    pub(crate) ttl_secs: u32,
    pub(crate) pods: PodMode,
    pub(crate) nameservers: alloc::vec::Vec<IpAddr>,
    pub(crate) udp_bytes_max: u16,
}

impl Snapshot {
    /// A zone of which nothing is known yet: its names are answered with SERVFAIL.
    #[must_use]
    pub fn new(config: &DnsConfig) -> Self {
        let name = config.cluster_domain.to_lowercase();
        Self {
            zone: Arc::new(Zone {
                labels: name.labels().count(),
                name,
                // RFC 2181 §8: 31 bits. CoreDNS allows an hour.
                ttl_secs: config.ttl_secs.min(3600),
                pods: config.pods,
                nameservers: config.nameservers.clone(),
                udp_bytes_max: config.udp_bytes_max.max(crate::dns::wire::UDP_BYTES_MIN),
            }),
            serial: 0,
            synced: false,
            namespaces: Arc::default(),
            services: Sharded::new(),
            pointers: Sharded::new(),
            pods: Sharded::new(),
            hosts: Arc::new(config.hosts.clone()),
        }
    }

    /// Whether the cluster's names can be answered.
    #[must_use]
    pub const fn synced(&self) -> bool {
        self.synced
    }

    /// The serial number of the zone: when it last changed, in seconds since 1970.
    #[must_use]
    pub const fn serial(&self) -> u32 {
        self.serial
    }

    /// How many services have names.
    #[must_use]
    pub const fn services(&self) -> usize {
        self.services.len()
    }

    /// Of how many labels the name is in the zone, without the zone's own; `None` if it is not.
    pub(crate) fn labels_within(&self, name: &LowerName) -> Option<usize> {
        let within = name.count().checked_sub(self.zone.labels)?;
        (name.tail(within) == self.zone.name.as_wire()).then_some(within)
    }
}
