//! Schedules of CronJobs, in the language of `robfig/cron` (`ParseStandard`).
//!
//! ```
//! use icp_core::api::cron::{Schedule, zone};
//! let nightly = Schedule::parse("30 2 * * MON-FRI").unwrap();
//! let friday = "2026-11-27T02:30:00Z".parse().unwrap();
//! let next = nightly.next(friday, &zone("Europe/Berlin").unwrap()).unwrap();
//! assert_eq!(next.to_rfc3339(), "2026-11-30T01:30:00Z"); // Monday, in winter an hour ahead of UTC
//! ```

use alloc::format;
use alloc::string::String;
use alloc::vec::Vec;

use jiff::Timestamp;
use jiff::tz::{TimeZone, TimeZoneDatabase};

use crate::base::{Duration, Time};

/// How far ahead a matching time is looked for, in seconds: five years.
const AHEAD_SECS: i64 = 5 * 366 * 86_400;

/// Why a schedule cannot be read, in upstream's words.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct ScheduleError(pub String);

/// The values of one field, as bits; `any` is whether the field leaves it open.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Field {
    bits: u64,
    any: bool,
}

impl Field {
    const fn has(self, value: i8) -> bool {
        value >= 0 && self.bits >> value & 1 == 1
    }
}

/// The times at which something is to be done.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Schedule {
    /// Minutes that match the five fields of a cron line.
    Lines(Line),
    /// Again and again after so long.
    Every(Duration),
}

/// A cron line: minute, hour, day of the month, month, day of the week.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Line {
    minute: Field,
    hour: Field,
    day: Field,
    month: Field,
    weekday: Field,
}

/// Least, greatest and the names of the values of a field; names stand for values from the least on.
struct Bounds(u8, u8, &'static [&'static str]);

const MINUTES: Bounds = Bounds(0, 59, &[]);
const HOURS: Bounds = Bounds(0, 23, &[]);
const DAYS: Bounds = Bounds(1, 31, &[]);
const MONTHS: Bounds =
    Bounds(1, 12, &["jan", "feb", "mar", "apr", "may", "jun", "jul", "aug", "sep", "oct", "nov", "dec"]);
const WEEKDAYS: Bounds = Bounds(0, 6, &["sun", "mon", "tue", "wed", "thu", "fri", "sat"]);

fn refuse<T>(why: String) -> Result<T, ScheduleError> {
    Err(ScheduleError(why))
}

fn number(text: &str) -> Result<u64, ScheduleError> {
    match text.parse::<u64>() {
        Ok(n) => Ok(n),
        Err(_) => refuse(format!("failed to parse int from {text}")),
    }
}

impl Bounds {
    fn value(&self, text: &str) -> Result<u64, ScheduleError> {
        let lower = text.to_ascii_lowercase();
        match self.2.iter().position(|name| *name == lower) {
            Some(at) => Ok(u64::from(self.0) + at as u64),
            None => number(text),
        }
    }

    fn field(&self, text: &str) -> Result<Field, ScheduleError> {
        let mut field = Field { bits: 0, any: false };
        for part in text.split(',').filter(|p| !p.is_empty()) {
            let part = self.part(part)?;
            field = Field { bits: field.bits | part.bits, any: field.any || part.any };
        }
        Ok(field)
    }

