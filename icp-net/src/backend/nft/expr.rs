//! Instructions to netlink attributes. The attribute numbers are those of `linux/netfilter/nf_tables.h`.

use super::constants::*;
use crate::backend::netlink::Encoder;
use crate::rules::{
    Base, CmpOp, CtKey, DynsetOp, Expr, Family, FibResult, MetaKey, NatKind, Reg, RejectKind, Value, Verdict,
};

/// `NFT_REG_VERDICT`.
const REG_VERDICT: u32 = 0;
/// `NFT_REG32_00`.
const REG_FIRST: u32 = 8;

const fn reg(r: Reg) -> u32 {
    REG_FIRST + r.0 as u32
}

pub(super) fn value(e: &mut Encoder, v: &Value) {
    e.attr(DATA_VALUE, v.bytes());
}

pub(super) fn verdict_data(e: &mut Encoder, v: &Verdict) {
    let (code, chain) = match v {
        Verdict::Accept => (VERDICT_ACCEPT, None),
        Verdict::Drop => (VERDICT_DROP, None),
        Verdict::Continue => (VERDICT_CONTINUE, None),
        Verdict::Return => (VERDICT_RETURN, None),
        Verdict::Jump(to) => (VERDICT_JUMP, Some(to)),
        Verdict::Goto(to) => (VERDICT_GOTO, Some(to)),
    };
    e.nested(DATA_VERDICT, |e| {
        e.attr(VERDICT_CODE, &code.to_be_bytes());
        if let Some(chain) = chain {
            e.str(VERDICT_CHAIN, chain);
        }
    });
}

pub(super) fn write_expr(e: &mut Encoder, family: Family, expr: &Expr) {
    e.nested(LIST_ELEM, |e| body(e, family, expr));
}

fn named(e: &mut Encoder, name: &str, data: impl FnOnce(&mut Encoder)) {
    e.str(EXPR_NAME, name).nested(EXPR_DATA, data);
}

#[expect(clippy::too_many_lines, reason = "one arm an instruction")]
fn body(e: &mut Encoder, family: Family, expr: &Expr) {
    match expr {
        Expr::Payload { base, offset, len, to } => named(e, "payload", |e| {
            let base = match base {
                Base::Link => 0,
                Base::Network => 1,
                Base::Transport => 2,
            };
            e.be32(1, reg(*to)).be32(2, base).be32(3, *offset).be32(4, *len);
        }),
        Expr::Meta { key, to } => named(e, "meta", |e| {
            e.be32(1, reg(*to)).be32(2, meta_key(*key));
        }),
        Expr::SetMark { from } => named(e, "meta", |e| {
            e.be32(2, meta_key(MetaKey::Mark)).be32(3, reg(*from));
        }),
        Expr::Ct { key, to } => named(e, "ct", |e| {
            e.be32(1, reg(*to)).be32(2, ct_key(*key));
            if matches!(key, CtKey::OriginalAddress | CtKey::OriginalPort) {
                e.u8(3, 0);
            }
        }),
        Expr::SetCtMark { from } => named(e, "ct", |e| {
            e.be32(2, ct_key(CtKey::Mark)).be32(4, reg(*from));
        }),
        Expr::Cmp { op, from, value: v } => named(e, "cmp", |e| {
            let op = match op {
                CmpOp::Eq => 0,
                CmpOp::Neq => 1,
                CmpOp::Lt => 2,
                CmpOp::Lte => 3,
                CmpOp::Gt => 4,
                CmpOp::Gte => 5,
            };
            e.be32(1, reg(*from)).be32(2, op).nested(3, |e| value(e, v));
        }),
        Expr::Range { invert, from, low, high } => named(e, "range", |e| {
            e.be32(1, reg(*from)).be32(2, u32::from(*invert));
            e.nested(3, |e| value(e, low)).nested(4, |e| value(e, high));
        }),
        Expr::Bitwise { from, to, mask, xor } => named(e, "bitwise", |e| {
            let len = u32::try_from(mask.bytes().len()).unwrap_or(0);
            e.be32(1, reg(*from)).be32(2, reg(*to)).be32(3, len).be32(6, 0);
            e.nested(4, |e| value(e, mask)).nested(5, |e| value(e, xor));
        }),
        Expr::Byteorder { from, to } => named(e, "byteorder", |e| {
            e.be32(1, reg(*from)).be32(2, reg(*to)).be32(3, 1).be32(4, 4).be32(5, 4);
        }),
        Expr::Immediate { to, value: v } => named(e, "immediate", |e| {
            e.be32(1, reg(*to)).nested(2, |e| value(e, v));
        }),
        Expr::Verdict(v) => named(e, "immediate", |e| {
            e.be32(1, REG_VERDICT).nested(2, |e| verdict_data(e, v));
        }),
        Expr::Lookup { set, from, invert } => named(e, "lookup", |e| {
            e.str(1, set).be32(2, reg(*from));
            if *invert {
                e.be32(5, 1);
            }
        }),
        Expr::Map { set, from, to } => named(e, "lookup", |e| {
            e.str(1, set).be32(2, reg(*from)).be32(3, reg(*to));
        }),
        Expr::VerdictMap { set, from } => named(e, "lookup", |e| {
            e.str(1, set).be32(2, reg(*from)).be32(3, REG_VERDICT);
        }),
        Expr::Nat { kind, ipv6, address, port } => named(e, "nat", |e| {
            e.be32(1, u32::from(*kind == NatKind::Destination)).be32(2, if *ipv6 { 10 } else { 2 });
            e.be32(3, reg(*address));
            if let Some(port) = port {
                e.be32(5, reg(*port));
            }
        }),
        Expr::Masquerade { fully_random } => named(e, "masq", |e| {
            if *fully_random {
                e.be32(1, NAT_RANDOM_FULLY);
            }
        }),
        Expr::Counter => named(e, "counter", |e| {
            e.be64(1, 0).be64(2, 0);
        }),
        Expr::Numgen { random, modulus, offset, to } => named(e, "numgen", |e| {
            e.be32(1, reg(*to)).be32(2, *modulus).be32(3, u32::from(*random)).be32(4, *offset);
        }),
        Expr::Hash { from, len, modulus, seed, offset, to } => named(e, "hash", |e| {
            e.be32(1, reg(*from)).be32(2, reg(*to)).be32(3, *len).be32(4, *modulus).be32(5, *seed);
            e.be32(6, *offset).be32(7, 0);
        }),
        Expr::Fib { result, to } => named(e, "fib", |e| {
            let (result, flags) = match result {
                FibResult::DestinationType => (FIB_ADDRTYPE, FIB_DADDR),
                FibResult::SourceType => (FIB_ADDRTYPE, FIB_SADDR),
                FibResult::ReversePath => (FIB_OIF, FIB_SADDR | FIB_MARK | FIB_IIF),
            };
            e.be32(1, reg(*to)).be32(2, result).be32(3, flags);
        }),
        Expr::Dynset { set, op, key, data, timeout_ms, each } => named(e, "dynset", |e| {
            let op = match op {
                DynsetOp::Add => 0,
                DynsetOp::Update => 1,
                DynsetOp::Delete => 2,
            };
            e.str(1, set).be32(3, op).be32(4, reg(*key));
            if let Some(data) = data {
                e.be32(5, reg(*data));
            }
            if *timeout_ms > 0 {
                e.be64(6, *timeout_ms);
            }
            if let Some(each) = each {
                e.nested(7, |e| body(e, family, each));
            }
        }),
        Expr::Reject(kind) => named(e, "reject", |e| reject(e, family, *kind)),
        Expr::Log { prefix, group } => named(e, "log", |e| {
            if let Some(group) = group {
                e.be16(1, *group);
            }
            e.str(2, prefix);
        }),
        Expr::Limit { rate, unit_secs, burst, over } => named(e, "limit", |e| {
            e.be64(1, *rate).be64(2, *unit_secs).be32(3, *burst).be32(4, 0).be32(5, u32::from(*over));
        }),
        Expr::Notrack => {
            e.str(EXPR_NAME, "notrack");
        }
    }
}

