//! What is wrong with a configuration.

use alloc::string::String;
use alloc::vec::Vec;
use core::fmt;

use icp_core::api::FieldError;

/// One fault.
#[derive(Clone, Debug, PartialEq, thiserror::Error)]
#[non_exhaustive]
pub enum ConfigError {
    /// The document is no KubeSchedulerConfiguration of a version that is known.
    #[error("no kind {kind:?} is registered for version {version:?}")]
    Kind {
        /// Its `kind`.
        kind: String,
        /// Its `apiVersion`.
        version: String,
    },
    /// A field that does not exist.
    #[error("unknown field {0:?}")]
    UnknownField(String),
    /// A field holds something of another form.
    #[error("{field}: expected {expected}")]
    Type {
        /// The path of the field.
        field: String,
        /// What stands there otherwise.
        expected: &'static str,
    },
    /// A field has a value that it cannot have.
    #[error("{0}")]
    Field(FieldError),
    /// The text is no YAML.
    #[error("yaml: {0}")]
    Yaml(String),
}

impl From<FieldError> for ConfigError {
    fn from(error: FieldError) -> Self {
        Self::Field(error)
    }
}

/// All faults of a configuration, as upstream prints an aggregate.
#[derive(Clone, Debug, PartialEq)]
pub struct ConfigErrors(pub Vec<ConfigError>);

impl fmt::Display for ConfigErrors {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let many = self.0.len() != 1;
        if many {
            f.write_str("[")?;
        }
        for (at, error) in self.0.iter().enumerate() {
            if at > 0 {
                f.write_str(", ")?;
            }
            write!(f, "{error}")?;
        }
        if many { f.write_str("]") } else { Ok(()) }
    }
}

impl core::error::Error for ConfigErrors {}
