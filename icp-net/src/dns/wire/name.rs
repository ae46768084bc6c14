//! Domain names.

use alloc::string::String;
use alloc::vec::Vec;
use core::fmt;
use core::str::FromStr;

use smallvec::SmallVec;

/// Longest name on the wire, in bytes, the root's zero byte included (RFC 1035 §2.3.4).
pub const NAME_BYTES_MAX: usize = 255;
/// Longest label, in bytes.
pub const LABEL_BYTES_MAX: usize = 63;

/// A text is not a domain name.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum NameError {
    /// Two dots in a row, or one at the start.
    #[error("a label is empty")]
    EmptyLabel,
    /// A label has more than [`LABEL_BYTES_MAX`] bytes.
    #[error("a label is longer than 63 bytes")]
    LabelTooLong,
    /// The name has more than [`NAME_BYTES_MAX`] bytes.
    #[error("the name is longer than 255 bytes")]
    NameTooLong,
    /// A backslash is followed by neither a character nor three digits up to 255.
    #[error("an escape is not complete")]
    BadEscape,
}

/// A domain name in its wire form without compression: labels with their lengths, then a zero byte. The case of
/// letters is kept; names that differ in case alone are equal for [`Name::eq_ignore_case`] only.
///
/// ```
/// use icp_net::dns::wire::Name;
/// let name: Name = "web.Default.svc.cluster.local".parse()?;
/// assert_eq!(name.to_string(), "web.Default.svc.cluster.local.");
/// assert_eq!(name.labels().count(), 5);
/// # Ok::<(), icp_net::dns::wire::NameError>(())
/// ```
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Name(SmallVec<[u8; 64]>);

impl Name {
    /// The root.
    #[must_use]
    pub fn root() -> Self {
        Self(SmallVec::from_slice(&[0]))
    }

    /// A name of labels, the root left out.
    ///
    /// # Errors
    /// If a label is empty or too long, or the name is.
    pub fn from_labels<'a>(labels: impl IntoIterator<Item = &'a [u8]>) -> Result<Self, NameError> {
        let mut wire = SmallVec::new();
        for label in labels {
            push_label(&mut wire, label)?;
        }
        wire.push(0);
        if wire.len() > NAME_BYTES_MAX { Err(NameError::NameTooLong) } else { Ok(Self(wire)) }
    }

    /// The name of bytes that were checked: labels with lengths, then zero.
    pub(crate) fn from_wire(wire: &[u8]) -> Self {
        debug_assert!(wire.last() == Some(&0) && wire.len() <= NAME_BYTES_MAX);
        Self(SmallVec::from_slice(wire))
    }

    /// The wire form, with the root's zero byte.
    #[must_use]
    pub fn as_wire(&self) -> &[u8] {
        &self.0
    }

    /// The labels from left to right, without the root.
    pub fn labels(&self) -> impl Iterator<Item = &[u8]> {
        let mut rest = self.0.as_slice();
        core::iter::from_fn(move || {
            let (length, tail) = rest.split_first()?;
            let (label, tail) = tail.split_at_checked(usize::from(*length))?;
            rest = tail;
            (!label.is_empty()).then_some(label)
        })
    }

    /// Whether both are the same name: case does not count (RFC 4343).
    #[must_use]
    pub fn eq_ignore_case(&self, other: &Self) -> bool {
        // Length bytes are below 64, so that they are no letters.
        self.0.eq_ignore_ascii_case(&other.0)
    }

    /// The same in lower case.
    #[must_use]
    pub fn to_lowercase(&self) -> Self {
        let mut lower = self.clone();
        lower.0.make_ascii_lowercase();
        lower
    }

    /// This name below `parent`.
    ///
    /// # Errors
    /// If it becomes too long.
    pub fn under(&self, parent: &Self) -> Result<Self, NameError> {
        Self::from_labels(self.labels().chain(parent.labels()))
    }
}

fn push_label(wire: &mut SmallVec<[u8; 64]>, label: &[u8]) -> Result<(), NameError> {
    match u8::try_from(label.len()) {
        Ok(0) => Err(NameError::EmptyLabel),
        Ok(length) if label.len() <= LABEL_BYTES_MAX => {
            wire.push(length);
            wire.extend_from_slice(label);
            if wire.len() < NAME_BYTES_MAX { Ok(()) } else { Err(NameError::NameTooLong) }
        }
        _ => Err(NameError::LabelTooLong),
    }
}

impl FromStr for Name {
    type Err = NameError;

    /// Reads the text form, with `\.` and `\DDD` escapes (RFC 1035 §5.1). A name without a final dot is taken as
    /// absolute too.
    fn from_str(text: &str) -> Result<Self, NameError> {
        let mut wire = SmallVec::new();
        let mut label: Vec<u8> = Vec::new();
        let mut bytes = text.bytes();
        let mut open = false;
        while let Some(byte) = bytes.next() {
            open = true;
            match byte {
                b'.' if text.len() == 1 => open = false,
                b'.' => {
                    push_label(&mut wire, &label)?;
                    label.clear();
                    open = false;
                }
                b'\\' => {
                    let first = bytes.next().ok_or(NameError::BadEscape)?;
                    if first.is_ascii_digit() {
                        let digits = [Some(first), bytes.next(), bytes.next()];
                        let value = digits.iter().try_fold(0_u16, |value, digit| {
                            let digit = digit.filter(u8::is_ascii_digit)?;
                            Some(value * 10 + u16::from(digit - b'0'))
                        });
                        let byte = value.and_then(|v| u8::try_from(v).ok()).ok_or(NameError::BadEscape)?;
                        label.push(byte);
                    } else {
                        label.push(first);
                    }
                }
                byte => label.push(byte),
            }
        }
        if open {
            push_label(&mut wire, &label)?;
        }
        wire.push(0);
        Ok(Self(wire))
    }
}

