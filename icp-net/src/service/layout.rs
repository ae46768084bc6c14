//! The table: fixed sets and chains, and a chain for each class of services.
//!
//! The kernel takes time in proportion to all services for each chain, anonymous map or verdict element that it adds,
//! so that none of these exists per service. A service is elements of plain maps: `(address, protocol, port)` to a
//! *class*, and `(address, protocol, port, slot)` to an endpoint. A class says how many slots there are to pick from
//! and what else is to be done; a handful of chains, one a class, do it.

use alloc::collections::{BTreeMap, BTreeSet};
use alloc::format;
use alloc::string::String;
use alloc::vec;
use alloc::vec::Vec;
use core::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use ipnet::IpNet;

use super::config::Config;
use crate::rules::{
    Chain, ChainType, Data, DynsetOp, Expr, Family, FibResult, Field, FieldType, Hook, Reg, RejectKind, Rule,
    RuleBuilder, SetSpec, Table, Value, Verdict, ct_state, ct_status, key_type,
};

/// How traffic comes to a service.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) enum Kind {
    /// To an address of the service.
    Address,
    /// To a port of the node.
    NodePort,
}

impl Kind {
    pub(crate) const BOTH: [Self; 2] = [Self::Address, Self::NodePort];

    pub(crate) const fn classes(self) -> &'static str {
        match self {
            Self::Address => "services",
            Self::NodePort => "nodeports",
        }
    }

    pub(crate) const fn endpoints(self) -> &'static str {
        match self {
            Self::Address => "endpoints",
            Self::NodePort => "nodeport-endpoints",
        }
    }

    pub(crate) const fn rejected(self) -> &'static str {
        match self {
            Self::Address => "rejected-services",
            Self::NodePort => "rejected-nodeports",
        }
    }

    pub(crate) const fn dropped(self) -> &'static str {
        match self {
            Self::Address => "dropped-services",
            Self::NodePort => "dropped-nodeports",
        }
    }

    const fn affinity(self) -> &'static str {
        match self {
            Self::Address => "affinity",
            Self::NodePort => "nodeport-affinity",
        }
    }

    const fn prefix(self) -> &'static str {
        match self {
            Self::Address => "service",
            Self::NodePort => "nodeport",
        }
    }

    fn key(self, ipv6: bool) -> Vec<Field> {
        match self {
            Self::Address => vec![Field::Destination { ipv6 }, Field::L4Proto, Field::DestinationPort],
            Self::NodePort => vec![Field::L4Proto, Field::DestinationPort],
        }
    }
}

/// Whose source is masqueraded.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) enum Masquerade {
    /// Everybody's: the answer must come back through this node.
    Always,
    /// That of clients which are not pods.
    OffCluster,
}

/// What services have in common that one chain can serve.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) struct Class {
    /// Slots to pick from.
    pub(crate) slots: u32,
    /// Slots with endpoints on this node, for traffic from outside (`externalTrafficPolicy: Local`), which then
    /// keeps its source; `None` if it is treated as all other.
    pub(crate) local_slots: Option<u32>,
    pub(crate) masquerade: Masquerade,
    /// Seconds a client is bound to its slot; 0 without.
    pub(crate) affinity_secs: u32,
}

/// Slots of local endpoints are numbered from here on.
pub(crate) const LOCAL_BASE: u32 = 1 << 16;

impl Class {
    fn name(&self, kind: Kind) -> String {
        let mut name = format!("{}-{}", kind.prefix(), self.slots);
        if let Some(local) = self.local_slots {
            name.push_str(&format!("-local-{local}"));
        }
        if self.masquerade == Masquerade::Always {
            name.push_str("-masquerade");
        }
        if self.affinity_secs > 0 {
            name.push_str(&format!("-affinity-{}", self.affinity_secs));
        }
        name
    }

    /// The number that stands for the class in maps; the same in each run, so that a restart finds it again.
    fn preferred_id(&self) -> u32 {
        use core::hash::BuildHasher;
        let hash = foldhash::quality::FixedState::with_seed(0).hash_one(self);
        u32::try_from(hash & 0x7fff_ffff).unwrap_or(0)
    }
}

/// Numbers for classes, and how many services use each.
#[derive(Clone, Debug, Default)]
pub(crate) struct Classes {
    used: BTreeMap<(Kind, Class), usize>,
    ids: BTreeMap<Class, u32>,
}

