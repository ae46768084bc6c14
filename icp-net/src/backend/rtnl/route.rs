//! Routes.

use core::fmt;
use std::format;
use std::net::IpAddr;
use std::vec::Vec;

use ipnet::IpNet;

use super::Rtnl;
use super::address::{family, ip_attr, ip_of};
use crate::backend::netlink::{NetlinkError, attributes, flag};

const RTM_NEWROUTE: u16 = 24;
const RTM_DELROUTE: u16 = 25;
const RTM_GETROUTE: u16 = 26;
const RTA_DST: u16 = 1;
const RTA_OIF: u16 = 4;
const RTA_GATEWAY: u16 = 5;
const RTA_PRIORITY: u16 = 6;
const RTA_PREFSRC: u16 = 7;
const RTA_TABLE: u16 = 15;
const RTNH_F_ONLINK: u32 = 4;
const INFO_BYTES: usize = 12;
const SCOPE_UNIVERSE: u8 = 0;
const SCOPE_LINK: u8 = 253;
const SCOPE_HOST: u8 = 254;
const SCOPE_NOWHERE: u8 = 255;

/// Who made a route (`rtm_protocol`), so that each program sweeps only its own.
pub mod protocol {
    /// Made by the kernel.
    pub const KERNEL: u8 = 2;
    /// Made at boot.
    pub const BOOT: u8 = 3;
    /// Made by an administrator.
    pub const STATIC: u8 = 4;
    /// What Felix marks its routes with by default (`FelixConfiguration.deviceRouteProtocol` is 3; 80 is Felix's
    /// number for routes that are only its own).
    pub const CALICO: u8 = 80;
}

/// Routing tables.
pub mod table {
    /// The main table.
    pub const MAIN: u32 = 254;
    /// Addresses of this machine.
    pub const LOCAL: u32 = 255;
}

/// What a route does.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
#[non_exhaustive]
pub enum RouteKind {
    /// Forwards.
    Unicast,
    /// Delivers to this machine.
    Local,
    /// Drops silently.
    Blackhole,
    /// Drops and says "host unreachable".
    Unreachable,
    /// Drops and says "administratively prohibited".
    Prohibit,
    /// Any other, by `rtm_type`.
    Other(u8),
}

impl RouteKind {
    const fn number(self) -> u8 {
        match self {
            Self::Unicast => 1,
            Self::Local => 2,
            Self::Blackhole => 6,
            Self::Unreachable => 7,
            Self::Prohibit => 8,
            Self::Other(n) => n,
        }
    }

    const fn of(number: u8) -> Self {
        match number {
            1 => Self::Unicast,
            2 => Self::Local,
            6 => Self::Blackhole,
            7 => Self::Unreachable,
            8 => Self::Prohibit,
            n => Self::Other(n),
        }
    }
}

/// A route with at most one next hop.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Route {
    /// Where to.
    pub destination: IpNet,
    /// What it does.
    pub kind: RouteKind,
    /// The next hop; `None` if the destination is on the link.
    pub gateway: Option<IpAddr>,
    /// The index of the link to leave by.
    pub link: Option<u32>,
    /// The source address of packets that this machine makes.
    pub source: Option<IpAddr>,
    /// The table.
    pub table: u32,
    /// Who made it.
    pub protocol: u8,
    /// Which route wins among those to the same destination: the lowest; `None` for the kernel's default.
    pub metric: Option<u32>,
    /// Take the gateway to be on the link although no route says so.
    pub onlink: bool,
}

impl Route {
    const fn plain(destination: IpNet) -> Self {
        Self {
            destination,
            kind: RouteKind::Unicast,
            gateway: None,
            link: None,
            source: None,
            table: table::MAIN,
            protocol: protocol::STATIC,
            metric: None,
            onlink: false,
        }
    }

    /// A route through a next hop.
    #[must_use]
    pub const fn via(destination: IpNet, gateway: IpAddr) -> Self {
        Self { gateway: Some(gateway), ..Self::plain(destination) }
    }

    /// A route to what is on a link.
    #[must_use]
    pub const fn on(destination: IpNet, link: u32) -> Self {
        Self { link: Some(link), ..Self::plain(destination) }
    }

    /// A route that drops.
    #[must_use]
    pub const fn blackhole(destination: IpNet) -> Self {
        Self { kind: RouteKind::Blackhole, ..Self::plain(destination) }
    }

    const fn scope(&self) -> u8 {
        match self.kind {
            RouteKind::Local => SCOPE_HOST,
            RouteKind::Unicast if self.gateway.is_none() => SCOPE_LINK,
            _ => SCOPE_UNIVERSE,
        }
    }
}

