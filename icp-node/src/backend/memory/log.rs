//! The log of a simulated container: a pure function of time.

use alloc::format;
use alloc::string::{String, ToString};
use alloc::vec::Vec;

use icp_core::base::{Duration, Time};

use super::script::{End, Run, Stream, Write};
use crate::runtime::{Exit, LogOptions};

/// Most lines that are kept, as a rotated log keeps some.
const LINES_MAX: u64 = 10_000;
/// Most lines of one page.
const PAGE_LINES_MAX: u64 = 1_000;

/// A line of a log.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Line {
    after: Duration,
    pub(super) stream: Stream,
    pub(super) text: String,
}

/// What a container writes over its life.
#[derive(Clone, Debug, Default)]
pub(super) struct SimLog {
    head: Vec<Line>,
    /// Lines that come again and again: when the first round begins and how long a round takes.
    rounds: Option<(Duration, Duration, Vec<Line>)>,
    /// Whether the end is told, since no process tells it.
    simulated: Option<String>,
}

fn lines(writes: &[Write]) -> Vec<Line> {
    let of = |w: &Write| {
        let text = String::from_utf8_lossy(&w.bytes).into_owned();
        let (after, stream) = (w.after, w.stream);
        text.lines().map(|l| Line { after, stream, text: l.to_string() }).collect::<Vec<_>>()
    };
    writes.iter().flat_map(of).collect()
}

impl SimLog {
    /// The log of a container: the text that its pod tells, else what its command writes, else a line that says that
    /// nothing runs.
    pub(super) fn new(told: Option<&str>, run: &Run, container: &str, image: &str) -> Self {
        let mut log = Self::default();
        let now = Duration::ZERO;
        if let Some(text) = told {
            log.head =
                lines(&[Write { after: now, stream: Stream::Stdout, bytes: text.as_bytes().to_vec() }]);
            return log;
        }
        match &run.end {
            End::Loops { first, from, period } => {
                let (head, round) = run.writes.split_at_checked(*first).unwrap_or((&run.writes, &[]));
                let mut round = lines(round);
                round.iter_mut().for_each(|l| l.after = l.after.saturating_sub(*from));
                log.head = lines(head);
                if !round.is_empty() {
                    log.rounds = Some((*from, *period, round));
                }
            }
            End::Unknown { at, what, .. } => {
                log.head = lines(&run.writes);
                let what = if what.is_empty() { "its program" } else { what };
                let text = format!(
                    "[simulated] container {container} of image {image} started; no process runs behind it ({what})"
                );
                log.head.push(Line { after: *at, stream: Stream::Stdout, text });
                log.simulated = Some(container.to_string());
            }
            _ => log.head = lines(&run.writes),
        }
        log
    }

    /// How many lines were written `elapsed` after the start.
    fn count(&self, elapsed: Duration) -> u64 {
        let head = self.head.partition_point(|l| l.after <= elapsed) as u64;
        let Some((from, period, round)) = &self.rounds else { return head };
        let Some(since) = elapsed.checked_sub(*from) else { return head };
        let full = u64::try_from(since.as_nanos() / period.as_nanos().max(1)).unwrap_or(u64::MAX);
        let rest =
            Duration::from_nanos(u64::try_from(since.as_nanos() % period.as_nanos().max(1)).unwrap_or(0));
        let begun = round.partition_point(|l| l.after <= rest) as u64;
        head.saturating_add(full.saturating_mul(round.len() as u64)).saturating_add(begun)
    }

    /// A line and when it is written, after the start; the ones after the last are never written.
    fn line(&self, index: u64) -> Option<(Duration, &Line)> {
        if let Some(line) = usize::try_from(index).ok().and_then(|i| self.head.get(i)) {
            return Some((line.after, line));
        }
        let (from, period, round) = self.rounds.as_ref()?;
        let index = index - self.head.len() as u64;
        let (full, rest) = (index / round.len() as u64, index % round.len() as u64);
        let line = round.get(usize::try_from(rest).ok()?)?;
        let full = u32::try_from(full).ok()?;
        Some((from.saturating_add(period.saturating_mul(full)).saturating_add(line.after), line))
    }
}

/// Where a reader of a log stands.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LogCursor {
    /// Which attempt of the container.
    pub attempt: u32,
    next: u64,
    timestamps: bool,
    bytes_left: Option<u64>,
    told_end: bool,
}

/// What a reader of a log gets.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LogPage {
    /// Whole lines.
    pub text: String,
    /// Whether there may be more: at once if there was text, else later.
    pub more: bool,
}

/// One container's life, as far as its log goes.
pub(super) struct Life<'a> {
    pub(super) log: &'a SimLog,
    pub(super) started_at: Time,
    pub(super) exit: Option<&'a Exit>,
}

