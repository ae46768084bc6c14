//! Namespaces that are being deleted: their content goes first (upstream `pkg/controller/namespace`, KEP-5080).

mod plan;

pub use plan::{Namespaces, Progress, plan};