const NAT_RANDOM_FULLY: u32 = 0x10;
const FIB_OIF: u32 = 1;
const FIB_ADDRTYPE: u32 = 3;
const FIB_SADDR: u32 = 1;
const FIB_DADDR: u32 = 2;
const FIB_MARK: u32 = 4;
const FIB_IIF: u32 = 8;

const fn meta_key(key: MetaKey) -> u32 {
    match key {
        MetaKey::Mark => 3,
        MetaKey::IifName => 6,
        MetaKey::OifName => 7,
        MetaKey::NfProto => 15,
        MetaKey::L4Proto => 16,
    }
}

const fn ct_key(key: CtKey) -> u32 {
    match key {
        CtKey::State => 0,
        CtKey::Status => 2,
        CtKey::Mark => 3,
        CtKey::OriginalPort => 12,
        CtKey::OriginalAddress => 20,
    }
}

/// ICMP has other codes than ICMPv6, and a table of both families a third numbering.
fn reject(e: &mut Encoder, family: Family, kind: RejectKind) {
    const UNREACHABLE: u32 = 0;
    const TCP_RESET: u32 = 1;
    const UNREACHABLE_EITHER: u32 = 2;
    let (how, code) = match (kind, family) {
        (RejectKind::TcpReset, _) => (TCP_RESET, 0),
        (RejectKind::PortUnreachable, Family::Ip) => (UNREACHABLE, 3),
        (RejectKind::PortUnreachable, Family::Ip6) => (UNREACHABLE, 4),
        (RejectKind::PortUnreachable, Family::Inet) => (UNREACHABLE_EITHER, 1),
        (RejectKind::AdminProhibited, Family::Ip) => (UNREACHABLE, 13),
        (RejectKind::AdminProhibited, Family::Ip6) => (UNREACHABLE, 1),
        (RejectKind::AdminProhibited, Family::Inet) => (UNREACHABLE_EITHER, 3),
    };
    e.be32(1, how);
    if how != TCP_RESET {
        e.u8(2, code);
    }
}