impl fmt::Display for Route {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:?} route {}", self.kind, self.destination)?;
        if let Some(gateway) = self.gateway {
            write!(f, " via {gateway}")?;
        }
        if let Some(link) = self.link {
            write!(f, " on link {link}")?;
        }
        write!(f, " table {}", self.table)
    }
}

impl Rtnl {
    /// The routes of one table, or of all, as the kernel lists them; multipath routes are left out.
    ///
    /// # Errors
    /// Any of [`NetlinkError`].
    pub fn routes(&mut self, table: Option<u32>) -> Result<Vec<Route>, NetlinkError> {
        let mut found = self.channel.dump(
            RTM_GETROUTE,
            "routes",
            |e| {
                e.raw(&[0; INFO_BYTES]);
            },
            Vec::new,
            |found, kind, payload| {
                if kind == RTM_NEWROUTE {
                    found.extend(decode(payload));
                }
            },
        )?;
        found.retain(|r: &Route| table.is_none_or(|t| r.table == t));
        found.sort();
        Ok(found)
    }

    fn route(&mut self, kind: u16, flags: u16, verb: &str, route: &Route) -> Result<(), NetlinkError> {
        self.channel.request(kind, flags, &format!("{verb} {route}"), |e| {
            let deleting = kind == RTM_DELROUTE;
            let scope = if deleting { SCOPE_NOWHERE } else { route.scope() };
            let onlink = if route.onlink { RTNH_F_ONLINK } else { 0 };
            let small_table = u8::try_from(route.table).unwrap_or(0);
            let (destination, prefix) = (route.destination.network(), route.destination.prefix_len());
            e.raw(&[family(destination), prefix, 0, 0]);
            e.raw(&[small_table, route.protocol, scope, route.kind.number()]).raw(&onlink.to_ne_bytes());
            e.u32(RTA_TABLE, route.table);
            if prefix > 0 {
                ip_attr(e, RTA_DST, destination);
            }
            if let Some(gateway) = route.gateway {
                ip_attr(e, RTA_GATEWAY, gateway);
            }
            if let Some(link) = route.link {
                e.u32(RTA_OIF, link);
            }
            if let Some(source) = route.source {
                ip_attr(e, RTA_PREFSRC, source);
            }
            if let Some(metric) = route.metric {
                e.u32(RTA_PRIORITY, metric);
            }
        })
    }

    /// Adds a route.
    ///
    /// # Errors
    /// `EEXIST` if there is one to the same destination with the same metric, `ENETUNREACH` if the gateway is not
    /// on a link, `ENETDOWN` if the link is down.
    pub fn add_route(&mut self, route: &Route) -> Result<(), NetlinkError> {
        self.route(RTM_NEWROUTE, flag::CREATE | flag::EXCL, "add", route)
    }

    /// Adds a route, or puts it in the place of the one to the same destination with the same metric.
    ///
    /// # Errors
    /// As [`Rtnl::add_route`], but for `EEXIST`.
    pub fn replace_route(&mut self, route: &Route) -> Result<(), NetlinkError> {
        self.route(RTM_NEWROUTE, flag::CREATE | flag::REPLACE, "replace", route)
    }

    /// Deletes a route; its protocol and the fields that are given must be those of the route.
    ///
    /// # Errors
    /// `ESRCH` if there is none.
    pub fn delete_route(&mut self, route: &Route) -> Result<(), NetlinkError> {
        self.route(RTM_DELROUTE, 0, "delete", route)
    }
}

fn decode(payload: &[u8]) -> Option<Route> {
    let [family, prefix, _, _, small_table, protocol, _, kind] = *payload.first_chunk::<8>()?;
    let flags = payload.get(8..12)?.try_into().ok().map(u32::from_ne_bytes)?;
    let unspecified = match family {
        2 => IpAddr::from([0u8; 4]),
        10 => IpAddr::from([0u8; 16]),
        _ => return None,
    };
    let mut route = Route {
        kind: RouteKind::of(kind),
        table: u32::from(small_table),
        protocol,
        onlink: flags & RTNH_F_ONLINK != 0,
        ..Route::plain(IpNet::new(unspecified, prefix).ok()?)
    };
    for a in attributes(payload.get(INFO_BYTES..)?) {
        match a.kind {
            RTA_DST => route.destination = IpNet::new(ip_of(a.value)?, prefix).ok()?,
            RTA_OIF => route.link = a.u32(),
            RTA_GATEWAY => route.gateway = ip_of(a.value),
            RTA_PRIORITY => route.metric = a.u32(),
            RTA_PREFSRC => route.source = ip_of(a.value),
            RTA_TABLE => route.table = a.u32()?,
            RTA_MULTIPATH => return None,
            _ => {}
        }
    }
    Some(route)
}

const RTA_MULTIPATH: u16 = 9;
