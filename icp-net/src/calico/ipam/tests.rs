//! Tables, and a comparison with a model that knows nothing of blocks.

use alloc::collections::BTreeMap;
use alloc::format;
use alloc::string::{String, ToString};
use alloc::vec::Vec;
use core::net::IpAddr;

use proptest::prelude::*;

use super::*;

fn pool(cidr: &str) -> Pool {
    Pool::new(cidr.parse().unwrap()).unwrap()
}

fn ipam(config: IpamConfig) -> Ipam {
    Ipam::new(config, []).unwrap()
}

fn assign(ipam: &mut Ipam, node: &str, handle: &str) -> Result<IpAddr, IpamError> {
    let plan = ipam.plan_assign(&Request::new(node, handle))?;
    ipam.commit(&plan);
    Ok(plan.addresses[0])
}

fn release(ipam: &mut Ipam, handle: &str) -> Vec<IpAddr> {
    let plan = ipam.plan_release_handle(handle);
    ipam.commit(&plan);
    plan.addresses
}

fn blocks_of(ipam: &Ipam, node: &str) -> usize {
    ipam.blocks().filter(|b| b.node() == Some(node)).count()
}

#[test]
fn block_sizes_are_those_of_calico() {
    for (cidr, prefix, ok) in [
        ("10.0.0.0/16", 26, true),
        ("10.0.0.0/16", 32, true),
        ("10.0.0.0/16", 19, false),
        ("10.0.0.0/24", 23, false),
        ("fd00::/64", 122, true),
        ("fd00::/64", 115, false),
        ("fd00::/64", 128, true),
    ] {
        assert_eq!(Pool::with_blocks(cidr.parse().unwrap(), prefix).is_ok(), ok, "{cidr} {prefix}");
    }
    let e = Pool::with_blocks("10.0.0.0/8".parse().unwrap(), 16).unwrap_err();
    assert_eq!(
        e.to_string(),
        "pool 10.0.0.0/8: a block of /16 is not possible: it must be /20 to /32 and fit into the pool"
    );
    let overlapping = IpamConfig::new([pool("10.0.0.0/16"), pool("10.0.7.0/24")]);
    assert!(matches!(Ipam::new(overlapping, []), Err(IpamError::Overlap { .. })));
}

#[test]
fn an_address_that_was_released_rests_longest() {
    let mut i = ipam(IpamConfig::new([pool("10.0.0.0/30")]));
    let first = assign(&mut i, "a", "1").unwrap();
    release(&mut i, "1");
    let next: Vec<_> = (2..6).map(|n| assign(&mut i, "a", &n.to_string()).unwrap()).collect();
    assert_eq!(next.iter().position(|ip| *ip == first), Some(3));
    assert!(i.plan_assign(&Request::new("a", "6")).is_err());
}

#[test]
fn nodes_claim_blocks_of_their_own_then_borrow() {
    let blocks = Pool::with_blocks("10.0.0.0/28".parse().unwrap(), 30).unwrap();
    let mut i = ipam(IpamConfig { blocks_per_node_max: 2, ..IpamConfig::new([blocks]) });
    for n in 0..8 {
        assign(&mut i, "a", &format!("a{n}")).unwrap();
    }
    assert_eq!(blocks_of(&i, "a"), 2);
    // Its third block would be one too many, and there is nobody to borrow from.
    let e = assign(&mut i, "a", "a8").unwrap_err();
    assert_eq!(e.to_string(), "no IPv4 address is free for node a: every pool is full");
    assign(&mut i, "b", "b0").unwrap();
    let borrowed = assign(&mut i, "a", "a8").unwrap();
    let block = i.blocks().find(|b| b.owner(borrowed).is_some()).unwrap();
    assert_eq!((block.node(), &*i.owner(borrowed).unwrap().node), (Some("b"), "a"));

    let strict = IpamConfig { strict_affinity: true, ..i.config().clone() };
    i.reconfigure(strict).unwrap();
    let e = assign(&mut i, "a", "a9").unwrap_err();
    assert_eq!(e.to_string(), "no IPv4 address is free for node a: it has the most blocks it may have");
    let other: IpAddr = i.blocks().find(|b| b.node() == Some("b")).unwrap().cidr().broadcast();
    assert!(matches!(i.plan_assign_address(other, "a", "a9"), Err(IpamError::Foreign { .. })));
}