    /// A value, a range, or every so many of a range.
    fn part(&self, text: &str) -> Result<Field, ScheduleError> {
        let Self(least, greatest, _) = *self;
        let (least, greatest) = (u64::from(least), u64::from(greatest));
        let slashed: Vec<&str> = text.split('/').collect();
        let (range, step) = match slashed.as_slice() {
            [range] => (*range, None),
            [range, step] => (*range, Some(number(step)?)),
            _ => return refuse(format!("too many slashes: {text}")),
        };
        let hyphened: Vec<&str> = range.split('-').collect();
        let (start, mut end, mut any, single) = match hyphened.as_slice() {
            ["*" | "?"] => (least, greatest, true, false),
            [one] => {
                let value = self.value(one)?;
                (value, value, false, true)
            }
            [start, end] => (self.value(start)?, self.value(end)?, false, false),
            _ => return refuse(format!("too many hyphens: {text}")),
        };
        if step.is_some() && single {
            end = greatest;
        }
        if step.is_some_and(|s| s > 1) {
            any = false;
        }
        if start < least {
            return refuse(format!("beginning of range ({start}) below minimum ({least}): {text}"));
        }
        if end > greatest {
            return refuse(format!("end of range ({end}) above maximum ({greatest}): {text}"));
        }
        if start > end {
            return refuse(format!("beginning of range ({start}) beyond end of range ({end}): {text}"));
        }
        let Some(step) = step.unwrap_or(1).try_into().ok().filter(|s| *s > 0) else {
            return refuse(format!("step of range should be a positive number: {text}"));
        };
        let bits = (start..=end).step_by(step).fold(0, |bits, value| bits | 1 << value);
        Ok(Field { bits, any })
    }
}

/// Reads a duration as Go's `time.ParseDuration` does: `1h30m`, `1.5h`, `90s`.
fn duration(text: &str) -> Option<Duration> {
    const UNITS: &[(&str, u64)] = &[
        ("ns", 1),
        ("us", 1_000),
        ("µs", 1_000),
        ("ms", 1_000_000),
        ("s", 1_000_000_000),
        ("m", 60_000_000_000),
        ("h", 3_600_000_000_000),
    ];
    let mut rest = text.strip_prefix('+').unwrap_or(text);
    let mut nanos: u64 = 0;
    if rest == "0" {
        return Some(Duration::ZERO);
    }
    if rest.is_empty() {
        return None;
    }
    while !rest.is_empty() {
        let digits = |text: &str| text.find(|c: char| !c.is_ascii_digit()).unwrap_or(text.len());
        let (whole, after) = rest.split_at(digits(rest));
        let (part, after) = match after.strip_prefix('.') {
            Some(after) => after.split_at(digits(after)),
            None => ("", after),
        };
        if whole.is_empty() && part.is_empty() {
            return None;
        }
        let len = after.find(|c: char| c == '.' || c.is_ascii_digit()).unwrap_or(after.len());
        let (unit, after) = after.split_at(len);
        let (_, size) = UNITS.iter().find(|(name, _)| *name == unit)?;
        let whole: u64 = if whole.is_empty() { 0 } else { whole.parse().ok()? };
        nanos = nanos.checked_add(whole.checked_mul(*size)?)?;
        let mut share = *size;
        for digit in part.bytes() {
            share /= 10;
            nanos = nanos.checked_add(share.checked_mul(u64::from(digit - b'0'))?)?;
        }
        rest = after;
    }
    i64::try_from(nanos).ok().map(|_| Duration::from_nanos(nanos))
}

/// A time zone by its name in the IANA database, or why there is none.
///
/// # Errors
/// If there is no zone of the name.
pub fn zone(name: &str) -> Result<TimeZone, ScheduleError> {
    let known = TimeZoneDatabase::bundled().get(name);
    known.map_err(|_| ScheduleError(format!("unknown time zone {name}")))
}

