//! The clock of a handle that runs by itself.
#![expect(clippy::disallowed_methods, reason = "a shell: it reads the clock")]

use std::time::{Instant, SystemTime, UNIX_EPOCH};

use icp_core::base::{Duration, Time};

/// Wall time at the start, monotonic from then on.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Clock {
    wall: Duration,
    start: Instant,
}

impl Clock {
    pub(crate) fn new() -> Self {
        let wall = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        Self { wall, start: Instant::now() }
    }

    pub(crate) fn now(&self) -> Time {
        Time::ZERO + self.wall + self.start.elapsed()
    }
}
