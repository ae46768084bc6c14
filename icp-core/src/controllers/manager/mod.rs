//! The machine that runs controllers.

mod event;
mod execute;
#[cfg(test)]
pub(crate) mod harness;
mod machine;
#[cfg(test)]
mod tests;

pub use event::{Effect, Event};
pub use machine::Manager;
