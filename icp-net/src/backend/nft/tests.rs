//! Against the kernel, in network namespaces of their own.

use std::format;
use std::string::String;
use std::vec;
use std::vec::Vec;

use expect_test::expect;

use super::*;
use crate::backend::testing::{in_new_netns, peer};
use crate::rules::*;

fn rich_table() -> Table {
    let (source, destination) = (Field::Source { ipv6: false }, Field::Destination { ipv6: false });
    let frontend = [destination.clone(), Field::L4Proto, Field::DestinationPort];
    let mut t = Table::new(Family::Ip, "icp-test");
    let mut services = Set::from(SetSpec::map("services", key_type(&frontend), [FieldType::Mark]));
    let vip = |n: u8| Value::concat().then(std::net::Ipv4Addr::new(10, 96, 0, n)).then(6u8).then(80u16);
    for n in 1..=3 {
        services.elements.insert(vip(n).into(), Data::Value(Value::host32(u32::from(n))));
    }
    t.set(services);
    let mut classes = Set::from(SetSpec::verdict_map("classes", [FieldType::Mark]));
    classes.elements.insert(Value::host32(2).into(), Data::Verdict(Verdict::Goto("two".into())));
    t.set(classes);
    let slot = Field::Random { modulus: 2, offset: 0 };
    let key: Vec<Field> = frontend.iter().cloned().chain([slot]).collect();
    let endpoint = [FieldType::Ipv4Addr, FieldType::InetService];
    let mut endpoints = Set::from(SetSpec::map("endpoints", key_type(&key), endpoint));
    for n in 0..2u8 {
        let to = Value::concat().then(std::net::Ipv4Addr::new(10, 244, 0, 5 + n)).then(8080u16);
        endpoints.elements.insert(vip(2).then(Value::host32(u32::from(n))).into(), Data::Value(to));
    }
    t.set(endpoints);
    let mut blocks = Set::from(SetSpec::new("blocks", [FieldType::Ipv4Addr]).intervals());
    for (low, high) in
        [("10.0.0.0", "10.0.0.255"), ("10.0.2.7", "10.0.2.7"), ("192.168.0.0", "192.168.255.255")]
    {
        let (low, high): (std::net::Ipv4Addr, std::net::Ipv4Addr) =
            (low.parse().unwrap(), high.parse().unwrap());
        let end = (low != high).then(|| Value::from(high));
        blocks.elements.insert(Key { value: low.into(), end }, Data::None);
    }
    t.set(blocks);
    let mut ranges =
        Set::from(SetSpec::new("ranges", key_type(&[source.clone(), Field::DestinationPort])).intervals());
    let at = |ip: [u8; 4], port: u16| Value::concat().then(std::net::Ipv4Addr::from(ip)).then(port);
    ranges
        .elements
        .insert(Key { value: at([10, 0, 0, 0], 80), end: Some(at([10, 255, 255, 255], 90)) }, Data::None);
    t.set(ranges);
    t.set(SetSpec::map("affinity", [FieldType::Ipv4Addr], endpoint).dynamic(10_800_000, 1024).into());
    t.chain(Chain::regular(
        "two",
        vec![
            RuleBuilder::new().not_in_net(&source, "10.244.0.0/16".parse().unwrap()).mark_set(0x4000).build(),
            RuleBuilder::new()
                .load(&key, Reg(0))
                .expr(Expr::Map { set: "endpoints".into(), from: Reg(0), to: Reg(0) })
                .dnat(false, Reg(0))
                .comment("pick an endpoint"),
        ],
    ));
    t.chain(Chain::base(
        "nat-prerouting",
        ChainType::Nat,
        Hook::Prerouting,
        -100,
        vec![
            RuleBuilder::new()
                .map_equals("services", &frontend, Value::host32(2))
                .verdict(Verdict::Goto("two".into()))
                .build(),
            RuleBuilder::new().verdict_map("classes", &[Field::Mark]).build(),
        ],
    ));
    t.chain(Chain::base(
        "nat-postrouting",
        ChainType::Nat,
        Hook::Postrouting,
        100,
        vec![
            RuleBuilder::new()
                .mark_has(0x4000)
                .mark_clear(0x4000)
                .expr(Expr::Masquerade { fully_random: true })
                .comment("masquerade"),
        ],
    ));
    t.chain(Chain::base(
        "filter-input",
        ChainType::Filter,
        Hook::Input,
        -110,
        vec![
            RuleBuilder::new()
                .ct_state(ct_state::ESTABLISHED | ct_state::RELATED)
                .verdict(Verdict::Accept)
                .build(),
            RuleBuilder::new()
                .in_set("blocks", core::slice::from_ref(&source))
                .counter()
                .verdict(Verdict::Drop)
                .build(),
            RuleBuilder::new()
                .in_set("ranges", &[source.clone(), Field::DestinationPort])
                .expr(Expr::Log { prefix: "range ".into(), group: None })
                .reject(RejectKind::PortUnreachable)
                .build(),
            RuleBuilder::new()
                .local(FibResult::DestinationType)
                .expr(Expr::Limit { rate: 10, unit_secs: 1, burst: 5, over: false })
                .load(&[source, destination, Field::DestinationPort], Reg(0))
                .expr(Expr::Dynset {
                    set: "affinity".into(),
                    op: DynsetOp::Update,
                    key: Reg(0),
                    data: Some(Reg(1)),
                    timeout_ms: 60_000,
                    each: None,
                })
                .build(),
            RuleBuilder::new()
                .equals(&Field::IifName, Value::ifname("eth0"))
                .verdict(Verdict::Return)
                .build(),
        ],
    ));
    t
}

