//! Which times were missed, and which comes next (`pkg/controller/cronjob/utils.go`).

use jiff::tz::TimeZone;

use crate::api::cron::Schedule;
use crate::base::{Duration, Time};

/// Missed times beyond which something is taken to be wrong.
const MISSED_MAX: i64 = 100;
/// How long after its time a Job is made (`nextScheduleDelta` upstream), so that a clock that is read a little early
/// does not show the time as still to come.
const DELTA: Duration = Duration::from_millis(100);

/// The times of a CronJob.
#[derive(Clone, Debug)]
pub(super) struct Times {
    pub(super) schedule: Schedule,
    pub(super) zone: TimeZone,
    /// The time of the last Job; before the first one, when the CronJob was made.
    pub(super) last: Time,
    /// `startingDeadlineSeconds`.
    pub(super) deadline: Option<Duration>,
}

/// What became of the times up to now.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Due {
    /// The latest of them.
    pub(super) at: Time,
    /// Whether more of them were missed than seems right.
    pub(super) many: bool,
}

/// The schedule holds no two times.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("time difference between two schedules is less than 1 second")]
pub(super) struct NoTimes;

/// What is known of the times between the last Job and now.
enum Recent {
    /// None has come.
    None { since: Time },
    /// This is the latest.
    At(Due),
    /// Some were missed, and the latest is not known.
    Unknown,
}

impl Times {
    fn next_after(&self, time: Time) -> Option<Time> {
        self.schedule.next(time, &self.zone)
    }

    /// `mostRecentScheduleTime` upstream, which estimates how many times were missed from the distance of the first two,
    /// rather than to count years of them.
    fn recent(&self, now: Time, within_deadline: bool) -> Result<Recent, NoTimes> {
        let mut since = self.last;
        if let Some(deadline) = self.deadline.filter(|_| within_deadline) {
            since = since.max(now - deadline);
        }
        let first = self.next_after(since).ok_or(NoTimes)?;
        let second = self.next_after(first).ok_or(NoTimes)?;
        if now < first {
            return Ok(Recent::None { since });
        }
        if now < second {
            return Ok(Recent::At(Due { at: first, many: false }));
        }
        let distance = second.as_secs() - first.as_secs();
        let missed = now.since(first).as_secs().cast_signed() / distance + 1;
        let mut at = Time::from_secs(first.as_secs() + (missed - 2) * distance);
        let mut latest = None;
        while let Some(next) = self.next_after(at).filter(|t| *t <= now) {
            latest = Some(next);
            at = next;
        }
        Ok(latest.map_or(Recent::Unknown, |at| Recent::At(Due { at, many: missed > MISSED_MAX })))
    }

    /// The latest time for which a Job may still be made, if one has come.
    pub(super) fn due(&self, now: Time) -> Result<Option<Due>, NoTimes> {
        Ok(match self.recent(now, true)? {
            Recent::At(due) => Some(due),
            Recent::None { .. } | Recent::Unknown => None,
        })
    }

    /// When to look again.
    pub(super) fn look_again(&self, now: Time) -> Option<Time> {
        let from = match self.recent(now, false) {
            Ok(Recent::None { since }) => since,
            Ok(Recent::At(due)) => due.at,
            Ok(Recent::Unknown) | Err(NoTimes) => now,
        };
        self.next_after(from).map(|t| t + DELTA)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::api::cron;

    fn times(schedule: &str, last: &str, deadline: Option<u64>) -> Times {
        Times {
            schedule: Schedule::parse(schedule).unwrap(),
            zone: cron::zone("UTC").unwrap(),
            last: last.parse().unwrap(),
            deadline: deadline.map(Duration::from_secs),
        }
    }

    fn due(times: &Times, now: &str) -> Option<(alloc::string::String, bool)> {
        times.due(now.parse().unwrap()).unwrap().map(|d| (d.at.to_rfc3339(), d.many))
    }

    #[test]
    fn the_latest_missed_time_counts() {
        let hourly = times("0 * * * *", "2026-01-01T00:00:00Z", None);
        assert_eq!(due(&hourly, "2026-01-01T00:59:59Z"), None);
        assert_eq!(due(&hourly, "2026-01-01T01:00:00Z"), Some(("2026-01-01T01:00:00Z".into(), false)));
        assert_eq!(due(&hourly, "2026-01-01T04:30:00Z"), Some(("2026-01-01T04:00:00Z".into(), false)));
        assert_eq!(due(&hourly, "2026-01-05T04:00:00Z"), Some(("2026-01-05T04:00:00Z".into(), false)));
        assert_eq!(due(&hourly, "2026-01-05T05:00:00Z"), Some(("2026-01-05T05:00:00Z".into(), true)));
        // Times at unequal distances.
        let office = times("0 9-17 * * 1-5", "2026-11-27T16:30:00Z", None);
        assert_eq!(due(&office, "2026-11-29T12:00:00Z"), Some(("2026-11-27T17:00:00Z".into(), false)));
        let every = times("@every 7s", "2026-01-01T00:00:00Z", None);
        assert_eq!(due(&every, "2026-01-01T00:01:00Z"), Some(("2026-01-01T00:00:56Z".into(), false)));
    }

    #[test]
    fn what_is_older_than_the_deadline_does_not_count() {
        let late = times("0 * * * *", "2026-01-01T00:00:00Z", Some(600));
        assert_eq!(due(&late, "2026-01-01T04:09:00Z"), Some(("2026-01-01T04:00:00Z".into(), false)));
        assert_eq!(due(&late, "2026-01-01T04:11:00Z"), None);
        assert_eq!(due(&late, "2027-01-01T04:09:00Z"), Some(("2027-01-01T04:00:00Z".into(), false)));
    }

    #[test]
    fn looking_again_at_the_next_time() {
        let hourly = times("0 * * * *", "2026-01-01T00:00:00Z", None);
        let again = |now: &str| hourly.look_again(now.parse().unwrap()).unwrap();
        let at = |text: &str| text.parse::<Time>().unwrap() + DELTA;
        assert_eq!(again("2026-01-01T00:10:00Z"), at("2026-01-01T01:00:00Z"));
        assert_eq!(again("2026-01-01T04:10:00Z"), at("2026-01-01T05:00:00Z"));
        let never = times("59 23 31 2 *", "2026-01-01T00:00:00Z", None);
        assert_eq!(
            (never.due(at("2026-01-01T04:10:00Z")), never.look_again(at("2026-01-01T04:10:00Z"))),
            (Err(NoTimes), None)
        );
    }
}
