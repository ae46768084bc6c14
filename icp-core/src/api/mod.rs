//! The Kubernetes object model.
//!
//! [`table`] names every resource; [`schema`] knows the shape of every kind; the other modules are pure
//! functions over `serde_json::Value` that the API server sequences: decode, default, validate, patch, apply,
//! print, describe.

pub(crate) mod budget;
mod field_error;
mod gvk;
mod object;
mod status;

pub mod apply;
pub mod convert;
pub mod cron;
pub mod defaults;
pub mod discovery;
pub mod fields;
pub mod labels;
pub mod names;
pub mod openapi;
pub mod patch;
pub mod printer;
pub mod protobuf;
pub mod quantity;
pub mod resources;
pub mod schema;
pub mod table;
pub mod validate;

pub use field_error::{FieldError, FieldErrorKind, invalid, invalid_kind};
pub use gvk::{Gvk, Gvr};
pub use object::{LeanObject, Object, ObjectMeta, OwnerReference, Parts, set_at};
pub use quantity::Quantity;
pub use status::{Status, StatusCause, StatusDetails, reason};
