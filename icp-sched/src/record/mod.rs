//! Scheduling histories: every input of a [`SchedulerMachine`](crate::machine::SchedulerMachine) with what was decided
//! on it, to be decided again by any later version, on any machine.
//!
//! A [`Recorder`] is the machine with a history: its shell gets pieces of text by
//! [`Effect::Recorded`](crate::machine::Effect::Recorded) and appends them to a file. A [`Replayer`] reads such a file
//! line by line, lets a fresh machine decide, and tells where it decides otherwise. After each comparison what was
//! recorded holds, so that every decision is compared in the state in which it was made, however many differed before;
//! that makes it possible to ask what [another configuration](Replayer::under) would have decided each time.
//!
//! A history is JSON lines:
//!
//! | line | what |
//! |---|---|
//! | `{"history":"icp-sched","version":1,"by":…,"seed":…,"machine":{…},"configuration":…}` | the first: how the machine is made |
//! | `{"n":7,"object":{…}}` | an object as it was observed; later lines name it by its number |
//! | `{"n":8,"of":7,"merge":{…}}` | object 7 changed, as a JSON merge patch (RFC 7396) |
//! | `{"forget":true}` | no object with a number up to here is named again |
//! | `{"at":…,"watch":…,"added":7,"decided":[{"pod":"default/web","node":"n1"}],"asked":[[9,"create pods/binding default/web"]]}` | an input, when in microseconds, what was decided on it, and what was asked by which id |
//!
//! Answers find their questions by what is asked, so that a later version that asks for more decides on an older history
//! too: resources that were not followed then do not exist for it.
//!
//! Memory is bounded: writer and reader keep the newest version of each object that is there, and at most
//! [`KEPT_MAX`] of them. A last line that was not written completely is told and left out; any other damage is a
//! [`HistoryError`] that names the line and the field.
//!
//! A history holds the objects as they are, environment variables of pods included; `metadata.managedFields` is left out.
//!
//! ```
//! use icp_core::base::{Machine, Time};
//! use icp_sched::config::Registry;
//! use icp_sched::machine::{Effect, Event, SchedulerConfig};
//! use icp_sched::record::{Recorder, Replayer, Settings};
//!
//! let settings = Settings { seed: 7, machine: SchedulerConfig::default(), configuration: None };
//! let mut scheduler = Recorder::new(&settings, &Registry::default()).unwrap();
//! let (mut out, mut history) = (Vec::new(), String::new());
//! scheduler.on(Time::from_secs(1), Event::Start, &mut out);
//! for effect in out {
//!     if let Effect::Recorded(text) = effect {
//!         history.push_str(&text);
//!     }
//! }
//! let report = Replayer::new(Registry::default()).replay(history.as_bytes()).unwrap();
//! assert!(report.is_equal());
//! ```

mod error;
mod line;
mod objects;
mod read;
mod replay;
mod settings;
#[cfg(test)]
mod tests;
mod write;

pub use error::HistoryError;
pub use objects::KEPT_MAX;
pub use read::{Input, LINE_MAX, Reader, Step};
pub use replay::{Difference, Replayer, Report};
pub use settings::Settings;
pub use write::{Recorder, Writer};

/// The version that is written; it is the only one so far.
pub const VERSION: u64 = 1;
