//! Expressions: the instructions of a rule. A rule is run from its first expression on; one that does not match
//! ends it, and the next rule is run.

use alloc::boxed::Box;
use alloc::string::String;

use super::{Value, Verdict};

/// One of the sixteen 32-bit registers. A wider value takes the registers that follow, too.
///
/// Registers live as long as a rule: current kernels refuse a rule that reads what it did not write.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Reg(pub u8);

impl Reg {
    /// How many there are.
    pub const COUNT: u8 = 16;
    /// How many bytes one holds.
    pub const BYTES: u8 = 4;
}

/// A part of the packet.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Base {
    /// The link header.
    Link,
    /// The network header.
    Network,
    /// The transport header.
    Transport,
}

/// What is known of a packet beside its bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[non_exhaustive]
pub enum MetaKey {
    /// The mark, 4 bytes in host order.
    Mark,
    /// The name of the interface it came by, 16 bytes.
    IifName,
    /// The name of the interface it leaves by, 16 bytes.
    OifName,
    /// The network protocol family, one byte: 2 for IPv4, 10 for IPv6.
    NfProto,
    /// The transport protocol, one byte.
    L4Proto,
}

/// What connection tracking knows of a packet.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[non_exhaustive]
pub enum CtKey {
    /// State bits ([`ct_state`]), host order.
    State,
    /// Status bits ([`ct_status`]), host order.
    Status,
    /// The mark of the connection, host order.
    Mark,
    /// The destination port of the first packet, before translation; network order.
    OriginalPort,
    /// The IPv4 destination address of the first packet, before translation.
    OriginalAddress,
}

/// Bits of [`CtKey::State`].
pub mod ct_state {
    /// Belongs to no valid connection.
    pub const INVALID: u32 = 1;
    /// A connection that was seen in both directions.
    pub const ESTABLISHED: u32 = 2;
    /// Starts a connection that belongs to another.
    pub const RELATED: u32 = 4;
    /// Starts a connection.
    pub const NEW: u32 = 8;
    /// Not tracked on request.
    pub const UNTRACKED: u32 = 64;
}

/// Bits of [`CtKey::Status`].
pub mod ct_status {
    /// The source is translated.
    pub const SNAT: u32 = 0x10;
    /// The destination is translated.
    pub const DNAT: u32 = 0x20;
}

/// How to compare, as big-endian numbers of equal length.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum CmpOp {
    /// Equal.
    Eq,
    /// Not equal.
    Neq,
    /// Less.
    Lt,
    /// Less or equal.
    Lte,
    /// Greater.
    Gt,
    /// Greater or equal.
    Gte,
}

/// Which address to translate.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum NatKind {
    /// The source.
    Source,
    /// The destination.
    Destination,
}

/// What to do with a set from the packet path.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum DynsetOp {
    /// Add an element unless it is there.
    Add,
    /// Add an element, or start its timeout again.
    Update,
    /// Delete an element.
    Delete,
}

/// How to refuse a packet.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum RejectKind {
    /// By ICMP or ICMPv6 "port unreachable"; in an inet table, too.
    PortUnreachable,
    /// By ICMP or ICMPv6 "administratively prohibited".
    AdminProhibited,
    /// By a TCP reset; only in rules that match TCP.
    TcpReset,
}

/// What the routing table says about an address of the packet.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum FibResult {
    /// The type of the destination address (`RTN_LOCAL` is 2), 4 bytes in host order.
    DestinationType,
    /// The type of the source address, 4 bytes in host order.
    SourceType,
    /// The index of the interface packets to the source address would leave by (reverse path), host order; 0 if
    /// none, or if it is not the one that the packet came by.
    ReversePath,
}

/// `RTN_LOCAL`: an address of this machine.
pub const FIB_LOCAL: u32 = 2;

