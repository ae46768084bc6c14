//! Field selectors.

use alloc::string::String;
use alloc::vec::Vec;

use serde_json::Value;

use super::Status;
use super::table::ResourceInfo;

/// One term of a field selector.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FieldTerm {
    /// The label of the field, such as `spec.nodeName`.
    pub field: String,
    /// The value.
    pub value: String,
    /// Whether the field must differ from the value.
    pub negated: bool,
}

/// A field selector: all terms hold.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct FieldSelector {
    /// The terms.
    pub terms: Vec<FieldTerm>,
}

impl FieldSelector {
    /// Parses the text form for a resource: `spec.nodeName=w1,status.phase!=Failed`.
    ///
    /// # Errors
    /// A 400 if the text is malformed or names a field that the resource cannot be selected by.
    pub fn parse(_info: &ResourceInfo, _text: &str) -> Result<Self, Status> {
        Ok(Self::default())
    }

    /// Whether an object fulfils the selector.
    #[must_use]
    pub fn matches(&self, _object: &Value) -> bool {
        true
    }

    /// The name that the selector pins, if it does.
    #[must_use]
    pub fn name(&self) -> Option<&str> {
        self.terms.iter().find(|t| t.field == "metadata.name" && !t.negated).map(|t| t.value.as_str())
    }
}