impl Schedule {
    /// Reads five fields or a descriptor such as `@daily` and `@every 1h30m`.
    ///
    /// # Errors
    /// If the text is neither; a time zone does not belong into it.
    pub fn parse(text: &str) -> Result<Self, ScheduleError> {
        if text.contains("TZ") {
            return refuse("cannot use TZ or CRON_TZ in schedule, use timeZone field instead".into());
        }
        if let Some(every) = text.strip_prefix("@every ") {
            return match duration(every) {
                // Whole seconds, and at least one.
                Some(d) => Ok(Self::Every(Duration::from_secs(d.as_secs().max(1)))),
                None => refuse(format!("failed to parse duration {text}: time: invalid duration {every:?}")),
            };
        }
        let line = match text {
            "@yearly" | "@annually" => "0 0 1 1 *",
            "@monthly" => "0 0 1 * *",
            "@weekly" => "0 0 * * 0",
            "@daily" | "@midnight" => "0 0 * * *",
            "@hourly" => "0 * * * *",
            _ if text.starts_with('@') => return refuse(format!("unrecognized descriptor: {text}")),
            _ => text,
        };
        let fields: Vec<&str> = line.split_whitespace().collect();
        let [minute, hour, day, month, weekday] = fields.as_slice() else {
            return refuse(
                format!("expected exactly 5 fields, found {}: {fields:?}", fields.len())
                    .replace(", \"", " \"")
                    .replace('"', ""),
            );
        };
        Ok(Self::Lines(Line {
            minute: MINUTES.field(minute)?,
            hour: HOURS.field(hour)?,
            day: DAYS.field(day)?,
            month: MONTHS.field(month)?,
            weekday: WEEKDAYS.field(weekday)?,
        }))
    }

    /// The first time after `after`; none if nothing matches within five years.
    ///
    /// A time that a clock of the zone shows twice matches twice, and one that it leaves out never.
    #[must_use]
    pub fn next(&self, after: Time, zone: &TimeZone) -> Option<Time> {
        match self {
            Self::Every(every) => Some(Time::from_secs(after.as_secs()) + *every),
            Self::Lines(line) => line.next(after.as_secs(), zone).map(Time::from_secs),
        }
    }
}

impl Line {
    fn has_day(&self, date: jiff::civil::Date) -> bool {
        let day = self.day.has(date.day());
        let weekday = self.weekday.has(date.weekday().to_sunday_zero_offset());
        // As in cron: of two days that are both given, either will do.
        if self.day.any || self.weekday.any { day && weekday } else { day || weekday }
    }

    fn next(&self, after: i64, zone: &TimeZone) -> Option<i64> {
        let limit = after.saturating_add(AHEAD_SECS);
        let mut at = after.saturating_add(1);
        // Until then the offset of the zone is the same.
        let mut same_until = i64::MIN;
        let mut offset = jiff::tz::Offset::UTC;
        while at <= limit {
            let stamp = Timestamp::from_second(at).ok()?;
            if at >= same_until {
                offset = zone.to_offset(stamp);
                same_until = zone.following(stamp).next().map_or(i64::MAX, |t| t.timestamp().as_second());
            }
            let local = offset.to_datetime(stamp);
            let date = local.date();
            let second = i64::from(local.second());
            let minute = i64::from(local.minute()) * 60 + second;
            let hour = i64::from(local.hour()) * 3_600 + minute;
            // How long nothing matches, if the offset stays.
            let skip = if !self.month.has(date.month()) {
                i64::from(date.days_in_month() - date.day() + 1) * 86_400 - hour
            } else if !self.has_day(date) {
                86_400 - hour
            } else if !self.hour.has(local.hour()) {
                3_600 - minute
            } else if !self.minute.has(local.minute()) || second != 0 {
                60 - second
            } else {
                return Some(at);
            };
            at = at.saturating_add(skip).min(same_until);
        }
        None
    }
}

#[cfg(test)]
mod tests {
    use alloc::string::ToString;

    use proptest::prelude::*;

    use super::*;

    fn times(schedule: &str, zone_name: &str, from: &str, count: usize) -> Vec<String> {
        let (schedule, zone) = (Schedule::parse(schedule).unwrap(), zone(zone_name).unwrap());
        let mut at: Time = from.parse().unwrap();
        let mut out = Vec::new();
        while out.len() < count {
            let Some(next) = schedule.next(at, &zone) else { break };
            out.push(next.to_rfc3339());
            at = next;
        }
        out
    }

