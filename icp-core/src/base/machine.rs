//! The one shape that every component has.

use alloc::vec::Vec;

use super::Time;

/// A state machine: event and time in, effects out.
///
/// The caller owns the effect buffer, performs the effects, and feeds what came of them back as events. The
/// machine holds no socket, file, thread, clock, random source or runtime, so that the same code runs in
/// production, in the simulator, in unit tests and in benches.
///
/// ```
/// use icp_core::base::{Duration, Machine, Time};
///
/// /// Says "tick" one second after the last poke.
/// #[derive(Default)]
/// struct Echo(Option<Time>);
/// impl Machine for Echo {
///     type Event = ();
///     type Effect = &'static str;
///     fn on(&mut self, now: Time, _poke: (), _out: &mut Vec<&'static str>) {
///         self.0 = Some(now + Duration::from_secs(1));
///     }
///     fn wake(&mut self, now: Time, out: &mut Vec<&'static str>) {
///         if self.0.is_some_and(|due| due <= now) {
///             self.0 = None;
///             out.push("tick");
///         }
///     }
///     fn deadline(&self) -> Option<Time> {
///         self.0
///     }
/// }
/// let (mut m, mut out) = (Echo::default(), Vec::new());
/// m.on(Time::ZERO, (), &mut out);
/// m.wake(m.deadline().unwrap(), &mut out);
/// assert_eq!(out, ["tick"]);
/// ```
pub trait Machine {
    /// What happens to the machine.
    type Event;
    /// What the machine wants done, as data.
    type Effect;

    /// Takes one event at `now` and appends the effects it causes to `out`.
    fn on(&mut self, now: Time, event: Self::Event, out: &mut Vec<Self::Effect>);

    /// Called when [`Machine::deadline`] has passed; a call that comes early must change nothing.
    fn wake(&mut self, _now: Time, _out: &mut Vec<Self::Effect>) {}

    /// When the machine wants [`Machine::wake`] to be called, if ever.
    fn deadline(&self) -> Option<Time> {
        None
    }
}

/// Wakes `machine` at each of its deadlines up to and including `until`, at most `steps_max` times, and returns
/// how many times it did.
///
/// This is virtual time for unit tests: hours pass in microseconds.
pub fn drive<M: Machine>(machine: &mut M, until: Time, steps_max: usize, out: &mut Vec<M::Effect>) -> usize {
    let mut steps = 0;
    while steps < steps_max {
        match machine.deadline() {
            Some(due) if due <= until => machine.wake(due, out),
            _ => break,
        }
        steps += 1;
    }
    steps
}