/// One instruction.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[non_exhaustive]
pub enum Expr {
    /// Loads bytes of the packet; does not match if it is too short.
    Payload {
        /// The header.
        base: Base,
        /// From which byte.
        offset: u32,
        /// How many bytes.
        len: u32,
        /// Where to.
        to: Reg,
    },
    /// Loads what is known of the packet.
    Meta {
        /// What.
        key: MetaKey,
        /// Where to.
        to: Reg,
    },
    /// Sets the mark of the packet.
    SetMark {
        /// Where from.
        from: Reg,
    },
    /// Loads what connection tracking knows.
    Ct {
        /// What.
        key: CtKey,
        /// Where to.
        to: Reg,
    },
    /// Sets the mark of the connection.
    SetCtMark {
        /// Where from.
        from: Reg,
    },
    /// Matches if the comparison holds.
    Cmp {
        /// How.
        op: CmpOp,
        /// Where from.
        from: Reg,
        /// With what.
        value: Value,
    },
    /// Matches if a big-endian number is in a range, both ends included.
    Range {
        /// Matches outside instead.
        invert: bool,
        /// Where from.
        from: Reg,
        /// The lower end.
        low: Value,
        /// The upper end.
        high: Value,
    },
    /// Computes `(from & mask) ^ xor`.
    Bitwise {
        /// Where from.
        from: Reg,
        /// Where to.
        to: Reg,
        /// The mask.
        mask: Value,
        /// What is flipped then.
        xor: Value,
    },
    /// Turns a 32-bit number from host to network order (or back, which is the same).
    Byteorder {
        /// Where from.
        from: Reg,
        /// Where to.
        to: Reg,
    },
    /// Loads a constant.
    Immediate {
        /// Where to.
        to: Reg,
        /// What.
        value: Value,
    },
    /// Ends the rule with a verdict.
    Verdict(Verdict),
    /// Matches if the key is in a set (or, inverted, if it is not).
    Lookup {
        /// The set.
        set: String,
        /// The first register of the key.
        from: Reg,
        /// Match what is not in the set.
        invert: bool,
    },
    /// Matches if the key is in a map, and loads its datum.
    Map {
        /// The map.
        set: String,
        /// The first register of the key.
        from: Reg,
        /// Where to.
        to: Reg,
    },
    /// Matches if the key is in a verdict map, and ends the rule with its verdict.
    VerdictMap {
        /// The map.
        set: String,
        /// The first register of the key.
        from: Reg,
    },
    /// Translates an address and perhaps a port, and ends the chain.
    Nat {
        /// Which.
        kind: NatKind,
        /// Whether the addresses are IPv6.
        ipv6: bool,
        /// The address.
        address: Reg,
        /// The port.
        port: Option<Reg>,
    },
    /// Translates the source to the address of the outgoing interface, and ends the chain.
    Masquerade {
        /// Pick ports at random, so that two flows do not race for one.
        fully_random: bool,
    },
    /// Counts packets and bytes.
    Counter,
    /// Loads a number between `offset` and `offset + modulus - 1`, host order.
    Numgen {
        /// At random; else one after the other.
        random: bool,
        /// How many different numbers.
        modulus: u32,
        /// The lowest number.
        offset: u32,
        /// Where to.
        to: Reg,
    },
    /// Loads the Jenkins hash of registers, modulo `modulus`, plus `offset`; host order.
    Hash {
        /// Where from.
        from: Reg,
        /// How many bytes.
        len: u32,
        /// How many different numbers.
        modulus: u32,
        /// The seed.
        seed: u32,
        /// The lowest number.
        offset: u32,
        /// Where to.
        to: Reg,
    },
    /// Loads what the routing table says.
    Fib {
        /// What.
        result: FibResult,
        /// Where to.
        to: Reg,
    },
    /// Changes a set.
    Dynset {
        /// The set.
        set: String,
        /// How.
        op: DynsetOp,
        /// The first register of the key.
        key: Reg,
        /// The first register of the datum, for a map.
        data: Option<Reg>,
        /// How long the element stays, in milliseconds; 0 for the set's default.
        timeout_ms: u64,
        /// An instruction that each element has a state of its own for, such as a limit.
        each: Option<Box<Expr>>,
    },
    /// Refuses the packet and ends.
    Reject(RejectKind),
    /// Writes a line to the kernel's log, or a message to a netlink group.
    Log {
        /// The text before the packet.
        prefix: String,
        /// The netlink group; `None` for the kernel's log.
        group: Option<u16>,
    },
    /// Matches as long as the rate is not exceeded (or, inverted, when it is).
    Limit {
        /// Packets in each span.
        rate: u64,
        /// The span, in seconds.
        unit_secs: u64,
        /// Packets beyond the rate that are taken at once.
        burst: u32,
        /// Match above the rate instead.
        over: bool,
    },
    /// Keeps the packet out of connection tracking.
    Notrack,
}