impl Classes {
    pub(crate) fn acquire(&mut self, kind: Kind, class: Class) -> u32 {
        *self.used.entry((kind, class)).or_insert(0) += 1;
        if let Some(id) = self.ids.get(&class) {
            return *id;
        }
        let taken: BTreeSet<u32> = self.ids.values().copied().collect();
        let mut id = class.preferred_id();
        while taken.contains(&id) {
            id = (id + 1) & 0x7fff_ffff;
        }
        self.ids.insert(class, id);
        id
    }

    pub(crate) fn release(&mut self, kind: Kind, class: Class) {
        if let Some(count) = self.used.get_mut(&(kind, class)) {
            *count -= 1;
            if *count == 0 {
                self.used.remove(&(kind, class));
                if Kind::BOTH.iter().all(|k| !self.used.contains_key(&(*k, class))) {
                    self.ids.remove(&class);
                }
            }
        }
    }

    pub(crate) fn len(&self) -> usize {
        self.used.len()
    }

    fn of(&self, kind: Kind) -> impl Iterator<Item = (Class, u32)> {
        self.used.keys().filter(move |(k, _)| *k == kind).filter_map(|(_, c)| Some((*c, *self.ids.get(c)?)))
    }
}

/// The destination translation's place, as in `pkg/proxy/nftables`.
const DNAT_PRIORITY: i32 = -100;
const SNAT_PRIORITY: i32 = 100;
const FILTER_PRIORITY: i32 = -110;
const AFTER_DNAT_PRIORITY: i32 = -90;
/// Most clients that are bound at a time.
const AFFINITY_SIZE: u32 = 262_144;
/// How often a free slot is drawn at random before all are tried in turn. Free slots come from endpoints that went;
/// with half of the slots free, 1 connection in 256 is left to the turn.
const DRAWS: usize = 8;

/// Builds the table of one family, without the elements of services.
pub(crate) struct Layout<'a> {
    pub(crate) config: &'a Config,
    pub(crate) ipv6: bool,
}

