//! Exponential back-off as a value.

use core::time::Duration;

use super::Rng;

/// Exponential back-off with a ceiling and optional jitter: the delays of a retried operation.
///
/// ```
/// use icp_core::base::{Backoff, Duration};
/// // CrashLoopBackOff: 10 s, doubling, at most 300 s.
/// let mut b = Backoff::new(Duration::from_secs(10), Duration::from_secs(300));
/// assert_eq!(b.next_delay(), Duration::from_secs(10));
/// assert_eq!(b.next_delay(), Duration::from_secs(20));
/// b.reset();
/// assert_eq!(b.next_delay(), Duration::from_secs(10));
/// ```
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Backoff {
    initial: Duration,
    max: Duration,
    failures: u32,
}

impl Backoff {
    /// A back-off that starts at `initial`, doubles, and never exceeds `max`.
    #[must_use]
    pub const fn new(initial: Duration, max: Duration) -> Self {
        Self { initial, max, failures: 0 }
    }

    /// How many delays were drawn since the last reset.
    #[must_use]
    pub const fn failures(&self) -> u32 {
        self.failures
    }

    /// The delay that [`Backoff::next_delay`] would return.
    #[must_use]
    pub fn peek(&self) -> Duration {
        let factor = 1_u32.checked_shl(self.failures.min(31)).unwrap_or(u32::MAX);
        self.initial.saturating_mul(factor).min(self.max)
    }

    /// The delay before the next try.
    pub fn next_delay(&mut self) -> Duration {
        let delay = self.peek();
        self.failures = self.failures.saturating_add(1);
        delay
    }

    /// The delay before the next try, lengthened by up to `jitter` of itself.
    pub fn next_delay_jittered(&mut self, jitter: f64, rng: &mut Rng) -> Duration {
        let delay = self.next_delay();
        delay + delay.mul_f64((rng.fraction() * jitter).clamp(0.0, 1.0))
    }

    /// Starts over after a success.
    pub const fn reset(&mut self) {
        self.failures = 0;
    }
}
