//! The Kubernetes object model.

mod gvk;
mod object;
mod status;

pub mod resources;

pub use gvk::{Gvk, Gvr};
pub use object::{Object, ObjectMeta, OwnerReference};
pub use status::{Status, StatusCause, StatusDetails, reason};
