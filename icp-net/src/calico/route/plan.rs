//! From Nodes to what the kernel should hold, and from what it holds to changes.

use alloc::collections::{BTreeMap, BTreeSet};
use alloc::format;
use alloc::string::String;
use alloc::vec::Vec;
use core::net::IpAddr;

use icp_core::api::Object;
use ipnet::IpNet;
use serde_json::Value;

use super::Config;
use crate::rules::{Chain, ChainType, Expr, Family, Field, Hook, RuleBuilder, Table};

/// What a Node says of its network.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct NodeFacts {
    /// Its part of the pod network, at most one range of each family.
    pub pod_networks: Vec<IpNet>,
    /// Its addresses of type `InternalIP`, in order.
    pub internal_ips: Vec<IpAddr>,
}

impl NodeFacts {
    /// Reads `spec.podCIDRs` (or `podCIDR`) and `status.addresses`; what cannot be read does not count.
    #[must_use]
    pub fn of(node: &Object) -> Self {
        let text = |v: &Value| v.as_str().and_then(|s| s.parse::<IpNet>().ok()).map(|net| net.trunc());
        let list = node.at("/spec/podCIDRs").and_then(Value::as_array);
        let pod_networks = match list {
            Some(list) if !list.is_empty() => list.iter().filter_map(text).collect(),
            _ => node.at("/spec/podCIDR").and_then(text).into_iter().collect(),
        };
        let addresses = node.at("/status/addresses").and_then(Value::as_array).into_iter().flatten();
        let internal_ips = addresses
            .filter(|a| a.get("type").and_then(Value::as_str) == Some("InternalIP"))
            .filter_map(|a| a.get("address").and_then(Value::as_str)?.parse().ok())
            .collect();
        Self { pod_networks, internal_ips }
    }
}

/// Where a route leads.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Via {
    /// To a node.
    Gateway(IpAddr),
    /// Nowhere.
    Blackhole,
}

/// A route of this machine.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct RouteEntry {
    /// Where to.
    pub destination: IpNet,
    /// By what.
    pub via: Via,
}

/// What Nodes come to.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Wanted {
    /// The routes, by destination.
    pub routes: BTreeSet<RouteEntry>,
    /// This node's part of the pod network.
    pub pod_networks: Vec<IpNet>,
    /// What is wrong with Nodes, in words.
    pub problems: Vec<String>,
}

/// The routes that node `own` should have. Of two nodes that claim the same addresses, the first by name has them, but
/// what is the node's own is always its own.
#[must_use]
pub fn wanted(own: &str, nodes: &BTreeMap<String, NodeFacts>) -> Wanted {
    let mut found = Wanted::default();
    let mut taken: BTreeMap<IpNet, &str> = BTreeMap::new();
    let none = NodeFacts::default();
    let mine = nodes.get(own).unwrap_or(&none);
    found.pod_networks.clone_from(&mine.pod_networks);
    let order = nodes.get_key_value(own).into_iter().chain(nodes.iter().filter(|(name, _)| *name != own));
    for (name, facts) in order {
        for net in &facts.pod_networks {
            let overlaps = |other: &&IpNet| other.contains(net) || net.contains(*other);
            if let Some(by) = taken.keys().find(overlaps).and_then(|other| taken.get(other)) {
                found.problems.push(format!("node {name}: podCIDR {net} is node {by}'s"));
                continue;
            }
            let via = if name == own {
                Some(Via::Blackhole)
            } else {
                let of_family = |ip: &&IpAddr| ip.is_ipv6() == net.addr().is_ipv6();
                let gateway = facts.internal_ips.iter().find(of_family);
                gateway.filter(|ip| !mine.internal_ips.contains(ip)).map(|ip| Via::Gateway(*ip))
            };
            match via {
                Some(via) => {
                    taken.insert(*net, name);
                    found.routes.insert(RouteEntry { destination: *net, via });
                }
                None => found
                    .problems
                    .push(format!("node {name}: no InternalIP of its own to reach podCIDR {net} by")),
            }
        }
    }
    found
}

/// Which routes to delete and which to add.
#[must_use]
pub fn route_changes(
    wanted: &BTreeSet<RouteEntry>,
    observed: &BTreeSet<RouteEntry>,
) -> (Vec<RouteEntry>, Vec<RouteEntry>) {
    let add: Vec<RouteEntry> = wanted.difference(observed).copied().collect();
    // The kernel puts an IPv4 route in the place of another whole. An IPv6 route may come to stand beside it.
    let replaced = |old: &&RouteEntry| {
        old.destination.addr().is_ipv4() && add.iter().any(|new| new.destination == old.destination)
    };
    let delete = observed.difference(wanted).filter(|old| !replaced(old)).copied().collect();
    (delete, add)
}

/// Where source addresses are translated.
const SNAT_PRIORITY: i32 = 100;

/// The tables that masquerade what pods send to addresses that no pod has (`natOutgoing`), one for each family.
///
/// ```
/// use icp_net::calico::route::{Config, masquerade};
/// let config = Config { pod_networks: vec!["10.244.0.0/16".parse().unwrap()], ..Config::new("a") };
/// let tables = masquerade(&config);
/// assert_eq!(tables.len(), 2); // the one of IPv6 has no rule
/// assert_eq!(tables.iter().map(|t| t.chains["postrouting"].rules.len()).sum::<usize>(), 1);
/// ```
#[must_use]
pub fn masquerade(config: &Config) -> Vec<Table> {
    let one = |(family, ipv6): (Family, bool)| {
        let nets = || config.pod_networks.iter().copied().filter(|net| net.addr().is_ipv6() == ipv6);
        let rules = nets().map(|net| {
            let from_pod = RuleBuilder::new().in_net(&Field::Source { ipv6 }, net);
            let leaving =
                nets().fold(from_pod, |rule, net| rule.not_in_net(&Field::Destination { ipv6 }, net));
            leaving.expr(Expr::Masquerade { fully_random: true }).comment("from pods to elsewhere")
        });
        let mut table = Table::new(family, &config.table);
        let hook = Hook::Postrouting;
        table.chain(Chain::base("postrouting", ChainType::Nat, hook, SNAT_PRIORITY, rules.collect()));
        table
    };
    [(Family::Ip, false), (Family::Ip6, true)].into_iter().map(one).collect()
}