#[test]
fn a_certain_address_is_given_once_and_only_from_a_pool() {
    let mut i = ipam(IpamConfig {
        reserved: [("10.0.0.0/31").parse().unwrap()].to_vec(),
        ..IpamConfig::new([pool("10.0.0.0/26")])
    });
    assert_eq!(assign(&mut i, "a", "1").unwrap().to_string(), "10.0.0.2");
    let wanted: IpAddr = "10.0.0.9".parse().unwrap();
    let plan = i.plan_assign_address(wanted, "b", "2").unwrap();
    i.commit(&plan);
    assert_eq!(i.addresses("2"), [wanted]);
    assert!(i.plan_assign_address(wanted, "b", "2").unwrap().writes.is_empty());
    let e = i.plan_assign_address(wanted, "b", "3").unwrap_err();
    assert_eq!(e.to_string(), "10.0.0.9 is taken by 2");
    let outside = "10.0.1.9".parse().unwrap();
    assert!(matches!(i.plan_assign_address(outside, "b", "3"), Err(IpamError::NotInPool { .. })));
    assert!(matches!(
        i.plan_assign(&Request { ipv6: 1, ..Request::new("a", "4") }),
        Err(IpamError::NoPool { family: 6 })
    ));
}

#[test]
fn what_a_node_had_is_collected() {
    let blocks = Pool::with_blocks("10.0.0.0/28".parse().unwrap(), 30).unwrap();
    let mut i = ipam(IpamConfig::new([blocks]));
    for n in 0..5 {
        assign(&mut i, "a", &format!("a{n}")).unwrap();
    }
    assign(&mut i, "b", "b0").unwrap();
    let plan = i.plan_collect("a", |handle| handle == "a1" || handle == "a4");
    assert_eq!(plan.addresses.len(), 3);
    i.commit(&plan);
    assert_eq!(i.handles().map(|(h, _)| String::from(h)).collect::<Vec<_>>(), ["a1", "a4", "b0"]);
    assert_eq!(blocks_of(&i, "a"), 2);
    let plan = i.plan_forget_node("a");
    i.commit(&plan);
    assert_eq!(i.blocks().count(), 1);
    assert_eq!(i.handles().count(), 1);
}

#[test]
fn blocks_outside_of_the_pools_live_until_they_are_empty() {
    let mut i = ipam(IpamConfig::new([pool("10.0.0.0/24")]));
    let old = assign(&mut i, "a", "1").unwrap();
    i.reconfigure(IpamConfig::new([pool("10.0.1.0/24")])).unwrap();
    assert_eq!(assign(&mut i, "a", "1").unwrap(), old);
    assert!(assign(&mut i, "a", "2").unwrap().to_string().starts_with("10.0.1."));
    release(&mut i, "1");
    assert_eq!(i.blocks().map(|b| b.cidr().to_string().starts_with("10.0.1.")).collect::<Vec<_>>(), [true]);
}

#[test]
fn a_block_is_read_back_or_refused() {
    let mut i = ipam(IpamConfig::new([pool("10.0.0.0/30")]));
    assign(&mut i, "a", "default.web").unwrap();
    let block = i.blocks().next().unwrap();
    let text = serde_json::to_string(block).unwrap();
    expect_test::expect![[
        r#"{"cidr":"10.0.0.0/30","affinity":"a","allocated":{"0":{"handle":"default.web","node":"a"}},"free":[1,2,3],"sequence":1}"#
    ]]
    .assert_eq(&text);
    let back: Block = serde_json::from_str(&text).unwrap();
    assert_eq!(back.check(), Ok(()));
    assert_eq!(back, *block);
    for (from, to, why) in [
        ("[1,2,3]", "[1,2]", "an address is missing"),
        ("[1,2,3]", "[0,1,2,3]", "an address stands in it twice"),
        ("[1,2,3]", "[1,2,4]", "an address is outside of it"),
        ("10.0.0.0/30", "10.0.0.1/30", "its range is none of a block"),
        ("10.0.0.0/30", "10.0.0.0/8", "its range is none of a block"),
    ] {
        let bad: Block = serde_json::from_str(&text.replace(from, to)).unwrap();
        assert_eq!(bad.check().unwrap_err(), IpamError::Corrupt { block: bad.cidr(), why }, "{to}");
    }
    let twice = [block.clone(), block.clone()];
    assert!(Ipam::new(i.config().clone(), twice).is_err());
}

