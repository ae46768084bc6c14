//! DNS packets as bytes: names, queries, whole messages (RFC 1035, 3597, 6891, 8914).
//!
//! A packet of any shape is either read or refused; nothing here panics and no loop is longer than the packet.

mod message;
mod name;
mod query;
mod reader;
#[cfg(test)]
mod tests;
mod writer;

pub use message::{Header, Message, Question, Record, Section};
pub(crate) use name::LowerName;
pub use name::{LABEL_BYTES_MAX, NAME_BYTES_MAX, Name, NameError};
pub use query::{Edns, Query, Refusal};
pub use reader::WireError;
pub(crate) use writer::{Owner, Writer, internet};

/// Largest message, in bytes: the length prefix of TCP has 16 bits.
pub const MESSAGE_BYTES_MAX: usize = 65_535;
/// Bytes of the header.
pub const HEADER_BYTES: usize = 12;
/// What every client takes over UDP, in bytes (RFC 1035 §4.2.1).
pub const UDP_BYTES_MIN: u16 = 512;

/// Resource record types, by their numbers.
#[allow(missing_docs, reason = "each is the type of its name")]
pub mod rtype {
    pub const A: u16 = 1;
    pub const NS: u16 = 2;
    pub const CNAME: u16 = 5;
    pub const SOA: u16 = 6;
    pub const PTR: u16 = 12;
    pub const HINFO: u16 = 13;
    pub const MX: u16 = 15;
    pub const TXT: u16 = 16;
    pub const AAAA: u16 = 28;
    pub const SRV: u16 = 33;
    pub const DNAME: u16 = 39;
    pub const OPT: u16 = 41;
    pub const DS: u16 = 43;
    pub const RRSIG: u16 = 46;
    pub const NSEC: u16 = 47;
    pub const DNSKEY: u16 = 48;
    pub const NSEC3: u16 = 50;
    pub const HTTPS: u16 = 65;
    pub const IXFR: u16 = 251;
    pub const AXFR: u16 = 252;
    pub const ANY: u16 = 255;
}

/// The class of the internet.
pub const CLASS_IN: u16 = 1;
/// Any class, in a question.
pub const CLASS_ANY: u16 = 255;

/// Response codes, by their numbers (RFC 6895).
#[allow(missing_docs, reason = "each is the code of its name")]
pub mod rcode {
    pub const NOERROR: u16 = 0;
    pub const FORMERR: u16 = 1;
    pub const SERVFAIL: u16 = 2;
    pub const NXDOMAIN: u16 = 3;
    pub const NOTIMP: u16 = 4;
    pub const REFUSED: u16 = 5;
    pub const BADVERS: u16 = 16;
}

/// Why an answer is what it is, beside its response code (RFC 8914 §5.2).
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[non_exhaustive]
pub enum ExtendedError {
    /// 3: the answer is out of date, and no newer one could be had.
    StaleAnswer,
    /// 14: the server does not know its zone yet.
    NotReady,
    /// 18: too much is under way.
    Prohibited,
    /// 20: the server has no one to ask about the name.
    NotAuthoritative,
    /// 22: no upstream answered.
    NoReachableAuthority,
    /// 23: the upstreams could not be reached, or send queries back to this server.
    NetworkError,
}

impl ExtendedError {
    /// The number on the wire.
    #[must_use]
    pub const fn code(self) -> u16 {
        match self {
            Self::StaleAnswer => 3,
            Self::NotReady => 14,
            Self::Prohibited => 18,
            Self::NotAuthoritative => 20,
            Self::NoReachableAuthority => 22,
            Self::NetworkError => 23,
        }
    }
}
