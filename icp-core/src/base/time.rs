//! Time as a value.

use alloc::string::{String, ToString};
use core::fmt;
use core::ops::{Add, Sub};
use core::str::FromStr;
use core::time::Duration;

use serde::{Deserialize, Deserializer, Serialize, Serializer};

/// A point in time: microseconds since 1970-01-01T00:00:00Z.
///
/// It is both the wall clock that stands in objects and the clock that timers run on; a shell that feeds it
/// makes it monotonic. In JSON it is RFC 3339 with whole seconds, as `metav1.Time` is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Time(i64);

/// A text is not an RFC 3339 time.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{text:?} is not an RFC 3339 time")]
pub struct ParseTimeError {
    /// The text that was given, cut to 64 bytes.
    pub text: String,
}

impl Time {
    /// 1970-01-01T00:00:00Z.
    pub const ZERO: Self = Self(0);

    /// The time `micros` microseconds after 1970-01-01T00:00:00Z.
    #[must_use]
    pub const fn from_micros(micros: i64) -> Self {
        Self(micros)
    }

    /// The time `millis` milliseconds after 1970-01-01T00:00:00Z.
    #[must_use]
    pub const fn from_millis(millis: i64) -> Self {
        Self(millis.saturating_mul(1_000))
    }

    /// The time `secs` seconds after 1970-01-01T00:00:00Z.
    #[must_use]
    pub const fn from_secs(secs: i64) -> Self {
        Self(secs.saturating_mul(1_000_000))
    }

    /// Microseconds since 1970-01-01T00:00:00Z.
    #[must_use]
    pub const fn as_micros(self) -> i64 {
        self.0
    }

    /// Whole seconds since 1970-01-01T00:00:00Z, rounded down.
    #[must_use]
    pub const fn as_secs(self) -> i64 {
        self.0.div_euclid(1_000_000)
    }

    /// How long after `earlier` this is; zero if it is before.
    #[must_use]
    pub fn since(self, earlier: Self) -> Duration {
        Duration::from_micros(u64::try_from(self.0.saturating_sub(earlier.0)).unwrap_or(0))
    }

    /// RFC 3339 in UTC with whole seconds (`metav1.Time`).
    #[must_use]
    pub fn to_rfc3339(self) -> String {
        let whole = jiff::Timestamp::from_second(self.as_secs()).unwrap_or(jiff::Timestamp::MAX);
        whole.to_string()
    }

    /// RFC 3339 in UTC with six fractional digits (`metav1.MicroTime`).
    #[must_use]
    pub fn to_rfc3339_micros(self) -> String {
        let t = jiff::Timestamp::from_microsecond(self.0).unwrap_or(jiff::Timestamp::MAX);
        alloc::format!("{t:.6}")
    }
}

impl fmt::Display for Time {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.to_rfc3339())
    }
}

impl FromStr for Time {
    type Err = ParseTimeError;

    fn from_str(s: &str) -> Result<Self, Self::Err> {
        s.parse::<jiff::Timestamp>()
            .map(|t| Self(t.as_microsecond()))
            .map_err(|_| ParseTimeError { text: s.chars().take(64).collect() })
    }
}

impl Add<Duration> for Time {
    type Output = Self;

    fn add(self, d: Duration) -> Self {
        Self(self.0.saturating_add(i64::try_from(d.as_micros()).unwrap_or(i64::MAX)))
    }
}

impl Sub<Duration> for Time {
    type Output = Self;

    fn sub(self, d: Duration) -> Self {
        Self(self.0.saturating_sub(i64::try_from(d.as_micros()).unwrap_or(i64::MAX)))
    }
}

impl Serialize for Time {
    fn serialize<S: Serializer>(&self, s: S) -> Result<S::Ok, S::Error> {
        s.serialize_str(&self.to_rfc3339())
    }
}

impl<'de> Deserialize<'de> for Time {
    fn deserialize<D: Deserializer<'de>>(d: D) -> Result<Self, D::Error> {
        let text = String::deserialize(d)?;
        text.parse().map_err(|e: ParseTimeError| serde::de::Error::custom(e.to_string()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rfc3339_round_trip() {
        let t: Time = "2026-11-24T06:51:00Z".parse().unwrap();
        assert_eq!(t.to_rfc3339(), "2026-11-24T06:51:00Z");
        assert_eq!((t + Duration::from_micros(1_500_000)).to_rfc3339_micros(), "2026-11-24T06:51:01.500000Z");
        assert_eq!("2026-11-24T07:51:00+01:00".parse::<Time>().unwrap(), t);
        assert!("yesterday".parse::<Time>().is_err());
    }

    #[test]
    fn arithmetic_saturates() {
        assert_eq!(Time::from_micros(i64::MAX) + Duration::MAX, Time::from_micros(i64::MAX));
        assert_eq!(Time::ZERO.since(Time::from_secs(5)), Duration::ZERO);
    }
}