#[derive(Clone, Debug)]
enum Act {
    Assign {
        node: u8,
        handle: u8,
    },
    Address {
        node: u8,
        handle: u8,
        ordinal: u8,
    },
    Release {
        handle: u8,
    },
    Collect {
        node: u8,
        live: u8,
    },
    Forget {
        node: u8,
    },
    /// The agent dies after it wrote some of the last plan's blocks.
    Crash {
        node: u8,
        handle: u8,
        written: u8,
    },
}

fn acts() -> impl Strategy<Value = Vec<Act>> {
    let (node, handle) = (0u8..3, 0u8..12);
    let act = prop_oneof![
        6 => (node.clone(), handle.clone()).prop_map(|(node, handle)| Act::Assign { node, handle }),
        2 => (node.clone(), handle.clone(), 0u8..32)
            .prop_map(|(node, handle, ordinal)| Act::Address { node, handle, ordinal }),
        4 => handle.clone().prop_map(|handle| Act::Release { handle }),
        1 => (node.clone(), 0u8..12).prop_map(|(node, live)| Act::Collect { node, live }),
        1 => node.clone().prop_map(|node| Act::Forget { node }),
        1 => (node, handle, 0u8..3).prop_map(|(node, handle, written)| Act::Crash { node, handle, written }),
    ];
    prop::collection::vec(act, 1..80)
}

/// Takes over writes as a store would: each on its condition.
fn store(blocks: &mut BTreeMap<ipnet::IpNet, Block>, write: &Write) {
    let (expected, cidr) = match write {
        Write::Put { expected, block } => (*expected, block.cidr()),
        Write::Delete { expected, cidr } => (*expected, *cidr),
    };
    assert_eq!(blocks.get(&cidr).map_or(0, Block::sequence), expected);
    match write {
        Write::Put { block, .. } => blocks.insert(cidr, block.clone()),
        Write::Delete { .. } => blocks.remove(&cidr),
    };
}

const ALL: usize = usize::MAX;

