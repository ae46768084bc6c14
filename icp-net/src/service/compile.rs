//! One service to elements.

use alloc::collections::{BTreeMap, BTreeSet};
use alloc::vec::Vec;
use core::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use ipnet::IpNet;

use super::endpoints::{Chosen, Endpoint, Slots, assign};
use super::layout::{
    ALLOWED_SOURCES, CLUSTER_IPS, Class, Classes, GUARDED, HAIRPIN, Kind, LOCAL_BASE, Masquerade, frontend,
};
use super::model::{Protocol, Service};
use crate::rules::{Data, Key, Value};

/// What a client connects to. It belongs to one service.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) struct Frontend {
    /// `None` for a node port.
    pub(crate) ip: Option<IpAddr>,
    pub(crate) protocol: Protocol,
    pub(crate) port: u16,
}

impl Frontend {
    pub(crate) const fn kind(&self) -> Kind {
        if self.ip.is_some() { Kind::Address } else { Kind::NodePort }
    }

    pub(crate) fn key(&self) -> Value {
        frontend(self.ip, self.protocol.number(), self.port)
    }
}

/// An element, and the set that it belongs to.
pub(crate) type Element = ((&'static str, Key), Data);

/// What a service comes to.
#[derive(Clone, Debug, Default)]
pub(crate) struct Compiled {
    /// Elements that belong to this service alone, sorted.
    pub(crate) elements: Vec<Element>,
    /// Elements that several services may want.
    pub(crate) shared: BTreeSet<(&'static str, Key)>,
    /// Which classes it uses, once for each use.
    pub(crate) classes: Vec<(Kind, Class)>,
    /// Its frontends, those of them that another service owns included.
    pub(crate) claimed: Vec<Frontend>,
    /// Which slots its ports have given out, by port.
    pub(crate) slots: BTreeMap<(Protocol, u16), PortSlots>,
}

/// The slots of one port.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct PortSlots {
    pub(crate) all: Slots,
    pub(crate) local: Slots,
}

/// The frontends of a service in one family.
pub(crate) fn frontends(service: &Service, ipv6: bool) -> Vec<Frontend> {
    let mut found = Vec::new();
    let of_family = |ips: &'_ [IpAddr]| -> Vec<IpAddr> {
        ips.iter().copied().filter(|ip| ip.is_ipv6() == ipv6).collect()
    };
    if of_family(&service.cluster_ips).is_empty() {
        return found;
    }
    for port in &service.ports {
        let to = |ip: Option<IpAddr>, number: u16| Frontend { ip, protocol: port.protocol, port: number };
        let ips = of_family(&service.cluster_ips).into_iter().chain(of_family(&service.external_ips));
        found.extend(ips.map(|ip| to(Some(ip), port.port)));
        if port.node_port != 0 {
            found.push(to(None, port.node_port));
        }
    }
    found
}

fn slots_of(slots: &Slots, affinity: bool) -> u32 {
    if affinity {
        slots.last_key_value().map_or(0, |(last, _)| last.saturating_add(1))
    } else {
        u32::try_from(slots.len()).unwrap_or(u32::MAX)
    }
}

/// Compiles one service. `chosen` are the endpoints of each of its ports, `owns` says which frontends are its own,
/// `previous` which slots its ports had.
pub(crate) fn compile(
    service: &Service,
    ipv6: bool,
    chosen: &[Chosen],
    owns: impl Fn(&Frontend) -> bool,
    previous: impl Fn(&super::model::ServicePort) -> PortSlots,
    classes: &mut Classes,
) -> Compiled {
    let mut out = Compiled::default();
    let of_family = |ip: &&IpAddr| ip.is_ipv6() == ipv6;
    let affinity = service.affinity_secs > 0;
    for ip in service.cluster_ips.iter().filter(of_family) {
        out.shared.insert((CLUSTER_IPS, Value::from(*ip).into()));
    }
    for (port, chosen) in service.ports.iter().zip(chosen) {
        let before = previous(port);
        let slots = PortSlots {
            all: assign(&before.all, &chosen.all, !affinity),
            local: assign(&before.local, &chosen.local, !affinity),
        };
        for ip in &chosen.on_node {
            out.shared.insert((HAIRPIN, Value::concat().then(*ip).then(*ip).into()));
        }
        let to = |ip: Option<IpAddr>, number: u16| Frontend { ip, protocol: port.protocol, port: number };
        let (all, local) = (slots_of(&slots.all, affinity), slots_of(&slots.local, affinity));
        let class = |slots, local_slots, masquerade| Class {
            slots,
            local_slots,
            masquerade,
            affinity_secs: service.affinity_secs,
        };

        // From inside: the policy Local leaves nothing but the endpoints of this node.
        for ip in service.cluster_ips.iter().filter(of_family) {
            let at = to(Some(*ip), port.port);
            if !owns(&at) {
                continue;
            }
            let (list, count) =
                if service.internal_local { (&slots.local, local) } else { (&slots.all, all) };
            if count > 0 {
                let class = class(count, None, Masquerade::OffCluster);
                balance(&mut out, &at, class, list, None, classes);
            } else if service.internal_local && all > 0 {
                out.elements.push(((at.kind().dropped(), at.key().into()), Data::None));
            } else {
                out.elements.push(((at.kind().rejected(), at.key().into()), Data::None));
            }
        }

        // From outside.
        let addresses = service.external_ips.iter().filter(of_family).map(|ip| to(Some(*ip), port.port));
        let node_port = (port.node_port != 0).then(|| to(None, port.node_port));
        for at in addresses.chain(node_port) {
            if !owns(&at) {
                continue;
            }
            if let Some(ip) = at.ip.filter(|ip| service.balancer_ips.contains(ip)) {
                guard(&mut out, service, &at, ip);
            }
            if all == 0 && local == 0 {
                out.elements.push(((at.kind().rejected(), at.key().into()), Data::None));
            } else if service.external_local {
                // With no ready endpoint anywhere but some that still serve here, those serve all.
                let (list, count) = if all > 0 { (&slots.all, all) } else { (&slots.local, local) };
                let class = class(count, Some(local), Masquerade::Always);
                balance(&mut out, &at, class, list, Some(&slots.local), classes);
            } else {
                balance(&mut out, &at, class(all, None, Masquerade::Always), &slots.all, None, classes);
            }
        }
        out.slots.insert((port.protocol, port.port), slots);
    }
    out.elements.sort();
    out.elements.dedup();
    out
}

fn balance(
    out: &mut Compiled,
    at: &Frontend,
    class: Class,
    all: &Slots,
    local: Option<&Slots>,
    classes: &mut Classes,
) {
    let (kind, key) = (at.kind(), at.key());
    let id = classes.acquire(kind, class);
    out.classes.push((kind, class));
    out.elements.push(((kind.classes(), key.clone().into()), Data::Value(Value::host32(id))));
    let mut slot = |slot: u32, endpoint: &Endpoint| {
        let to = Value::concat().then(endpoint.ip).then(endpoint.port);
        let key = key.clone().then(Value::host32(slot));
        out.elements.push(((kind.endpoints(), key.into()), Data::Value(to)));
    };
    all.iter().for_each(|(n, e)| slot(*n, e));
    local.into_iter().flatten().for_each(|(n, e)| slot(LOCAL_BASE.saturating_add(*n), e));
}

/// `loadBalancerSourceRanges`: who may come to a load balancer's address.
fn guard(out: &mut Compiled, service: &Service, at: &Frontend, ip: IpAddr) {
    if service.source_ranges.is_empty() {
        return;
    }
    out.elements.push(((GUARDED, at.key().into()), Data::None));
    let in_family = service.source_ranges.iter().filter(|n| n.addr().is_ipv6() == ip.is_ipv6());
    // Ranges that touch or overlap must be one: the kernel refuses elements that overlap.
    let merged = IpNet::aggregate(&in_family.copied().collect());
    for net in merged {
        let key = Key { value: at.key().then(net.network()), end: Some(at.key().then(net.broadcast())) };
        out.elements.push(((ALLOWED_SOURCES, key), Data::None));
    }
}

/// Reads slots back from the elements of a kernel, so that a restarted proxy gives each endpoint the slot it has.
pub(crate) fn slots_from(endpoints: &BTreeMap<Key, Data>, ipv6: bool) -> BTreeMap<Value, PortSlots> {
    let mut found: BTreeMap<Value, PortSlots> = BTreeMap::new();
    for (key, data) in endpoints {
        let bytes = key.value.bytes();
        let (Some((at, slot)), Data::Value(to)) = (bytes.split_last_chunk::<4>(), data) else { continue };
        let Some(endpoint) = endpoint_of(to, ipv6) else { continue };
        let slots = found.entry(Value::new(at)).or_default();
        let slot = u32::from_ne_bytes(*slot);
        match slot.checked_sub(LOCAL_BASE) {
            Some(local) => slots.local.insert(local, endpoint),
            None => slots.all.insert(slot, endpoint),
        };
    }
    found
}

fn endpoint_of(to: &Value, ipv6: bool) -> Option<Endpoint> {
    let ip_bytes = if ipv6 { 16 } else { 4 };
    let (ip, rest) = to.bytes().split_at_checked(ip_bytes)?;
    let ip = match ipv6 {
        false => Ipv4Addr::from(<[u8; 4]>::try_from(ip).ok()?).into(),
        true => Ipv6Addr::from(<[u8; 16]>::try_from(ip).ok()?).into(),
    };
    Some(Endpoint { ip, port: u16::from_be_bytes(*rest.first_chunk::<2>()?) })
}