#[test]
fn what_was_written_is_read_back_and_a_second_sync_writes_nothing() {
    in_new_netns(|| {
        let desired = rich_table();
        let mut nft = Nft::open().unwrap();
        assert_eq!(nft.snapshot(&desired.id).unwrap(), None);
        nft.apply(&sync(&desired, None)).unwrap();
        let observed = nft.snapshot(&desired.id).unwrap().unwrap();
        assert_eq!(observed, Snapshot::from(&desired));
        assert!(sync(&desired, Some(&observed)).is_empty());
    });
}

#[test]
fn a_changed_table_is_mended_and_foreign_ones_stay() {
    in_new_netns(|| {
        let mut nft = Nft::open().unwrap();
        let foreign = Table::new(Family::Ip, "foreign");
        nft.apply(&sync(&foreign, None)).unwrap();
        let mut desired = rich_table();
        nft.apply(&sync(&desired, None)).unwrap();
        desired.chains.remove("two");
        desired.chains.get_mut("nat-prerouting").unwrap().rules.remove(0);
        desired.sets.get_mut("classes").unwrap().elements.clear();
        desired.sets.get_mut("blocks").unwrap().elements.pop_first();
        desired.chain(Chain::regular("three", vec![RuleBuilder::new().verdict(Verdict::Drop).build()]));
        let key = Value::host32(2).into();
        let to_three = Data::Verdict(Verdict::Goto("three".into()));
        desired.sets.get_mut("classes").unwrap().elements.insert(key, to_three);
        desired.sets.remove("ranges");
        desired.chains.get_mut("filter-input").unwrap().rules.remove(2);
        let observed = nft.snapshot(&desired.id).unwrap();
        nft.apply(&sync(&desired, observed.as_ref())).unwrap();
        assert_eq!(nft.snapshot(&desired.id).unwrap().unwrap(), Snapshot::from(&desired));

        // A set of another definition forces the table to be made anew.
        desired.set(SetSpec::new("blocks", [FieldType::Ipv6Addr]).into());
        desired.chains.get_mut("filter-input").unwrap().rules.clear();
        let observed = nft.snapshot(&desired.id).unwrap();
        nft.apply(&sync(&desired, observed.as_ref())).unwrap();
        assert_eq!(nft.snapshot(&desired.id).unwrap().unwrap(), Snapshot::from(&desired));
        assert_eq!(nft.tables(Family::Ip).unwrap(), ["foreign", "icp-test"]);
    });
}

#[test]
fn a_refused_batch_changes_nothing_and_names_the_change() {
    in_new_netns(|| {
        let mut nft = Nft::open().unwrap();
        let id = rich_table().id;
        let orphan = Rule { exprs: vec![Expr::Counter], comment: String::new() };
        let batch = Batch {
            changes: vec![
                Change::AddTable(id.clone()),
                Change::AddRule(id.clone(), "nowhere".into(), orphan),
            ],
        };
        let e = nft.apply(&batch).unwrap_err();
        assert!(e.is(Errno::ENOENT) && e.is_stale() && format!("{e}").contains("nowhere"), "{e}");
        assert_eq!(nft.snapshot(&id).unwrap(), None);

        let generation = nft.generation().unwrap();
        nft.apply_at(&Batch { changes: vec![Change::AddTable(id.clone())] }, generation).unwrap();
        let late = nft.apply_at(&Batch { changes: vec![Change::DeleteTable(id)] }, generation).unwrap_err();
        assert!(late.is(Errno::ERESTART), "{late}");
    });
}

