//! The cluster in virtual time: the same machines as in production, one thread, one seed.
//!
//! A store on a simulated disk, masters (API server, controller manager, scheduler, CARP), nodes with the full node
//! logic, and a user, joined by links that delay, lose and reorder. Faults for most of the time, then everything is
//! healed and must come to rest in the wanted state. Invariants are checked after every step; each is shown able to
//! fire by a [`Mutant`].

pub mod check;
pub mod cluster;
pub mod converge;
pub mod crowd;
pub mod host;
pub mod master;
pub mod message;
pub mod mutant;
pub mod node;
pub mod port;
pub mod replay;
pub mod rewrite;
pub mod scheduling;
pub mod store;
pub mod swarm;
pub mod totals;
pub mod truth;
pub mod user;

pub use cluster::{Options, Outcome, run};
pub use mutant::Mutant;
pub use totals::Totals;
