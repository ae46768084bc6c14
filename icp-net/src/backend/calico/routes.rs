//! Does what [`crate::calico::route::RouteMachine`] wants done to the kernel.

use std::collections::BTreeSet;
use std::format;
use std::io::ErrorKind;
use std::string::{String, ToString};
use std::vec::Vec;

use crate::backend::netlink::NetlinkError;
use crate::backend::nft::Nft;
use crate::backend::rtnl::{Route, RouteKind, Rtnl, protocol, sysctl, table};
use crate::calico::route::{BackendError, Changes, Effect, Event, Failure, Observed, RouteEntry, Via};
use crate::rules::{Family, TableId};

/// The kernel side of a route machine, bound to the network namespace in which it was opened; the thread that uses it
/// must be in that namespace.
#[derive(Debug)]
pub struct RouteBackend {
    rtnl: Rtnl,
    nft: Nft,
}

/// The kernel parameters of a router of pods.
///
/// It sends no redirects: a packet that leaves by the link it came by has had its destination translated, so that there
/// is no shorter way; and each redirect keeps the kernel from sending that host an ICMP error for a second, so that a
/// refused connection would hang.
fn parameters(family: Family) -> Vec<(String, &'static str)> {
    if family == Family::Ip6 {
        return Vec::from([("net.ipv6.conf.all.forwarding".into(), "1")]);
    }
    let links = std::fs::read_dir("/proc/sys/net/ipv4/conf").into_iter().flatten().flatten();
    let links = links.filter_map(|entry| entry.file_name().into_string().ok());
    // A link that comes later takes the value from `default`.
    let redirects =
        links.map(|link| (format!("net.ipv4.conf.{}.send_redirects", link.replace('.', "/")), "0"));
    core::iter::once(("net.ipv4.ip_forward".into(), "1")).chain(redirects).collect()
}

fn entry(route: &Route) -> Option<RouteEntry> {
    let via = match (route.kind, route.gateway) {
        (RouteKind::Unicast, Some(gateway)) => Via::Gateway(gateway),
        (RouteKind::Blackhole, _) => Via::Blackhole,
        _ => return None,
    };
    (route.protocol == protocol::CALICO).then_some(RouteEntry { destination: route.destination, via })
}

fn route(entry: &RouteEntry) -> Route {
    let plain = match entry.via {
        Via::Gateway(gateway) => Route::via(entry.destination, gateway),
        Via::Blackhole => Route::blackhole(entry.destination),
    };
    Route { protocol: protocol::CALICO, ..plain }
}

impl RouteBackend {
    /// Opens the sockets in the network namespace of the calling thread.
    ///
    /// # Errors
    /// [`NetlinkError::Open`].
    pub fn open() -> Result<Self, NetlinkError> {
        Ok(Self { rtnl: Rtnl::open()?, nft: Nft::open()? })
    }

    /// Does what the effect says and returns what the machine is to be told; `None` for effects that are not for the
    /// kernel.
    pub fn perform(&mut self, effect: &Effect) -> Option<Event> {
        match effect {
            Effect::Observe { generation, tables } => {
                let result = self.observe(tables).map_err(|e| BackendError(e.to_string()));
                Some(Event::Observed { generation: *generation, result })
            }
            Effect::Apply { generation, changes } => {
                Some(Event::Applied { generation: *generation, failures: self.apply(changes) })
            }
            Effect::Client(_) | Effect::PodNetworks(_) => None,
        }
    }

    fn observe(&mut self, tables: &[TableId]) -> Result<Observed, NetlinkError> {
        let routes = self.rtnl.routes(Some(table::MAIN))?;
        let is = |(name, value): &(String, &str)| sysctl::get(name).is_ok_and(|found| found == *value);
        let on = |family: &Family| parameters(*family).iter().all(is);
        Ok(Observed {
            routes: routes.iter().filter_map(entry).collect(),
            tables: tables
                .iter()
                .map(|id| Ok((id.clone(), self.nft.snapshot(id)?)))
                .collect::<Result<_, NetlinkError>>()?,
            forwarding: [Family::Ip, Family::Ip6].into_iter().filter(on).collect::<BTreeSet<_>>(),
        })
    }

    fn apply(&mut self, changes: &Changes) -> Vec<Failure> {
        let mut failures = Vec::new();
        let mut note = |route: Option<RouteEntry>, why| failures.push(Failure { route, why });
        for family in &changes.forward {
            for (name, value) in parameters(*family) {
                match sysctl::set(&name, value) {
                    // The link went away.
                    Err(e) if e.kind() != ErrorKind::NotFound => {
                        note(None, format!("cannot set {name} to {value}: {e}"));
                    }
                    _ => {}
                }
            }
        }
        for gone in &changes.delete {
            match self.rtnl.delete_route(&route(gone)) {
                Err(e) if !e.is_missing() => note(Some(*gone), e.to_string()),
                _ => {}
            }
        }
        for new in &changes.add {
            if let Err(e) = self.rtnl.replace_route(&route(new)) {
                note(Some(*new), e.to_string());
            }
        }
        if let Err(e) = self.nft.apply(&changes.batch) {
            note(None, e.to_string());
        }
        failures
    }
}
