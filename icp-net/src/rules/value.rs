//! Typed bytes: what registers, set keys and map data hold.

use alloc::vec::Vec;
use core::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use smallvec::SmallVec;

/// The bytes of a register, a set key or a map datum. Up to 24 bytes are stored in place.
#[derive(Clone, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Value(SmallVec<[u8; 24]>);

impl Value {
    /// Bytes as they are.
    #[must_use]
    pub fn new(bytes: &[u8]) -> Self {
        Self(SmallVec::from_slice(bytes))
    }

    /// A number in host order, as marks, connection states, slots and hashes are.
    #[must_use]
    pub fn host32(n: u32) -> Self {
        Self::new(&n.to_ne_bytes())
    }

    /// An interface name, padded with zeros to 16 bytes.
    #[must_use]
    pub fn ifname(name: &str) -> Self {
        let mut bytes = [0; 16];
        for (to, from) in bytes.iter_mut().zip(name.as_bytes().iter().take(15)) {
            *to = *from;
        }
        Self::new(&bytes)
    }

    /// The start of a concatenation: append to it with [`Value::then`].
    #[must_use]
    pub fn concat() -> Self {
        Self::default()
    }

    /// Appends a field and pads it to 4 bytes, as fields of a concatenation are.
    #[must_use]
    pub fn then(mut self, field: impl Into<Self>) -> Self {
        self.0.extend_from_slice(field.into().bytes());
        while !self.0.len().is_multiple_of(4) {
            self.0.push(0);
        }
        self
    }

    /// The bytes.
    #[must_use]
    pub fn bytes(&self) -> &[u8] {
        &self.0
    }
}

impl From<Ipv4Addr> for Value {
    fn from(ip: Ipv4Addr) -> Self {
        Self::new(&ip.octets())
    }
}

impl From<Ipv6Addr> for Value {
    fn from(ip: Ipv6Addr) -> Self {
        Self::new(&ip.octets())
    }
}

impl From<IpAddr> for Value {
    fn from(ip: IpAddr) -> Self {
        match ip {
            IpAddr::V4(ip) => ip.into(),
            IpAddr::V6(ip) => ip.into(),
        }
    }
}

impl From<u8> for Value {
    fn from(n: u8) -> Self {
        Self::new(&[n])
    }
}

impl From<u16> for Value {
    /// In network order, as ports are.
    fn from(n: u16) -> Self {
        Self::new(&n.to_be_bytes())
    }
}

/// The type of one field of a set key or of map data; `nft` prints elements by it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[non_exhaustive]
pub enum FieldType {
    /// An IPv4 address.
    Ipv4Addr,
    /// An IPv6 address.
    Ipv6Addr,
    /// A transport protocol number, one byte.
    InetProto,
    /// A port, two bytes in network order.
    InetService,
    /// A 32-bit number in host order.
    Mark,
    /// An interface name, 16 bytes.
    IfName,
    /// A hardware address, 6 bytes.
    EtherAddr,
}

impl FieldType {
    /// How many bytes a value of this type has, without padding.
    #[must_use]
    pub const fn len_bytes(self) -> u32 {
        match self {
            Self::InetProto => 1,
            Self::InetService => 2,
            Self::Ipv4Addr | Self::Mark => 4,
            Self::EtherAddr => 6,
            Self::Ipv6Addr | Self::IfName => 16,
        }
    }

    /// The type number that `nft` uses in its own messages (`enum datatypes`).
    #[must_use]
    pub const fn nft_type(self) -> u32 {
        match self {
            Self::Ipv4Addr => 7,
            Self::Ipv6Addr => 8,
            Self::EtherAddr => 9,
            Self::InetProto => 12,
            Self::InetService => 13,
            Self::Mark => 19,
            Self::IfName => 41,
        }
    }
}

/// The type of a key or datum: one field, or a concatenation of several.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Type(Vec<FieldType>);

impl<const N: usize> From<[FieldType; N]> for Type {
    fn from(fields: [FieldType; N]) -> Self {
        Self(fields.into())
    }
}

impl From<Vec<FieldType>> for Type {
    fn from(fields: Vec<FieldType>) -> Self {
        Self(fields)
    }
}

impl Type {
    /// The fields in order.
    #[must_use]
    pub fn fields(&self) -> &[FieldType] {
        &self.0
    }

    /// How many bytes a value has; the fields of a concatenation are padded to 4.
    #[must_use]
    pub fn len_bytes(&self) -> u32 {
        match self.0.as_slice() {
            [one] => one.len_bytes(),
            many => many.iter().map(|f| f.len_bytes().next_multiple_of(4)).sum(),
        }
    }

    /// The type number that `nft` uses: six bits a field.
    #[must_use]
    pub fn nft_type(&self) -> u32 {
        self.0.iter().fold(0, |all, f| (all << 6) | f.nft_type())
    }
}
