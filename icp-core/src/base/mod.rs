//! What every part of icp is made of: time as an input, seeded randomness, machines with effects as data,
//! retry back-off, a timing wheel and limits.

mod backoff;
mod entropy;
mod machine;
mod rng;
mod time;
mod wheel;

pub mod limits;

pub use backoff::Backoff;
pub use entropy::{Entropy, SeededEntropy};
pub use machine::{Machine, drive};
pub use rng::Rng;
pub use time::{ParseTimeError, Time};
pub use wheel::TimingWheel;

pub use core::time::Duration;
