//! Why a node is not for a pod.

use alloc::borrow::Cow;
use alloc::string::String;
use core::fmt;

use smallvec::{SmallVec, smallvec};

/// Whether evicting other pods could help.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Code {
    /// It could.
    Unschedulable,
    /// Nothing that preemption does can help.
    UnschedulableAndUnresolvable,
}

impl Code {
    /// The name of upstream.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Unschedulable => "Unschedulable",
            Self::UnschedulableAndUnresolvable => "UnschedulableAndUnresolvable",
        }
    }
}

/// A reason, in the words of upstream.
pub type Reason = Cow<'static, str>;

/// All reasons of one rejection; nearly always one.
pub type Reasons = SmallVec<[Reason; 1]>;

/// What a check says of a node that will not do.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Rejected {
    /// Whether preemption could help.
    pub code: Code,
    /// Why.
    pub reasons: Reasons,
}

impl Rejected {
    /// A rejection that preemption may resolve.
    #[must_use]
    pub fn unschedulable(reason: impl Into<Reason>) -> Self {
        Self { code: Code::Unschedulable, reasons: smallvec![reason.into()] }
    }

    /// A rejection that preemption cannot resolve.
    #[must_use]
    pub fn unresolvable(reason: impl Into<Reason>) -> Self {
        Self { code: Code::UnschedulableAndUnresolvable, reasons: smallvec![reason.into()] }
    }

    /// The same, said by a plugin.
    #[must_use]
    pub fn by(self, plugin: &'static str) -> Rejection {
        Rejection { plugin, code: self.code, reasons: self.reasons }
    }
}

/// A rejection and the plugin that said it; printed as `Plugin/Code: reasons`.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Rejection {
    /// The first plugin that rejects the node; empty if a plugin named other nodes.
    pub plugin: &'static str,
    /// Whether preemption could help.
    pub code: Code,
    /// Why.
    pub reasons: Reasons,
}

impl Rejection {
    /// The reasons, in one line.
    #[must_use]
    pub fn message(&self) -> String {
        self.reasons.join(", ")
    }
}

impl fmt::Display for Rejection {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}: {}", self.plugin, self.code.as_str(), self.message())
    }
}
