//! Rules written from left to right, as `nft` writes them.

use alloc::string::String;
use alloc::vec::Vec;
use core::net::IpAddr;

use ipnet::IpNet;

use super::{
    Base, CmpOp, CtKey, Expr, FibResult, FieldType, MetaKey, NatKind, Reg, RejectKind, Rule, Type, Value,
    Verdict,
};

/// Where a field of a concatenated key comes from.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Field {
    /// The IPv4 or IPv6 source address.
    Source {
        /// Of IPv6.
        ipv6: bool,
    },
    /// The IPv4 or IPv6 destination address.
    Destination {
        /// Of IPv6.
        ipv6: bool,
    },
    /// The transport protocol.
    L4Proto,
    /// The source port.
    SourcePort,
    /// The destination port.
    DestinationPort,
    /// The mark.
    Mark,
    /// The incoming interface.
    IifName,
    /// The outgoing interface.
    OifName,
    /// A random number below a bound, from an offset on.
    Random {
        /// How many different numbers.
        modulus: u32,
        /// The lowest.
        offset: u32,
    },
    /// A constant.
    Constant(FieldType, Value),
}

impl Field {
    /// The type of the field.
    #[must_use]
    pub const fn kind(&self) -> FieldType {
        match self {
            Self::Source { ipv6: false } | Self::Destination { ipv6: false } => FieldType::Ipv4Addr,
            Self::Source { ipv6: true } | Self::Destination { ipv6: true } => FieldType::Ipv6Addr,
            Self::L4Proto => FieldType::InetProto,
            Self::SourcePort | Self::DestinationPort => FieldType::InetService,
            Self::Mark | Self::Random { .. } => FieldType::Mark,
            Self::IifName | Self::OifName => FieldType::IfName,
            Self::Constant(kind, _) => *kind,
        }
    }

    fn load(&self, to: Reg) -> Expr {
        let payload = |base, offset, len| Expr::Payload { base, offset, len, to };
        match self {
            Self::Source { ipv6: false } => payload(Base::Network, 12, 4),
            Self::Source { ipv6: true } => payload(Base::Network, 8, 16),
            Self::Destination { ipv6: false } => payload(Base::Network, 16, 4),
            Self::Destination { ipv6: true } => payload(Base::Network, 24, 16),
            Self::SourcePort => payload(Base::Transport, 0, 2),
            Self::DestinationPort => payload(Base::Transport, 2, 2),
            Self::L4Proto => Expr::Meta { key: MetaKey::L4Proto, to },
            Self::Mark => Expr::Meta { key: MetaKey::Mark, to },
            Self::IifName => Expr::Meta { key: MetaKey::IifName, to },
            Self::OifName => Expr::Meta { key: MetaKey::OifName, to },
            Self::Random { modulus, offset } => {
                Expr::Numgen { random: true, modulus: (*modulus).max(1), offset: *offset, to }
            }
            Self::Constant(_, value) => Expr::Immediate { to, value: value.clone() },
        }
    }
}

/// The type of a concatenation of `fields`.
#[must_use]
pub fn key_type(fields: &[Field]) -> Type {
    fields.iter().map(Field::kind).collect::<Vec<_>>().into()
}

/// How many registers a value of `kind` takes.
#[must_use]
pub fn registers(kind: &Type) -> u8 {
    u8::try_from(kind.len_bytes().div_ceil(u32::from(Reg::BYTES))).unwrap_or(Reg::COUNT)
}

/// Writes one rule.
///
/// ```
/// use icp_net::rules::{Field, RuleBuilder, Verdict};
/// let rule = RuleBuilder::new()
///     .in_set("blocked", &[Field::Source { ipv6: false }])
///     .verdict(Verdict::Drop)
///     .comment("blocked sources");
/// assert_eq!(rule.exprs.len(), 3);
/// ```
#[derive(Clone, Debug, Default)]
pub struct RuleBuilder {
    exprs: Vec<Expr>,
}

impl RuleBuilder {
    /// A rule that matches everything.
    #[must_use]
    pub const fn new() -> Self {
        Self { exprs: Vec::new() }
    }

    /// Any instruction.
    #[must_use]
    pub fn expr(mut self, expr: Expr) -> Self {
        self.exprs.push(expr);
        self
    }

    /// Loads fields into registers from `to` on.
    #[must_use]
    pub fn load(mut self, fields: &[Field], to: Reg) -> Self {
        let mut at = to;
        for field in fields {
            self.exprs.push(field.load(at));
            at = Reg(at.0.saturating_add(registers(&[field.kind()].into())));
        }
        self
    }

    fn compare(self, field: &Field, op: CmpOp, value: Value) -> Self {
        self.load(core::slice::from_ref(field), Reg(0)).expr(Expr::Cmp { op, from: Reg(0), value })
    }

    /// Matches if `field` is `value`.
    #[must_use]
    pub fn equals(self, field: &Field, value: impl Into<Value>) -> Self {
        self.compare(field, CmpOp::Eq, value.into())
    }

    /// Matches if `field` is not `value`.
    #[must_use]
    pub fn differs(self, field: &Field, value: impl Into<Value>) -> Self {
        self.compare(field, CmpOp::Neq, value.into())
    }

    fn net(self, field: &Field, net: IpNet, op: CmpOp) -> Self {
        let (mask, network): (Value, Value) = (net.netmask().into(), net.network().into());
        let xor = match net.addr() {
            IpAddr::V4(_) => Value::new(&[0; 4]),
            IpAddr::V6(_) => Value::new(&[0; 16]),
        };
        self.load(core::slice::from_ref(field), Reg(0))
            .expr(Expr::Bitwise { from: Reg(0), to: Reg(0), mask, xor })
            .expr(Expr::Cmp { op, from: Reg(0), value: network })
    }

