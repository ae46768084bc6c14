//! The system's clock and generator behind the ports.

use alloc::boxed::Box;
use core::pin::Pin;
use std::sync::OnceLock;
use std::time::{Instant, SystemTime, UNIX_EPOCH};

use ring::rand::{SecureRandom as _, SystemRandom};

use crate::base::{Duration, Entropy, Time};
use crate::server::Clock;

/// The wall clock at the first call, carried on by the monotonic clock: it never runs backwards, so that timers
/// and the timestamps of objects agree.
#[derive(Clone, Copy, Debug, Default)]
pub struct SystemClock;

fn anchor() -> (Time, Instant) {
    static ANCHOR: OnceLock<(Time, Instant)> = OnceLock::new();
    *ANCHOR.get_or_init(|| {
        let wall = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        (Time::ZERO + wall, Instant::now())
    })
}

impl Clock for SystemClock {
    fn now(&self) -> Time {
        let (wall, instant) = anchor();
        wall + instant.elapsed()
    }

    fn sleep_until(&self, due: Time) -> Pin<Box<dyn Future<Output = ()> + Send>> {
        // One day is the longest sleep; who waits longer is woken early and asks again.
        let wait = due.since(self.now()).min(Duration::from_secs(86_400));
        Box::pin(tokio::time::sleep(wait))
    }
}

/// The operating system's generator.
#[derive(Clone, Debug)]
pub struct SystemEntropy(SystemRandom);

impl SystemEntropy {
    /// The operating system's generator.
    #[must_use]
    pub fn new() -> Self {
        Self(SystemRandom::new())
    }
}

impl Default for SystemEntropy {
    fn default() -> Self {
        Self::new()
    }
}

impl Entropy for SystemEntropy {
    /// # Panics
    /// If the operating system gives no random bytes: nothing secret can be made then.
    fn fill(&mut self, bytes: &mut [u8]) {
        assert!(self.0.fill(bytes).is_ok(), "the operating system's random generator failed");
    }
}
