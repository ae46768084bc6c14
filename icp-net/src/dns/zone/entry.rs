//! The records of one service.

use alloc::boxed::Box;
use alloc::collections::BTreeMap;
use alloc::sync::Arc;
use alloc::vec::Vec;
use core::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use smallvec::SmallVec;

use crate::dns::wire::Name;

/// `<service>.<namespace>` as labels with lengths, in lower case; it stands in the table itself, so that comparing it
/// costs no further look into memory.
pub(crate) type ServiceKey = SmallVec<[u8; 36]>;
/// A label in lower case, without its length.
pub(crate) type Label = Arc<[u8]>;

/// What stands at and below `<service>.<namespace>.svc.<zone>`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Entry {
    /// An alias.
    External(Name),
    /// Records.
    Records(Records),
}

#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Records {
    /// At the service's name.
    pub(crate) all: Node,
    /// At `_<port>._<protocol>` below it.
    pub(crate) ports: Vec<PortNode>,
    /// At the host names of endpoints below it.
    pub(crate) hosts: BTreeMap<Label, Node>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct PortNode {
    /// In lower case, without the underscore.
    pub(crate) name: Box<[u8]>,
    pub(crate) protocol: Box<[u8]>,
    pub(crate) node: Node,
}

/// The records of one name. No two are equal.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Node {
    // Most names have one address: it stands here, where a lookup in a large cluster has just read.
    pub(crate) v4: SmallVec<[Ipv4Addr; 2]>,
    pub(crate) v6: SmallVec<[Ipv6Addr; 1]>,
    pub(crate) srv: Box<[Srv]>,
    /// The addresses of the targets of `srv`.
    pub(crate) targets: Box<[Target]>,
}

#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Srv {
    pub(crate) weight: u16,
    pub(crate) port: u16,
    /// The label below the service's name; `None` for the service itself.
    pub(crate) host: Option<Label>,
}

#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Target {
    pub(crate) host: Option<Label>,
    pub(crate) ip: IpAddr,
}

/// An address and port that a name leads to.
pub(crate) struct Place {
    pub(crate) host: Option<Label>,
    pub(crate) ip: IpAddr,
    /// `None` of an endpoint without ports: it has addresses but no SRV record.
    pub(crate) port: Option<u16>,
}

impl Node {
    /// The records of places, each kept once, in order. All SRV records have the weight `100 / places`, at least 1,
    /// as CoreDNS computes it (`plugin/backend_lookup.go`).
    pub(crate) fn of<'p>(places: impl Iterator<Item = &'p Place> + Clone) -> Self {
        let count = places.clone().count();
        let weight = u16::try_from(100 / count.max(1)).unwrap_or(100).max(1);
        let (mut v4, mut v6) = (Distinct::default(), Distinct::default());
        let (mut srv, mut targets) = (Distinct::default(), Distinct::default());
        for place in places {
            match place.ip {
                IpAddr::V4(ip) => v4.push(ip),
                IpAddr::V6(ip) => v6.push(ip),
            }
            if let Some(port) = place.port {
                srv.push(Srv { weight, port, host: place.host.clone() });
                targets.push(Target { host: place.host.clone(), ip: place.ip });
            }
        }
        Self { v4: v4.list.into(), v6: v6.list.into(), srv: srv.list.into(), targets: targets.list.into() }
    }
}

/// A list that keeps each value once, in the order in which they came first.
struct Distinct<T> {
    seen: alloc::collections::BTreeSet<T>,
    list: Vec<T>,
}

impl<T> Default for Distinct<T> {
    fn default() -> Self {
        Self { seen: alloc::collections::BTreeSet::new(), list: Vec::new() }
    }
}

impl<T: Ord + Clone> Distinct<T> {
    fn push(&mut self, value: T) {
        if self.seen.insert(value.clone()) {
            self.list.push(value);
        }
    }
}