    /// Matches if the address is in `net`.
    #[must_use]
    pub fn in_net(self, field: &Field, net: IpNet) -> Self {
        self.net(field, net, CmpOp::Eq)
    }

    /// Matches if the address is not in `net`.
    #[must_use]
    pub fn not_in_net(self, field: &Field, net: IpNet) -> Self {
        self.net(field, net, CmpOp::Neq)
    }

    fn bits(self, load: Expr, bits: u32, op: CmpOp) -> Self {
        let (mask, xor) = (Value::host32(bits), Value::host32(0));
        self.expr(load)
            .expr(Expr::Bitwise { from: Reg(0), to: Reg(0), mask, xor: xor.clone() })
            .expr(Expr::Cmp { op, from: Reg(0), value: xor })
    }

    /// Matches if the connection's state is one of `bits` ([`super::ct_state`]).
    #[must_use]
    pub fn ct_state(self, bits: u32) -> Self {
        self.bits(Expr::Ct { key: CtKey::State, to: Reg(0) }, bits, CmpOp::Neq)
    }

    /// Matches if the connection has one of the status `bits` ([`super::ct_status`]).
    #[must_use]
    pub fn ct_status(self, bits: u32) -> Self {
        self.bits(Expr::Ct { key: CtKey::Status, to: Reg(0) }, bits, CmpOp::Neq)
    }

    /// Matches if one of `bits` is set in the mark.
    #[must_use]
    pub fn mark_has(self, bits: u32) -> Self {
        self.bits(Expr::Meta { key: MetaKey::Mark, to: Reg(0) }, bits, CmpOp::Neq)
    }

    /// Sets `bits` in the mark.
    #[must_use]
    pub fn mark_set(self, bits: u32) -> Self {
        self.mark(!bits, bits)
    }

    /// Clears `bits` in the mark.
    #[must_use]
    pub fn mark_clear(self, bits: u32) -> Self {
        self.mark(!bits, 0)
    }

    fn mark(self, mask: u32, xor: u32) -> Self {
        let (mask, xor) = (Value::host32(mask), Value::host32(xor));
        self.expr(Expr::Meta { key: MetaKey::Mark, to: Reg(0) })
            .expr(Expr::Bitwise { from: Reg(0), to: Reg(0), mask, xor })
            .expr(Expr::SetMark { from: Reg(0) })
    }

    /// Matches if the destination (or the source) is an address of this machine.
    #[must_use]
    pub fn local(self, result: FibResult) -> Self {
        self.expr(Expr::Fib { result, to: Reg(0) }).expr(Expr::Cmp {
            op: CmpOp::Eq,
            from: Reg(0),
            value: Value::host32(super::FIB_LOCAL),
        })
    }

    /// Matches if the fields are an element of the set.
    #[must_use]
    pub fn in_set(self, set: &str, fields: &[Field]) -> Self {
        self.load(fields, Reg(0)).expr(Expr::Lookup { set: set.into(), from: Reg(0), invert: false })
    }

    /// Matches if the fields are no element of the set.
    #[must_use]
    pub fn not_in_set(self, set: &str, fields: &[Field]) -> Self {
        self.load(fields, Reg(0)).expr(Expr::Lookup { set: set.into(), from: Reg(0), invert: true })
    }

    /// Takes the verdict that the map has for the fields; goes on with the next rule if it has none.
    #[must_use]
    pub fn verdict_map(self, set: &str, fields: &[Field]) -> Self {
        self.load(fields, Reg(0)).expr(Expr::VerdictMap { set: set.into(), from: Reg(0) })
    }

    /// Matches if `map` has `value` for the fields.
    ///
    /// A value that one map gives cannot be looked up in the next: the kernel would do it, but `nft list` aborts on
    /// such a rule, whoever's table it stands in.
    #[must_use]
    pub fn map_equals(self, map: &str, fields: &[Field], value: impl Into<Value>) -> Self {
        let (op, value) = (CmpOp::Eq, value.into());
        self.load(fields, Reg(0))
            .expr(Expr::Map { set: map.into(), from: Reg(0), to: Reg(0) })
            .expr(Expr::Cmp { op, from: Reg(0), value })
    }

    /// Translates the destination to the address and port that stand in registers from `at` on.
    #[must_use]
    pub fn dnat(self, ipv6: bool, at: Reg) -> Self {
        let port = Some(Reg(at.0.saturating_add(if ipv6 { 4 } else { 1 })));
        self.expr(Expr::Nat { kind: NatKind::Destination, ipv6, address: at, port })
    }

    /// Counts.
    #[must_use]
    pub fn counter(self) -> Self {
        self.expr(Expr::Counter)
    }

    /// Refuses.
    #[must_use]
    pub fn reject(self, kind: RejectKind) -> Self {
        self.expr(Expr::Reject(kind))
    }

    /// Ends with a verdict.
    #[must_use]
    pub fn verdict(self, verdict: Verdict) -> Self {
        self.expr(Expr::Verdict(verdict))
    }

    /// The rule, with words for people.
    #[must_use]
    pub fn comment(self, comment: &str) -> Rule {
        Rule { exprs: self.exprs, comment: comment.into() }
    }

    /// The rule.
    #[must_use]
    pub fn build(self) -> Rule {
        Rule { exprs: self.exprs, comment: String::new() }
    }
}