proptest! {
    #[test]
    fn no_address_has_two_owners_and_none_is_lost(
        acts in acts(), strict: bool, limit in 0usize..3, prefix in 28u8..=32,
    ) {
        // 18 addresses of IPv4 in two pools, two of them reserved, and IPv6 beside them.
        let pools = [
            Pool::with_blocks("10.0.0.0/28".parse().unwrap(), prefix).unwrap(),
            Pool::with_blocks("10.0.0.16/31".parse().unwrap(), prefix.max(31)).unwrap(),
            Pool::with_blocks("fd00::/124".parse().unwrap(), 126).unwrap(),
        ];
        let config = IpamConfig {
            strict_affinity: strict,
            blocks_per_node_max: limit,
            reserved: ["10.0.0.4/31".parse().unwrap()].to_vec(),
            ..IpamConfig::new(pools)
        };
        let mut ipam = Ipam::new(config.clone(), []).unwrap();
        let mut stored = BTreeMap::new();
        let mut model: BTreeMap<IpAddr, (String, String)> = BTreeMap::new();
        for act in acts {
            let name = |n: u8| format!("n{n}");
            let (plan, written) = match &act {
                Act::Assign { node, handle } | Act::Crash { node, handle, .. } => {
                    let request = Request { ipv6: 1, ..Request::new(&name(*node), &handle.to_string()) };
                    match ipam.plan_assign(&request) {
                        Ok(plan) => {
                            let old = |ipv6: bool| {
                                let is_old = |(ip, o): &(&IpAddr, &(String, String))| {
                                    ip.is_ipv6() == ipv6 && o.0 == request.handle
                                };
                                model.iter().filter(is_old).count()
                            };
                            prop_assert_eq!(plan.addresses.len(), old(false).max(1) + old(true).max(1));
                            let written = if let Act::Crash { written, .. } = act { written.into() } else { ALL };
                            (plan, written)
                        }
                        Err(IpamError::Exhausted { family, .. }) => {
                            let held = model.keys().filter(|ip| ip.is_ipv6() == (family == 6)).count();
                            let free = 16usize.saturating_sub(held);
                            prop_assert!(free == 0 || strict || limit > 0, "{free} are free");
                            continue;
                        }
                        Err(e) => panic!("{e}"),
                    }
                }
                Act::Address { node, handle, ordinal } => {
                    let ip: IpAddr = [10, 0, 0, *ordinal].into();
                    let taken = model.get(&ip).map(|o| o.0.clone());
                    match ipam.plan_assign_address(ip, &name(*node), &handle.to_string()) {
                        Ok(plan) => {
                            prop_assert!(taken.is_none_or(|by| by == handle.to_string()) && *ordinal < 18);
                            (plan, ALL)
                        }
                        Err(IpamError::Taken { handle, .. }) => {
                            prop_assert_eq!(taken, Some(handle));
                            continue;
                        }
                        Err(IpamError::NotInPool { .. }) => {
                            prop_assert!(*ordinal >= 18);
                            continue;
                        }
                        Err(IpamError::Foreign { .. }) => {
                            prop_assert!(strict);
                            continue;
                        }
                        Err(e) => panic!("{e}"),
                    }
                }
                Act::Release { handle } => (ipam.plan_release_handle(&handle.to_string()), ALL),
                Act::Collect { node, live } => {
                    (ipam.plan_collect(&name(*node), |h| h.parse::<u8>().unwrap() < *live), ALL)
                }
                Act::Forget { node } => (ipam.plan_forget_node(&name(*node)), ALL),
            };
            plan.writes.iter().take(written).for_each(|w| store(&mut stored, w));
            if matches!(act, Act::Crash { .. }) {
                ipam = Ipam::new(config.clone(), stored.values().cloned()).unwrap();
            } else {
                ipam.commit(&plan);
            }
            match &act {
                Act::Assign { node, handle } => {
                    for ip in &plan.addresses {
                        let owner = model.entry(*ip).or_insert_with(|| (handle.to_string(), name(*node)));
                        prop_assert_eq!(&owner.0, &handle.to_string());
                        prop_assert!(config.pools.iter().any(|p| p.cidr().contains(ip)));
                    }
                }
                Act::Address { node, handle, ordinal } => {
                    let owner = (handle.to_string(), name(*node));
                    model.entry([10, 0, 0, *ordinal].into()).or_insert(owner);
                }
                Act::Release { handle } => model.retain(|_, o| o.0 != handle.to_string()),
                Act::Collect { node, live } => {
                    model.retain(|_, o| o.1 != name(*node) || o.0.parse::<u8>().unwrap() < *live);
                }
                Act::Forget { node } => model.retain(|_, o| o.1 != name(*node)),
                Act::Crash { .. } => {
                    // What was written counts; who had an address has it still.
                    for (ip, owner) in ipam.blocks().flat_map(Block::allocated) {
                        let owner = (owner.handle.clone(), owner.node.clone());
                        let same = model.entry(ip).or_insert_with(|| owner.clone()) == &owner;
                        prop_assert!(same);
                    }
                }
            }
            let found: BTreeMap<IpAddr, (String, String)> = ipam
                .blocks()
                .flat_map(Block::allocated)
                .map(|(ip, o)| (ip, (o.handle.clone(), o.node.clone())))
                .collect();
            prop_assert_eq!(&found, &model);
            for (ip, owner) in &model {
                prop_assert_eq!(&ipam.owner(*ip).unwrap().handle, &owner.0);
                prop_assert!(ipam.addresses(&owner.0).contains(ip));
            }
            prop_assert!(ipam.blocks().all(|b| b.check().is_ok() && stored.get(&b.cidr()) == Some(b)));
            prop_assert_eq!(ipam.blocks().count(), stored.len());
        }
    }
}
