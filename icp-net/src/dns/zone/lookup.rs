//! What stands at a name.

use core::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use super::entry::{Entry, Node};
use super::snapshot::{Pointers, Snapshot};
use crate::dns::config::PodMode;
use crate::dns::wire::{LowerName, Name};

/// What stands at a name of the zone.
#[derive(Debug)]
pub(crate) enum Found<'s> {
    /// The zone itself.
    Apex,
    /// The zone's server.
    NameServer,
    /// The version of the schema.
    Version,
    /// Records; the service's name begins at the label of this index.
    Node(&'s Node, usize),
    /// An alias.
    Alias(&'s Name),
    /// A pod's address.
    Pod(IpAddr),
    /// The name exists and has nothing.
    Nothing,
    /// There is no such name.
    NoName,
}

impl Snapshot {
    /// Looks a name of the zone up; `within` is how many labels it has before the zone's.
    pub(crate) fn find(&self, name: &LowerName, within: usize) -> Found<'_> {
        let Some(kind) = within.checked_sub(1) else { return Found::Apex };
        match (name.label(kind), kind) {
            (b"svc", _) => self.find_service(name, kind),
            (b"pod", _) => self.find_pod(name, kind),
            (b"dns-version", 0) => Found::Version,
            (b"dns", 0) => Found::Nothing,
            (b"dns", 1) if name.label(0) == b"ns" => Found::NameServer,
            _ => Found::NoName,
        }
    }

    fn find_service(&self, name: &LowerName, kind: usize) -> Found<'_> {
        let Some(namespace) = kind.checked_sub(1) else { return Found::Nothing };
        let Some(service) = namespace.checked_sub(1) else {
            return self.find_namespace(name.label(namespace));
        };
        let Some(entry) = self.services.get(name.between(service, kind)) else { return Found::NoName };
        let records = match &**entry {
            Entry::External(target) if service == 0 => return Found::Alias(target),
            Entry::External(_) => return Found::NoName,
            Entry::Records(records) => records,
        };
        match service {
            0 => Found::Node(&records.all, 0),
            1 => match records.hosts.get(name.label(0)) {
                Some(node) => Found::Node(node, 1),
                // Names below it exist, so that it does (RFC 8020).
                None if records.ports.iter().any(|p| is_underscored(name.label(0), &p.protocol)) => {
                    Found::Nothing
                }
                None => Found::NoName,
            },
            2 => {
                let (port, protocol) = (name.label(0), name.label(1));
                let mut ports = records.ports.iter();
                let found =
                    ports.find(|p| is_underscored(port, &p.name) && is_underscored(protocol, &p.protocol));
                found.map_or(Found::NoName, |p| Found::Node(&p.node, 2))
            }
            _ => Found::NoName,
        }
    }

    fn find_pod(&self, name: &LowerName, kind: usize) -> Found<'_> {
        let Some(namespace) = kind.checked_sub(1) else { return Found::Nothing };
        if self.zone.pods == PodMode::Disabled {
            return Found::NoName;
        }
        let Some(pod) = namespace.checked_sub(1) else { return self.find_namespace(name.label(namespace)) };
        let namespace = name.label(namespace);
        match (pod, pod_address(name.label(pod))) {
            (0, Some(ip)) if self.zone.pods == PodMode::Insecure && self.namespaces.contains(namespace) => {
                Found::Pod(ip)
            }
            (0, Some(ip)) if self.pods.get(&ip).is_some_and(|found| found.contains(namespace)) => {
                Found::Pod(ip)
            }
            _ => Found::NoName,
        }
    }

    fn find_namespace(&self, label: &[u8]) -> Found<'_> {
        if self.namespaces.contains(label) { Found::Nothing } else { Found::NoName }
    }

    /// The names that an address of the cluster leads back to.
    pub(crate) fn find_pointers(&self, ip: IpAddr) -> Option<&Pointers> {
        self.pointers.get(&ip)
    }
}

fn is_underscored(label: &[u8], name: &[u8]) -> bool {
    label.split_first() == Some((&b'_', name))
}

/// The address that a pod's label spells: dashes for the dots of IPv4 or the colons of IPv6.
pub(crate) fn pod_address(label: &[u8]) -> Option<IpAddr> {
    // The longest form of an IPv6 address has 45 characters.
    let mut text = [0_u8; 45];
    let spelled = text.get_mut(..label.len())?;
    let dashes = label.iter().filter(|b| **b == b'-').count();
    let v4 = dashes == 3 && !label.windows(2).any(|two| two == b"--");
    let separator = if v4 { b'.' } else { b':' };
    for (to, from) in spelled.iter_mut().zip(label) {
        *to = if *from == b'-' { separator } else { *from };
    }
    let text = core::str::from_utf8(spelled).ok()?;
    if v4 { text.parse().ok().map(IpAddr::V4) } else { text.parse().ok().map(IpAddr::V6) }
}

/// The address that a whole name of `in-addr.arpa` or `ip6.arpa` stands for.
pub(crate) fn reverse_address(name: &LowerName) -> Option<IpAddr> {
    let count = name.count();
    let domain = count.checked_sub(2)?;
    if name.label(domain + 1) != b"arpa" {
        return None;
    }
    match (name.label(domain), domain) {
        (b"in-addr", 4) => {
            let mut octets = [0_u8; 4];
            for (n, octet) in octets.iter_mut().rev().enumerate() {
                *octet = decimal(name.label(n))?;
            }
            Some(IpAddr::V4(Ipv4Addr::from(octets)))
        }
        (b"ip6", 32) => {
            let mut bits = 0_u128;
            for n in (0..32).rev() {
                let [digit] = name.label(n) else { return None };
                bits = bits << 4 | u128::from(char::from(*digit).to_digit(16)?);
            }
            Some(IpAddr::V6(Ipv6Addr::from_bits(bits)))
        }
        _ => None,
    }
}

/// A number up to 255 without zeros before it.
fn decimal(label: &[u8]) -> Option<u8> {
    match label {
        [] | [b'0', _, ..] => None,
        digits => digits.iter().try_fold(0_u8, |value, digit| {
            value.checked_mul(10)?.checked_add(digit.is_ascii_digit().then(|| digit - b'0')?)
        }),
    }
}
