//! The machine that runs controllers.

mod event;
mod execute;
mod machine;
#[cfg(test)]
pub(crate) mod harness;
#[cfg(test)]
mod tests;

pub use event::{Effect, Event};
pub use machine::Manager;
