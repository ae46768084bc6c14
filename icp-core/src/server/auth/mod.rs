//! Who asks, and what they may do.

pub mod rbac;
pub mod token;
mod user;

pub use user::UserInfo;
