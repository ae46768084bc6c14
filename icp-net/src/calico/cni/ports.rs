//! Ports of the machine that lead to pods (`hostPort`), as the plugin `portmap` makes them.
//!
//! What leads where stands in maps of one table. The kernel's own copy is the record: a plan starts from what was read
//! back, so that an agent that restarts knows the ports of pods which it did not attach itself.

use alloc::vec;
use alloc::vec::Vec;
use core::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use ipnet::IpNet;

use super::CniError;
use crate::rules::{
    Batch, Chain, ChainType, Change, Data, Expr, Family, FibResult, Field, FieldType, Hook, Key, Reg,
    RuleBuilder, SetSpec, Snapshot, Table, TableId, Value, Verdict, ct_status, key_type, sync,
};
use crate::service::Protocol;

/// The name of the tables.
pub const HOST_PORTS_TABLE: &str = "icp-hostports";
/// Before the Services', so that a port of a pod is not taken for a node port.
const DNAT_PRIORITY: i32 = -101;
const SNAT_PRIORITY: i32 = 100;

/// To any address of the machine, and to a certain one.
const ANY: &str = "ports";
const ONE: &str = "address-ports";
const HAIRPIN: &str = "hairpin";

/// A port of the machine that leads to a pod.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct HostPort {
    /// The address of the machine; `None` (or an unspecified one) for all but loopback.
    pub ip: Option<IpAddr>,
    /// The protocol.
    pub protocol: Protocol,
    /// The port of the machine.
    pub port: u16,
    /// The port of the pod.
    pub pod_port: u16,
}

/// The table of a family.
#[must_use]
pub fn host_ports_table_id(ipv6: bool) -> TableId {
    let family = if ipv6 { Family::Ip6 } else { Family::Ip };
    TableId { family, name: HOST_PORTS_TABLE.into() }
}

fn table(ipv6: bool) -> Table {
    let ip = if ipv6 { FieldType::Ipv6Addr } else { FieldType::Ipv4Addr };
    let (source, destination) = (Field::Source { ipv6 }, Field::Destination { ipv6 });
    let any = [Field::L4Proto, Field::DestinationPort];
    let one = [destination.clone(), Field::L4Proto, Field::DestinationPort];
    let pod = [ip, FieldType::InetService];
    let id = host_ports_table_id(ipv6);
    let mut table = Table::new(id.family, &id.name);
    table.set(SetSpec::map(ANY, key_type(&any), pod).into());
    table.set(SetSpec::map(ONE, key_type(&one), pod).into());
    table.set(SetSpec::new(HAIRPIN, [ip, ip]).into());
    let translate = |start: RuleBuilder, map: &str, key: &[Field]| {
        start
            .load(key, Reg(0))
            .expr(Expr::Map { set: map.into(), from: Reg(0), to: Reg(0) })
            .dnat(ipv6, Reg(0))
            .build()
    };
    let loopback: IpNet = match ipv6 {
        false => IpNet::new_assert(Ipv4Addr::new(127, 0, 0, 0).into(), 8),
        true => IpNet::new_assert(Ipv6Addr::LOCALHOST.into(), 128),
    };
    let local = RuleBuilder::new().local(FibResult::DestinationType).not_in_net(&destination, loopback);
    let rules = vec![translate(RuleBuilder::new(), ONE, &one), translate(local, ANY, &any)];
    table.chain(Chain::regular("to-pods", rules));
    let to_pods = || vec![RuleBuilder::new().verdict(Verdict::Jump("to-pods".into())).build()];
    let base = |name, hook, priority, rules| Chain::base(name, ChainType::Nat, hook, priority, rules);
    table.chain(base("nat-prerouting", Hook::Prerouting, DNAT_PRIORITY, to_pods()));
    table.chain(base("nat-output", Hook::Output, DNAT_PRIORITY, to_pods()));
    let hairpin = RuleBuilder::new()
        .ct_status(ct_status::DNAT)
        .in_set(HAIRPIN, &[source, destination])
        .expr(Expr::Masquerade { fully_random: true })
        .comment("a pod that calls its own port");
    table.chain(base("nat-postrouting", Hook::Postrouting, SNAT_PRIORITY, vec![hairpin]));
    table
}

fn address(value: &Value, ipv6: bool) -> Option<IpAddr> {
    let bytes = value.bytes();
    if ipv6 {
        bytes.first_chunk::<16>().map(|b| Ipv6Addr::from(*b).into())
    } else {
        bytes.first_chunk::<4>().map(|b| Ipv4Addr::from(*b).into())
    }
}

/// The changes of one family's table: what leads to addresses that are not `kept` goes, and `ports` of the pod at `ip`
/// come. A table that leads nowhere is deleted.
///
/// # Errors
/// [`CniError::HostPortTaken`] if a port leads to another pod that is kept.
pub fn plan_host_ports(
    ipv6: bool,
    observed: Option<&Snapshot>,
    kept: impl Fn(IpAddr) -> bool,
    pod: Option<(IpAddr, &[HostPort])>,
) -> Result<Batch, CniError> {
    let mut wanted = table(ipv6);
    for (name, set) in &mut wanted.sets {
        let old = observed.and_then(|o| o.sets.get(name)).into_iter().flat_map(|s| &s.elements);
        let stays = |(key, data): &(&Key, &Data)| {
            let of = if let Data::Value(to) = data { to } else { &key.value };
            address(of, ipv6).is_some_and(&kept)
        };
        set.elements.extend(old.filter(stays).map(|(k, d)| (k.clone(), d.clone())));
    }
    let (ip, ports) = pod.filter(|(ip, _)| ip.is_ipv6() == ipv6).unzip();
    for (ip, port) in ip.iter().flat_map(|ip| ports.into_iter().flatten().map(move |port| (*ip, port))) {
        let start = match port.ip.filter(|ip| !ip.is_unspecified()) {
            Some(at) if at.is_ipv6() != ipv6 => continue,
            Some(at) => (ONE, Value::concat().then(at)),
            None => (ANY, Value::concat()),
        };
        let key: Key = start.1.then(port.protocol.number()).then(port.port).into();
        let to = Data::Value(Value::concat().then(ip).then(port.pod_port));
        let Some(set) = wanted.sets.get_mut(start.0) else { continue };
        match set.elements.insert(key, to.clone()) {
            Some(Data::Value(old)) if to != Data::Value(old.clone()) => {
                let by = address(&old, ipv6).unwrap_or(ip);
                return Err(CniError::HostPortTaken { protocol: port.protocol, port: port.port, by });
            }
            _ => {}
        }
        if let Some(set) = wanted.sets.get_mut(HAIRPIN) {
            set.elements.insert(Value::concat().then(ip).then(ip).into(), Data::None);
        }
    }
    if wanted.sets.values().all(|set| set.elements.is_empty()) {
        let gone = observed.map(|_| Change::DeleteTable(wanted.id));
        return Ok(Batch { changes: Vec::from_iter(gone) });
    }
    Ok(sync(&wanted, observed))
}
