//! What the example prints: lines for people, or JSON lines for programs.

use std::io::{IsTerminal as _, Write as _};
use std::sync::Mutex;
use std::time::{Duration, Instant};

use serde_json::{Value, json};

/// The value that `percent` of all are not above (nearest rank); 0 of none.
pub(crate) fn percentile(sorted: &[u64], percent: usize) -> u64 {
    let rank = (sorted.len() * percent).div_ceil(100).max(1);
    sorted.get(rank - 1).copied().unwrap_or(0)
}

/// How a part of the acceptance list ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// It holds.
    Pass,
    /// It does not hold.
    Fail(String),
    /// It is not built; this never counts as passed.
    NotYet(String),
}

/// Prints, with the time since the start before each line.
#[derive(Debug)]
pub struct Report {
    json: bool,
    started: Instant,
    /// Lines of the table that stands below, on a terminal.
    table_lines: Mutex<usize>,
}

impl Report {
    /// A report that begins now.
    #[must_use]
    pub fn new(json: bool) -> Self {
        Self { json, started: Instant::now(), table_lines: Mutex::new(0) }
    }

    /// The time since the start.
    #[must_use]
    pub fn elapsed(&self) -> Duration {
        self.started.elapsed()
    }

    /// Whether a table may be drawn in place.
    #[must_use]
    pub fn is_live(&self) -> bool {
        !self.json && std::io::stdout().is_terminal()
    }

    fn print(&self, text: &str) {
        let mut lines = self.table_lines.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
        let mut out = std::io::stdout().lock();
        if *lines > 0 {
            // The table is drawn anew below the line.
            let _ = write!(out, "\x1b[{}A\x1b[J", *lines);
            *lines = 0;
        }
        // Whoever reads may have gone; the cluster runs on.
        let _ = writeln!(out, "{text}");
        let _ = out.flush();
    }

    /// One line of progress about `topic`.
    pub fn line(&self, topic: &str, text: &str) {
        let at = self.elapsed();
        if self.json {
            self.print(&json!({ "at_ms": at.as_millis(), "topic": topic, "text": text }).to_string());
        } else {
            self.print(&format!("{:7.2}s  {topic:<10} {text}", at.as_secs_f64()));
        }
    }

    /// A figure that was measured.
    pub fn figure(&self, name: &str, value: &Value, unit: &str) {
        if self.json {
            let at = self.elapsed().as_millis();
            self.print(&json!({ "at_ms": at, "figure": name, "value": value, "unit": unit }).to_string());
        } else {
            let value = value.as_str().map_or_else(|| value.to_string(), str::to_string);
            self.print(&format!("          {:<10} {name}: {value} {unit}", "figure"));
        }
    }

    /// The end of one part of the acceptance list.
    pub fn check(&self, name: &str, verdict: &Verdict, took: Duration, detail: &str) {
        let (word, why) = match verdict {
            Verdict::Pass => ("ok", detail.to_string()),
            Verdict::Fail(why) => ("FAILED", why.clone()),
            Verdict::NotYet(why) => ("not yet", why.clone()),
        };
        if self.json {
            let line = json!({
                "at_ms": self.elapsed().as_millis(), "check": name, "verdict": word,
                "took_ms": took.as_millis(), "detail": why,
            });
            self.print(&line.to_string());
        } else {
            let at = self.elapsed().as_secs_f64();
            self.print(&format!("{at:7.2}s  {name:<10} {word:<8} {:>7.2}s  {why}", took.as_secs_f64()));
        }
    }

    /// Draws a table in place of the one before; only if [`Report::is_live`].
    pub fn table(&self, rows: &[String]) {
        let mut lines = self.table_lines.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
        let mut out = std::io::stdout().lock();
        if *lines > 0 {
            let _ = write!(out, "\x1b[{}A\x1b[J", *lines);
        }
        for row in rows {
            let _ = writeln!(out, "{row}");
        }
        let _ = out.flush();
        *lines = rows.len();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn percentiles_are_of_the_nearest_rank() {
        let hundred: Vec<u64> = (1..=100).collect();
        assert_eq!(
            (percentile(&hundred, 50), percentile(&hundred, 99), percentile(&hundred, 100)),
            (50, 99, 100)
        );
        assert_eq!((percentile(&[], 50), percentile(&[7], 1), percentile(&[1, 2, 3], 50)), (0, 7, 2));
    }
}
