//! What happened, as text and as a hash.

use alloc::collections::BTreeMap;
use alloc::string::String;
use core::fmt::{self, Write as _};

use sha2::{Digest as _, Sha256};

use crate::base::Time;

/// The record of a simulation: one line for each thing that happened, and the SHA-256 of all lines.
///
/// ```
/// use icp_core::base::Time;
/// use icp_core::sim::Trace;
/// let mut trace = Trace::new(true);
/// trace.line(Time::from_millis(1500), "m1", format_args!("wakes"));
/// assert_eq!(trace.text(), "1.500000 m1 wakes\n");
/// assert_eq!(trace.lines(), 1);
/// ```
#[derive(Clone, Debug)]
pub struct Trace {
    keep: bool,
    text: String,
    line: String,
    hash: Sha256,
    lines: u64,
}

impl Trace {
    /// An empty trace, which keeps its text if `keep` says so, and its hash anyway.
    #[must_use]
    pub fn new(keep: bool) -> Self {
        Self { keep, text: String::new(), line: String::new(), hash: Sha256::new(), lines: 0 }
    }

    /// Adds a line: the time in seconds, who, what. Line breaks in `what` become blanks.
    pub fn line(&mut self, at: Time, who: &str, what: fmt::Arguments<'_>) {
        self.line.clear();
        let micros = at.as_micros();
        let (secs, rest) = (micros.div_euclid(1_000_000), micros.rem_euclid(1_000_000));
        // Writing to a String cannot fail.
        let _ = write!(self.line, "{secs}.{rest:06} {who} {what}");
        if self.line.contains('\n') {
            self.line = self.line.replace('\n', " ");
        }
        self.line.push('\n');
        self.hash.update(self.line.as_bytes());
        self.lines += 1;
        if self.keep {
            self.text.push_str(&self.line);
        }
    }

    /// How many lines there were.
    #[must_use]
    pub const fn lines(&self) -> u64 {
        self.lines
    }

    /// The lines, if they were kept.
    #[must_use]
    pub fn text(&self) -> &str {
        &self.text
    }

    /// The SHA-256 of all lines so far, in hexadecimal.
    #[must_use]
    pub fn hash(&self) -> String {
        let mut hex = String::with_capacity(64);
        for byte in self.hash.clone().finalize() {
            let _ = write!(hex, "{byte:02x}");
        }
        hex
    }
}

/// How often things of a kind happened.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Counts(BTreeMap<&'static str, u64>);

impl Counts {
    /// Counts one thing of a kind.
    pub fn add(&mut self, kind: &'static str) {
        self.add_many(kind, 1);
    }

    /// Counts `many` things of a kind.
    pub fn add_many(&mut self, kind: &'static str, many: u64) {
        *self.0.entry(kind).or_default() += many;
    }

    /// Adds all of `other`.
    pub fn merge(&mut self, other: &Self) {
        for (kind, many) in other.iter() {
            self.add_many(kind, many);
        }
    }

    /// How many there were of a kind.
    #[must_use]
    pub fn of(&self, kind: &str) -> u64 {
        self.0.get(kind).copied().unwrap_or(0)
    }

    /// How many there were of all kinds.
    #[must_use]
    pub fn total(&self) -> u64 {
        self.0.values().sum()
    }

    /// All kinds in order.
    pub fn iter(&self) -> impl Iterator<Item = (&'static str, u64)> {
        self.0.iter().map(|(kind, many)| (*kind, *many))
    }
}