impl fmt::Display for Name {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut text = String::new();
        for label in self.labels() {
            for &byte in label {
                match byte {
                    b'.' | b'\\' | b'"' | b';' | b'(' | b')' | b'@' | b'$' => {
                        text.push('\\');
                        text.push(char::from(byte));
                    }
                    0x21..=0x7e => text.push(char::from(byte)),
                    _ => text.push_str(&alloc::format!("\\{byte:03}")),
                }
            }
            text.push('.');
        }
        f.write_str(if text.is_empty() { "." } else { &text })
    }
}

impl fmt::Debug for Name {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{self}")
    }
}

/// A name in lower case without an allocation, with the places of its labels.
#[derive(Clone, Copy)]
pub(crate) struct LowerName {
    wire: [u8; NAME_BYTES_MAX],
    length: u8,
    /// Where each label starts, its length byte included.
    starts: [u8; 127],
    labels: u8,
}

impl LowerName {
    /// The lower case of a wire form that was checked.
    pub(crate) fn of(wire: &[u8]) -> Self {
        let mut name = Self { wire: [0; NAME_BYTES_MAX], length: 0, starts: [0; 127], labels: 0 };
        let mut at = 0_usize;
        while let Some(&length) = wire.get(at) {
            if length == 0 {
                break;
            }
            if let (Some(start), Ok(place)) =
                (name.starts.get_mut(usize::from(name.labels)), u8::try_from(at))
            {
                *start = place;
                name.labels += 1;
            }
            at += usize::from(length) + 1;
        }
        let length = wire.len().min(NAME_BYTES_MAX);
        for (to, from) in name.wire.iter_mut().zip(wire) {
            *to = from.to_ascii_lowercase();
        }
        name.length = u8::try_from(length).unwrap_or(u8::MAX);
        name
    }

    /// How many labels there are, without the root.
    pub(crate) fn count(&self) -> usize {
        usize::from(self.labels)
    }

    /// The label at `index` from the left.
    pub(crate) fn label(&self, index: usize) -> &[u8] {
        let start = self.start(index);
        let length = self.wire.get(start).copied().unwrap_or(0);
        self.wire.get(start + 1..start + 1 + usize::from(length)).unwrap_or_default()
    }

    /// Where the label at `index` starts; the end for one too many.
    pub(crate) fn start(&self, index: usize) -> usize {
        if index >= self.count() {
            return usize::from(self.length).saturating_sub(1);
        }
        self.starts.get(index).copied().map_or(0, usize::from)
    }

    /// The bytes from the label at `from` to before the label at `to`, with lengths.
    pub(crate) fn between(&self, from: usize, to: usize) -> &[u8] {
        self.wire.get(self.start(from)..self.start(to)).unwrap_or_default()
    }

    /// The bytes from the label at `from` to the end.
    pub(crate) fn tail(&self, from: usize) -> &[u8] {
        self.wire.get(self.start(from)..usize::from(self.length)).unwrap_or_default()
    }
}

impl fmt::Debug for LowerName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", Name::from_wire(self.tail(0)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use alloc::string::ToString;
    use proptest::prelude::*;

    #[test]
    fn text_form_round_trips_and_limits_hold() {
        for (text, shown) in
            [("", "."), (".", "."), ("a.b", "a.b."), ("a\\.b.c.", "a\\.b.c."), ("\\000\\255", "\\000\\255.")]
        {
            assert_eq!(text.parse::<Name>().unwrap().to_string(), shown, "{text:?}");
        }
        let label = "x".repeat(63);
        assert!(label.parse::<Name>().is_ok());
        assert_eq!("x".repeat(64).parse::<Name>(), Err(NameError::LabelTooLong));
        assert_eq!("a..b".parse::<Name>(), Err(NameError::EmptyLabel));
        assert_eq!(".a".parse::<Name>(), Err(NameError::EmptyLabel));
        assert_eq!("a\\25".parse::<Name>(), Err(NameError::BadEscape));
        assert_eq!("a\\256".parse::<Name>(), Err(NameError::BadEscape));
        assert_eq!("a\\".parse::<Name>(), Err(NameError::BadEscape));
        // 63+1 three times and 61+1 and the root: 255 bytes.
        let longest = [label.as_str(), &label, &label, &"y".repeat(61)].join(".");
        assert_eq!(longest.parse::<Name>().unwrap().as_wire().len(), NAME_BYTES_MAX);
        let longer = [label.as_str(), &label, &label, &"y".repeat(62)].join(".");
        assert_eq!(longer.parse::<Name>(), Err(NameError::NameTooLong));
    }

    proptest! {
        #[test]
        fn any_labels_show_and_parse_to_the_same_name(
            labels in proptest::collection::vec(proptest::collection::vec(any::<u8>(), 1..20), 0..10),
        ) {
            let name = Name::from_labels(labels.iter().map(Vec::as_slice)).unwrap();
            prop_assert_eq!(&name.to_string().parse::<Name>().unwrap(), &name);
            let lower = LowerName::of(name.as_wire());
            prop_assert_eq!(lower.count(), labels.len());
            for (n, label) in labels.iter().enumerate() {
                prop_assert_eq!(lower.label(n), label.to_ascii_lowercase());
            }
            let lowered = name.to_lowercase();
            prop_assert_eq!(lower.tail(0), lowered.as_wire());
        }
    }
}
