//! Which endpoints a service port sends traffic to, and in which slot each stands.

use alloc::collections::BTreeMap;
use alloc::vec::Vec;
use core::net::IpAddr;

use super::model::{ServicePort, Slice, SliceEndpoint};

/// Where traffic goes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Endpoint {
    /// The address.
    pub ip: IpAddr,
    /// The port.
    pub port: u16,
}

/// The endpoints of one service port.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Chosen {
    /// For the policy Cluster, in order.
    pub(crate) all: Vec<Endpoint>,
    /// For the policy Local, in order.
    pub(crate) local: Vec<Endpoint>,
    /// Addresses on this node among both.
    pub(crate) on_node: Vec<IpAddr>,
}

/// Most endpoints of one service port; more are left out.
pub(crate) const ENDPOINTS_MAX: usize = 65_536;

/// Chooses as `CategorizeEndpoints` (`pkg/proxy/topology.go`) does: ready ones, narrowed by topology hints if all
/// have them; if none is ready, those that still serve while they terminate (KEP-1669).
pub(crate) fn choose<'a>(
    slices: impl Iterator<Item = &'a Slice>,
    port: &ServicePort,
    ipv6: bool,
    zone: Option<&str>,
) -> Chosen {
    let mut candidates: BTreeMap<Endpoint, &SliceEndpoint> = BTreeMap::new();
    for slice in slices {
        let matching = slice.ports.iter().filter(|p| p.name == port.name && p.protocol == port.protocol);
        for p in matching {
            for e in slice.endpoints.iter().filter(|e| e.ip.is_ipv6() == ipv6) {
                // An endpoint may stand in two slices while it moves; the one that is ready counts.
                let seen = candidates.entry(Endpoint { ip: e.ip, port: p.port }).or_insert(e);
                if e.ready && !seen.ready {
                    *seen = e;
                }
            }
        }
    }
    let pick = |wanted: &dyn Fn(&SliceEndpoint) -> bool| -> Vec<Endpoint> {
        let ready: Vec<Endpoint> =
            candidates.iter().filter(|(_, e)| e.ready && wanted(e)).map(|(to, _)| *to).collect();
        let mut found = if ready.is_empty() {
            let fallback = candidates.iter().filter(|(_, e)| e.serving && e.terminating && wanted(e));
            fallback.map(|(to, _)| *to).collect()
        } else {
            ready
        };
        found.truncate(ENDPOINTS_MAX);
        found
    };
    let ready = || candidates.values().filter(|e| e.ready);
    let by_node = ready().count() > 0
        && ready().all(|e| e.for_this_node.is_some())
        && ready().any(|e| e.for_this_node == Some(true));
    let in_zone = |e: &SliceEndpoint| {
        e.zones.as_ref().is_some_and(|zones| zone.is_some_and(|zone| zones.iter().any(|z| z == zone)))
    };
    let by_zone = zone.is_some()
        && ready().count() > 0
        && ready().all(|e| e.zones.is_some())
        && ready().any(|e| in_zone(e));
    let all = if by_node {
        pick(&|e| e.for_this_node == Some(true))
    } else if by_zone {
        pick(&in_zone)
    } else {
        pick(&|_| true)
    };
    let local = pick(&|e| e.local);
    let mut on_node: Vec<IpAddr> = all
        .iter()
        .chain(&local)
        .filter(|to| candidates.get(*to).is_some_and(|e| e.local))
        .map(|to| to.ip)
        .collect();
    on_node.sort_unstable();
    on_node.dedup();
    Chosen { all, local, on_node }
}

/// Which endpoint stands in which slot.
pub(crate) type Slots = BTreeMap<u32, Endpoint>;

/// Gives each endpoint a slot, so that as few as possible move from where they were.
///
/// With `dense`, the slots are 0 to n-1. Without, an endpoint never moves, because clients are bound to slots, and
/// there may be holes; new endpoints fill the lowest.
pub(crate) fn assign(previous: &Slots, endpoints: &[Endpoint], dense: bool) -> Slots {
    let limit = if dense { u32::try_from(endpoints.len()).unwrap_or(u32::MAX) } else { u32::MAX };
    let mut rest: alloc::collections::BTreeSet<Endpoint> = endpoints.iter().copied().collect();
    let mut slots = Slots::new();
    for (slot, endpoint) in previous {
        if *slot < limit && rest.remove(endpoint) {
            slots.insert(*slot, *endpoint);
        }
    }
    let mut next = 0;
    for endpoint in rest {
        while slots.contains_key(&next) {
            next += 1;
        }
        slots.insert(next, endpoint);
    }
    slots
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn endpoint(n: u8) -> Endpoint {
        Endpoint { ip: [10, 0, 0, n].into(), port: 80 }
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(64))]
        #[test]
        fn slots_hold_each_endpoint_once_and_move_as_few_as_they_can(
            steps in proptest::collection::vec(proptest::collection::btree_set(0u8..12, 0..10), 1..6),
            dense: bool,
        ) {
            let mut slots = Slots::new();
            for step in steps {
                let endpoints: Vec<Endpoint> = step.into_iter().map(endpoint).collect();
                let next = assign(&slots, &endpoints, dense);
                let mut held: Vec<Endpoint> = next.values().copied().collect();
                held.sort();
                prop_assert_eq!(&held, &endpoints);
                if dense {
                    prop_assert!(next.keys().copied().eq(0..u32::try_from(endpoints.len()).unwrap()));
                }
                for (slot, e) in &slots {
                    let may_stay = endpoints.contains(e) && (!dense || *slot < u32::try_from(endpoints.len()).unwrap());
                    prop_assert_eq!(next.get(slot) == Some(e), may_stay);
                }
                slots = next;
            }
        }
    }
}
