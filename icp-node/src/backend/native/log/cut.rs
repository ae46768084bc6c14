//! Which lines of a log a caller gets, and how they look.

use alloc::vec::Vec;

use icp_core::base::Time;

/// A line of a log file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Line<'a> {
    pub(crate) time: &'a str,
    /// Whether the line of the container ends here.
    pub(crate) full: bool,
    pub(crate) text: &'a [u8],
}

/// Reads a line without its end; `None` if it is not one (a file cut by a crash).
pub(crate) fn parse_line(line: &[u8]) -> Option<Line<'_>> {
    let mut fields = line.splitn(4, |b| *b == b' ');
    let time = core::str::from_utf8(fields.next()?).ok()?;
    let _stream = fields.next()?;
    let full = match fields.next()? {
        b"F" => true,
        b"P" => false,
        _ => return None,
    };
    Some(Line { time, full, text: fields.next().unwrap_or_default() })
}

/// Cuts lines to what was asked for.
#[derive(Clone, Debug, Default)]
pub(crate) struct Cut {
    since: Option<Time>,
    timestamps: bool,
    left: Option<u64>,
    /// The line that was given last goes on.
    within: bool,
}

impl Cut {
    pub(crate) fn new(since: Option<Time>, timestamps: bool, limit_bytes: Option<u64>) -> Self {
        Self { since, timestamps, left: limit_bytes, within: false }
    }

    /// Whether nothing more is wanted.
    pub(crate) fn is_done(&self) -> bool {
        self.left == Some(0)
    }

    /// Takes a line of the file, without its end, and appends what the caller sees of it.
    pub(crate) fn line(&mut self, line: &[u8], out: &mut Vec<u8>) {
        let Some(line) = parse_line(line) else { return };
        if let Some(since) = self.since {
            match line.time.parse::<Time>() {
                Ok(at) if at >= since => self.since = None,
                _ => return,
            }
        }
        let from = out.len();
        if self.timestamps && !self.within {
            out.extend_from_slice(line.time.as_bytes());
            out.push(b' ');
        }
        out.extend_from_slice(line.text);
        if line.full {
            out.push(b'\n');
        }
        self.within = !line.full;
        if let Some(left) = &mut self.left {
            let added = u64::try_from(out.len() - from).unwrap_or(u64::MAX);
            let given = added.min(*left);
            *left -= given;
            out.truncate(from + usize::try_from(given).unwrap_or(usize::MAX));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use alloc::string::String;

    const LOG: &str = "2026-01-01T00:00:01.000000001Z stdout F one\n2026-01-01T00:00:02Z stderr P tw\n\
                       2026-01-01T00:00:02Z stderr F o\nbroken\n2026-01-01T00:00:03Z stdout F \n";

    fn cut(since: Option<&str>, timestamps: bool, limit: Option<u64>) -> String {
        let mut cut = Cut::new(since.map(|s| s.parse().unwrap()), timestamps, limit);
        let mut out = Vec::new();
        LOG.lines().for_each(|l| cut.line(l.as_bytes(), &mut out));
        String::from_utf8(out).unwrap()
    }

    #[test]
    fn cuts() {
        assert_eq!(cut(None, false, None), "one\ntwo\n\n");
        assert_eq!(cut(Some("2026-01-01T00:00:02Z"), false, None), "two\n\n");
        assert_eq!(cut(Some("2027-01-01T00:00:02Z"), false, None), "");
        assert_eq!(cut(None, false, Some(5)), "one\nt");
        assert_eq!(
            cut(None, true, None),
            "2026-01-01T00:00:01.000000001Z one\n2026-01-01T00:00:02Z two\n2026-01-01T00:00:03Z \n"
        );
    }
}
