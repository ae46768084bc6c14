//! Clocks that are wrong.

use crate::base::{Duration, Time};

/// What a host's clock shows: the world's time, shifted, and running a little fast or slow.
///
/// ```
/// use icp_core::base::Time;
/// use icp_core::sim::HostClock;
/// let clock = HostClock { start: Time::ZERO, offset_micros: 2_000_000, drift_ppm: 100_000 };
/// assert_eq!(clock.local(Time::from_secs(10)), Time::from_secs(13));
/// assert_eq!(clock.world(Time::from_secs(13)), Time::from_secs(10));
/// ```
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct HostClock {
    /// From when on it drifts.
    pub start: Time,
    /// How far it is ahead, in microseconds.
    pub offset_micros: i64,
    /// How many microseconds it gains in a second.
    pub drift_ppm: i32,
}

const MILLION: i128 = 1_000_000;

impl HostClock {
    /// What the clock shows when the world's time is `world`.
    #[must_use]
    pub fn local(&self, world: Time) -> Time {
        let gone = i128::from(world.as_micros()) - i128::from(self.start.as_micros());
        let gained = gone * i128::from(self.drift_ppm) / MILLION;
        saturate(i128::from(world.as_micros()) + i128::from(self.offset_micros) + gained)
    }

    /// The first time of the world at which the clock shows `local` or later.
    #[must_use]
    pub fn world(&self, local: Time) -> Time {
        if self.drift_ppm == 0 {
            return saturate(i128::from(local.as_micros()) - i128::from(self.offset_micros));
        }
        let start = i128::from(self.start.as_micros());
        let gone = i128::from(local.as_micros()) - i128::from(self.offset_micros) - start;
        let rate = MILLION + i128::from(self.drift_ppm);
        let mut world = saturate(start + gone * MILLION / rate.max(1));
        // Division rounds towards zero: at most a few microseconds are missing.
        while self.local(world) < local && world.as_micros() < i64::MAX {
            world = world + Duration::from_micros(1);
        }
        world
    }
}

fn saturate(micros: i128) -> Time {
    Time::from_micros(i64::try_from(micros).unwrap_or(if micros < 0 { i64::MIN } else { i64::MAX }))
}