impl Life<'_> {
    fn elapsed(&self, now: Time) -> Duration {
        self.exit.map_or(now, |e| e.finished_at.min(now)).since(self.started_at)
    }

    /// A cursor at the first line that `options` ask for.
    pub(super) fn open(&self, now: Time, attempt: u32, options: &LogOptions) -> LogCursor {
        let count = if self.started_at > now { 0 } else { self.log.count(self.elapsed(now)) };
        let mut next = count.saturating_sub(LINES_MAX);
        if let Some(since) = options.since.filter(|s| *s > self.started_at) {
            // A line written at `since` is part of it.
            let before = since.since(self.started_at).saturating_sub(Duration::from_micros(1));
            next = next.max(self.log.count(before).min(count));
        }
        let end = u64::from(self.told_end());
        if let Some(tail) = options.tail_lines {
            next = next.max((count + end).saturating_sub(tail).min(count));
        }
        LogCursor {
            attempt,
            next,
            timestamps: options.timestamps,
            bytes_left: options.limit_bytes,
            told_end: options.tail_lines == Some(0) && self.exit.is_some(),
        }
    }

    fn told_end(&self) -> bool {
        self.log.simulated.is_some() && self.exit.is_some()
    }

    fn push(&self, cursor: &mut LogCursor, at: Duration, text: &str, out: &mut String) {
        let mut line = String::new();
        if cursor.timestamps {
            // Times are microseconds; the format has nine digits.
            let time = (self.started_at + at).to_rfc3339_micros();
            line.push_str(time.trim_end_matches('Z'));
            line.push_str("000Z ");
        }
        line.push_str(text);
        line.push('\n');
        if let Some(left) = &mut cursor.bytes_left {
            let keep = line.len().min(usize::try_from(*left).unwrap_or(usize::MAX));
            let keep = (0..=keep).rev().find(|i| line.is_char_boundary(*i)).unwrap_or(0);
            *left = if keep < line.len() { 0 } else { *left - keep as u64 };
            line.truncate(keep);
        }
        out.push_str(&line);
    }

    /// The lines from the cursor on, which moves behind them.
    pub(super) fn read(&self, now: Time, cursor: &mut LogCursor) -> LogPage {
        let mut text = String::new();
        let count = if self.started_at > now { 0 } else { self.log.count(self.elapsed(now)) };
        let to = count.min(cursor.next.saturating_add(PAGE_LINES_MAX));
        while cursor.next < to && cursor.bytes_left != Some(0) {
            if let Some((at, line)) = self.log.line(cursor.next) {
                self.push(cursor, at, &line.text, &mut text);
            }
            cursor.next += 1;
        }
        let behind = cursor.next < count;
        if !behind
            && !cursor.told_end
            && let (Some(name), Some(exit)) = (&self.log.simulated, self.exit)
        {
            cursor.told_end = true;
            let line = format!("[simulated] container {name} ended with code {}", exit.code);
            self.push(cursor, exit.finished_at.since(self.started_at), &line, &mut text);
        }
        let more = cursor.bytes_left != Some(0) && (behind || self.exit.is_none());
        LogPage { text, more }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn write(after: u64, text: &str) -> Write {
        Write { after: Duration::from_millis(after), stream: Stream::Stdout, bytes: text.as_bytes().to_vec() }
    }

    fn ticking() -> SimLog {
        let end =
            End::Loops { first: 1, from: Duration::from_millis(100), period: Duration::from_millis(500) };
        let run = Run {
            writes: Vec::from([write(0, "start\n"), write(100, "a\nb\n"), write(300, "c\n")]),
            end,
            exits: false,
        };
        SimLog::new(None, &run, "c", "i")
    }

    fn text(log: &SimLog, now_ms: i64, exit: Option<&Exit>, options: &LogOptions) -> String {
        let life = Life { log, started_at: Time::from_secs(10), exit };
        let now = Time::from_millis(10_000 + now_ms);
        let mut cursor = life.open(now, 0, options);
        let mut all = String::new();
        loop {
            let page = life.read(now, &mut cursor);
            if page.text.is_empty() {
                return all;
            }
            all.push_str(&page.text);
        }
    }

    #[test]
    fn rounds_tail_since_and_limits() {
        let log = ticking();
        let all = LogOptions::default();
        assert_eq!(text(&log, 99, None, &all), "start\n");
        assert_eq!(text(&log, 650, None, &all), "start\na\nb\nc\na\nb\n");
        let tail = LogOptions { tail_lines: Some(2), ..LogOptions::default() };
        assert_eq!(text(&log, 820, None, &tail), "b\nc\n");
        assert_eq!(text(&log, 820, None, &LogOptions { tail_lines: Some(0), ..all.clone() }), "");
        let since = LogOptions { since: Some(Time::from_millis(10_300)), ..LogOptions::default() };
        assert_eq!(text(&log, 650, None, &since), "c\na\nb\n");
        let limit = LogOptions { limit_bytes: Some(9), ..LogOptions::default() };
        assert_eq!(text(&log, 650, None, &limit), "start\na\nb");
        let times = LogOptions { timestamps: true, tail_lines: Some(1), ..LogOptions::default() };
        assert_eq!(text(&log, 310, None, &times), "1970-01-01T00:00:10.300000000Z c\n");
    }

    #[test]
    fn what_no_process_writes_is_called_simulated() {
        let end = End::Unknown { at: Duration::ZERO, what: "nginx".into(), program: true };
        let log = SimLog::new(None, &Run { writes: Vec::new(), end, exits: false }, "web", "nginx:1");
        let exit = Exit {
            code: 143,
            signal: Some(15),
            oom_killed: false,
            started_at: Time::from_secs(10),
            finished_at: Time::from_secs(12),
            message: String::new(),
        };
        let text = text(&log, 5000, Some(&exit), &LogOptions::default());
        assert_eq!(
            text,
            "[simulated] container web of image nginx:1 started; no process runs behind it (nginx)\n\
             [simulated] container web ended with code 143\n"
        );
    }

    proptest! {
        /// A reader who comes often sees what one sees who comes once.
        #[test]
        fn pages_join(mut times in prop::collection::vec(0_i64..5_000, 1..20)) {
            times.sort_unstable();
            let log = ticking();
            let life = Life { log: &log, started_at: Time::from_secs(10), exit: None };
            let mut cursor = life.open(Time::from_secs(10), 0, &LogOptions::default());
            let mut seen = String::new();
            for at in &times {
                seen.push_str(&life.read(Time::from_millis(10_000 + at), &mut cursor).text);
            }
            prop_assert_eq!(seen, text(&log, times[times.len() - 1], None, &LogOptions::default()));
        }
    }
}