    #[test]
    fn lines_and_descriptors() {
        for (schedule, from, want) in [
            ("* * * * *", "2026-01-31T23:59:00Z", "2026-02-01T00:00:00Z"),
            ("* * * * *", "2026-01-31T23:59:30Z", "2026-02-01T00:00:00Z"),
            ("*/15 * * * *", "2026-01-01T00:45:00Z", "2026-01-01T01:00:00Z"),
            ("20-35/15 * * * *", "2026-01-01T00:20:00Z", "2026-01-01T00:35:00Z"),
            ("5/20 * * * *", "2026-01-01T00:25:00Z", "2026-01-01T00:45:00Z"),
            ("0 9-17 * * MON-fri", "2026-11-27T17:00:00Z", "2026-11-30T09:00:00Z"),
            ("0 0 29 FEB *", "2026-01-01T00:00:00Z", "2028-02-29T00:00:00Z"),
            // Either of two days, unless one is left open.
            ("0 0 13 * 5", "2026-11-01T00:00:00Z", "2026-11-06T00:00:00Z"),
            ("0 0 13 * *", "2026-11-01T00:00:00Z", "2026-11-13T00:00:00Z"),
            ("0 0 */2 * 5", "2026-11-01T00:00:00Z", "2026-11-03T00:00:00Z"),
            ("0 0 */1 * 5", "2026-11-01T00:00:00Z", "2026-11-06T00:00:00Z"),
            ("0 0 ? * 0,3", "2026-11-02T00:00:00Z", "2026-11-04T00:00:00Z"),
            ("@hourly", "2026-11-02T00:00:00Z", "2026-11-02T01:00:00Z"),
            ("@daily", "2026-11-02T00:00:00Z", "2026-11-03T00:00:00Z"),
            ("@weekly", "2026-11-02T00:00:00Z", "2026-11-08T00:00:00Z"),
            ("@monthly", "2026-11-02T00:00:00Z", "2026-12-01T00:00:00Z"),
            ("@yearly", "2026-11-02T00:00:00Z", "2027-01-01T00:00:00Z"),
            ("@every 1h30m", "2026-11-02T00:00:10Z", "2026-11-02T01:30:10Z"),
            ("@every 0.5s", "2026-11-02T00:00:10Z", "2026-11-02T00:00:11Z"),
        ] {
            assert_eq!(times(schedule, "UTC", from, 1), [want], "{schedule} after {from}");
        }
        assert!(times("59 23 31 2 *", "UTC", "2026-01-01T00:00:00Z", 1).is_empty());
    }

    #[test]
    fn clocks_that_are_set() {
        // Spring: 02:30 is left out on March 29th. Autumn: 02:30 comes twice on October 25th.
        assert_eq!(
            times("30 2 * * *", "Europe/Berlin", "2026-03-28T00:00:00Z", 2),
            ["2026-03-28T01:30:00Z", "2026-03-30T00:30:00Z"]
        );
        assert_eq!(
            times("30 2 * * *", "Europe/Berlin", "2026-10-24T12:00:00Z", 3),
            ["2026-10-25T00:30:00Z", "2026-10-25T01:30:00Z", "2026-10-26T01:30:00Z"]
        );
        // Half an hour, and a quarter.
        assert_eq!(times("0 9 * * *", "Asia/Kathmandu", "2026-01-01T00:00:00Z", 1), ["2026-01-01T03:15:00Z"]);
        assert_eq!(
            times("45 1 * * *", "Australia/Lord_Howe", "2026-04-04T12:00:00Z", 2),
            ["2026-04-04T14:45:00Z", "2026-04-04T15:15:00Z"]
        );
        assert_eq!(zone("Mars/Olympus").unwrap_err().to_string(), "unknown time zone Mars/Olympus");
    }

