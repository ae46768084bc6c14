//! From a service and its slices to records.

use alloc::collections::{BTreeMap, BTreeSet};
use alloc::string::ToString;
use alloc::vec::Vec;
use core::net::IpAddr;

use super::entry::{Entry, Label, Node, Place, PortNode, Records};
use crate::dns::model::{Endpoint, Port, Service, Slice};

/// What leads from addresses back to a service.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Reverse {
    /// Its own addresses.
    pub(crate) cluster: BTreeSet<IpAddr>,
    /// Its endpoints' addresses and host names.
    pub(crate) endpoints: BTreeSet<(IpAddr, Label)>,
}

/// The host name of an endpoint at one of its addresses (`endpointHostname` of CoreDNS).
fn host_name(endpoint: &Endpoint, ip: IpAddr, pod_names: bool) -> Label {
    if !endpoint.host_name.is_empty() {
        return endpoint.host_name.as_slice().into();
    }
    if pod_names && !endpoint.target.is_empty() {
        return endpoint.target.as_slice().into();
    }
    let text = ip.to_string();
    text.bytes().map(|b| if matches!(b, b'.' | b':') { b'-' } else { b }).collect::<Vec<u8>>().into()
}

/// A place and the port it belongs to.
struct Row<'a> {
    place: Place,
    port: Option<&'a Port>,
}

/// The records of a service; `None` if it has no name: it is headless and no endpoint is ready (NXDOMAIN, as the
/// specification says in §2.4.1).
pub(crate) fn build<'a>(
    service: &Service,
    slices: impl Iterator<Item = &'a Slice>,
    pod_names: bool,
) -> (Option<Entry>, Reverse) {
    let not_ready = match service {
        Service::External(target) => return (Some(Entry::External(target.clone())), Reverse::default()),
        Service::Headless { not_ready } | Service::Cluster { not_ready, .. } => *not_ready,
    };
    let mut reverse = Reverse::default();
    let mut rows: Vec<Row<'a>> = Vec::new();
    for slice in slices {
        for endpoint in slice.endpoints.iter().filter(|e| e.ready || not_ready) {
            for ip in &endpoint.ips {
                let host = host_name(endpoint, *ip, pod_names);
                reverse.endpoints.insert((*ip, host.clone()));
                let row = |port: Option<&'a Port>| Row {
                    place: Place { host: Some(host.clone()), ip: *ip, port: port.map(|p| p.port) },
                    port,
                };
                if slice.ports.is_empty() {
                    rows.push(row(None));
                }
                rows.extend(slice.ports.iter().map(|p| row(Some(p))));
            }
        }
    }
    let mut hosts: BTreeMap<Label, Vec<&Place>> = BTreeMap::new();
    for row in &rows {
        if let Some(host) = &row.place.host {
            hosts.entry(host.clone()).or_default().push(&row.place);
        }
    }
    let hosts = hosts.into_iter().map(|(host, places)| (host, Node::of(places.into_iter()))).collect();
    let records = match service {
        Service::Cluster { ips, ports, .. } => {
            reverse.cluster = ips.iter().copied().collect();
            let own: Vec<Row<'_>> = ports
                .iter()
                .flat_map(|port| {
                    ips.iter().map(move |ip| Row {
                        place: Place { host: None, ip: *ip, port: Some(port.port) },
                        port: Some(port),
                    })
                })
                .collect();
            let bare: Vec<Row<'_>> = ips
                .iter()
                .filter(|_| ports.is_empty())
                .map(|ip| Row { place: Place { host: None, ip: *ip, port: None }, port: None })
                .collect();
            let all = Node::of(own.iter().chain(&bare).map(|r| &r.place));
            Records { all, ports: by_port(&own), hosts }
        }
        _ if rows.is_empty() => return (None, reverse),
        _ => Records { all: Node::of(rows.iter().map(|r| &r.place)), ports: by_port(&rows), hosts },
    };
    (Some(Entry::Records(records)), reverse)
}

fn by_port(rows: &[Row<'_>]) -> Vec<PortNode> {
    let mut ports: BTreeMap<(&[u8], &[u8]), Vec<&Place>> = BTreeMap::new();
    for row in rows {
        if let Some(port) = row.port.filter(|p| !p.name.is_empty()) {
            ports.entry((&port.name, &port.protocol)).or_default().push(&row.place);
        }
    }
    let node = |((name, protocol), places): ((&[u8], &[u8]), Vec<&Place>)| PortNode {
        name: name.into(),
        protocol: protocol.into(),
        node: Node::of(places.into_iter()),
    };
    ports.into_iter().map(node).collect()
}
