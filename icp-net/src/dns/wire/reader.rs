//! Reads the parts of a packet.

use super::name::{NAME_BYTES_MAX, Name};
use smallvec::SmallVec;

/// A packet is not a DNS message.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum WireError {
    /// It ends before what its header promises.
    #[error("the message ends early")]
    Short,
    /// A label has one of the two reserved kinds (RFC 6891 §5 retired them).
    #[error("a label is of a reserved kind")]
    ReservedLabel,
    /// A compression pointer does not point to before the name it stands in.
    #[error("a compression pointer does not point back")]
    PointerNotBack,
    /// A name has more than 255 bytes.
    #[error("a name is longer than 255 bytes")]
    NameTooLong,
    /// A record's data is not of the length it says, or not of the shape of its type.
    #[error("the data of a record is not of its type's shape")]
    BadData,
    /// There is more than one OPT record, or one of another name than the root (RFC 6891 §6.1.1).
    #[error("the OPT record is not right")]
    BadOpt,
    /// It has another number of questions than one (RFC 9619).
    #[error("the message has not one question")]
    NotOneQuestion,
    /// Bytes follow the last record.
    #[error("bytes follow the last record")]
    Trailing,
}

/// A place in a packet.
#[derive(Clone, Debug)]
pub(crate) struct Reader<'a> {
    packet: &'a [u8],
    at: usize,
}

impl<'a> Reader<'a> {
    pub(crate) const fn new(packet: &'a [u8], at: usize) -> Self {
        Self { packet, at }
    }

    pub(crate) const fn at(&self) -> usize {
        self.at
    }

    pub(crate) const fn at_end(&self) -> bool {
        self.at >= self.packet.len()
    }

    pub(crate) fn take(&mut self, length: usize) -> Result<&'a [u8], WireError> {
        let end = self.at.checked_add(length).ok_or(WireError::Short)?;
        let bytes = self.packet.get(self.at..end).ok_or(WireError::Short)?;
        self.at = end;
        Ok(bytes)
    }

    pub(crate) fn u8(&mut self) -> Result<u8, WireError> {
        self.take(1)?.first().copied().ok_or(WireError::Short)
    }

    pub(crate) fn u16(&mut self) -> Result<u16, WireError> {
        let bytes = self.take(2)?;
        bytes.try_into().map(u16::from_be_bytes).map_err(|_| WireError::Short)
    }

    pub(crate) fn u32(&mut self) -> Result<u32, WireError> {
        let bytes = self.take(4)?;
        bytes.try_into().map(u32::from_be_bytes).map_err(|_| WireError::Short)
    }

    /// A name without compression, as it stands.
    pub(crate) fn plain_name(&mut self) -> Result<&'a [u8], WireError> {
        let start = self.at;
        loop {
            match self.u8()? {
                0 => break,
                length @ 1..=63 => drop(self.take(usize::from(length))?),
                192.. => return Err(WireError::PointerNotBack),
                _ => return Err(WireError::ReservedLabel),
            }
        }
        let name = self.packet.get(start..self.at).ok_or(WireError::Short)?;
        if name.len() > NAME_BYTES_MAX { Err(WireError::NameTooLong) } else { Ok(name) }
    }

    /// A name, decompressed. Each pointer must point to before the labels it ends, so that the walk ends.
    pub(crate) fn name(&mut self) -> Result<Name, WireError> {
        let mut wire: SmallVec<[u8; 64]> = SmallVec::new();
        let mut walk = self.clone();
        let mut start = walk.at;
        let mut resume = None;
        loop {
            match walk.u8()? {
                0 => break,
                length @ 1..=63 => {
                    wire.push(length);
                    wire.extend_from_slice(walk.take(usize::from(length))?);
                    if wire.len() >= NAME_BYTES_MAX {
                        return Err(WireError::NameTooLong);
                    }
                }
                high @ 192.. => {
                    let target = usize::from(u16::from_be_bytes([high & 0x3f, walk.u8()?]));
                    resume.get_or_insert(walk.at);
                    if target >= start {
                        return Err(WireError::PointerNotBack);
                    }
                    start = target;
                    walk.at = target;
                }
                _ => return Err(WireError::ReservedLabel),
            }
        }
        wire.push(0);
        self.at = resume.unwrap_or(walk.at);
        Ok(Name::from_wire(&wire))
    }

    /// Goes past a name that is not wanted.
    pub(crate) fn skip_name(&mut self) -> Result<(), WireError> {
        loop {
            match self.u8()? {
                0 => return Ok(()),
                length @ 1..=63 => drop(self.take(usize::from(length))?),
                192.. => return self.u8().map(|_| ()),
                _ => return Err(WireError::ReservedLabel),
            }
        }
    }
}