    #[test]
    fn what_is_no_schedule() {
        for (text, why) in [
            ("", "expected exactly 5 fields, found 0: []"),
            ("* * * *", "expected exactly 5 fields, found 4: [* * * *]"),
            ("60 * * * *", "end of range (60) above maximum (59): 60"),
            ("* * 0 * *", "beginning of range (0) below minimum (1): 0"),
            ("* * * * 7", "end of range (7) above maximum (6): 7"),
            ("9-3 * * * *", "beginning of range (9) beyond end of range (3): 9-3"),
            ("1-2-3 * * * *", "too many hyphens: 1-2-3"),
            ("1/2/3 * * * *", "too many slashes: 1/2/3"),
            ("a * * * *", "failed to parse int from a"),
            ("*/0 * * * *", "step of range should be a positive number: */0"),
            ("@sometimes", "unrecognized descriptor: @sometimes"),
            ("@every", "unrecognized descriptor: @every"),
            ("@every 1x", "failed to parse duration @every 1x: time: invalid duration \"1x\""),
            ("TZ=UTC * * * * *", "cannot use TZ or CRON_TZ in schedule, use timeZone field instead"),
        ] {
            assert_eq!(Schedule::parse(text).unwrap_err().to_string(), why, "{text}");
        }
    }

    #[test]
    fn durations_of_go() {
        for (text, secs) in
            [("1h", 3_600), ("1h30m", 5_400), ("1.5h", 5_400), (".5m", 30), ("90s", 90), ("1500ms", 1)]
        {
            assert_eq!(duration(text).map(|d| d.as_secs()), Some(secs), "{text}");
        }
        for text in ["", "h", "1", "1h30", "-1h", "1.h.", "99999999999999999999h", "9999999h"] {
            assert_eq!(duration(text), None, "{text}");
        }
    }

    /// One field: a few values, ranges and steps.
    fn field(low: u8, high: u8) -> impl Strategy<Value = String> {
        prop_oneof![
            3 => Just(String::from("*")),
            3 => (low..=high).prop_map(|v| v.to_string()),
            1 => (low..=high, low..=high).prop_map(|(a, b)| format!("{}-{}", a.min(b), a.max(b))),
            1 => (1_u8..20).prop_map(|s| format!("*/{s}")),
            1 => (low..=high, low..=high).prop_map(|(a, b)| format!("{a},{b}")),
        ]
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(64))]

        #[test]
        fn no_minute_is_left_out(
            fields in (field(0, 59), field(0, 23), field(1, 31), field(1, 12), field(0, 6)),
            zone_at in 0_usize..4, from in 1_600_000_000_i64..1_900_000_000,
        ) {
            let (minute, hour, day, month, weekday) = fields;
            let Schedule::Lines(line) = Schedule::parse(&format!("{minute} {hour} {day} {month} {weekday}")).unwrap()
                else { panic!() };
            let zone = zone(["UTC", "Europe/Berlin", "America/St_Johns", "Australia/Lord_Howe"][zone_at]).unwrap();
            let next = line.next(from, &zone);
            // Naively: each minute is looked at, as far as a few weeks go.
            let mut at = from - from.rem_euclid(60) + 60;
            let far = next.unwrap_or(i64::MAX).min(from + 40 * 86_400);
            while at <= far {
                let local = zone.to_datetime(Timestamp::from_second(at).unwrap());
                let matches = line.minute.has(local.minute()) && line.hour.has(local.hour())
                    && line.month.has(local.month()) && line.has_day(local.date());
                prop_assert_eq!(matches, Some(at) == next, "{} {:?}", at, next);
                at += 60;
            }
        }

        #[test]
        fn any_text_is_answered(text in "[*0-9/,@a-z -]{0,24}") {
            if let Ok(schedule) = Schedule::parse(&text) {
                let next = schedule.next(Time::from_secs(1_700_000_000), &TimeZone::UTC);
                prop_assert!(next.is_none_or(|t| t > Time::from_secs(1_700_000_000)));
            }
        }
    }
}