impl Layout<'_> {
    pub(crate) fn family(&self) -> Family {
        if self.ipv6 { Family::Ip6 } else { Family::Ip }
    }

    fn ip_type(&self) -> FieldType {
        if self.ipv6 { FieldType::Ipv6Addr } else { FieldType::Ipv4Addr }
    }

    fn source(&self) -> Field {
        Field::Source { ipv6: self.ipv6 }
    }

    fn destination(&self) -> Field {
        Field::Destination { ipv6: self.ipv6 }
    }

    fn nets<'b>(&self, of: &'b [IpNet]) -> impl Iterator<Item = IpNet> + use<'b> {
        let ipv6 = self.ipv6;
        of.iter().copied().filter(move |n| n.addr().is_ipv6() == ipv6)
    }

    /// The definitions of all sets that hold elements of services.
    pub(crate) fn sets(&self) -> Vec<SetSpec> {
        let mut sets = Vec::new();
        for kind in Kind::BOTH {
            let key = kind.key(self.ipv6);
            let slot: Vec<Field> = key.iter().cloned().chain([Field::Mark]).collect();
            let client: Vec<Field> = core::iter::once(self.source()).chain(key.iter().cloned()).collect();
            sets.push(SetSpec::map(kind.classes(), key_type(&key), [FieldType::Mark]));
            let endpoint = [self.ip_type(), FieldType::InetService];
            sets.push(SetSpec::map(kind.endpoints(), key_type(&slot), endpoint));
            sets.push(SetSpec::new(kind.rejected(), key_type(&key)));
            sets.push(SetSpec::new(kind.dropped(), key_type(&key)));
            let timeout_ms = 10_800_000;
            sets.push(
                SetSpec::map(kind.affinity(), key_type(&client), [FieldType::Mark])
                    .dynamic(timeout_ms, AFFINITY_SIZE),
            );
        }
        sets.push(SetSpec::new(CLUSTER_IPS, [self.ip_type()]));
        sets.push(SetSpec::new(HAIRPIN, [self.ip_type(), self.ip_type()]));
        let key = Kind::Address.key(self.ipv6);
        sets.push(SetSpec::new(GUARDED, key_type(&key)));
        let guarded: Vec<Field> = key.into_iter().chain([self.source()]).collect();
        sets.push(SetSpec::new(ALLOWED_SOURCES, key_type(&guarded)).intervals());
        sets
    }

    /// The table with the chains of `classes`.
    pub(crate) fn table(&self, classes: &Classes) -> Table {
        let mut table = Table::new(self.family(), &self.config.table);
        for spec in self.sets() {
            table.set(spec.into());
        }
        self.dispatch(&mut table, classes);
        for kind in Kind::BOTH {
            for (class, _) in classes.of(kind) {
                self.class(&mut table, kind, class);
            }
        }
        self.translation(&mut table);
        self.filter(&mut table);
        table
    }

    fn dispatch(&self, table: &mut Table, classes: &Classes) {
        let rules = |kind: Kind| {
            classes.of(kind).map(move |(class, id)| {
                RuleBuilder::new()
                    .map_equals(kind.classes(), &kind.key(self.ipv6), Value::host32(id))
                    .verdict(Verdict::Goto(class.name(kind)))
                    .build()
            })
        };
        let mut services: Vec<Rule> = rules(Kind::Address).collect();
        services.extend(self.to_node_ports("nodeports", &RuleBuilder::new()));
        table.chain(Chain::regular("services", services));
        table.chain(Chain::regular("nodeports", rules(Kind::NodePort).collect()));
    }

    /// Rules that send packets to node ports on to `chain`: those to an address of this machine, but for loopback.
    fn to_node_ports(&self, chain: &str, start: &RuleBuilder) -> Vec<Rule> {
        let loopback: IpNet = match self.ipv6 {
            false => IpNet::new_assert(Ipv4Addr::new(127, 0, 0, 0).into(), 8),
            true => IpNet::new_assert(Ipv6Addr::LOCALHOST.into(), 128),
        };
        let local = start.clone().local(FibResult::DestinationType).not_in_net(&self.destination(), loopback);
        let to = Verdict::Jump(chain.into());
        let mut chosen = self.nets(&self.config.node_port_networks).peekable();
        if chosen.peek().is_none() && self.config.node_port_networks.is_empty() {
            return vec![local.verdict(to).build()];
        }
        chosen.map(|net| local.clone().in_net(&self.destination(), net).verdict(to.clone()).build()).collect()
    }

    fn mark_rule(&self, start: RuleBuilder, comment: &str) -> Rule {
        start.mark_set(self.config.masquerade_mark).comment(comment)
    }

    fn class(&self, table: &mut Table, kind: Kind, class: Class) {
        let name = class.name(kind);
        let mut rules = Vec::new();
        if let Some(local_slots) = class.local_slots {
            let all = format!("{name}-all");
            let mut all_rules = Vec::new();
            self.pick(table, &mut all_rules, kind, class, 0, class.slots);
            table.chain(Chain::regular(&all, all_rules));
            let goto_all = Verdict::Goto(all);
            for net in self.nets(&self.config.pod_networks) {
                let from_pod = RuleBuilder::new().in_net(&self.source(), net);
                rules.push(from_pod.verdict(goto_all.clone()).comment("pods reach all endpoints"));
            }
            let from_node = RuleBuilder::new().local(FibResult::SourceType);
            let from_node = from_node.mark_set(self.config.masquerade_mark).verdict(goto_all);
            rules.push(from_node.comment("the node reaches all endpoints"));
            if local_slots == 0 {
                rules.push(RuleBuilder::new().verdict(Verdict::Drop).comment("no endpoint on this node"));
            } else {
                self.pick(table, &mut rules, kind, class, LOCAL_BASE, local_slots);
            }
        } else {
            match class.masquerade {
                Masquerade::Always => {
                    rules.push(self.mark_rule(RuleBuilder::new(), "the answer must come back here"));
                }
                Masquerade::OffCluster if self.config.masquerade_all => {
                    rules.push(self.mark_rule(RuleBuilder::new(), "masquerade all"));
                }
                Masquerade::OffCluster => {
                    let mut outside = RuleBuilder::new();
                    let mut any = false;
                    for net in self.nets(&self.config.pod_networks) {
                        outside = outside.not_in_net(&self.source(), net);
                        any = true;
                    }
                    if any {
                        rules.push(self.mark_rule(outside, "from outside of the cluster"));
                    }
                }
            }
            self.pick(table, &mut rules, kind, class, 0, class.slots);
        }
        table.chain(Chain::regular(&name, rules));
    }

    /// Rules that translate to the endpoint of a slot between `base` and `base + slots - 1`.
    fn pick(
        &self,
        table: &mut Table,
        rules: &mut Vec<Rule>,
        kind: Kind,
        class: Class,
        base: u32,
        slots: u32,
    ) {
        if class.affinity_secs == 0 {
            let slot = Field::Random { modulus: slots, offset: base };
            rules.push(self.to_slot(RuleBuilder::new(), kind, slot, "pick an endpoint"));
            return;
        }
        let client: Vec<Field> = core::iter::once(self.source()).chain(kind.key(self.ipv6)).collect();
        let slot_chain =
            |slot: u32| format!("{}-slot-{slot}-affinity-{}", kind.prefix(), class.affinity_secs);
        let verdicts = format!("{}-slots-affinity-{}", kind.prefix(), class.affinity_secs);
        let all = base..base.saturating_add(slots);
        for slot in all.clone() {
            let bound = RuleBuilder::new().map_equals(kind.affinity(), &client, Value::host32(slot));
            rules.push(bound.verdict(Verdict::Jump(slot_chain(slot))).build());
        }
        // The client is new here, or its endpoint is gone. Updating an element would not change its slot.
        let unbind = RuleBuilder::new().load(&client, Reg(0));
        let unbind = unbind.expr(Expr::Immediate { to: AFFINITY_DATA_REG, value: Value::host32(0) });
        let unbind = unbind.expr(Expr::Dynset {
            set: kind.affinity().into(),
            op: DynsetOp::Delete,
            key: Reg(0),
            data: Some(AFFINITY_DATA_REG),
            timeout_ms: 0,
            each: None,
        });
        rules.push(unbind.comment("forget the slot of an endpoint that is gone"));
        let draw = Field::Random { modulus: slots, offset: base };
        for _ in 0..DRAWS {
            rules.push(RuleBuilder::new().verdict_map(&verdicts, core::slice::from_ref(&draw)).build());
        }
        for slot in all.clone() {
            rules.push(RuleBuilder::new().verdict(Verdict::Jump(slot_chain(slot))).build());
        }
        let map = table
            .sets
            .entry(verdicts.clone())
            .or_insert_with(|| SetSpec::verdict_map(&verdicts, [FieldType::Mark]).into());
        for slot in all.clone() {
            let jump = Data::Verdict(Verdict::Jump(slot_chain(slot)));
            map.elements.insert(Value::host32(slot).into(), jump);
        }
        for slot in all {
            let value = Value::host32(slot);
            let field = Field::Constant(FieldType::Mark, value.clone());
            let key: Vec<Field> = kind.key(self.ipv6).into_iter().chain([field]).collect();
            // An empty slot ends the rule at the first map: nothing is bound, and the next slot is tried.
            let rule = RuleBuilder::new()
                .load(&key, Reg(0))
                .expr(Expr::Map { set: kind.endpoints().into(), from: Reg(0), to: self.endpoint_reg() })
                .load(&client, Reg(0))
                .expr(Expr::Immediate { to: AFFINITY_DATA_REG, value })
                .expr(Expr::Dynset {
                    set: kind.affinity().into(),
                    op: DynsetOp::Update,
                    key: Reg(0),
                    data: Some(AFFINITY_DATA_REG),
                    timeout_ms: u64::from(class.affinity_secs) * 1_000,
                    each: None,
                })
                .dnat(self.ipv6, self.endpoint_reg())
                .build();
            table.chain(Chain::regular(&slot_chain(slot), vec![rule]));
        }
    }

    /// Behind the registers of the longest key: of a client, 4 for IPv4 and 10 for IPv6, and of its slot.
    const fn endpoint_reg(&self) -> Reg {
        if self.ipv6 { Reg(11) } else { Reg(8) }
    }

    fn to_slot(&self, start: RuleBuilder, kind: Kind, slot: Field, comment: &str) -> Rule {
        let key: Vec<Field> = kind.key(self.ipv6).into_iter().chain([slot]).collect();
        start
            .load(&key, Reg(0))
            .expr(Expr::Map { set: kind.endpoints().into(), from: Reg(0), to: Reg(0) })
            .dnat(self.ipv6, Reg(0))
            .comment(comment)
    }

    fn translation(&self, table: &mut Table) {
        let to_services = || vec![RuleBuilder::new().verdict(Verdict::Jump("services".into())).build()];
        let base = |name, hook, priority, rules| Chain::base(name, ChainType::Nat, hook, priority, rules);
        table.chain(base("nat-prerouting", Hook::Prerouting, DNAT_PRIORITY, to_services()));
        table.chain(base("nat-output", Hook::Output, DNAT_PRIORITY, to_services()));
        let mark = self.config.masquerade_mark;
        let masquerade = Expr::Masquerade { fully_random: true };
        let marked = RuleBuilder::new().mark_has(mark).mark_clear(mark).expr(masquerade.clone());
        let hairpin = RuleBuilder::new()
            .ct_status(ct_status::DNAT)
            .in_set(HAIRPIN, &[self.source(), self.destination()])
            .expr(masquerade);
        let rules = vec![marked.comment("masquerade"), hairpin.comment("an endpoint that calls itself")];
        table.chain(base("nat-postrouting", Hook::Postrouting, SNAT_PRIORITY, rules));
    }

    fn filter(&self, table: &mut Table) {
        let key = Kind::Address.key(self.ipv6);
        let guarded: Vec<Field> = key.iter().cloned().chain([self.source()]).collect();
        let jump = |to: &str| {
            let new = RuleBuilder::new().ct_state(ct_state::NEW);
            new.verdict(Verdict::Jump(to.into())).build()
        };
        let base = |name, hook, priority, rules| Chain::base(name, ChainType::Filter, hook, priority, rules);
        let refuse = |kind: Kind| {
            let key = kind.key(self.ipv6);
            [
                RuleBuilder::new()
                    .in_set(kind.dropped(), &key)
                    .verdict(Verdict::Drop)
                    .comment("no local endpoint"),
                RuleBuilder::new()
                    .in_set(kind.rejected(), &key)
                    .reject(RejectKind::PortUnreachable)
                    .comment("no endpoint"),
            ]
        };
        let no_endpoint = Vec::from(refuse(Kind::Address));
        table.chain(Chain::regular("no-endpoint", no_endpoint));
        table.chain(Chain::regular("no-endpoint-nodeports", Vec::from(refuse(Kind::NodePort))));
        let mut cluster_ips = vec![
            RuleBuilder::new()
                .in_set(CLUSTER_IPS, &[self.destination()])
                .reject(RejectKind::PortUnreachable)
                .comment("no such port of the service"),
        ];
        for net in self.nets(&self.config.service_networks) {
            let unknown = RuleBuilder::new().in_net(&self.destination(), net).verdict(Verdict::Drop);
            cluster_ips.push(unknown.comment("no such service"));
        }
        table.chain(Chain::regular("unused-cluster-ips", cluster_ips));
        let guard = RuleBuilder::new().in_set(GUARDED, &key).not_in_set(ALLOWED_SOURCES, &guarded);
        let guard = guard.verdict(Verdict::Drop).comment("source not allowed");
        table.chain(Chain::regular("source-ranges", vec![guard]));

        table.chain(base(
            "filter-prerouting",
            Hook::Prerouting,
            FILTER_PRIORITY,
            vec![jump("source-ranges")],
        ));
        let mut input = vec![jump("no-endpoint")];
        let new = RuleBuilder::new().ct_state(ct_state::NEW);
        input.extend(self.to_node_ports("no-endpoint-nodeports", &new));
        table.chain(base("filter-input", Hook::Input, FILTER_PRIORITY, input));
        let forward = vec![jump("no-endpoint"), jump("unused-cluster-ips")];
        table.chain(base("filter-forward", Hook::Forward, FILTER_PRIORITY, forward));
        let output = vec![jump("no-endpoint"), jump("source-ranges")];
        table.chain(base("filter-output", Hook::Output, FILTER_PRIORITY, output));
        let after = vec![jump("unused-cluster-ips")];
        table.chain(base("filter-output-after-dnat", Hook::Output, AFTER_DNAT_PRIORITY, after));
    }
}

pub(crate) const CLUSTER_IPS: &str = "cluster-ips";
pub(crate) const HAIRPIN: &str = "hairpin";
pub(crate) const GUARDED: &str = "guarded-services";
pub(crate) const ALLOWED_SOURCES: &str = "allowed-sources";
const AFFINITY_DATA_REG: Reg = Reg(10);

/// The key of a frontend, as elements have it.
pub(crate) fn frontend(ip: Option<IpAddr>, protocol: u8, port: u16) -> Value {
    let start = ip.map_or_else(Value::concat, |ip| Value::concat().then(ip));
    start.then(protocol).then(port)
}
