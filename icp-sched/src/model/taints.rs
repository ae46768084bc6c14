//! Taints and tolerations.

use alloc::string::String;

use serde::Deserialize;

/// What a taint does to pods that do not tolerate it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Deserialize)]
pub enum Effect {
    /// They are not scheduled there.
    NoSchedule,
    /// They are rather scheduled elsewhere.
    PreferNoSchedule,
    /// They are not scheduled there, and evicted.
    NoExecute,
    /// An effect that this scheduler does not know; it has none.
    #[serde(other)]
    Unknown,
}

/// A taint of a node.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Deserialize)]
#[serde(default)]
pub struct Taint {
    /// The key.
    pub key: String,
    /// The value; may be empty.
    pub value: String,
    /// The effect.
    pub effect: Effect,
}

impl Default for Taint {
    fn default() -> Self {
        Self { key: String::new(), value: String::new(), effect: Effect::Unknown }
    }
}

/// How a toleration compares the value.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum TolerationOp {
    /// The values are equal.
    Equal,
    /// Any value.
    Exists,
    /// An operator that is not known: nothing is tolerated.
    Unknown,
}

/// A toleration of a pod.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Toleration {
    /// The key; empty for every key.
    pub key: String,
    /// How values are compared.
    pub op: TolerationOp,
    /// The value.
    pub value: String,
    /// The effect; `None` for every effect.
    pub effect: Option<Effect>,
}

impl Toleration {
    /// Whether the taint is tolerated (`v1.Toleration.ToleratesTaint`).
    #[must_use]
    pub fn tolerates(&self, taint: &Taint) -> bool {
        self.effect.is_none_or(|e| e == taint.effect)
            && (self.key.is_empty() || self.key == taint.key)
            && match self.op {
                TolerationOp::Equal => self.value == taint.value,
                TolerationOp::Exists => true,
                TolerationOp::Unknown => false,
            }
    }
}