#[test]
fn more_elements_than_a_message_holds_are_cut_and_come_back() {
    in_new_netns(|| {
        let mut nft = Nft::open().unwrap();
        let mut table = Table::new(Family::Ip, "large");
        let mut set = Set::from(SetSpec::map("m", [FieldType::Ipv4Addr], [FieldType::Mark]));
        for n in 0..20_000u32 {
            let ip = std::net::Ipv4Addr::from(0x0a00_0000 + n);
            set.elements.insert(Value::from(ip).into(), Data::Value(Value::host32(n)));
        }
        table.set(set);
        let applied = nft.apply(&sync(&table, None)).unwrap();
        assert!(applied.bytes > 300_000);
        // Not assert_eq: its message would be a megabyte.
        assert!(nft.snapshot(&table.id).unwrap().unwrap() == Snapshot::from(&table));
    });
}

/// `nft` prints what we mean.
#[test]
fn nft_lists_what_was_written() {
    in_new_netns(|| {
        let Some(run) = peer("nft") else { return };
        Nft::open().unwrap().apply(&sync(&rich_table(), None)).unwrap();
        let listed = run(&["list", "ruleset"]);
        expect![[r#"
            table ip icp-test {
            	map affinity {
            		type ipv4_addr : ipv4_addr . inet_service
            		size 1024
            		flags dynamic,timeout
            		timeout 3h
            	}

            	set blocks {
            		type ipv4_addr
            		flags interval
            		elements = { 10.0.0.0/24, 10.0.2.7,
            			     192.168.0.0/16 }
            	}

            	map classes {
            		type mark : verdict
            		elements = { 0x00000002 : goto two }
            	}

            	map endpoints {
            		type ipv4_addr . inet_proto . inet_service . mark : ipv4_addr . inet_service
            		elements = { 10.96.0.2 . tcp . 80 . 0x00000000 : 10.244.0.5 . 8080,
            			     10.96.0.2 . tcp . 80 . 0x00000001 : 10.244.0.6 . 8080 }
            	}

            	set ranges {
            		type ipv4_addr . inet_service
            		flags interval
            		elements = { 10.0.0.0/8 . 80-90 }
            	}

            	map services {
            		type ipv4_addr . inet_proto . inet_service : mark
            		elements = { 10.96.0.1 . tcp . 80 : 0x00000001,
            			     10.96.0.2 . tcp . 80 : 0x00000002,
            			     10.96.0.3 . tcp . 80 : 0x00000003 }
            	}

            	chain filter-input {
            		type filter hook input priority -110; policy accept;
            		ct state established,related accept comment "[icp:2b16ed3332e7e950]"
            		ip saddr @blocks counter packets 0 bytes 0 drop comment "[icp:0190c8fdec4326f7]"
            		ip saddr . th dport @ranges log prefix "range " reject comment "[icp:e02e5701b7adb995]"
            		fib daddr type local limit rate 10/second update @affinity { ip saddr timeout 1m : ip daddr . th dport } comment "[icp:93812ed9d44d09fc]"
            		iifname "eth0" return comment "[icp:010b0462d17076f9]"
            	}

            	chain nat-postrouting {
            		type nat hook postrouting priority srcnat; policy accept;
            		meta mark & 0x00004000 != 0x00000000 meta mark set meta mark & 0xffffbfff masquerade fully-random comment "masquerade [icp:ac0e3a613759b23b]"
            	}

            	chain nat-prerouting {
            		type nat hook prerouting priority dstnat; policy accept;
            		ip daddr . meta l4proto . th dport map @services 0x2000000 [invalid type] goto two comment "[icp:8a9c30143422cdbb]"
            		meta mark vmap @classes comment "[icp:14833d796a2181c0]"
            	}

            	chain two {
            		ip saddr != 10.244.0.0/16 meta mark set meta mark | 0x00004000 comment "[icp:8bbab778d2e97619]"
            		dnat ip to ip daddr . meta l4proto . th dport . numgen random mod 2 map @endpoints comment "pick an endpoint [icp:e94bda55ce3b83bf]"
            	}
            }
        "#]].assert_eq(&listed);
    });
}
