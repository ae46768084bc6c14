//! The deterministic simulator: many machines, one thread, one seed.
//!
//! A [`World`] holds the time, a heap of events, hosts, the links between them and their disks. A host is a
//! [`Machine`](crate::base::Machine) whose events are what arrives over links ([`Input`]) and whose effects are what it
//! sends ([`Output`]); its shells around the components live inside it. The world decides, from its seed alone, when
//! things arrive, what is lost, doubled or overtaken, and what a crash leaves on a disk. Every step is written to a
//! [`Trace`], whose hash is the same for the same seed on every machine.
//!
//! The style follows FoundationDB's simulation and TigerBeetle's VOPR: faults first, then everything is healed and the
//! system must come to rest in the wanted state.
//!
//! With the feature `server`, [`Executor`], [`SimClock`] and [`RemoteStorage`] carry conversations (the API server)
//! into the simulation: the executor polls them in the order in which they were woken, and dropping it, as a crash does, leaves
//! their outstanding transactions with an unknown outcome.
//!
//! ```
//! use icp_core::base::{Duration, Machine, Time};
//! use icp_core::sim::{Input, NoDisk, Output, World};
//!
//! /// Sends back what it gets, one less.
//! struct Player(Vec<u8>);
//! impl Machine for Player {
//!     type Event = Input<u8>;
//!     type Effect = Output<u8>;
//!     fn on(&mut self, _now: Time, event: Input<u8>, out: &mut Vec<Output<u8>>) {
//!         let Input::Packet { from, payload } = event else { return };
//!         self.0.push(payload);
//!         if payload > 0 {
//!             out.push(Output::Packet { to: from, payload: payload - 1 });
//!         }
//!     }
//! }
//!
//! let play = |seed| {
//!     let mut world = World::new(seed, Time::ZERO);
//!     let (a, b) = (world.add("a", NoDisk), world.add("b", NoDisk));
//!     world.start(a, Player(vec![]));
//!     world.start(b, Player(vec![]));
//!     world.with(a, |_, _, out| out.push(Output::Packet { to: b, payload: 3 }));
//!     while world.step(Time::ZERO + Duration::from_secs(1)).unwrap().is_some() {}
//!     assert_eq!(world.host(b).unwrap().0, [3, 1]);
//!     world.trace().hash()
//! };
//! assert_eq!(play(7), play(7));
//! assert_ne!(play(7), play(8));
//! ```

mod clock;
mod disk;
mod link;
mod trace;
mod world;

#[cfg(feature = "server")]
mod executor;
#[cfg(feature = "server")]
mod remote;
#[cfg(feature = "server")]
mod sim_clock;

#[cfg(test)]
mod tests;

pub use clock::HostClock;
pub use disk::{Disk, NoDisk};
pub use link::{LinkModel, Links};
pub use trace::{Counts, Trace};
pub use world::{Death, HostId, Input, Output, StreamId, Stuck, World};

#[cfg(feature = "server")]
pub use executor::{Executor, TaskId};
#[cfg(feature = "server")]
pub use remote::{RemoteStorage, StoreAnswer, StoreCall, StoreNews, StoreOrder};
#[cfg(feature = "server")]
pub use sim_clock::SimClock;
